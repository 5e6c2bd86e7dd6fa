"""The base of all pipelines: a tokenizer, a predictor and a decoder in a row.

A pipeline tokenises (`features`), runs a predictor and reads its arrays (`decode`), and does nothing else. One input
gives one result, a list gives a list, and any other iterable (a generator, an open file) gives a generator that works
as it is read: `runtime.stream` looks a few thousand inputs ahead and no further, so that millions need no more memory
than those. Texts longer than the model's input are read in windows where results stand inside a text, and elsewhere if
the caller wishes; otherwise they are cut, as `features` describes, and a call logs how many were.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pocketbert.errors import InputError
from pocketbert.features import Features, Predictor, fit
from pocketbert.runtime.stream import Answer, Job, answers

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig
    from pocketbert.tokenization import BertTokenizer

logger = logging.getLogger("pocketbert")
Result = dict[str, Any]
Output = Mapping[str, np.ndarray]


class Pipeline(ABC):
    """A predictor between a tokenizer and a decoder; made by `pipeline`."""

    task: ClassVar[str]
    head: ClassVar[str]  # the part of a model class's name after its family
    bundled: ClassVar[str | None] = None  # the folder of the model that the package brings
    whole_texts: ClassVar[str] = ""  # the option with which texts of any length are read to their end

    def __init__(
        self, predictor: Predictor, tokenizer: BertTokenizer, config: PreTrainedConfig, **options: Any
    ) -> None:
        self.predictor, self.tokenizer, self.config = predictor, tokenizer, config
        self.max_length = fit(tokenizer, config.max_position_embeddings)
        self.options = self._known(options)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The result of one input, of a list, or lazily of any other iterable. The options are those of `job`."""
        if isinstance(inputs, list | tuple):
            return [answer.value for answer in self.noting_cut(self.stream(inputs, **options))]
        if isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Mapping):
            return (answer.value for answer in self.noting_cut(self.stream(inputs, **options)))
        try:
            [answer] = self.noting_cut(self.stream([inputs], **options))
        except InputError as error:
            raise InputError(error.message) from None  # there is no other input, so no position
        return answer.value

    def stream(self, inputs: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """Results of inputs as they are read, each with the sequences that the model read; see `runtime.stream`."""
        return self.run(inputs, self.job(**(self.options | self._known(options))))

    def run(self, inputs: Iterable[Any], job: Job) -> Iterator[Answer]:
        """Results of inputs as they are read, by a job of one's own."""
        return answers(inputs, job, self.predictor)

    def noting_cut(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Pass answers on; after the last one, log in one line how many inputs were cut, if any were."""
        count = cut = 0
        try:
            for answer in answers:
                count += 1
                cut += any(features.cut for features in answer.features)
                yield answer
        finally:
            if cut:
                logger.warning("%s", self.cut_note(cut, count))

    def cut_note(self, cut: int, count: int, remedy: str | None = None) -> str:
        """Return a line that says that `cut` of `count` inputs were cut; `remedy` reads them whole."""
        some = "the text is" if count == 1 else f"{cut:,} of {count:,} texts are"
        remedy = f"{self.whole_texts}=True" if remedy is None and self.whole_texts else remedy
        rest = "its end was" if count == 1 else "their ends were"
        ways = f"; {remedy} reads whole texts" if remedy else ""
        return f"{some} longer than the model's limit of {self.max_length} tokens: {rest} ignored{ways}"

    @abstractmethod
    def job(self) -> Job:
        """The steps before and after the model; a subclass adds its options as keywords."""

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        known = list(inspect.signature(self.job).parameters)
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"{self.task} has no option {', '.join(unknown)}: it takes {', '.join(known) or 'none'}")
        return options

    def array(self, output: Output, name: str, axes: int) -> np.ndarray:
        """An array of the model's output, which must have so many axes and hold numbers."""
        if name not in output or output[name].ndim != axes:
            given = ", ".join(f"{key} {list(array.shape)}" for key, array in output.items())
            raise InputError(f"{self.task} needs {name} of a model {self.head}; this one gives {given}")
        if np.isnan(output[name]).any():
            raise InputError(f"the {name} of the model are not numbers (nan): its weights are damaged")
        return output[name]


def fields_of(inputs: Sequence[Any], *names: str) -> list[tuple[Any, ...]]:
    """Of dictionary inputs with exactly the keys `names`, all values of each key."""
    for position, one in enumerate(inputs):
        if not isinstance(one, Mapping) or one.keys() != set(names):
            message = f"an input must be a dictionary with the keys {', '.join(names)}, not {one!r:.80}"
            raise InputError(message, position)
    return [tuple(one[name] for one in inputs) for name in names]


def alone(features: Sequence[Features]) -> list[list[Features]]:
    """One sequence for every input."""
    return [[one] for one in features]

"""The base of all pipelines: a tokenizer, a predictor and a decoder in a row.

A pipeline tokenises (`features`), runs a predictor and reads its arrays (`decode`), and does nothing else. One input
gives one result, a list gives a list, and any other iterable (a generator, an open file) gives a generator that works
as it is read: `runtime.stream` looks a few thousand inputs ahead and no further, so that millions need no more memory
than those. Texts longer than the model's input are cut at their end, as `features` describes; only contexts of
questions are read in windows.
"""

from __future__ import annotations

import inspect
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

Result = dict[str, Any]
Output = Mapping[str, np.ndarray]


class Pipeline(ABC):
    """A predictor between a tokenizer and a decoder; made by `pipeline`."""

    task: ClassVar[str]
    head: ClassVar[str]  # the part of a model class's name after its family
    bundled: ClassVar[str | None] = None  # the folder of the model that the package brings

    def __init__(
        self, predictor: Predictor, tokenizer: BertTokenizer, config: PreTrainedConfig, **options: Any
    ) -> None:
        self.predictor, self.tokenizer, self.config = predictor, tokenizer, config
        self.max_length = fit(tokenizer, config.max_position_embeddings)
        self.options = self._known(options)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The result of one input, of a list, or lazily of any other iterable. The options are those of `job`."""
        if isinstance(inputs, list | tuple):
            return [answer.value for answer in self.stream(inputs, **options)]
        if isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Mapping):
            return (answer.value for answer in self.stream(inputs, **options))
        try:
            [answer] = self.stream([inputs], **options)
        except InputError as error:
            raise InputError(error.message) from None  # there is no other input, so no position
        return answer.value

    def stream(self, inputs: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """Results of inputs as they are read, each with the sequences that the model read; see `runtime.stream`."""
        return self.run(inputs, self.job(**(self.options | self._known(options))))

    def run(self, inputs: Iterable[Any], job: Job) -> Iterator[Answer]:
        """Results of inputs as they are read, by a job of one's own."""
        return answers(inputs, job, self.predictor)

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

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
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pocketbert.arguments import check_idle
from pocketbert.errors import InputError
from pocketbert.features import Predictor, all_unknown, check_finite, fit
from pocketbert.pipelines.arguments import IDLE, READING, F, Reading, make_reading
from pocketbert.pipelines.inputs import Results, several, text_of
from pocketbert.runtime.stream import PAUSE, Answer, Job, answers

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
    bundled: ClassVar[str | None] = None  # the name of the bundled model that is the default
    whole_texts: ClassVar[str] = ""  # the option with which texts of any length are read to their end
    nested: ClassVar[str | None] = None  # a name for a dictionary of the tokenizer's arguments

    def __init__(
        self, predictor: Predictor, tokenizer: BertTokenizer, config: PreTrainedConfig, **options: Any
    ) -> None:
        self.predictor, self.tokenizer, self.config = predictor, tokenizer, config
        self.max_length = fit(tokenizer, config.max_tokens)
        self.options = self._known(options)

    def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
        """The result of one input, of a list, or lazily of any other iterable. The options are those of `job`."""
        if others:
            raise InputError(f"{self.task} takes its inputs in one argument: pass several texts as a list")
        given = several(inputs)
        if given is None:
            return self._one(inputs, **options)
        values = (answer.value for answer in self._noted(given, **options))
        if isinstance(given, list):
            return list(values)
        return Results(values, len(given)) if isinstance(given, Sized) else values

    def predict(self, inputs: Any, **options: Any) -> Any:
        """The call, under scikit-learn's name."""
        return self(inputs, **options)

    def transform(self, inputs: Any, **options: Any) -> Any:
        """The call, under scikit-learn's name."""
        return self(inputs, **options)

    @property
    def model(self) -> Predictor:
        """The predictor, under the name that it has in transformers."""
        return self.predictor

    def __repr__(self) -> str:
        labels = "" if self.head != "ForSequenceClassification" else f", {self.config.num_labels} labels"
        return f"{type(self).__name__}({self.config.model_type}{labels}, up to {self.max_length} tokens)"

    def _noted(self, inputs: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """The stream, with a note on what was cut unless the caller asked to cut it."""
        found = self.stream(inputs, **options)
        return self.noting(found, cut=not (self.options | self._known(options)).get("truncation"))

    def _one(self, one: Any, **options: Any) -> Any:
        try:
            [answer] = self._noted([one], **options)
        except InputError as error:
            raise InputError(error.message) from None  # there is no other input, so no position
        return answer.value

    def stream(self, inputs: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """Results of inputs as they are read, each with the sequences that the model read; see `runtime.stream`."""
        given = self.options | self._known(options)
        chosen = {name: given.pop(name) for name in READING if name in given}
        if chosen and "reading" in self._own:
            given["reading"] = self.reading(**chosen)
        return self.run(self._rows(inputs), self.job(**given))

    def run(self, inputs: Iterable[Any], job: Job) -> Iterator[Answer]:
        """Results of inputs as they are read, by a job of one's own."""
        return answers(inputs, job, self.predictor)

    def noting(self, answers: Iterable[Answer], *, cut: bool = True) -> Iterator[Answer]:
        """Pass answers on; after the last one, log how many were cut, if `cut`, and of how many no word is known.

        Not where somebody stops before, in an error: the rest may be closed at any time later.
        """
        count = shortened = unknown = 0
        for answer in answers:
            count += 1
            shortened += cut and any(features.cut for features in answer.features)
            unknown += all_unknown(answer.features, self.tokenizer)
            yield answer
        if shortened:
            logger.warning("%s", self.cut_note(shortened, count))
        if unknown:
            logger.warning("%s", unknown_note(unknown, count))

    def cut_note(self, cut: int, count: int, remedy: str | None = None) -> str:
        """Return a line that says that `cut` of `count` inputs were cut; `remedy` reads them whole."""
        some = "the text is" if count == 1 else f"{cut:,} of {count:,} texts are"
        remedy = f"{self.whole_texts}=True" if remedy is None and self.whole_texts else remedy
        rest = "its end was" if count == 1 else "their ends were"
        ways = f"; {remedy} reads whole texts" if remedy else ""
        return f"{some} longer than the model's limit of {self.max_length} tokens: {rest} ignored{ways}"

    def reading(self, **given: Any) -> Reading:
        """How the pipeline reads texts, as the arguments `arguments.READING` of a call choose."""
        return make_reading(self.tokenizer, self.max_length, self.config.max_position_embeddings, given)

    def row(self, one: Any) -> Any:
        """An input as `job` takes it, such as the text of a dictionary."""
        return text_of(one) if isinstance(one, Mapping) else one

    def _rows(self, inputs: Iterable[Any]) -> Iterator[Any]:
        position = 0
        for one in inputs:
            try:
                yield one if one is PAUSE else self.row(one)
            except InputError as error:
                raise InputError(error.message, position) from None
            position += one is not PAUSE

    @abstractmethod
    def job(self) -> Job:
        """The steps before and after the model; a subclass adds its options as keywords."""

    @property
    def _own(self) -> list[str]:
        """The options of `job`."""
        return list(inspect.signature(self.job).parameters)

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        """`options` without those that choose nothing, and with those in the dictionary `nested` beside the others."""
        inner = options.get(self.nested) if self.nested else None
        if inner is not None:
            if not isinstance(inner, Mapping):
                raise InputError(f"{self.nested}={inner!r:.60} must be a dictionary")
            if unknown := [name for name in inner if name not in (*READING, *IDLE)]:
                raise InputError(
                    f"{self.nested}: {', '.join(unknown)} is not supported for the tokenizer; leave it out"
                )
            if twice := [name for name in inner if name in options]:
                raise InputError(f"{', '.join(twice)} is given both in {self.nested} and beside it")
            options = {**options, **inner}
        own = [name for name in self._own if name != "reading"]
        known = [*own, *READING, *IDLE, *([self.nested] if self.nested else [])]
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"{self.task} has no option {', '.join(unknown)}: it takes {', '.join(own) or 'none'}")
        check_idle({name: idle for name, idle in IDLE.items() if name not in own}, options)
        chosen = {name: value for name, value in options.items() if name in own or name in READING}
        self.reading(**{name: value for name, value in chosen.items() if name in READING})
        return chosen

    def array(self, output: Output, name: str, axes: int) -> np.ndarray:
        """An array of the model's output, which must have so many axes and hold numbers."""
        if name not in output or output[name].ndim != axes:
            given = ", ".join(f"{key} {list(array.shape)}" for key, array in output.items())
            raise InputError(f"{self.task} needs {name} of a model {self.head}; this one gives {given}")
        check_finite({name: output[name]})
        return output[name]


def unknown_note(unknown: int, count: int) -> str:
    """Return a line that says that `unknown` of `count` inputs have no word that the model knows."""
    some = "the text has" if count == 1 else f"{unknown:,} of {count:,} texts have"
    return f"{some} no word of the model's vocabulary: the result does not depend on {'it' if count == 1 else 'them'}"


def alone(features: Sequence[F]) -> list[list[F]]:
    """One sequence for every input."""
    return [[one] for one in features]

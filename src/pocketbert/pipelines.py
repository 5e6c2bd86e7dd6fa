"""Text in, answers out: `pipeline(task, model)` with the field's task names, call arguments and result shapes.

A pipeline tokenises (`features`), runs a predictor and reads its arrays (`decode`), and does nothing else. One input
gives one result, a list gives a list, and any other iterable (a generator, an open file) gives a generator that works
as it is read: `runtime.stream` looks a few thousand inputs ahead and no further, so that millions need no more memory
than those. Texts longer than the model takes are cut at their end, as `features` says; only contexts of questions are
read in windows.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
from tokenizers.decoders import WordPiece

from pocketbert import decode
from pocketbert.errors import InputError, require
from pocketbert.features import (
    Features,
    Predictor,
    Tokens,
    Window,
    encode_choices,
    encode_questions,
    encode_texts,
    encode_tokens,
    encode_words,
    fit,
)
from pocketbert.runtime.stream import Answer, Job, answers

if TYPE_CHECKING:
    from pocketbert.configs import PreTrainedConfig
    from pocketbert.tokenization import BertTokenizer

Result = dict[str, Any]
Output = Mapping[str, np.ndarray]
BUNDLED = Path(__file__).parent / "bundled"


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
        """Answer one input, a list of them, or any other iterable lazily. The options are those of `job`."""
        if isinstance(inputs, list | tuple):
            return [answer.value for answer in self.stream(inputs, **options)]
        if isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Mapping):
            return (answer.value for answer in self.stream(inputs, **options))
        try:
            [answer] = self.stream([inputs], **options)
        except InputError as error:
            raise InputError(error.message) from None  # there is no other input to tell it from
        return answer.value

    def stream(self, inputs: Iterable[Any], **options: Any) -> Iterator[Answer]:
        """Answer inputs as they are read, each with what the model read of it; see `runtime.stream`."""
        return answers(inputs, self.job(**(self.options | self._known(options))), self.predictor)

    @abstractmethod
    def job(self) -> Job:
        """How inputs are answered; a subclass adds its options as keywords."""

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        known = list(inspect.signature(self.job).parameters)
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"{self.task} has no option {', '.join(unknown)}: it takes {', '.join(known) or 'none'}")
        return options

    def _array(self, output: Output, name: str, axes: int) -> np.ndarray:
        """An array of the model's output, which must have so many axes and hold numbers."""
        if name not in output or output[name].ndim != axes:
            given = ", ".join(f"{key} {list(array.shape)}" for key, array in output.items())
            raise InputError(f"{self.task} needs {name} of a model {self.head}; this one gives {given}")
        if np.isnan(output[name]).any():
            raise InputError(f"the {name} of the model are not numbers (nan): its weights are damaged")
        return output[name]


def _fields(inputs: Sequence[Any], *names: str) -> list[tuple[Any, ...]]:
    """Of dictionary inputs with exactly the keys `names`, all values of each key."""
    for position, one in enumerate(inputs):
        if not isinstance(one, Mapping) or one.keys() != set(names):
            message = f"an input must be a dictionary with the keys {', '.join(names)}, not {one!r:.80}"
            raise InputError(message, position)
    return [tuple(one[name] for one in inputs) for name in names]


def _alone(features: Sequence[Features]) -> list[list[Features]]:
    """One sequence for every input."""
    return [[one] for one in features]


class TextClassification(Pipeline):
    """Label texts, or pairs of texts given as `{"text": …, "text_pair": …}`."""

    task = "text-classification"
    head = "ForSequenceClassification"
    bundled = "sst2"

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """As all pipelines, but one text without `top_k` gives a list of one result: so the field has it."""
        result = super().__call__(inputs, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in self.options | options else result

    def job(self, *, top_k: int | None = 0, function_to_apply: str | None = None) -> Job:
        """The best `{"label", "score"}` of each text; with `top_k` a list of so many, of all if it is None.

        The score is a probability, or for regression the number itself, unless `function_to_apply` ("softmax",
        "sigmoid" or "none") says otherwise.
        """

        def encode(inputs: list[Any]) -> list[list[Features]]:
            texts, pairs = inputs, None
            if any(isinstance(one, Mapping) for one in inputs):
                texts, pairs = map(list, _fields(inputs, "text", "text_pair"))
            return _alone(encode_texts(self.tokenizer, texts, pairs, max_length=self.max_length))

        def read(text: Any, features: Sequence[Features], outputs: Sequence[Output]) -> Result | list[Result]:
            scores = decode.label_scores(
                self._array(outputs[0], "logits", 1),
                problem_type=self.config.problem_type,
                function_to_apply=function_to_apply,
            )
            best = decode.labels(scores, self.config.id2label, 1 if top_k == 0 else top_k)
            return best[0] if top_k == 0 else best

        return Job(encode, read)


class ZeroShotClassification(Pipeline):
    """Label texts with labels of your own, by asking a language-inference model whether each follows from the text."""

    task = "zero-shot-classification"
    head = "ForSequenceClassification"

    def __call__(self, inputs: Any, candidate_labels: str | Sequence[str] | None = None, **options: Any) -> Any:
        """As all pipelines; `candidate_labels` may be the second argument."""
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return super().__call__(inputs, **options)

    def job(
        self,
        *,
        candidate_labels: str | Sequence[str] = (),
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        entailment: str | None = None,
        contradiction: str | None = None,
    ) -> Job:
        """`{"sequence", "labels", "scores"}` of each text, best label first.

        The scores of a text add up to 1; with `multi_label`, or with one label alone, each label is judged for itself,
        entailment against contradiction. `candidate_labels` is a list, or a text with commas. A model whose labels do
        not say what they are (LABEL_0, …) needs the names of those that mean `entailment` and `contradiction`.
        """
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        if not candidate_labels:
            raise InputError("zero-shot-classification needs candidate_labels to choose from")
        if "{}" not in hypothesis_template:
            raise InputError(f"hypothesis_template={hypothesis_template!r} must hold {{}} where the label goes")
        hypotheses = [hypothesis_template.replace("{}", str(label)) for label in candidate_labels]
        count, names = len(hypotheses), dict(enumerate(candidate_labels))
        entails = self._label("entailment", entailment, ("entail",))
        alone = multi_label or count == 1
        contradicts = self._label("contradiction", contradiction, ("contradict", "not_entail")) if alone else None

        def encode(inputs: list[Any]) -> list[list[Features]]:
            features = encode_texts(
                self.tokenizer,
                [text for text in inputs for _ in hypotheses],
                hypotheses * len(inputs),
                max_length=self.max_length,
                truncation="only_first",
            )
            return [features[start : start + count] for start in range(0, len(features), count)]

        def read(text: str, features: Sequence[Features], outputs: Sequence[Output]) -> Result:
            rows = np.stack([self._array(output, "logits", 1) for output in outputs])
            found = decode.labels(decode.entailment(rows, entails, contradicts), names)
            return {
                "sequence": text,
                "labels": [one["label"] for one in found],
                "scores": [one["score"] for one in found],
            }

        return Job(encode, read, inputs=max(1, Job.inputs // count), characters=Job.characters // count)

    def _label(self, role: str, name: str | None, beginnings: tuple[str, ...]) -> int:
        """The index of the label called `name`, or of the one whose name begins like the role's."""
        for index, label in self.config.id2label.items():
            if label == name or (name is None and label.lower().startswith(beginnings)):
                return index
        known = ", ".join(self.config.id2label.values())
        raise InputError(f"the model's labels are {known}: pass {role}=… with the name of the one that means {role}")


class TokenClassification(Pipeline):
    """Find the entities of texts."""

    task = "token-classification"
    head = "ForTokenClassification"

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """As all pipelines; with `is_split_into_words` one input is a list of words."""
        one_sentence = isinstance(inputs, list | tuple) and all(isinstance(word, str) for word in inputs)
        if one_sentence and (self.options | options).get("is_split_into_words"):
            [result] = super().__call__([inputs], **options)
            return result
        return super().__call__(inputs, **options)

    def job(
        self,
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        is_split_into_words: bool = False,
    ) -> Job:
        """Entities of each text, as `decode.entities` describes them; of words, in the words joined with spaces."""
        encode = encode_words if is_split_into_words else encode_tokens
        join = WordPiece(prefix=self.tokenizer.wordpieces_prefix).decode

        def read(one: Any, features: Sequence[Tokens], outputs: Sequence[Output]) -> list[Result]:
            [tokens] = features
            return decode.entities(
                self._array(outputs[0], "logits", 2),
                tokens,
                self._names(" ".join(one) if is_split_into_words else one, tokens),
                self.config.id2label,
                aggregation_strategy=aggregation_strategy,
                ignore_labels=ignore_labels,
                join=join,
            )

        return Job(lambda inputs: _alone(encode(self.tokenizer, inputs, max_length=self.max_length)), read)

    def _names(self, text: str, tokens: Tokens) -> list[str]:
        """The vocabulary entry of each token; of an unknown one, what the text says there."""
        names: list[str] = self.tokenizer.convert_ids_to_tokens(tokens.input_ids.tolist())
        for i in np.flatnonzero(tokens.input_ids == self.tokenizer.unk_token_id):
            names[i] = text[slice(*tokens.offsets[i])]
        return names


class QuestionAnswering(Pipeline):
    """Find the answers to questions in their contexts, of any length."""

    task = "question-answering"
    head = "ForQuestionAnswering"

    def __call__(self, inputs: Any = None, *, question: Any = None, context: Any = None, **options: Any) -> Any:
        """Answer `question` from `context` (or lists of them), or inputs `{"question": …, "context": …}`."""
        if inputs is None:
            if isinstance(question, str):
                inputs = {"question": question, "context": context}
            else:
                contexts = [context] * len(question) if isinstance(context, str) else context
                if not question or len(question) != len(contexts or ()):
                    raise InputError("question and context must be two texts, or two lists of the same length")
                inputs = [{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)]
        return super().__call__(inputs, **options)

    def job(
        self,
        *,
        top_k: int = 1,
        handle_impossible_answer: bool = False,
        null_threshold: float = 0.0,
        max_answer_len: int = 30,
        max_seq_len: int = 384,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
    ) -> Job:
        """The best `{"score", "start", "end", "answer"}` of each question, or a list of the `top_k` best if over 1.

        `decode.answers` says what the score is. With `handle_impossible_answer` the empty answer competes, and wins by
        more than `null_threshold`. Lengths are in tokens; `doc_stride` is how far a window starts after the last. It is
        128 and a question 64 tokens long at most, less for models that read less than 384, if not given.
        """

        def encode(inputs: list[Any]) -> list[list[Window]]:
            questions, contexts = _fields(inputs, "question", "context")
            return encode_questions(
                self.tokenizer,
                questions,
                contexts,
                max_length=min(max_seq_len, self.max_length),
                doc_stride=doc_stride,
                max_question_length=max_question_len,
            )

        def read(one: Any, windows: Sequence[Window], outputs: Sequence[Output]) -> Result | list[Result]:
            found = [
                {name: self._array(output, name, 1) for name in ("start_logits", "end_logits")} for output in outputs
            ]
            spans = decode.spans(windows, found, n_best=max(20, top_k), max_answer_length=max_answer_len)
            null = decode.null_logit(found) if handle_impossible_answer else None
            best = decode.answers(spans, one["context"], top_k=top_k, null=null, null_threshold=null_threshold)
            return best[0] if top_k == 1 else best

        return Job(encode, read)


class FillMask(Pipeline):
    """Fill the gaps, written [MASK], of texts."""

    task = "fill-mask"
    head = "ForMaskedLM"

    def job(self, *, top_k: int = 5, targets: str | Sequence[str] | None = None) -> Job:
        """The `top_k` best `{"score", "token", "token_str", "sequence"}` of each text; of each gap, if it has several.

        `targets` are the words to choose among, each a single token of the vocabulary.
        """
        ids = None if targets is None else self._token_ids([targets] if isinstance(targets, str) else targets)
        mask = self.tokenizer.mask_token_id

        def encode(inputs: list[Any]) -> list[list[Features]]:
            features = [
                replace(one, rows=np.flatnonzero(one.input_ids == mask).astype(np.int32))
                for one in encode_texts(self.tokenizer, inputs, max_length=self.max_length)
            ]
            for position, (text, one) in enumerate(zip(inputs, features, strict=True)):
                if mask not in one.input_ids:
                    message = f"no {self.tokenizer.mask_token} in the first {self.max_length} tokens of {text!r:.60}"
                    raise InputError(message, position)
            return _alone(features)

        def read(
            text: str, features: Sequence[Features], outputs: Sequence[Output]
        ) -> list[Result] | list[list[Result]]:
            [one], logits = features, self._array(outputs[0], "logits", 2)
            assert one.rows is not None
            filled = [
                [
                    self._filled(one, int(place), token, score, alone=len(logits) == 1)
                    for token, score in decode.fills(scores, top_k, ids)
                ]
                for place, scores in zip(one.rows, logits, strict=True)
            ]
            return filled[0] if len(filled) == 1 else filled

        return Job(encode, read)

    def _filled(self, one: Features, place: int, token: int, score: float, *, alone: bool) -> Result:
        ids = one.input_ids.copy()
        ids[place] = token
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            # Other gaps would go with the special tokens, so these stay if there are any.
            "sequence": self.tokenizer.decode(ids.tolist(), skip_special_tokens=alone),
        }

    def _token_ids(self, targets: Sequence[str]) -> list[int]:
        vocabulary, ids = self.tokenizer.get_vocab(), []
        for target in targets:
            tokens = [target] if target in vocabulary else self.tokenizer.tokenize(target)
            if len(tokens) != 1:
                raise InputError(f"the target {target!r} is not one token of the vocabulary but {tokens}")
            ids.append(vocabulary[tokens[0]])
        return list(dict.fromkeys(ids))


class MultipleChoice(Pipeline):
    """Choose how a text goes on, or which answer fits a question."""

    task = "multiple-choice"
    head = "ForMultipleChoice"

    def __call__(self, inputs: Any = None, *, prompt: Any = None, choices: Any = None, **options: Any) -> Any:
        """Judge `choices` for `prompt`, or inputs `{"prompt": …, "choices": […]}`."""
        return super().__call__({"prompt": prompt, "choices": choices} if inputs is None else inputs, **options)

    def job(self) -> Job:
        """All choices of each input as `{"choice", "index", "score"}`, best first; the scores add up to 1."""

        def encode(inputs: list[Any]) -> list[list[Features]]:
            prompts, choices = _fields(inputs, "prompt", "choices")
            for position, options in enumerate(choices):
                if not isinstance(options, list | tuple) or not options:
                    raise InputError(f"choices must be a list of texts, not {options!r:.60}", position)
            return encode_choices(self.tokenizer, prompts, choices, max_length=self.max_length)

        def read(one: Any, features: Sequence[Features], outputs: Sequence[Output]) -> list[Result]:
            logits = np.concatenate([self._array(output, "logits", 1) for output in outputs])
            return decode.choices(logits, one["choices"])

        return Job(encode, read)


class FeatureExtraction(Pipeline):
    """Turn texts into vectors."""

    task = "feature-extraction"
    head = "Model"

    def job(self, *, pooling: str | None = None, normalize: bool = False) -> Job:
        """The last hidden states of each text, nested lists [1, tokens, hidden]; with `pooling` one vector [hidden].

        `pooling` is "mean" (of all tokens) or "cls"; `normalize` gives the vector length 1.
        """
        if normalize and pooling is None:
            raise InputError("normalize needs pooling='mean' or 'cls': it is for one vector a text")

        def read(text: str, features: Sequence[Features], outputs: Sequence[Output]) -> list[Any]:
            hidden = self._array(outputs[0], "last_hidden_state", 2)
            return [hidden.tolist()] if pooling is None else decode.pool(hidden, pooling, normalize=normalize).tolist()

        # A number in a list takes 32 bytes: 25 kB a vector, or a token, of a model as wide as BERT-base.
        few = {"inputs": 256} if pooling else {"inputs": 64, "characters": 1 << 13}
        return Job(lambda inputs: _alone(encode_texts(self.tokenizer, inputs, max_length=self.max_length)), read, **few)


TASKS: dict[str, type[Pipeline]] = {
    kind.task: kind
    for kind in (
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        FillMask,
        MultipleChoice,
        FeatureExtraction,
        ZeroShotClassification,
    )
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


@overload
def pipeline(task: Literal["question-answering"], *args: Any, **options: Any) -> QuestionAnswering: ...
@overload
def pipeline(task: Literal["multiple-choice"], *args: Any, **options: Any) -> MultipleChoice: ...
@overload
def pipeline(task: Literal["zero-shot-classification"], *args: Any, **options: Any) -> ZeroShotClassification: ...
@overload
def pipeline(task: str, *args: Any, **options: Any) -> Pipeline: ...
def pipeline(
    task: str,
    model: Any = None,
    tokenizer: Any = None,
    *,
    config: PreTrainedConfig | None = None,
    device: Any = None,
    revision: str | None = None,
    **options: Any,
) -> Pipeline:
    """Make the pipeline of a task.

    Args:
        task: One of `TASKS`, or "sentiment-analysis" or "ner".
        model: A model folder, a hub name, a model object, or any `features.Predictor`. Without one,
            text-classification uses the bundled model, which tells positive from negative sentences.
        tokenizer: A tokenizer, or the folder or hub name of one; by default that of the model's folder or name.
        config: The model's configuration, where `model` is a predictor that does not have one as `config`.
        device: Run the model in PyTorch, on this device, as in `torch.device`. By default models of folders and names
            run on the engine, which needs no PyTorch.
        revision: A branch, tag or commit on the hub.
        **options: Defaults for the options of the calls, which are those of the task's `job`.

    Raises:
        InputError: For an unknown task or option, or if `model` or `tokenizer` is missing.
        CheckpointError: If the model cannot be read, or has no trained head for the task.
    """
    kind = TASKS.get(ALIASES.get(task, task))
    if kind is None:
        raise InputError(f"there is no task {task!r}: choose one of {', '.join([*TASKS, *ALIASES])}")
    if model is None:
        if kind.bundled is None:
            raise InputError(f"{kind.task} has no bundled model: pass model=… with a folder or hub name")
        model = BUNDLED / kind.bundled
    if isinstance(model, str | Path):
        tokenizer = model if tokenizer is None else tokenizer
        model = _load(kind, model, device, revision)
    if isinstance(tokenizer, str | Path):
        from pocketbert.tokenization import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer, revision=revision)
    if tokenizer is None:
        raise InputError("pass tokenizer=… with a model that is neither a folder nor a hub name")
    config = getattr(model, "config", None) if config is None else config
    if config is None:
        raise InputError("pass config=… with a predictor that has no config")
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not go together"
        )
    return kind(_predictor(model, device), tokenizer, config, **options)


def _load(kind: type[Pipeline], name: str | Path, device: Any, revision: str | None) -> Any:
    """The model of a folder or hub name: on the engine, or in PyTorch if a device is asked for."""
    if device is None:
        from pocketbert.runtime.engine import Engine

        return Engine.from_pretrained(name, kind.head, revision=revision)
    require("train")
    from pocketbert.models.auto import load_trained

    return load_trained(name, kind.head, revision=revision)


def _predictor(model: Any, device: Any) -> Predictor:
    """A PyTorch model as a predictor; a predictor as it is."""
    if not hasattr(model, "forward"):
        if device is not None:
            raise InputError(f"device={device!r} is for PyTorch models; this one runs where it was made to")
        predictor: Predictor = model
        return predictor
    from pocketbert.models.predict import TorchPredictor

    if device is not None:
        try:
            model = model.to(device)
        except (AssertionError, RuntimeError) as error:  # both, depending on how PyTorch was built
            raise InputError(f"device={device!r} cannot be used: {error}") from None
    return TorchPredictor(model)

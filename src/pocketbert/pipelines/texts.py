"""Pipelines with one result per text: labels, choices, vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pocketbert import decode
from pocketbert.arguments import plain, whole
from pocketbert.bundles import ENCODER, SENTIMENT
from pocketbert.decisions import Rule, make_rule
from pocketbert.errors import InputError, require
from pocketbert.features import Features, Predictor, TokenIds, encode_ids, encode_texts
from pocketbert.pipelines.arguments import Reading
from pocketbert.pipelines.base import Output, Pipeline, Result, alone
from pocketbert.pipelines.explain import FEW, Whole, explained, read_method, variants
from pocketbert.pipelines.inputs import fields_of, pair_of, several
from pocketbert.runtime.stream import Job
from pocketbert.sentences.declared import Declared
from pocketbert.windows import encode_long_ids, encode_long_texts, groups, mean

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig
    from pocketbert.tokenization import BertTokenizer


class TextClassification(Pipeline):
    """Label texts, or pairs of texts given as `{"text": …, "text_pair": …}`."""

    task = "text-classification"
    head = "ForSequenceClassification"
    bundled = SENTIMENT
    whole_texts = "windows"

    def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
        """As all pipelines, but one text without `top_k` in the call gives a list with its result: the field has it so.

        A pair may be `[[[text, text]]]` or `text_pair=…`, too.
        """
        result = super().__call__(inputs, *others, **options)
        if not isinstance(inputs, str) or "top_k" in options:
            return result
        is_set = isinstance(result, list) and not {"top_k", "return_all_scores"} & (self.options | options).keys()
        return result if is_set else [result]  # of labels that were decided on

    def row(self, one: Any) -> Any:
        """A text, or a pair of texts."""
        return pair_of(one) if isinstance(one, Mapping) else one

    def job(
        self,
        *,
        top_k: int | Literal["", "chosen"] | None = "",
        function_to_apply: str | None = None,
        windows: bool = False,
        min_confidence: float | None = None,
        answer_share: float | None = None,
        conformal: float | None = None,
        explain: bool | str | None = None,
        return_all_scores: bool | None = None,
        text_pair: str | None = None,
        reading: Reading | None = None,
    ) -> Job:
        """The best `{"label", "score"}` of each text; with `top_k` a list of so many, of all if it is None.

        The score is a probability, or for regression the number itself, unless `function_to_apply` ("softmax",
        "sigmoid" or "none") is set. With `windows`, texts longer than the model's input are read whole: the logits are
        the mean of those of the windows, weighted by their tokens; of a pair the longer text is divided.
        With `min_confidence`, a text whose best probability is less has no answer: the label None. `answer_share` is
        the same for the confidence that such a share of held-out texts reached, and `conformal` gives a list of labels
        among which the right one is with such a probability; see `decisions`. A model whose `config.json` states
        thresholds for its labels gives a list of those that exceed theirs, unless `top_k` is set; `top_k="chosen"` is
        that, and all labels of other models.
        With `explain` (True, "shapley" or "occlusion"), each label has `words`, what each word contributes to its
        score, and `base`, the score without any; see `pipelines.explain`.
        `return_all_scores` is an older argument: the scores of all labels, in the order of the labels. `text_pair` is
        the second text of every input that has none.
        """
        reading = reading or self.reading()
        count = 1 if top_k == "" else None if isinstance(top_k, str) else top_k
        if not whole(1)(count) or (isinstance(top_k, str) and top_k not in ("", "chosen")):
            raise InputError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all labels")
        if return_all_scores is not None and top_k != "":
            raise InputError("pass top_k or return_all_scores, not both")
        function = None if function_to_apply is None else str(plain(function_to_apply)).lower()
        ranked = top_k not in ("", "chosen") or function is not None or return_all_scores is not None
        rule = self._rule(ranked, min_confidence=min_confidence, answer_share=answer_share, conformal=conformal)
        method = read_method(explain, windows=windows)

        def encode(inputs: list[Any]) -> list[list[Features]]:
            pairs = [self._pair(one, text_pair) for one in inputs]
            return _encode_pairs(reading, pairs, windows=windows) if method is None else _vary(reading, pairs, method)

        def scores_of(logits: np.ndarray) -> np.ndarray:
            return decode.label_scores(
                logits,
                problem_type=self.config.problem_type,
                function_to_apply=None if function == "default" else function,
            )

        def read(text: Any, features: Sequence[Features], outputs: Sequence[Output]) -> Result | list[Result]:
            logits = [self.array(output, "logits", 1) for output in outputs]
            if isinstance(features[0], Whole):
                rows = [scores_of(one) for one in logits]
                pair, whole = self._pair(text, text_pair), features[0]
                index = {name: i for i, name in self.config.id2label.items()} | {None: int(rows[0].argmax())}
                found = answer(rows[0])

                def why(one: Result) -> Result:
                    return explained(one, pair, whole, [float(row[index[one["label"]]]) for row in rows])

                return [why(one) for one in found] if isinstance(found, list) else why(found)
            return answer(scores_of(mean(features, logits)))

        def answer(scores: np.ndarray) -> Result | list[Result]:
            if rule is not None:
                decided: Result | list[Result] = rule(scores, self.config.id2label)
                return decided
            if return_all_scores:
                return [{"label": name, "score": float(scores[i])} for i, name in self.config.id2label.items()]
            best = decode.labels(scores, self.config.id2label, count)
            return best[0] if top_k == "" else best

        return Job(encode, read, **({} if method is None else FEW))

    def _rule(self, ranked: bool, **asked: float | None) -> Rule | None:
        """The rule of the decision, if there is one; a call that asks for a ranking or other scores has none."""
        rule = make_rule(self.config, **asked)
        if not ranked or rule is None:
            return rule
        if rule.thresholds is None:
            raise InputError(
                "top_k, function_to_apply and return_all_scores cannot be combined with a decision: leave them out"
            )
        return None

    def _pair(self, one: Any, second: str | None) -> tuple[Any, Any]:
        """The texts of an input, the second None if it has one text."""
        if isinstance(one, Mapping):
            return one["text"], one.get("text_pair")
        if isinstance(one, list) and len(one) == 1 and isinstance(one[0], list) and len(one[0]) == 2:
            return one[0][0], one[0][1]
        return one, second


def _encode_pairs(reading: Reading, pairs: Sequence[tuple[Any, Any]], *, windows: bool) -> list[list[Features]]:
    """Texts and pairs of texts, in one run where all are of one kind."""
    for position, (text, _) in enumerate(pairs):
        if isinstance(text, list | tuple):
            advice = "a pair of texts is a dictionary with the keys text, text_pair"
            raise InputError(f"{text!r:.60} is not a text; {advice}", position)
    single = [second is None for _, second in pairs]
    if any(single) and not all(single):
        features = []
        for position, pair in enumerate(pairs):
            try:
                features += _encode_pairs(reading, [pair], windows=windows)
            except InputError as error:
                raise InputError(error.message, position) from None
        return features
    texts, seconds = [text for text, _ in pairs], None if all(single) else [second for _, second in pairs]
    if windows:
        return encode_long_texts(reading.tokenizer, texts, seconds, max_length=reading.max_length)
    return alone(reading.texts(texts, seconds))


def _vary(reading: Reading, pairs: Sequence[tuple[Any, Any]], method: str) -> list[list[Features]]:
    """Texts and pairs of texts, each with what it is without some of its words."""
    _encode_pairs(reading, pairs, windows=False)  # whose errors name the input
    return [variants(reading, *pair, method) for pair in pairs]


class ZeroShotClassification(Pipeline):
    """Label texts with any labels, by a natural language inference model: does the text entail the label?"""

    task = "zero-shot-classification"
    head = "ForSequenceClassification"
    whole_texts = "windows"

    def __call__(
        self, inputs: Any = None, candidate_labels: Any = None, *others: Any, sequences: Any = None, **options: Any
    ) -> Any:
        """As all pipelines; `candidate_labels` may be the second argument, and `sequences` is a name of the first."""
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return super().__call__(sequences if inputs is None else inputs, *others, **options)

    def job(
        self,
        *,
        candidate_labels: str | Iterable[Any] = (),
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        entailment: str | None = None,
        contradiction: str | None = None,
        windows: bool = False,
        reading: Reading | None = None,
    ) -> Job:
        """`{"sequence", "labels", "scores"}` of each text, best label first.

        The scores of a text add up to 1; with `multi_label`, or with one label alone, each label is scored
        separately, entailment against contradiction. `candidate_labels` is a list, or a text with commas. A model with
        anonymous labels (LABEL_0, …) needs the names of those that mean `entailment` and `contradiction`. `windows` is
        as for text classification; it is the text that is divided, not the hypothesis.
        """
        reading = reading or self.reading()
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        candidate_labels = list(candidate_labels)
        if not candidate_labels:
            raise InputError("zero-shot-classification needs candidate_labels")
        hypotheses = [_hypothesis(hypothesis_template, label) for label in candidate_labels]
        count, names = len(hypotheses), dict(enumerate(candidate_labels))
        entails = self._label("entailment", entailment, ("entail",))
        alone = multi_label or count == 1
        contradicts = self._label("contradiction", contradiction, ("contradict", "not_entail")) if alone else None

        def encode(inputs: list[Any]) -> list[list[Features]]:
            texts, seconds = [text for text in inputs for _ in hypotheses], hypotheses * len(inputs)
            try:
                if windows:
                    length = reading.max_length
                    long = encode_long_texts(reading.tokenizer, texts, seconds, max_length=length, first=True)
                    return [list(chain(*long[start : start + count])) for start in range(0, len(long), count)]
                features = reading.texts(texts, seconds, truncation="only_first")
            except InputError as error:
                raise InputError(error.message, None if error.position is None else error.position // count) from None
            return [features[start : start + count] for start in range(0, len(features), count)]

        def read(text: str, features: Sequence[Features], outputs: Sequence[Output]) -> Result:
            logits = [self.array(output, "logits", 1) for output in outputs]
            rows = np.stack([mean(features[group], logits[group]) for group in groups(features)])
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


def _hypothesis(template: str, label: Any) -> str:
    """The template with the label in it."""
    try:
        text = template.format(label)
    except (AttributeError, IndexError, KeyError, ValueError):
        text = template
    if text == template:
        raise InputError(f"hypothesis_template={template!r} must contain {{}} for the label")
    return text


class MultipleChoice(Pipeline):
    """Score the continuations of a text, or the answers to a question."""

    task = "multiple-choice"
    head = "ForMultipleChoice"

    def __call__(self, inputs: Any = None, *, prompt: Any = None, choices: Any = None, **options: Any) -> Any:
        """Judge `choices` for `prompt`, or inputs `{"prompt": …, "choices": […]}`."""
        return super().__call__({"prompt": prompt, "choices": choices} if inputs is None else inputs, **options)

    def row(self, one: Any) -> Any:
        """A prompt with its choices, which may be an array or a column."""
        found = fields_of(one, "prompt", "choices")
        choices = several(found["choices"])
        return {**found, "choices": choices} if isinstance(choices, list) else found

    def job(self, *, reading: Reading | None = None) -> Job:
        """All choices of each input as `{"choice", "index", "score"}`, best first; the scores add up to 1."""
        reading = reading or self.reading()

        def encode(inputs: list[Any]) -> list[list[Features]]:
            choices = [one["choices"] for one in inputs]
            for position, options in enumerate(choices):
                if not isinstance(options, list | tuple) or not options:
                    raise InputError(f"choices must be a list of texts, not {options!r:.60}", position)
            return reading.choices([one["prompt"] for one in inputs], choices)

        def read(one: Any, features: Sequence[Features], outputs: Sequence[Output]) -> list[Result]:
            logits = np.concatenate([self.array(output, "logits", 1) for output in outputs])
            return decode.choices(logits, one["choices"])

        return Job(encode, read)


class FeatureExtraction(Pipeline):
    """Turn texts into vectors."""

    task = "feature-extraction"
    head = "Model"
    bundled = ENCODER
    whole_texts = "windows"
    nested = "tokenize_kwargs"

    def __init__(
        self,
        predictor: Predictor,
        tokenizer: BertTokenizer,
        config: PreTrainedConfig,
        declared: Declared | None = None,
        **options: Any,
    ) -> None:
        self.declared = declared or Declared()
        super().__init__(predictor, tokenizer, config, **options)

    def reading(self, **given: Any) -> Reading:
        """As for all pipelines; padding up to a length would add vectors."""
        if plain(given.get("padding")) == "max_length":
            raise InputError("padding='max_length' would add vectors of padding to those of the text; leave it out")
        return super().reading(**given)

    def job(
        self,
        *,
        pooling: str | None = None,
        normalize: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        windows: bool = False,
        return_tensors: bool | str | None = None,
        reading: Reading | None = None,
    ) -> Job:
        """The last hidden states of each text, nested lists [1, tokens, hidden]; with `pooling` one vector [hidden].

        `pooling` is "declared", which is all that the model's folder declares (dense layers, norms, the default prompt,
        …) and the mean where it declares nothing, or one of `decode.POOLINGS`, and nothing else. `prompt` is put before
        each text, or that which the folder calls `prompt_name`.
        An input may be `features.TokenIds`, too. `dimensions` keeps so many numbers of a vector;
        `normalize` gives it length 1 after that. With `windows`, texts longer than the model's input are read whole:
        the vector is the mean of those of the windows, weighted by their tokens, with length 1 if the model declares
        it. `return_tensors` gives tensors of PyTorch (True or "pt"), or arrays ("np"), in place of lists.
        """
        made = self.arrays(
            pooling=pooling, normalize=normalize, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions,
            windows=windows, reading=reading,
        )  # fmt: skip
        convert = _converter(return_tensors)

        def read(text: str, features: Sequence[Features], outputs: Sequence[Output]) -> Any:
            array = made.decode(text, features, outputs)
            return convert(array[None] if pooling is None else array)

        # A number in a list takes 32 bytes: 25 kB per vector, or per token, for a model as wide as BERT-base.
        few = {"inputs": 256} if pooling else {"inputs": 64, "characters": 1 << 13}
        return Job(made.encode, read, **few)

    def arrays(
        self,
        *,
        pooling: str | None = None,
        normalize: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        windows: bool = False,
        reading: Reading | None = None,
    ) -> Job:
        """The job with arrays as results, [tokens, hidden] or [hidden] of each text."""
        reading = reading or self.reading()
        if pooling is None and (normalize or dimensions is not None or windows):
            name = "normalize" if normalize else "windows" if windows else "dimensions"
            raise InputError(f"{name} needs pooling='declared' or another: it applies to one vector per text")
        if pooling not in (None, "declared", *decode.POOLINGS):
            names = ", ".join(map(repr, ("declared", *decode.POOLINGS)))
            raise InputError(f"pooling={pooling!r} must be one of {names}")
        if dimensions is not None and dimensions < 1:
            raise InputError(f"dimensions={dimensions} must be at least 1")
        if prompt is not None and prompt_name is not None:
            raise InputError("pass prompt or prompt_name, not both")
        prompt = self.prompt(prompt_name, default=pooling == "declared") if prompt is None else prompt
        declared = self.declared
        before = (
            encode_texts(reading.tokenizer, [prompt], max_length=reading.max_length)[0].input_ids[:-1] if prompt else ()
        )
        prompt_tokens = len(before)
        kept = declared.dimensions if dimensions is None and pooling == "declared" else dimensions

        def encode(inputs: list[Any]) -> list[list[Features]]:
            if inputs and all(isinstance(one, TokenIds) for one in inputs):
                prompt_ids = [int(one) for one in before[1:]]
                if windows:
                    return encode_long_ids(reading.tokenizer, inputs, prompt_ids, max_length=reading.max_length)
                return alone(encode_ids(reading.tokenizer, inputs, prompt_ids, max_length=reading.max_length))
            texts = [prompt + text if isinstance(text, str) else text for text in inputs] if prompt else inputs
            if windows:
                repeated = max(0, prompt_tokens - 1)
                return encode_long_texts(reading.tokenizer, texts, max_length=reading.max_length, repeated=repeated)
            return alone(reading.texts(texts))

        def read(text: Any, features: Sequence[Features], outputs: Sequence[Output]) -> np.ndarray:
            states = [self.array(output, "last_hidden_state", 2) for output in outputs]
            if pooling is None:
                return states[0]
            is_declared = pooling == "declared"
            vector = mean(
                features,
                [declared.vector(one, prompt_tokens) if is_declared else decode.pool(one, pooling) for one in states],
            )
            if is_declared and declared.has_unit_length and len(states) > 1:
                vector = decode.unit(vector)
            if dimensions is not None and dimensions > len(vector):
                raise InputError(f"dimensions={dimensions} exceeds the {len(vector)} dimensions of the model's vectors")
            return decode.unit(vector[:kept]) if normalize else vector[:kept]

        return Job(encode, read)

    def prompt(self, name: str | None, *, default: bool = False) -> str:
        """The text of the model's prompt `name`; without a name, that of its default prompt if `default`, or none."""
        name = self.declared.default_prompt if name is None and default else name
        if name is None:
            return ""
        if name not in self.declared.prompts:
            known = ", ".join(self.declared.prompts) or "none"
            raise InputError(f"prompt_name={name!r} is not declared by the model; its prompts: {known}")
        return self.declared.prompts[name]


def _converter(return_tensors: bool | str | None) -> Callable[[np.ndarray], Any]:
    """What makes the results of arrays, as the argument `return_tensors` says."""
    kind = plain(return_tensors)
    if kind not in (None, True, False, "pt", "np"):
        raise InputError(f"return_tensors={return_tensors!r:.60} must be one of True, False, 'pt', 'np'")
    if not kind:
        return lambda array: array.tolist()
    if kind == "np":
        return lambda array: array
    require("train")
    from pocketbert.models.predict import as_tensor

    return as_tensor

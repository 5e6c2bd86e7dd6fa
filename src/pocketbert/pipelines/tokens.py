"""Pipelines with results inside a text: entities, answers, masked words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pocketbert import decode
from pocketbert.arguments import plain, whole
from pocketbert.bundles import ANSWERS, ENCODER, ENTITIES
from pocketbert.errors import InputError
from pocketbert.features import Features, Tokens, encode_questions
from pocketbert.pipelines.arguments import Reading
from pocketbert.pipelines.base import Output, Pipeline, Result, alone
from pocketbert.pipelines.explain import FEW, Whole, explained, hidden_in_question, hidden_in_text, read_method
from pocketbert.pipelines.inputs import fields_of, several
from pocketbert.runtime.stream import Job
from pocketbert.shortening import shorten
from pocketbert.windows import encode_long_tokens, merge


class TokenClassification(Pipeline):
    """Find the entities of texts, of any length."""

    task = "token-classification"
    head = "ForTokenClassification"
    bundled = ENTITIES

    def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
        """As all pipelines; with `is_split_into_words` an input is a list of words, and one alone gives a list, too."""
        one_sentence = isinstance(inputs, list | tuple) and all(isinstance(word, str) for word in inputs)
        if one_sentence and (self.options | options).get("is_split_into_words"):
            inputs = [inputs]
        return super().__call__(inputs, *others, **options)

    def row(self, one: Any) -> Any:
        """A text, or the words of a row of a data set, which are its `tokens` or `words`."""
        for name in ("tokens", "words"):
            if isinstance(one, Mapping) and "text" not in one and isinstance(one.get(name), list):
                return one[name]
        return super().row(one)

    def job(
        self,
        *,
        aggregation_strategy: str | None = None,
        ignore_labels: str | Sequence[str] | None = None,
        is_split_into_words: bool = False,
        stride: int | None = None,
        delimiter: str | None = None,
        grouped_entities: bool | None = None,
        ignore_subwords: bool | None = None,
        explain: bool | str | None = None,
        reading: Reading | None = None,
    ) -> Job:
        """Entities of each text, as `decode.entities` describes them; of words, in the words joined by `delimiter`.

        Texts longer than the model's input are read in windows that share `stride` tokens; see `windows`. The delimiter
        is a space by default. `grouped_entities` and `ignore_subwords` are older arguments: both stand for the
        aggregation strategy "first", the first of them alone for "simple".
        With `explain` (True, "shapley" or "occlusion"), each entity has `words`, what each word of the text contributes
        to its score, and `base`, its score where all words are hidden; see `pipelines.explain`.
        """
        reading = reading or self.reading()
        older = grouped_entities is not None or ignore_subwords is not None
        if older and aggregation_strategy is not None:
            raise InputError("pass aggregation_strategy, or grouped_entities and ignore_subwords, not both")
        if delimiter is not None and not is_split_into_words:
            raise InputError("delimiter needs is_split_into_words=True")
        grouped = ("first" if ignore_subwords else "simple") if grouped_entities else "none"
        strategy = grouped if aggregation_strategy is None else str(plain(aggregation_strategy)).lower()
        ignored = ("O",) if ignore_labels is None else ignore_labels
        ignored = (ignored,) if isinstance(ignored, str) else ignored
        between = " " if delimiter is None else delimiter
        join = self.tokenizer.join_tokens
        method = read_method(explain)
        if method is not None and is_split_into_words:
            raise InputError("explain needs a text: join the words, and leave is_split_into_words out")

        def encode(inputs: list[Any]) -> Sequence[Sequence[Features]]:
            windows = encode_long_tokens(
                reading.tokenizer, inputs, max_length=reading.max_length, overlap=stride, split=is_split_into_words
            )
            if method is None:
                return windows
            whole = _at_once(windows, reading.max_length, "explain the sentence or paragraph in question")
            return [
                hidden_in_text(reading.tokenizer, text, tokens, method)
                for text, tokens in zip(inputs, whole, strict=True)
            ]

        def read(one: Any, features: Sequence[Any], outputs: Sequence[Output]) -> list[Result]:
            rows = [self.array(output, "logits", 2) for output in outputs]
            whole = features[0] if isinstance(features[0], Whole) else None
            tokens, logits = merge(features, rows) if whole is None else (whole.read, rows[0])
            if len(between) != 1:  # the offsets are of words joined by one character
                shift = (len(between) - 1) * np.maximum(tokens.word_ids, 0)[:, None]
                tokens = replace(tokens, offsets=tokens.offsets + shift.astype(np.int32))
            found = decode.entities(
                logits,
                tokens,
                self._names(between.join(one) if is_split_into_words else one, tokens),
                self.config.id2label,
                aggregation_strategy=strategy,
                ignore_labels=ignored,
                join=join,
                others=() if whole is None else rows[1:],
            )
            return found if whole is None else [_because(entity, (one, None), whole) for entity in found]

        return Job(encode, read, **({} if method is None else FEW))

    def _names(self, text: str, tokens: Tokens) -> list[str]:
        """The vocabulary entry of each token; of an unknown one, its text."""
        names: list[str] = self.tokenizer.convert_ids_to_tokens(tokens.input_ids.tolist())
        for i in np.flatnonzero(tokens.input_ids == self.tokenizer.unk_token_id):
            names[i] = text[slice(*tokens.offsets[i])]
        return names


class QuestionAnswering(Pipeline):
    """Find the answers to questions in their contexts, of any length."""

    task = "question-answering"
    head = "ForQuestionAnswering"
    bundled = ANSWERS

    def __call__(
        self, *inputs: Any, question: Any = None, context: Any = None, data: Any = None, X: Any = None, **options: Any
    ) -> Any:
        """Answer `question` from `context`, or inputs `{"question": …, "context": …}`.

        `question` and `context` are two texts, also without their names, or lists of as many; one context may serve all
        questions. `data` and `X` are older names of the inputs. A list of one input gives its result alone: so the
        field has it.
        """
        named = data if X is None else X
        if len(inputs) == 2 and all(isinstance(text, str) for text in inputs):
            question, context = inputs
        elif len(inputs) > 1:
            named = list(inputs)
        elif inputs:
            [named] = inputs
        given = _questions(question, context) if named is None else named
        result = super().__call__(given, **options)
        return result[0] if isinstance(given, list | tuple) and len(given) == 1 else result

    @staticmethod
    def create_sample(question: Any, context: Any) -> Any:
        """The input for a question and its context, or a list of inputs."""
        return _questions(question, context)

    def reading(self, **given: Any) -> Reading:
        """As for all pipelines; passages are read in windows, the length of which has its own argument."""
        if given.get("max_length") is not None:
            raise InputError("question-answering has no option max_length: max_seq_len is the length of its windows")
        return super().reading(**given)

    def row(self, one: Any) -> Any:
        """A question with its context; transformers' `SquadExample` is one."""
        if hasattr(one, "question_text") and hasattr(one, "context_text"):
            return {"question": one.question_text, "context": one.context_text}
        return fields_of(one, "question", "context")

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
        align_to_words: bool = True,
        topk: int | None = None,
        explain: bool | str | None = None,
    ) -> Job:
        """The best `{"score", "start", "end", "answer"}` of each question, or a list of the `top_k` best if over 1.

        `decode.answers` defines the score. With `handle_impossible_answer` the empty answer competes, and wins by
        more than `null_threshold`. Lengths are in tokens; `doc_stride` is the distance between the starts of two
        windows [default: 128] and `max_question_len` the maximum length of a question [default: 64], both less for
        models that read less than 384 tokens. With `align_to_words` an answer begins and ends with a word, and those
        that become the same are one, with the sum of their scores. `topk` is an older name of `top_k`.
        With `explain` (True, "shapley" or "occlusion"), each answer has `words`, what each word of the question, which
        has `question` True, and of the passage contributes to its score, and `base`, its score where all are hidden;
        see `pipelines.explain`.
        """
        method = read_method(explain)
        count = top_k if topk is None else topk
        for name, value in {"top_k": count, "max_answer_len": max_answer_len}.items():
            if value is None or not whole(1)(value):
                raise InputError(f"{name}={value!r} must be a whole number of at least 1")

        length = min(max_seq_len, self.max_length)

        def encode(inputs: list[Any]) -> Sequence[Sequence[Features]]:
            windows = encode_questions(
                self.tokenizer,
                [one["question"] for one in inputs],
                [one["context"] for one in inputs],
                max_length=length,
                doc_stride=doc_stride,
                max_question_length=max_question_len,
            )
            if method is None:
                return windows
            whole = _at_once(windows, length, "explain the part of the passage in question")
            return [
                hidden_in_question(self.tokenizer, one["question"], one["context"], window, method)
                for one, window in zip(inputs, whole, strict=True)
            ]

        def read(one: Any, features: Sequence[Any], outputs: Sequence[Output]) -> Result | list[Result]:
            found = [
                {name: self.array(output, name, 1) for name in ("start_logits", "end_logits")} for output in outputs
            ]
            whole = features[0] if isinstance(features[0], Whole) else None
            windows, read_all = (features, found) if whole is None else ([whole.read], found[:1])
            spans = decode.spans(windows, read_all, n_best=max(20, count), max_answer_length=max_answer_len)
            null = decode.null_logit(read_all) if handle_impossible_answer else None

            def others(span: decode.Span) -> list[float]:
                start, end = windows[0].locate(span.start, span.end)
                return [float(output["start_logits"][start] + output["end_logits"][end]) for output in found[1:]]

            best = decode.answers(
                spans, one["context"], top_k=None, null=null, null_threshold=null_threshold,
                others=None if whole is None else others,
            )  # fmt: skip
            best = (self._aligned(best, one["context"]) if align_to_words else best)[:count]
            if whole is not None:
                best = [_because(answer, (one["context"], one["question"]), whole, "question") for answer in best]
            return best[0] if count == 1 else best

        return Job(encode, read, **({} if method is None else FEW))

    def _aligned(self, answers: list[Result], context: str) -> list[Result]:
        """Answers that begin and end with a word of the tokenizer, those of the same place as one."""
        found: dict[tuple[int, int], Result] = {}
        for one in answers:
            start, end = self._words(context, one["start"], one["end"])
            if (start, end) in found:
                found[start, end]["score"] += one["score"]
                if "others" in one:
                    sums = zip(found[start, end]["others"], one["others"], strict=True)
                    found[start, end]["others"] = [ours + more for ours, more in sums]
            else:
                found[start, end] = {**one, "start": start, "end": end, "answer": context[start:end]}
        ranked = sorted(found.values(), key=lambda one: -one["score"])
        # The empty answer is first, or not, by its threshold.
        first = next(one for one in ranked if bool(one["answer"]) == bool(answers[0]["answer"]))
        return [first, *(one for one in ranked if one is not first)]

    def _words(self, context: str, start: int, end: int) -> tuple[int, int]:
        """Where the words begin and end of which the characters `start` to `end` (exclusive) are parts."""
        if start == end:
            return start, end
        first = max(context.rfind(space, 0, start) for space in _SPACES) + 1
        stops = [place for space in _SPACES if (place := context.find(space, end)) >= 0]
        part = context[first : min(stops, default=len(context))]
        short = shorten(self.tokenizer, part)
        encoding = self.tokenizer(short.text, add_special_tokens=False, verbose=False)[0]
        found = []
        for place in (start, end - 1):
            word = encoding.char_to_word(short.place(place - first))
            span = None if word is None else encoding.word_to_chars(word)
            found.append(None if span is None else first + short.restored(np.array([span], np.int32))[0])
        left, right = found
        return start if left is None else int(left[0]), end if right is None else int(right[1])


def _at_once(windows: Sequence[Sequence[Any]], length: int, remedy: str) -> list[Any]:
    """The only window of each input; raises `InputError` where there are several."""
    for position, several_windows in enumerate(windows):
        if len(several_windows) > 1:
            message = (
                f"explain works within the model's maximum length, {length} tokens, and the text has more: {remedy}"
            )
            raise InputError(message, position)
    return [window for [window] in windows]


def _because(found: Result, texts: tuple[str, str | None], whole: Whole[Any], other: str = "text_pair") -> Result:
    """An entity or answer with what words contribute, in place of its scores by the variants."""
    scores = [found["score"], *found.pop("others", [])]
    return explained(found, texts, whole, scores, other)


_SPACES = " \n\t\r"


def _questions(question: Any, context: Any) -> Any:
    """Inputs of a question and its context, or of lists of as many; one context may serve all questions."""
    if isinstance(question, str):
        return {"question": question, "context": context}
    questions = several(question)
    contexts = context if isinstance(context, str) else several(context)
    if isinstance(questions, list):
        contexts = [context] * len(questions) if isinstance(context, str) else contexts
        if questions and isinstance(contexts, list) and len(questions) == len(contexts):
            return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]
    raise InputError("question and context must be two texts, or two lists of the same length")


class FillMask(Pipeline):
    """Predict masked words, written [MASK], in texts."""

    task = "fill-mask"
    head = "ForMaskedLM"
    bundled = ENCODER
    nested = "tokenizer_kwargs"

    def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
        """As all pipelines, but a list of one text gives its result alone: so the field has it."""
        result = super().__call__(inputs, *others, **options)
        return result[0] if isinstance(inputs, list) and len(inputs) == 1 else result

    def job(
        self,
        *,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        reading: Reading | None = None,
    ) -> Job:
        """The `top_k` best `{"score", "token", "token_str", "sequence"}` of each text; of each gap, if it has several.

        There are 5 by default. `targets` are the words to choose among, each a single token of the vocabulary.
        """
        reading, count = reading or self.reading(), 5 if top_k is None else top_k
        if not whole(1)(count):
            raise InputError(f"top_k={top_k!r} must be a whole number of at least 1")
        ids = None if targets is None else self._token_ids([targets] if isinstance(targets, str) else targets)
        mask = self.tokenizer.mask_token_id

        def encode(inputs: list[Any]) -> list[list[Features]]:
            features = [
                replace(one, rows=np.flatnonzero(one.input_ids == mask).astype(np.int32))
                for one in reading.texts(inputs)
            ]
            for position, (text, one) in enumerate(zip(inputs, features, strict=True)):
                if mask not in one.input_ids:
                    message = f"no {self.tokenizer.mask_token} in the first {reading.max_length} tokens of {text!r:.60}"
                    raise InputError(message, position)
            return alone(features)

        def read(
            text: str, features: Sequence[Features], outputs: Sequence[Output]
        ) -> list[Result] | list[list[Result]]:
            [one], logits = features, self.array(outputs[0], "logits", 2)
            assert one.rows is not None
            filled = [
                [
                    self._filled(one, int(place), token, score, alone=len(logits) == 1)
                    for token, score in decode.fills(scores, count, ids)
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
        if not ids:
            raise InputError("targets must hold at least one word")
        return list(dict.fromkeys(ids))

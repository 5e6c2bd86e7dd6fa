"""Pipelines with results inside a text: entities, answers, masked words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tokenizers.decoders import WordPiece

from pocketbert import decode
from pocketbert.errors import InputError
from pocketbert.features import (
    Features,
    Tokens,
    Window,
    encode_questions,
    encode_texts,
)
from pocketbert.pipelines.base import Output, Pipeline, Result, alone, fields_of
from pocketbert.runtime.stream import Job
from pocketbert.windows import Part, encode_long_tokens, merge


class TokenClassification(Pipeline):
    """Find the entities of texts, of any length."""

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
        stride: int | None = None,
    ) -> Job:
        """Entities of each text, as `decode.entities` describes them; of words, in the words joined with spaces.

        Texts longer than the model's input are read in windows that share `stride` tokens; see `windows`.
        """
        join = WordPiece(prefix=self.tokenizer.wordpieces_prefix).decode

        def encode(inputs: list[Any]) -> list[list[Tokens | Part[Tokens]]]:
            return encode_long_tokens(
                self.tokenizer, inputs, max_length=self.max_length, overlap=stride, split=is_split_into_words
            )

        def read(one: Any, features: Sequence[Tokens | Part[Tokens]], outputs: Sequence[Output]) -> list[Result]:
            tokens, logits = merge(features, [self.array(output, "logits", 2) for output in outputs])
            return decode.entities(
                logits,
                tokens,
                self._names(" ".join(one) if is_split_into_words else one, tokens),
                self.config.id2label,
                aggregation_strategy=aggregation_strategy,
                ignore_labels=ignore_labels,
                join=join,
            )

        return Job(encode, read)

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

        `decode.answers` defines the score. With `handle_impossible_answer` the empty answer competes, and wins by
        more than `null_threshold`. Lengths are in tokens; `doc_stride` is the distance between the starts of two
        windows [default: 128] and `max_question_len` the maximum length of a question [default: 64], both less for
        models that read less than 384 tokens.
        """

        def encode(inputs: list[Any]) -> list[list[Window]]:
            questions, contexts = fields_of(inputs, "question", "context")
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
                {name: self.array(output, name, 1) for name in ("start_logits", "end_logits")} for output in outputs
            ]
            spans = decode.spans(windows, found, n_best=max(20, top_k), max_answer_length=max_answer_len)
            null = decode.null_logit(found) if handle_impossible_answer else None
            best = decode.answers(spans, one["context"], top_k=top_k, null=null, null_threshold=null_threshold)
            return best[0] if top_k == 1 else best

        return Job(encode, read)


class FillMask(Pipeline):
    """Predict masked words, written [MASK], in texts."""

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
            return alone(features)

        def read(
            text: str, features: Sequence[Features], outputs: Sequence[Output]
        ) -> list[Result] | list[list[Result]]:
            [one], logits = features, self.array(outputs[0], "logits", 2)
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

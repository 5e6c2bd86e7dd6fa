"""Arrays → predictions: logits become labels, entities, spans, choices, mask fills and vectors. NumPy only.

The one place where a prediction is read: evaluation, the pipelines, the server and the exports all decode with it.
Every function takes the arrays of one example, without batch axis and without padding. Scores are plain floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import InputError
from pocketbert.features import Tokens, Window
from pocketbert.tags import OUTSIDE, UNTYPED, Run, are_entities, runs

Floats = NDArray[np.floating[Any]]
Output = Mapping[str, Floats]


def _one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")


# ── probabilities ──


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Probabilities along `axis`, safe for logits of any size; infinite ones are allowed, unless all are -inf."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logits)), safe for logits of any size."""
    small = np.exp(-np.abs(logits))  # at most 1
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))


# ── labels ──


def label_scores(logits: Floats, *, problem_type: str | None = None, function_to_apply: str | None = None) -> Floats:
    """Scores of [labels] logits: raw, sigmoid or softmax.

    `function_to_apply` ("none", "sigmoid", "softmax") decides; else the published rule of text classification: raw for
    regression, sigmoid for several labels at once or for a single one, softmax otherwise.
    """
    if function_to_apply is None:
        if problem_type == "regression":
            function_to_apply = "none"
        else:
            several = problem_type == "multi_label_classification" or len(logits) == 1
            function_to_apply = "sigmoid" if several else "softmax"
    _one_of("function_to_apply", function_to_apply, ("none", "sigmoid", "softmax"))
    if function_to_apply == "none":
        return logits
    return softmax(logits) if function_to_apply == "softmax" else sigmoid(logits)


def labels(scores: Floats, id2label: Mapping[int, str], top_k: int | None = None) -> list[dict[str, Any]]:
    """`{"label", "score"}` of [labels] scores, best first; all of them if `top_k` is None."""
    return [{"label": id2label[i], "score": float(scores[i])} for i in _best(scores, top_k)]


def _best(scores: Floats, k: int | None = None) -> list[int]:
    """Indices of the `k` best scores, best first, the earlier one where two are equal."""
    k = len(scores) if k is None else min(k, len(scores))
    if k < 1:
        return []
    # A whole sort of a vocabulary is ten times the work; what ties with the k-th best stays in.
    candidates = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return [int(i) for i in candidates[np.argsort(-scores[candidates], kind="stable")][:k]]


def entailment(logits: Floats, entails: int, contradicts: int | None = None) -> Floats:
    """Scores of [candidates] from the [candidates, labels] logits of a language-inference model.

    Without `contradicts` the candidates share one softmax; with it each is scored separately, entailment against
    contradiction.
    """
    if contradicts is None:
        return softmax(logits[:, entails])
    return softmax(logits[:, [contradicts, entails]])[:, 1]


def choices(logits: Floats, options: Sequence[str]) -> list[dict[str, Any]]:
    """`{"choice", "index", "score"}` of [choices] logits, best first; the scores add up to 1."""
    shares = softmax(logits)
    return [{"choice": options[i], "index": i, "score": float(shares[i])} for i in _best(shares)]


def fills(logits: Floats, top_k: int = 5, targets: Sequence[int] | None = None) -> list[tuple[int, float]]:
    """The `top_k` best (token id, probability) of the [vocabulary] logits at a mask, among `targets` if given.

    A probability is that among the whole vocabulary, also if only some targets compete.
    """
    shares = softmax(logits)
    if targets is None:
        return [(i, float(shares[i])) for i in _best(shares, top_k)]
    return [(targets[i], float(shares[targets[i]])) for i in _best(shares[list(targets)], top_k)]


# ── vectors ──


#: How the vectors of all tokens become one; "lasttoken" is [SEP]'s.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def pool(hidden: Floats, how: str | Sequence[str], *, skip: int = 0, normalize: bool = False) -> Floats:
    """One vector from [tokens, hidden], by one of `POOLINGS`, or several whose vectors are concatenated.

    The first `skip` tokens, a prompt, count only for the weights of "weightedmean", which grow with the position from
    1 on. `normalize` gives the vector length 1.
    """
    parts = [_pooled(hidden, one, skip) for one in ([how] if isinstance(how, str) else how)]
    vector = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return unit(vector) if normalize else vector


def _pooled(hidden: Floats, how: str, skip: int) -> Floats:
    _one_of("pooling", how, POOLINGS)
    rows = hidden[skip:]
    if how == "cls":
        return rows[0]
    if how == "lasttoken":
        return rows[-1]
    if how == "max":
        return np.asarray(rows.max(axis=0))
    if how == "mean":
        return np.asarray(rows.mean(axis=0))
    if how == "mean_sqrt_len_tokens":
        return np.asarray(rows.sum(axis=0) / np.sqrt(rows.dtype.type(len(rows))))
    weights = np.arange(skip + 1, len(hidden) + 1, dtype=rows.dtype)
    return np.asarray((rows * weights[:, None]).sum(axis=0) / weights.sum())


def unit(vector: Floats) -> Floats:
    """The vector with length 1, or as it is if it is 0."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


# ── entities ──

AGGREGATIONS = ("none", "simple", "first", "average", "max")


def word_tags(logits: Floats, tokens: Tokens, id2label: Mapping[int, str]) -> list[str]:
    """One tag per word, read at the word's first token, from [tokens, labels] logits.

    Words that have no token (cut off, or nothing that the vocabulary knows) get "O", so that they count as missed.
    """
    tags = [OUTSIDE] * tokens.words
    first = tokens.first_tokens
    for word, best in zip(tokens.word_ids[first], logits[first].argmax(axis=-1), strict=True):
        tags[word] = id2label[int(best)]
    return tags


def entities(
    logits: Floats,
    tokens: Tokens,
    names: Sequence[str],
    id2label: Mapping[int, str],
    *,
    aggregation_strategy: str = "none",
    ignore_labels: Sequence[str] = ("O",),
    join: Callable[[list[str]], str] = " ".join,
    others: Sequence[Floats] = (),
) -> list[dict[str, Any]]:
    """Entities of one text, as token-classification pipelines publish them.

    "none" gives every token its own `{"entity", "score", "index", "word", "start", "end"}`. The others group tokens to
    `{"entity_group", "score", "word", "start", "end"}`: "simple" by the tags of the tokens; "first", "average" and
    "max" let a word decide as one, by its first token, by the mean of its tokens or by the surest one. The score of a
    group is the mean over its tokens or words.

    Args:
        logits: [tokens, labels].
        tokens: The input, with the place of each token in the text.
        names: The vocabulary entry of each token.
        id2label: Label names.
        aggregation_strategy: One of `AGGREGATIONS`.
        ignore_labels: Tags or types to leave out; "O" is what is outside of all entities.
        join: Turns vocabulary entries into the text that `word` shows.
        others: Further logits of the same tokens. Each entity has its scores by them under `others`, if there are any.
    """
    _one_of("aggregation_strategy", aggregation_strategy, AGGREGATIONS)
    shares = softmax(logits)
    if aggregation_strategy in ("none", "simple"):
        units = [_Unit.of(shares, [int(i)], "first") for i in np.flatnonzero(tokens.word_ids >= 0)]
    else:
        units = [_Unit.of(shares, word, aggregation_strategy) for word in tokens.tokens_of_words()]
    others = [softmax(one) for one in others]
    tags = [id2label[unit.best] for unit in units]
    alone = aggregation_strategy == "none"
    if alone:
        groups = [Run(None if tag == OUTSIDE else tag, i, i + 1) for i, tag in enumerate(tags)]
    else:
        groups = runs(tags, untyped=are_entities(id2label.values()))
    found = []
    for kind, start, end in groups:
        name = OUTSIDE if kind is None else kind or UNTYPED
        if name in ignore_labels and kind != OUTSIDE:  # a type may have that name
            continue
        run = [i for unit in units[start:end] for i in unit.tokens]
        place = {"start": int(tokens.offsets[run[0], 0]), "end": int(tokens.offsets[run[-1], 1])}
        scores = [float(np.mean([unit.score(one) for unit in units[start:end]])) for one in (shares, *others)]
        more = {"others": scores[1:]} if others else {}
        if alone:
            found.append({"entity": name, "score": scores[0], "index": run[0], "word": names[run[0]], **place, **more})
        else:
            word = join([names[i] for i in run])
            found.append({"entity_group": name, "score": scores[0], "word": word, **place, **more})
    return found


@dataclass(frozen=True)
class _Unit:
    """A unit with one tag: a token, or a word of several."""

    tokens: list[int]
    deciding: list[int]  # the tokens of which the mean decides
    best: int  # the label

    @classmethod
    def of(cls, shares: Floats, tokens: list[int], how: str) -> _Unit:
        """The unit of some tokens, with [tokens of the text, labels] probabilities."""
        surest = int(shares[tokens].max(axis=1).argmax())
        deciding = tokens if how == "average" else [tokens[surest if how == "max" else 0]]
        return cls(tokens, deciding, int(_mean(shares, deciding).argmax()))

    def score(self, shares: Floats) -> Any:
        """Of the label, by these probabilities."""
        return _mean(shares, self.deciding)[self.best]


def _mean(shares: Floats, tokens: list[int]) -> Floats:
    return shares[tokens[0]] if len(tokens) == 1 else np.asarray(shares[tokens].mean(axis=0))


# ── spans ──


@dataclass(frozen=True)
class Span:
    """A candidate answer: characters `start` to `end` of the context, and its score."""

    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def logit(self) -> float:
        """The sum of both."""
        return self.start_logit + self.end_logit


def spans(
    windows: Sequence[Window], outputs: Sequence[Output], *, n_best: int = 20, max_answer_length: int = 30
) -> list[Span]:
    """The `n_best` spans of a question over all its windows, best first.

    A span begins and ends in the context, has at most `max_answer_length` tokens, and starts where its token has the
    most context of all windows, so that none is found twice. All such spans compete, where the original script lets
    only the best 20 starts meet the best 20 ends.

    Args:
        windows: The windows of one question.
        outputs: `start_logits` and `end_logits` of each, [tokens].
        n_best: How many to return.
        max_answer_length: In tokens.
    """
    found: list[Span] = []
    for window, output in zip(windows, outputs, strict=True):
        context = window.context
        start_logits = np.where(window.max_context, output["start_logits"][context], -np.inf)
        # Row: start; column: tokens after it. Beyond the last token no span can end.
        end_logits = np.pad(output["end_logits"][context], (0, max_answer_length), constant_values=-np.inf)
        width = max(min(max_answer_length, len(start_logits)), 1)
        ends = np.lib.stride_tricks.sliding_window_view(end_logits, width)[: len(start_logits)]
        sums = (start_logits[:, None] + ends).ravel()
        for i in _best(sums, n_best):
            if sums[i] > -np.inf:
                first, last = i // width, i // width + i % width
                scores = float(start_logits[first]), float(end_logits[last])
                found.append(Span(int(window.offsets[first, 0]), int(window.offsets[last, 1]), *scores))
    return sorted(found, key=lambda span: -span.logit)[:n_best]


def null_logit(outputs: Sequence[Output]) -> float:
    """How well "no answer" fits: start and end at [CLS], the least over all windows of a question."""
    return min(float(output["start_logits"][0] + output["end_logits"][0]) for output in outputs)


def answers(
    found: Sequence[Span],
    context: str,
    *,
    top_k: int | None = 1,
    null: float | None = None,
    null_threshold: float = 0.0,
    others: Callable[[Span], Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """`{"score", "start", "end", "answer"}` of a question's spans, best first.

    The score is the softmax over `found` (as in the original SQuAD script), "no answer" among them if `null` is given:
    that is `{"start": 0, "end": 0, "answer": ""}`, and it comes first if it beats the best span by more than
    `null_threshold`. Without anything to choose from the answer is empty and its score 0.

    `others` maps a span to its logits by further outputs of the model; each result has its scores by them, among the
    same spans, under `others`.
    """
    ranked = [(span.logit, span) for span in found]
    if null is not None:
        nothing = Span(0, 0, null, 0.0)
        ranked = sorted([*ranked, (null - null_threshold, nothing)], key=lambda pair: -pair[0])
    if not ranked:
        return [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
    shares = softmax(np.array([span.logit for _, span in ranked]))
    results: list[dict[str, Any]] = [
        {"score": float(share), "start": span.start, "end": span.end, "answer": context[span.start : span.end]}
        for share, (_, span) in list(zip(shares, ranked, strict=True))[:top_k]
    ]
    if others is not None:
        columns = softmax(np.array([others(span) for _, span in ranked]), axis=0)  # [spans, outputs]
        for result, row in zip(results, columns, strict=False):  # of all spans, the first `top_k` are results
            result["others"] = row.tolist()
    return results

"""What the npm package is asked, and what Python answers; without PyTorch, on made-up outputs.

    PYTHONPATH=tests python -m helpers.web_cases FILE

writes what `npm/test/twins.test.mjs` reads: for each task a description of a model, its vocabulary, and cases. There
the outputs of the model are the numbers of `output` below, so that both sides differ only in what they make of texts
and outputs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert import configs
from pocketbert.decode import AGGREGATIONS, POOLINGS
from pocketbert.exporters.source import Source
from pocketbert.exporters.web.writer import described
from pocketbert.features import Features
from pocketbert.pipelines import pipeline
from pocketbert.sentences.declared import Declared
from pocketbert.tokenization import SqueezeBertTokenizer

WORDS = [
    "the",
    "man",
    "likes",
    "paris",
    "film",
    "is",
    "great",
    "##ly",
    "dull",
    "un",
    "##like",
    ".",
    ",",
    "?",
    "'",
    "東",
]
TEXTS = [
    "The man likes Paris.",
    "",
    "Is this film unlikely, or great?",
    "the film is dull " * 40,
    "  \t paris\n\n,PARIS  ",
    "Été à Paris – naïve café 東京 🎬 film!",
    "a\u0000b\ufffdc\u200bd e\u0301f \u00adg",
    "x" * 150 + " man",
    "the [MASK] likes [SEP] paris",
    "don't, 'tis “dull” (great)…",
    "The man LIKES  paris <br> or likes paris [mask]",
    "the man " * 3000,
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


METHODS = {  # by head: the task in Python, the method in JavaScript
    "ForSequenceClassification": ("text-classification", "classify"),
    "ForTokenClassification": ("token-classification", "tag"),
    "ForQuestionAnswering": ("question-answering", "answer"),
    "ForMaskedLM": ("fill-mask", "fillMask"),
    "ForMultipleChoice": ("multiple-choice", "choose"),
    "Model": ("feature-extraction", "embed"),
}
WIDTH = 12  # of the vectors of tokens


def answered(ours: Any, method: str, model: str, *, longest: int = sys.maxsize) -> list[dict[str, Any]]:
    """What is asked of a model, and what a pipeline answers; without texts of more characters than `longest`."""
    cases = []
    for given, python in _asked(method):
        for one in _inputs(method):
            if (python.get("targets") and "[MASK]" not in one) or len(json.dumps(one)) > longest:
                continue
            expected = _in_javascript(
                method, one, ours(_in_python(one), **python), is_list=bool({"topK", "conformal"} & {*given})
            )
            cases.append({"model": model, "method": method, "input": one, "options": given, "expected": expected})
    return cases


def _asked(method: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Options in JavaScript, and the same in Python."""
    if method == "classify":
        return [
            ({}, {}), ({"topK": 2}, {"top_k": 2}),
            ({"function": "sigmoid", "topK": 3}, {"function_to_apply": "sigmoid", "top_k": 3}),
            ({"function": "none"}, {"function_to_apply": "none"}), ({"windows": True}, {"windows": True}),
            ({"minConfidence": 0.6}, {"min_confidence": 0.6}), ({"answerShare": 0.5}, {"answer_share": 0.5}),
            ({"conformal": 0.9}, {"conformal": 0.9}),
        ]  # fmt: skip
    if method == "tag":
        return [({"aggregation": one}, {"aggregation_strategy": one}) for one in AGGREGATIONS] + [
            ({"aggregation": "simple", "ignored": []}, {"aggregation_strategy": "simple", "ignore_labels": []})
        ]
    if method == "answer":
        impossible = {"topK": 3, "impossible": True, "nullThreshold": 0.5}
        return [
            ({}, {}), ({"topK": 4}, {"top_k": 4}),
            ({"topK": 5, "alignToWords": False}, {"top_k": 5, "align_to_words": False}),
            (impossible, {"top_k": 3, "handle_impossible_answer": True, "null_threshold": 0.5}),
            ({"maxAnswerLength": 3, "maxLength": 40, "stride": 9, "maxQuestionLength": 5},
             {"max_answer_len": 3, "max_seq_len": 40, "doc_stride": 9, "max_question_len": 5}),
        ]  # fmt: skip
    if method == "fillMask":
        return [
            ({}, {}),
            ({"topK": 30}, {"top_k": 30}),
            ({"targets": ["Paris", "film", "a"]}, {"targets": ["Paris", "film", "a"]}),
        ]
    if method == "embed":
        return [({"pooling": one}, {"pooling": one}) for one in ("declared", *POOLINGS)] + [
            ({"normalize": True, "dimensions": 8}, {"pooling": "declared", "normalize": True, "dimensions": 8}),
            ({"prompt": "the film: "}, {"pooling": "declared", "prompt": "the film: "}),
            ({"windows": True, "prompt": "dull "}, {"pooling": "declared", "windows": True, "prompt": "dull "}),
        ]
    return [({}, {})]


def _inputs(method: str) -> list[Any]:
    if method == "classify":
        pairs = [{"text": TEXTS[i], "textPair": TEXTS[j]} for i, j in ((0, 2), (3, 0), (0, 3), (3, 3), (1, 1), (5, 10))]
        return [*TEXTS, *pairs]
    if method == "answer":
        questions = ["Who likes Paris?", "", "the film is dull " * 20]
        return [{"question": questions[i % 3], "context": text} for i, text in enumerate(TEXTS[:-1]) if text]
    if method == "fillMask":
        return ["the [MASK] likes paris.", "[MASK][MASK] film, [MASK]", "Is [MASK] dull? " + "the " * 80]
    if method == "choose":
        return [
            {"prompt": "The man likes", "choices": ["Paris.", "the film " * 40, ""]},
            {"prompt": "", "choices": ["a"]},
        ]
    return TEXTS


def _in_python(one: Any) -> Any:
    return {"text": one["text"], "text_pair": one["textPair"]} if isinstance(one, dict) and "text" in one else one


def _in_javascript(method: str, one: Any, found: Any, *, is_list: bool = True) -> Any:
    """A result with the names and places that the package gives."""
    if method == "classify":
        return found[0] if isinstance(found, list) and not is_list else found
    if method == "tag":
        return [
            {"entity": each.get("entity", each.get("entity_group")), "score": each["score"], "word": each["word"],
             **_places(one, each)}
            for each in found
        ]  # fmt: skip
    if method == "answer":
        if isinstance(found, list):
            return [_in_javascript(method, one, each) for each in found]
        return {"answer": found["answer"], "score": found["score"], **_places(one["context"], found)}
    if method == "fillMask":
        if found and isinstance(found[0], list):
            return [_in_javascript(method, one, each) for each in found]
        names = {"word": "token_str", "token": "token", "score": "score", "text": "sequence"}
        return [{ours: each[theirs] for ours, theirs in names.items()} for each in found]
    return found


def _places(text: str, found: Any) -> dict[str, int]:
    return {name: len(text[: found[name]].encode("utf-16-le")) // 2 for name in ("start", "end")}


# ── without a model ──


def write(path: Path) -> None:
    """Write descriptions and cases of all heads."""
    vocabulary = spelling(*WORDS)
    tokenizer = tokenizer_of(vocabulary, SqueezeBertTokenizer, model_max_length=64)
    models: dict[str, dict[str, Any]] = {}
    cases: list[dict[str, Any]] = []
    for head, (task, method) in METHODS.items():
        names = {"classify": ["negative", "neutral", "positive"], "tag": TAGS}.get(method, ["LABEL_0", "LABEL_1"])
        config = configs.SqueezeBertConfig(
            vocab_size=len(vocabulary), hidden_size=WIDTH, embedding_size=WIDTH, num_attention_heads=4,
            max_position_embeddings=64, id2label=dict(enumerate(names)),
        )  # fmt: skip
        if method == "classify":
            config.extra["calibration"] = {"answer_share": {"0.5": 0.6}, "conformal": {"0.9": 0.2}}
        source = SimpleNamespace(
            head=head, config=config, tokenizer=tokenizer, model="made-up", max_tokens=64, declared=Declared()
        )
        models[head] = described(cast(Source, source))
        ours: Any = pipeline(task, MadeUp(head, len(names), len(vocabulary)), tokenizer=tokenizer, config=config)
        cases += answered(ours, method, head, longest=2000)
    written = {"vocabulary": "".join(f"{word}\n" for word in vocabulary), "models": models, "cases": cases}
    path.write_text(json.dumps(written, default=lambda array: np.asarray(array).tolist()), encoding="utf-8")


class MadeUp:
    """A predictor of outputs that follow from token ids, places and columns alone, in whole numbers."""

    def __init__(self, head: str, labels: int, words: int) -> None:
        self.head, self.labels, self.words = head, labels, words

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """The outputs of each input."""
        return [self._outputs(one) for one in inputs]

    def _outputs(self, one: Features) -> dict[str, np.ndarray]:
        ids = one.input_ids.astype(np.int64) + 7 * one.token_type_ids
        places = np.arange(len(ids))
        whole = np.array([np.sum(ids * (places % 7 + 1))])
        if self.head == "ForSequenceClassification":
            return {"logits": output(whole, np.zeros(1, np.int64), self.labels)[0]}
        if self.head == "ForMultipleChoice":
            return {"logits": output(whole, np.zeros(1, np.int64), 1)[0]}
        width = {"ForTokenClassification": self.labels, "ForQuestionAnswering": 2, "ForMaskedLM": self.words}
        tokens = output(ids, places, width.get(self.head, WIDTH))
        if self.head == "ForQuestionAnswering":
            return {"start_logits": tokens[:, 0], "end_logits": tokens[:, 1]}
        if self.head == "Model":
            return {"last_hidden_state": tokens}
        return {"logits": tokens if one.rows is None else tokens[one.rows]}


def output(ids: np.ndarray, places: np.ndarray, width: int) -> np.ndarray:
    """[ids, width] floats from -5 to 5, which are exact in 32 bits."""
    numbers = ids[:, None] * 3181 + places[:, None] * 1787 + np.arange(width) * 7481
    return (numbers * numbers % 9973 / 1024 - 5).astype(np.float32)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

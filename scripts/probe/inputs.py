"""Configurations, words and files of data, all made up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HEADS = (
    "Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification",
    "ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering",
)  # fmt: skip

# ── models ──

_small: dict[str, Any] = {"vocab_size": 120, "num_hidden_layers": 2, "max_position_embeddings": 64}
_bert: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
_squeeze: dict[str, Any] = {
    "hidden_size": 128, "embedding_size": 128, "num_attention_heads": 4, "intermediate_size": 256,
}  # fmt: skip
_mobile: dict[str, Any] = {
    "hidden_size": 128, "embedding_size": 64, "intermediate_size": 128, "intra_bottleneck_size": 64,
}  # fmt: skip


def _bert_config(**values: Any) -> tuple[str, dict[str, Any]]:
    return "Bert", {**_small, **_bert, **values}


def _squeezebert(**values: Any) -> tuple[str, dict[str, Any]]:
    return "SqueezeBert", {**_small, **_squeeze, **values}


def _mobilebert(**values: Any) -> tuple[str, dict[str, Any]]:
    return "MobileBert", {**_small, **_mobile, **values}


# Large enough that matrices go into int8: they have 4096 weights or more.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": _bert_config(),
    "bert-odd": _bert_config(hidden_size=80, num_attention_heads=5, hidden_act="relu6", type_vocab_size=3),
    "squeezebert": _squeezebert(),
    "squeezebert-groups": _squeezebert(
        intermediate_size=192, q_groups=2, k_groups=1, v_groups=8, post_attention_groups=4, intermediate_groups=1,
        output_groups=2, layer_norm_eps=1e-3, hidden_act="gelu_new",
    ),
    "mobilebert": _mobilebert(classifier_activation=False),
    "mobilebert-norm": _mobilebert(normalization_type="layer_norm", hidden_act="gelu", num_feedforward_networks=1),
    "mobilebert-tiny": _mobilebert(
        use_bottleneck_attention=True, key_query_shared_bottleneck=False, num_feedforward_networks=2
    ),
    "mobilebert-plain": _mobilebert(use_bottleneck=False, trigram_input=False, hidden_act="silu"),
}  # fmt: skip


def models() -> Iterator[tuple[str, str, Path]]:
    """Configuration, head and folder of every model that the section `torch` wrote."""
    for name in CONFIGS:
        for head in HEADS:
            if (folder := Path("models", name, head)).exists():
                yield name, head, folder


# ── words ──

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES, PLACES, VERBS = ("ann", "bob", "eve", "max"), ("rome", "oslo", "bonn", "lima"), ("lives", "works", "sings")
_WORDS = ("the", "no", "film", "is", "great", "dull", "who", "where", "in", "very", "this", "story", ".", "?", ",")
_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{x}" for x in _LETTERS)]
_PIECES += [*NAMES, *PLACES, *VERBS, *_WORDS]
_PIECES += [f"w{i}" for i in range(120 - len(_PIECES))]
TEXTS = ["the film is great .", "Dull, very dull!", "", "ann lives in rome . " * 20, "wo is that é 😀 中文", "who ?"]


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer that all these models have."""
    from pocketbert import BertTokenizer

    BertTokenizer(vocab={piece: i for i, piece in enumerate(_PIECES)}, model_max_length=64).save_pretrained(folder)


def features() -> list[Any]:
    """Inputs of the engine, of several lengths."""
    from pocketbert.features import Features

    draw = np.random.default_rng(7)
    return [
        Features(draw.integers(0, 120, n).astype(np.int32), np.repeat([0, 1], [n - n // 2, n // 2]).astype(np.int32))
        for n in (1, 2, 17, 33, 64, 40, 5)
    ]


# ── files ──


def _stories(count: int) -> list[tuple[str, str, str]]:
    draw = random.Random(1)
    return [(draw.choice(NAMES), draw.choice(VERBS), draw.choice(PLACES)) for _ in range(count)]


def write_data(folder: Path = Path("data")) -> None:
    """Files of each task: reviews.csv, pairs.csv, tags.txt, questions.json, choices.jsonl, texts.txt, documents.txt."""
    folder.mkdir()
    draw = random.Random(0)
    rows = ["text,label"]
    for i in range(80):
        words = [("great", "dull")[i % 2], *(draw.choice(_WORDS[:4] + _WORDS[8:12]) for _ in range(draw.randint(2, 9)))]
        draw.shuffle(words)
        rows.append(f"{' '.join(words)},{('good', 'bad')[i % 2]}")
    (folder / "reviews.csv").write_text("\n".join(rows) + "\n")
    (folder / "texts.txt").write_text("".join(row.rpartition(",")[0] + "\n" for row in rows[1:]))
    stories = _stories(80)
    pairs = [f"{a} {b} in {c},{a} {b},{'yes' if i % 2 else 'no'}" for i, (a, b, c) in enumerate(stories)]
    (folder / "pairs.csv").write_text("\n".join(["text,text_pair,label", *pairs]) + "\n")
    tags = [f"the O\n{a} B-PER\n{b} O\nin O\n{c} B-LOC\n" for a, b, c in stories]
    (folder / "tags.txt").write_text("\n".join(tags))
    paragraphs = []
    for i, (a, b, c) in enumerate(stories):
        context = f"the {a} {b} in {c} ."
        asked = [("who ?", a), ("where ?", c)]
        qas = [
            {"id": f"{i}-{j}", "question": q, "answers": [{"text": x, "answer_start": context.index(x)}]}
            for j, (q, x) in enumerate(asked)
        ]
        paragraphs.append({"context": context, "qas": qas})
    (folder / "questions.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    choices = [{"prompt": f"{a} {b}", "choices": [f"in {c}", f"in {a}"][:: 1 - 2 * (i % 2)], "label": i % 2}
               for i, (a, b, c) in enumerate(stories)]  # fmt: skip
    (folder / "choices.jsonl").write_text("".join(json.dumps(one) + "\n" for one in choices))
    sentences = [f"{a.capitalize()} {b} in {c} and {words}." for (a, b, c), words in zip(
        _stories(600), (" ".join(draw.choices(_PIECES[57:], k=9)) for _ in range(600)), strict=True)]  # fmt: skip
    documents = ["\n".join(sentences[i : i + 8]) for i in range(0, 600, 8)]
    (folder / "documents.txt").write_text("\n\n".join(documents) + "\n")

"""embed with declarations and files, and rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sentences import copy, declare
from pocketbert import CrossEncoder, SentenceTransformer, pipeline

Run = Callable[..., Any]
Models = dict[str, Path]


@pytest.fixture
def encoder(models: Models, tmp_path: Path) -> Path:
    """A sentence encoder with declarations."""
    files = {
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": 8},
        "config_sentence_transformers.json": {"prompts": {"query": "film: ", "document": "dull "}},
    }
    return declare(copy(models["embed"], tmp_path / "encoder"), files)


@pytest.fixture
def scorer(models: Models, tmp_path: Path) -> Path:
    """A cross encoder of one label."""
    from pocketbert import AutoConfig, AutoModelForSequenceClassification

    path = copy(models["classify"], tmp_path / "scorer")
    config = AutoConfig.from_pretrained(path).replace(num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    return path


def test_embed_as_the_folder_declares(run: Run, encoder: Path) -> None:
    """Cases 1 and 2: the length that is read, and the pooling."""
    base = ["embed", "--model", encoder, "the film is great the film is dull", "--json"]
    [line] = run(*base).lines
    expected = SentenceTransformer(encoder).encode("the film is great the film is dull")
    assert np.array_equal(np.array(line["embedding"], np.float32), expected)
    assert "longer than the model's limit of 8 tokens" in run(*base).err
    for options in ({"prompt_name": "query"}, {"prompt": "is "}, {"dimensions": 5}, {"pooling": "max"}):
        words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        [line] = run(*base, *words).lines
        pipe = pipeline("feature-extraction", encoder)
        assert line["embedding"] == pipe("the film is great the film is dull", **{"pooling": "declared", **options})


def test_embed_into_a_file(run: Run, encoder: Path, tmp_path: Path) -> None:
    texts = [f"the film is {word}" for word in ("great", "dull", "warsaw")]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    base = ["embed", "--model", encoder, "--file", tmp_path / "texts.txt"]
    outcome = run(*base, "--output", tmp_path / "new" / "vectors.npy")
    assert outcome.out == ""
    assert "wrote 3 vectors of 32 dimensions" in outcome.err
    found = np.load(tmp_path / "new" / "vectors.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, SentenceTransformer(encoder).encode(texts))
    assert np.array_equal(np.load(tmp_path / "new" / "vectors.npy", mmap_mode="r"), found)
    outcome = run(*base, "--output", tmp_path / "vectors.txt")
    assert outcome.code == 2
    assert ".npy" in outcome.err
    assert not (tmp_path / "vectors.txt").exists()
    outcome = run(*base, "--prompt", "x", "--prompt-name", "query")
    assert outcome.code == 2
    assert "not both" in outcome.err
    assert "its prompts: query, document" in run(*base, "--prompt-name", "x").error


PASSAGES = ["the film is great", "dull", "marie curie was born in warsaw", "dull"]


def test_rank_with_a_cross_encoder(run: Run, scorer: Path, models: Models) -> None:
    expected = CrossEncoder(scorer).rank("the film", PASSAGES, return_documents=True)
    lines = run("rank", "the film", *PASSAGES, "--model", scorer, "--json").lines
    assert [(one["index"], one["text"]) for one in lines] == [(one["corpus_id"], one["text"]) for one in expected]
    assert [one["score"] for one in lines] == pytest.approx([one["score"] for one in expected], abs=1e-6)
    assert len(run("rank", "the film", *PASSAGES, "--model", scorer, "--json", "--top-k", "2").lines) == 2
    table = run("rank", "the film", *PASSAGES, "--model", scorer, "--table").text
    assert all(word in table for word in ("Score", "Index", "marie curie"))
    long = run("rank", "the film", "dull " * 100, "--model", scorer, "--json")
    assert "longer than the model's limit" in long.err
    many = run("rank", "the film", "dull", "--model", models["nli"])
    assert "3 labels" in many.error


def test_rank_with_a_sentence_encoder(run: Run, encoder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(encoder)
    scores = model.similarity(model.encode_query("the film"), model.encode_document(PASSAGES))[0]
    (tmp_path / "passages.txt").write_text("\n".join(PASSAGES), encoding="utf-8")
    lines = run("rank", "the film", "--model", encoder, "--file", tmp_path / "passages.txt", "--json").lines
    order = sorted(range(len(PASSAGES)), key=lambda i: -scores[i])
    assert [one["index"] for one in lines] == order
    assert [one["score"] for one in lines] == pytest.approx([scores[i] for i in order], abs=1e-6)
    assert run("rank", " ", "dull", "--model", encoder).error

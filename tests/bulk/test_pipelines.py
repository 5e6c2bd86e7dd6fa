"""A pipeline over columns: every task, every kind of batch, and the way to a worker."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pocketbert import ColumnPipeline, InputError
from pocketbert.bulk import pipelines
from pocketbert.bulk.columns import arrow_type
from pocketbert.pipelines import pipeline

Models = dict[str, Path]
TEXTS = ["The film is great.", "dull", "Is it? It is the film."]


def test_every_task_gives_what_its_pipeline_does(models: Models) -> None:
    """All columns of Arrow have the types that are promised, and the values of the pipeline, to the bit."""
    masked = ["the [MASK] is great .", "[MASK] [MASK] film"]
    cases: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("text-classification", "classify", {"text": TEXTS}, {}),
        ("text-classification", "nli", {"text": TEXTS, "text_pair": TEXTS[::-1]}, {"top_k": 2}),
        ("text-classification", "classify", {"text": TEXTS[:2]}, {"min_confidence": 0.9}),
        ("zero-shot-classification", "nli", {"text": TEXTS}, {"candidate_labels": "film, great", "top_k": None}),
        ("token-classification", "tag", {"text": TEXTS}, {}),
        ("question-answering", "answer", {"question": ["Who?"] * 3, "context": TEXTS}, {}),
        ("fill-mask", "fill-mask", {"text": masked}, {"top_k": 2}),
        ("multiple-choice", "choose", {"prompt": TEXTS, "choices": [["film", "great"]] * 3}, {}),
        ("feature-extraction", "embed", {"text": TEXTS}, {"normalize": True}),
    ]
    for task, model, columns, options in cases:
        made = ColumnPipeline(task, models[model], **options)
        table = made(pa.table(columns))
        form = made.form
        assert table.schema.names == [*columns, *form.types]
        assert [table.schema.field(name).type for name in form.types] == [*map(arrow_type, form.types.values())]
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        inputs = [form.input(row) for row in rows]
        results = pipeline(task, models[model]).stream(inputs, **form.options)
        expected = [form.values(one, found.value) for one, found in zip(inputs, results, strict=True)]
        assert table.drop_columns(list(columns)).to_pylist() == expected, task
        assert all(name in made.schema for name in form.types)


def test_batches_of_every_kind_are_answered_alike(models: Models) -> None:
    made = ColumnPipeline("text-classification", models["classify"], columns={"text": "review"})
    given: dict[str, Any] = {"id": [1, 2, 3], "review": TEXTS}
    table = made(pa.table(given))
    [batch] = made.each(iter([pa.RecordBatch.from_pydict(given)]))
    frame = made(pd.DataFrame(given, index=[7, 8, 9]))
    arrays = made({"id": np.arange(1, 4), "review": np.array(TEXTS, object)})
    assert isinstance(batch, pa.RecordBatch)
    assert table.to_pylist() == batch.to_pylist() == frame.to_dict("records")
    assert list(frame.index) == [7, 8, 9]
    assert frame["score"].dtype == arrays["score"].dtype == np.float64
    assert arrays["score"].tolist() == table["score"].to_pylist()
    assert arrays["label"].tolist() == table["label"].to_pylist()


def test_rows_without_text_stay(models: Models) -> None:
    made = ColumnPipeline("token-classification", models["tag"])
    texts = [None, TEXTS[0], " ", ""]
    found = made(pa.table({"text": pa.array(texts, pa.string())}))["entities"].to_pylist()
    assert [one is None for one in found] == [True, False, True, True]
    nothing = ColumnPipeline("feature-extraction", models["embed"])(pd.DataFrame({"text": [None, float("nan")]}))
    assert nothing["embedding"].tolist() == [None, None]
    assert len(made(pa.table({"text": pa.array([], pa.string())}))) == 0


def test_an_object_is_small_until_it_answers_and_a_process_reads_a_model_once(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(models["classify"].parent)
    made = ColumnPipeline("text-classification", "classify", top_k=1)
    sent = pickle.dumps(made)
    assert len(sent) < 2000
    monkeypatch.chdir(tmp_path)  # where a worker runs
    pipelines.load.cache_clear()
    first, second = (pickle.loads(sent) for _ in range(2))
    assert first({"text": TEXTS})["labels"].tolist() == second({"text": TEXTS})["labels"].tolist()
    assert pipelines.load.cache_info().misses == 1
    assert pipelines.load(first.task, first.model, first.threads).predictor.threads == 1  # type: ignore[attr-defined]


def test_what_is_refused(models: Models) -> None:
    made = ColumnPipeline("fill-mask", models["fill-mask"])
    with pytest.raises(InputError, match=r"row 2 of the batch \('the film'\): no \[MASK\]"):
        made({"text": ["[MASK]", None, "the film"]})
    with pytest.raises(InputError, match="no column 'text': it has review"):
        made({"review": TEXTS})
    with pytest.raises(InputError, match="has a column gaps already"):
        made({"text": TEXTS, "gaps": TEXTS})
    with pytest.raises(InputError, match=r"has no option topk: it takes .*top_k"):
        ColumnPipeline("text-classification", topk=2)
    with pytest.raises(InputError, match="columns: context is not one of text"):
        ColumnPipeline("fill-mask", columns={"context": "text"})
    with pytest.raises(InputError, match="'none'"):
        ColumnPipeline("ner", models["tag"], aggregation_strategy="none")
    with pytest.raises(InputError, match="summarization has no columns"):
        ColumnPipeline("summarization")

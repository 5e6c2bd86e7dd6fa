"""Reports of a run: the card, metrics, confusion, errors and curves."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pocketbert.recipes import model_card
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions

Options = Callable[..., FinetuneOptions]


def test_the_card_is_one_for_the_hub(options: Options, tmp_path: Path) -> None:
    result = finetune(options(epochs=3, learning_rate=1e-2), argv=["pocketbert", "finetune", "my reviews.csv"])
    card = ModelCard.load(result.folder / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.library_name == "pocketbert"
    assert card.data.model_name == "out"
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == {name: round(value, 4) for name, value in result.metrics.items()}
    assert {one.dataset_name for one in card.data.eval_results} == {"reviews.csv"}
    text = (result.folder / "README.md").read_text()
    run = json.loads((result.folder / "run.json").read_text())
    for part in (
        "A `SqueezeBertForSequenceClassification` for text classification, trained with PocketBERT from random",
        "Labels: bad, good.",
        f"| dev | reviews.csv | 8 | `{run['data']['dev']['sha256'][:16]}…` |",
        f"| accuracy | {result.metrics['accuracy']:.4f} |",
        f"| parameters | {run['parameters']:,} |",
        "$ pocketbert finetune 'my reviews.csv'",
        "learning_rate = 0.01",
        "The model was selected on the same data",
    ):
        assert part in text, part
    assert " ms |" not in text
    model_card.write_card(result.folder, {"one input, fp32": 1.234})
    text = (result.folder / "README.md").read_text()
    assert "| one input, fp32 | 1.23 ms |" in text
    assert f"Timed on {run['machine']['processor']}" in text


@pytest.mark.usefixtures("pictures")
def test_metrics_confusion_errors_and_curves(options: Options) -> None:
    result = finetune(options(epochs=2))
    folder = result.folder / "evaluation"
    assert json.loads((folder / "metrics.json").read_text()) == result.metrics
    header, *rows = [line.split("\t") for line in (folder / "confusion.tsv").read_text().splitlines()]
    assert header == ["label", "bad", "good"]
    counts = [[int(count) for count in row[1:]] for row in rows]
    assert sum(map(sum, counts)) == 8
    assert (counts[0][0] + counts[1][1]) / 8 == pytest.approx(result.metrics["accuracy"])
    header, *errors = [line.split("\t") for line in (folder / "errors.tsv").read_text().splitlines()]
    assert header == ["line", "label", "predicted", "score", "text", "text_pair"]
    assert len(errors) == counts[0][1] + counts[1][0]
    assert all(row[1] != row[2] for row in errors)
    scores = [float(row[3]) for row in errors]
    assert scores == sorted(scores, reverse=True)
    _, *predictions = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()]
    assert len(predictions) == 8
    png = (result.folder / "curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (1200, 420)


def test_without_matplotlib(
    options: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model_card, "find_spec", lambda name: None)
    with caplog.at_level("INFO", "pocketbert"):
        result = finetune(options(epochs=1))
    assert not (result.folder / "curves.png").exists()
    assert "skipping curves.png, which needs matplotlib" in caplog.text
    assert (result.folder / "README.md").exists()


def test_a_base_model_of_the_hub_is_named_and_a_folder_is_not(options: Options, tmp_path: Path) -> None:
    first = finetune(options(epochs=1)).folder
    second = finetune(options(epochs=1, model=str(first), output=tmp_path / "second")).folder
    assert "\nbase_model:" not in (second / "README.md").read_text()
    run = json.loads((second / "run.json").read_text())
    run["options"] |= {"model": "someone/bert", "glue": "sst-2"}
    (second / "run.json").write_text(json.dumps(run))
    model_card.write_card(second)
    card = ModelCard.load(second / "README.md")
    assert card.data.base_model == "someone/bert"
    assert {one.dataset_type for one in card.data.eval_results} == {"nyu-mll/glue"}

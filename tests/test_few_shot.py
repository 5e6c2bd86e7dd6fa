"""A classifier from a few examples without PyTorch: in Python and on the command line, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketbert
from pocketbert.errors import CheckpointError, ConfigError, DataError
from pocketbert.frozen.few_shot import few_shot, proposal
from pocketbert.pipelines import pipeline
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.classification import TextClassification
from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions

BILLING = ["I was charged twice this month.", "Please refund my last payment.", "The invoice shows the wrong amount.",
           "My card was debited although I cancelled.", "Why did the price of my plan go up?",
           "I need a receipt for my payment."]  # fmt: skip
BUGS = ["The app crashes when I open it.", "I see an error after the update.", "The screen stays black.",
        "The page does not load any more.", "The button does nothing when I press it.",
        "It freezes on the start screen."]  # fmt: skip
ROWS = [*((text, "billing") for text in BILLING), *((text, "bug") for text in BUGS)]
FRESH = ["They took the money from my account two times.", "After the last version it shuts down by itself."]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> pocketbert.FewShotResult:
    lines: list[str] = []
    output = tmp_path_factory.mktemp("few") / "model"
    found = few_shot(FinetuneOptions(data=ROWS, output=output), log=lines.append)
    assert lines[0] == "12 examples; 2 labels: billing, bug"
    assert sum("chosen for its lower loss" in line for line in lines) == 1
    return found


def test_a_dozen_examples_are_told_apart(result: pocketbert.FewShotResult) -> None:
    """Metrics are those of cross-validation on all examples; the folder answers as a pipeline, an export's source."""
    assert result.metrics["accuracy"] >= 0.75
    assert set(result.compared) == {"mean", "cls"}
    assert result.metrics == result.compared[result.chosen]
    assert result.folder is not None
    assert [answer["label"] for answer in pipeline("text-classification", str(result.folder))(FRESH)] == [
        "billing", "bug",
    ]  # fmt: skip
    facts = json.loads((result.folder / "few-shot.json").read_text())
    assert facts["data"]["train"]["examples"] == 12
    report = (result.folder / "report.html").read_text()
    assert "Every example is predicted by a head that was fitted without it (cross-validation)." in report
    assert "<td>dev</td>" not in report
    predictions = (result.folder / "evaluation/predictions.tsv").read_text().splitlines()
    assert len(predictions) == 13
    assert evaluate(EvaluateOptions(model=result.folder, data=ROWS)).metrics["accuracy"] == 1.0


def test_in_memory_with_evaluation_data(tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    found = few_shot(FinetuneOptions(data=ROWS, eval_data=(FRESH, ["billing", "bug"]), sample_weights=[1.0] * 12))
    assert found.folder is None
    assert found.metrics["accuracy"] == 1.0
    assert list(tmp_path.iterdir()) == before
    assert found.config.id2label == {0: "billing", 1: "bug"}


def test_several_labels_and_numbers() -> None:
    several = few_shot(FinetuneOptions(data=([t for t, _ in ROWS], [[label, "any"] for _, label in ROWS])))
    assert several.config.problem_type == "multi_label_classification"
    assert several.metrics["micro_f1"] > 0.7
    numbers = [0.5 + (label == "bug") + 0.01 * i for i, (_, label) in enumerate(ROWS)]
    regression = few_shot(FinetuneOptions(data=([t for t, _ in ROWS], numbers)))
    assert regression.metrics["pearson"] > 0.3


def test_probabilities_are_calibrated_and_decided_on(tmp_path: Path) -> None:
    """By the answers of cross-validation, as after a training run."""
    rng, lines = np.random.default_rng(0), list[str]()
    rows = [(f"{text} {int(rng.integers(100))}", label) for text, label in ROWS for _ in range(8)]
    wrong = rng.choice(len(rows), 20, replace=False)
    for i in wrong:
        rows[i] = (rows[i][0], "bug" if rows[i][1] == "billing" else "billing")
    found = few_shot(FinetuneOptions(data=rows, output=tmp_path / "one"), log=lines.append)
    stated = found.config.extra["calibration"]
    assert stated["examples"] == len(rows)
    assert any(line.startswith("calibration: ") for line in lines)
    answers = np.loadtxt(tmp_path / "one/evaluation/predictions.tsv", str, delimiter="\t", skiprows=1)
    assert len(answers) == len(rows)
    facts = json.loads((tmp_path / "one/few-shot.json").read_text())
    assert facts["calibration"]["after"]["log_loss"] <= facts["calibration"]["before"]["log_loss"]
    assert found.metrics["loss"] == pytest.approx(facts["metrics"]["loss"])
    pipe = pipeline("text-classification", str(tmp_path / "one"))
    assert len(pipe(FRESH[0], conformal=0.99)) == 2
    least = stated["answer_share"]["0.5"]  # of the answers of cross-validation, which are less sure than these
    assert np.mean(answers[:, 3].astype(float) >= least - 1e-4) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one["label"] is not None for one in pipe([text for text, _ in rows], answer_share=0.5)]) > 0.4
    several = [(text, [label, "any"] if i % 3 else [label]) for i, (text, label) in enumerate(rows)]
    options = FinetuneOptions(data=several, thresholds="0.8", output=tmp_path / "several")
    thresholds = few_shot(options).config.extra["thresholds"]
    assert set(thresholds) == {"any", "billing", "bug"}
    assert pipeline("text-classification", str(tmp_path / "several")).config.extra["thresholds"] == thresholds
    with pytest.raises(ConfigError, match="--thresholds is for data in which a text may have several labels"):
        few_shot(FinetuneOptions(data=ROWS, thresholds="f1"))


def test_what_was_not_learned_is_logged() -> None:
    """Labels that have nothing to do with the texts."""
    lines: list[str] = []
    chance = np.random.default_rng(3).permutation(12)
    found = few_shot(FinetuneOptions(data=(["the same text"] * 12, [str(i % 2) for i in chance])), log=lines.append)
    assert found.metrics["accuracy"] <= 0.5
    assert any("is no better than the majority class" in line for line in lines)


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"task": "token-classification"}, ConfigError, "is for --task text-classification"),
        ({"from_scratch": "bert-base-uncased", "vocab_size": 99}, ConfigError, "needs a pretrained encoder"),
        ({"output": tmp_path / "full"}, CheckpointError, "full"),
        ({"data": (["a", "b"], ["x", "x"])}, DataError, "two are needed"),
        ({"data": None}, DataError, "a NoneType is not labelled data"),
    ]
    for changes, kind, problem in cases:
        with pytest.raises(kind, match=problem):
            few_shot(FinetuneOptions(**{"data": ROWS, **changes}))


def test_small_tables_are_proposed_for_it() -> None:
    data = TextClassification(FinetuneOptions(data=ROWS, eval_data=ROWS))
    assert "6 examples per label is few-shot data: --few-shot" in str(proposal(data))
    many = TextClassification(FinetuneOptions(data=ROWS * 20, eval_data=ROWS))
    assert proposal(many) is None

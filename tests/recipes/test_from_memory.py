"""Runs on data in memory, and what callers add to a run: callbacks, metrics, weights; nothing stays on disk."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.labelled import reviews
from pocketbert.data.memory import in_memory
from pocketbert.data.tables import read_table
from pocketbert.errors import ConfigError, DataError
from pocketbert.recipes.distill import distill
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.seeds import over_seeds
from pocketbert.tasks.classification import TextClassification
from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions
from pocketbert.training.callbacks import Callback
from pocketbert.training.objectives import WeightedLoss

Options = Callable[..., FinetuneOptions]
ROWS = reviews(80)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


def test_a_run_in_memory_is_the_run_on_a_file(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, metrics and labels; nothing is left on disk, where there was no output folder."""
    from_file = finetune(options(max_steps=3))
    places = tmp_path / "temporary"
    places.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    before = sorted(tmp_path.rglob("*"))
    result = finetune(options(data=(TEXTS, np.array(LABELS)), output=None, max_steps=3))
    assert sorted(tmp_path.rglob("*")) == before
    assert result.metrics == from_file.metrics
    assert not result.folder.exists()
    assert result.model is not None
    assert result.model.config.id2label == {0: "bad", 1: "good"}
    assert result.tokenizer is not None
    assert len(result.tokenizer("great film")["input_ids"]) > 3
    kept = finetune(
        options(data={"text": TEXTS, "label": LABELS}, eval_data=ROWS[:20], output=tmp_path / "kept", max_steps=1)
    )
    run = json.loads((kept.folder / "run.json").read_text())
    assert run["options"]["data"] == "data in memory"
    assert (run["data"]["train"]["examples"], run["data"]["dev"]["examples"]) == (80, 20)
    assert len(run["data"]["train"]["sha256"]) == 64
    scores = evaluate(EvaluateOptions(model=kept.folder, data=ROWS[:20]))
    assert scores.metrics["accuracy"] == kept.metrics["accuracy"]

    def share_of_good(labels: list[str], predicted: list[str]) -> float:
        assert set(labels) == {"bad", "good"}
        return sum(label == "good" for label in predicted) / len(labels)

    own = evaluate(EvaluateOptions(model=kept.folder, data=ROWS[:20], metric=share_of_good)).metrics
    assert next(iter(own)) == "share_of_good"
    student = distill(DistillOptions(data=ROWS, output=None, teacher=(str(kept.folder),), model=str(kept.folder),
                                     max_steps=1, device="cpu"))  # fmt: skip
    assert student.model is not None


class Watching(Callback):
    """Notes all that it is told, and stops where it is to."""

    def __init__(self, stop_at_step: int | None = None, stop_at_evaluation: int | None = None) -> None:
        self.steps: list[int] = []
        self.evaluations: list[int] = []
        self.stop_at_step, self.stop_at_evaluation = stop_at_step, stop_at_evaluation

    def on_step(self, step: int, values: Mapping[str, float]) -> bool | None:
        assert values["loss"] > 0
        self.steps.append(step)
        return step == self.stop_at_step

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        assert "accuracy" in metrics
        self.evaluations.append(step)
        return len(self.evaluations) == self.stop_at_evaluation


def test_callbacks_watch_and_stop(options: Options) -> None:
    """A run with evaluations after two and four steps, stopped after a step and after an evaluation."""
    watching, early, at_evaluation = Watching(), Watching(stop_at_step=3), Watching(stop_at_evaluation=1)
    whole, result, short = (
        finetune(options(output=None, max_steps=4, eval_every=2), callback=callback)
        for callback in (watching, early, at_evaluation)
    )
    assert (watching.steps, watching.evaluations) == ([1, 2, 3, 4], [2, 4])
    assert (result.steps, early.steps, early.evaluations) == (3, [1, 2, 3], [2, 3])
    assert result.history[:1] == whole.history[:1] == short.history
    assert short.steps == 2


def test_a_metric_of_ones_own_selects_the_model(options: Options) -> None:
    def goodness(labels: list[str], predicted: list[str]) -> float:
        return sum(label == "good" for label in predicted) / len(labels)

    result = finetune(options(metric=goodness, max_steps=3, eval_every=2))
    assert next(iter(result.metrics)) == "goodness"
    assert result.metrics["goodness"] == max(entry["goodness"] for entry in result.history)
    assert json.loads((result.folder / "run.json").read_text())["options"]["metric"] == "goodness"


def test_metrics_without_a_finite_number_are_named(options: Options) -> None:
    """Also those without a name of their own; what they raise themselves reaches the caller."""
    result = finetune(options(output=None, metric=partial(_constant, value=0.5), max_steps=1))
    assert next(iter(result.metrics.items())) == ("_constant", 0.5)
    for value in ("much", None, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=rf"the metric _constant is '?{value}'? for reviews\.csv"):
            finetune(options(output=None, metric=partial(_constant, value=value), max_steps=1))
    with pytest.raises(ZeroDivisionError):
        finetune(options(output=None, metric=lambda labels, predicted: 1 / 0, max_steps=1))


def _constant(labels: list[str], predicted: list[str], *, value: Any) -> Any:
    return value


def test_several_seeds_in_memory(options: Options) -> None:
    result = over_seeds(finetune, options(output=None, max_steps=1), 2)
    assert len(result.seeds) == 2
    assert result.result.model is not None


# ── weights ──


def weights(data: Any, **changes: Any) -> np.ndarray | None:
    task = TextClassification(FinetuneOptions(data=data, eval_data=data, **changes))
    found = task.weights(task.labels)
    assert found is None or found.mean() == pytest.approx(1.0)
    return found


def test_weights_of_classes_and_rows() -> None:
    """Balanced classes have the same sum; given ones their ratio; rows keep theirs through the split of a dev set."""
    data = (["x"] * 6, ["a", "a", "a", "a", "b", "c"])
    assert weights(data) is None
    balanced = weights(data, class_weights="balanced")
    assert balanced is not None
    assert balanced[:4].sum() == pytest.approx(balanced[4]) == pytest.approx(balanced[5])
    given = weights(data, class_weights="a=2,b=0.5")
    assert given is not None
    np.testing.assert_allclose(given / given[5], [2, 2, 2, 2, 0.5, 1], rtol=1e-6)
    rows = weights(data, sample_weights=[1, 2, 3, 4, 5, 0])
    assert rows is not None
    np.testing.assert_allclose(rows, np.array([1, 2, 3, 4, 5, 0]) / 2.5)
    both = weights(data, sample_weights=[1, 2, 3, 4, 5, 6], class_weights={"b": 3.0})
    assert both is not None
    np.testing.assert_allclose(both / both[0], [1, 2, 3, 4, 15, 6], rtol=1e-6)
    several = weights((["x"] * 4, [["a"], ["a", "b"], ["a"], []]), class_weights="balanced")
    assert several is not None
    ratios = (several / several[3, 0]).ravel().tolist()
    assert ratios == pytest.approx([1 / 3, 1, 1 / 3, 3, 1 / 3, 1, 1, 1], rel=1e-5)
    options = FinetuneOptions(data=(TEXTS, LABELS), sample_weights=[*range(1, 81)], eval_fraction=0.25)
    task = TextClassification(options)
    assert task.train.weights is not None
    assert [int(w) for w in task.train.weights] == [example.line for example in task.train.examples]


def test_weights_that_do_not_fit() -> None:
    data = (["x", "y"], ["a", "b"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"class_weights": "a"}, "must be balanced, or A=2"),
        ({"class_weights": "a=0"}, "must be positive"),
        ({"class_weights": {"a": float("inf")}}, "must be positive"),
        ({"class_weights": "z=2"}, "the label 'z' is not one of a, b"),
        ({"sample_weights": [1.0]}, "1 sample_weights and 2 rows"),
        ({"sample_weights": [1.0, -1.0]}, "not negative"),
        ({"sample_weights": [0.0, 0.0]}, "some of them positive"),
        ({"label_smoothing": 1.0}, "must lie in"),
        ({"task": "token-classification", "class_weights": "balanced"}, "is not for --task token-classification"),
    ]
    for changes, problem in cases:
        with pytest.raises(ConfigError, match=problem):
            weights(data, **changes)
    with pytest.raises(ConfigError, match="these labels are numbers"):
        weights((["x", "y"], [0.5, 1.5]), class_weights="balanced")
    numbers: dict[str, Any] = {"data": (["x", "y"], [0.5, 1.5]), "eval_data": (["x", "y"], [0.5, 1.5])}
    with pytest.raises(ConfigError, match="--label-smoothing is for classification, and these labels are numbers"):
        TextClassification(FinetuneOptions(**numbers, label_smoothing=0.1))
    with pytest.raises(ConfigError, match="several labels; here it is a number"):
        TextClassification(FinetuneOptions(**numbers, thresholds="f1"))
    with pytest.raises(ConfigError, match="is for finetune"):
        DistillOptions(data=data, teacher=("t",), class_weights="balanced")
    with pytest.raises(ConfigError, match="is in memory: --glue reads a folder"):
        FinetuneOptions(data=data, glue="sst-2")
    with pytest.raises(ConfigError, match="needs an output folder"):
        FinetuneOptions(data=data, resume=True)
    with pytest.raises(DataError, match="is not labelled data"):
        FinetuneOptions(data=3)


def test_weighted_losses_are_the_means_they_should_be() -> None:
    """Any division into micro-batches gives the same sum of shares: the weighted mean of smoothed losses."""
    from pocketbert.configs import BertConfig
    from pocketbert.models.auto import AutoModelForSequenceClassification

    small: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                             "intermediate_size": 8, "hidden_dropout_prob": 0.0}  # fmt: skip
    ids, mask = torch.randint(5, 20, (6, 4)), torch.ones(6, 4, dtype=torch.long)
    share = torch.rand(6) + 0.5
    for problem, labels in [
        ("single_label_classification", torch.tensor([0, 1, 2, 0, 1, 1])),
        ("multi_label_classification", torch.randint(0, 2, (6, 3)).float()),
        ("regression", torch.randn(6)),
    ]:
        config = BertConfig(**small, num_labels=1 if problem == "regression" else 3, problem_type=problem)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        factors = share[:, None].expand(6, 3) if problem.startswith("multi") else share
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "weights": factors}
        objective = WeightedLoss(model, 0.0)
        whole = objective(batch, {"examples": 6})["loss"]
        parts = [objective({n: t[part] for n, t in batch.items()}, {"examples": 6})["loss"]
                 for part in (slice(0, 1), slice(1, 6))]  # fmt: skip
        torch.testing.assert_close(sum(parts), whole)
        plain = {name: tensor for name, tensor in batch.items() if name != "weights"}
        torch.testing.assert_close(objective(plain, {"examples": 6})["loss"], model(**plain).loss)
        single = torch.stack([model(ids[i : i + 1], mask[i : i + 1], labels=labels[i : i + 1]).loss for i in range(6)])
        torch.testing.assert_close(whole, (single * share).mean())
        if problem != "regression":
            smooth = WeightedLoss(model, 0.2)(plain, {"examples": 6})["loss"]
            assert smooth != whole


def test_several_hundred_rows_are_read_lazily() -> None:
    """A table of rows that are made as they are read."""
    memory = in_memory({"text": [f"text {i}" for i in range(500)], "label": [str(i % 3) for i in range(500)]})
    assert len(read_table(memory)) == 500

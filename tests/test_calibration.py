"""Temperatures: what fits them, and that whatever reads a model obeys them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special
from sklearn.metrics import brier_score_loss, log_loss

from helpers.runs import options_in
from pocketbert import metrics
from pocketbert.calibration import ENOUGH, calibrate, chance_error, fit_temperature


def drawn(rng: np.random.Generator, count: int, classes: int, temperature: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits that are too large by a factor, and classes drawn from the true probabilities."""
    true = rng.normal(0, 2, (count, classes))
    gold = (special.softmax(true, axis=1).cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return (true * temperature).astype(np.float32), gold


@pytest.mark.parametrize(("classes", "temperature"), [(2, 3.0), (7, 0.4)])
def test_the_temperature_is_found(classes: int, temperature: float) -> None:
    logits, gold = drawn(np.random.default_rng(classes), 6000, classes, temperature)
    fitted = fit_temperature(logits, gold)
    assert fitted == pytest.approx(temperature, rel=0.08)
    wide = logits.astype(float)
    best = optimize.minimize_scalar(
        lambda t: log_loss(gold, special.softmax(wide / t, axis=1)), bounds=(0.1, 9), method="bounded"
    )
    assert fitted == pytest.approx(best.x, rel=5e-3)  # the smoothing is weak where there are many examples
    found = calibrate(logits, gold)
    assert found.temperatures == (fitted,)
    assert found.after.calibration_error < 1.5 * found.chance < found.before.calibration_error
    assert found.after.log_loss < found.before.log_loss
    assert found.after.brier_loss < found.before.brier_loss
    assert found.before.log_loss == pytest.approx(log_loss(gold, special.softmax(wide, axis=1)))


def test_one_temperature_per_label() -> None:
    rng, true = np.random.default_rng(5), np.array([4.0, 0.5, 1.0])
    wide = rng.normal(0, 2, (3000, 3))
    gold = (special.expit(wide) > rng.random(wide.shape)).astype(int)
    gold[:, 2] = np.arange(3000) < 7  # a label that hardly occurs
    found = calibrate(wide * true, gold)
    assert found.temperatures[:2] == pytest.approx(true[:2], rel=0.1)
    assert found.temperatures[2] == 1.0
    assert [index for index, _ in found.kept] == [2]
    assert "7 held-out examples" in found.kept[0][1]
    assert found.before.log_loss == pytest.approx(np.mean([
        log_loss(gold[:, i], special.expit(wide[:, i] * true[i])) for i in range(3)
    ]))  # fmt: skip


def test_without_enough_examples_or_errors() -> None:
    logits, gold = drawn(np.random.default_rng(1), ENOUGH - 1, 3, 3.0)
    found = calibrate(logits, gold)
    assert (found.temperatures, found.changes, found.before) == ((1.0,), False, found.after)
    assert found.kept == ((-1, "49 held-out examples are too few to fit a temperature (50 are needed)"),)
    # A model without an error does not become certain: as many examples say little about one in a hundred.
    sure = np.tile([1.0, -1.0], (100, 1))
    assert 0.97 < special.softmax(sure[0] / fit_temperature(sure, np.zeros(100, int)))[0] < 0.995
    # Where probabilities are right already, nothing changes.
    logits, gold = drawn(np.random.default_rng(8), 400, 3, 1.0)
    assert calibrate(logits, gold).temperatures[0] == pytest.approx(1.0, abs=0.15)
    equal = calibrate(np.zeros((60, 2)), np.arange(60) % 2)
    assert equal.temperatures == (1.0,)
    assert np.isfinite(equal.before.log_loss)
    huge = calibrate(np.array([[1e4, -1e4]] * 60, dtype=np.float32), np.arange(60) % 2)
    assert np.isfinite([*huge.after.scores().values(), *huge.temperatures]).all()


def test_metrics_of_probabilities() -> None:
    rng = np.random.default_rng(3)
    for classes in (2, 5):
        logits, gold = drawn(rng, 300, classes, 1.5)
        shares = special.softmax(logits, axis=1)
        assert metrics.brier_loss(shares, gold) == pytest.approx(
            brier_score_loss(gold, shares if classes > 2 else shares[:, 1])
        )
    several, right = rng.random((50, 3)), rng.integers(0, 2, (50, 3))
    assert metrics.brier_loss(several, right) == pytest.approx(np.mean((several - right) ** 2))
    # Two bins by hand: 20 doubtful ones of which half are right, 20 sure ones that all are.
    confidence, hits = np.repeat([0.9, 0.6], 20), np.repeat([1.0, 0.5], 20)
    hits[20:] = np.arange(20) % 2
    assert metrics.calibration_error(confidence, hits) == pytest.approx((0.1 + 0.1) / 2)
    assert sorted(np.concatenate(metrics.mass_bins(confidence)).tolist()) == list(range(40))
    errors = [
        metrics.calibration_error(p, rng.random(len(p)) < p) < chance_error(p)
        for p in (rng.uniform(0.5, 1, 400) for _ in range(300))
    ]
    assert 0.92 < np.mean(errors) < 0.98


# ── runs ──


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A run on labels of which a quarter are wrong, so that its model is too sure, and its dev set."""
    from helpers.labelled import reviews, write_csv
    from pocketbert.recipes.finetune import finetune

    folder, chance = tmp_path_factory.mktemp("noisy"), np.random.default_rng(2)
    rows = [
        (text, label if chance.random() < 0.75 else {"good": "bad", "bad": "good"}[label])
        for text, label in reviews(200)
    ]
    dev = write_csv(folder / "dev.csv", rows[100:])
    options = options_in(
        folder, data=write_csv(folder / "train.csv", reviews(200)), eval_data=dev, epochs=8, learning_rate=5e-3
    )
    return finetune(options), dev


def test_a_run_saves_calibrated_weights(noisy: tuple[Any, Path]) -> None:
    from helpers.evaluation import metrics_of
    from pocketbert.checkpoints import read_tensors

    result, dev = noisy
    stated = json.loads((result.folder / "config.json").read_text())["calibration"]
    record = json.loads((result.folder / "run.json").read_text())["calibration"]
    temperature = stated["temperature"]
    assert (temperature, stated["examples"]) == (record["temperature"], 100)
    assert temperature > 1.5
    assert record["after"]["log_loss"] < record["before"]["log_loss"]
    assert record["after"]["calibration_error"] < record["before"]["calibration_error"]
    # The metrics are those of the weights in the folder, on the engine; training saw others.
    found = metrics_of(result.folder, dev)
    assert found == pytest.approx(result.metrics, abs=1e-5)
    [trained] = [entry for entry in result.history if entry["step"] == result.best_step]
    assert trained["loss"] == pytest.approx(record["before"]["log_loss"], abs=1e-6)
    assert found["loss"] < trained["loss"]
    assert found["accuracy"] == trained["accuracy"]
    if result.best_step == result.steps:
        one, last = read_tensors(result.folder), read_tensors(result.folder / "last")
        different = {name for name in one if not np.array_equal(one[name], last[name])}
        assert different == {"classifier.weight", "classifier.bias"}
        np.testing.assert_allclose(one["classifier.weight"] * temperature, last["classifier.weight"], rtol=1e-6)
    card = (result.folder / "README.md").read_text()
    assert f"part of the saved weights: {temperature:.3g}" in card
    assert "![Reliability diagram](reliability.png)" in card
    assert (result.folder / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_every_reader_obeys(noisy: tuple[Any, Path], tmp_path: Path) -> None:
    """PyTorch, transformers and the engine in int8 have the scores of the engine; predictions.tsv has them, too."""
    import transformers

    from pocketbert.pipelines import pipeline
    from pocketbert.runtime.quantized_folders import quantize_folder

    result, dev = noisy
    texts = [line.rpartition(",")[0] for line in dev.read_text().splitlines()[1:9]]
    wanted = [one["score"] for one in pipeline("text-classification", result.folder)(texts)]
    torch_scores = [one["score"] for one in pipeline("text-classification", result.folder, device="cpu")(texts)]
    theirs = transformers.pipeline("text-classification", str(result.folder))(texts)
    assert torch_scores == pytest.approx(wanted, abs=1e-5)
    assert [one["score"] for one in theirs] == pytest.approx(wanted, abs=1e-5)
    lines = [line.split("\t") for line in (result.folder / "evaluation" / "predictions.tsv").read_text().splitlines()]
    assert [float(line[3]) for line in lines[1:9]] == pytest.approx(wanted, abs=1e-3)
    quantize_folder(result.folder, tmp_path / "int8")
    small = [one["score"] for one in pipeline("text-classification", tmp_path / "int8")(texts)]
    assert small == pytest.approx(wanted, abs=0.05)
    assert json.loads((tmp_path / "int8" / "config.json").read_text())["calibration"]["examples"] == 100


def test_a_run_that_goes_on_forgets_the_temperature(
    noisy: tuple[Any, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from pocketbert.recipes.finetune import finetune

    with caplog.at_level("INFO", "pocketbert"):
        result = finetune(options_in(tmp_path, model=str(noisy[0].folder), epochs=1, max_steps=2))
    stated = json.loads((result.folder / "config.json").read_text())["calibration"]
    assert stated == {"temperature": 1.0, "examples": 8}
    assert "calibration: the temperature stays 1: 8 held-out examples are too few" in caplog.text
    assert "calibration" not in json.loads((result.folder / "last" / "config.json").read_text())
    assert "as trained" in (result.folder / "README.md").read_text()

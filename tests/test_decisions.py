"""Decisions: thresholds per label, no answer, sets that contain the label; in Python, the shell and the service."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import f1_score, precision_score

from pocketbert import decisions
from pocketbert.configs import AutoConfig
from pocketbert.decisions import Rule, fit_thresholds, make_rule, probabilities_of_coverages, reached, risk_coverage
from pocketbert.errors import ConfigError, InputError

NAMES = {0: "a", 1: "b", 2: "c"}


def config(**changes: Any) -> Any:
    extra = changes.pop("extra", {})
    base = {"model_type": "bert", "id2label": {str(i): name for i, name in NAMES.items()}}
    return AutoConfig.from_dict({**base, **changes, **extra})


def drawn(seed: int, count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    shares = special.softmax(rng.normal(0, 1.5, (count, 3)), axis=1)
    return shares, (shares.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)


def test_sets_cover_as_often_as_asked() -> None:
    for level in (0.8, 0.9):
        hits, sizes = [], []
        for seed in range(40):
            shares, gold = drawn(seed, 400)
            least = probabilities_of_coverages(shares[:150], gold[:150])[f"{level:g}"]
            sets = [{one["label"] for one in Rule(member=least)(row, NAMES)} for row in shares[150:]]
            hits += [NAMES[int(label)] in one for label, one in zip(gold[150:], sets, strict=True)]
            sizes += [len(one) for one in sets]
        assert level - 0.01 < np.mean(hits) < level + 0.03
        assert min(sizes) == 1
    few = probabilities_of_coverages(*drawn(0, 30))
    assert few["0.95"] > 0
    assert few["0.98"] == 0  # 31 × 0.98 examples are more than there are, so all labels belong


def test_shares_and_the_curve() -> None:
    shares, gold = drawn(1, 2000)
    confidence = shares.max(axis=1)
    for level, least in decisions.confidences_of_shares(shares).items():
        assert np.mean(confidence >= least) == pytest.approx(float(level), abs=1e-3)
    curve = risk_coverage(shares, gold)
    assert [share for share, _, _ in curve] == pytest.approx(np.arange(1, 21) / 20)
    assert curve[-1][2] == np.mean(shares.argmax(axis=1) == gold)
    assert curve[0][2] > curve[-1][2] + 0.2
    assert [least for _, least, _ in curve] == sorted((least for _, least, _ in curve), reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_per_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, 21, (300, 3)) / 20).astype(float)
    gold = (scores * rng.random(scores.shape) > [0.2, 0.6, 2.0]).astype(int)
    found = fit_thresholds(scores, gold, "f1")
    assert found[2] == 0.5  # without examples
    for i in range(2):
        best = max(f1_score(gold[:, i], scores[:, i] > cut) for cut in np.arange(0.025, 1, 0.05))
        assert f1_score(gold[:, i], reached(scores, found)[:, i]) == pytest.approx(best)
    gold[:, 1] = rng.random(300) < 0.3  # nothing that the scores tell
    strict = fit_thresholds(scores, gold, "0.65")
    assert strict[0] is not None
    assert precision_score(gold[:, 0], scores[:, 0] > strict[0]) >= 0.65
    lower = scores[:, 0][scores[:, 0] < strict[0]]
    assert precision_score(gold[:, 0], scores[:, 0] >= lower.max()) < 0.65
    assert strict[1] is None
    assert not reached(scores, strict)[:, 1].any()


def test_what_cannot_be_asked_for() -> None:
    stated = {"calibration": {"temperature": 1.2, "answer_share": {"0.9": 0.4}, "conformal": {"0.9": 0.1}}}
    assert make_rule(config()) is None
    assert make_rule(config(extra=stated), answer_share=0.9) == Rule(confidence=0.4)
    assert make_rule(config(extra=stated), conformal=0.9) == Rule(member=0.1)
    for asked, extra, message in (
        ({"answer_share": 0.9}, {}, "needs statistics of held-out examples"),
        ({"conformal": 0.9}, {"calibration": 3}, "needs statistics of held-out examples"),
        ({"conformal": 0.87}, stated, "conformal=0.87 must be one of 0.9"),
        ({"min_confidence": 1.5}, {}, "must be a number from 0 to 1"),
        ({"min_confidence": 0.5, "conformal": 0.9}, {}, "pass one of min_confidence, conformal"),
        (
            {"min_confidence": 0.5},
            {"problem_type": "multi_label_classification"},
            "min_confidence is for models with exactly one",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make_rule(config(extra=extra), **asked)
    for wrong in ({"a": 0.5}, {"a": 0.5, "b": 2, "c": 0.1}, 3):
        with pytest.raises(ConfigError, match=r"thresholds in config\.json"):
            make_rule(config(extra={"thresholds": wrong}))
    for goal in ("f2", "0", "1.5", "nan"):
        with pytest.raises(ConfigError, match="must be f1, or a precision"):
            decisions.read_goal(goal)


# ── everywhere ──


TEXTS = ["the film is great", "marie curie was born in warsaw", "dull"]


@pytest.fixture(scope="module")
def folders(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Classifiers whose `config.json` states what decisions need: of one label, and of several."""
    from pocketbert.pipelines import pipeline

    found, root = {}, tmp_path_factory.mktemp("decided")
    scores = [one["score"] for one in pipeline("text-classification", models["classify"])(TEXTS)]
    middle = float(np.median(scores))
    names = AutoConfig.from_pretrained(models["classify"]).id2label.values()
    changes: dict[str, dict[str, Any]] = {
        "one": {"calibration": {"temperature": 1.0, "answer_share": {"0.5": middle}, "conformal": {"0.9": 0.0}}},
        "several": {
            "problem_type": "multi_label_classification",
            "thresholds": {name: None if i else 0.0 for i, name in enumerate(names)},
        },
    }
    for kind, extra in changes.items():
        folder = root / kind
        shutil.copytree(models["classify"], folder)
        stated = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**stated, **extra}))
        found[kind] = folder
    return found


def test_python(folders: dict[str, Path]) -> None:
    from pocketbert.pipelines import pipeline

    pipe = pipeline("text-classification", folders["one"])
    plain = pipe(TEXTS)
    shared = pipe(TEXTS, answer_share=0.5)
    assert sum(one["label"] is None for one in shared) == 1
    least = sorted(one["score"] for one in plain)[1]
    assert shared == [one if one["score"] >= least else {**one, "label": None} for one in plain]
    assert pipe(TEXTS, min_confidence=least) == shared
    assert pipe(TEXTS[0], min_confidence=1.0)[0]["label"] is None
    assert pipe(TEXTS[0], conformal=0.9) == pipe(TEXTS[0], top_k=None)
    for beside in ({"top_k": 2}, {"function_to_apply": "none"}, {"return_all_scores": True}):
        with pytest.raises(InputError, match="cannot be combined with a decision"):
            pipe(TEXTS, min_confidence=0.5, **beside)
    first, *_ = pipe.config.id2label.values()
    several = pipeline("text-classification", folders["several"])
    assert [[one["label"] for one in found] for found in several(TEXTS)] == [[first]] * 3
    assert len(several(TEXTS[0], top_k=None)) == len(pipe.config.id2label)
    assert several(TEXTS[0], top_k="chosen") == several(TEXTS[0])
    with pytest.raises(InputError, match="top_k='best' must be a whole number"):
        several(TEXTS, top_k="best")


def test_columns(folders: dict[str, Path]) -> None:
    from pocketbert.bulk.pipelines import ColumnPipeline

    batch = {"text": TEXTS}
    shared = ColumnPipeline("text-classification", folders["one"], answer_share=0.5)(batch)
    assert sum(label is None for label in shared["label"]) == 1
    sets = ColumnPipeline("text-classification", folders["one"], conformal=0.9)(batch)
    assert all(len(found) > 1 for found in sets["labels"])
    chosen = ColumnPipeline("text-classification", folders["several"], top_k="chosen")(batch)
    assert [len(found) for found in chosen["labels"]] == [1, 1, 1]
    with pytest.raises(InputError, match="any number of labels"):
        ColumnPipeline("text-classification", folders["several"])(batch)


def test_shell(folders: dict[str, Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from pocketbert import cli

    def run(*arguments: str | Path) -> list[Any]:
        with pytest.raises(SystemExit) as stopped:
            cli.app(["classify", *map(str, arguments)])
        out = capsysbinary.readouterr()
        return [json.loads(line) for line in out.out.splitlines()] if not stopped.value.code else [out.err.decode()]

    lines = run("--model", folders["one"], "--answer-share", "0.5", "--json", *TEXTS)
    assert sum(line["label"] is None for line in lines) == 1
    assert all(len(line["labels"]) > 1 for line in run("-m", folders["one"], "--conformal", "0.9", "--json", *TEXTS))
    lines = run("-m", folders["several"], "--json", *TEXTS)
    assert [len(line["labels"]) for line in lines] == [1, 1, 1]
    [error] = run("-m", folders["several"], "--min-confidence", "0.5", *TEXTS)
    assert "min_confidence is for models with exactly one label per text" in error
    [error] = run("-m", folders["one"], "--labels", "a,b", "--conformal", "0.9", *TEXTS)
    assert "--conformal is not for --labels" in error


def test_service(folders: dict[str, Path]) -> None:
    from helpers.service import Inside

    def ask(service: Inside, **body: Any) -> Any:
        return asyncio.run(service.ask("/v1/classify", {"inputs": TEXTS, **body})).json

    with Inside(("one", folders["one"])) as service:
        results = ask(service, answer_share=0.5)["results"]
        assert sum(found[0]["label"] is None for found in results) == 1
        assert all(len(found) > 1 for found in ask(service, conformal=0.9)["results"])
        assert "must be one of 0.9" in ask(service, conformal=0.8)["error"]["message"]
        assert "cannot be combined with a decision" in ask(service, conformal=0.9, top_k=3)["error"]["message"]
        assert "cannot be combined with labels" in ask(service, conformal=0.9, labels=["x"])["error"]["message"]
    with Inside(("several", folders["several"])) as service:
        assert [len(found) for found in ask(service)["results"]] == [1, 1, 1]
        assert all(len(found) > 1 for found in ask(service, top_k=100)["results"])


@pytest.mark.learning
def test_a_run_fits_thresholds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A label that the text tells, and one that it does not."""
    from helpers.evaluation import metrics_of
    from helpers.labelled import stories
    from helpers.runs import options_in
    from pocketbert.recipes.finetune import finetune

    chance = np.random.default_rng(0)
    rows = [
        {"text": f"{name} {verb} {place}", "label": ["person"] * (name < "c") + ["any"] * (chance.random() < 0.5)}
        for name, verb, place in stories(160)
    ]  # fmt: skip
    data = tmp_path / "a.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    dev = tmp_path / "b.jsonl"
    dev.write_text("\n".join(map(json.dumps, rows[:80])))
    with caplog.at_level("INFO", "pocketbert"):
        result = finetune(
            options_in(tmp_path, data=data, eval_data=dev, epochs=3, learning_rate=1e-2, thresholds="0.97")
        )
    config = AutoConfig.from_pretrained(result.folder)
    assert config.extra["thresholds"]["any"] is None
    assert 0 < config.extra["thresholds"]["person"] < 1
    assert "no threshold is precise enough for any: no text gets it" in caplog.text
    assert metrics_of(result.folder, dev) == pytest.approx(result.metrics, abs=1e-5)
    lines = (result.folder / "evaluation" / "predictions.tsv").read_text().splitlines()[1:]
    assert {line.split("\t")[2] for line in lines} == {"", "person"}
    assert "| person |" not in (card := (result.folder / "README.md").read_text())
    assert "exceeds its threshold: any never, person 0." in card


def test_labels_that_are_too_rare_for_a_threshold_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, whatever the number of evaluations; and that no label has a temperature."""
    from helpers.runs import options_in
    from pocketbert.recipes.finetune import finetune

    rows = [(f"text {i}", ["even"] * (i % 2) + ["rare"] * (i == 0)) for i in range(30)]
    with caplog.at_level("INFO", "pocketbert"):
        finetune(options_in(tmp_path, data=rows, eval_data=rows, output=None, thresholds="0.95", epochs=2))
    assert caplog.text.count("the threshold stays 0.5 for rare: fewer than 10 held-out examples have the label") == 1
    assert "the temperatures stay 1: even: 30 held-out examples are too few" in caplog.text


def test_thresholds_are_for_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from helpers.runs import options_in
    from pocketbert.recipes.finetune import finetune

    with pytest.raises(ConfigError, match="--thresholds is for data in which a text may have several labels"):
        finetune(options_in(tmp_path, thresholds="f1", epochs=1))
    assert "step" not in caplog.text  # before anything is trained
    with pytest.raises(ConfigError, match="--thresholds best must be f1, or a precision"):
        options_in(tmp_path, thresholds="best")
    with pytest.raises(ConfigError, match="--thresholds f1 is not for --task question-answering"):
        options_in(tmp_path, thresholds="f1", task="question-answering")

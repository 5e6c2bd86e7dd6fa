"""Metrics by the names that scikit-learn has for them."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy.stats import kendalltau

from helpers.evaluations import EVALUATIONS, classes
from helpers.runs import options_in
from pocketbert.decode import softmax
from pocketbert.errors import ConfigError, MissingExtraError
from pocketbert.metrics import smaller_is_better
from pocketbert.recipes.finetune import finetune
from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions
from pocketbert.tasks.evaluation import Evaluation
from pocketbert.tasks.named_metrics import Judged


def value_of(evaluation: Evaluation[Any, Any], name: str) -> float:
    evaluation.use(name)
    scores = evaluation.scored_set("dev")
    assert next(iter(scores)) == name
    return scores[name]


def arrays(evaluation: Evaluation[Any, Any]) -> Judged:
    return evaluation.judged(evaluation.sets["dev"], evaluation.predicted["dev"])


Formula = Callable[[Any, Any, Any], float]
OF_CLASSES: dict[str, Formula] = {
    "balanced_accuracy": lambda gold, best, _: reference.balanced_accuracy_score(gold, best),
    "f1_weighted": lambda gold, best, _: reference.f1_score(gold, best, average="weighted"),
    "matthews_corrcoef": lambda gold, best, _: reference.matthews_corrcoef(gold, best),
    "neg_log_loss": lambda gold, _, shares: -reference.log_loss(gold, shares),
    "roc_auc_ovr": lambda gold, _, shares: reference.roc_auc_score(gold, shares, multi_class="ovr"),
    "cohen_kappa_score": lambda gold, best, _: reference.cohen_kappa_score(gold, best),
    "zero_one_loss": lambda gold, best, _: reference.zero_one_loss(gold, best),
}
OF_SEVERAL: dict[str, Formula] = {
    "f1_samples": lambda gold, chosen, _: reference.f1_score(gold, chosen, average="samples", zero_division=0),
    "roc_auc": lambda gold, _, shares: reference.roc_auc_score(gold, shares),
    "average_precision": lambda gold, _, shares: reference.average_precision_score(gold, shares),
    "hamming_loss": lambda gold, chosen, _: reference.hamming_loss(gold, chosen),
}
OF_NUMBERS: dict[str, Formula] = {
    "r2": lambda gold, predicted, _: reference.r2_score(gold, predicted),
    "neg_root_mean_squared_error": lambda gold, predicted, _: -(((gold - predicted) ** 2).mean() ** 0.5),
    "mean_absolute_error": lambda gold, predicted, _: np.abs(gold - predicted).mean(),
    "kendall": lambda gold, predicted, _: kendalltau(predicted, gold).statistic,
}


FORMULAS = {"classes": OF_CLASSES, "several": OF_SEVERAL, "numbers": OF_NUMBERS}


@pytest.mark.parametrize("kind", FORMULAS)
def test_values_are_those_of_scikit_learn(kind: str) -> None:
    evaluation = EVALUATIONS[kind]()
    for name, formula in FORMULAS[kind].items():
        assert value_of(evaluation, name) == pytest.approx(formula(*arrays(evaluation)), abs=1e-9), name


def test_two_classes() -> None:
    evaluation = EVALUATIONS["classes"]()
    rows = evaluation.sets["dev"]
    evaluation.labels = type(evaluation.labels)(("bad", "good"))  # type: ignore[attr-defined]
    gold = np.array([i % 2 for i in range(len(rows))])
    evaluation.gold[id(rows)] = gold  # type: ignore[attr-defined]
    evaluation.predicted["dev"] = [row[:2] for row in evaluation.predicted["dev"]]
    logits = np.stack(evaluation.predicted["dev"])
    shares = softmax(logits.astype(np.float64))[:, 1]
    assert value_of(evaluation, "roc_auc") == pytest.approx(reference.roc_auc_score(gold, shares))
    assert value_of(evaluation, "neg_brier_score") == pytest.approx(-reference.brier_score_loss(gold, shares))
    assert value_of(evaluation, "f1") == pytest.approx(reference.f1_score(gold, logits.argmax(axis=1)))


@pytest.mark.parametrize("kind", ["tags", "choices"])
def test_tags_of_words_and_choices(kind: str) -> None:
    evaluation = EVALUATIONS[kind]()
    gold, predicted, _ = arrays(evaluation)
    expected = reference.f1_score(gold, predicted, average="macro")
    assert value_of(evaluation, "f1_macro") == pytest.approx(expected)
    with pytest.raises(ConfigError, match="--metric neg_log_loss is not for this data: it needs probabilities"):
        evaluation.use("neg_log_loss")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("classes", "f1", "--metric f1 is not for this data: Target is multiclass but average='binary'"),
        ("classes", "f1_makro", "must be one of accuracy, macro_f1, loss, brier_loss, calibration_error, or a name of "
         "scikit-learn's: f1_macro, f1_micro"),
        ("classes", "zzz", "scikit-learn's: f1_macro, balanced_accuracy"),
        ("classes", "rand_score", "or a name of scikit-learn's"),
        ("numbers", "roc_auc", "--metric roc_auc is not for this data"),
        ("answers", "f1_macro", "compare labels, which a …ForQuestionAnswering does not have"),
    ],
)  # fmt: skip
def test_what_has_no_such_metric(kind: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        EVALUATIONS[kind]().use(name)


def test_labels_that_are_all_the_same() -> None:
    evaluation = classes(30)
    evaluation.gold[id(evaluation.sets["dev"])][:] = 1  # type: ignore[attr-defined]
    for name in ("roc_auc_ovr", "neg_log_loss"):
        with pytest.raises(ConfigError, match=rf"--metric {name} (is not for this data|has no value for the labels)"):
            evaluation.use(name)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"f1_macro must be one of accuracy, .*'pocketbert\[sklearn\]'"):
        classes().use("f1_macro")
    classes().use("macro_f1")  # the task's own


def test_a_score_without_a_value_is_0() -> None:
    evaluation = EVALUATIONS["numbers"]()
    evaluation.predicted["dev"] = [np.zeros(1)] * 80
    assert value_of(evaluation, "kendall") == 0.0


def test_which_way_is_better() -> None:
    assert all(map(smaller_is_better, ("loss", "matched_brier_loss", "mean_absolute_error", "zero_one_loss")))
    assert not any(map(smaller_is_better, ("neg_log_loss", "dev_neg_mean_absolute_error", "r2", "d2_log_loss_score")))


@pytest.mark.usefixtures("no_pictures")
def test_a_run_and_an_evaluation(tmp_path: Path) -> None:
    result = finetune(options_in(tmp_path, metric="balanced_accuracy", epochs=1))
    assert list(result.metrics)[:2] == ["balanced_accuracy", "accuracy"]
    assert "balanced_accuracy" in (result.folder / "report.html").read_text()
    scores = evaluate(EvaluateOptions(model=result.folder, data=tmp_path / "reviews.csv", metric="roc_auc")).metrics
    assert next(iter(scores)) == "roc_auc"
    scores = evaluate(EvaluateOptions(model=result.folder, data=tmp_path / "reviews.csv", metric="loss")).metrics
    assert list(scores)[:2] == ["loss", "accuracy"]

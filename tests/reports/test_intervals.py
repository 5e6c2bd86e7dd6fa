"""Bootstrap intervals and McNemar's test."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from helpers.evaluations import EVALUATIONS, classes
from pocketbert.metrics import matthews_correlation
from pocketbert.reports import intervals as module
from pocketbert.reports.intervals import counts, draws, intervals, mcnemar, resampled, scored
from pocketbert.tasks.outcomes import KINDS, Outcomes

WITHOUT = {"calibration_error", "best_f1", "best_exact_match", "best_f1_threshold", "best_exact_match_threshold"}


def repeated(outcomes: Outcomes, times: np.ndarray) -> Outcomes:
    rows = np.repeat(np.arange(len(outcomes)), times)
    return replace(outcomes, columns={name: [column[i] for i in rows] for name, column in outcomes.columns.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_from_counts_are_those_of_the_evaluation(kind: str) -> None:
    outcomes = EVALUATIONS[kind]().outcomes("dev")
    assert set(outcomes.columns) == set(KINDS[kind])
    once = scored(outcomes, np.ones((1, len(outcomes))))
    assert outcomes.metrics.keys() - WITHOUT <= once.keys()
    for name in outcomes.metrics.keys() - WITHOUT:
        assert once[name][0] == pytest.approx(outcomes.metrics[name], abs=2e-5), name
    times = np.random.default_rng(5).integers(0, 4, (2, len(outcomes)))
    drawn = scored(outcomes, times.astype(np.float64))
    for row in range(2):
        again = repeated(outcomes, times[row])
        for name, value in scored(again, np.ones((1, len(again)))).items():
            assert drawn[name][row] == pytest.approx(value[0], abs=1e-9), name


def test_the_correlation_of_classes_is_that_of_matthews() -> None:
    outcomes = classes().outcomes("dev")
    found = scored(outcomes, np.ones((1, len(outcomes))))["matthews_correlation"][0]
    columns = outcomes.columns
    assert found == pytest.approx(matthews_correlation(columns["predicted"], columns["gold"]))


def test_intervals_are_those_of_scipy() -> None:
    outcomes = classes(300, sure=1.0).outcomes("dev")
    found = intervals(outcomes, resampled(outcomes))
    for name, column in (("accuracy", "right"), ("loss", "loss")):
        there = bootstrap((outcomes.array(column),), np.mean, method="percentile", rng=1, n_resamples=2000)
        limits = there.confidence_interval
        width = limits.high - limits.low
        assert found[name][0] == pytest.approx(limits.low, abs=0.1 * width)
        assert found[name][1] == pytest.approx(limits.high, abs=0.1 * width)
    assert intervals(outcomes, resampled(outcomes)) == found  # the same resamples each time


def test_where_all_are_right_the_limit_is_that_of_the_binomial_distribution() -> None:
    outcomes = classes(30, sure=50.0).outcomes("dev")
    assert outcomes.metrics["accuracy"] == 1.0
    low, high = intervals(outcomes, resampled(outcomes))["accuracy"]
    exact = binomtest(30, 30).proportion_ci(0.95, "exact")
    assert low == pytest.approx(exact.low)
    assert high == 1.0


def test_resamples_of_many_examples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", 20_000)
    parts = list(counts(60))
    assert [len(part) for part in parts] == [333, 333, 333, 1]
    assert all((part.sum(axis=1) == 60).all() for part in parts)
    assert [draws(examples) for examples in (10, 20_000, 40_000, 10**6)] == [1000, 1000, 500, 200]


@pytest.mark.parametrize("both", [(0, 0), (3, 3), (1, 9), (12, 2), (40, 60)])
def test_mcnemar_is_the_exact_binomial_test(both: tuple[int, int]) -> None:
    first = [1] * both[0] + [0] * both[1] + [1, 0]
    second = [0] * both[0] + [1] * both[1] + [1, 0]
    only_first, only_second, chance = mcnemar(first, second)
    assert (only_first, only_second) == both
    there = 1.0 if sum(both) == 0 else binomtest(both[0], sum(both)).pvalue
    assert chance == pytest.approx(there)


def test_labels_that_look_wrong_are_found() -> None:
    evaluation = classes(200, sure=6.0)
    rows = evaluation.sets["dev"]
    gold = evaluation.gold[id(rows)]  # type: ignore[attr-defined]
    gold[:6] = (gold[:6] + 1) % 3
    found = [one.line - 2 for one in evaluation.outcomes("dev").suspects]
    assert len(set(found) & set(range(6))) >= 4

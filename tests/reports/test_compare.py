"""Comparisons of two models on the same examples."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from helpers.evaluations import EVALUATIONS, classes, numbers
from pocketbert import CompareOptions, compare
from pocketbert.errors import DataError
from pocketbert.reports.compare import verdict
from pocketbert.tasks.outcomes import KINDS, Outcomes, write_outcomes

Change = Callable[[Outcomes], Outcomes]


def folder_of(folder: Path, outcomes: Outcomes, name: str = "dev") -> Path:
    write_outcomes(folder, "ForSequenceClassification", {name: outcomes})
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_beside_itself_and_beside_another(kind: str, tmp_path: Path) -> None:
    first = EVALUATIONS[kind]().outcomes("dev")
    second = first
    if kind in ("classes", "several", "choices", "numbers"):
        evaluation = EVALUATIONS[kind]()
        evaluation.predicted["dev"] = [row[::-1].copy() * 2 for row in evaluation.predicted["dev"]]
        second = evaluation.outcomes("dev")
    a, b = folder_of(tmp_path / "a", first), folder_of(tmp_path / "b", second)
    [same] = compare(CompareOptions(first=a, second=a)).sets.values()
    assert (same.only_first, same.only_second, same.p_value) == ((None,) * 3 if kind == "numbers" else (0, 0, 1.0))
    assert same.better is None
    [other] = compare(CompareOptions(first=a, second=b, output=tmp_path / "page.html")).sets.values()
    for name, each in other.metrics.items():
        assert (each.first, each.second) == (first.metrics[name], second.metrics[name])
        if each.low is not None and each.high is not None:
            assert each.low <= each.second - each.first <= each.high
    page = (tmp_path / "page.html").read_text()
    assert f"{len(first)} examples of {first.file}" in page
    assert all(name in page for name in first.metrics)


def test_the_better_one_is_named(tmp_path: Path) -> None:
    bad, good = classes(300, sure=1.0), classes(300, sure=3.0)
    a, b = (folder_of(tmp_path / name, one.outcomes("dev")) for name, one in (("a", bad), ("b", good)))
    [one] = compare(CompareOptions(first=a, second=b)).sets.values()
    assert one.better == "second"
    assert one.only_first is not None
    assert one.only_second is not None
    total = one.only_first + one.only_second
    assert one.p_value == pytest.approx(binomtest(one.only_first, total).pvalue)
    assert (len(one.lines_first), len(one.lines_second)) == (one.only_first, one.only_second)
    assert verdict(("a", "b"), one).endswith("b is better.")
    [back] = compare(CompareOptions(first=b, second=a)).sets.values()
    assert back.better == "first"
    assert back.lines_second == one.lines_first


def test_numbers_have_intervals_of_differences(tmp_path: Path) -> None:
    outcomes = numbers(200).outcomes("dev")
    gold = outcomes.array("gold")
    near = gold + np.random.default_rng(1).normal(size=200) * 0.1
    better = replace(outcomes, columns={**outcomes.columns, "predicted": near.tolist()}, metrics={"loss": 0.01})
    a, b = folder_of(tmp_path / "a", replace(outcomes, metrics={"loss": 1.0})), folder_of(tmp_path / "b", better)
    [one] = compare(CompareOptions(first=a, second=b)).sets.values()
    assert one.better == "second"  # a smaller loss
    assert verdict(("a", "b"), one) == "b is better."


CHANGES: dict[str, tuple[Change, str]] = {
    "other examples": (lambda one: replace(one, examples="0"), "was evaluated on 80 examples of held.csv"),
    "other labels": (lambda one: replace(one, answers="0"), "on the same texts with different labels"),
    "another label": (lambda one: replace(one, labels=["bad", "fine", "new"]), "only one of them has <b>good</b>, new"),
    "no metric": (lambda one: replace(one, metrics={"own": 1.0}), "no metric in common"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_cannot_be_compared(case: str, tmp_path: Path) -> None:
    change, message = CHANGES[case]
    outcomes = classes().outcomes("dev")
    a, b = folder_of(tmp_path / "a", outcomes), folder_of(tmp_path / "b", change(outcomes))
    with pytest.raises(DataError, match=message):
        compare(CompareOptions(first=a, second=b))


def test_folders_without_answers(tmp_path: Path) -> None:
    a = folder_of(tmp_path / "a", classes().outcomes("dev"))
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        (tmp_path / "empty", "no outcomes.json in it or in its evaluation/: give an output folder"),
        (tmp_path / "none", "no such file or folder"),
        (folder_of(tmp_path / "n", numbers().outcomes("dev")), "predicts classes, and .*n numbers"),
        (folder_of(tmp_path / "s", classes().outcomes("dev"), "matched"), "has the sets dev, and .*s matched"),
    ):
        with pytest.raises(DataError, match=message):
            compare(CompareOptions(first=a, second=wrong))

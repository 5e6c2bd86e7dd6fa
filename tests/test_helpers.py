"""Tests by pairs leave no pair out; and which configuration meets which head."""

from itertools import product
from typing import Any

import pytest

from helpers.families import ALIKE, CONFIGS, HEADS, all_that_matter, each_in_turn, our_class, their_class
from helpers.pairs import pairs_of, pairwise
from pocketbert.families import FAMILIES
from pocketbert.families.family import HEADS as HEAD_KINDS


@pytest.mark.parametrize(
    "factors",
    [
        [range(13), "abcdefgh", range(5)],
        [range(4), "ab", range(3), "abc"],
        [range(3), "ab"],
        [range(3)],
        [range(2), [], range(3)],
    ],
)
def test_every_pair_occurs(factors: list[Any]) -> None:
    cases = pairwise(*factors)
    every = [pairs_of(case) for case in product(*factors)]
    assert set().union(*map(pairs_of, cases)) == set().union(*every)
    assert len(set(cases)) == len(cases)
    assert cases == pairwise(*factors)


def test_no_more_cases_than_needed() -> None:
    """At least all values of the two largest factors; far fewer than all combinations."""
    assert 13 * 8 <= len(pairwise(range(13), range(8), range(5))) <= 13 * 8 + 5
    assert 9 <= len(pairwise(range(3), range(3), range(2), range(2))) <= 12


def test_only_pairs_that_matter() -> None:
    cases = pairwise(range(13), range(8), range(4), together=[(0, 2), (1, 2)])
    assert {case[::2] for case in cases} == set(product(range(13), range(4)))
    assert {case[1:] for case in cases} == set(product(range(8), range(4)))
    assert len(cases) == 13 * 4


def test_only_what_is_allowed() -> None:
    """Pairs that no allowed combination has are left out, and only these."""

    def allowed(a: int, b: int, c: int) -> bool:
        return a != b and (a + b + c) % 3 > 0

    cases = pairwise(range(4), range(4), range(3), allowed=allowed)
    assert all(allowed(*case) for case in cases)
    possible = [pairs_of(case) for case in product(range(4), range(4), range(3)) if allowed(*case)]
    assert set().union(*map(pairs_of, cases)) == set().union(*possible)


def test_configurations_and_heads_in_turn() -> None:
    cases = each_in_turn()
    assert {name for name, _ in cases} == set(CONFIGS)
    kinds = {name: ALIKE.get(config.model_type, config.model_type) for name, config in CONFIGS.items()}
    heads = {(kinds[name], head) for name, head in cases}
    assert heads == {(family, head) for family in set(kinds.values()) for head in FAMILIES[family].heads}
    assert all(our_class(CONFIGS[name], head) for name, head in cases)
    assert {head for _, head in each_in_turn(("Model", "ForMaskedLM"))} == {"Model", "ForMaskedLM"}


def test_all_that_matter() -> None:
    """Whole families, and for every configuration what depends on it: the pooler, and the scores of words."""
    for class_of in (our_class, their_class):
        cases = all_that_matter(class_of=class_of)
        heads = {name: {head for other, head in cases if other == name} for name in CONFIGS}
        assert sum(map(len, heads.values())) == len(cases)
        for family in FAMILIES.keys() - ALIKE.keys():
            assert heads[family] == {head for head in HEADS if class_of(CONFIGS[family], head)}
        for name in CONFIGS.keys() - (FAMILIES.keys() - ALIKE.keys()):
            kinds = [HEAD_KINDS[head] for head in heads[name]]
            assert any(kind.words for kind in kinds)
            assert any(kind.pooled for kind in kinds)
            assert len(kinds) <= 2
            assert "Model" in heads[name] or CONFIGS[name].has_pooler_layer

"""The predictor: the same answers as the model alone, whatever is in the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import CONFIGS, our_class, randomise
from helpers.pairs import in_turn
from pocketbert.features import Features
from pocketbert.models.predict import TorchPredictor


def some(lengths: list[int]) -> list[Features]:
    draw = np.random.default_rng(0)
    return [
        Features(draw.integers(1, 99, n).astype(np.int32), draw.integers(0, 2, n).astype(np.int32)) for n in lengths
    ]


@pytest.mark.parametrize(
    ("name", "head"),
    in_turn(
        [
            (
                ["bert", "squeezebert", "mobilebert"],
                ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"],
            )
        ]
    ),
)
def test_each_input_as_if_alone(name: str, head: str) -> None:
    model: Any = our_class(CONFIGS[name], head)(CONFIGS[name])
    randomise(model, 0)
    inputs = some([9, 1, 30, 9, 2, 17, 30])
    several = [TorchPredictor(model, tokens_a_batch)(inputs) for tokens_a_batch in (1, 40, 4096)]
    assert not model.training
    for features, result in ((x, y) for results in several for x, y in zip(inputs, results, strict=True)):
        ids, segments = (
            torch.from_numpy(a.astype(np.int64))[None] for a in (features.input_ids, features.token_type_ids)
        )
        with torch.no_grad():
            expected = model(ids, token_type_ids=segments)
        assert sorted(result) == sorted(expected)
        for key, array in result.items():
            reference = expected[key][0].numpy()
            scale = max(1.0, np.abs(reference).max())
            np.testing.assert_allclose(array / scale, reference / scale, atol=1e-5)


def test_no_inputs() -> None:
    model = our_class(CONFIGS["bert"], "Model")(CONFIGS["bert"])
    assert TorchPredictor(model)([]) == []


def test_a_batch_is_as_large_as_its_budget_allows() -> None:
    model: Any = our_class(CONFIGS["bert"], "Model")(CONFIGS["bert"])
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    TorchPredictor(model, 40)(some([9, 1, 17, 9, 2, 17, 30]))
    assert shapes == [(4, 9), (2, 17), (1, 30)]

"""Rounding against a plain reference, and that a model learns under it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.families import CONFIGS, randomise
from helpers.seeds import SEED
from pocketbert.configs import BertConfig, MobileBertConfig
from pocketbert.errors import ConfigError
from pocketbert.models.mobilebert import MobileBertForSequenceClassification, MobileBertSelfAttention
from pocketbert.models.ops import NoNorm
from pocketbert.training.objectives import ExampleLoss
from pocketbert.training.quantization import DECAY, LEAST, Range, bounded, make_quantization_aware, round_weight

assert isinstance(CONFIGS["mobilebert"], MobileBertConfig)
CONFIG = CONFIGS["mobilebert"].replace(hidden_act="relu6", attention_probs_dropout_prob=0.0)


def rounded(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """To the nearest of 256 levels from about `low` to about `high`, of which one is 0; in 64 bits."""
    step = (high - low) / 255
    lowest = np.clip(np.round(low / step), -255, 0)
    return np.clip(np.round(x / step), lowest, lowest + 255) * step


def near(got: Tensor, expected: np.ndarray, step: float) -> None:
    """Equal, but for what lies in the middle between two levels, on either side of it by 32 bits."""
    error = np.abs(got.detach().double().numpy() - expected)
    assert (error > 1e-4 * step).mean() < 0.01
    assert error.max() < 1.001 * step


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    scale=st.sampled_from([1e-6, 1.0, 1e7]),
    shift=st.sampled_from([-5.0, 0.0, 0.4, 5.0]),
    seed=st.integers(0, 99),
)
def test_range(shape: list[int], scale: float, shift: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    batches = [scale * (random.normal(size=shape) + shift).astype(np.float32) for _ in range(3)]
    layer = Range()
    low = high = 0.0
    for decay, x in zip((0.0, 2 / 11, 3 / 12), batches, strict=True):
        bounds = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        low, high = (decay * old + (1 - decay) * new for old, new in zip((low, high), bounds, strict=True))
        near(layer(torch.from_numpy(x)), rounded(x.astype(np.float64), low, high), (high - low) / 255)
    assert float(layer.low) == pytest.approx(low, rel=1e-5)
    assert float(layer.high) == pytest.approx(high, rel=1e-5)
    layer.eval()
    before = float(layer.low), float(layer.high)
    layer(torch.full((2,), 100 * scale))
    assert (float(layer.low), float(layer.high)) == before, "what is measured moves nothing"


def test_an_old_range_hardly_moves() -> None:
    layer = Range()
    layer.batches += 10**5
    layer.high += 2
    layer(torch.tensor([12.0]))
    assert float(layer.high) == pytest.approx(2 * DECAY + 12 * (1 - DECAY))


def test_gradients_pass_where_the_range_reaches() -> None:
    layer = Range()
    layer(torch.tensor([-1.0, 2.0]))
    layer.eval()
    x = torch.tensor([-3.0, -0.7, 0.0, 1.234, 2.5], requires_grad=True)
    (layer(x) * torch.arange(1.0, 6.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


@given(rows=st.integers(1, 9), columns=st.integers(1, 33), seed=st.integers(0, 99))
def test_weights_a_row_each(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    w = (random.normal(size=(rows, columns)) * 10.0 ** random.integers(-4, 4, (rows, 1))).astype(np.float32)
    w[0] = 0
    weight = torch.from_numpy(w).requires_grad_()
    out = round_weight(weight)
    steps = np.abs(w.astype(np.float64)).max(1, keepdims=True) / 127
    whole = out.detach().double().numpy() / np.maximum(steps, 1e-30)
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-4)
    assert (np.abs(out.detach().numpy() - w) <= 0.501 * steps).all()
    out.sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 1).all(), "straight through"


def model_of(config: Any = CONFIG, seed: int = 0) -> MobileBertForSequenceClassification:
    torch.manual_seed(seed)
    model = MobileBertForSequenceClassification(config)
    randomise(model, seed)
    return model


def batch(rows: int = 4, length: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([length, 1, 5, 3][:rows])
    mask = torch.arange(length) < lengths[:, None]
    ids = torch.randint(5, CONFIG.vocab_size, (rows, length), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.arange(rows) % 2}


def test_a_model_in_8_bits_stays_near_itself_and_keeps_its_names() -> None:
    exact, model = model_of(), model_of()
    names = list(model.state_dict())
    ranges = make_quantization_aware(model)
    inputs = batch()
    expected = exact(**inputs).logits.detach()
    got = model(**inputs).logits.detach()  # training mode: the ranges are the batch's
    relative = float((got - expected).norm() / expected.norm())
    assert 1e-4 < relative < 0.2
    assert list(model.state_dict()) == names
    layers, norms = CONFIG.num_hidden_layers, sum(isinstance(m, NoNorm) for m in model.modules())
    reading = layers * (1 + CONFIG.num_feedforward_networks)  # attention, and each network's second matrix
    assert len(ranges) == norms + 3 + reading + 4 * layers
    used = {name for name, one in ranges.items() if float(one.low) != float(one.high)}  # type: ignore[arg-type]
    assert used == set(ranges)


def test_attention_against_the_steps_written_out() -> None:
    config = CONFIG.replace(num_hidden_layers=1)
    model = model_of(config)
    plain = model_of(config)
    make_quantization_aware(model)
    here, there = (next(m for m in one.modules() if isinstance(m, MobileBertSelfAttention)) for one in (model, plain))
    generator = torch.Generator().manual_seed(2)
    inner = config.true_hidden_size
    query_key = torch.randn(2, 7, inner, generator=generator)
    value = torch.randn(2, 7, config.hidden_size, generator=generator)
    keep = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    keep[1, ..., 3:] = False
    context, weights = here(query_key, value, keep, True)

    def linear(name: str, x: Tensor) -> np.ndarray:
        layer: Any = getattr(there, name)
        w = layer.weight.detach().double().numpy()
        step = np.abs(w).max(1, keepdims=True) / 127
        y = x.double().numpy() @ (np.round(w / step) * step).T + layer.bias.detach().double().numpy()
        y = rounded(y, min(y.min(), 0), max(y.max(), 0))
        return y.reshape(2, 7, there.heads, -1).swapaxes(1, 2)

    q, k, v = linear("query", query_key), linear("key", query_key), linear("value", value)
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])
    scores = np.where(keep.numpy(), scores, LEAST)
    scores = rounded(scores, min(scores.min(), 0), max(scores.max(), 0))
    e = np.exp(scores - scores.max(-1, keepdims=True))
    p = np.clip(np.round(256 * e / e.sum(-1, keepdims=True)), 0, 255) / 256
    np.testing.assert_allclose(weights.detach().numpy(), p, atol=1.01 / 256)
    assert (np.abs(weights.detach().numpy() - p) > 1e-6).mean() < 0.02
    expected = (p @ v).swapaxes(1, 2).reshape(2, 7, -1)
    np.testing.assert_allclose(context.detach().numpy(), expected, atol=0.02 * np.abs(expected).max())


def test_padding_gets_no_attention() -> None:
    model = MobileBertForSequenceClassification(CONFIG)
    make_quantization_aware(model)
    inputs = batch()
    model(**inputs)
    model.eval()
    weights = model(**inputs, output_attentions=True).attentions[0].detach()
    hidden = (inputs["attention_mask"] == 0)[:, None, None, :].expand_as(weights)
    assert float(weights[hidden].max()) <= 1 / 256


@pytest.mark.learning
def test_it_learns() -> None:
    """The loss falls in the rounded model, not only in the exact one behind it."""
    model = model_of(seed=SEED)
    objective = ExampleLoss(model)
    objective.ranges = make_quantization_aware(model)
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    inputs = batch()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective(inputs, {"examples": 4})["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None for name, p in model.named_parameters() if "word" in name or "query" in name)
    fresh = ExampleLoss(model_of())
    fresh.ranges = make_quantization_aware(fresh.model)
    fresh.load_state_dict(objective.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(inputs, {"examples": 4}), objective.eval()(inputs, {"examples": 4}))


def test_for_which_models() -> None:
    assert bounded(MobileBertConfig()).hidden_act == "relu6"
    assert bounded(MobileBertConfig(hidden_act="gelu")).hidden_act == "gelu"
    for config in (BertConfig(), MobileBertConfig(normalization_type="layer_norm")):
        with pytest.raises(ConfigError, match="quantization-aware is only for MobileBERT"):
            bounded(config)

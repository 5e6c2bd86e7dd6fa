"""Examples laid end to end against the same examples one by one."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.models.ops import Packing, attend

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
}
CONFIGS: list[PreTrainedConfig] = [
    BertConfig(hidden_size=32, intermediate_size=48, **SMALL),
    SqueezeBertConfig(hidden_size=32, embedding_size=32, intermediate_size=48, **SMALL),
    MobileBertConfig(hidden_size=32, intra_bottleneck_size=16, embedding_size=8, intermediate_size=24, **SMALL),
    MobileBertConfig(
        hidden_size=32, intra_bottleneck_size=64, embedding_size=8, intermediate_size=48, hidden_act="gelu",
        key_query_shared_bottleneck=False, num_feedforward_networks=1, normalization_type="layer_norm", **SMALL,
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=["bert", "squeezebert", "mobilebert", "ib-bert"])
def test_packed_equals_one_by_one(config: PreTrainedConfig) -> None:
    """Hidden states, pooled vectors, attention and gradients: no example sees another."""
    for lengths in ([12], [1], [5, 12, 1, 7], [6, 6, 6]):
        equals_one_by_one(config, lengths)


def equals_one_by_one(config: PreTrainedConfig, lengths: list[int]) -> None:
    random = np.random.default_rng(sum(lengths))
    model = AutoModelForPreTraining.from_config(config).eval()
    tokens, starts = sum(lengths), np.cumsum([0, *lengths])
    ids = torch.from_numpy(random.integers(1, 50, size=tokens))[None]
    types = torch.from_numpy(random.integers(0, 2, size=tokens))[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packing = Packing.of(torch.from_numpy(starts), 12 if len(lengths) > 1 else max(lengths))
    encoder = model.base_model

    alone = [
        encoder(ids[:, a:b], None, types[:, a:b], output_attentions=True, output_hidden_states=True)
        for a, b in pairwise(starts)
    ]
    packed = encoder(ids, packing, types, positions, output_attentions=True, output_hidden_states=True)
    fused = encoder(ids, packing, types, positions)
    for layer, states in enumerate(packed.hidden_states):
        expected = torch.cat([one.hidden_states[layer] for one in alone], dim=1)
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused.last_hidden_state, packed.last_hidden_state, atol=1e-5, rtol=1e-4)
    pooled = torch.cat([one.pooler_output for one in alone])
    torch.testing.assert_close(fused.pooler_output, pooled, atol=1e-5, rtol=1e-4)
    for row, one in enumerate(alone):
        n = lengths[row]
        for mine, theirs in zip(packed.attentions, one.attentions, strict=True):
            torch.testing.assert_close(mine[row : row + 1, :, :n, :n], theirs, atol=1e-5, rtol=1e-4)
            assert not mine[row, :, :n, n:].any()

    weights = torch.from_numpy(random.normal(size=(tokens, config.hidden_size))).float()
    (fused.last_hidden_state[0] * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = torch.cat([one.last_hidden_state[0] for one in alone])
    (expected * weights).sum().backward()
    assert gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, encoder.get_parameter(name).grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("lengths", [[7] * 5, [9, 1, 4, 9, 2, 6], [3]])
@pytest.mark.parametrize("scores", [1, 300, 10**6])
def test_attention_in_bf16(lengths: list[int], scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Context and gradients of packed training in bf16 are those of fp32, for any number of examples at a time."""
    monkeypatch.setattr("pocketbert.models.cpu._SCORES", scores)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    packing, generator = Packing.of(starts, max(lengths)), torch.Generator().manual_seed(len(lengths))
    exact = [torch.randn(1, sum(lengths), 12, generator=generator).requires_grad_() for _ in range(3)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    grad = torch.randn(1, sum(lengths), 12, generator=generator)
    expected, _ = attend(exact[0], exact[1], exact[2], 3, packing, 0.0, with_weights=True)
    got, weights = attend(rounded[0], rounded[1], rounded[2], 3, packing, 0.0, with_weights=False)
    expected.backward(grad)
    got.backward(grad.bfloat16())
    assert weights is None
    for a, b in [(got, expected), *((x.grad, y.grad) for x, y in zip(rounded, exact, strict=True))]:
        assert a is not None
        assert b is not None
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 0.02 * b.norm() + 1e-3

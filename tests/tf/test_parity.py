"""Every TensorFlow class gives the numbers of its PyTorch sister, from the same folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.families import all_that_matter, batch

from .cases import OURS, assert_same, pair, published


@pytest.mark.parametrize(("name", "head"), all_that_matter(OURS))
def test_outputs_losses_states_and_attentions(name: str, head: str, tmp_path: Path) -> None:
    model, other = pair(OURS[name], head, tmp_path)
    inputs = batch(head, seed=5)
    with torch.no_grad():
        expected = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert_same(expected, other(published(inputs, head), output_hidden_states=True, output_attentions=True))


@pytest.mark.parametrize("name", ["squeezebert, a different group everywhere", "mobilebert"])
def test_masks_positions_and_embeddings(name: str, tmp_path: Path) -> None:
    """Masks of two, three and four axes, a row that is hidden whole, one token, given positions and embeddings."""
    config = OURS[name]
    model, other = pair(config, "Model", tmp_path)
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, (3, 7))
    rows = random.integers(0, 2, (3, 7))
    rows[1] = 0
    embeddings = random.normal(size=(3, 7, getattr(config, "embedding_size", 0))).astype(np.float32)
    for inputs in (
        {"input_ids": ids},
        {"input_ids": ids[:1, :1]},
        {"input_ids": ids, "attention_mask": rows},
        {"input_ids": ids, "attention_mask": random.integers(0, 2, (3, 7, 7))},
        {"input_ids": ids, "attention_mask": random.integers(0, 2, (3, 1, 7, 7)), "token_type_ids": rows},
        {"input_ids": ids, "position_ids": np.arange(30, 37)[None]},
        {"inputs_embeds": embeddings, "attention_mask": rows},
    ):
        with torch.no_grad():
            expected = model(**{key: torch.from_numpy(value) for key, value in inputs.items()})
        assert_same(expected, other(**inputs))

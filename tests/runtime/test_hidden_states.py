"""Plans with the hidden states of every layer as outputs, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.families import CONFIGS, our_class, randomise
from helpers.plans import draw, run, tensors
from pocketbert.families import FAMILIES
from pocketbert.runtime.hidden_states import hidden_states_plan
from pocketbert.runtime.lowering import lower


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("last", [True, False])
def test_hidden_states(name: str, last: bool) -> None:
    config = CONFIGS[name]
    model = our_class(config, "Model")(config).eval()
    randomise(model, seed=3)
    count, inputs = config.num_hidden_layers - (not last), draw([5, 1, 9], seed=4)
    plan = hidden_states_plan(lower(config, tensors(model), "Model"), FAMILIES[config.model_type].layers, count)
    if plan is None:
        # ELECTRA's embeddings end with a projection to the width of the layers, and not with a norm.
        assert name == "electra" or getattr(config, "normalization_type", "layer_norm") == "no_norm"
        return
    got = run(plan, inputs)
    assert list(got) == [f"state {number}" for number in range(count + 1)]
    at = 0
    for example in inputs:
        ids, segments = (
            torch.from_numpy(x.astype(np.int64))[None] for x in (example.input_ids, example.token_type_ids)
        )
        with torch.no_grad():
            states = model(ids, token_type_ids=segments, output_hidden_states=True).hidden_states
        for number in range(count + 1):
            rows = got[f"state {number}"][at : at + len(example)]
            np.testing.assert_allclose(rows, states[number][0].numpy(), atol=1e-4, rtol=1e-4)
        at += len(example)

"""MPNet → a plan: BERT's steps, attention with a bias by distance, positions that count from the padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pocketbert.families.mpnet import BUCKETS, MPNetConfig
from pocketbert.runtime.lowering.bert import LayerNames, lower_embeddings, lower_layers
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns

REACH = 128  # from this distance on, all have the bucket of the farthest
_NAMES = LayerNames(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)


def lower_encoder(build: Builder, config: MPNetConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden = lower_embeddings(build, config, uncounted=config.pad_token_id)
    name = "encoder.relative_attention_bias"
    table = build.tensor(f"{name}.weight", BUCKETS, config.num_attention_heads)
    bias = build.keep(name, table[buckets(np.arange(-REACH, REACH + 1))].T)
    lower_layers(build, config, hidden, _NAMES, bias=bias)
    return hidden


def buckets(distances: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The row of the table for each distance from a query to a key.

    Half of the rows are for keys before the query, as T5 has them (Raffel et al. 2020, section 2.1): of each half, one
    row for each of the first 8 distances, then rows for intervals that grow as the logarithm does, up to 128.
    """
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = np.abs(distances)
    # In fp32, as the published code computes it: a distance on the edge of an interval is on the same side.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(REACH / exact))
    wide = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(far < exact, far, wide) + np.where(distances > 0, half, 0)

"""Small models, and configurations of such."""

import sys
from pathlib import Path
from typing import Any

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.tokenization import SqueezeBertTokenizer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from every_task import HEADS as TASK_HEADS
from every_task import every_task

__all__ = ["TASK_HEADS", "WIDE", "task_models"]

WORDS = ("the", "film", "is", "great", "dull", "marie", "curie", "was", "born", "in", "warsaw", "poland", ".", ",", "?")

# Wide enough for int8 to be worth it; heads of 18, the root of which is no power of two.
_wide: dict[str, Any] = {"vocab_size": 99, "hidden_size": 72, "num_attention_heads": 4, "num_hidden_layers": 2,
         "intermediate_size": 288, "max_position_embeddings": 40}  # fmt: skip
WIDE: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_wide),
    "squeezebert": SqueezeBertConfig(
        **_wide, embedding_size=72, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=2, output_groups=4
    ),
    "mobilebert": MobileBertConfig(**_wide, embedding_size=64, intra_bottleneck_size=64),
    "mobilebert, layer_norm": MobileBertConfig(
        **_wide, embedding_size=64, intra_bottleneck_size=64, normalization_type="layer_norm"
    ),
    "mobilebert, no bottleneck": MobileBertConfig(**_wide, embedding_size=64, use_bottleneck=False),
}


def task_models(folder: Path) -> dict[str, Path]:
    """A tiny model with random weights for every task, each in a folder below `folder`."""
    tokenizer = tokenizer_of(spelling(*WORDS), SqueezeBertTokenizer, model_max_length=64)
    return every_task(folder, tokenizer, width=32, longest=64)

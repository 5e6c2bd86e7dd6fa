"""From a configuration and tensors to a plan: one module per family, one for the heads.

What can be folded exactly is folded here, in float64: the scale of attention into the query's weights, and norms that
are affine into the layers around them. Matrices that are in int8 in the checkpoint stay so where a fold only scales or
stacks their rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.runtime.lowering import bert, mobilebert, squeezebert
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.lowering.heads import lower_head
from pocketbert.runtime.plan import Plan

PREFIXES = {"bert": "bert.", "squeezebert": "transformer.", "mobilebert": "mobilebert."}
LOWERED = (
    "Model", "ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering",
    "ForMaskedLM", "ForNextSentencePrediction", "ForPreTraining",
)  # fmt: skip
SMOOTHING = ".balance"  # behind the name of a norm: the factors that its features were divided by


def head_of(config: PreTrainedConfig) -> str:
    """The head that the checkpoint was saved with, for `lower`; the bare encoder if `config.json` names none."""
    for name in config.architectures:
        for head in LOWERED:
            if name.endswith(head):
                return head
    return "Model"


def lower(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], head: str) -> Plan:
    """The plan of a model.

    Args:
        config: of the model.
        tensors: by their official names, with or without the encoder's prefix. Smoothing factors are ignored.
        head: the part of a class name after the family: "Model", "ForSequenceClassification", …

    Raises:
        CheckpointError: a tensor is missing, or does not have the shape that the configuration requires. The message
            continues the name of the file.
    """
    prefix = PREFIXES[config.model_type]
    names = {name.removeprefix(prefix): name for name in tensors if not name.endswith(SMOOTHING)}
    build = Builder(names, tensors, head)
    if isinstance(config, MobileBertConfig):
        hidden = mobilebert.lower_encoder(build, config)
    elif isinstance(config, SqueezeBertConfig):
        hidden = squeezebert.lower_encoder(build, config)
    else:
        assert isinstance(config, BertConfig)
        hidden = bert.lower_encoder(build, config)
    outputs = dict(lower_head(build, config, head, hidden))
    return build.plan(outputs, config.max_position_embeddings)

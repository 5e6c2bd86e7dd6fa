"""The model that is exported, and what lies beside the exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pocketbert.checkpoints import read_tensors
from pocketbert.checkpoints.files import refuse_existing
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, InputError
from pocketbert.features import Features, encode_texts, fit
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.lowering import head_of
from pocketbert.runtime.plan import LayerNorm, Linear, Plan, Step
from pocketbert.tokenization import AutoTokenizer, BertTokenizer


@dataclass(frozen=True)
class Source:
    """A model that is about to be exported.

    Attributes:
        model: its folder or name.
        out: the folder that its exports will be in.
        config: of the model.
        tokenizer: of the model.
        plan: as its file has it, perhaps in int8.
        texts: what the exports are run on.
        max_tokens: how many tokens of a text they read.
    """

    model: str | Path
    out: Path
    config: PreTrainedConfig
    tokenizer: BertTokenizer
    plan: Plan
    texts: Sequence[str]
    max_tokens: int

    @property
    def head(self) -> str:
        """What it was made for: the part of a class name after the family."""
        return head_of(self.config)

    @cached_property
    def whole(self) -> Plan:
        """The plan in fp32."""
        return in_fp32(self.plan)

    @cached_property
    def inputs(self) -> list[Features]:
        """The texts, as the model reads them."""
        return self.encode(self.texts)

    def encode(self, texts: Sequence[str]) -> list[Features]:
        """Texts, as the model reads them."""
        return list(encode_texts(self.tokenizer, list(texts), max_length=self.max_tokens))


def read_source(
    model: str | Path,
    out: str | Path,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
    revision: str | None = None,
) -> Source:
    """A model, for the task it was made for.

    Args:
        model: a folder or a name on the hub.
        out: a folder that does not exist, or is empty.
        texts: what the exports are to be run on.
        max_tokens: how many tokens of a text to read; all that the model can, when not given.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or there is no export for its head; `out` is in use.
        InputError: there are no texts.
    """
    out = Path(out)
    refuse_existing(out)
    if not texts:
        raise InputError("there is no text to try the export on: give at least one")
    config = AutoConfig.from_pretrained(model, revision=revision)
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    try:
        plan = load_plan(config, read_tensors(model, revision=revision), head_of(config))
    except CheckpointError as error:
        raise CheckpointError(f"{model} {error}") from None
    for name, tensor in plan.tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{model} is damaged: {name} contains NaN or infinity")
    longest = fit(tokenizer, config.max_position_embeddings)
    return Source(model, out, config, tokenizer, plan, texts, min(longest, max_tokens or longest))


def describe(source: Source, folder: Path) -> None:
    """Write the configuration and the tokenizer, without a word about how the weights were stored."""
    extra = {name: value for name, value in source.config.extra.items() if name != "quantization_config"}
    source.config.replace(extra=extra).save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)


def in_fp32(plan: Plan) -> Plan:
    """The same with every int8 matrix as the numbers that it stands for."""
    tensors = dict(plan.tensors)

    def wide(step: Step) -> Step:
        if isinstance(step, LayerNorm) or step.scales is None:
            return step
        if isinstance(step, Linear) and step.outlier_weight is not None:
            return replace(step, weight=step.outlier_weight, scales=None, outlier_weight=None)
        name = step.weight if isinstance(step, Linear) else step.table
        tensors[name] = plan.tensors[name] * plan.tensors[step.scales][:, None]
        return replace(step, scales=None)

    return replace(plan.map_steps(wide).with_attention_in(bfloat16=False), tensors=tensors)

"""The model to export, and the files that accompany an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pocketbert.checkpoints import read_tensors
from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import CheckpointError, InputError
from pocketbert.families import family_of
from pocketbert.features import Features, encode_texts, fit
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.plan import LayerNorm, Linear, Plan, Step
from pocketbert.sentences.declared import Declared, read_declared
from pocketbert.tokenization import BertTokenizer


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes:
        model: its folder or hub name.
        config: of the model.
        tokenizer: of the model.
        plan: of the model, with int8 weights if its file has them.
        texts: to run exported files on.
        max_tokens: tokens per text.
        declared: how the folder says that its encoder is to be used.
    """

    model: str | Path
    config: PreTrainedConfig
    tokenizer: BertTokenizer
    plan: Plan
    texts: Sequence[str]
    max_tokens: int
    declared: Declared

    @property
    def head(self) -> str:
        """The head that is exported: the part of a class name after the family."""
        return self.config.saved_head

    @cached_property
    def fp32_plan(self) -> Plan:
        """The plan in fp32."""
        return dequantize(self.plan)

    @cached_property
    def inputs(self) -> list[Features]:
        """The texts as inputs of the model."""
        return self.encode(self.texts)

    def encode(self, texts: Sequence[str]) -> list[Features]:
        """Texts as inputs of the model."""
        return list(encode_texts(self.tokenizer, list(texts), max_length=self.max_tokens))


def read_source(
    model: str | Path, texts: Sequence[str], *, head: str | None = None, revision: str | None = None
) -> Source:
    """Read a model.

    Args:
        model: a folder or a hub name.
        texts: to run exported files on.
        head: a key of `families.family.HEADS` [default: the model's own].
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, is damaged, has a head that cannot be exported, or lacks `head`.
        InputError: there are no texts.
    """
    if not texts:
        raise InputError("there are no texts to compare the outputs on: give at least one")
    declared = read_declared(model, revision=revision)
    config = declared.read_config(revision=revision)
    if head is not None:
        config.refuse_other_head(head, model)
        config = config.replace(extra=config.extra | {"architectures": [family_of(config).class_name(head)]})
    tokenizer = declared.read_tokenizer(revision=revision)
    if tokenizer.stated_max_length is None:  # the limit is that of the model, and is written with it
        tokenizer.model_max_length = config.max_tokens
    try:
        plan = load_plan(config, read_tensors(declared.encoder, revision=revision), config.saved_head)
    except CheckpointError as error:
        raise CheckpointError(f"{model} {error}") from None
    for name, tensor in plan.tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{model} is damaged: {name} contains NaN or infinity")
    return Source(model, config, tokenizer, plan, texts, fit(tokenizer, config.max_tokens), declared)


def write_companions(source: Source, folder: Path) -> None:
    """Write configuration, tokenizer and declarations; the first does not mention how weights were quantized."""
    extra = {name: value for name, value in source.config.extra.items() if name != "quantization_config"}
    source.config.replace(extra=extra).save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    source.declared.write(folder)


def dequantize(plan: Plan) -> Plan:
    """The same plan with the fp32 values of every int8 matrix, and attention in fp32."""
    tensors = dict(plan.tensors)

    def in_fp32(step: Step) -> Step:
        if isinstance(step, LayerNorm) or step.scales is None:
            return step
        if isinstance(step, Linear) and step.outlier_weight is not None:
            return replace(step, weight=step.outlier_weight, scales=None, outlier_weight=None)
        name = step.weight if isinstance(step, Linear) else step.table
        tensors[name] = plan.tensors[name] * plan.tensors[step.scales][:, None]
        return replace(step, scales=None)

    return replace(plan.map_steps(in_fp32).with_attention_in(bfloat16=False), tensors=tensors)

"""A student that begins with its teacher's weights, as far as shapes agree.

SqueezeBERT with one group a layer computes what BERT does, and with more groups only the blocks on the diagonal of
BERT's matrices: so a SqueezeBERT can begin as that part of a BERT. Embeddings, pooler and head are the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from pocketbert.errors import ConfigError
from pocketbert.models.pretrained import PreTrainedModel

# BERT's names of what SqueezeBERT calls otherwise.
_SQUEEZED = (
    (r"encoder\.layer\.", "encoder.layers."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense", "post_attention.conv1d"),
    (r"attention\.output\.LayerNorm", "post_attention.layernorm"),
    (r"intermediate\.dense", "intermediate.conv1d"),
    (r"(layers\.\d+\.)output\.dense", r"\1output.conv1d"),
    (r"(layers\.\d+\.)output\.LayerNorm", r"\1output.layernorm"),
)


def inherit(student: PreTrainedModel, teacher: PreTrainedModel, pairs: Iterable[tuple[int, int]]) -> list[str]:
    """Copy into `student` what fits of `teacher`; layer (student's, teacher's) by the pairs, which count from 1.

    Of a full matrix a grouped one takes its diagonal blocks; of position embeddings a shorter table takes the first.

    Returns:
        The names of the student's parameters that nothing fits, which are as they were.

    Raises:
        ConfigError: nothing fits but biases and norms.
    """
    source: dict[str, Tensor] = {_common(name, teacher): tensor for name, tensor in teacher.named_parameters()}
    layers = {here - 1: there - 1 for here, there in pairs if here > 0}
    fresh, matrices = [], 0
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            there = re.sub(
                r"(layers?\.)(\d+)", lambda m: f"{m[1]}{layers.get(int(m[2]), -1)}", _common(name, student), count=1
            )
            groups = getattr(student.get_submodule(name.rpartition(".")[0]), "groups", 1)
            given = source.get(there)
            if given is not None and "position_embeddings" in name:
                given = given[: parameter.size(0)]
            fitting = None if given is None else _fit(given, parameter, groups)
            if fitting is None:
                fresh.append(name)
                continue
            parameter.copy_(fitting)
            matrices += parameter.ndim > 1
    if not matrices:
        raise ConfigError(
            f"the student ({type(student).__name__}, {student.config.hidden_size} wide) can take no matrix from its "
            f"teacher ({type(teacher).__name__}, {teacher.config.hidden_size} wide)"
        )
    return fresh


def _common(name: str, model: PreTrainedModel) -> str:
    name = name.removeprefix(f"{model.base_model_prefix}.")
    for pattern, squeezed in _SQUEEZED:
        name = re.sub(pattern, squeezed, name)
    return name


def _fit(full: Tensor, wanted: Tensor, groups: int) -> Tensor | None:
    """`full` in the shape of `wanted`, or None."""
    if full.shape == wanted.shape:
        return full
    rows, columns = wanted.size(0), groups * wanted[0].numel()
    if wanted.ndim != 3 or full.numel() != rows * columns or full.size(0) != rows:
        return None
    blocks = full.view(groups, rows // groups, groups, columns // groups)
    return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).reshape(wanted.shape)  # [G, C'/G, C/G] → [C', C/G, 1]

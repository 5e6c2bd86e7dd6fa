"""Initialising a student with its teacher's weights, as far as shapes agree.

SqueezeBERT with one group per layer computes the same as BERT, and with more groups only the blocks on the diagonal of
BERT's matrices: so a SqueezeBERT can be initialised with that part of a BERT. Embeddings, pooler and head are the same
in both. `Family.common_names` turns a family's parameter names into BERT's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from pocketbert.errors import ConfigError
from pocketbert.models.pretrained import PreTrainedModel


def init_from_teacher(
    student: PreTrainedModel, teacher: PreTrainedModel, pairs: Iterable[tuple[int, int]]
) -> list[str]:
    """Copy the teacher's weights that fit into `student`; layers by the pairs (student's, teacher's), counted from 1.

    A grouped matrix takes the diagonal blocks of a full one; a shorter table of position embeddings takes the first.

    Returns:
        The names of the student's parameters that nothing fits, which are unchanged.

    Raises:
        ConfigError: nothing fits but biases and norms.
    """
    source: dict[str, Tensor] = {common_name(name, teacher): tensor for name, tensor in teacher.named_parameters()}
    layers = {own - 1: teachers - 1 for own, teachers in pairs if own > 0}
    fresh, matrices = [], 0
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            common = common_name(name, student)
            wanted = re.sub(r"(layers?\.)(\d+)", lambda m: f"{m[1]}{layers.get(int(m[2]), -1)}", common, count=1)
            groups = getattr(student.get_submodule(name.rpartition(".")[0]), "groups", 1)
            tensor = source.get(wanted)
            if tensor is not None and "position_embeddings" in name:
                tensor = tensor[: parameter.size(0)]
            fitting = None if tensor is None else fit_shape(tensor, parameter, groups)
            if fitting is None:
                fresh.append(name)
                continue
            parameter.copy_(fitting)
            matrices += parameter.ndim > 1
    if not matrices:
        raise ConfigError(
            f"no matrix of the teacher ({type(teacher).__name__}, {teacher.config.hidden_size} wide) fits the student "
            f"({type(student).__name__}, {student.config.hidden_size} wide)"
        )
    return fresh


def common_name(name: str, model: PreTrainedModel) -> str:
    """Return the name that a parameter of `model` has in BERT's encoder."""
    name = model.family.short(name)
    for pattern, replacement in model.family.common_names:
        name = re.sub(pattern, replacement, name)
    return name


def fit_shape(full: Tensor, wanted: Tensor, groups: int) -> Tensor | None:
    """Return a full matrix in the shape of `wanted`: itself, or the blocks on its diagonal; None if it does not fit."""
    if full.shape == wanted.shape:
        return full
    rows, columns = wanted.size(0), groups * wanted[0].numel()
    if wanted.ndim != 3 or full.numel() != rows * columns or full.size(0) != rows:
        return None
    blocks = full.view(groups, rows // groups, groups, columns // groups)
    return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).reshape(wanted.shape)  # [G, C'/G, C/G] → [C', C/G, 1]

"""Initialisation of a student by least squares: "refit" of `distill --init`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from pocketbert.errors import ConfigError
from pocketbert.models.pretrained import EncoderModel
from pocketbert.training.refit.layers import refit_layers
from pocketbert.training.refit.text import Batches
from pocketbert.training.settings import LayerPairs


def source_layers(pairs: LayerPairs | None, student: int, teacher: int) -> list[int]:
    """Return for each layer of the student the layer of the teacher, from 1, that it is fitted to.

    Args:
        pairs: layers to compare, the student's first: a layer without a pair is a part of the next one with a pair, or
            of the last. None: layers are evenly spread; in a deeper student, a layer of the teacher becomes several.
        student: its number of layers.
        teacher: its number of layers.

    Raises:
        ConfigError: the pairs have no layers, or go back in the teacher.
    """
    if pairs is None:
        if student <= teacher:
            return [layer * teacher // student for layer in range(1, student + 1)]
        return [-(-layer * teacher // student) for layer in range(1, student + 1)]
    ends = {own: other for own, other in sorted(pairs) if own > 0}
    sources, end = list[int](), max(ends.values(), default=0)
    for layer in range(student, 0, -1):
        end = ends.get(layer, end)
        sources.insert(0, end)
    if not ends or sources != sorted(sources) or sources[0] < 1:
        raise ConfigError("--init refit needs pairs in --layers that ascend in both models, such as 1:2,2:4")
    return sources


@torch.no_grad()
def refit_from_teacher(
    student: EncoderModel,
    teacher: EncoderModel,
    sources: Sequence[int],
    batches: Batches,
    console: Console | None = None,
) -> None:
    """Initialise a student from a teacher: whatever fits is copied, and the layers are fitted to text by least squares.

    The same text gives the same bits on the same machine with the same number of threads.

    Args:
        student: the student; it moves to the teacher's device.
        teacher: a BERT or SqueezeBERT in evaluation mode, with the student's vocabulary.
        sources: for each layer of the student the layer of the teacher, from 1, in ascending order.
        batches: the text.
        console: where to show progress.

    Raises:
        ConfigError: the shapes of the two do not fit.
        DataError: the text is too short, or too uniform.
    """
    student.to(teacher.device)
    training = student.training
    student.eval()  # no dropout in the embeddings
    function: Any = refit_layers if student.family.refit is None else student.family.load(student.family.refit)
    on_device = [{name: tensor.to(teacher.device) for name, tensor in batch.items()} for batch in batches]
    function(student, teacher, sources, on_device, console)
    student.train(training)

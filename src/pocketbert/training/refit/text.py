"""The text of a refit, and the hidden states of teacher and student for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from torch import Tensor

from pocketbert.models.ops import Packing
from pocketbert.models.pretrained import EncoderModel
from pocketbert.training.progress import Progress
from pocketbert.training.refit.bert_layers import BertLayer

#: Packed examples: see `PretrainingBatches.batch`.
Batches = Sequence[Mapping[str, Tensor]]
#: Called after each batch of each pass over the text.
Advance = Callable[[], None]


@dataclass
class Text:
    """Packed batches of text, with one hidden state per token of the teacher and of the student.

    The states are replaced as layers are passed: memory depends on the number of tokens, and not on that of layers.
    """

    packings: list[Packing]
    teacher: list[Tensor]
    """Per batch [1, N, H]."""
    student: list[Tensor]
    """Per batch [1, N, H]."""
    console: Console | None
    """Where to show progress."""

    @staticmethod
    def of(batches: Batches, teacher: EncoderModel, student: EncoderModel, console: Console | None) -> Text:
        """Return the text with the hidden states after the embeddings."""
        packings, states = list[Packing](), (list[Tensor](), list[Tensor]())
        for batch in batches:
            packing = Packing.of(batch["starts"], int(batch["starts"].diff().max()))
            packings.append(packing)
            ids, types, positions = (batch[name][None] for name in ("input_ids", "token_type_ids", "position_ids"))
            for model, own in zip((teacher, student), states, strict=True):
                own.append(model.embed(ids, packing, types, positions, None))
        return Text(packings, *states, console)

    def pass_teacher(self, layer: BertLayer) -> None:
        """Replace the teacher's hidden states by those after its next layer."""
        for i, packing in enumerate(self.packings):
            self.teacher[i] = layer.after_units(layer.after_attention(self.teacher[i], packing))

    @contextmanager
    def counting(self, passes: int) -> Iterator[Advance]:
        """Show the progress of this many passes over the text."""
        done, started = 0, time.perf_counter()

        def advance() -> None:
            nonlocal done, started
            examples, now = len(self.packings[done % len(self.packings)].starts) - 1, time.perf_counter()
            done += 1
            progress.advance(done, examples, now - started)
            started = now

        with Progress(passes * len(self.packings), self.console, "fitting the student", "batch") as progress:
            yield advance

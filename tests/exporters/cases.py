"""Models to export in the tests of all formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helpers.families import our_class, randomise
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.configs import PreTrainedConfig
from pocketbert.exporters.export import export
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.verify import SENTENCES, Measure, VerifiedFile


def model_of(config: PreTrainedConfig, head: str, *, random: bool = True) -> Any:
    torch.manual_seed(0)
    model = our_class(config, head)(config)
    if random:
        randomise(model, 0)
    return model


def save(model: Any, folder: Path) -> Path:
    """A model with a tokenizer."""
    model.save_pretrained(folder)
    words = sorted({word for text in SENTENCES for word in text.lower().split() if word.isalpha()})[:90]
    pieces = [*SPECIAL, *words]
    tokenizer_of(pieces).save_pretrained(folder)
    return folder


def export_to(
    format_: str, model: str | Path, output: Path, *, measure: Measure | None = None, **options: Any
) -> list[VerifiedFile]:
    """The files of an export."""
    chosen = ExportOptions(format=format_, model=model, output=output, **options)
    return list(export(chosen, measure=measure).files)

"""What loading and saving a model class is, in whatever framework: only putting numbers into it is left to that."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pocketbert.checkpoints.folders import read_tensors
from pocketbert.checkpoints.names import match_names
from pocketbert.checkpoints.safetensors_files import Tensors
from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import CheckpointError

logger = logging.getLogger("pocketbert")

# The parts that sit on an encoder. A file may lack them (they start fresh) or bring those of another task (unused);
# whatever else a file lacks or brings is an error.
HEADS = ("cls.", "classifier.", "qa_outputs.")
POOLER = "pooler."
# Tied to the word embeddings and to `cls.predictions.bias`, so files leave them out.
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
# Keys of a `config.json` that are about its own weight file, not about one that is written anew.
_OF_THE_FILE = ("torch_dtype", "quantization_config")

LoadingInfo = dict[str, list[str]]
Config = TypeVar("Config", bound=PreTrainedConfig)


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file go into which of a model's."""

    taken: dict[str, str]  # the model's name → the file's, of what has the same shape in both
    info: LoadingInfo  # missing_keys, mismatched_keys, unexpected_keys

    @property
    def fresh(self) -> set[str]:
        """What the file does not give the model."""
        return {*self.info["missing_keys"], *self.info["mismatched_keys"]}

    def report(self, source: object) -> None:
        """Log what starts fresh, and what of the file is not used."""
        if fresh := sorted(self.fresh):
            logger.warning("%s: not in the file, so they start fresh: %s", source, ", ".join(fresh))
        if unexpected := self.info["unexpected_keys"]:
            logger.info("%s: in the file and not used: %s", source, ", ".join(unexpected))


def read_model(
    name_or_path: str | Path,
    config_class: type[Config],
    config: Config | None,
    where: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> tuple[Config, Tensors]:
    """Configuration and tensors of a folder or hub name; `where` is what `read_tensors` takes besides.

    Raises:
        CheckpointError: a file is missing or damaged, or quantised.
        ConfigError: `config.json` is of another family, or cannot be built.
    """
    if config is None:
        config = config_class.from_pretrained(name_or_path, **where, **changes)
    elif changes:
        config = config.replace(**changes)
    if config.quantized:
        advice = "take the original here, or let the engine answer, without a device"
        raise CheckpointError(f"{name_or_path} is quantised, which is for answering only: {advice}")
    return config, read_tensors(name_or_path, **where)


def fit_tensors(
    shapes: Mapping[str, Sequence[int]],
    tensors: Mapping[str, np.ndarray],
    prefix: str,
    *,
    tied: bool,
    model: str,
    source: str,
    ignore_mismatched_sizes: bool,
) -> Fit:
    """Match a file's tensors with those of a model, and refuse what does not fit.

    Args:
        shapes: of the model's tensors, by official name.
        tensors: the file's.
        prefix: the official name of the model's encoder.
        tied: whether the word scores share what `TIED` lists, so that the file may lack it.
        model: name of the class, for messages.
        source: name of the file, for messages.
        ignore_mismatched_sizes: let a head start fresh whose shape differs.

    Raises:
        CheckpointError: with every name that is lacking, foreign or of another shape.
    """
    shared = set(TIED) & shapes.keys() if tied else set()
    names = match_names(shapes.keys(), tensors.keys(), prefix)  # file's name → own name
    mismatched = [mine for theirs, mine in names.items() if tensors[theirs].shape != tuple(shapes[mine])]
    missing = sorted(shapes.keys() - set(names.values()) - shared)
    unexpected = sorted(tensors.keys() - names.keys())

    def is_head(name: str) -> bool:
        return name.removeprefix(f"{prefix}.").startswith((*HEADS, POOLER))

    texts = {
        mine: f"{list(tensors[theirs].shape)} for {list(shapes[mine])}" for theirs, mine in names.items()
    }  # fmt: skip
    problems = [
        *(f"lacks {name} {list(shapes[name])}" for name in missing if not is_head(name)),
        *(f"has {name}, which {model} has not" for name in unexpected if not is_head(name)),
        *(
            f"has {name} of shape {texts[name]}"
            for name in mismatched
            if not (ignore_mismatched_sizes and is_head(name))
        ),
        *(_untied(tensors, names, prefix) if tied else ()),
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit this model; it\n  " + "\n  ".join(problems))
    return Fit(
        taken={mine: theirs for theirs, mine in names.items() if mine not in mismatched},
        info={"missing_keys": missing, "mismatched_keys": mismatched, "unexpected_keys": unexpected},
    )


def save_config(config: PreTrainedConfig, folder: str | Path, model: str, dtype: str) -> None:
    """Write the `config.json` of weights that were saved from the class `model` in `dtype`."""
    extra = {key: value for key, value in config.extra.items() if key not in _OF_THE_FILE}
    config.replace(extra=extra | {"architectures": [model], "dtype": dtype}).save_pretrained(folder)


def _untied(tensors: Mapping[str, np.ndarray], names: Mapping[str, str], prefix: str) -> list[str]:
    """What the configuration ties but the file holds twice with different values."""
    theirs = {mine: tensors[name] for name, mine in names.items()}
    embeddings = f"{prefix}.embeddings.word_embeddings.weight"
    partners = dict(zip(TIED, (embeddings, "cls.predictions.bias"), strict=True))
    return [
        f"has {name} that differs from {partner}: pass tie_word_embeddings=False to keep both"
        for name, partner in partners.items()
        if name in theirs and partner in theirs and not np.array_equal(theirs[name], theirs[partner])
    ]

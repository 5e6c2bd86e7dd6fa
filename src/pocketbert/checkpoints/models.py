"""Loading and saving a model class, without its framework, which only copies the numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pocketbert.checkpoints.folders import read_tensors
from pocketbert.checkpoints.names import match_names
from pocketbert.checkpoints.quantized import dequantized
from pocketbert.checkpoints.safetensors_files import Tensors
from pocketbert.errors import CheckpointError
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family

logger = logging.getLogger("pocketbert")

# Keys of a `config.json` that describe its own weight file, not a new one.
_OF_THE_FILE = ("torch_dtype", "quantization_config")

LoadingInfo = dict[str, list[str]]
Config = TypeVar("Config", bound=PreTrainedConfig)


_NAMED = 8  # tensors of one kind in a message


@dataclass(frozen=True)
class Fit:
    """The tensors of a file that fit a model."""

    taken: dict[str, str]  # the model's name → the file's, of tensors with the same shape in both
    info: LoadingInfo  # missing_keys, mismatched_keys, unexpected_keys
    left: Sequence[str] = ()  # of the last, those that served training alone

    @property
    def fresh(self) -> set[str]:
        """The parameters that the file does not have, or has in another shape."""
        return {*self.info["missing_keys"], *self.info["mismatched_keys"]}

    def report(self, source: object) -> None:
        """Log the parameters that are initialised randomly, and the tensors of the file that are not used."""
        if fresh := sorted(self.fresh):
            logger.warning("%s: %s missing from the file: initialised randomly", source, ", ".join(fresh))
        if unexpected := self.info["unexpected_keys"]:
            logger.info("%s: tensors of the file that this model does not use: %s", source, ", ".join(unexpected))
        if self.left:
            logger.warning("%s: ignoring tensors of the training state: %s", source, ", ".join(self.left))


def read_model(
    name_or_path: str | Path,
    config_class: type[Config],
    config: Config | None,
    where: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> tuple[Config, Tensors]:
    """Configuration and tensors of a folder or hub name; `where` is what `read_tensors` takes besides.

    Raises:
        CheckpointError: a file is missing or damaged.
        ConfigError: `config.json` is of another family, or cannot be built.
    """
    if config is None:
        config = config_class.from_pretrained(name_or_path, **where, **changes)
    elif changes:
        config = config.replace(**changes)
    tensors = read_tensors(name_or_path, **where)
    if config.quantized:
        logger.warning("%s has int8 weights, which were converted to fp32", name_or_path)
        tensors = dequantized(config, tensors, name_or_path)
        extra = {key: value for key, value in config.extra.items() if key not in _OF_THE_FILE}
        config = config.replace(extra=extra)
    return config, tensors


def fit_tensors(
    shapes: Mapping[str, Sequence[int]],
    tensors: Mapping[str, np.ndarray],
    family: Family,
    *,
    tied: bool,
    model: str,
    source: str,
    ignore_mismatched_sizes: bool,
) -> Fit:
    """Match a file's tensors with those of a model, and refuse those that do not fit.

    Args:
        shapes: of the model's tensors, by official name.
        tensors: the file's.
        family: of the model.
        tied: whether the word scores share `family.tied`, so that the file may lack them.
        model: name of the class, for messages.
        source: name of the file, for messages.
        ignore_mismatched_sizes: initialise a head randomly if its shape differs.

    Raises:
        CheckpointError: with the first names that are missing, unknown or of another shape.
    """
    shared = set(family.tied) & shapes.keys() if tied else set()
    names = match_names(shapes.keys(), tensors.keys(), family.prefix)  # file's name → own name
    mismatched = [own for stored, own in names.items() if tensors[stored].shape != tuple(shapes[own])]
    missing = sorted(shapes.keys() - set(names.values()) - shared)
    unexpected = sorted(tensors.keys() - names.keys())

    texts = {
        own: f"{list(tensors[stored].shape)}, expected {list(shapes[own])}" for stored, own in names.items()
    }  # fmt: skip
    problems = [
        *_some([f"lacks {name} {list(shapes[name])}" for name in missing if not family.is_optional(name)]),
        *_some(
            [
                f"has {name}, which {model} does not have"
                for name in unexpected
                if not (family.is_optional(name) or family.is_idle(family.short(name)))
            ]
        ),
        *_some(
            [
                f"has {name} of shape {texts[name]}"
                for name in mismatched
                if not (ignore_mismatched_sizes and family.is_optional(name))
            ]
        ),
        *(_untied(tensors, names, family) if tied else ()),
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit this model; it\n  " + "\n  ".join(problems))
    return Fit(
        taken={own: stored for stored, own in names.items() if own not in mismatched},
        info={"missing_keys": missing, "mismatched_keys": mismatched, "unexpected_keys": unexpected},
        left=[name for name in unexpected if family.is_left_by_training(family.short(name))],
    )


def _some(problems: Sequence[str]) -> list[str]:
    """The first problems of one kind, and how many there are besides."""
    if len(problems) <= _NAMED:
        return list(problems)
    return [*problems[:_NAMED], f"{problems[0].partition(' ')[0]} {len(problems) - _NAMED} more"]


def save_config(config: PreTrainedConfig, folder: str | Path, model: str, dtype: str) -> None:
    """Write the `config.json` of weights that were saved from the class `model` in `dtype`."""
    extra = {key: value for key, value in config.extra.items() if key not in _OF_THE_FILE}
    config.replace(extra=extra | {"architectures": [model], "dtype": dtype}).save_pretrained(folder)


def _untied(tensors: Mapping[str, np.ndarray], names: Mapping[str, str], family: Family) -> list[str]:
    """Tensors that the configuration ties but that the file has twice with different values."""
    if family.words is None:
        return []
    stored = {own: tensors[name] for name, own in names.items()}
    # A family may tie the matrix alone: then `tied` has no second name.
    partners = dict(zip(family.tied, (f"{family.prefix}.{family.word_table}", family.words.bias), strict=False))
    return [
        f"has {name} that differs from {partner}: pass tie_word_embeddings=False to keep both"
        for name, partner in partners.items()
        if name in stored and partner in stored and not np.array_equal(stored[name], stored[partner])
    ]

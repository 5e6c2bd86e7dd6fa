"""The models to measure: of a folder, or of a published size with random weights, which run just as fast."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.bundles import bundled_models
from pocketbert.checkpoints import open_tensors, read_tensors
from pocketbert.configs import PRESETS, AutoConfig
from pocketbert.families import FAMILIES, family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.lowering import lower, lower_with
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Plan
from pocketbert.runtime.quantize import quantize

#: Title → preset of the published models that take part in benchmarks.
PUBLISHED = dict(family.benchmark for family in FAMILIES.values() if family.benchmark)


@dataclass(frozen=True)
class Subject:
    """An encoder, from which the model of every engine is made.

    Attributes:
        name: shown in tables.
        config: its sizes.
        tensors: by their official names, without the encoder's prefix and without heads.
        folder: the folder or hub name that it is from; None for random weights.
        quantized: whether the model in `folder` is in int8. Then `tensors` are random, and its own weights run in int8.
    """

    name: str
    config: PreTrainedConfig
    tensors: dict[str, np.ndarray]
    folder: str | Path | None = None
    quantized: bool = False

    @property
    def family(self) -> Family:
        """The family of the model."""
        return family_of(self.config)

    @cached_property
    def plan(self) -> Plan:
        """In fp32."""
        return lower(self.config, self.tensors, "Model")

    @cached_property
    def int8_plan(self) -> Plan:
        """In int8: that of the folder, or `plan` quantized."""
        if not self.quantized or self.folder is None:
            return quantize(self.plan)
        return load_plan(AutoConfig.from_pretrained(self.folder), open_tensors(self.folder), "Model")

    @cached_property
    def digest(self) -> str:
        """Changes with every weight and with the configuration."""
        sum_ = zlib.crc32(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for name in sorted(self.tensors):
            sum_ = zlib.crc32(np.ascontiguousarray(self.tensors[name]).data, zlib.crc32(name.encode(), sum_))
        return f"{sum_:08x}"

    def without_weights(self) -> Subject:
        """The same name, sizes and digest, for engines that read the weights from a file of their own."""
        light = replace(self, tensors={})
        light.__dict__["digest"] = self.digest
        return light

    def __getstate__(self) -> dict[str, object]:
        """Without plans, which are made of the rest."""
        return {name: value for name, value in self.__dict__.items() if name not in ("plan", "int8_plan")}


def default_subjects() -> list[str]:
    """The names that `subject` takes besides folders: of bundled models and published sizes."""
    return [*bundled_models(), *PUBLISHED]


def subject(name_or_path: str) -> Subject:
    """A model of the package, a published size with random weights, or the model of a folder or hub name.

    A folder goes before a name of `default_subjects`. Raises the errors of `from_folder`.
    """
    if name_or_path in PUBLISHED and not Path(name_or_path).exists():
        return published(name_or_path)
    return from_folder(name_or_path)


def published(name: str) -> Subject:
    """A model of `PUBLISHED` with random weights, always the same."""
    return with_random_weights(name, PRESETS[PUBLISHED[name]])


def from_folder(name_or_path: str | Path) -> Subject:
    """The encoder of a model folder or hub name.

    A model in int8 has no weights that other engines can read: they get random ones of the same sizes, as does our
    engine for fp32.

    Raises:
        CheckpointError: its files are missing or damaged.
        ConfigError: `config.json` cannot be understood.
    """
    config, name = AutoConfig.from_pretrained(name_or_path), Path(name_or_path).name or str(name_or_path)
    if config.quantized:
        extra = {key: value for key, value in config.extra.items() if key != "quantization_config"}
        return replace(with_random_weights(name, config.replace(extra=extra)), folder=name_or_path, quantized=True)
    family = family_of(config)
    tensors = {family.short(name): tensor for name, tensor in read_tensors(name_or_path).items()}
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(family.head_prefixes)}
    return Subject(name, config, encoder, folder=name_or_path)


def with_random_weights(name: str, config: PreTrainedConfig, seed: int = 0) -> Subject:
    """A model of these sizes, drawn as for pretraining: normal weights, biases 0, norms 1."""
    build = RandomBuilder(family_of(config), {}, {}, "Model", draws=np.random.default_rng(seed))
    build.std = config.initializer_range
    lower_with(build, config)
    return Subject(name, config, build.drawn)


@dataclass
class RandomBuilder(Builder):
    """Draws every tensor that lowering a model takes, so that no list of a family's tensors is needed.

    Attributes:
        draws: the random numbers.
        std: of the weights.
        drawn: the tensors by their official names, without the encoder's prefix.
    """

    draws: np.random.Generator = field(kw_only=True)
    std: float = 0.02
    drawn: dict[str, np.ndarray] = field(default_factory=dict)

    def require(self, *names: str) -> None:
        """Nothing is missing."""

    def has(self, name: str) -> bool:
        """Nothing is missing."""
        return True

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
        """The tensor `name`, drawn in this shape."""
        if name not in self.drawn:
            if name.endswith("bias"):
                self.drawn[name] = np.zeros(shape, np.float32)
            elif len(shape) == 1:
                self.drawn[name] = np.ones(shape, np.float32)
            else:
                self.drawn[name] = self.draws.standard_normal(shape, np.float32) * np.float32(self.std)
        return self.drawn[name]

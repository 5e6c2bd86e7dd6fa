"""The models to measure: of a folder, or of a published size with random weights, which run just as fast."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import read_tensors
from pocketbert.configs import PRESETS, AutoConfig
from pocketbert.errors import InputError
from pocketbert.families import FAMILIES, family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family
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
    """

    name: str
    config: PreTrainedConfig
    tensors: dict[str, np.ndarray]

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
        """The same in int8."""
        return quantize(self.plan)

    @cached_property
    def digest(self) -> str:
        """Changes with every weight and with the configuration."""
        sum_ = zlib.crc32(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for name in sorted(self.tensors):
            sum_ = zlib.crc32(np.ascontiguousarray(self.tensors[name]).data, zlib.crc32(name.encode(), sum_))
        return f"{sum_:08x}"


def published(name: str) -> Subject:
    """A model of `PUBLISHED` with random weights, always the same."""
    return with_random_weights(name, PRESETS[PUBLISHED[name]])


def from_folder(name_or_path: str | Path) -> Subject:
    """The encoder of a model folder or hub name.

    Raises:
        CheckpointError: its files are missing or damaged.
        ConfigError: `config.json` cannot be understood.
        InputError: it is in int8 already, which other engines cannot read.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    if config.quantized:
        raise InputError(f"{name_or_path} is already in int8: pass the original, which is measured in both")
    family = family_of(config)
    tensors = {family.short(name): tensor for name, tensor in read_tensors(name_or_path).items()}
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(family.head_prefixes)}
    return Subject(Path(name_or_path).name or str(name_or_path), config, encoder)


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

"""The registry of architectures: everything outside a family's own modules reads it.

`FAMILIES[model_type]` describes one, see `family.Family`. A new architecture is one line of `MODULES`; CONTRIBUTING.md
lists its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pocketbert.errors import ConfigError

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig
    from pocketbert.families.family import Family

#: `model_type` → the module whose `FAMILY` describes the architecture. It is imported when it is first used.
MODULES: dict[str, str] = {
    "bert": "pocketbert.families.bert",
    "squeezebert": "pocketbert.families.squeezebert",
    "mobilebert": "pocketbert.families.mobilebert",
    "distilbert": "pocketbert.families.distilbert",
    "electra": "pocketbert.families.electra",
    "roberta": "pocketbert.families.roberta",
    "xlm-roberta": "pocketbert.families.xlm_roberta",
    "camembert": "pocketbert.families.camembert",
    "mpnet": "pocketbert.families.mpnet",
}


class _Families(Mapping[str, "Family"]):
    """The descriptions of `MODULES`."""

    def __getitem__(self, model_type: str) -> Family:
        family: Family = import_module(MODULES[model_type]).FAMILY
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


FAMILIES: Mapping[str, Family] = _Families()


def find_family(model_type: object) -> Family:
    """The family of a `model_type`; raises `ConfigError` if there is none."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(f"model_type={model_type!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a configuration."""
    return FAMILIES[config.model_type]

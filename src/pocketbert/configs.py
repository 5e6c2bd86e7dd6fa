"""The configuration classes, published models by name, and the class for a `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.arguments import read_loading
from pocketbert.errors import ConfigError
from pocketbert.families import FAMILIES, find_family
from pocketbert.families.bert import BertConfig
from pocketbert.families.config import ACTIVATIONS, PROBLEM_TYPES, PreTrainedConfig
from pocketbert.families.family import HEADS
from pocketbert.families.mobilebert import MobileBertConfig
from pocketbert.families.squeezebert import SqueezeBertConfig

__all__ = [
    "ACTIVATIONS", "PRESETS", "PROBLEM_TYPES", "AutoConfig", "BertConfig", "MobileBertConfig", "PreTrainedConfig",
    "SqueezeBertConfig",
]  # fmt: skip

#: The published models by name, and the two of the MobileBERT paper that were never released. Sources: the models'
#: config.json files and google-research/mobilebert's configuration files.
PRESETS: dict[str, PreTrainedConfig] = {
    name: config for family in FAMILIES.values() for name, config in family.presets.items()
}


class AutoConfig:
    """Picks the configuration class by `model_type`."""

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> PreTrainedConfig:
        """Build the configuration of the family that `data["model_type"]` names."""
        return find_family(data.get("model_type")).config_class.from_dict(data)

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> PreTrainedConfig:
        """Read `config.json` of a folder or hub name, then apply `changes`."""
        from pocketbert.checkpoints import read_config
        from pocketbert.checkpoints.hub import hub_token

        name_or_path, token, changes = read_loading(name_or_path, changes)
        with hub_token(token):
            data = read_config(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        if not data.get("model_type"):
            data = {**data, "model_type": _named_by(data.get("architectures"))}
        if data["model_type"] is None:
            raise ConfigError(
                f'{name_or_path}: config.json has no model_type; add a line such as "model_type": "bert", with one of '
                f"{', '.join(FAMILIES)}"
            )
        return AutoConfig.from_dict(data).replace(**changes)


def _named_by(architectures: Any) -> str | None:
    """The family to which the names of classes belong, as files of before 2020 have them without a `model_type`."""
    names = architectures if isinstance(architectures, list) else []
    for family in FAMILIES.values():
        if set(names) & {family.class_name(head) for head in HEADS}:
            return family.model_type
    return None

"""Model classes by task, for the family that a checkpoint names in its `model_type`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from pocketbert.arguments import read_loading
from pocketbert.checkpoints.hub import hub_token
from pocketbert.configs import AutoConfig
from pocketbert.errors import CheckpointError, ConfigError, InputError
from pocketbert.families import family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import HEADS
from pocketbert.models.pretrained import PreTrainedModel, read_dtype


def model_class(config: PreTrainedConfig, head: str) -> type[PreTrainedModel]:
    """The class of the configuration's family for a head, the part of a class name after the family."""
    family = family_of(config)
    name = family.class_name(head)
    if head not in family.heads:
        raise ConfigError(f"{name} does not exist: models of model_type={config.model_type!r} have no such head")
    return cast("type[PreTrainedModel]", family.load(f"{family.models}.{name}"))


class _AutoModel:
    """`from_pretrained` and `from_config` for one task."""

    task: ClassVar[str]

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> Any:
        """A model with random initial weights; `options` are arguments of transformers that choose nothing here."""
        if others := read_loading("", options).others:
            raise InputError(f"from_config has no argument {', '.join(others)}: it takes a configuration")
        return model_class(config, cls.task)(config).to(read_dtype(torch_dtype if dtype is None else dtype, config))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        config: PreTrainedConfig | str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Any:
        """A model with the weights of a folder or hub name; see `PreTrainedModel.from_pretrained`."""
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        name_or_path, token, options = read_loading(name_or_path, options)
        with hub_token(token):
            if config is None or isinstance(config, str | Path):
                config = AutoConfig.from_pretrained(name_or_path if config is None else config, **where)
            return model_class(config, cls.task).from_pretrained(name_or_path, config=config, **where, **options)


def load_trained(
    name_or_path: str | Path,
    task: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Any:
    """The model of a folder or hub name, if it was trained with the head `task`, a key of `families.family.HEADS`.

    Raises:
        CheckpointError: its head is of another task, or not in the file, so that its outputs would be random.
    """
    where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    config = AutoConfig.from_pretrained(name_or_path, **where)
    config.refuse_other_head(task, name_or_path)
    model, info = model_class(config, task).from_pretrained(
        name_or_path, config=config, output_loading_info=True, **where
    )
    family, needs_pooler = family_of(config), HEADS[task].pooled and HEADS[task].task
    heads = family.optional_prefixes if needs_pooler else family.head_prefixes
    if fresh := [name for name in info["missing_keys"] if family.short(name).startswith(heads)]:
        raise CheckpointError(
            f"{name_or_path} lacks {', '.join(fresh)}, so the outputs would be random: use a checkpoint that was "
            f"fine-tuned for this task (a …{task})"
        )
    return model


class AutoModel(_AutoModel):
    """Picks the encoder."""

    task = "Model"


class AutoModelForPreTraining(_AutoModel):
    """Picks the model with both pretraining heads."""

    task = "ForPreTraining"


class AutoModelForMaskedLM(_AutoModel):
    """Picks the model that fills masked words."""

    task = "ForMaskedLM"


class AutoModelForNextSentencePrediction(_AutoModel):
    """Picks the model that predicts whether one sentence follows another."""

    task = "ForNextSentencePrediction"


class AutoModelForSequenceClassification(_AutoModel):
    """Picks the model that classifies or rates a text or a pair."""

    task = "ForSequenceClassification"


class AutoModelForMultipleChoice(_AutoModel):
    """Picks the model that scores several choices."""

    task = "ForMultipleChoice"


class AutoModelForTokenClassification(_AutoModel):
    """Picks the model that tags tokens."""

    task = "ForTokenClassification"


class AutoModelForQuestionAnswering(_AutoModel):
    """Picks the model that extracts an answer from a passage."""

    task = "ForQuestionAnswering"

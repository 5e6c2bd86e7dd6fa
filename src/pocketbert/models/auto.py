"""Model classes by task, for whatever family a checkpoint names in its `model_type`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

from pocketbert.checkpoints.models import POOLER
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.models.pretrained import PreTrainedModel

_FAMILIES = {"bert": "Bert", "squeezebert": "SqueezeBert", "mobilebert": "MobileBert"}


def model_class(config: PreTrainedConfig, task: str) -> type[PreTrainedModel]:
    """The class of `config`'s family for `task`, the part of a class name after the family ("ForMaskedLM")."""
    name = _FAMILIES[config.model_type] + task
    found = getattr(import_module(f"pocketbert.models.{config.model_type}"), name, None)
    if found is None:
        raise ConfigError(f"there is no {name}: model_type={config.model_type!r} has no such head")
    return cast("type[PreTrainedModel]", found)


class _AutoModel:
    """`from_pretrained` and `from_config` for one task."""

    task: ClassVar[str]

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Any:
        """A model with fresh weights."""
        return model_class(config, cls.task)(config)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Any:
        """A model with the weights of a folder or hub name; see `PreTrainedModel.from_pretrained`."""
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        if config is None:
            config = AutoConfig.from_pretrained(name_or_path, **where)
        return model_class(config, cls.task).from_pretrained(name_or_path, config=config, **where, **options)


def load_trained(name_or_path: str | Path, task: str, *, revision: str | None = None) -> Any:
    """The model of a folder or hub name, if it was trained for `task`, the part of a class name after the family.

    Raises:
        CheckpointError: its head is of another task, or not in the file, so that every answer would be random.
    """
    config = AutoConfig.from_pretrained(name_or_path, revision=revision)
    config.refuse_other_head(task, name_or_path)
    model, info = model_class(config, task).from_pretrained(
        name_or_path, config=config, revision=revision, output_loading_info=True
    )
    # Only these two read the pooler, so elsewhere it does not matter what is in it.
    pooled = task in ("ForSequenceClassification", "ForMultipleChoice")
    if fresh := [name for name in info["missing_keys"] if pooled or POOLER not in name]:
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
    """Picks the model that says whether one sentence follows another."""

    task = "ForNextSentencePrediction"


class AutoModelForSequenceClassification(_AutoModel):
    """Picks the model that classifies or rates a text or a pair."""

    task = "ForSequenceClassification"


class AutoModelForMultipleChoice(_AutoModel):
    """Picks the model that chooses among answers."""

    task = "ForMultipleChoice"


class AutoModelForTokenClassification(_AutoModel):
    """Picks the model that tags tokens."""

    task = "ForTokenClassification"


class AutoModelForQuestionAnswering(_AutoModel):
    """Picks the model that finds an answer in a passage."""

    task = "ForQuestionAnswering"

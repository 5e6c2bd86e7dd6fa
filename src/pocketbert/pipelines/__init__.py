"""`pipeline(task, model)`: texts in, predictions out, with the usual task names, call arguments and result shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pocketbert.bundles import BUNDLED
from pocketbert.checkpoints.hub import hub_token
from pocketbert.errors import InputError
from pocketbert.pipelines.base import Pipeline
from pocketbert.pipelines.loading import Wanted, as_predictor, load_model, read_config, read_wanted, task_of
from pocketbert.pipelines.texts import (
    FeatureExtraction,
    MultipleChoice,
    TextClassification,
    ZeroShotClassification,
)
from pocketbert.pipelines.tokens import FillMask, QuestionAnswering, TokenClassification
from pocketbert.sentences.declared import read_declared

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig

__all__ = [
    "ALIASES", "BUNDLED", "TASKS", "FeatureExtraction", "FillMask", "MultipleChoice", "Pipeline", "QuestionAnswering",
    "TextClassification", "TokenClassification", "ZeroShotClassification", "pipeline",
]  # fmt: skip

TASKS: dict[str, type[Pipeline]] = {
    kind.task: kind
    for kind in (
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        FillMask,
        MultipleChoice,
        FeatureExtraction,
        ZeroShotClassification,
    )
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


@overload
def pipeline(task: Literal["question-answering"], *args: Any, **options: Any) -> QuestionAnswering: ...
@overload
def pipeline(task: Literal["multiple-choice"], *args: Any, **options: Any) -> MultipleChoice: ...
@overload
def pipeline(task: Literal["zero-shot-classification"], *args: Any, **options: Any) -> ZeroShotClassification: ...
@overload
def pipeline(task: str | None = None, *args: Any, **options: Any) -> Pipeline: ...
def pipeline(
    task: str | None = None,
    model: Any = None,
    *parts: Any,
    tokenizer: Any = None,
    config: PreTrainedConfig | str | Path | None = None,
    device: Any = None,
    revision: str | None = None,
    token: str | bool | None = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    device_map: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    pipeline_class: Any = None,
    local_files_only: bool = False,
    **options: Any,
) -> Pipeline:
    """Make the pipeline of a task.

    Args:
        task: One of `TASKS`, or "sentiment-analysis" or "ner". Default: that for which the model was trained.
        model: A model folder, a hub name, a model object, or any `features.Predictor`. Without one,
            text-classification, token-classification and question-answering use bundled models of sentiment, of named
            entities and of answers, and feature-extraction and fill-mask the bundled encoder.
        *parts: A tokenizer, or a configuration and a tokenizer, without their names.
        tokenizer: A tokenizer, or the folder or hub name of one; by default that of the model's folder or name.
        config: The model's configuration, or the folder or hub name of one, where `model` is a predictor that does not
            have one as `config`; beside a folder or name, one that differs from the model's in its labels alone.
        device: Run the model in PyTorch, on this device, as in `torch.device`. By default, and for "cpu", -1 and the
            number of a GPU where there is none, models of folders and names run on the engine, which needs no PyTorch.
        revision: A branch, tag or commit on the hub.
        token: Of the hub, where that of `hf auth login` or HF_TOKEN is not meant.
        dtype: "auto" or float32 on the engine; in PyTorch any.
        torch_dtype: An older name of `dtype`.
        device_map: "auto", or as `device`.
        model_kwargs: Further arguments of loading: `cache_dir`, `threads` of the engine, and those above.
        pipeline_class: The class of the task, which may be named.
        local_files_only: Never download.
        **options: Defaults for the options of the calls, which are those of the task's `job`; and arguments that
            choose nothing here.

    Raises:
        InputError: For an unknown task or option, or if `model` or `tokenizer` is missing, or for an argument that
            cannot be meant.
        CheckpointError: If the model cannot be read, or has no trained head for the task.
    """
    named = {"config": config, "tokenizer": tokenizer, "device": device, "revision": revision, "dtype": dtype,
             "torch_dtype": torch_dtype, "device_map": device_map, "local_files_only": local_files_only}  # fmt: skip
    extra = dict(model_kwargs or {})
    tokens = [token, options.pop("use_auth_token", None), extra.pop("token", None)]
    with hub_token(next((one for one in tokens if one is not None), None)):
        wanted, rest = read_wanted(parts, named, extra, options)
        return _made(task, model, wanted, pipeline_class, rest)


def _made(task: str | None, model: Any, wanted: Wanted, pipeline_class: Any, options: dict[str, Any]) -> Pipeline:
    """The pipeline of `wanted`; `options` are defaults of its calls."""
    if task is None:
        task = next((kind.task for kind in TASKS.values() if kind is pipeline_class), None)
        task = task_of(model, wanted.where, list(TASKS.values())) if task is None else task
    kind = TASKS.get(ALIASES.get(task, task)) if isinstance(task, str) else None
    if kind is None:
        raise InputError(f"unknown task {task!r}: choose one of {', '.join([*TASKS, *ALIASES])}")
    if pipeline_class not in (None, kind):
        raise InputError(f"pipeline_class={pipeline_class!r:.60} is not that of {kind.task}; leave it out")
    tokenizer, config = wanted.tokenizer, wanted.config
    if model is None:
        if kind.bundled is None:
            raise InputError(f"{kind.task} has no bundled model: pass model=… with a folder or hub name")
        model = BUNDLED / kind.bundled
    if isinstance(model, str | Path):
        if kind is FeatureExtraction:
            declared = read_declared(model, **wanted.where)
            model, options = declared.encoder, {**options, "declared": declared}
            tokenizer = declared.read_tokenizer(**wanted.where) if tokenizer is None else tokenizer
        tokenizer = model if tokenizer is None else tokenizer
        model = load_model(kind, model, wanted)
    elif tokenizer is None and isinstance(config, str | Path):
        tokenizer = config
    if isinstance(tokenizer, str | Path):
        from pocketbert.tokenization import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **wanted.where)
    if tokenizer is None:
        raise InputError("pass tokenizer=… with a model that is neither a folder nor a hub name")
    predictor = as_predictor(model, wanted)
    config = read_config(config, model, wanted)
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not belong together"
        )
    return kind(predictor, tokenizer, config, **options)

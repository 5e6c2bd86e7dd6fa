"""`pipeline(task, model)`: texts in, predictions out, with the usual task names, call arguments and result shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pocketbert.errors import InputError, require
from pocketbert.features import Predictor
from pocketbert.pipelines.base import Pipeline
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

BUNDLED = Path(__file__).parents[1] / "bundled"
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
def pipeline(task: str, *args: Any, **options: Any) -> Pipeline: ...
def pipeline(
    task: str,
    model: Any = None,
    tokenizer: Any = None,
    *,
    config: PreTrainedConfig | None = None,
    device: Any = None,
    revision: str | None = None,
    **options: Any,
) -> Pipeline:
    """Make the pipeline of a task.

    Args:
        task: One of `TASKS`, or "sentiment-analysis" or "ner".
        model: A model folder, a hub name, a model object, or any `features.Predictor`. Without one,
            text-classification uses the bundled model, which classifies sentences as positive or negative.
        tokenizer: A tokenizer, or the folder or hub name of one; by default that of the model's folder or name.
        config: The model's configuration, where `model` is a predictor that does not have one as `config`.
        device: Run the model in PyTorch, on this device, as in `torch.device`. By default models of folders and names
            run on the engine, which needs no PyTorch.
        revision: A branch, tag or commit on the hub.
        **options: Defaults for the options of the calls, which are those of the task's `job`.

    Raises:
        InputError: For an unknown task or option, or if `model` or `tokenizer` is missing.
        CheckpointError: If the model cannot be read, or has no trained head for the task.
    """
    kind = TASKS.get(ALIASES.get(task, task))
    if kind is None:
        raise InputError(f"unknown task {task!r}: choose one of {', '.join([*TASKS, *ALIASES])}")
    if model is None:
        if kind.bundled is None:
            raise InputError(f"{kind.task} has no bundled model: pass model=… with a folder or hub name")
        model = BUNDLED / kind.bundled
    if isinstance(model, str | Path):
        if kind is FeatureExtraction:
            declared = read_declared(model, revision=revision)
            model, options = declared.encoder, {**options, "declared": declared}
            tokenizer = declared.read_tokenizer(revision=revision) if tokenizer is None else tokenizer
        tokenizer = model if tokenizer is None else tokenizer
        model = _load(kind, model, device, revision)
    if isinstance(tokenizer, str | Path):
        from pocketbert.tokenization import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer, revision=revision)
    if tokenizer is None:
        raise InputError("pass tokenizer=… with a model that is neither a folder nor a hub name")
    config = getattr(model, "config", None) if config is None else config
    if config is None:
        raise InputError("pass config=… with a predictor that has no config")
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not go together"
        )
    return kind(_predictor(model, device), tokenizer, config, **options)


def _load(kind: type[Pipeline], name: str | Path, device: Any, revision: str | None) -> Any:
    """The model of a folder or hub name: on the engine, or in PyTorch if a device is chosen."""
    if device is None:
        from pocketbert.runtime.engine import Engine

        return Engine.from_pretrained(name, kind.head, revision=revision)
    require("train")
    from pocketbert.models.auto import load_trained

    return load_trained(name, kind.head, revision=revision)


def _predictor(model: Any, device: Any) -> Predictor:
    """A PyTorch model as a predictor; a predictor as it is."""
    if not hasattr(model, "forward"):
        if device is not None:
            raise InputError(f"device={device!r} is for PyTorch models; this one runs where it was made to")
        predictor: Predictor = model
        return predictor
    from pocketbert.models.predict import TorchPredictor

    if device is not None:
        try:
            model = model.to(device)
        except (AssertionError, RuntimeError) as error:  # both, depending on how PyTorch was built
            raise InputError(f"device={device!r} cannot be used: {error}") from None
    return TorchPredictor(model)

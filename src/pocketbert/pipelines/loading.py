"""How `pipeline` reads the arguments that say which model is meant, and where and how it runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.arguments import FROM_PRETRAINED, Idle, check_idle, is_float32, is_here, one_of
from pocketbert.errors import InputError, require
from pocketbert.features import Predictor

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig
    from pocketbert.pipelines.base import Pipeline

logger = logging.getLogger("pocketbert")

#: Arguments of `pipeline` alone that choose nothing.
LOADING: dict[str, Idle] = {
    "framework": Idle(one_of(None, "pt", "tf"), "must be 'pt' or 'tf'"),
    "use_fast": Idle(one_of(None, True, False), "must be True or False"),
    "binary_output": Idle(one_of(None, False), "results are Python objects; pickle.dumps(…) makes bytes of one"),
    **dict.fromkeys(
        ("feature_extractor", "image_processor", "video_processor", "processor", "args_parser"),
        Idle(one_of(None), "is for other tasks; leave it out"),
    ),
    **{name: idle for name, idle in FROM_PRETRAINED.items() if name != "device_map"},
}

_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class Wanted:
    """What `pipeline` was asked to load.

    Args:
        tokenizer: a tokenizer, or the folder or hub name of one.
        config: a configuration, or the folder or hub name of one.
        device: of PyTorch; None: the engine.
        dtype: of the parameters in PyTorch; None: float32.
        here: whether a device was named that means this processor.
        where: what `checkpoints.resolve` takes besides the name.
        threads: of the engine; None: as many as this process may use.
    """

    tokenizer: Any
    config: Any
    device: Any
    dtype: Any
    here: bool
    where: dict[str, Any]
    threads: int | None = None


def read_wanted(
    parts: Sequence[Any], given: Mapping[str, Any], extra: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Wanted, dict[str, Any]]:
    """What is to be loaded, and the options that are left for the calls.

    Args:
        parts: arguments without a name after the model.
        given: the named arguments of `pipeline` that it reads.
        extra: the argument `model_kwargs`.
        options: all other arguments.

    Raises:
        InputError: an argument is given twice, or cannot be meant.
    """
    check_idle(LOADING, extra)
    if unknown := extra.keys() - given.keys() - LOADING.keys() - {"cache_dir", "threads"}:
        raise InputError(
            f"model_kwargs: {', '.join(sorted(unknown))} cannot be changed when a model is loaded for inference"
        )
    named = dict(given)
    for name, value in extra.items():
        if name in named:
            if named[name] not in (None, False):
                raise InputError(f"{name} is given both in model_kwargs and beside it")
            named[name] = value
    for place, part in enumerate(parts):
        name = "config" if hasattr(part, "id2label") or (len(parts) == 2 and place == 0) else "tokenizer"
        if named[name] is not None:
            raise InputError(f"{name} is given twice")
        named[name] = part
    if len(parts) > 2:
        raise InputError("only model, config and tokenizer are positional; pass all other arguments by name")
    if isinstance(named["tokenizer"], tuple):  # (name, options), as transformers takes it
        from pocketbert.tokenization import AutoTokenizer

        where, settings = named["tokenizer"]
        named["tokenizer"] = AutoTokenizer.from_pretrained(where, **settings)
    check_idle(LOADING, options)
    wanted = Wanted(
        tokenizer=named["tokenizer"],
        config=named["config"],
        **_placed(named["device"], named["device_map"], named["dtype"], named["torch_dtype"]),
        where={
            "revision": named["revision"],
            "cache_dir": extra.get("cache_dir"),
            "local_files_only": named["local_files_only"],
        },
        threads=extra.get("threads"),
    )
    return wanted, {name: value for name, value in options.items() if name not in LOADING}


def _placed(device: Any, device_map: Any, dtype: Any, torch_dtype: Any) -> dict[str, Any]:
    """The device, the type of numbers, and whether this processor was named."""
    if device is not None and device_map is not None:
        raise InputError("pass device or device_map, not both")
    if isinstance(device_map, Mapping):
        if len({str(one) for one in device_map.values()}) > 1:
            raise InputError(f"device_map={device_map!r:.80} spreads one model over several devices; name one device")
        device = next(iter(device_map.values()), None)
    elif device_map not in _SPREAD:
        device = device_map if device is None else device
    if dtype is not None and torch_dtype is not None and str(dtype) != str(torch_dtype):
        raise InputError("pass dtype or its older name torch_dtype, not both")
    dtype = torch_dtype if dtype is None else dtype
    if isinstance(device, int) and device >= 0 and not _has_gpu():
        logger.warning("device=%d: there is no GPU for PyTorch; the model runs on this processor", device)
        device = "cpu"
    here = device is not None and is_here(device)
    device = None if here else device
    return {"device": device, "dtype": None if is_float32(dtype) else dtype, "here": here}


def _has_gpu() -> bool:
    """Whether PyTorch is installed, and has a GPU."""
    if find_spec("torch") is None:
        return False
    from pocketbert.models.device import choose_device

    return choose_device(None).type != "cpu"


def task_of(model: Any, where: Mapping[str, Any], kinds: Sequence[type[Pipeline]]) -> str:
    """The task for which a model was trained, by the name of its class; of `kinds` with one head the first.

    Raises:
        InputError: no task is named by it.
    """
    if model is None:
        raise InputError("pass a task, a model, or both")
    names = [type(model).__name__]
    if isinstance(model, str | Path):
        from pocketbert.configs import AutoConfig
        from pocketbert.sentences.declared import read_declared

        declared = read_declared(model, **where)
        if declared.pooling is not None:
            return "feature-extraction"
        names = AutoConfig.from_pretrained(declared.encoder, **where).architectures
    elif getattr(model, "config", None) is not None and not hasattr(model, "forward"):
        names = model.config.architectures
    heads: dict[str, str] = {"ForPreTraining": "fill-mask"}
    for kind in kinds:
        heads.setdefault(kind.head, kind.task)
    for head, task in heads.items():
        if any(name.endswith(head) for name in names):
            return task
    known = ", ".join(kind.task for kind in kinds)
    raise InputError(
        f"the model does not say for which task it is ({', '.join(names) or 'no class'}): pass one of {known}"
    )


def load_model(kind: type[Pipeline], name: str | Path, wanted: Wanted) -> Any:
    """The model of a folder or hub name: on the engine, or in PyTorch if a device is chosen."""
    if wanted.device is None:
        _refuse_dtype(wanted)
        from pocketbert.runtime.engine import Engine

        return Engine.from_pretrained(name, kind.head, threads=wanted.threads, **wanted.where)
    require("train")
    from pocketbert.models.auto import load_trained

    return load_trained(name, kind.head, **wanted.where)


def _refuse_dtype(wanted: Wanted) -> None:
    if wanted.dtype is not None:
        raise InputError(
            f"dtype={wanted.dtype!r}: the engine computes in float32, or in int8 after `pocketbert quantize`; leave it "
            "out, or name a device to run the model in PyTorch"
        )


def as_predictor(model: Any, wanted: Wanted) -> Predictor:
    """A PyTorch model as a predictor; a predictor as it is."""
    if not hasattr(model, "forward"):
        if wanted.device is not None:
            raise InputError(f"device={wanted.device!r} is for PyTorch models, and this predictor is not one")
        _refuse_dtype(wanted)
        predictor: Predictor = model
        return predictor
    require("train")
    from pocketbert.models.predict import TorchPredictor
    from pocketbert.models.pretrained import PreTrainedModel, read_dtype

    if not isinstance(model, PreTrainedModel):
        name = f"{type(model).__module__.partition('.')[0]}'s {type(model).__name__}"
        raise InputError(f"model is {name}, not a class of PocketBERT: save it, and pass its folder")
    device = "cpu" if wanted.here else wanted.device
    try:
        model = model if device is None else model.to(device)
        model = model if wanted.dtype is None else model.to(read_dtype(wanted.dtype))
    except (AssertionError, RuntimeError) as error:  # both, depending on how PyTorch was built
        raise InputError(f"device={device!r} cannot be used: {error}") from None
    return TorchPredictor(model)


def read_config(config: Any, model: Any, wanted: Wanted) -> PreTrainedConfig:
    """The configuration of the pipeline: the model's, or the given one if it describes the same model."""
    own = getattr(model, "config", None)
    if isinstance(config, str | Path):
        from pocketbert.configs import AutoConfig

        config = AutoConfig.from_pretrained(config, **wanted.where)
    if config is None:
        if own is None:
            raise InputError("pass config=… with a predictor that has no config")
        config = own
    elif own is not None and config is not own:
        _refuse_other(config, own)
    found: PreTrainedConfig = config
    return found


# Fields that do not belong to the model's computation, but to what its numbers mean.
_MEANING = (
    "id2label",
    "num_labels",
    "problem_type",
    "extra",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
)


def _refuse_other(config: PreTrainedConfig, own: PreTrainedConfig) -> None:
    if config.num_labels == own.num_labels:
        alike = {name: getattr(own, name) for name in _MEANING}
        if type(config) is type(own) and replace(config, **alike) == own:
            return
    raise InputError("config=… describes another model than the one that is loaded: only its labels may differ")

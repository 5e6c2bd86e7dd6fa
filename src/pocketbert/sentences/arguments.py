"""Arguments of sentence-transformers that choose nothing here are taken; those that cannot be meant are refused."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pocketbert.arguments import FROM_PRETRAINED, WORDPIECE_FROM_PRETRAINED, Idle, check_idle, is_float32
from pocketbert.bundles import local_folder
from pocketbert.errors import InputError
from pocketbert.pipelines.inputs import several
from pocketbert.sentences.activations import ACTIVATIONS, Activation, activation_of

T = TypeVar("T")
logger = logging.getLogger("pocketbert")

_FLOAT32 = Idle(is_float32, "the engine computes in float32, or in int8 after `pocketbert quantize`; leave it out")
#: Arguments in `model_kwargs`, `processor_kwargs` and `config_kwargs` that choose nothing.
_NESTED = {**FROM_PRETRAINED, **WORDPIECE_FROM_PRETRAINED, "dtype": _FLOAT32, "torch_dtype": _FLOAT32}
HERE = (None, "cpu", -1)  # devices that mean this processor


def full_name(name_or_path: str | Path, organisation: str) -> str | Path:
    """A folder, a bundled model, or a name on the hub with the organisation that short names leave out."""
    name = str(name_or_path)
    if "/" in name or "\\" in name or Path(name).exists() or local_folder(name) or name.startswith("bert-"):
        return name_or_path
    return f"{organisation}/{name}"


def check_loading(**given: Any) -> None:
    """Refuse what the constructors of sentence-transformers take and this engine does not do."""
    check_device(given.pop("device"))
    if given.pop("trust_remote_code"):
        raise InputError("trust_remote_code=True: no code of a model is ever run here; leave it out")
    if (backend := given.pop("backend")) != "torch":
        raise InputError(f"backend={backend!r}: the model runs on PocketBERT's own engine; leave it out")
    for name, value in given.items():
        if isinstance(value, Mapping):
            check_idle(_NESTED, value)
            value = {key: one for key, one in value.items() if key not in _NESTED}
        if value:
            raise InputError(f"{name}={value!r:.60} is not supported; leave it out")


def check_device(device: Any) -> None:
    """Refuse a device other than this processor."""
    if device not in HERE and str(device) != "cpu":
        raise InputError(f"device={device!r:.60}: the engine runs on the processor; leave it out, or pass 'cpu'")


def check_call(*, batch_size: int, convert_to_tensor: bool, device: Any, pool: Any) -> None:
    """Refuse what a call cannot mean; `batch_size` is checked, and changes nothing but what other engines compute."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} must be a whole number of at least 1")
    if convert_to_tensor:
        raise InputError("convert_to_tensor=True: results are NumPy arrays; torch.from_numpy(…) makes a tensor of one")
    if pool is not None:
        raise InputError("pool=…: the engine uses all processor cores already; leave it out")
    check_device(device)


def choose_prompt(prompts: Mapping[str, str], prompt: str | None, name: str | None, default: str | None = None) -> str:
    """The text to put before each text: `prompt` itself, or that which the model or the caller calls `name`."""
    if prompt is not None:
        if name is not None:
            logger.warning("prompt=%r is used, and prompt_name=%r ignored: pass one of them", prompt, name)
        return prompt
    name = default if name is None else name
    if name is None:
        return ""
    if name not in prompts:
        raise InputError(
            f"prompt_name={name!r} is not one of the model's prompts: {', '.join(prompts) or 'it has none'}"
        )
    return prompts[name]


def read_activation(given: Any) -> Activation:
    """A function of arrays: a callable, PyTorch's name of one, or a module of `torch.nn` (only its name counts).

    Raises:
        InputError: it is not one of these.
    """
    kind = type(given)
    module = kind.__module__.startswith("torch.nn.")
    name = f"{kind.__module__}.{kind.__qualname__}" if module else given
    if isinstance(name, str):
        found = activation_of(name)
        if found is None:
            raise InputError(f"activation {name!r:.80} is not supported; torch.nn's {', '.join(ACTIVATIONS)} are")
        return found
    if callable(given):
        function: Callable[[np.ndarray], Any] = given
        return lambda x: np.asarray(function(x))
    raise InputError(f"activation_fn={given!r:.60} must be a function of an array, or the name of a torch.nn module")


def as_inputs(inputs: Any) -> list[Any]:
    """A list of what a caller gave as several inputs."""
    found = None if isinstance(inputs, str) else several(inputs)
    if found is None:
        raise InputError(f"{type(inputs).__name__} {inputs!r:.60} is neither a text nor a row of texts")
    return [value.item() if isinstance(value, np.str_) else value for value in found]


def with_progress(results: Iterator[T], total: int, shown: bool | None) -> Iterator[T]:
    """`results`, with a progress bar on standard error; if `shown` is None, where the log is as verbose as INFO."""
    if not (logger.getEffectiveLevel() <= logging.INFO if shown is None else shown):
        yield from results
        return
    import click

    with click.progressbar(results, length=total, label="texts", file=sys.stderr) as shown_results:
        yield from shown_results

"""Arguments that code written for transformers passes, and that choose nothing here.

Each is in one table, with the values that choose nothing. These are taken; any other value is refused with what to do
instead, and a name that is in no table is refused by whoever was given it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Integral
from typing import Any, NamedTuple

from pocketbert.errors import InputError


class Idle(NamedTuple):
    """An argument that chooses nothing here."""

    holds: Callable[[Any], bool]  # whether a value is one of those that choose nothing
    advice: str  # on any other value


def one_of(*values: Any) -> Callable[[Any], bool]:
    """Whether something is one of `values`, of the same type."""
    return lambda given: any(given is value or (type(given) is type(value) and given == value) for value in values)


def whole(least: int) -> Callable[[Any], bool]:
    """Whether something is None or a whole number of at least `least`."""
    integral: Any = Integral  # of NumPy, too; for type checkers a bool cannot be one
    return lambda given: given is None or (isinstance(given, integral) and type(given) is not bool and given >= least)


def plain(value: Any) -> Any:
    """A text in place of a member of one of transformers' enumerations."""
    return value.value if isinstance(value, Enum) else value


def check_idle(known: Mapping[str, Idle], given: Mapping[str, Any]) -> None:
    """Refuse arguments of `known` with values that would choose something."""
    for name, value in given.items():
        if name in known and not known[name].holds(plain(value)):
            raise InputError(f"{name}={value!r:.60}: {known[name].advice}")


_SWITCH = one_of(None, True, False)
_TEXT: Callable[[Any], bool] = lambda given: given is None or isinstance(given, str)  # noqa: E731
_HERE = one_of(None, "auto", "cpu", -1)


def is_here(device: Any) -> bool:
    """Whether a device, or a map of modules to devices, means this processor or leaves the choice."""
    if isinstance(device, Mapping):
        return all(is_here(one) for one in device.values())
    return _HERE(device) or (type(device).__name__ == "device" and str(device) == "cpu")


def is_float32(dtype: Any) -> bool:
    """Whether a type of numbers, or its name, is float32 or leaves the choice."""
    return str(dtype).removeprefix("torch.") in ("None", "auto", "float32")


#: Of `from_pretrained`, of models, configurations and tokenizers alike.
FROM_PRETRAINED: dict[str, Idle] = {
    "trust_remote_code": Idle(one_of(None, False), "no code of a model is ever run here; leave it out"),
    "code_revision": Idle(_TEXT, "must be a text"),
    **dict.fromkeys(
        ("low_cpu_mem_usage", "use_safetensors", "weights_only", "from_tf", "from_flax", "from_pt", "resume_download",
         "disable_mmap", "_fast_init"),
        Idle(_SWITCH, "must be True or False"),
    ),
    "force_download": Idle(one_of(None, False), "changed files are downloaded automatically; leave it out"),
    "proxies": Idle(one_of(None), "set HTTPS_PROXY, and leave it out"),
    "subfolder": Idle(one_of(None, ""), "pass the folder of the model itself"),
    "attn_implementation": Idle(_TEXT, "must be a text"),
    "device_map": Idle(is_here, "call model.to(…) with the device, and leave it out"),
    **dict.fromkeys(
        ("quantization_config", "load_in_8bit", "load_in_4bit"),
        Idle(one_of(None, False), "`pocketbert quantize` makes a folder with int8 weights; leave it out"),
    ),
    **dict.fromkeys(
        ("mirror", "variant", "state_dict", "gguf_file", "key_mapping", "max_memory", "offload_folder",
         "offload_buffers", "offload_state_dict", "tp_plan", "tp_size", "device_mesh", "distributed_config",
         "adapter_name", "adapter_kwargs", "use_kernels", "kernel_config", "fusion_config", "tqdm_class"),
        Idle(one_of(None, False), "is not supported; leave it out"),
    ),
    "finetuning_task": Idle(_TEXT, "must be a text"),
}  # fmt: skip

#: Of `from_pretrained` of tokenizers, besides.
TOKENIZER_FROM_PRETRAINED: dict[str, Idle] = {
    **dict.fromkeys(("use_fast", "from_slow", "legacy"), Idle(_SWITCH, "must be True or False")),
    "clean_up_tokenization_spaces": Idle(_SWITCH, "must be True or False"),
    "tokenizer_type": Idle(one_of(None), "the type is read from the files; leave it out"),
    "config": Idle(lambda given: True, ""),
}

#: … of tokenizers with WordPiece.
WORDPIECE_FROM_PRETRAINED: dict[str, Idle] = {
    **TOKENIZER_FROM_PRETRAINED,
    "add_prefix_space": Idle(one_of(None, False), "is for other tokenizers; leave it out"),
}


class Loading(NamedTuple):
    """The arguments of a `from_pretrained`."""

    name_or_path: Any
    token: str | bool | None  # of the hub
    others: dict[str, Any]  # those that choose something


def read_loading(name_or_path: Any, given: Mapping[str, Any], *tables: Mapping[str, Idle]) -> Loading:
    """The arguments of a `from_pretrained` without those of `FROM_PRETRAINED` and `tables` that choose nothing.

    Raises:
        InputError: one of them would choose something, or the name is given twice or not at all.
    """
    known = {**FROM_PRETRAINED, **{name: idle for table in tables for name, idle in table.items()}}
    check_idle(known, given)
    others = {name: value for name, value in given.items() if name not in known}
    named = others.pop("pretrained_model_name_or_path", None)
    if (named is None) == (name_or_path is None):
        raise InputError("pass the model's folder or name on the hub, once")
    tokens = [others.pop(name) for name in ("token", "use_auth_token") if name in others]
    return Loading(named if name_or_path is None else name_or_path, next(iter(tokens), None), others)

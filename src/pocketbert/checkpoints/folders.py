"""A model's folder: which file holds its configuration, which its weights, and reading them whatever the format."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at, read_json
from pocketbert.checkpoints.hub import list_files, resolve
from pocketbert.checkpoints.names import mend_names, official_names, table_for
from pocketbert.checkpoints.safetensors_files import LazyTensors, Tensors, open_safetensors, open_shards
from pocketbert.errors import CheckpointError

# Best first. A TensorFlow checkpoint, whose name is free, comes last.
PREFERENCE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)
GOOGLE_CONFIGS = ("bert_config.json", "mobilebert_config.json")
OTHER_FORMATS = {".h5": "Keras", ".msgpack": "Flax", ".ot": "Rust", ".onnx": "ONNX", ".tflite": "TensorFlow Lite"}

# What Google's configuration class takes for the keys that a file leaves out, where published classes differ.
_GOOGLE_BERT = {"type_vocab_size": 16}
_GOOGLE_MOBILEBERT = {
    **_GOOGLE_BERT,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "trigram_input": False,
    "use_bottleneck": False,
    "use_bottleneck_attention": False,
    "key_query_shared_bottleneck": False,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "classifier_activation": True,
}


def read_config(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """The object in `config.json` of a folder or hub name, or of the folder of a weight file.

    Where there is none, Google's `bert_config.json` or `mobilebert_config.json` is taken, with the defaults of Google's
    code and a `model_type`.

    Raises:
        CheckpointError: there is no such file, or it holds no JSON object.
    """
    folder = Path(name_or_path)
    if not folder.is_dir() and _as_file(folder):
        folder = folder.parent
    else:
        folder = resolve(
            name_or_path,
            files=("config.json", *GOOGLE_CONFIGS),
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    if (folder / "config.json").exists():
        return read_json(folder / "config.json")
    for name in GOOGLE_CONFIGS:
        if (folder / name).exists():
            return _from_google(read_json(folder / name))
    raise CheckpointError(f"{name_or_path} has no config.json: give the folder of a model")


def read_tensors(name_or_path: str | Path, **where: Any) -> Tensors:
    """The weights of a folder or hub name, all in memory; arguments and errors are those of `open_tensors`."""
    return dict(open_tensors(name_or_path, **where))


def open_tensors(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    widen: bool = True,
) -> LazyTensors:
    """The weights of a folder or hub name by their official names, whatever the format; needs no PyTorch.

    From safetensors files, each is read when it is asked for.

    Of several files the first of `model.safetensors`, `pytorch_model.bin` (each whole or in shards), `tf_model.h5` and
    a TensorFlow checkpoint is read, and only that one is downloaded. `name_or_path` may also be one such file. Older
    names are mended and `position_ids` left out; tensors that are tied in the model may be missing, as they are in the
    file.

    Args:
        name_or_path: folder, hub name, weight file, or prefix of a TensorFlow checkpoint.
        revision: branch, tag or commit on the hub.
        cache_dir: where downloads are kept.
        local_files_only: ask nobody.
        widen: turn fp16 into float32. bf16, which NumPy lacks, always comes as float32.

    Raises:
        CheckpointError: no weights, or a file that is missing, empty, truncated, damaged or something else.
    """
    path = Path(name_or_path)
    if path.is_dir():
        file = path / _choose([entry.name for entry in path.iterdir()], name_or_path)
    elif (found := _as_file(path)) is not None:
        file = found
    else:
        where: dict[str, Any] = {
            "revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only
        }  # fmt: skip
        chosen = _choose(list_files(name_or_path, **where), name_or_path)
        file = resolve(name_or_path, files=_patterns(chosen), **where) / chosen
    tensors = _open(file)

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        return tensor.astype(np.float32) if widen and tensor.dtype == np.float16 else tensor

    return LazyTensors({new: partial(read, name) for new, name in mend_names(tensors, file).items()})


def _as_file(path: Path) -> Path | None:
    """The weight file at `path`, which a TensorFlow checkpoint's may be without its `.index`; None if there is none."""
    index = Path(f"{path}.index")
    return path if path.is_file() else index if index.is_file() else None


def _choose(names: Collection[str], source: object) -> str:
    """The file to read out of those of a folder."""
    for name in PREFERENCE:
        if name in names:
            return name
    prefixes = {name.partition(".data-")[0] for name in names if re.search(r"\.data-\d+-of-\d+$", name)}
    checkpoints = sorted(name for name in names if name.endswith(".index") and name.removesuffix(".index") in prefixes)
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        several = ", ".join(name.removesuffix(".index") for name in checkpoints)
        raise CheckpointError(f"{source} has several TensorFlow checkpoints, name the one to read: {several}")
    others = sorted(name for name in names if Path(name).suffix in OTHER_FORMATS)
    hint = f" (it has {', '.join(others)}, which PocketBERT does not read)" if others else ""
    raise CheckpointError(
        f"{source} has no weights: neither model.safetensors nor pytorch_model.bin nor tf_model.h5 nor a TensorFlow "
        f"checkpoint{hint}"
    )


def _patterns(chosen: str) -> list[str]:
    """What to download for the file `chosen`: itself and the files that belong to it."""
    if chosen.endswith(".index.json"):
        stem, _, suffix = chosen.removesuffix(".index.json").rpartition(".")
        return [chosen, f"{stem}-*.{suffix}"]
    if chosen.endswith(".index"):
        return [chosen, f"{chosen.removesuffix('.index')}.data-*"]
    return [chosen]


def _open(file: Path) -> Mapping[str, np.ndarray]:
    # The last three are imported when they are needed, to keep the start of a program short.
    if file.name.endswith(".safetensors"):
        return open_safetensors(file)
    if file.name.endswith(".safetensors.index.json"):
        return open_shards(file, open_safetensors)
    if file.name.endswith(".bin.index.json") or file.suffix in (".bin", ".pt", ".pth"):
        from pocketbert.checkpoints.torch_files import read_torch

        return open_shards(file, read_torch) if file.suffix == ".json" else read_torch(file)
    if file.suffix == ".index":
        return _read_tensorflow(file)
    if file.suffix == ".h5":
        from pocketbert.checkpoints.keras_files import read_keras

        return read_keras(file)
    look_at(file)
    kinds = ".safetensors, .bin, .pt, .pth, .h5, .index, .index.json"
    raise CheckpointError(f"{file}: weights are read from files that end in {kinds}")


def _read_tensorflow(index: Path) -> Tensors:
    """A checkpoint under Google's names, brought to the official ones."""
    from pocketbert.checkpoints.tensorflow_files import Bundle

    bundle = Bundle(index)
    names = official_names(bundle.entries, table_for(bundle.entries), index)
    tensors: Tensors = {}
    for name, rule in names.items():
        tensor = bundle.read([name])[name]
        if rule.transposed and tensor.ndim != 2:
            raise CheckpointError(f"{index}: {name} has {tensor.ndim} dimensions, not 2")
        tensors[rule.official] = np.asarray(tensor.T, order="C") if rule.transposed else tensor
    return tensors


def _from_google(data: dict[str, Any]) -> dict[str, Any]:
    """A configuration file of Google's code as a `config.json`."""
    if "model_type" in data:
        return data
    if not {"use_bottleneck", "trigram_input", "normalization_type", "num_feedforward_networks"} & data.keys():
        return {"model_type": "bert", **_GOOGLE_BERT, **data}
    whole = {"model_type": "mobilebert", **_GOOGLE_MOBILEBERT, **data}
    whole.setdefault("embedding_size", whole["hidden_size"])
    whole.setdefault("intra_bottleneck_size", whole["hidden_size"])
    return whole

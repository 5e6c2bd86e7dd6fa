"""Model folders: which file has the configuration, which one the weights, and reading them in any format."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.bundles import local_folder
from pocketbert.checkpoints.files import look_at, read_json
from pocketbert.checkpoints.hub import list_files, resolve
from pocketbert.checkpoints.names import mend_names, official_names, table_for
from pocketbert.checkpoints.safetensors_files import LazyTensors, Tensors, open_safetensors, open_shards
from pocketbert.checkpoints.shared import with_shared
from pocketbert.errors import CheckpointError
from pocketbert.families import FAMILIES

# In the order of preference. A TensorFlow checkpoint, which can have any name, comes last.
PREFERENCE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)
OTHER_FORMATS = {".h5": "Keras", ".msgpack": "Flax", ".ot": "Rust", ".onnx": "ONNX", ".tflite": "TensorFlow Lite"}


def read_config(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """The object in `config.json` of a folder or hub name, or of the folder of a weight file.

    If it is missing, the configuration file of a family's authors, such as `bert_config.json`, is read, with the
    defaults of their code and a `model_type`.

    Raises:
        CheckpointError: the file is missing, or does not contain a JSON object.
    """
    originals = [family.original.config_file for family in FAMILIES.values() if family.original]
    folder = Path(name_or_path)
    if not folder.is_dir() and _as_file(folder):
        folder = folder.parent
    else:
        folder = resolve(
            name_or_path,
            files=("config.json", *originals),
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    if (folder / "config.json").exists():
        return read_json(folder / "config.json")
    for name in originals:
        if (folder / name).exists():
            return _from_original(read_json(folder / name))
    raise CheckpointError(f"{name_or_path} has no config.json: pass the folder of a model")


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
    """The weights of a folder or hub name by their official names, in any format; needs no PyTorch.

    Of safetensors files, each tensor is read when it is accessed.

    Of several files the first of `model.safetensors`, `pytorch_model.bin` (each whole or in shards), `tf_model.h5` and
    a TensorFlow checkpoint is read, and only that file is downloaded. `name_or_path` may also be one such file. Older
    names are mended and `position_ids` left out; tensors that are tied in the model may be missing, as they are in the
    file.

    Args:
        name_or_path: folder, bundled model, hub name, weight file, or prefix of a TensorFlow checkpoint.
        revision: branch, tag or commit on the hub.
        cache_dir: where downloads are kept.
        local_files_only: never download.
        widen: turn fp16 into float32. bf16, which NumPy lacks, always comes as float32.

    Raises:
        CheckpointError: no weights, or a file that is missing, empty, truncated, damaged or of another kind.
    """
    folder = local_folder(name_or_path)
    if folder is not None:
        file = folder / _choose([entry.name for entry in folder.iterdir()], name_or_path)
    elif (weights := _as_file(Path(name_or_path))) is not None:
        file = weights
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
    """The file to read, of those in a folder."""
    for name in PREFERENCE:
        if name in names:
            return name
    prefixes = {name.partition(".data-")[0] for name in names if re.search(r"\.data-\d+-of-\d+$", name)}
    checkpoints = sorted(name for name in names if name.endswith(".index") and name.removesuffix(".index") in prefixes)
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        several = ", ".join(name.removesuffix(".index") for name in checkpoints)
        raise CheckpointError(f"{source} has several TensorFlow checkpoints; pass the path of one: {several}")
    others = sorted(name for name in names if Path(name).suffix in OTHER_FORMATS)
    hint = f" (it has {', '.join(others)}, which PocketBERT does not read)" if others else ""
    raise CheckpointError(
        f"{source} has no weights: neither model.safetensors nor pytorch_model.bin nor tf_model.h5 nor a TensorFlow "
        f"checkpoint{hint}"
    )


def _patterns(chosen: str) -> list[str]:
    """The names of the files to download for the file `chosen`: itself and those that belong to it."""
    if chosen.endswith(".index.json"):
        stem, _, suffix = chosen.removesuffix(".index.json").rpartition(".")
        return [chosen, f"{stem}-*.{suffix}"]
    if chosen.endswith(".index"):
        return [chosen, f"{chosen.removesuffix('.index')}.data-*"]
    return [chosen]


def _open(file: Path) -> Mapping[str, np.ndarray]:
    # Imported where they are needed, to keep the start of a program short.
    if file.name.endswith(".safetensors"):
        return with_shared(open_safetensors(file), file)
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
    """A checkpoint with Google's names, by the official ones."""
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


def _from_original(data: dict[str, Any]) -> dict[str, Any]:
    """A configuration file of a family's authors as a `config.json`."""
    if "model_type" in data:
        return data
    formats = [(family.model_type, family.original) for family in FAMILIES.values() if family.original]
    formats.sort(key=lambda item: not item[1].config_keys)  # the family without such keys is that of all other files
    model_type, original = next((m, o) for m, o in formats if not o.config_keys or o.config_keys & data.keys())
    complete = {"model_type": model_type, **original.config_defaults, **data}
    for key, source in original.config_copies.items():
        complete.setdefault(key, complete[source])
    return complete

"""Damage that the format itself cannot see: every flipped bit of a tensor is found, in NumPy and in PyTorch."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from pocketbert.checkpoints.checksums import checksum
from pocketbert.checkpoints.safetensors_files import open_safetensors, write_tensors
from pocketbert.errors import CheckpointError
from pocketbert.models.tensor_files import read_tensor_file, serialise


@pytest.mark.parametrize("size", [0, 1, 7, 8, 4095, 4096, 4097, 3 * 4096 + 11])
def test_it_is_what_its_description_says(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    data, whole = content.tobytes(), size // 4096 * 4096
    sums = b""
    for start in range(0, whole, 4096):
        words = [int.from_bytes(data[at : at + 8], "little") for at in range(start, start + 4096, 8)]
        sums += (sum(words) % 2**64).to_bytes(8, "little")
    assert checksum(content) == f"{zlib.crc32(sums + data[whole:]):08x}"


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    generator, path = np.random.default_rng(), tmp_path / "x.safetensors"
    tensors: dict[str, np.ndarray] = {
        "a": generator.standard_normal((70, 33)).astype(np.float32), "b": np.array(2.5, np.float32),
        "c": generator.integers(-127, 128, 5000).astype(np.int8), "d": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    write_tensors(path, tensors)
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    places = generator.integers(start, len(good), 60)
    for place in (start, len(good) - 1, *places):
        bad = bytearray(good)
        bad[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(bad)
        found = open_safetensors(path)
        with pytest.raises(CheckpointError, match=r"is damaged: [abc] does not have its checksum"):
            dict(found)
        with pytest.raises(CheckpointError, match=r"is damaged: [abc] does not have its checksum"):
            read_tensor_file(path)
    path.write_bytes(good)
    for name, tensor in open_safetensors(path).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_both_frameworks_write_the_same_checksums(tmp_path: Path) -> None:
    tensors = {
        "w": torch.randn(90, 50),
        "half": torch.randn(33).bfloat16(),
        "one": torch.tensor(3),
        "none": torch.zeros(0),
    }
    (tmp_path / "torch").write_bytes(b"".join(serialise(tensors)))
    assert b"".join(serialise(dict(reversed(tensors.items())))) == (tmp_path / "torch").read_bytes()
    assert all(torch.equal(value, tensors[name]) for name, value in read_tensor_file(tmp_path / "torch").items())
    assert dict(open_safetensors(tmp_path / "torch")).keys() == tensors.keys()
    write_tensors(tmp_path / "numpy", {name: tensor.numpy() for name, tensor in tensors.items() if name != "half"})
    sums = []
    for name in ("torch", "numpy"):
        with safe_open(tmp_path / name, "np") as file:
            assert file.metadata()["format"] == "pt"
            sums.append(json.loads(file.metadata()["checksums"]))
    assert sums[1].items() < sums[0].items()


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"checksums": "?"}, {"checksums": "[1]"}, {"checksums": '{"a": 1}'}]
)
def test_files_of_others_are_read_unchecked(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": np.arange(3.0)}, tmp_path / "x", metadata)
    np.testing.assert_array_equal(open_safetensors(tmp_path / "x")["a"], np.arange(3.0))
    assert torch.equal(read_tensor_file(tmp_path / "x")["a"], torch.arange(3.0, dtype=torch.float64))

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pocketbert.checkpoints import write_tensors
from pocketbert.checkpoints.safetensors_files import open_safetensors, open_shards, widen_bf16
from pocketbert.errors import CheckpointError

DTYPES = ("f4", "f2", "f8", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?")


@given(
    st.dictionaries(
        st.text("abc.é_", min_size=1),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))
        ),
        max_size=4,
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]) -> None:
    path = tmp_path_factory.mktemp("x") / "model.safetensors"
    write_tensors(path, tensors)
    found = dict(open_safetensors(path))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].flags.writeable


def test_transposed_and_big_endian_arrays_are_written_in_order(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_tensors(tmp_path / "x", {"t": array.T, "b": array.astype(">f4"), "s": array[:, ::2]})
    found = load_file(tmp_path / "x")
    assert found["t"].tolist() == array.T.tolist()
    assert found["b"].tolist() == array.tolist()
    assert found["s"].tolist() == array[:, ::2].tolist()


def test_metadata(tmp_path: Path) -> None:
    for metadata, want in ((None, {"format": "pt"}), ({"format": "pt", "made by": "us"},) * 2):
        write_tensors(tmp_path / "x", {"a": np.zeros(1)}, metadata)
        with safe_open(tmp_path / "x", "np") as file:
            assert {name: value for name, value in file.metadata().items() if name != "checksums"} == want


def test_bf16_comes_as_float32(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).bfloat16(), "b": torch.randn(5), "c": torch.tensor(-2.5).bfloat16()}
    save_file(tensors, tmp_path / "x")
    found = dict(open_safetensors(tmp_path / "x"))
    for name, tensor in tensors.items():
        assert torch.equal(torch.from_numpy(found[name]), tensor.float())


def test_every_bf16_number_is_widened_right() -> None:
    words = np.arange(2**16, dtype=np.uint16)
    ours, theirs = widen_bf16(words), torch.from_numpy(words.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(ours, theirs)  # NaN equals NaN here


@pytest.mark.parametrize(
    ("tensors", "message"), [({"a": np.array(["x"])}, "cannot write"), ({"a": np.zeros(2, complex)}, "cannot write")]
)
def test_what_the_format_cannot_hold(tmp_path: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_tensors(tmp_path / "x", tensors)
    assert list(tmp_path.iterdir()) == []


class TestDamage:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        write_tensors(tmp_path / "model.safetensors", {"a": np.arange(6.0), "b": np.zeros((2, 3), np.float32)})
        return tmp_path / "model.safetensors"

    def test_every_cut(self, path: Path) -> None:
        good = path.read_bytes()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            with pytest.raises(CheckpointError, match=r"model\.safetensors is (empty|damaged)"):
                open_safetensors(path)

    def header(self, path: Path, header: Any, length: int | None = None) -> None:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(16))

    @pytest.mark.parametrize(
        ("dtype", "shape", "offsets"),
        [
            ("F32", [2**25, 2**25], [0, 16]),  # a petabyte
            ("F32", [2**62, 2**62], [0, 16]),
            ("F32", [4], [0, 2**50]),
            ("F32", [4], [16, 0]),
            ("F32", [3], [0, 16]),
            ("F32", [-4], [0, 16]),
            ("WHAT", [4], [0, 16]),
        ],
    )
    def test_headers_that_lie(self, path: Path, dtype: str, shape: list[int], offsets: list[int]) -> None:
        self.header(path, {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})
        with pytest.raises(CheckpointError, match="damaged"):
            open_safetensors(path)

    def test_a_header_without_end(self, path: Path) -> None:
        self.header(path, {}, length=2**60)
        with pytest.raises(CheckpointError, match="damaged"):
            open_safetensors(path)

    def test_a_type_that_numpy_lacks(self, path: Path) -> None:
        self.header(path, {"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}})
        with pytest.raises(CheckpointError, match="'a' is of type F8_E4M3"):
            open_safetensors(path)

    def test_a_pytorch_file_under_this_name(self, path: Path) -> None:
        torch.save({"a": torch.zeros(1)}, path)
        with pytest.raises(CheckpointError, match=r"a PyTorch file; name it pytorch_model\.bin"):
            open_safetensors(path)

    def test_a_text_under_this_name(self, path: Path) -> None:
        path.write_text("not weights at all, but a longer text")
        with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
            open_safetensors(path)

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file"):
            open_safetensors(tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="is a folder"):
            open_safetensors(tmp_path)


class TestReading:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        write_tensors(tmp_path / "x", {"a": np.arange(6.0), "b": np.zeros((2, 3), np.float32)})
        return tmp_path / "x"

    def test_every_tensor_has_memory_of_its_own(self, path: Path) -> None:
        found = open_safetensors(path)
        assert list(found) == ["a", "b"]
        assert "c" not in found
        found["a"][0] = 9
        assert found["a"].tolist() == [0, 1, 2, 3, 4, 5]
        before = found["a"]
        path.write_bytes(b"")  # ends no process, whatever it has of the file
        assert before.tolist() == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("change", ["cut", "emptied", "longer", "written over", "replaced", "gone"])
    def test_a_file_that_changes_meanwhile(self, path: Path, change: str) -> None:
        found, content = open_safetensors(path), path.read_bytes()
        match change:
            case "cut":
                os.truncate(path, len(content) - 8)
            case "emptied":
                path.write_bytes(b"")
            case "longer":
                path.write_bytes(content + b"?")
            case "written over":
                path.write_bytes(content[:-8] + b"????????")
                os.utime(path, ns=(1, 1))
            case "replaced":
                write_tensors(path, {"a": np.arange(6.0), "b": np.ones((2, 3), np.float32)})
            case "gone":
                path.unlink()
        with pytest.raises(CheckpointError, match=r"has changed while|No such file"):
            found["b"]


class TestShards:
    @pytest.fixture
    def index(self, tmp_path: Path) -> Path:
        write_tensors(tmp_path / "one.safetensors", {"a": np.zeros(1), "b": np.ones(2)})
        write_tensors(tmp_path / "two.safetensors", {"c": np.full(3, 2.0), "a": np.full(1, 9.0), "more": np.zeros(1)})
        self.write(tmp_path / "model.safetensors.index.json", {"a": "one", "b": "one", "c": "two"})
        return tmp_path / "model.safetensors.index.json"

    def write(self, index: Path, homes: dict[str, str]) -> None:
        table = {name: f"{home}.safetensors" for name, home in homes.items()}
        index.write_text(json.dumps({"metadata": {}, "weight_map": table}))

    def test_all_are_read_as_the_index_says(self, index: Path) -> None:
        found = open_shards(index, open_safetensors)
        assert {name: array.tolist() for name, array in found.items()} == {"a": [0], "b": [1, 1], "c": [2, 2, 2]}

    def test_a_missing_shard(self, index: Path) -> None:
        (index.parent / "two.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"two\.safetensors: no such file"):
            open_shards(index, open_safetensors)

    def test_a_tensor_that_is_not_where_the_index_says(self, index: Path) -> None:
        self.write(index, {"c": "one", "d": "one", "a": "two"})
        with pytest.raises(CheckpointError, match=r"one\.safetensors lacks c, d, which model\.safetensors\.index"):
            open_shards(index, open_safetensors)

    def test_a_path_out_of_the_folder(self, index: Path) -> None:
        for shard in ("../one.safetensors", "/etc/passwd", "..\\one", "c:one", "", ".", "..", 3, None):
            index.write_text(json.dumps({"weight_map": {"a": shard}}))
            with pytest.raises(CheckpointError, match=r"a is listed in .*not a file name in that folder"):
                open_shards(index, open_safetensors)

    def test_a_name_that_would_garble_a_message(self, index: Path) -> None:
        index.write_text(json.dumps({"weight_map": {"a\33[2J": "one.safetensors"}}))
        with pytest.raises(CheckpointError, match=r"lists a tensor with the name 'a\\x1b\[2J', which no model has"):
            open_shards(index, open_safetensors)

    def test_an_index_that_is_none(self, index: Path) -> None:
        for content in ("{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', "[]", "nonsense", ""):
            index.write_text(content)
            with pytest.raises(CheckpointError, match=str(index)):
                open_shards(index, open_safetensors)

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.checkpoints import pickles, torch_files
from pocketbert.checkpoints.pickles import PickleError, read_pickle
from pocketbert.checkpoints.torch_files import read_torch
from pocketbert.errors import CheckpointError

FORMATS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "stream"])
DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


def save(path: Path, value: Any, as_zip: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=as_zip)
    return path


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        numbers = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        assert (found[name].dtype, found[name].shape) == (numbers.numpy().dtype, tuple(tensor.shape))
        np.testing.assert_array_equal(found[name], numbers.numpy())
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable


def many() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 8)
    return {
        **{str(dtype): torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype) for dtype in DTYPES},
        "base": base,
        "a view": base[1:3, 2:5],
        "a row": base[2],
        "transposed": base.T,
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "every other": base[::2, 1::3],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "frozen": torch.nn.Parameter(torch.randn(3), requires_grad=False),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "position_ids": torch.arange(4).expand(1, -1),
        "naïve.名": torch.ones(1),
    }


def test_a_zip_of_a_hundred_thousand_members(tmp_path: Path) -> None:
    """Refused by the size of its directory, which is read at once; the members are never listed."""
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("x/data.pkl", b"")
    whole = (tmp_path / "x.bin").read_bytes()
    start = whole.index(b"PK\1\2")
    entry, end = whole[start : whole.index(b"PK\5\6")], whole[whole.index(b"PK\5\6") :]
    count = 100_000
    counts = struct.pack("<HHII", 0xFFFF, 0xFFFF, count * len(entry), start)
    (tmp_path / "x.bin").write_bytes(whole[:start] + entry * count + end[:8] + counts + end[20:])
    with pytest.raises(CheckpointError, match="its zip directory has more than 4 MiB"):
        read_torch(tmp_path / "x.bin")


class TestReading:
    @FORMATS
    def test_every_kind_of_tensor(self, tmp_path: Path, as_zip: bool) -> None:
        tensors = many()
        assert_same(read_torch(save(tmp_path / "x.bin", tensors, as_zip)), tensors)

    @FORMATS
    def test_the_state_dict_of_a_module(self, tmp_path: Path, as_zip: bool) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Conv1d(4, 8, 1, groups=4))
        assert_same(read_torch(save(tmp_path / "x.bin", model.state_dict(), as_zip)), model.state_dict())

    @pytest.mark.parametrize(
        ("wrapper", "as_zip"), [("state_dict", True), ("model_state_dict", False), ("model", True)]
    )
    def test_a_training_checkpoint(self, tmp_path: Path, wrapper: str, as_zip: bool) -> None:
        model = torch.nn.Linear(3, 4)
        optimiser = torch.optim.AdamW(model.parameters())
        model(torch.ones(3)).sum().backward()
        optimiser.step()
        checkpoint = {
            "epoch": 3, "loss": [0.5, float("nan")], "name": "run", "none": None, "shape": torch.Size([1, 2]),
            "dtype": torch.float16, "optimiser": optimiser.state_dict(), wrapper: model.state_dict(),
        }  # fmt: skip
        assert_same(read_torch(save(tmp_path / "x.bin", checkpoint, as_zip)), model.state_dict())

    @FORMATS
    def test_shared_memory_stays_shared(self, tmp_path: Path, as_zip: bool) -> None:
        words = torch.randn(5, 3)
        found = read_torch(save(tmp_path / "x.bin", {"words": words, "decoder": words, "part": words[1:3]}, as_zip))
        assert_same(found, {"words": words, "decoder": words, "part": words[1:3]})
        assert np.shares_memory(found["words"], found["decoder"])
        assert np.shares_memory(found["words"], found["part"])

    @FORMATS
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_every_protocol(self, tmp_path: Path, as_zip: bool, protocol: int) -> None:
        tensors = {f"layer.{n}.weight": torch.randn(n + 1) for n in range(300)}  # enough names for long memo slots
        path = tmp_path / "x.bin"
        torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
        assert_same(read_torch(path), tensors)

    def test_a_file_without_checksums(self, tmp_path: Path) -> None:
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            save(tmp_path / "x.bin", tensors := many())
        finally:
            torch.serialization.set_crc32_options(before)
        with zipfile.ZipFile(tmp_path / "x.bin") as archive, pytest.raises(zipfile.BadZipFile, match="CRC-32"):
            archive.read(next(name for name in archive.namelist() if name.endswith("data/0")))
        assert_same(read_torch(tmp_path / "x.bin"), tensors)

    def test_a_big_endian_file(self, tmp_path: Path) -> None:
        tensors = many()
        with zipfile.ZipFile(save(tmp_path / "x.bin", tensors)) as archive:
            parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        sizes = {"0": 4}
        storages: dict[str, Any] = {}
        read_pickle(
            io.BytesIO(parts["data.pkl"]),
            torch_files._MAKERS,
            (declare := torch_files._Storages()).declare,
        )
        storages = declare.by_key
        for key, storage in storages.items():
            sizes[key] = storage.dtype().itemsize
            parts[f"data/{key}"] = np.frombuffer(parts[f"data/{key}"], f"u{sizes[key]}").byteswap().tobytes()
        parts["byteorder"] = b"big"
        write_zip(tmp_path / "y.bin", parts)
        assert_same(read_torch(tmp_path / "y.bin"), tensors)

    def test_zip64(self, tmp_path: Path) -> None:
        """Entries that use the 64-bit fields, as those of files over 4 GB do."""
        tensors = {"a": torch.randn(4)}
        with zipfile.ZipFile(save(tmp_path / "x.bin", tensors)) as archive:
            parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "y.bin", "w") as archive:
            for name, data in parts.items():
                with archive.open(f"archive/{name}", "w", force_zip64=True) as entry:
                    entry.write(data)
        assert_same(read_torch(tmp_path / "y.bin"), tensors)

    @settings(max_examples=60)
    @given(data=st.data())
    def test_any_view_of_a_storage(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        base = torch.arange(120, dtype=data.draw(st.sampled_from([torch.float32, torch.float16, torch.int64])))
        tensor = base.reshape(data.draw(st.sampled_from([(120,), (10, 12), (4, 5, 6), (2, 3, 4, 5)])))
        for axis in range(tensor.dim()):
            start = data.draw(st.integers(0, tensor.shape[axis] - 1))
            tensor = tensor.narrow(axis, start, data.draw(st.integers(0, tensor.shape[axis] - start)))
        tensor = tensor.permute(*data.draw(st.permutations(range(tensor.dim()))))
        path = tmp_path_factory.mktemp("x") / "x.bin"
        assert_same(read_torch(save(path, {"x": tensor}, data.draw(st.booleans()))), {"x": tensor})


def write_zip(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return path


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class TestMalice:
    @FORMATS
    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (Call(eval, "open('pwned', 'w')"), "eval"),
            (Call(getattr, "x", "upper"), "getattr"),
            ({"x": torch.zeros(1), "y": Call(print, "hello")}, "print"),
            (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
            (OrderedDict(x=np.zeros(2)), "numpy"),
            ({1, 2}, "set"),
            ({"x": torch.zeros(1).to_sparse()}, "_rebuild_sparse_tensor"),
            ({"x": torch.zeros(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
            ({"x": Path("a")}, "pathlib"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
    def test_what_is_no_tensor_is_named_and_not_called(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_zip: bool, value: Any, named: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=named):
            read_torch(save(tmp_path / "x.bin", value, as_zip))
        assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]

    def pickled(self, path: Path, body: bytes, storage: bytes = bytes(16)) -> Path:
        return write_zip(path, {"data.pkl": b"\x80\x02" + body + b".", "data/0": storage})

    STORAGE = b"((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"

    def tensor(self, offset: bytes, shape: bytes, strides: bytes, storage: bytes = STORAGE) -> bytes:
        call = b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + offset + shape + strides + b"tR"
        return b"}X\1\0\0\0x" + call + b"s"

    def test_the_tensor_that_the_others_bend(self, tmp_path: Path) -> None:
        body = self.tensor(b"K\0", b"K\4\x85", b"K\1\x85")
        assert read_torch(self.pickled(tmp_path / "x.bin", body))["x"].shape == (4,)

    def test_values_that_are_taken_back(self, tmp_path: Path) -> None:
        """By POP and POP_MARK, which no save writes but pickles may have."""
        for body in (b"N0", b"(NN1"):
            whole = body + self.tensor(b"K\0", b"K\4\x85", b"K\1\x85")
            assert read_torch(self.pickled(tmp_path / "x.bin", whole))["x"].shape == (4,)

    def test_a_storage_in_two_sizes(self, tmp_path: Path) -> None:
        one = self.tensor(b"K\0", b"K\4\x85", b"K\1\x85")
        other = self.tensor(b"K\0", b"K\3\x85", b"K\1\x85", self.STORAGE.replace(b"K\4", b"K\3"))
        with pytest.raises(CheckpointError, match="describes its storage '0' in two ways"):
            read_torch(self.pickled(tmp_path / "x.bin", one + b"0" + other))

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (b"}", "list of storages is damaged"),
            (b"(K\1l", "list of storages is damaged"),
            (b"(X\1\0\0\0aX\1\0\0\0al", "list of storages is damaged"),
            (b"(X\1\0\0\0al", "names one that no tensor uses"),
            (b"NQ", "a storage where none can be"),
        ],
    )
    def test_a_list_of_storages_that_lies(self, tmp_path: Path, keys: bytes, message: str) -> None:
        """At the end of a stream, before the storages themselves."""
        data = save(tmp_path / "x.bin", {}, as_zip=False).read_bytes()
        empty = pickle.dumps([], 2)
        assert data.endswith(empty)
        (tmp_path / "x.bin").write_bytes(data.removesuffix(empty) + b"\x80\2" + keys + b".")
        with pytest.raises(CheckpointError, match=message):
            read_torch(tmp_path / "x.bin")

    @pytest.mark.parametrize(
        ("offset", "shape", "strides", "message"),
        [
            (b"K\0", b"K\5\x85", b"K\1\x85", "beyond its storage"),
            (b"K\1", b"K\4\x85", b"K\1\x85", "beyond its storage"),
            (b"K\0", b"K\2\x85", b"K\4\x85", "beyond its storage"),
            (b"K\0", b"J\0\0\0\x40J\0\0\0\x40\x86", b"K\0K\0\x86", "impossible shape"),  # an exabyte, repeated
            (b"K\0", b"J\0\0\0\x40M\0\x40\x86", b"K\0K\0\x86", "beyond its storage"),  # 64 TB
            (b"K\0", b"J\0\0\0\x40M\0\x40\x86", b"K\1K\1\x86", "beyond its storage"),
            (b"K\0", b"J\xff\xff\xff\xff\x85", b"K\1\x85", "impossible shape"),
            (b"K\0", b"K\2\x85", b"J\xff\xff\xff\xff\x85", "impossible shape"),
            (b"J\xff\xff\xff\xff", b"K\1\x85", b"K\1\x85", "impossible shape"),
            (b"K\0", b"K\1\x85", b")", "impossible shape"),
            (b"K\0", b"(" + b"K\1" * 33 + b"t", b"(" + b"K\1" * 33 + b"t", "impossible shape"),
            (b"K\0", b"\x8a\x09" + b"\xff" * 8 + b"\0\x85", b"K\1\x85", "impossible shape"),
            (b"K\0", b"G?\xf0\0\0\0\0\0\0\x85", b"K\1\x85", "impossible shape"),
            (b"\x88", b"K\1\x85", b"K\1\x85", "impossible shape"),
            (b"N", b"K\1\x85", b"K\1\x85", "impossible shape"),
            (b"K\0", b"K\0J\0\0\0\x40J\0\0\0\x40\x87", b"K\1K\1K\1\x87", "impossible shape"),
            (b"K\0", b"]", b"K\1\x85", "in a way that PyTorch does not"),
        ],
    )
    def test_shapes_that_lie(self, tmp_path: Path, offset: bytes, shape: bytes, strides: bytes, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_torch(self.pickled(tmp_path / "x.bin", self.tensor(offset, shape, strides)))

    @pytest.mark.parametrize(
        ("storage", "message"),
        [
            (STORAGE.replace(b"K\4", b"K\5"), "not of the size"),
            (STORAGE.replace(b"K\4", b"\x8a\x06\0\0\0\0\0\x7f"), "cannot hold"),
            (STORAGE.replace(b"K\4", b"\x8a\x09" + b"\xff" * 8 + b"\0"), "in a way that PyTorch does not"),
            (STORAGE.replace(b"K\4", b"J\xff\xff\xff\xff"), "in a way that PyTorch does not"),
            (STORAGE.replace(b"0X\3", b"7X\3"), "'7' is missing"),
            (STORAGE.replace(b"storage", b"modules"), "in a way that PyTorch does not"),
            (STORAGE.replace(b"ctorch\nFloatStorage\n", b"X\5\0\0\0Float"), "in a way that PyTorch does not"),
            (STORAGE.replace(b"tQ", b"N\x86tQ"), "in a way that PyTorch does not"),
            (b"(N", "in a way that PyTorch does not"),
        ],
    )
    def test_storages_that_lie(self, tmp_path: Path, storage: bytes, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_torch(self.pickled(tmp_path / "x.bin", self.tensor(b"K\0", b"K\1\x85", b"K\1\x85", storage)))

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "pop from empty list"),
            (b"(", "a mark where a value should be"),
            (b"}N", "holds a nonetype"),
            (b"K\1K\2s", "index out of range"),
            (b"K\1K\2K\3s", "no dict"),
            (b"K\1K\2a", "no list"),
            (b"}(K\1u", "a key without a value"),
            (b"})K\1s", "a tuple as a key"),
            (b"}\x8a\x09" + b"\xff" * 8 + b"\0K\1s", "an int as a key|a int as a key"),
            (b"g9\n", "damaged"),
            (b"(q\0", "a mark"),
            (b"K\1)R", "a call of something that is not a function"),
            (b"ccollections\nOrderedDict\n]R", "a call of something"),
            (b"ccollections\nOrderedDict\nK\1\x85R", "wrong number of arguments"),
            (b"ctorch\nfloat32\n)R", "a call of something"),
            (b"cos\nsystem\nX\2\0\0\0ls\x85R", r"os\.system"),
            (b"X\2\0\0\0osX\6\0\0\0system\x93X\2\0\0\0ls\x85R", r"os\.system"),
            (b"N)\x93", "a global without a name"),
            (b"X\4\0\0\0evil", "holds a str"),
            (b"C\1x", "SHORT_BINBYTES"),
            (b"Pname\n", "PERSID"),
            (b"\x82\1", "EXT1"),
            (b"(No", "OBJ"),
            (b"(ios\nsystem\n", "INST"),
            (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
            (b"]}b", "no dict"),
            (b"}Nb", "a state that is not a dictionary"),
            (b"ctorch._utils\n_rebuild_parameter\nN\x85R", "a parameter that is not a tensor"),
            (b"ctorch\nSize\nN\x85R", "a shape that is not a list"),
            (b"I" + b"9" * 5000 + b"\n", "damaged"),
            (b"\x8b\xff\xff\xff\x7fx", "damaged"),
            (b"X\xff\xff\xff\xffx", "damaged"),
            (b"X\1\0\0\0\xff", "damaged"),
            (b"\xff", "damaged"),
            (b"ctorch\nFloat", "damaged"),
        ],
    )
    def test_pickles_that_no_save_writes(self, tmp_path: Path, body: bytes, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_torch(self.pickled(tmp_path / "x.bin", body))

    def test_a_small_file_cannot_fill_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pickles, "MAX_STEPS", 10_000)
        for body in (b"]", b"}", b"N", b"(", b"N\x85", b"N2"):
            with pytest.raises(CheckpointError, match="uses DUP" if body == b"N2" else "more than 10,000 steps"):
                read_torch(self.pickled(tmp_path / "x.bin", body * 10_001))

    def test_many_copies_of_one_storage(self, tmp_path: Path) -> None:
        """A transposed view takes a copy, so a thousand of them would be a thousand times the file."""
        wide = torch.zeros(300, 300)
        save(tmp_path / "x.bin", {f"x{n}": wide.T for n in range(1000)})
        tracemalloc.start()
        with pytest.raises(CheckpointError, match=r"claim 360,000,000 bytes, which its .* bytes cannot hold"):
            read_torch(tmp_path / "x.bin")
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


class TestDamage:
    @FORMATS
    def test_every_cut(self, tmp_path: Path, as_zip: bool) -> None:
        path = save(tmp_path / "x.bin", {"a": torch.randn(3), "b": torch.randn(2, 2)}, as_zip)
        good = path.read_bytes()
        for length in range(0, len(good), 5):
            path.write_bytes(good[:length])
            with pytest.raises(CheckpointError, match=r"x\.bin"):
                read_torch(path)

    def test_every_flipped_byte_of_a_zip_is_noticed(self, tmp_path: Path) -> None:
        tensors = {"a": torch.randn(3), "b": torch.randn(2, 2)}
        path = save(tmp_path / "x.bin", tensors)
        good = path.read_bytes()
        for at in range(0, len(good), 3):
            path.write_bytes(good[:at] + bytes([good[at] ^ 0x11]) + good[at + 1 :])
            try:
                found = read_torch(path)
            except CheckpointError:
                continue
            assert_same(found, tensors)  # a date, or padding

    def test_a_storage_of_another_size(self, tmp_path: Path) -> None:
        path = save(tmp_path / "x.bin", {"a": torch.zeros(3)}, as_zip=False)
        data = path.read_bytes()
        assert data.count(struct.pack("<q", 3)) == 1
        path.write_bytes(data.replace(struct.pack("<q", 3), struct.pack("<q", 2**50)))
        with pytest.raises(CheckpointError, match="cut off or not of the size"):
            read_torch(path)

    def test_compressed_and_encrypted_zips(self, tmp_path: Path) -> None:
        bomb = write_zip(tmp_path / "x.bin", {"data.pkl": bytes(10**6)}, zipfile.ZIP_DEFLATED)
        with pytest.raises(CheckpointError, match="compressed or encrypted"):
            read_torch(bomb)

    def test_zips_that_are_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"without the data\.pkl"):
            read_torch(write_zip(tmp_path / "x.bin", {"word/document.xml": b""}))
        with pytest.raises(CheckpointError, match="over 16777216 bytes"):
            read_torch(write_zip(tmp_path / "x.bin", {"data.pkl": bytes(17 * 2**20)}))
        with pytest.raises(CheckpointError, match="byteorder"):
            read_torch(write_zip(tmp_path / "x.bin", {"data.pkl": b"}.", "byteorder": b"middle"}))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_zip_that_lists_a_file_twice(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
            archive.writestr("archive/data.pkl", b"}.")
            archive.writestr("archive/data.pkl", b"].")
        with pytest.raises(CheckpointError, match="twice"):
            read_torch(tmp_path / "x.bin")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"hello, I am a text", "not a PyTorch file"),
            (pickle.dumps({"a": 1}), "a pickle, but not one of PyTorch"),
            (pickle.dumps(b"x", 2), "refers to '_codecs.encode'"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
            (b"<!DOCTYPE html>", "web page"),
        ],
    )
    def test_files_that_are_something_else(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "x.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_torch(tmp_path / "x.bin")

    @FORMATS
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([torch.zeros(1)], "holds a list, not a state dict"),
            (torch.zeros(1), "holds a tensor"),
            ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is a int, not a tensor"),
            ({3: torch.zeros(1)}, "'3' is a tensor"),
        ],
    )
    def test_what_is_no_state_dict(self, tmp_path: Path, as_zip: bool, value: Any, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_torch(save(tmp_path / "x.bin", value, as_zip))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


PLAIN = (type(None), bool, int, float, str, bytes, list, tuple, dict)


class TestPickles:
    @given(VALUES, st.sampled_from([0, 1, 2, 3, 4, 5]))
    def test_plain_values_come_back(self, value: Any, protocol: int) -> None:
        assert read_pickle(io.BytesIO(pickle.dumps(value, protocol)), {}) == value

    def test_the_reader_stops_behind_the_pickle(self) -> None:
        file = io.BytesIO(pickle.dumps([1], 2) + b"rest")
        assert read_pickle(file, {}) == [1]
        assert file.read() == b"rest"

    def test_a_value_that_contains_itself(self) -> None:
        value: list[Any] = []
        value.append(value)
        found = read_pickle(io.BytesIO(pickle.dumps(value, 2)), {})
        assert found[0] is found

    @given(st.binary(max_size=60))
    def test_noise_ends_in_one_error(self, data: bytes) -> None:
        """Or in plain data, which may contain itself."""
        try:
            values = [read_pickle(io.BytesIO(data), {})]
        except PickleError:
            return
        seen: set[int] = set()
        while values:
            value = values.pop()
            assert type(value) in PLAIN
            if isinstance(value, list | tuple | dict) and id(value) not in seen:
                seen.add(id(value))
                values += [*value, *(value.values() if isinstance(value, dict) else ())]

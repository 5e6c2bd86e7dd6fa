import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_writer as writer
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.checkpoints import tensorflow_files
from pocketbert.checkpoints.crc32c import _byte_table, crc32c, unmask
from pocketbert.checkpoints.tensorflow_files import Bundle
from pocketbert.errors import CheckpointError

DATA = os.environ.get("POCKETBERT_DATA")
TYPES = ("f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?")


def some_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {f"layer_{n}/{part}": rng.standard_normal((n + 1, 3), np.float32) for n in range(40) for part in "ab"}
    tensors |= {f"of type {t}": rng.integers(0, 2, (2, 3)).astype(t) for t in TYPES}
    return tensors | {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3), np.float32)}


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"order": ">"}, {"snappy": True}, {"rows_a_block": 7}])
def test_what_is_written_is_read(tmp_path: Path, options: dict[str, object]) -> None:
    tensors = some_tensors()
    writer.write_bundle(tmp_path / "model.ckpt", tensors, **options)  # type: ignore[arg-type]
    bundle = Bundle(tmp_path / "model.ckpt")
    assert set(bundle.entries) == set(tensors)
    for name, array in bundle.read(bundle.entries).items():
        np.testing.assert_array_equal(array, tensors[name])
        assert (array.dtype, array.shape) == (tensors[name].dtype, tensors[name].shape)
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_bf16_comes_as_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2")
    row = writer.entry(np.dtype("u2"), (3,), 0, 0, raw.tobytes())
    row = row.replace(writer.number(1, 17), writer.number(1, tensorflow_files.BF16), 1)
    writer.write_index(tmp_path / "m", [(b"", writer.number(1, 1)), (b"x", row)])
    (tmp_path / "m.data-00000-of-00001").write_bytes(raw.tobytes())
    np.testing.assert_allclose(Bundle(tmp_path / "m").read(["x"])["x"], values, rtol=2**-8)


def test_text_is_left_out_and_other_types_are_named(tmp_path: Path) -> None:
    text, strange = writer.number(1, tensorflow_files.STRING), writer.number(1, 21)
    writer.write_index(tmp_path / "m", [(b"", writer.number(1, 1)), (b"graph", text), (b"x", strange)])
    bundle = Bundle(tmp_path / "m")
    assert list(bundle.entries) == ["x"]
    with pytest.raises(CheckpointError, match="x has the type number 21"):
        bundle.read(["x"])


class TestDamage:
    @pytest.fixture
    def prefix(self, tmp_path: Path) -> Path:
        writer.write_bundle(tmp_path / "m", some_tensors(), snappy=True)
        return tmp_path / "m"

    def test_every_flipped_byte_of_the_index_is_noticed(self, prefix: Path) -> None:
        index = Path(f"{prefix}.index")
        good = index.read_bytes()
        before = Bundle(prefix).entries
        for at in range(0, len(good), 3):
            index.write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :])
            # The footer has padding, so that some flips do no harm.
            with contextlib.suppress(CheckpointError):
                assert Bundle(prefix).entries == before

    def test_a_cut_index(self, prefix: Path) -> None:
        index = Path(f"{prefix}.index")
        good = index.read_bytes()
        for length in range(1, len(good), 11):
            index.write_bytes(good[:length])
            with pytest.raises(CheckpointError, match="cut off"):
                Bundle(prefix)

    def test_an_empty_index(self, prefix: Path) -> None:
        Path(f"{prefix}.index").write_bytes(b"")
        with pytest.raises(CheckpointError, match="empty"):
            Bundle(prefix)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data[:-1], "truncated"),
            (lambda data: b"\1" + data[1:], "checksum of .* differs"),
            (lambda data: b"", "empty"),
        ],
    )
    def test_the_data(self, prefix: Path, change: Callable[[bytes], bytes], message: str) -> None:
        data = Path(f"{prefix}.data-00000-of-00001")
        data.write_bytes(change(data.read_bytes()))
        bundle = Bundle(prefix)
        with pytest.raises(CheckpointError, match=message):
            bundle.read(bundle.entries)

    def test_a_missing_shard(self, prefix: Path) -> None:
        Path(f"{prefix}.data-00000-of-00001").unlink()
        bundle = Bundle(prefix)
        with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00001: no such file"):
            bundle.read(bundle.entries)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([(b"x", b"")], "no header"),
            ([(b"", b""), (b"b", b""), (b"a", b"")], "out of order"),
            ([(b"", b""), (b"a", b""), (b"a", b"")], "out of order"),
            ([(b"", b""), (b"x" * 1001, b"")], "too long"),
            ([(b"", b""), (b"\xff", b"")], "utf-8"),
            ([(b"", b""), (b"x", writer.message(7, b""))], "partitioned"),
            ([(b"", b""), (b"x", writer.message(2, writer.number(3, 1)))], "unknown shape"),
            ([(b"", b""), (b"x", writer.message(2, writer.message(2, b"") * 33))], "33 dimensions"),
            ([(b"", b""), (b"x", writer.message(2, writer.message(2, writer.number(1, 2**60))))], "out of range"),
            ([(b"", b""), (b"x", writer.message(2, writer.message(2, writer.number(1, 2**30)) * 2))], "out of range"),
            ([(b"", b""), (b"x", writer.number(4, 2**64 - 1))], "out of range"),
            ([(b"", b""), (b"x", writer.number(2, 1))], "an entry is damaged"),
            ([(b"", b""), (b"x", writer.message(6, b"12345"))], "an entry is damaged"),
            ([(b"", b""), (b"x", writer.message(2, writer.number(2, 5)))], "a shape is damaged"),
            ([(b"", b""), (b"x", b"\x08")], "index out of range"),
            ([(b"", b""), (b"x", b"\x0b")], "field of kind 3"),
            ([(b"", b""), (b"x", b"\x12\x7f")], "cut off"),
            ([(b"", b""), (b"x", b"\xff" * 11)], "no end"),
        ],
    )
    def test_rows_that_no_checkpoint_has(self, tmp_path: Path, rows: writer.Rows, message: str) -> None:
        writer.write_index(tmp_path / "m", rows)
        with pytest.raises(CheckpointError, match=message):
            Bundle(tmp_path / "m")

    def test_a_petabyte_is_refused_before_memory_is_taken(self, tmp_path: Path) -> None:
        shape = writer.message(2, b"".join(writer.message(2, writer.number(1, 2**24)) for _ in range(2)))
        row = writer.number(1, 1) + shape + writer.number(5, 2**50 // 2**3 // 2**9 * 4)
        writer.write_index(tmp_path / "m", [(b"", writer.number(1, 1)), (b"x", row)])
        (tmp_path / "m.data-00000-of-00001").write_bytes(b"123")
        with pytest.raises(CheckpointError):
            Bundle(tmp_path / "m").read(["x"])

    def test_blocks_that_are_listed_twice(self, tmp_path: Path) -> None:
        out = bytearray()
        place = writer.append_block(out, writer.block([]), False)
        index = writer.append_block(out, writer.block([(b"a", place), (b"b", place)]), False)
        (tmp_path / "m.index").write_bytes(bytes(out) + writer.footer(place, index))
        with pytest.raises(CheckpointError, match="overlap"):
            Bundle(tmp_path / "m")


class TestSnappy:
    @given(st.lists(st.sampled_from([b"a", b"abcd", b"encoder/layer_", b"\0" * 90, b"xyz" * 40, bytes(range(200))])))
    def test_round_trip(self, parts: list[bytes]) -> None:
        data = b"".join(parts)
        assert tensorflow_files._unsnappy(writer.compress(data)) == data

    def test_far_copies(self) -> None:
        data = b"far away" + np.random.default_rng(0).bytes(70_000) + b"far away"
        assert tensorflow_files._unsnappy(writer.compress(data)) == data

    @given(st.binary(max_size=40))
    def test_noise_ends_in_an_error_or_in_the_length_it_states(self, data: bytes) -> None:
        try:
            result = tensorflow_files._unsnappy(data)
        except (ValueError, IndexError):
            return
        assert len(result) == tensorflow_files._varint(data, 0)[0]

    @pytest.mark.parametrize(
        "data",
        [
            b"\x05\x01\x01",  # a copy before anything was written
            b"\x02\x00a",  # fewer bytes than stated
            b"\x01\x04ab",  # more
            b"\x05\x0cab",  # a literal beyond the end
            b"\xff\xff\xff\xff\x0f" + b"a",  # four gigabytes
        ],
    )
    def test_damage(self, data: bytes) -> None:
        with pytest.raises(ValueError):
            tensorflow_files._unsnappy(data)


class TestChecksum:
    def test_the_published_check_values(self) -> None:
        assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
        assert crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA  # RFC 3720, B.4
        assert crc32c(np.full(32, 255, np.uint8)) == 0x62A8AB43
        assert crc32c(np.arange(32, dtype=np.uint8)) == 0x46DD794E

    @given(st.integers(0, 2**17), st.integers(0, 2**32 - 1))
    def test_equals_the_sum_byte_by_byte(self, length: int, seed: int) -> None:
        data = np.random.default_rng(seed).integers(0, 256, length % 5000 if seed % 4 else length, np.uint8)
        table, slow = _byte_table(), 0xFFFFFFFF
        for byte in data.tolist():
            slow = table[(slow ^ byte) & 0xFF] ^ slow >> 8
        assert crc32c(data) == slow ^ 0xFFFFFFFF

    @given(st.integers(0, 2**32 - 1))
    def test_mask(self, crc: int) -> None:
        assert unmask(writer.mask(crc)) == crc


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="POCKETBERT_DATA is unset")
def test_the_index_of_a_real_mobilebert() -> None:
    entries = Bundle(Path(str(DATA)) / "oracles/mobilebert_float.variables.index").entries
    assert len(entries) == 1114
    words = entries["bert/embeddings/word_embeddings"]
    assert (words.dtype, words.shape, words.size) == (1, (30522, 128), 30522 * 128 * 4)
    assert entries["global_step"].shape == ()
    # Together they fill the data file without a gap, which no misread entry would leave so.
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.offset):
        assert entry.offset == end
        end += entry.size
        assert entry.size == np.prod(entry.shape, dtype=int) * np.dtype(tensorflow_files.DTYPES[entry.dtype]).itemsize

"""Plans in TensorFlow, LiteRT files and SavedModels against their plans."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.cases import export_to, model_of, save
from helpers.families import CONFIGS, HEADS, all_that_matter
from helpers.pairs import in_turn
from helpers.plans import draw, run, tensors
from pocketbert.bench.peers import ExportedFile
from pocketbert.bench.subjects import published
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, ConfigError, InputError, MissingExtraError
from pocketbert.exporters.formats import FORMATS
from pocketbert.exporters.litert.predictor import LiteRtPredictor
from pocketbert.exporters.load import find_export, load_export, model_folder
from pocketbert.exporters.saved_model.predictor import SavedModelPredictor
from pocketbert.exporters.tensorflow_graph import compute
from pocketbert.exporters.verify import SENTENCES, compare
from pocketbert.features import Features, pad
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.quantized_folders import quantize_folder

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")
if find_spec("tensorflow") is None:  # importing it takes seconds, and only the process that runs these tests needs it
    pytest.skip("the extra 'tf' is not installed", allow_module_level=True)

LENGTHS = [1, 40, 7, 2, 23]
SMALL: dict[str, PreTrainedConfig] = {
    name: CONFIGS[name].replace(max_position_embeddings=512, num_hidden_layers=1)
    for name in ("bert", "squeezebert", "mobilebert")
}


# ── the graph ──


@pytest.mark.parametrize(("name", "head"), all_that_matter())
def test_equals_the_plan(name: str, head: str) -> None:
    """Padding in a batch changes no output."""
    import tensorflow as tf

    plan, choices = lower(CONFIGS[name], tensors(model_of(CONFIGS[name], head)), head), head == "ForMultipleChoice"
    inputs = draw(LENGTHS)
    arrays = [tf.constant(array, tf.int32) for array in pad(inputs).values()]
    got = compute(plan, *(x[:, None] if choices else x for x in arrays), choices=choices)
    for row, one in enumerate(inputs):
        for key, expected in run(plan, [one]).items():
            per_token = key not in plan.gathered or plan.gathered[key].selected
            found = got[key][row].numpy()[: len(one)] if per_token and not choices else got[key][row].numpy()
            wanted = expected if per_token and not choices else expected[0]
            scale = max(1.0, np.abs(wanted).max())
            np.testing.assert_allclose(found.reshape(wanted.shape) / scale, wanted / scale, atol=2e-5, err_msg=key)


# ── LiteRT ──


@pytest.mark.parametrize(("name", "head"), in_turn([(list(SMALL), HEADS)]))
def test_heads(name: str, head: str, tmp_path: Path) -> None:
    """The file of every head has the outputs of the engine, without padding."""
    model = save(model_of(SMALL[name], head), tmp_path / "model")
    [done] = export_to("litert", model, tmp_path / "out", max_length=40)
    assert all(one.relative < 1e-4 for one in done.differences.values())
    assert find_export(tmp_path / "out") == done.path
    assert model_folder(done.path) == tmp_path / "out"
    predictor = load_export(done.path)
    assert (predictor.max_tokens, predictor.precision) == (40, "fp32")
    inputs = draw([40, 3, 17])
    expected, got = Engine.from_pretrained(model, head)(inputs), predictor(inputs)
    if head == "ForSequenceClassification":  # a file has probabilities, which determine logits up to a constant
        expected, got = ([{"logits": one["logits"] - one["logits"][0]} for one in x] for x in (expected, got))
    assert all(one.relative < 1e-4 for one in compare(expected, got).values())
    shapes = {key: np.shape(x) for key, x in predictor.run(inputs).items()}
    assert all(shape[0] == 3 for shape in shapes.values())
    with pytest.raises(InputError, match="41 tokens exceeds the 40 tokens"):
        predictor(draw([41]))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Any]]:
    """A MobileBERT for three labels, and its files in all precisions."""
    folder = tmp_path_factory.mktemp("classifier")
    config = SMALL["mobilebert"].replace(
        id2label={0: "no", 1: "yes", 2: "who knows"}, hidden_act="relu6", initializer_range=0.1
    )
    model = save(model_of(config, "ForSequenceClassification", random=False), folder / "model")
    done = export_to("litert", model, folder / "out", precisions=tuple(FORMATS["litert"].files), calibration=SENTENCES)
    return model, folder / "out", done


def test_precisions(classifier: tuple[Path, Path, list[Any]]) -> None:
    model, out, done = classifier
    assert [one.path for one in done] == [out / name for name in FORMATS["litert"].files.values()]
    assert [LiteRtPredictor(one.path).precision for one in done] == ["fp32", "fp32", "int8", "int8"]
    for one, limit in zip(done, (1e-5, 1e-3, 0.05, 0.2), strict=True):
        assert list(one.differences) == ["logits"]
        assert one.differences["logits"].relative < limit
        assert one.size == one.path.stat().st_size
    engine = Engine.from_pretrained(model, "ForSequenceClassification")
    [expected] = engine(inputs := draw([30]))
    [got] = LiteRtPredictor(done[0].path)(inputs)
    np.testing.assert_allclose(got["logits"] - got["logits"][0], expected["logits"] - expected["logits"][0], atol=1e-5)


def test_integer_files_have_whole_numbers_only(classifier: tuple[Path, Path, list[Any]]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(classifier[2][3].path))
    kinds = {one["dtype"] for one in interpreter.get_tensor_details() if one["name"] and one["shape"].size}
    floats = [one["name"] for one in interpreter.get_tensor_details() if one["dtype"] == np.float32]
    assert kinds <= {np.int8, np.int32, np.bool_, np.float32, np.int64}
    assert len(floats) <= 4, f"the mask and the final output, not {floats}"


def test_metadata(classifier: tuple[Path, Path, list[Any]]) -> None:
    """Order of inputs, names, tokenizer and labels, by the field numbers of MediaPipe's schema."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    done = classifier[2]
    content = done[2].path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["vocab.txt", "labels.txt"]
        assert archive.read("labels.txt") == b"no\nyes\nwho knows\n"
        assert archive.read("vocab.txt").decode().splitlines()[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    interpreter = Interpreter(model_content=content)
    assert [one["name"] for one in interpreter.get_input_details()] == ["ids", "mask", "segment_ids"]
    assert [one["shape"].tolist() for one in interpreter.get_input_details()] == [[1, 128]] * 3
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["ids", "mask", "segment_ids"], "outputs": ["probability"]}
    }
    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    [entry] = [one for one in whole.metadata if one.name == b"TFLITE_METADATA"]
    metadata = bytes(whole.buffers[entry.buffer].data)
    assert metadata[4:8] == b"M001"
    root = Table.root(metadata)
    assert root.text(0) == "MobileBertForSequenceClassification"
    [graph] = root.tables(3)
    assert [one.text(0) for one in graph.tables(2)] == ["ids", "mask", "segment_ids"]
    [output] = graph.tables(3)
    assert output.text(0) == "probability"
    [labels] = output.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    [tokenizer] = graph.tables(5)
    assert tokenizer.byte(0) == 4  # BertTokenizerOptions
    [vocabulary] = tokenizer.table(1).tables(0)
    assert (vocabulary.text(0), vocabulary.byte(2)) == ("vocab.txt", 5)  # VOCABULARY


class Table:
    """A table of a flatbuffer, read from its bytes (https://flatbuffers.dev/internals)."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def field(self, number: int) -> int:
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        assert struct.unpack_from("<H", self.data, vtable)[0] > 4 + 2 * number, "the table ends before"
        offset = struct.unpack_from("<H", self.data, vtable + 4 + 2 * number)[0]
        assert offset, "not there"
        return int(self.at + offset)

    def pointed(self, place: int) -> int:
        return int(place + struct.unpack_from("<I", self.data, place)[0])

    def byte(self, number: int) -> int:
        return self.data[self.field(number)]

    def text(self, number: int) -> str:
        start = self.pointed(self.field(number))
        return self.data[start + 4 : start + 4 + struct.unpack_from("<I", self.data, start)[0]].decode()

    def table(self, number: int) -> Table:
        return Table(self.data, self.pointed(self.field(number)))

    def tables(self, number: int) -> list[Table]:
        start = self.pointed(self.field(number))
        count = struct.unpack_from("<I", self.data, start)[0]
        return [Table(self.data, self.pointed(start + 4 + 4 * i)) for i in range(count)]


def test_multi_label_and_regression(tmp_path: Path) -> None:
    config = SMALL["mobilebert"].replace(id2label={0: "a", 1: "b"}, problem_type="multi_label_classification")
    model = save(model_of(config, "ForSequenceClassification", random=False), tmp_path / "several")
    [done] = export_to("litert", model, tmp_path / "out", max_length=16)
    inputs = draw([9])
    expected, got = (
        Engine.from_pretrained(model, "ForSequenceClassification")(inputs),
        LiteRtPredictor(done.path)(inputs),
    )
    assert compare(expected, got)["logits"].relative < 1e-3
    assert LiteRtPredictor(done.path).runner.get_output_details().keys() == {"probability_of_each"}
    config = SMALL["mobilebert"].replace(num_labels=1)
    number = save(model_of(config, "ForSequenceClassification", random=False), tmp_path / "number")
    [done] = export_to("litert", number, tmp_path / "out2", max_length=16)
    assert LiteRtPredictor(done.path).runner.get_output_details().keys() == {"logits"}


def test_a_quantized_model(tmp_path: Path) -> None:
    """Its matrices are dequantized, and quantized by the converter."""
    model = model_of(SMALL["squeezebert"], "ForTokenClassification", random=False)
    quantize_folder(save(model, tmp_path / "a"), tmp_path / "b")
    [done] = export_to("litert", tmp_path / "b", tmp_path / "out", precisions=("int8",), max_length=32)
    assert done.differences["logits"].relative < 0.1
    assert "quantization_config" not in AutoConfig.from_pretrained(tmp_path / "out").extra


# ── SavedModels ──


@pytest.mark.parametrize(
    ("name", "head"), [("mobilebert", "ForQuestionAnswering"), ("squeezebert", "ForMultipleChoice")]
)
def test_saved_model(name: str, head: str, tmp_path: Path) -> None:
    model = save(model_of(SMALL[name], head, random=False), tmp_path / "model")
    [done] = export_to("savedmodel", model, tmp_path / "out")
    assert done.path == tmp_path / "out" / "saved_model" / "1"
    assert all(one.relative < 1e-5 for one in done.differences.values())
    assert find_export(tmp_path / "out") == find_export(done.path) == done.path
    assert model_folder(find_export(done.path) or done.path) == tmp_path / "out"
    inputs = draw([30, 3, 9])
    for one in compare(Engine.from_pretrained(model, head)(inputs), load_export(done.path)(inputs)).values():
        assert one.relative < 1e-5
    (done.path / "saved_model.pb").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="damaged, or not a SavedModel"):
        SavedModelPredictor(done.path)


def test_a_saved_model_of_something_else(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(CheckpointError, match="has no signature serving_default"):
        SavedModelPredictor(tmp_path)


# ── rejected input ──


def test_rejected_input(
    classifier: tuple[Path, Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, done = classifier
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="exists already: choose another folder"):
        export_to("litert", model, model)
    with pytest.raises(ConfigError, match="integer needs typical texts"):
        export_to("litert", model, out, precisions=("integer",))
    with pytest.raises(ConfigError, match="integer needs typical texts"):
        export_to("litert", model, out, calibration=SENTENCES)
    with pytest.raises(InputError, match="no texts to calibrate on"):
        export_to("litert", model, out, precisions=("integer",), calibration=[])
    with pytest.raises(ConfigError, match="--max-length 600 exceeds the 512 tokens"):
        export_to("litert", model, out, max_length=600)
    content = done[0].path.read_bytes()
    bad = tmp_path / "bad.tflite"
    for damage in (content[: len(content) // 2], b"something else", content[:100] + bytes(len(content) - 100)):
        bad.write_bytes(damage)
        with pytest.raises(CheckpointError, match="damaged"):
            LiteRtPredictor(bad)
    with pytest.raises(CheckpointError, match="no such file"):
        LiteRtPredictor(tmp_path / "none.tflite")

    def broken(plan: Any, *inputs: Any, **options: Any) -> Any:
        return {name: value + 1.0 for name, value in compute(plan, *inputs, **options).items()}

    monkeypatch.setattr("pocketbert.exporters.saved_model.writer.compute", broken)
    with pytest.raises(InputError, match=r"the fp32 export is wrong: its logits differ"):
        export_to("savedmodel", model, out)
    monkeypatch.setattr("pocketbert.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'pocketbert\[tf\]'"):
        export_to("litert", model, out)
    with pytest.raises(MissingExtraError, match=r"'pocketbert\[litert\]'"):
        LiteRtPredictor(done[0].path)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tflite"]


def test_bench_runs_exported_files(classifier: tuple[Path, Path, list[Any]], tmp_path: Path) -> None:
    run_batch = ExportedFile("int8", path=classifier[2][2].path).load(published("MobileBERT"), tmp_path, None)
    found: Any = run_batch([Features(np.arange(5, 9, dtype=np.int32), np.zeros(4, np.int32))] * 3)
    assert found["logits"].shape == (3, 3)

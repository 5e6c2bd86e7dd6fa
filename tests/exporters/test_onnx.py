"""ONNX files against their plans, in ONNX Runtime; exported folders, and rejected input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.cases import export_to, model_of, save
from helpers.families import CONFIGS, HEADS, all_that_matter, each_in_turn
from helpers.models import WIDE
from helpers.pairs import in_turn
from helpers.plans import draw, run, tensors
from pocketbert.bundles import BUNDLED, SENTIMENT
from pocketbert.errors import CheckpointError, InputError
from pocketbert.features import Features, Predictor, pad
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.plan import Plan
from pocketbert.runtime.quantize import quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from pocketbert.exporters.formats import FORMATS  # noqa: E402
from pocketbert.exporters.load import find_export, model_folder  # noqa: E402
from pocketbert.exporters.onnx.graph import OPSET, onnx_graph  # noqa: E402
from pocketbert.exporters.onnx.passes import (  # noqa: E402
    avoid_int16_saturation,
    drop_outlier_weights,
    fold_residual_scales,
    quantize_for_onnx,
)
from pocketbert.exporters.onnx.predictor import OnnxPredictor  # noqa: E402
from pocketbert.exporters.source import dequantize  # noqa: E402
from pocketbert.exporters.verify import Verifier, compare  # noqa: E402

LENGTHS = [1, 40, 7, 2, 23]


def predictor_of(graph: Any, path: Path) -> OnnxPredictor:
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}, "a non-standard operator"
    path.write_bytes(graph.SerializeToString())
    return OnnxPredictor(path, threads=1)


def near(expected: dict[str, np.ndarray], got: dict[str, np.ndarray], atol: float) -> None:
    assert expected.keys() == got.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(got[name] / scale, array / scale, atol=atol, err_msg=name)


def one_by_one(plan: Any, inputs: list[Features]) -> list[dict[str, np.ndarray]]:
    """Outputs of the interpreter, with the axes of a predictor's."""
    answers = [run(plan, [one]) for one in inputs]
    firsts = {name for name, gather in plan.gathered.items() if not gather.selected}
    return [{name: x[0] if name in firsts else x for name, x in answer.items()} for answer in answers]


@pytest.mark.parametrize(("name", "head"), all_that_matter())
def test_equals_the_plan(name: str, head: str, tmp_path: Path) -> None:
    """One file at any length, and in a batch: padding changes no output."""
    plan = lower(CONFIGS[name], tensors(model_of(CONFIGS[name], head)), head)
    predictor = predictor_of(onnx_graph(plan, choices=head == "ForMultipleChoice"), tmp_path / "x.onnx")
    inputs = draw(LENGTHS)
    together = predictor(inputs)
    for expected, batched, one in zip(one_by_one(plan, inputs), together, inputs, strict=True):
        near(expected, batched, 2e-5)
        near(batched, predictor([one])[0], 2e-5)


@pytest.mark.parametrize("opset", [OPSET, 20, onnx.defs.onnx_opset_version()])
def test_opsets(opset: int, tmp_path: Path) -> None:
    plan = lower(CONFIGS["mobilebert"], tensors(model_of(CONFIGS["mobilebert"], "Model")), "Model")
    graph = onnx_graph(plan, opset=opset)
    assert [one.version for one in graph.opset_import] == [opset]
    if opset > 20:  # the newest may be too new for ONNX Runtime
        onnx.checker.check_model(graph, full_check=True)
        return
    inputs = draw(LENGTHS)
    for expected, got in zip(one_by_one(plan, inputs), predictor_of(graph, tmp_path / "x.onnx")(inputs), strict=True):
        near(expected, got, 2e-5)


@pytest.mark.parametrize("opset", [16, 99])
def test_unsupported_opsets(opset: int) -> None:
    plan = lower(CONFIGS["bert"], tensors(model_of(CONFIGS["bert"], "Model")), "Model")
    with pytest.raises(InputError, match=f"opset {opset} is .*: choose one from 17"):
        onnx_graph(plan, opset=opset)


@pytest.mark.parametrize(("name", "head"), each_in_turn(("Model", "ForMaskedLM", "ForSequenceClassification")))
def test_folding_residual_scales_computes_the_same(name: str, head: str) -> None:
    """No residual connection has a factor but the last, where no norm reads the sum."""
    plan = lower(CONFIGS[name], tensors(model_of(CONFIGS[name], head)), head)
    levelled = fold_residual_scales(plan)
    scaled = [[s.target.buffer for s in p.steps() if getattr(s, "residual_scale", None)] for p in (plan, levelled)]
    assert len(scaled[1]) <= len(scaled[0]) / 2
    inputs = draw(LENGTHS)
    for expected, got in zip(one_by_one(plan, inputs), one_by_one(levelled, inputs), strict=True):
        near(expected, got, 2e-5)


def outlier_weights_of(plan: Plan) -> list[str]:
    return [step.outlier_weight for step in plan.linear_steps() if step.outlier_weight is not None]


def test_residual_streams_with_outliers_stay_in_fp32() -> None:
    config = WIDE["mobilebert"]
    plan = quantize(lower(config, tensors(model_of(config, "Model", random=False)), "Model"))
    inputs = draw(LENGTHS)
    kept = outlier_weights_of(plan)
    assert len(kept) == 2 * config.num_hidden_layers + 1  # a layer's input and its queries, keys, values; the pooler
    assert outlier_weights_of(drop_outlier_weights(plan, inputs)) == []
    plan.tensors["embeddings.positions"][0, 3] = 1e4  # the first token of every text
    assert outlier_weights_of(drop_outlier_weights(plan, inputs)) == kept


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "ForPreTraining") for name in WIDE),
        *in_turn([(list(WIDE), [x for x in HEADS if x != "ForPreTraining"])]),
    ],
)
def test_int8(name: str, head: str, tmp_path: Path) -> None:
    """Close to the model, at initial weights; the file has int8 matrices.

    Heads are steps of a plan like all others, so the rest of them come in turn.
    """
    exact = lower(WIDE[name], tensors(model_of(WIDE[name], head, random=False)), head)
    graph = onnx_graph(quantize(exact), choices=head == "ForMultipleChoice")
    predictor = predictor_of(graph, tmp_path / "x.onnx")
    inputs = draw(LENGTHS)
    for one in compare(one_by_one(exact, inputs), predictor(inputs)).values():
        assert 0 < one.relative < 0.05
    stored = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    words = "embeddings.word_embeddings.weight"
    assert stored[words] == onnx.TensorProto.INT8
    tied = head in ("ForMaskedLM", "ForPreTraining")
    assert len([name for name in stored if name.startswith(words)]) == 2 + tied, "a table, its scales"
    pooled = head not in ("ForTokenClassification", "ForQuestionAnswering")
    assert sum(node.op_type == "MatMulInteger" for node in graph.graph.node) > 7 + pooled


@pytest.mark.parametrize("name", list(WIDE))
def test_no_sum_saturates(name: str, tmp_path: Path) -> None:
    """ONNX Runtime equals the ONNX reference with weights that fill their 8 bits, on one token and on many.

    A processor without VNNI would saturate sums of two products at 16 bits, and differ by several hundredths.
    """
    from onnx.reference import ReferenceEvaluator

    plan = lower(WIDE[name], tensors(model_of(WIDE[name], "Model")), "Model")
    graph = onnx_graph(quantize_for_onnx(plan, draw(LENGTHS)))
    predictor, evaluator = predictor_of(graph, tmp_path / "x.onnx"), ReferenceEvaluator(graph)
    for lengths in ([3, 17, 8], [1]):
        arrays = pad(draw(lengths, seed=1))
        wanted = dict(zip(predictor.outputs, evaluator.run(None, arrays), strict=True))
        assert max(one.relative for one in compare([wanted], [predictor.compute(arrays)]).values()) < 0.005


@pytest.mark.parametrize("width", [8, 9])
def test_avoiding_int16_saturation(width: int) -> None:
    """Rows with two neighbours that are too large together are rounded again, from floats or from int8."""
    floats = lower(CONFIGS["bert"], tensors(model_of(CONFIGS["bert"], "Model")), "Model")
    name = next(step.weight for step in floats.linear_steps())
    plan = quantize(floats, smallest=1)
    rows = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    rows[0, :4] = 1, 2, -3, 3  # a pair is what stands at 0 and 1, or at 2 and 3
    rows[1] = -1
    rows[2] = 0
    rows[2, 1:3] = 9
    scales = np.abs(rows).max(axis=1) / 127
    before = np.rint(rows / scales[:, None]).astype(np.int8)
    plan = replace(plan, tensors={**plan.tensors, name: before.copy(), f"{name}.scales": scales})
    for fitted in (avoid_int16_saturation(plan), avoid_int16_saturation(plan, {**floats.tensors, name: rows})):
        weight, new = fitted.tensors[name], fitted.tensors[f"{name}.scales"]
        pairs = weight[:, : width // 2 * 2].astype(int).reshape(3, -1, 2).sum(axis=2)
        assert np.abs(pairs).max() <= 128
        np.testing.assert_array_equal(weight[[0, 2]], before[[0, 2]])
        np.testing.assert_allclose(weight[1] * new[1], rows[1], rtol=0.01)
        np.testing.assert_array_equal(avoid_int16_saturation(fitted).tensors[name], weight)
    np.testing.assert_array_equal(plan.tensors[name], before)


def test_fp16_weights_are_widened(tmp_path: Path) -> None:
    plan = lower(WIDE["bert"], tensors(model_of(WIDE["bert"], "Model")), "Model")
    weight = "encoder.layer.0.intermediate.dense.weight"
    plan.tensors[weight][0, 0] = 1e5  # too large for fp16
    graph = onnx_graph(plan, half=True)
    stored = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert stored[f"{weight} [in, out]"] == onnx.TensorProto.FLOAT
    assert stored["encoder.layer.1.intermediate.dense.weight [in, out]"] == onnx.TensorProto.FLOAT16
    inputs = draw(LENGTHS)
    for one in compare(one_by_one(plan, inputs), predictor_of(graph, tmp_path / "x.onnx")(inputs)).values():
        assert one.relative < 0.01


@pytest.mark.parametrize("int8", [False, True])
def test_groups_are_not_concatenated_between_steps(int8: bool) -> None:
    """Between SqueezeBERT's two wide grouped layers there is no transposition, concatenation or split."""
    config = WIDE["squeezebert"].replace(intermediate_groups=4, output_groups=4)
    plan = lower(config, tensors(model_of(config, "Model")), "Model")
    graph = onnx_graph(quantize(plan, smallest=1) if int8 else plan).graph
    made_by = {output: node for node in graph.node for output in node.output}
    kind = "MatMulInteger" if int8 else "Conv"
    wide = [node for node in graph.node if node.op_type == kind and ".output.conv1d.weight" in node.input[1]]
    assert len(wide) == (4 if int8 else 1) * config.num_hidden_layers
    sources = [made_by[node.input[0]] for node in wide]
    if int8:
        assert {node.op_type for node in sources} == {"DynamicQuantizeLinear"}
        sources = [made_by[node.input[0]] for node in sources]
    assert {node.op_type for node in sources} == {"Mul"}  # the end of a GELU


# ── folders ──


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier with a tokenizer."""
    config = WIDE["squeezebert"].replace(id2label={0: "no", 1: "yes", 2: "who knows"})
    return save(model_of(config, "ForSequenceClassification", random=False), tmp_path / "model")


def test_folder(model: Path, tmp_path: Path) -> None:
    done = export_to("onnx", model, tmp_path / "out", precisions=tuple(FORMATS["onnx"].files))
    assert [one.path for one in done] == [tmp_path / "out" / name for name in FORMATS["onnx"].files.values()]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "onnx",
    }  # fmt: skip
    whole, half, int8 = done
    assert whole.size > 1.5 * half.size
    assert half.size > int8.size
    for one, limit in zip(done, (1e-5, 1e-3, 0.1), strict=True):
        assert one.size == one.path.stat().st_size
        assert one.differences["logits"].relative < limit
        assert OnnxPredictor(one.path).precision == one.precision
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["2"] == "who knows"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_quantized_model_keeps_its_int8_weights(tmp_path: Path) -> None:
    whole, int8 = export_to("onnx", BUNDLED / SENTIMENT, tmp_path / "out", precisions=("fp32", "int8"))
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert whole.differences["logits"].relative < 1e-5
    assert int8.differences["logits"].relative < 0.1
    inputs = draw([9, 30])
    engine, exported = (
        Engine.from_pretrained(BUNDLED / SENTIMENT, "ForSequenceClassification"),
        OnnxPredictor(int8.path),
    )
    assert compare(engine(inputs), exported(inputs))["logits"].relative < 0.1


def test_dequantize_reverses_quantize() -> None:
    plan = lower(WIDE["mobilebert"], tensors(model_of(WIDE["mobilebert"], "ForMaskedLM")), "ForMaskedLM")
    again = dequantize(quantize(plan))
    assert again.stages == plan.stages
    for name, tensor in plan.tensors.items():
        np.testing.assert_allclose(again.tensors[name], tensor, atol=np.abs(tensor).max() / 127)


def test_a_wrong_file_is_removed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that computes another function, and one with too large a loss."""
    out = tmp_path / "out"
    losses = iter((0.9, 0.8))
    with pytest.raises(InputError, match=r"accuracy falls from 0\.9000 to 0\.8000 in the fp32 export"):
        export_to("onnx", model, out, measure=lambda _: {"accuracy": next(losses)})
    losses = iter((0.9, 0.8))
    [forced] = export_to("onnx", model, tmp_path / "forced", measure=lambda _: {"accuracy": next(losses)}, force=True)
    assert forced.metrics == {"model": {"accuracy": 0.9}, "export": {"accuracy": 0.8}}

    def broken(plan: Any, **options: Any) -> Any:
        plan.tensors["classifier.weight"][0] += 1
        return onnx_graph(plan, **options)

    monkeypatch.setattr("pocketbert.exporters.onnx.writer.onnx_graph", broken)
    with pytest.raises(InputError, match=r"the fp32 export is wrong: its logits differ"):
        export_to("onnx", model, out)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "forced"}


@pytest.mark.parametrize("precision", ["int8", "integer"])
def test_limit_in_8_bits(precision: str, tmp_path: Path) -> None:
    """A fifth of the outputs' size, unless labelled data or --force decide otherwise."""
    plan = lower(
        CONFIGS["bert"], tensors(model_of(CONFIGS["bert"], "ForTokenClassification")), "ForTokenClassification"
    )
    inputs, path, engine = draw(LENGTHS), tmp_path / "file", Engine(plan)
    path.write_bytes(b"8 bits")

    def off_by(part: float) -> Predictor:
        return lambda inputs: [{name: x * (1 + part) for name, x in one.items()} for one in engine(inputs)]

    near, far = off_by(0.19), off_by(0.21)
    verifier = Verifier(plan, inputs)
    assert verifier(path, near, precision).differences["logits"].relative == pytest.approx(0.19, abs=1e-3)
    with pytest.raises(InputError, match=r"its logits .* \(0\.21 of their size\), .*--eval, .*--force it"):
        verifier(path, far, precision)
    assert Verifier(plan, inputs, force=True)(path, far, precision).differences["logits"].agreement == 1.0
    assert Verifier(plan, inputs, measure=lambda _: {"f1": 0.9})(path, far, precision).metrics["export"] == {"f1": 0.9}
    losing = iter((0.9, 0.88))
    with pytest.raises(InputError, match=r"f1 falls from 0\.9000 to 0\.8800"):
        Verifier(plan, inputs, measure=lambda _: {"f1": next(losing)})(path, near, precision)
    with pytest.raises(InputError, match="differs too much"):
        Verifier(plan, inputs, force=True)(path, off_by(np.nan), precision)


def test_some_models_do_not_tolerate_8_bits(tmp_path: Path) -> None:
    """Large random weights: SqueezeBERT has norms, and MobileBERT accumulates rounding errors, layer by layer."""
    for name in ("squeezebert", "mobilebert"):
        save(model_of(WIDE[name], "ForTokenClassification"), tmp_path / name)
    [done] = export_to("onnx", tmp_path / "squeezebert", tmp_path / "kept", precisions=("int8",))
    assert done.differences["logits"].relative < 0.05
    with pytest.raises(InputError, match="the int8 export differs too much"):
        export_to("onnx", tmp_path / "mobilebert", tmp_path / "refused", precisions=("fp32", "int8"))
    assert not (tmp_path / "refused").exists()


def test_rejected_input(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already: choose another folder"):
        export_to("onnx", model, model)
    with pytest.raises(InputError, match="no texts"):
        export_to("onnx", model, tmp_path / "out", texts=[])
    [done] = export_to("onnx", model, tmp_path / "out")
    content = done.path.read_bytes()
    for damage, message in ((b"", "is empty"), (content[:-99], "damaged"), (b"something else", "damaged")):
        done.path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=message):
            OnnxPredictor(done.path)
    done.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be run"):
        OnnxPredictor(done.path)([Features(np.array([10**6], np.int32), np.zeros(1, np.int32))])
    with pytest.raises(CheckpointError, match="no such file"):
        OnnxPredictor(tmp_path / "none.onnx")


def test_finding_exported_files(model: Path, tmp_path: Path) -> None:
    export_to("onnx", model, tmp_path / "one")
    export_to("onnx", model, tmp_path / "two", precisions=("fp16", "int8"))
    file = tmp_path / "one" / "onnx" / "model.onnx"
    assert find_export(tmp_path / "one") == find_export(file) == file
    assert model_folder(file) == tmp_path / "one"
    assert find_export(model) is None
    assert find_export("a/name-on-the-hub") is None
    with pytest.raises(CheckpointError, match=r"model_fp16\.onnx, .*model_quantized\.onnx"):
        find_export(tmp_path / "two")

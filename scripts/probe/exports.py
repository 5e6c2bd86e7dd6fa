"""What `pocketbert export` writes, and the TensorFlow classes; sections without their libraries are empty."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from probe.inputs import HEADS, models
from probe.recorder import Probe, lines, tensors

BASIC = ("bert", "squeezebert", "mobilebert")  # with every head; the others with one


def _export(probe: Probe, name: str, *arguments: str | Path) -> list[Path]:
    """Export, record the output of the command, and return the paths of what was written."""
    made = lines("export", *arguments, "--force")
    steady = [{key: value for key, value in one.items() if key not in {"path", "size"}} for one in made]
    probe.bits(f"{name}/output", steady)
    return [Path(one["path"]) for one in made]


def _content(array: np.ndarray) -> str:
    """One tensor, whatever it is called: names inside an export are its own affair."""
    return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def _inputs(names: list[str], choices: bool) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    shape = (2, 3, 16) if choices else (2, 16)
    values = {
        "input_ids": draw.integers(5, 120, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": draw.integers(0, 2, shape),
    }
    values["attention_mask"][..., 11:] = 0
    return {name: values[name] for name in names}


def _onnx(probe: Probe) -> None:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return
    import onnx
    import onnx.numpy_helper
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for config, head, folder in models():
        if config not in BASIC and head != "ForSequenceClassification":
            continue
        name = f"{config}/{head}"
        wanted = [word for one in ("fp32", "fp16", "int8") for word in ("--precision", one)]
        for path in _export(probe, name, folder, Path("onnx", config, head), *wanted):
            graph = onnx.load(path).graph
            constants = [
                one.attribute[0].t for one in graph.node if one.op_type == "Constant" and one.attribute[0].HasField("t")
            ]
            arrays = [onnx.numpy_helper.to_array(one) for one in [*graph.initializer, *constants]]
            probe.bits(f"{name}/{path.name}/tensors", sorted(_content(array) for array in arrays))
            probe.bits(f"{name}/{path.name}/operators", sorted(one.op_type for one in graph.node))
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            inputs = _inputs([one.name for one in session.get_inputs()], head == "ForMultipleChoice")
            outputs: dict[str, Any] = dict(
                zip([one.name for one in session.get_outputs()], session.run(None, inputs), strict=True)
            )
            probe.bits(f"{name}/{path.name}/outputs", outputs)
            probe.text(f"{name}/{path.name}/file", hashlib.sha256(path.read_bytes()).hexdigest())


def _litert(probe: Probe) -> None:
    if find_spec("tensorflow") is None or find_spec("ai_edge_litert") is None:
        return
    texts = Path("texts.txt")
    texts.write_text("the film is great .\nann lives in rome .\n")
    for config, head in (
        ("squeezebert", "ForSequenceClassification"), ("mobilebert", "ForQuestionAnswering"), ("bert", "Model"),
    ):  # fmt: skip
        name = f"{config}/{head}"
        kinds = ("fp32", "int8", "integer") if head == "ForSequenceClassification" else ("fp32",)
        wanted = [word for one in kinds for word in ("--precision", one)]
        more = ("--calibrate", texts) if "integer" in kinds else ()
        paths = Path("models", config, head), Path("litert", config)
        for path in _export(probe, name, *paths, "--format", "litert", "--max-length", "16", *wanted, *more):
            _run_litert(probe, f"{name}/{path.name}", path)


def _run_litert(probe: Probe, name: str, path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    for number, one in enumerate(sorted(interpreter.get_input_details(), key=lambda one: str(one["name"]))):
        draw = np.random.default_rng(number)
        interpreter.set_tensor(one["index"], draw.integers(0, 2, one["shape"]).astype(one["dtype"]))
    interpreter.invoke()
    # The constants of the file, and not the interpreter's tensors, among which is memory that nothing has written.
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    buffers = [model.buffers[tensor.buffer].data for graph in model.subgraphs for tensor in graph.tensors]
    probe.bits(f"{name}/tensors", sorted(_content(data) for data in buffers if data is not None))
    details = interpreter.get_output_details()
    probe.bits(f"{name}/outputs", sorted(_content(interpreter.get_tensor(one["index"])) for one in details))
    probe.text(f"{name}/file", hashlib.sha256(path.read_bytes()).hexdigest())


def _saved_model(probe: Probe) -> None:
    if find_spec("tensorflow") is None:
        return
    import tensorflow as tf

    for config, head in (
        ("squeezebert", "ForTokenClassification"), ("mobilebert", "ForMaskedLM"), ("bert", "ForMultipleChoice"),
    ):  # fmt: skip
        name = f"{config}/{head}"
        [path] = _export(probe, name, Path("models", config, head), Path("saved", config), "--format", "savedmodel")
        model = tf.saved_model.load(str(path))
        signature = model.signatures["serving_default"]
        inputs = _inputs(["input_ids", "attention_mask", "token_type_ids"], head == "ForMultipleChoice")
        outputs = signature(**{key: tf.constant(value, tf.int32) for key, value in inputs.items()})
        probe.bits(f"{name}/outputs", {key: value.numpy() for key, value in outputs.items()})
        signed = {key: list(value.shape) for key, value in signature.structured_outputs.items()}
        probe.bits(f"{name}/signature", json.loads(json.dumps(signed, default=str)))


def _tensorflow(probe: Probe) -> None:
    """The classes of `pocketbert.tf`."""
    if find_spec("tensorflow") is None:
        return
    import tensorflow as tf

    import pocketbert.tf

    families = {"squeezebert": "SqueezeBert", "mobilebert": "MobileBert", "mobilebert-norm": "MobileBert"}
    for config, family in families.items():
        for head in HEADS:
            kind = getattr(pocketbert.tf, f"TF{family}{head}", None)
            if kind is None or (config not in BASIC and head != "ForSequenceClassification"):
                continue
            model = kind.from_pretrained(Path("models", config, head))
            inputs = _inputs(["input_ids", "attention_mask", "token_type_ids"], head == "ForMultipleChoice")
            output = model({key: tf.constant(value) for key, value in inputs.items()})
            probe.bits(f"{config}/{head}/outputs", {key: np.asarray(value) for key, value in output.items()})
            saved = Path("tf", config, head)
            model.save_pretrained(saved)
            probe.bits(f"{config}/{head}/saved tensors", tensors(saved))


SECTIONS = {"onnx": _onnx, "litert": _litert, "savedmodel": _saved_model, "tensorflow": _tensorflow}

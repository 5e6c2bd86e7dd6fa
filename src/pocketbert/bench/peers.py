"""Every engine that can run these models, behind one small class each.

The stock peers are what users of transformers have: its export, and each engine's own quantisation.
The rewritten ones are the best forms of the graph that we know for that engine.
"""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from pocketbert.bench.graphs import NAMES, Form, export_onnx, quiet, transformers_model
from pocketbert.bench.subjects import Subject
from pocketbert.exporters.load import load_export
from pocketbert.features import Features, pad
from pocketbert.runtime.engine import Engine, backend, usable_threads

Precision = Literal["fp32", "bf16", "int8"]
Run = Callable[[Sequence[Features]], object]  # one pass over a batch
Shape = tuple[int, int]  # batch and length
T = TypeVar("T")
EXPORT = ("torch", "transformers", "onnx")


@dataclass(frozen=True)
class Peer(ABC):
    """One way to run a model. `rewritten` is the form of its graph, "" for the stock export."""

    reads_weights: ClassVar[bool] = False  # `load` takes them from the subject, rather than from a file
    takes_shapes: ClassVar[bool] = False  # `load` makes something of a shape that is known beforehand

    precision: Precision
    rewritten: str = ""

    engine: str = ""
    needs: tuple[str, ...] = ()  # packages

    @property
    def name(self) -> str:
        """For people; no two are alike."""
        return f"{self.engine} {self.precision}" + (f" ({self.rewritten})" if self.rewritten else "")

    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]

    def runs(self, subject: Subject) -> bool:
        """Whether it makes sense for this model; a rewriting may not."""
        return not self.rewritten or self.rewritten in subject.family.graph_forms

    def made(self, subject: Subject, folder: Path) -> bool:
        """Whether the files that it reads are in `folder`."""
        return True

    def is_quick(self, subject: Subject, folder: Path) -> bool:
        """Whether it takes no minutes to prepare, nor seconds per pass."""
        return self.made(subject, folder)

    def prepare(self, subject: Subject, folder: Path) -> None:  # noqa: B027 - most engines need a file, not all
        """Make the files that it reads, in `folder`; existing files are not made again."""

    @abstractmethod
    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """A function that runs batches: of this shape only, or of any if it is None."""

    def kernels(self, run: Run) -> str:
        """The instruction set or kernels that it chose for what `load` returned; empty if it does not tell."""
        return ""


# ── ours ──


@dataclass(frozen=True)
class PocketBert(Peer):
    """The engine of this package."""

    reads_weights = True

    engine: str = "PocketBERT"

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """Sequences laid end to end, none padded."""
        return Engine(subject.int8_plan if self.precision == "int8" else subject.plan, usable_threads())

    def kernels(self, run: Run) -> str:
        """The set of kernels."""
        return backend().kernels or "NumPy"


# ── peers ──


def padded(inputs: Sequence[Features]) -> dict[str, np.ndarray]:
    """A batch as the others take it: filled up to its longest, with a mask."""
    arrays = pad(inputs)
    return {name: arrays[name] for name in NAMES}


@dataclass(frozen=True)
class Transformers(Peer):
    """transformers on PyTorch, eager."""

    reads_weights = True

    engine: str = "transformers"
    needs: tuple[str, ...] = ("torch", "transformers")

    def is_quick(self, subject: Subject, folder: Path) -> bool:
        """In bf16 a pass takes seconds where the processor has no instructions for it."""
        return self.precision == "fp32"

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """The model as it is, in this precision."""
        import torch

        torch.set_num_threads(usable_threads())
        model = transformers_model(subject)
        if self.precision == "bf16":
            model = model.to(torch.bfloat16)

        def run(inputs: Sequence[Features]) -> object:
            with torch.inference_mode():
                return model(**{name: torch.from_numpy(x) for name, x in padded(inputs).items()})[0]

        return run

    def kernels(self, run: Run) -> str:
        """The instruction set that PyTorch chose; the libraries that it calls choose for themselves."""
        import torch

        return torch.backends.cpu.get_cpu_capability()


@dataclass(frozen=True)
class OnnxRuntime(Peer):
    """ONNX Runtime; int8 is its dynamic quantisation, weights per channel."""

    engine: str = "ONNX Runtime"
    needs: tuple[str, ...] = (*EXPORT, "onnxruntime")

    def made(self, subject: Subject, folder: Path) -> bool:
        """Whether its graph is there."""
        return self.file(subject, folder).exists()

    def prepare(self, subject: Subject, folder: Path) -> None:
        """Export; fuse and quantise if requested."""
        path = self.file(subject, folder)
        if path.exists():
            return
        if self.precision == "fp32" and self.rewritten == "fused":
            made(path, lambda target: _fuse(_onnx(subject, "", folder), subject, target))
        elif self.precision == "fp32":
            _onnx(subject, self.rewritten, folder)
        else:
            OnnxRuntime("fp32", self.rewritten).prepare(subject, folder)
            source = OnnxRuntime("fp32", self.rewritten).file(subject, folder)
            made(path, lambda target: _quantize_dynamic(source, target))

    def file(self, subject: Subject, folder: Path) -> Path:
        """Where the graph is that it loads."""
        if self.precision == "fp32" and self.rewritten != "fused":
            return _onnx_path(subject, self.rewritten, folder)
        return folder / label(subject, f"ort-{self.precision}{self.rewritten}", ("onnxruntime",)) / "model.onnx"

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """A session with all its optimisations."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_threads()
        options.log_severity_level = 3
        # Fair to both sides: within a run its threads wait for each other spinning, as is fastest, but not after it,
        # when they would take the processors from the next engine. OpenVINO and PyTorch have no such option; the pause
        # before a turn is for them.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(
            str(self.file(subject, folder)), options, providers=["CPUExecutionProvider"]
        )
        return lambda inputs: session.run(None, padded(inputs))


@dataclass(frozen=True)
class OpenVino(Peer):
    """OpenVINO; int8 is NNCF's quantisation after training. The inference precision is what it chooses, or `hint`."""

    takes_shapes = True

    engine: str = "OpenVINO"
    needs: tuple[str, ...] = (*EXPORT, "openvino")
    hint: Literal["f32", "bf16"] = (
        "bf16"  # of operations that are not int8; bf16 is its default where the processor has it
    )

    @property
    def name(self) -> str:
        """With the precision beside int8, if it is not the default."""
        return f"{super().name}{' + fp32' if self.precision == 'int8' and self.hint == 'f32' else ''}"

    def missing(self) -> list[str]:
        """NNCF makes int8."""
        extra = ["nncf"] if self.precision == "int8" and find_spec("nncf") is None else []
        return super().missing() + extra

    def made(self, subject: Subject, folder: Path) -> bool:
        """Whether its graph is there."""
        return self.file(subject, folder).exists()

    def prepare(self, subject: Subject, folder: Path) -> None:
        """Export; quantise if requested."""
        source = _onnx(subject, self.rewritten, folder)
        path = self.file(subject, folder)
        if self.precision == "int8" and not path.exists():
            made(path, lambda target: _quantize_nncf(source, target))

    def file(self, subject: Subject, folder: Path) -> Path:
        """Where the graph is that it loads."""
        if self.precision != "int8":
            return _onnx_path(subject, self.rewritten, folder)
        return folder / label(subject, f"openvino-int8{self.rewritten}", ("openvino", "nncf")) / "model.xml"

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """Compiled for one shape where that is known, which is faster."""
        import openvino

        core = openvino.Core()
        model = core.read_model(self.file(subject, folder))
        if shape is not None:
            model.reshape({name: list(shape) for name in NAMES})
        options = {
            "INFERENCE_NUM_THREADS": usable_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32" if self.precision == "fp32" else self.hint,
        }
        return _OpenVinoRun(core.compile_model(model, "CPU", options))

    def kernels(self, run: Run) -> str:
        """The kernel of most of its matrix products."""
        assert isinstance(run, _OpenVinoRun)
        used: Counter[str] = Counter()
        for operation in run.model.get_runtime_model().get_ops():
            info = operation.get_rt_info()
            if str(info["layerType"].astype(str)) in ("FullyConnected", "MatMul", "Convolution"):
                used[str(info["primitiveType"].astype(str))] += 1
        return used.most_common(1)[0][0] if used else ""


class _OpenVinoRun:
    def __init__(self, model: Any) -> None:
        self.model, self.request = model, model.create_infer_request()

    def __call__(self, inputs: Sequence[Features]) -> object:
        return self.request.infer(padded(inputs))


@dataclass(frozen=True)
class ExportedFile(Peer):
    """A file that `pocketbert export` wrote, with its head and its own weights, in the engine for such files."""

    engine: str = "exported file"
    path: Path = Path()

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """With all the optimisations of its engine."""
        return load_export(self.path).run


OURS = (PocketBert("int8"), PocketBert("fp32"))
PEERS: tuple[Peer, ...] = (
    Transformers("fp32"),
    Transformers("bf16"),
    OnnxRuntime("fp32"),
    OnnxRuntime("int8"),
    OnnxRuntime("fp32", "split"),
    OnnxRuntime("int8", "split"),
    OnnxRuntime("fp32", "fused"),
    OnnxRuntime("int8", "fused"),
    OpenVino("fp32"),
    OpenVino("bf16"),
    OpenVino("int8"),
    OpenVino("int8", hint="f32"),
    OpenVino("fp32", "batched"),
    OpenVino("int8", "batched"),
    OpenVino("int8", "batched", hint="f32"),
)
REWRITINGS = {
    "split": "SqueezeBERT's grouped convolutions as one matrix product per group",
    "batched": "SqueezeBERT's grouped convolutions as one batched product",
    "fused": "BERT's attention, norms and GELU fused by ONNX Runtime's optimiser",
}


def versions() -> dict[str, str]:
    """Of everything that takes part and is installed."""
    found = {}
    for package in ("pocketbert", "numpy", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# ── files ──


def label(subject: Subject, kind: str, packages: tuple[str, ...]) -> str:
    """A folder's name that changes with the weights and with the packages that make the file."""
    tools = "-".join(version(package) for package in (*EXPORT, *packages))
    return f"{subject.name}-{subject.digest}-{kind}-{tools}"


def made(path: Path, make: Callable[[Path], None]) -> None:
    """Have `path` made in a folder of its own, which appears whole or not at all."""
    folder = path.parent
    temporary = folder.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")  # `Worker.end` looks for the number
    temporary.mkdir(parents=True)
    try:
        with quiet():
            make(temporary / path.name)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _onnx_path(subject: Subject, form: str, folder: Path) -> Path:
    return folder / label(subject, f"onnx-{form or 'stock'}", ()) / "model.onnx"


def _onnx(subject: Subject, form: str, folder: Path) -> Path:
    path = _onnx_path(subject, form, folder)
    if not path.exists():
        graph: Form = "split" if form == "split" else "batched" if form == "batched" else "stock"
        made(path, lambda target: export_onnx(subject, graph, target))
    return path


def _fuse(source: Path, subject: Subject, target: Path) -> None:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    heads, width = subject.config.num_attention_heads, subject.config.hidden_size
    options = FusionOptions("bert")
    fused = optimize_model(
        str(source), "bert", num_heads=heads, hidden_size=width, opt_level=1, optimization_options=options
    )
    fused.save_model_to_file(str(target))


def _quantize_dynamic(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Where a convolution is quantised, ONNX Runtime refuses to load the file; the type is for the fused operators.
    options: dict[str, Any] = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    kinds = ["MatMul", "Gemm", "Attention"]
    quantize_dynamic(
        source, target, op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8, extra_options=options
    )


def _quantize_nncf(source: Path, target: Path) -> None:
    import logging

    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    draws = np.random.default_rng(0)
    ids = [draws.integers(1000, 10000, (1, 128)) for _ in range(4)]  # speed does not depend on the calibration data
    samples = nncf.Dataset([dict(zip(NAMES, (x, np.ones_like(x)), strict=True)) for x in ids])
    model = openvino.Core().read_model(source)
    kind = nncf.ModelType.TRANSFORMER
    openvino.save_model(
        nncf.quantize(model, samples, model_type=kind, subset_size=len(ids)), target, compress_to_fp16=False
    )

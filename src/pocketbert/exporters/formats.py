"""Registry of export formats, as plain data: a format is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketbert.exporters.predictor import FilePredictor
    from pocketbert.exporters.writer import Writer


@dataclass(frozen=True)
class Format:
    """A format that models are exported to.

    Attributes:
        name: in `ExportOptions.format`.
        writer: module and name of its `Writer`, with a colon between.
        predictor: module and name of its `FilePredictor`, with a colon between.
        extras: keys of `errors.EXTRAS` that writing needs.
        files: path of each file in an export, by precision.
        precision: that is written unless others are chosen.
        options: fields of `ExportOptions` that not every format has.
        suffix: of a file; empty if the format is a folder.
        marker: name of a file by which such a folder is recognized.
    """

    name: str
    writer: str
    predictor: str
    extras: tuple[str, ...]
    files: Mapping[str, str]
    precision: str = "fp32"
    options: tuple[str, ...] = ()
    suffix: str = ""
    marker: str = ""

    def load_writer(self) -> type[Writer]:
        """The class that writes this format."""
        writer: type[Writer] = _load(self.writer)
        return writer

    def open(self, path: Path, threads: int | None = None) -> FilePredictor:
        """The predictor of an exported file, see `load.load_export`."""
        predictor: FilePredictor = _load(self.predictor)(path, threads)
        return predictor

    def matches(self, path: Path) -> bool:
        """Whether a path has the form of this format's files."""
        return path.suffix == self.suffix if self.suffix else (path / self.marker).exists()

    def find(self, folder: Path) -> Iterator[Path]:
        """This format's files in an export, whatever their names."""
        paths = [folder / name for name in self.files.values()]
        if self.suffix:
            folders = sorted({folder, *(path.parent for path in paths)})
            paths = [path for one in folders for path in sorted(one.glob(f"*{self.suffix}"))]
        yield from filter(self.matches, paths)


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


FORMATS = {
    format_.name: format_
    for format_ in (
        Format(
            "onnx",
            writer="pocketbert.exporters.onnx.writer:OnnxWriter",
            predictor="pocketbert.exporters.onnx.predictor:OnnxPredictor",
            extras=("export",),
            files={  # names that transformers.js expects
                "fp32": "onnx/model.onnx",
                "fp16": "onnx/model_fp16.onnx",
                "int8": "onnx/model_quantized.onnx",
            },
            options=("opset",),
            suffix=".onnx",
        ),
        Format(
            "litert",
            writer="pocketbert.exporters.litert.writer:LiteRtWriter",
            predictor="pocketbert.exporters.litert.predictor:LiteRtPredictor",
            extras=("tf", "litert"),
            files={
                "fp32": "model.tflite",
                "fp16": "model_fp16.tflite",
                "int8": "model_int8.tflite",
                "integer": "model_integer.tflite",
            },
            options=("max_length",),
            suffix=".tflite",
        ),
        Format(
            "savedmodel",
            writer="pocketbert.exporters.saved_model.writer:SavedModelWriter",
            predictor="pocketbert.exporters.saved_model.predictor:SavedModelPredictor",
            extras=("tf",),
            files={"fp32": "saved_model/1"},  # TensorFlow Serving expects a version
            marker="saved_model.pb",
        ),
        Format(
            "web",
            writer="pocketbert.exporters.web.writer:WebWriter",
            predictor="pocketbert.exporters.web.predictor:WebPredictor",
            extras=(),
            files={"fp32": "web_fp32", "int8": "web"},
            precision="int8",
            marker="model.json",
        ),
    )
}

"""Writes ONNX files, in a folder as transformers.js and optimum read it."""

from __future__ import annotations

from pathlib import Path

from pocketbert.checkpoints.files import atomic_write
from pocketbert.exporters.onnx.graph import OPSET, check_opset, onnx_graph
from pocketbert.exporters.onnx.passes import drop_outlier_weights, fold_residual_scales, quantize_for_onnx
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import Source
from pocketbert.exporters.writer import Writer
from pocketbert.runtime.plan import Plan


class OnnxWriter(Writer):
    """Writes ONNX files.

    In int8 a quantized model keeps its int8 weights. In fp16 only the file is smaller: engines widen the weights when
    they load it.

    Raises:
        InputError: the opset is too old, or unknown to the installed onnx.
    """

    def __init__(self, source: Source, options: ExportOptions) -> None:
        super().__init__(source, options)
        self.opset = OPSET if options.opset is None else options.opset
        check_opset(self.opset)

    def write(self, path: Path, precision: str) -> None:
        """Write the model in one precision."""
        choices = self.source.head == "ForMultipleChoice"
        graph = onnx_graph(self._plan(precision), half=precision == "fp16", choices=choices, opset=self.opset)
        graph.metadata_props.add(key="precision", value=precision)
        with atomic_write(path) as file:
            file.write(graph.SerializeToString())

    def _plan(self, precision: str) -> Plan:
        source = self.source
        if precision != "int8":
            return fold_residual_scales(source.fp32_plan)
        if source.config.quantized:
            return drop_outlier_weights(source.plan, source.inputs)
        return quantize_for_onnx(source.fp32_plan, source.inputs)

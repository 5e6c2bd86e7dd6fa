"""Metadata that MediaPipe's text tasks and the BERT-QA samples expect inside a `.tflite` file.

It consists of the order of the inputs, signatures, TFLite Metadata (names of inputs and outputs, the tokenizer and the
labels), and the vocabulary and the labels themselves, in a zip archive behind the model. Field numbers are those of
https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

INPUTS = {
    "ids": "Token ids of the text.",
    "mask": "1 at tokens, 0 at padding.",
    "segment_ids": "0 for the first text of a pair, 1 for the second.",
}
VOCABULARY, LABELS = "vocab.txt", "labels.txt"
_AXIS_LABELS, _VOCABULARY_FILE, _BERT_TOKENIZER = 2, 5, 4  # members of enumerations of the schema
_MIN_PARSER = "1.1.0"  # the first with BertTokenizerOptions


def add_metadata(
    model: bytes,
    *,
    name: str,
    description: str,
    outputs: Mapping[str, str],
    vocabulary: str | None,
    labels: Sequence[str] | None,
) -> bytes:
    """A converted model with its metadata.

    Args:
        model: from TensorFlow's converter, with one signature, whose inputs are `INPUTS`.
        name: of the model.
        description: of the model, for people.
        outputs: descriptions of the signature's outputs by name, in the order that the file shall have.
        vocabulary: the tokens, one per line; None for a tokenizer that readers of the file do not have.
        labels: of the only output, in order; None if its numbers are not scores of labels.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    (graph,), (signature,) = file.subgraphs, file.signatureDefs
    for tensors, order in ((signature.inputs, list(INPUTS)), (signature.outputs, list(outputs))):
        tensors.sort(key=lambda tensor, order=order: order.index(tensor.name.decode()))
        for tensor in tensors:
            graph.tensors[tensor.tensorIndex].name = tensor.name
    graph.inputs = [tensor.tensorIndex for tensor in signature.inputs]
    graph.outputs = [tensor.tensorIndex for tensor in signature.outputs]
    file.description = description

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(_metadata(name, description, outputs, vocabulary is not None, labels is not None))
    entry.name, entry.buffer = "TFLITE_METADATA", len(file.buffers)
    file.buffers.append(buffer)
    file.metadata = [*(file.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 2**16)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output()) + _archive(vocabulary, labels)


def _archive(vocabulary: str | None, labels: Sequence[str] | None) -> bytes:
    """An uncompressed zip archive, which readers find from the end of the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        files = {} if vocabulary is None else {VOCABULARY: vocabulary}
        files |= {} if labels is None else {LABELS: "".join(f"{x}\n" for x in labels)}
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980: the same model gives the same bytes
    return stream.getvalue()


def _metadata(name: str, description: str, outputs: Mapping[str, str], has_words: bool, labelled: bool) -> bytes:
    """The `ModelMetadata` of a model with one graph."""
    import flatbuffers

    tables = _Tables(flatbuffers.Builder(1024))
    vocabulary = tables.add(
        {0: VOCABULARY, 1: "Tokens of the vocabulary, one per line.", 2: tables.byte(_VOCABULARY_FILE)}
    )
    tokenizer = tables.add({0: tables.byte(_BERT_TOKENIZER), 1: tables.add({0: [vocabulary]})})
    input_tables = [tables.add({0: key, 1: text}) for key, text in INPUTS.items()]
    files = [tables.add({0: LABELS, 1: "Labels, in order.", 2: tables.byte(_AXIS_LABELS)})] if labelled else []
    output_tables = [tables.add({0: key, 1: text} | ({6: files} if files else {})) for key, text in outputs.items()]
    graph = tables.add({2: input_tables, 3: output_tables} | ({5: [tokenizer]} if has_words else {}))
    tables.builder.Finish(tables.add({0: name, 1: description, 3: [graph], 7: _MIN_PARSER}), b"M001")
    return bytes(tables.builder.Output())


class _Tables:
    """Builds tables of a flatbuffer; field values are strings, lists of tables, tables, and single bytes."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    @staticmethod
    def byte(value: int) -> bytes:
        return bytes([value])

    def add(self, fields: Mapping[int, Any]) -> int:
        """Build a table from its fields by number; returns its offset."""
        offsets = {number: self._offset(value) for number, value in fields.items()}
        self.builder.StartObject(max(fields) + 1)
        for number, value in offsets.items():
            if isinstance(value, bytes):
                self.builder.PrependByteSlot(number, value[0], 0)
            else:
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return int(self.builder.EndObject())

    def _offset(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.builder.CreateString(value)
        if isinstance(value, list):
            self.builder.StartVector(4, len(value), 4)
            for table in reversed(value):
                self.builder.PrependUOffsetTRelative(table)
            return self.builder.EndVector()
        return value

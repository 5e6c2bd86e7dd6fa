"""What MediaPipe's text tasks and the BERT-QA samples look for inside a `.tflite`.

That is the order of the inputs, signatures, TFLite Metadata (names of inputs and outputs, the tokenizer and the
labels), and the vocabulary and the labels themselves, in a zip archive behind the model. Field numbers are those of
https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

INPUTS = {
    "ids": "Tokens of the text, as numbers of the vocabulary.",
    "mask": "1 at tokens, 0 behind them.",
    "segment_ids": "0 for the first text of a pair, 1 for the second.",
}
VOCABULARY, LABELS = "vocab.txt", "labels.txt"
_AXIS_LABELS, _VOCABULARY_FILE, _BERT_TOKENIZER = 2, 5, 4  # members of enumerations of the schema
_MIN_PARSER = "1.1.0"  # the first with BertTokenizerOptions


def complete(
    model: bytes,
    *,
    name: str,
    description: str,
    outputs: Mapping[str, str],
    vocabulary: str,
    labels: Sequence[str] | None,
) -> bytes:
    """A converted model with all that apps look for in it.

    Args:
        model: as TensorFlow's converter made it, with one signature, whose inputs are `INPUTS`.
        name: of the model.
        description: of the model, for people.
        outputs: what each output of the signature is, in the order that they are to have.
        vocabulary: the pieces, a line each.
        labels: what a single output scores, in order.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    (graph,), (signature,) = whole.subgraphs, whole.signatureDefs
    for tensors, wanted in ((signature.inputs, list(INPUTS)), (signature.outputs, list(outputs))):
        tensors.sort(key=lambda one, wanted=wanted: wanted.index(one.name.decode()))
        for one in tensors:
            graph.tensors[one.tensorIndex].name = one.name
    graph.inputs = [one.tensorIndex for one in signature.inputs]
    graph.outputs = [one.tensorIndex for one in signature.outputs]
    whole.description = description

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(_metadata(name, description, outputs, labels is not None))
    entry.name, entry.buffer = "TFLITE_METADATA", len(whole.buffers)
    whole.buffers.append(buffer)
    whole.metadata = [*(whole.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 2**16)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output()) + _archive(vocabulary, labels)


def _archive(vocabulary: str, labels: Sequence[str] | None) -> bytes:
    """A zip archive, stored as it is, which readers find from the end of the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        files = {VOCABULARY: vocabulary} | ({} if labels is None else {LABELS: "".join(f"{x}\n" for x in labels)})
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980: the same model gives the same bytes
    return stream.getvalue()


def _metadata(name: str, description: str, outputs: Mapping[str, str], labelled: bool) -> bytes:
    """The `ModelMetadata` of a model with one graph."""
    import flatbuffers

    make = _Tables(flatbuffers.Builder(1024))
    vocabulary = make.table({0: VOCABULARY, 1: "Pieces of words, a line each.", 2: make.byte(_VOCABULARY_FILE)})
    tokenizer = make.table({0: make.byte(_BERT_TOKENIZER), 1: make.table({0: [vocabulary]})})
    named = [make.table({0: key, 1: text}) for key, text in INPUTS.items()]
    files = [make.table({0: LABELS, 1: "Labels, in order.", 2: make.byte(_AXIS_LABELS)})] if labelled else []
    said = [make.table({0: key, 1: text} | ({6: files} if files else {})) for key, text in outputs.items()]
    graph = make.table({2: named, 3: said, 5: [tokenizer]})
    make.builder.Finish(make.table({0: name, 1: description, 3: [graph], 7: _MIN_PARSER}), b"M001")
    return bytes(make.builder.Output())


class _Tables:
    """Tables of a flatbuffer by the numbers of their fields: strings, lists of tables, tables, and single bytes."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    @staticmethod
    def byte(value: int) -> bytes:
        return bytes([value])

    def table(self, fields: Mapping[int, Any]) -> int:
        """Where it stands."""
        places = {number: self._made(value) for number, value in fields.items()}
        self.builder.StartObject(max(fields) + 1)
        for number, value in places.items():
            if isinstance(value, bytes):
                self.builder.PrependByteSlot(number, value[0], 0)
            else:
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return int(self.builder.EndObject())

    def _made(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.builder.CreateString(value)
        if isinstance(value, list):
            self.builder.StartVector(4, len(value), 4)
            for one in reversed(value):
                self.builder.PrependUOffsetTRelative(one)
            return self.builder.EndVector()
        return value

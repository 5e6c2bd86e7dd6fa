"""SavedModels: for TensorFlow, and for TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketbert.checkpoints.files import new_folder
from pocketbert.errors import require
from pocketbert.exporters.load import SAVED_MODEL
from pocketbert.exporters.saved_model.predictor import SavedModelPredictor
from pocketbert.exporters.source import describe, read_source
from pocketbert.exporters.tensorflow_graph import compute
from pocketbert.exporters.verify import SENTENCES, Export, Measure, Proof

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_saved_model(
    model: str | Path,
    out: str | Path,
    *,
    texts: Sequence[str] = SENTENCES,
    measure: Measure | None = None,
    force: bool = False,
    revision: str | None = None,
) -> list[Export]:
    """Write a model, for the task it was made for, to `out/saved_model/1`; whole and proved, or not at all.

    Its signature `serving_default` takes int32 `input_ids`, `attention_mask` and `token_type_ids`, [batch, length], of
    any batch and length; outputs have the names that our classes give them. Beside it are the configuration and the
    tokenizer.

    Args:
        model: a folder or a name on the hub.
        out: a folder that does not exist, or is empty.
        texts: what it is run on.
        measure: gives the metrics of a predictor; the model and the export are measured.
        force: accept a loss of more than `metrics.LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or there is no export for its head; `out` is in use, or cannot be
            written.
        InputError: what was written does not say what the model says.
        MissingExtraError: TensorFlow is not installed.
    """
    require("tf")
    import tensorflow as tf

    source = read_source(model, out, texts, revision=revision)
    proof = Proof(source.whole, source.inputs, measure=measure, force=force)
    choices = source.head == "ForMultipleChoice"

    def outputs(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
        return compute(source.whole, input_ids, attention_mask, token_type_ids, choices=choices)

    axes = [None] * (3 if choices else 2)
    signature = [tf.TensorSpec(axes, tf.int32, name=name) for name in INPUTS]
    module = tf.Module()
    module.__call__ = tf.function(outputs, input_signature=signature, autograph=False)
    with new_folder(source.out) as folder:
        describe(source, folder)
        tf.saved_model.save(module, str(folder / SAVED_MODEL), module.__call__.get_concrete_function())
        made = proof(folder / SAVED_MODEL, SavedModelPredictor(folder / SAVED_MODEL), "fp32")
    return [replace(made, path=source.out / SAVED_MODEL)]

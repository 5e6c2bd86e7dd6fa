"""Writes SavedModels, in a folder as TensorFlow Serving reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pocketbert.exporters.tensorflow_graph import compute
from pocketbert.exporters.writer import Writer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SavedModelWriter(Writer):
    """Writes SavedModels.

    The signature `serving_default` takes int32 `input_ids`, `attention_mask` and `token_type_ids`, [batch, length], of
    any batch and length; outputs have the names that the PyTorch classes give them.
    """

    def write(self, path: Path, precision: str) -> None:
        """Write the model."""
        import tensorflow as tf

        plan, choices = self.source.fp32_plan, self.source.head == "ForMultipleChoice"

        def outputs(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
            return compute(plan, input_ids, attention_mask, token_type_ids, choices=choices)

        axes = [None] * (3 if choices else 2)
        signature = [tf.TensorSpec(axes, tf.int32, name=name) for name in INPUTS]
        module = tf.Module()
        module.__call__ = tf.function(outputs, input_signature=signature, autograph=False)
        tf.saved_model.save(module, str(path), module.__call__.get_concrete_function())

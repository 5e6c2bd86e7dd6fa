"""Writes LiteRT files, for phones."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import atomic_write
from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError, InputError
from pocketbert.exporters.litert.metadata import INPUTS, add_metadata
from pocketbert.exporters.litert.predictor import PROBABILITY, PROBABILITY_OF_EACH
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import Source
from pocketbert.exporters.tensorflow_graph import MASKED_SCORE, compute
from pocketbert.exporters.verify import Outputs
from pocketbert.exporters.writer import Writer
from pocketbert.features import Features, pad
from pocketbert.runtime.plan import Plan

logger = logging.getLogger("pocketbert")

CALIBRATION_TEXTS = 100  # as many as the published model was calibrated on
# As in quantization-aware training: the scores of padding must leave most of the 8-bit range to those of tokens.
MASKED_SCORE_IN_8_BITS = -16.0
SMALLEST_SHARE = 1 / 256  # the smallest probability above 0 in 8 bits
OUTPUTS = {
    PROBABILITY: "Probability of each label.",
    PROBABILITY_OF_EACH: "Independent probability of each label.",
    "logits": "Score of each label, token or tag; or the predicted number.",
    "end_logits": "Score of each token as the end of the answer.",
    "start_logits": "Score of each token as the start of the answer.",
    "last_hidden_state": "Hidden state of each token.",
    "pooler_output": "Pooled sentence representation.",
    "seq_relationship_logits": "Scores of the second text as the continuation of the first, and as a random text.",
}


class LiteRtWriter(Writer):
    """Writes LiteRT files.

    Each takes one text of a fixed number of tokens, padded, by the signature that MediaPipe's text tasks expect: int32
    `ids`, `mask` and `segment_ids`, [1, tokens]. Classifiers return `probability`, other models their own outputs. The
    vocabulary and the labels are inside.

    In fp16 only the file is smaller. In int8 matrices are int8, and the inputs of a product are rounded at run time, by
    one scale per token. In "integer" all tensors are whole numbers, for processors that have no others; their ranges
    are those of the calibration texts.

    Raises:
        ConfigError: more tokens than the model reads.
        InputError: there are no texts to calibrate on.
    """

    def __init__(self, source: Source, options: ExportOptions) -> None:
        length = options.max_length
        if length is not None and length > source.max_tokens:
            raise ConfigError(f"--max-length {length} exceeds the {source.max_tokens} tokens that {source.model} reads")
        length = min(length or default_length(source.config), source.max_tokens)
        super().__init__(replace(source, max_tokens=length), options)
        if options.calibration is not None and not options.calibration:
            raise InputError("there are no texts to calibrate on: give a few dozen typical texts")
        self.calibration = self.source.encode((options.calibration or ())[:CALIBRATION_TEXTS])
        self.fixed_length = length

    def write(self, path: Path, precision: str) -> None:
        """Write the model in one precision."""
        source, scores = self.source, self.scores
        vocabulary = source.tokenizer.get_vocab()
        words = None
        if type(source.tokenizer).knows_words and source.tokenizer.cls_token == "[CLS]":
            words = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
        else:
            logger.warning(
                "%s: MediaPipe does not support this tokenizer: applications must compute token ids themselves", path
            )
        names = {scores if name == "logits" else name for name in source.fp32_plan.outputs}
        content = add_metadata(
            convert(source.fp32_plan, source.max_tokens, precision, scores=scores, calibration=self.calibration),
            name=f"{type(source.config).__name__.removesuffix('Config')}{source.head}",
            description=f"Exported by PocketBERT in {precision}.",
            outputs={name: text for name, text in OUTPUTS.items() if name in names},
            vocabulary=words,
            labels=None if scores == "logits" else [source.config.id2label[i] for i in sorted(source.config.id2label)],
        )
        with atomic_write(path) as file:
            file.write(content)

    @property
    def scores(self) -> str:
        """The name of the output in place of "logits"."""
        config = self.source.config
        if self.source.head != "ForSequenceClassification" or config.problem_type == "regression":
            return "logits"
        if config.problem_type == "multi_label_classification":
            return PROBABILITY_OF_EACH
        return PROBABILITY if config.num_labels > 1 else "logits"

    def comparable(self, outputs: Outputs) -> Outputs:
        """Logits as far as probabilities determine them; other outputs as they are.

        Probabilities themselves are a poor measure: those of a confident model hardly move while its logits become
        noise.
        """
        compared = {PROBABILITY: _relative_logits, PROBABILITY_OF_EACH: _limited_logits}.get(self.scores)
        return outputs if compared is None else [{"logits": compared(one["logits"])} for one in outputs]


def default_length(config: PreTrainedConfig) -> int:
    """Tokens per text of a model's files, unless the options set it."""
    return min(384 if config.saved_head == "ForQuestionAnswering" else 128, config.max_tokens)


def _relative_logits(logits: np.ndarray) -> np.ndarray:
    """Differences between the logits of labels, with `SMALLEST_SHARE` for smaller probabilities."""
    powers = np.exp(logits - logits.max())
    logs: np.ndarray = np.log(np.maximum(powers / powers.sum(), SMALLEST_SHARE))
    return logs - logs.mean()


def _limited_logits(logits: np.ndarray) -> np.ndarray:
    """Logits of independent probabilities, within `SMALLEST_SHARE` of 0 and 1."""
    limit = np.log(1 / SMALLEST_SHARE - 1)
    return np.clip(logits, -limit, limit)


def convert(
    plan: Plan,
    tokens: int,
    precision: str,
    *,
    scores: str = "logits",
    calibration: Sequence[Features] = (),
) -> bytes:
    """An fp32 plan as a LiteRT file without metadata, by TensorFlow's converter.

    Args:
        plan: in fp32.
        tokens: per text.
        precision: fp32, fp16, int8 or integer.
        scores: the output in place of "logits": also `PROBABILITY` or `PROBABILITY_OF_EACH`.
        calibration: inputs that decide the ranges of integers.
    """
    import tensorflow as tf

    masked_score = MASKED_SCORE_IN_8_BITS if precision == "integer" else MASKED_SCORE
    final = {PROBABILITY: tf.nn.softmax, PROBABILITY_OF_EACH: tf.nn.sigmoid}.get(scores, tf.identity)

    def outputs(ids: Any, mask: Any, segment_ids: Any) -> dict[str, Any]:
        values = compute(plan, ids, mask, segment_ids, masked_score=masked_score)
        return {scores if name == "logits" else name: (final if name == "logits" else tf.identity)(value)
                for name, value in values.items()}  # fmt: skip

    with _quiet():
        signature = [tf.TensorSpec((1, tokens), tf.int32, name=name) for name in INPUTS]
        traced = tf.function(outputs, input_signature=signature, autograph=False).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
        if precision != "fp32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "integer":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (_arrays(one, tokens) for one in calibration)
        return bytes(converter.convert())


def _arrays(features: Features, tokens: int) -> Mapping[str, np.ndarray]:
    """One text as the inputs of the signature."""
    arrays = pad([features])
    names = zip(INPUTS, ("input_ids", "attention_mask", "token_type_ids"), strict=True)
    return {name: np.pad(arrays[ours], [(0, 0), (0, tokens - len(features))]).astype(np.int32) for name, ours in names}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence TensorFlow's converter, which writes to Python's log and warnings, and from C++ to standard error."""
    absl, stderr = logging.getLogger("absl"), os.dup(2)
    level = absl.level
    try:
        absl.setLevel(logging.ERROR)
        with warnings.catch_warnings(), Path(os.devnull).open("wb") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        absl.setLevel(level)

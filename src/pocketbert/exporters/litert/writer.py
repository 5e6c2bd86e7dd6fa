"""A folder with LiteRT files for phones, each proved before it appears."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pocketbert.checkpoints.files import atomic_write, new_folder
from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError, InputError, require
from pocketbert.exporters.litert.metadata import INPUTS, complete
from pocketbert.exporters.litert.predictor import EACH, PROBABILITY, LiteRtPredictor
from pocketbert.exporters.source import Source, describe, read_source
from pocketbert.exporters.tensorflow_graph import HIDDEN, compute
from pocketbert.exporters.verify import SENTENCES, Export, Measure, Outputs, Proof
from pocketbert.features import Features, pad
from pocketbert.runtime.lowering import head_of
from pocketbert.runtime.plan import Plan

Precision = Literal["fp32", "fp16", "int8", "integer"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FILES = {precision: f"model{'' if precision == 'fp32' else f'_{precision}'}.tflite" for precision in PRECISIONS}
CALIBRATION = 100  # texts, as when the published model was calibrated
# As in quantisation-aware training: what is hidden must not take all of the 8 bits that a score has.
HIDDEN_IN_8_BITS = -16.0
LEAST = 1 / 256  # probability but none that 8 bits can say
OUTPUTS = {
    PROBABILITY: "Probability of each label.",
    EACH: "Probability of each label, by itself.",
    "logits": "A score for each label, word, or tag; or the number that was learned.",
    "end_logits": "Where the answer ends: a score for each token.",
    "start_logits": "Where the answer starts: a score for each token.",
    "last_hidden_state": "What each token means.",
    "pooler_output": "What the text means.",
    "seq_relationship_logits": "Whether the second text follows the first, or not.",
}


def export_litert(
    model: str | Path,
    out: str | Path,
    *,
    precisions: Sequence[Precision] = ("fp32",),
    max_tokens: int | None = None,
    calibration: Sequence[str] | None = None,
    texts: Sequence[str] = SENTENCES,
    measure: Measure | None = None,
    force: bool = False,
    revision: str | None = None,
) -> list[Export]:
    """Write a model, for the task it was made for, to the folder `out` for LiteRT; whole and proved, or not at all.

    Each reads one text of `max_tokens` tokens, padded, by the signature that MediaPipe's text tasks expect: int32
    `ids`, `mask` and `segment_ids`, [1, tokens]. Classifiers say `probability`, others what their models do. The
    vocabulary and the labels are inside. Beside the files are the configuration and the tokenizer.

    Args:
        model: a folder or a name on the hub.
        out: a folder that does not exist, or is empty.
        precisions: a file for each. "fp16" halves the file alone. "int8" has int8 matrices, and rounds what goes into
            a product while it runs, a token by its own scale. "integer" has nothing but whole numbers, for processors
            that know no others; their ranges are those of `calibration`.
        max_tokens: 128 when not given, and 384 of a question with its passage.
        calibration: texts like those to come, of which the first `CALIBRATION` are read; for "integer" only.
        texts: what the files are run on.
        measure: gives the metrics of a predictor that reads `max_tokens`; the model and each file are measured.
        force: accept whatever 8 bits cost, and a loss of more than `metrics.LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or there is no export for its head; `out` is in use, or cannot be
            written.
        ConfigError: "integer" without calibration, or the other way round; too many tokens.
        InputError: what was written does not say what the model says; no texts to calibrate on.
        MissingExtraError: TensorFlow or LiteRT is not installed.
    """
    require("tf")
    require("litert")
    if ("integer" in precisions) != (calibration is not None):
        raise ConfigError("integer needs texts like those to come, to calibrate on, and nothing else does")
    if calibration is not None and not calibration:
        raise InputError("there is no text to calibrate on: give some dozens like those to come")
    source = read_source(model, out, texts, revision=revision)
    if max_tokens is not None and max_tokens > source.max_tokens:
        raise ConfigError(f"{max_tokens} tokens are more than the {source.max_tokens} that {model} reads")
    source = replace(source, max_tokens=min(max_tokens or usual_tokens(source.config), source.max_tokens))
    shown = {PROBABILITY: _of_shares, EACH: _of_each}.get(_said(source), _as_they_are)
    proof = Proof(source.whole, source.inputs, measure=measure, force=force, shown=shown)
    with new_folder(source.out) as folder:
        describe(source, folder)
        done = []
        for precision in dict.fromkeys(precisions):
            path = folder / FILES[precision]
            with atomic_write(path) as file:
                file.write(_file(source, precision, calibration or ()))
            made = proof(path, LiteRtPredictor(path), precision)
            done.append(replace(made, path=source.out / FILES[precision]))
    return done


def usual_tokens(config: PreTrainedConfig) -> int:
    """How many tokens the files of a model read where nobody says."""
    return min(384 if head_of(config) == "ForQuestionAnswering" else 128, config.max_position_embeddings)


def _file(source: Source, precision: Precision, calibration: Sequence[str]) -> bytes:
    said, texts = _said(source), source.encode(calibration[:CALIBRATION])
    converted = convert(source.whole, source.max_tokens, precision, said=said, calibration=texts)
    vocabulary = source.tokenizer.get_vocab()
    labels = [source.config.id2label[i] for i in sorted(source.config.id2label)]
    return complete(
        converted,
        name=f"{type(source.config).__name__.removesuffix('Config')}{source.head}",
        description=f"Made by PocketBERT, in {precision}.",
        outputs={name: text for name, text in OUTPUTS.items() if name in _outputs(source)},
        vocabulary="".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.__getitem__)),
        labels=labels if said in (PROBABILITY, EACH) else None,
    )


def _said(source: Source) -> str:
    """What stands in place of "logits"."""
    if source.head != "ForSequenceClassification" or source.config.problem_type == "regression":
        return "logits"
    if source.config.problem_type == "multi_label_classification":
        return EACH
    return PROBABILITY if source.config.num_labels > 1 else "logits"


def _outputs(source: Source) -> set[str]:
    return {_said(source) if name == "logits" else name for name in source.whole.outputs}


def convert(
    plan: Plan,
    tokens: int,
    precision: Precision,
    *,
    said: str = "logits",
    calibration: Sequence[Features] = (),
) -> bytes:
    """What TensorFlow's converter makes of a plan in fp32, for one text of `tokens`; `said` replaces "logits"."""
    import tensorflow as tf

    hidden = HIDDEN_IN_8_BITS if precision == "integer" else HIDDEN
    final = {PROBABILITY: tf.nn.softmax, EACH: tf.nn.sigmoid}.get(said, tf.identity)

    def outputs(ids: Any, mask: Any, segment_ids: Any) -> dict[str, Any]:
        found = compute(plan, ids, mask, segment_ids, hidden=hidden)
        return {said if name == "logits" else name: (final if name == "logits" else tf.identity)(value)
                for name, value in found.items()}  # fmt: skip

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


def _arrays(one: Features, tokens: int) -> Mapping[str, np.ndarray]:
    """A text as the signature wants it."""
    arrays = pad([one])
    named = zip(INPUTS, ("input_ids", "attention_mask", "token_type_ids"), strict=True)
    return {name: np.pad(arrays[ours], [(0, 0), (0, tokens - len(one))]).astype(np.int32) for name, ours in named}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow's converter talks about itself in Python's log and warnings, and in C++ on the second stream."""
    logger, stderr = logging.getLogger("absl"), os.dup(2)
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), Path(os.devnull).open("wb") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logger.setLevel(level)


def _as_they_are(outputs: Outputs) -> Outputs:
    return outputs


def _of_shares(outputs: Outputs) -> Outputs:
    """Logits as far as the probabilities tell them: how one label's stands to another's, with `LEAST` for the rest.

    Probabilities themselves would not do to compare: a sure model's hardly move while its logits lose their meaning.
    """
    powers = [np.exp(one["logits"] - one["logits"].max()) for one in outputs]
    logs = [np.log(np.maximum(each / each.sum(), LEAST)) for each in powers]
    return [{"logits": each - each.mean()} for each in logs]


def _of_each(outputs: Outputs) -> Outputs:
    """The same of probabilities that stand each by itself."""
    most = np.log(1 / LEAST - 1)
    return [{"logits": np.clip(one["logits"], -most, most)} for one in outputs]

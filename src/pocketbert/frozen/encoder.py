"""Vectors of texts from an encoder that is not trained, and a classifier of such vectors, as a model folder.

The vector of a text is the mean of its token vectors, or the first of them where the encoder declares that. A head
reads it normalized: its length depends on that of the text, and tells nothing. A head is saved with the encoder's own
weights, in fp32 or int8 as they are, and with `classifier_input` in `config.json`, which says what the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import open_tensors, write_tensors
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.decode import pool
from pocketbert.errors import CheckpointError
from pocketbert.families import family_of
from pocketbert.families.config import NORMAL_EPS
from pocketbert.features import Features, check_finite, encode_texts, fit
from pocketbert.frozen.linear import LinearHead
from pocketbert.runtime.engine import Engine
from pocketbert.sentences.declared import read_declared
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

Floats = npt.NDArray[np.float32]

HEAD = "ForSequenceClassification"
_CHUNK = 256  # inputs whose token vectors are in memory at a time


class FrozenEncoder:
    """An encoder of texts, on the engine.

    Args:
        name: a folder, hub name or bundled model.
        tokenizer: another tokenizer than its own.
        max_length: maximum tokens per input [default: what the model reads].

    Attributes:
        config: of the model.
        tokenizer: of the model.
        reads: "mean" or "cls", the vector of a text.

    Raises:
        CheckpointError: the model cannot be read.
    """

    def __init__(
        self, name: str | Path, *, tokenizer: BertTokenizer | None = None, max_length: int | None = None
    ) -> None:
        declared = read_declared(name)
        self.folder = declared.encoder
        self.config: PreTrainedConfig = AutoConfig.from_pretrained(self.folder)
        self.tokenizer = tokenizer or AutoTokenizer.from_pretrained(self.folder)
        self.reads = "cls" if declared.poolings == ("cls",) else "mean"
        self.engine = Engine.from_pretrained(self.folder, "Model")
        most = self.config.max_tokens
        self.max_length = fit(self.tokenizer, most if max_length is None else min(max_length, most))

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return self.config.hidden_size

    def vectors(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        advance: Callable[[int], None] | None = None,
    ) -> Floats:
        """Return [texts, width] the vectors of texts, or of pairs of texts; `advance` gets the number of those done."""
        found = np.empty((len(texts), self.width), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK):
            part = slice(start, start + _CHUNK)
            second = None if pairs is None else pairs[part]
            found[part] = self(encode_texts(self.tokenizer, texts[part], second, max_length=self.max_length))
            if advance is not None:
                advance(min(start + _CHUNK, len(texts)))
        return found

    def both(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, Floats]:
        """Return [texts, width] the vectors of texts or pairs as a head may read them: "mean" and "cls"."""
        found = {reads: np.empty((len(texts), self.width), dtype=np.float32) for reads in ("mean", "cls")}
        for start in range(0, len(texts), _CHUNK):
            second = None if pairs is None else pairs[start : start + _CHUNK]
            inputs = encode_texts(self.tokenizer, texts[start : start + _CHUNK], second, max_length=self.max_length)
            for row, output in enumerate(self.engine(inputs), start):
                check_finite(output)
                for reads, vectors in found.items():
                    vectors[row] = pool(output["last_hidden_state"], reads)
        return found

    def __call__(self, inputs: Sequence[Features]) -> Floats:
        """Return [inputs, width] the vectors of inputs of the model."""
        found = np.empty((len(inputs), self.width), dtype=np.float32)
        for start in range(0, len(inputs), _CHUNK):
            for row, output in enumerate(self.engine(inputs[start : start + _CHUNK]), start):
                check_finite(output)
                found[row] = pool(output["last_hidden_state"], self.reads)
        return found


def normal(vectors: Floats) -> Floats:
    """[n, H] vectors with mean 0 and variance 1, as a head on frozen vectors reads them."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + NORMAL_EPS), dtype=np.float32)


class FrozenClassifier:
    """A `features.Predictor`: an encoder, and a linear head on its normalized vectors."""

    def __init__(self, encoder: FrozenEncoder, head: LinearHead) -> None:
        self.encoder, self.head = encoder, head

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its logits [labels]."""
        return [{"logits": row} for row in self.head.logits(normal(self.encoder(inputs))).astype(np.float32)]

    def save(self, folder: str | Path, config: PreTrainedConfig) -> None:
        """Write the model as an ordinary folder, which every command, export and service runs.

        Args:
            folder: where; it is made if it is missing.
            config: the encoder's configuration with the labels of the task.

        Raises:
            CheckpointError: the encoder's folder holds tensors that this head cannot stand beside.
        """
        family = family_of(config)
        own = family.heads[HEAD][-1].name
        tensors = {
            name: tensor for name, tensor in open_tensors(self.encoder.folder).items() if not family.is_optional(name)
        }
        if not tensors:
            raise CheckpointError(f"{self.encoder.folder} holds no encoder")
        head = {f"{own}.weight": self.head.weight, f"{own}.bias": self.head.bias}
        tensors |= {name: tensor.astype(np.float32) for name, tensor in head.items()}
        write_tensors(Path(folder) / "model.safetensors", tensors)
        stated = {"classifier_input": f"normalized_{self.encoder.reads}", "architectures": [family.class_name(HEAD)]}
        config.replace(extra=config.extra | stated).save_pretrained(folder)
        self.encoder.tokenizer.save_pretrained(folder)

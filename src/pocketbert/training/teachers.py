"""What teachers said, on disk, so that each is asked once; and batches that carry it.

A cache is a folder: `cache.json` says of which data, teacher and layers it is, and `shard-00000.safetensors` and so on
hold `SHARD` examples each. A shard appears whole or not at all, so a cache whose making was interrupted is continued.
Hidden states are kept normalised over their width, as the loss takes them: so they fit fp16, whatever the teacher.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pocketbert.checkpoints import atomic_write, write_text
from pocketbert.checkpoints.files import read_json
from pocketbert.data.batches import LabelledBatches
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.features import Features, pad
from pocketbert.models.heads import ForMultipleChoice, ForQuestionAnswering, ForTokenClassification
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distillation import logits_of
from pocketbert.training.objectives import Batch
from pocketbert.training.progress import Progress

SHARD = 2048
PER_TOKEN = (ForTokenClassification, ForQuestionAnswering)
_ROWS = 128  # of a batch; all of one length, so that nothing is padded and no answer depends on the others


class TeacherCache:
    """The logits, and if wanted hidden states, of one teacher for a list of inputs.

    Args:
        folder: where it is, or is to be.
        teacher: knows the ids of `features`; of multiple choice, every choice is an input.
        features: the inputs.
        layers: the hidden states to keep, 0 being the embeddings; none for logits alone.
        bf16: whether the teacher computes in bfloat16.

    Raises:
        ConfigError: the folder holds a cache of something else; says what differs.
        CheckpointError: the folder cannot be read or written.
    """

    def __init__(
        self, folder: Path, teacher: PreTrainedModel, features: Sequence[Features], layers: Sequence[int], *, bf16: bool
    ) -> None:
        self.folder, self.teacher, self.features, self.layers, self.bf16 = folder, teacher, features, layers, bf16
        self.lengths = np.array([len(one) for one in features])
        #: How many rows of logits each input has: one, or one a token.
        self.rows = self.lengths if isinstance(teacher, PER_TOKEN) else np.ones_like(self.lengths)
        told = {
            "examples": len(features),
            "data": hash_features(features),
            "teacher": hash_model(teacher),
            "layers": list(layers),
            "precision": "bf16" if bf16 else "fp32",
            "shard": SHARD,
        }
        note = folder / "cache.json"
        if note.exists():
            there = read_json(note)
            differing = [
                f"{name}: {there.get(name, 'nothing')} there, {told.get(name, 'nothing')} now"
                for name in sorted(there.keys() | told.keys())
                if there.get(name) != told.get(name)
            ]
            if differing:
                raise ConfigError(
                    f"{folder} holds what a teacher said of other data, or another teacher; choose another folder "
                    "(--cache), or remove it:\n  " + "\n  ".join(differing)
                )
        else:
            try:
                write_text(note, json.dumps(told, indent=1) + "\n")
            except OSError as error:
                raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from None

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def fill(self, progress: Progress | None = None) -> None:
        """Ask the teacher about every shard that is not there yet.

        Raises:
            CheckpointError: a file cannot be written.
        """
        for number, start in enumerate(range(0, len(self.features), SHARD)):
            examples, started = min(SHARD, len(self.features) - start), time.perf_counter()
            if not self._shard(number).exists():
                try:
                    with atomic_write(self._shard(number)) as file:
                        file.write(save(self._ask(start, start + examples)))
                except OSError as error:
                    raise CheckpointError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
            if progress is not None:
                progress.advance(start + examples, examples, time.perf_counter() - started)

    @torch.no_grad()
    def _ask(self, start: int, stop: int) -> dict[str, np.ndarray]:
        lengths = self.lengths[start:stop]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        width = self.teacher.config.hidden_size
        rows = self.rows[start:stop]
        places = np.concatenate([[0], np.cumsum(rows)])
        labels = 1 if isinstance(self.teacher, ForMultipleChoice) else self.teacher.config.num_labels
        logits = np.zeros((int(places[-1]), labels), dtype=np.float32)
        hidden = {layer: np.zeros((int(offsets[-1]), width), dtype=np.float16) for layer in self.layers}
        device = self.teacher.device
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            for part in np.array_split(alike, -(-len(alike) // _ROWS)):
                arrays = pad([self.features[start + i] for i in part])
                tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
                if isinstance(self.teacher, ForMultipleChoice):
                    tensors = {name: tensor[:, None] for name, tensor in tensors.items()}  # [B, S] → [B, 1, S]
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                    output = self.teacher(**tensors, output_hidden_states=bool(self.layers))
                said = logits_of(output).float().cpu().numpy()
                for row, i in enumerate(part):
                    logits[places[i] : places[i + 1]] = said[row]
                for layer, kept in hidden.items():
                    states = F.layer_norm(output.hidden_states[layer].float(), [width]).half().cpu().numpy()
                    for row, i in enumerate(part):
                        kept[offsets[i] : offsets[i + 1]] = states[row]
        return {"logits": logits, **{f"hidden_{layer}": states for layer, states in hidden.items()}}

    def open(self) -> None:
        """Make ready to be read.

        Raises:
            CheckpointError: a shard is missing or damaged.
        """
        shards = range(-(-len(self.features) // SHARD))
        try:
            self._files: list[Any] = [safe_open(self._shard(number), framework="numpy") for number in shards]
            self._logits = np.concatenate([file.get_tensor("logits") for file in self._files])  # [rows, L]
            for file in self._files:
                for layer in self.layers:
                    file.get_slice(f"hidden_{layer}")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.folder}: a shard is missing or damaged: {error}; remove the folder") from None
        starts = [np.cumsum(self.lengths[start : start + SHARD]) for start in range(0, len(self.features), SHARD)]
        self._ends = np.concatenate(starts)
        self._ends_of_rows = np.cumsum(self.rows)

    def logits(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What was said of these inputs: [inputs, L], or of tokens [inputs, longest, L], filled up with zeros."""
        if not isinstance(self.teacher, PER_TOKEN):
            return np.asarray(self._logits[indices])
        said = np.zeros((len(indices), int(self.rows[indices].max()), self._logits.shape[1]), dtype=np.float32)
        for row, i in enumerate(indices.tolist()):
            count, end = int(self.rows[i]), int(self._ends_of_rows[i])
            said[row, :count] = self._logits[end - count : end]
        return said

    def hidden(self, indices: npt.NDArray[np.int64], layer: int) -> npt.NDArray[np.float32]:
        """The hidden states of these inputs end to end: [tokens, H], normalised."""
        parts = []
        for i in indices.tolist():
            states = self._files[i // SHARD].get_slice(f"hidden_{layer}")
            parts.append(states[int(self._ends[i] - self.lengths[i]) : int(self._ends[i])])
        return np.concatenate(parts).astype(np.float32)


class TaughtBatches:
    """Batches of examples with what their teachers said: step → micro-batches, as `Distillation` reads them.

    Args:
        batches: the examples, and what is right.
        caches: of the teachers, with the layers of each that the student learns from, in the order of its pairs; of
            choices, every choice is an input of its own there.
    """

    def __init__(self, batches: LabelledBatches, caches: Sequence[tuple[TeacherCache, Sequence[int]]]) -> None:
        self.batches, self.caches, self.batches_before = batches, caches, batches.batches_before

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of batch `step`."""
        return [{**self.batches.collate(part), **self._said(part)} for part in self.batches.divide(step)]

    def _said(self, part: npt.NDArray[np.int64]) -> Batch:
        first, inputs = self.batches.features[0], part
        choices = 0 if isinstance(first, Features) else len(first)
        if choices:
            inputs = (part[:, None] * choices + np.arange(choices)).ravel()
        logits = [cache.logits(inputs) for cache, _ in self.caches]
        logits = [one.reshape(len(part), choices) for one in logits] if choices else logits
        said: Batch = {"teacher_logits": np.stack(logits, axis=1)}  # [B, K, …]
        for number, (cache, layers) in enumerate(self.caches):
            said |= {f"teacher_hidden_{number}_{p}": cache.hidden(inputs, layer) for p, layer in enumerate(layers)}
        return said


def inputs_of(features: Sequence[Features] | Sequence[Sequence[Features]]) -> list[Features]:
    """The inputs of examples one after the other; an example of several choices has as many."""
    return [x for one in features for x in ([one] if isinstance(one, Features) else one)]


def hash_features(features: Sequence[Features]) -> str:
    """The hash of examples as they are tokenised."""
    digest = hashlib.sha256()
    for one in features:
        digest.update(len(one).to_bytes(4, "little"))
        digest.update(np.ascontiguousarray(one.input_ids).tobytes())
        digest.update(np.ascontiguousarray(one.token_type_ids).tobytes())
    return digest.hexdigest()


def hash_model(model: PreTrainedModel) -> str:
    """The hash of a model's configuration and weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

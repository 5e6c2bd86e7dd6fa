"""Cached teacher outputs on disk, so that each teacher runs once; and batches with them.

A cache is a folder: `cache.json` records data, teacher and layers, and `shard-00000.safetensors` and so on hold `SHARD`
examples each. Shards are written atomically, so an interrupted cache can be continued. Hidden states are normalised
over their width, as the loss does: so they fit fp16, for any teacher.
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
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup
from pocketbert.training.objectives import Batch
from pocketbert.training.progress import Progress

SHARD = 2048
PER_TOKEN = (ForTokenClassification, ForQuestionAnswering)
_ROWS = 128  # inputs per batch; all of one length, so that nothing is padded and outputs do not depend on the batch


class TeacherCache:
    """Cached logits, and if wanted hidden states, of one teacher for a list of inputs.

    Args:
        folder: the folder of the cache.
        teacher: the teacher, with the ids of `features`.
        features: the inputs; for multiple choice, every choice is an input.
        layers: layers of the hidden states to cache, 0 for the embeddings; none for logits alone.
        bf16: whether the teacher computes in bfloat16.

    Raises:
        ConfigError: the folder holds a cache of other data, another teacher or other layers, as the message lists.
        CheckpointError: the folder cannot be read or written.
    """

    def __init__(
        self, folder: Path, teacher: PreTrainedModel, features: Sequence[Features], layers: Sequence[int], *, bf16: bool
    ) -> None:
        self.folder, self.teacher, self.features, self.layers, self.bf16 = folder, teacher, features, layers, bf16
        self.lengths = np.array([len(inputs) for inputs in features])
        #: Rows of logits per input: one, or one per token.
        self.rows = self.lengths if isinstance(teacher, PER_TOKEN) else np.ones_like(self.lengths)
        facts = {
            "examples": len(features),
            "data": hash_features(features),
            "teacher": hash_model(teacher),
            "layers": list(layers),
            "precision": "bf16" if bf16 else "fp32",
            "shard": SHARD,
        }
        path = folder / "cache.json"
        if path.exists():
            earlier = read_json(path)
            differences = [
                f"{name}: was {earlier.get(name, 'nothing')}, now {facts.get(name, 'nothing')}"
                for name in sorted(earlier.keys() | facts.keys())
                if earlier.get(name) != facts.get(name)
            ]
            if differences:
                raise ConfigError(
                    f"{folder} is a teacher cache for other data or another teacher: choose another folder (--cache), "
                    "or remove it:\n  " + "\n  ".join(differences)
                )
        else:
            try:
                write_text(path, json.dumps(facts, indent=1) + "\n")
            except OSError as error:
                raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from None

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def fill(self, progress: Progress | None = None, processes: ProcessGroup = SINGLE_PROCESS) -> None:
        """Run the teacher for every shard that does not exist yet, in this process for its share of them.

        Raises:
            CheckpointError: a file cannot be written.
        """
        for number, start in enumerate(range(0, len(self.features), SHARD)):
            examples, started = min(SHARD, len(self.features) - start), time.perf_counter()
            if number % processes.count == processes.rank and not self._shard(number).exists():
                try:
                    with atomic_write(self._shard(number)) as file:
                        file.write(save(self._run(start, start + examples)))
                except OSError as error:
                    raise CheckpointError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
            if progress is not None:
                progress.advance(start + examples, examples, time.perf_counter() - started)

    @torch.no_grad()
    def _run(self, start: int, stop: int) -> dict[str, np.ndarray]:
        lengths = self.lengths[start:stop]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        width = self.teacher.config.hidden_size
        rows = self.rows[start:stop]
        row_offsets = np.concatenate([[0], np.cumsum(rows)])
        labels = 1 if isinstance(self.teacher, ForMultipleChoice) else self.teacher.config.num_labels
        logits = np.zeros((int(row_offsets[-1]), labels), dtype=np.float32)
        hidden = {layer: np.zeros((int(offsets[-1]), width), dtype=np.float16) for layer in self.layers}
        device = self.teacher.device
        for length in np.unique(lengths):
            same_length = np.flatnonzero(lengths == length)
            for part in np.array_split(same_length, -(-len(same_length) // _ROWS)):
                arrays = pad([self.features[start + i] for i in part])
                tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
                if isinstance(self.teacher, ForMultipleChoice):
                    tensors = {name: tensor[:, None] for name, tensor in tensors.items()}  # [B, S] → [B, 1, S]
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                    output = self.teacher(**tensors, output_hidden_states=bool(self.layers))
                batch_logits = logits_of(output).float().cpu().numpy()
                for row, i in enumerate(part):
                    logits[row_offsets[i] : row_offsets[i + 1]] = batch_logits[row]
                for layer, all_states in hidden.items():
                    states = F.layer_norm(output.hidden_states[layer].float(), [width]).half().cpu().numpy()
                    for row, i in enumerate(part):
                        all_states[offsets[i] : offsets[i + 1]] = states[row]
        return {"logits": logits, **{f"hidden_{layer}": states for layer, states in hidden.items()}}

    def open(self) -> None:
        """Open all shards for reading.

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
        self._row_ends = np.cumsum(self.rows)

    def logits(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the logits for these inputs: [inputs, L], or of tokens [inputs, longest, L], padded with zeros."""
        if not isinstance(self.teacher, PER_TOKEN):
            return np.asarray(self._logits[indices])
        padded = np.zeros((len(indices), int(self.rows[indices].max()), self._logits.shape[1]), dtype=np.float32)
        for row, i in enumerate(indices.tolist()):
            count, end = int(self.rows[i]), int(self._row_ends[i])
            padded[row, :count] = self._logits[end - count : end]
        return padded

    def hidden(self, indices: npt.NDArray[np.int64], layer: int) -> npt.NDArray[np.float32]:
        """Return the normalised hidden states of these inputs, end to end: [tokens, H]."""
        parts = []
        for i in indices.tolist():
            states = self._files[i // SHARD].get_slice(f"hidden_{layer}")
            parts.append(states[int(self._ends[i] - self.lengths[i]) : int(self._ends[i])])
        return np.concatenate(parts).astype(np.float32)


class BatchesWithTeacher:
    """Batches with cached teacher outputs: step → micro-batches, as `Distillation` reads them.

    Args:
        batches: the examples and their labels.
        caches: per teacher, its cache and the layers to compare, in the order of its pairs; for multiple choice, every
            choice is an input.
    """

    def __init__(self, batches: LabelledBatches, caches: Sequence[tuple[TeacherCache, Sequence[int]]]) -> None:
        self.batches, self.caches, self.batches_before = batches, caches, batches.batches_before

    def __call__(self, step: int) -> list[Batch]:
        """Return the micro-batches of batch `step`."""
        return [{**self.batches.collate(part), **self._outputs(part)} for part in self.batches.divide(step)]

    def _outputs(self, part: npt.NDArray[np.int64]) -> Batch:
        first, inputs = self.batches.features[0], part
        choices = 0 if isinstance(first, Features) else len(first)
        if choices:
            inputs = (part[:, None] * choices + np.arange(choices)).ravel()
        logits = [cache.logits(inputs) for cache, _ in self.caches]
        logits = [array.reshape(len(part), choices) for array in logits] if choices else logits
        outputs: Batch = {"teacher_logits": np.stack(logits, axis=1)}  # [B, K, …]
        for number, (cache, layers) in enumerate(self.caches):
            outputs |= {f"teacher_hidden_{number}_{p}": cache.hidden(inputs, layer) for p, layer in enumerate(layers)}
        return outputs


def inputs_of(features: Sequence[Features] | Sequence[Sequence[Features]]) -> list[Features]:
    """Return the inputs of all examples; an example of several choices has several."""
    return [inputs for example in features for inputs in ([example] if isinstance(example, Features) else example)]


def hash_features(features: Sequence[Features]) -> str:
    """Return the hash of tokenized inputs."""
    digest = hashlib.sha256()
    for inputs in features:
        digest.update(len(inputs).to_bytes(4, "little"))
        digest.update(np.ascontiguousarray(inputs.input_ids).tobytes())
        digest.update(np.ascontiguousarray(inputs.token_type_ids).tobytes())
    return digest.hexdigest()


def hash_model(model: PreTrainedModel) -> str:
    """Return the hash of a model's configuration and weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

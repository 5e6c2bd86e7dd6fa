"""A PyTorch model as a `features.Predictor`: features in, arrays out, without padding on either side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from pocketbert.features import Features, pad
from pocketbert.models.heads import ForMultipleChoice
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.outputs import ModelOutput

TOKENS_PER_BATCH = 4096
PER_TOKEN = ("start_logits", "end_logits", "last_hidden_state", "prediction_logits")


class TorchPredictor:
    """Runs a model over inputs of any lengths, in batches of similar lengths.

    A model that reads padding gets batches of equal lengths only, so that no output depends on the rest of the batch.
    For multiple choice every input is one choice, and its logits have the shape [1].
    """

    def __init__(self, model: PreTrainedModel, tokens_per_batch: int = TOKENS_PER_BATCH) -> None:
        self.model, self.tokens_per_batch = model.eval(), tokens_per_batch
        self.equal_lengths = model.config.reads_padding

    @torch.inference_mode()
    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; per-token arrays are as long as the input.

        See `features.Predictor`.
        """
        results: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        for batch in self._batches([len(x.input_ids) for x in inputs]):
            arrays = pad([inputs[i] for i in batch], self.model.config.pad_token_id or 0)
            tensors = {name: torch.from_numpy(array).to(self.model.device) for name, array in arrays.items()}
            if self.model.config.type_vocab_size == 1:
                tensors["token_type_ids"].zero_()  # both texts of a pair have the only segment
            if isinstance(self.model, ForMultipleChoice):
                tensors = {name: tensor[:, None] for name, tensor in tensors.items()}  # [B, S] → [B, 1, S]
            output = self.model(**tensors)
            for name, values in self._arrays(output).items():
                per_token = name in PER_TOKEN or (name == "logits" and values.ndim == 3)
                for row, i in enumerate(batch):
                    rows = slice(len(inputs[i])) if inputs[i].rows is None else inputs[i].rows
                    results[i][name] = values[row, rows] if per_token else values[row]
        return results

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of inputs of similar lengths, together at most `tokens_per_batch` tokens with padding."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        cuts, start = [0], 0
        for end, i in enumerate(order):
            too_many = (end - start + 1) * lengths[i] > self.tokens_per_batch
            unequal = self.equal_lengths and lengths[i] != lengths[order[start]]
            if end > start and (too_many or unequal):
                cuts.append(start := end)
        cuts.append(len(order))
        return ([*order[a:b]] for a, b in pairwise(cuts) if b > a)

    @staticmethod
    def _arrays(output: ModelOutput) -> dict[str, np.ndarray]:
        names = [name for name in output if name not in ("loss", "hidden_states", "attentions")]
        return {name: output[name].float().cpu().numpy() for name in names}


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with the numbers of an array, which may be read-only."""
    return torch.from_numpy(np.array(array))

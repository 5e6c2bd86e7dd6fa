"""The first step of a fine-tuning run on a small table: a head on the vectors of the encoder as it is.

A run of some dozen steps ends near chance where a head that was fitted to frozen vectors, in a second, does not. So the
head of a classifier of texts begins as that one. It reads the normalized mean of the token vectors, which an encoder
without a trained pooler gives meaning to; it is evaluated before the first step of training, and stays the best model
unless training beats it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.batches import random_order
from pocketbert.features import Features
from pocketbert.frozen.linear import LinearHead, fit_head
from pocketbert.models.heads import Head
from pocketbert.models.predict import TorchPredictor
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import EncodedTask, TrainingData
from pocketbert.tasks.classification import TextClassification

LARGEST = 10_000
"""Maximum number of training examples for a frozen start; with more, a random head is trained well enough."""
_CHUNK = 512  # inputs whose hidden states are in memory at a time


def begins_frozen(options: FinetuneOptions, data: TrainingData) -> bool:
    """Whether a run on this data begins with a head on frozen vectors, if its checkpoint has no head for the labels."""
    return (
        options.frozen_start
        and isinstance(data, TextClassification)
        and len(data.train) <= LARGEST
        and options.glue is None
        and options.from_scratch is None
        and not options.quantization_aware
    )


def reading_tokens(config: PreTrainedConfig, name: str) -> PreTrainedConfig:
    """Return the configuration of a classifier that reads what the encoder declares, normalized: mean, or first token.

    It names no class that its weights were saved from: the head is a new one.
    """
    from pocketbert.sentences.declared import read_declared

    reads = "cls" if read_declared(name).poolings == ("cls",) else "mean"
    kept = {key: value for key, value in config.extra.items() if key != "architectures"}
    return config.replace(extra=kept | {"classifier_input": f"normalized_{reads}"})


def fit_frozen_head(model: PreTrainedModel, encoded: EncodedTask[Any], seed: int) -> LinearHead:
    """Fit the head of a classifier to the vectors of the training examples; everything else stays as it is.

    Args:
        model: a classifier with a `classifier_input`, on any device.
        encoded: the training examples.
        seed: of the examples and folds on which the strength of the regularisation is chosen.
    """
    assert isinstance(model, Head)
    inputs = [one for one in encoded.features if isinstance(one, Features)]
    chosen = random_order(seed, "frozen", 0, len(inputs))[:LARGEST]
    predictor = TorchPredictor(model.base_model)
    vectors = np.concatenate(
        [
            np.stack([output["pooler_output"] for output in predictor([inputs[i] for i in chosen[at : at + _CHUNK]])])
            for at in range(0, len(chosen), _CHUNK)
        ]
    )
    labels, weights = (_chosen(encoded.targets.get(name), chosen) for name in ("labels", "weights"))
    assert labels is not None
    assert model.config.problem_type is not None
    if weights is not None and weights.ndim == 2:
        weights = weights.mean(axis=1)
    head = fit_head(vectors, labels, model.config.problem_type, model.config.num_labels, weights=weights, seed=seed)
    last = model.head_layers[-1]
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(head.weight))
        last.bias.copy_(torch.from_numpy(head.bias))
    return head


def _chosen(values: Any, chosen: npt.NDArray[np.intp]) -> npt.NDArray[Any] | None:
    return None if values is None else np.asarray(values)[chosen]

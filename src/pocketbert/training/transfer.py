"""MobileBERT's transfer as an objective: a thin student learns layer by layer what its teacher does, then what it says.

For layer l of L, with feature maps x (the student's) and y (the teacher's) over N tokens and H channels:

- feature maps: the mean of (norm x - norm y)², both normalised over the channels, without an affine map;
- statistics: the mean over tokens of (mean x - mean y)², and of |variance x - variance y|, over the channels. They are
  those of the layer in question: the released code takes the teacher's from the list of all its layers;
- attention: KL(teacher ‖ student) of what each token looks at, a mean over heads and tokens.

Each is weighted and divided by L, as released. Pretraining distillation is, at the masked places,
(1 - alpha) · labels + alpha · T² KL(teacher ‖ student), plus the loss of the pairs.

A stage of a run teaches some layers, or what they all lead to, or both (`Stage`). While layers are taught, embeddings
and heads rest as they were copied from the teacher, layers above are not computed, and those below learn slowly
(released: a tenth of the rate) or not at all. Neither model drops out.

Source: Sun et al. 2020, https://arxiv.org/abs/2004.02984, sections 3.5 and 3.6, and the weights of google-research's
released recipe.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pocketbert.errors import ConfigError
from pocketbert.models.ops import Packing
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distillation import attention_loss, hidden_loss, soft_loss
from pocketbert.training.pretraining import Pretraining, packing_of, scores
from pocketbert.training.settings import TransferWeights


@dataclass(frozen=True, kw_only=True)
class Stage:
    """So many steps in which the same is learned."""

    steps: int
    layers: tuple[int, ...] = ()
    """The layers that are taught, counted from 1."""
    distils: bool = False
    """Whether the student learns what the teacher says of masked words."""
    rate: float = 1.0
    """By what the rate of the taught layers is multiplied."""
    lower_rate: float = 0.0
    """By what the rate of the layers below is."""


class Transfer(Pretraining):
    """What a student learns from a teacher of the same depth, stage after stage.

    Args:
        model: the student, a MobileBertForPreTraining.
        teacher: is neither trained nor saved.
        terms: the weights of the losses.
        stages: of the run, in order.

    Raises:
        ConfigError: the two do not fit: another depth, width between the layers, number of heads, or vocabulary.
    """

    def __init__(
        self, model: PreTrainedModel, teacher: PreTrainedModel, terms: TransferWeights, stages: Sequence[Stage]
    ) -> None:
        super().__init__(model)
        for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"):
            mine, theirs = getattr(model.config, name), getattr(teacher.config, name)
            if mine != theirs:
                raise ConfigError(
                    f"{name} is {mine} in the student and {theirs} in its teacher: layers are compared one by one"
                )
        self.teachers = (teacher.eval().requires_grad_(False),)  # a tuple registers no modules
        self.terms, self.stages = terms, list(stages)
        self._ends = [sum(stage.steps for stage in self.stages[: i + 1]) for i in range(len(self.stages))]
        self.stage = self.stages[0]

    def train(self, mode: bool = True) -> Self:
        """Nothing drops out, in the student as in the teacher."""
        super().train(False)
        self.training = mode
        return self

    def begin(self, step: int) -> None:
        """Take up the stage of `step`."""
        self.stage = self.stages[min(bisect_right(self._ends, step), len(self.stages) - 1)]

    def rate(self, place: int) -> float:
        """The factor of a layer (counted from 1; 0 is all else) in this stage."""
        stage = self.stage
        if stage.distils:
            return stage.rate
        if place in stage.layers:
            return stage.rate
        return stage.lower_rate if 0 < place < min(stage.layers) else 0.0

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The micro-batch's share of the losses of this stage."""
        stage, packing = self.stage, packing_of(batch)
        model: PreTrainedModel = self.model  # type: ignore[assignment]
        count = model.config.num_hidden_layers if stage.distils else max(stage.layers)
        rests = 0 if stage.distils else 1 if stage.lower_rate else min(stage.layers)
        weights = bool(stage.layers) and self.terms.attention_weight > 0
        with torch.no_grad():
            theirs = run(self.teachers[0], batch, packing, count, with_weights=weights)
        mine = run(model, batch, packing, count, with_weights=weights, rests=rests)

        shares = {}
        if stage.layers:
            shares = {
                name: torch.stack(values).sum() / (totals["tokens"] * model.config.num_hidden_layers)
                for name, values in self._knowledge(mine, theirs, packing).items()
            }
        loss = sum((self._weight(name) * value for name, value in shares.items()), torch.zeros(()))
        if stage.distils:
            told = self._distilled(mine.states[-1], theirs.states[-1], packing, batch, totals)
            loss, shares = loss + told.pop("loss"), {**shares, **told}
        return {"loss": loss, **shares}

    def _weight(self, name: str) -> float:
        weight: float = getattr(self.terms, f"{name}_weight")
        return weight

    def _knowledge(self, mine: Run, theirs: Run, packing: Packing) -> dict[str, list[Tensor]]:
        """Of each taught layer the terms that count, summed over tokens."""
        found: dict[str, list[Tensor]] = {}
        for layer in self.stage.layers:
            x, y = mine.states[layer][0].float(), theirs.states[layer][0].float()  # [N, H]
            terms = {"feature": hidden_loss(x, y), **statistics_losses(x, y)}
            if mine.weights:
                terms["attention"] = attention_loss(mine.weights[layer - 1], theirs.weights[layer - 1], packing.real)
            for name, value in terms.items():
                if self._weight(name) > 0:
                    found.setdefault(name, []).append(value)
        return found

    def _distilled(
        self, mine: Tensor, theirs: Tensor, packing: Packing, batch: Mapping[str, Tensor], totals: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Pretraining distillation: labels and teacher's words, and the pairs."""
        alpha, temperature = self.terms.alpha, self.terms.temperature
        words, pairs = scores(self.model, mine, pool(self.model, mine, packing), batch)
        shares = self.losses(words, pairs, batch, totals)
        if alpha > 0:
            with torch.no_grad():
                teacher = self.teachers[0]
                told, _ = scores(teacher, theirs, pool(teacher, theirs, packing), batch)
            soft = soft_loss(words, [told], temperature, "single_label_classification") / max(1, totals["masked"])
            shares["loss"] = shares["loss"] + alpha * (soft - shares["masked_loss"])
            shares["soft_loss"] = soft
        return shares


def statistics_losses(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """How the means and the variances over the channels of [N, H] and [N, H] differ, each summed over tokens."""
    return {
        "mean": (x.mean(-1) - y.mean(-1)).square().sum(),
        "variance": (x.var(-1, correction=0) - y.var(-1, correction=0)).abs().sum(),
    }


@dataclass(frozen=True, eq=False)
class Run:
    """What a pass through the first layers left."""

    states: list[Tensor]
    """The embeddings' output and each layer's, [1, N, H]."""
    weights: list[Tensor]
    """Of each layer the attention [E, heads, longest, longest], if asked for."""


def run(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    packing: Packing,
    count: int,
    *,
    with_weights: bool,
    rests: int = 0,
) -> Run:
    """The first `count` layers of a model; without gradients through the embeddings and `rests` - 1 layers."""
    encoder = model.base_model
    arguments = (batch["token_type_ids"][None], batch["position_ids"][None], None)
    learns = torch.is_grad_enabled()
    with torch.set_grad_enabled(learns and rests == 0):
        hidden = encoder.embeddings(batch["input_ids"][None], packing, *arguments)
    states, weights = [hidden], []
    for number, layer in enumerate(encoder.layers[:count], start=1):
        with torch.set_grad_enabled(learns and number >= rests):
            hidden, probabilities = layer(hidden, packing, with_weights)
        states.append(hidden)
        if probabilities is not None:
            weights.append(probabilities)
    return Run(states, weights)


def pool(model: torch.nn.Module, hidden: Tensor, packing: Packing) -> Tensor:
    """What the pooler makes of the first tokens of [1, N, H]: [E, H]."""
    assert isinstance(model, PreTrainedModel)
    pooler = model.base_model.pooler
    assert pooler is not None
    return pooler(hidden[0, packing.starts[:-1], None])


def place_of(name: str) -> int:
    """The layer, counted from 1, of a parameter with this name in an objective; 0 for all others."""
    parts = name.split(".")
    return int(parts[parts.index("layer") + 1]) + 1 if "layer" in parts else 0

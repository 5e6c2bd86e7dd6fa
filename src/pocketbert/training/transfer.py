"""MobileBERT's transfer as an objective: knowledge transfer to the layers of a thin student, then distillation.

For layer l of L, with feature maps x (the student's) and y (the teacher's) over N tokens and H channels:

- feature maps: the mean of (norm x - norm y)², both normalised over the channels, without an affine map;
- statistics: the mean over tokens of (mean x - mean y)², and of |variance x - variance y|, over the channels. They are
  those of the layer in question: the released code takes the teacher's from the list of all its layers;
- attention: KL(teacher ‖ student) of the attention of each token, a mean over heads and tokens.

Each is weighted and divided by L, as released. Pretraining distillation is, at the masked positions,
(1 - alpha) · labels + alpha · T² KL(teacher ‖ student), plus the loss of the pairs.

A stage of a run transfers knowledge to some layers, or distils the outputs, or both (`Stage`). During knowledge
transfer, embeddings and heads stay as they were copied from the teacher, layers above the current ones are not
computed, and those below are trained at a lower rate (released: a tenth) or not at all. Neither model uses dropout.

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
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel
from pocketbert.training.distillation import attention_loss, hidden_loss, soft_loss
from pocketbert.training.pretraining import Pretraining, packing_of, scores
from pocketbert.training.settings import TransferWeights


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive steps with the same losses."""

    steps: int
    layers: tuple[int, ...] = ()
    """The layers with knowledge transfer, counted from 1."""
    distils: bool = False
    """Whether the teacher's scores of masked tokens are targets."""
    rate: float = 1.0
    """Factor of the rate of these layers."""
    lower_rate: float = 0.0
    """Factor of the rate of the layers below."""


class Transfer(Pretraining):
    """Knowledge transfer and distillation from a teacher of the same depth, stage after stage.

    Args:
        model: the student, a MobileBertForPreTraining.
        teacher: the teacher, which is neither trained nor saved.
        weights: the weights of the losses.
        stages: the stages of the run, in order.

    Raises:
        ConfigError: the two differ in architecture, depth, width between the layers, number of heads, or vocabulary.
    """

    def __init__(
        self, model: PreTrainedModel, teacher: PreTrainedModel, weights: TransferWeights, stages: Sequence[Stage]
    ) -> None:
        super().__init__(model)
        if model.config.model_type != teacher.config.model_type:
            raise ConfigError(
                f"the student is a {type(model).__name__} and its teacher a {type(teacher).__name__}: transfer "
                f"compares layers of one architecture; distill works across architectures"
            )
        for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"):
            own, other = getattr(model.config, name), getattr(teacher.config, name)
            if own != other:
                raise ConfigError(
                    f"{name} is {own} in the student and {other} in its teacher: layers are compared one by one"
                )
        self.teachers = (teacher.eval().requires_grad_(False),)  # a tuple registers no modules
        self.weights, self.stages = weights, list(stages)
        self._ends = [sum(stage.steps for stage in self.stages[: i + 1]) for i in range(len(self.stages))]
        self.stage = self.stages[0]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; dropout stays off, in the student as in the teacher."""
        super().train(False)
        self.training = mode
        return self

    def begin(self, step: int) -> None:
        """Switch to the stage of `step`."""
        self.stage = self.stages[min(bisect_right(self._ends, step), len(self.stages) - 1)]

    def layer_rate(self, layer: int) -> float:
        """Return the factor of the rate of a layer in this stage; layers count from 1, 0 is everything else."""
        stage = self.stage
        if stage.distils or layer in stage.layers:
            return stage.rate
        return stage.lower_rate if 0 < layer < min(stage.layers) else 0.0

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the micro-batch's share of the losses of this stage."""
        stage, packing = self.stage, packing_of(batch)
        model: PreTrainedModel = self.model  # type: ignore[assignment]
        count = model.config.num_hidden_layers if stage.distils else max(stage.layers)
        first_trained = 0 if stage.distils else 1 if stage.lower_rate else min(stage.layers)
        attention = bool(stage.layers) and self.weights.attention_weight > 0
        with torch.no_grad():
            teacher = run_layers(self.teachers[0], batch, packing, count, with_attention=attention)
        student = run_layers(model, batch, packing, count, with_attention=attention, first_trained=first_trained)

        shares = {}
        if stage.layers:
            shares = {
                name: torch.stack(values).sum() / (totals["tokens"] * model.config.num_hidden_layers)
                for name, values in self._transfer_losses(student, teacher, packing).items()
            }
        loss = sum((self._weight(name) * value for name, value in shares.items()), torch.zeros(()))
        if stage.distils:
            distilled = self._distillation(student.states[-1], teacher.states[-1], packing, batch, totals)
            loss, shares = loss + distilled.pop("loss"), {**shares, **distilled}
        return {"loss": loss, **shares}

    def _weight(self, name: str) -> float:
        weight: float = getattr(self.weights, f"{name}_weight")
        return weight

    def _transfer_losses(
        self, student: LayerOutputs, teacher: LayerOutputs, packing: Packing
    ) -> dict[str, list[Tensor]]:
        """Return the losses with a weight, of each current layer, summed over tokens."""
        losses: dict[str, list[Tensor]] = {}
        for layer in self.stage.layers:
            x, y = student.states[layer][0].float(), teacher.states[layer][0].float()  # [N, H]
            terms = {"feature": hidden_loss(x, y), **statistics_losses(x, y)}
            if student.attention:
                maps = student.attention[layer - 1], teacher.attention[layer - 1]
                terms["attention"] = attention_loss(*maps, packing.real)
            for name, value in terms.items():
                if self._weight(name) > 0:
                    losses.setdefault(name, []).append(value)
        return losses

    def _distillation(
        self, hidden: Tensor, target: Tensor, packing: Packing, batch: Mapping[str, Tensor], totals: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Return the losses of pretraining distillation: labels, the teacher's token scores, and the pairs.

        Args:
            hidden: [1, N, H] of the student.
            target: [1, N, H] of the teacher.
            packing: of the batch.
            batch: a micro-batch.
            totals: units of the whole batch.
        """
        alpha, temperature = self.weights.alpha, self.weights.temperature
        words, pairs = scores(self.model, hidden, pool(self.model, hidden, packing), batch)
        shares = self.losses(words, pairs, batch, totals)
        if alpha > 0:
            with torch.no_grad():
                teacher = self.teachers[0]
                teacher_words, _ = scores(teacher, target, pool(teacher, target, packing), batch)
            soft = soft_loss(words, [teacher_words], temperature, "single_label_classification") / max(
                1, totals["masked"]
            )
            shares["loss"] = shares["loss"] + alpha * (soft - shares["masked_loss"])
            shares["soft_loss"] = soft
        return shares


def statistics_losses(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the differences of means and of variances over channels of [N, H] and [N, H], each summed over tokens."""
    return {
        "mean": (x.mean(-1) - y.mean(-1)).square().sum(),
        "variance": (x.var(-1, correction=0) - y.var(-1, correction=0)).abs().sum(),
    }


@dataclass(frozen=True, eq=False)
class LayerOutputs:
    """Outputs of the first layers of a model."""

    states: list[Tensor]
    """Hidden states [1, N, H] after the embeddings and after each layer."""
    attention: list[Tensor]
    """Attention [E, heads, longest, longest] of each layer, if wanted."""


def run_layers(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    packing: Packing,
    count: int,
    *,
    with_attention: bool,
    first_trained: int = 0,
    embedded: Tensor | None = None,
) -> LayerOutputs:
    """Run the first `count` layers of a model, without gradients below layer `first_trained` (0: the embeddings).

    They read the embeddings [1, N, H] of the batch, if they are given.
    """
    encoder = model.base_model
    trains = torch.is_grad_enabled()
    with torch.set_grad_enabled(trains and first_trained == 0):
        hidden = embed(model, batch, packing) if embedded is None else embedded
    states, attention = [hidden], []
    with torch.set_grad_enabled(trains and first_trained <= 1):
        shared = encoder.shared_by_layers(packing.real.size(1))
    for number, layer in enumerate(encoder.layers[:count], start=1):
        with torch.set_grad_enabled(trains and number >= first_trained):
            hidden, probabilities = layer(hidden, packing, with_attention, *shared)
        states.append(hidden)
        if probabilities is not None:
            attention.append(probabilities)
    return LayerOutputs(states, attention)


def embed(model: PreTrainedModel, batch: Mapping[str, Tensor], packing: Packing) -> Tensor:
    """Return the embeddings [1, N, H] of a batch."""
    arguments = batch["token_type_ids"][None], batch["position_ids"][None], None
    encoder = model.base_model
    assert isinstance(encoder, EncoderModel)
    return encoder.embed(batch["input_ids"][None], packing, *arguments)


def pool(model: torch.nn.Module, hidden: Tensor, packing: Packing) -> Tensor:
    """Return the pooled first tokens [E, H] of [1, N, H]."""
    assert isinstance(model, PreTrainedModel)
    pooler = model.base_model.pooler
    assert pooler is not None
    return pooler(hidden[0, packing.starts[:-1], None])


def layer_of(name: str) -> int:
    """Return the layer, counted from 1, of a parameter with this name in an objective; 0 outside the layers."""
    parts = name.split(".")
    return int(parts[parts.index("layer") + 1]) + 1 if "layer" in parts else 0

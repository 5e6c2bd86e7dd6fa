"""The objective of distillation: a student is trained on the outputs of teachers for the same tokens.

The loss of a batch is

    (1 - alpha) · hard + alpha · soft + hidden_weight · hidden + attention_weight · attention

- hard: the model's own loss on the labels; examples without a label add nothing.
- soft: T² · KL(teacher ‖ student) of the classes at temperature T; in a regression, the squared difference.

Both are means over decisions: the class of a text; the tag of every labelled token; the start and the end of an answer,
among the tokens without padding; the right choice.

- hidden: the squared difference of hidden states, both normalised over their width, a mean over tokens and channels.
- attention: KL(teacher ‖ student) of the attention of each token, a mean over heads and tokens.

Several teachers have equal weights: soft targets are the mean of their *probabilities* at temperature T (or of their
numbers), the hidden and attention terms the mean of the terms for each. A student of another width is projected to the
teacher's width by one trained matrix for all layers (TinyBERT). Padding tokens count nowhere.

Sources: hard and soft, Hinton et al. 2015, https://arxiv.org/abs/1503.02531; hidden and attention, Sun et al. 2020
(MobileBERT), https://arxiv.org/abs/2004.02984, section 3.5; projection and pairs of layers, Jiao et al. 2020
(TinyBERT), https://arxiv.org/abs/1909.10351.

Shapes: B batch, S sequence, N = the tokens of a batch without padding, L labels, C choices, D decisions, H hidden, K
teachers. For multiple choice, hidden states and attention are those of a batch of B · C inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.features import IGNORED
from pocketbert.models import bf16
from pocketbert.models.heads import ForQuestionAnswering, ForTokenClassification
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.outputs import ModelOutput
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.settings import DistillationWeights, LayerPairs

_NEVER = -1e9  # the score of padding, which cannot be chosen; finite, as 0 · -∞ is nan


def pair_layers(student: int, teacher: int) -> LayerPairs:
    """Return the pairs of layers to compare, for these numbers of layers: evenly spread, last with last.

    Layers count from 1; (0, 0) are the embeddings. A deeper student repeats layers of the teacher.
    """
    return ((0, 0), *((layer, max(1, layer * teacher // student)) for layer in range(1, student + 1)))


def check_pairs(pairs: LayerPairs, student: int, teacher: int) -> None:
    """Raise `ConfigError` where a pair names a layer that a student or a teacher with these numbers of layers lacks."""
    for own, other in pairs:
        if not (0 <= own <= student and 0 <= other <= teacher and (own == 0) == (other == 0)):
            raise ConfigError(
                f"the pair of layers {own}:{other} does not fit a student of {student} and a teacher of {teacher} "
                "layers, which count from 1; 0:0 are the embeddings"
            )


@dataclass(frozen=True, eq=False)
class TeacherOutput:
    """Outputs of one teacher for a batch, as far as they are needed."""

    logits: Tensor
    """As `logits_of` returns them."""
    hidden: tuple[Tensor, ...] | None = None
    """[N, H] per pair."""
    attention: tuple[Tensor, ...] | None = None
    """[B, heads, S, S] per pair of layers, without the embeddings."""


@torch.no_grad()  # not inference mode: the student's gradients need these tensors
def run_teacher(
    teacher: PreTrainedModel, batch: Mapping[str, Tensor], pairs: LayerPairs, weights: DistillationWeights
) -> TeacherOutput:
    """Run a teacher on a batch (`input_ids`, `attention_mask`, `token_type_ids`)."""
    output = teacher(
        **batch, output_hidden_states=weights.hidden_weight > 0, output_attentions=weights.attention_weight > 0
    )
    real = _real(batch)
    return TeacherOutput(
        logits_of(output),
        None if output.hidden_states is None else tuple(output.hidden_states[layer][real] for _, layer in pairs),
        None if output.attentions is None else tuple(output.attentions[layer - 1] for _, layer in pairs if layer > 0),
    )


class Distillation(Objective):
    """Distillation from labels and teachers.

    A micro-batch holds, besides the model's inputs, the targets: "labels" (`IGNORED` for texts without a label, NaN in
    a regression; `IGNORED` for tokens without a decision), or "start_positions" and "end_positions"; and cached teacher
    outputs, if `teachers.BatchesWithTeacher` adds them: "teacher_logits" [B, K, …], and "teacher_hidden_K_P" [N, H] for
    teacher K and its P-th pair. "table_logits" [B, tables, L] are those of further teachers, of classes or numbers.

    Args:
        model: the student, with a head for texts, tags, spans or choices.
        weights: the weights of the losses.
        pairs: per teacher, the pairs of layers (student's, teacher's) to compare; see `pair_layers`.
        widths: per teacher, its hidden size.
        teachers: teachers to run with the student; none if their outputs are in the batches. They have the student's
            ids and labels, and are neither trained nor saved.

    Raises:
        ConfigError: a pair names a layer that does not exist.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weights: DistillationWeights,
        *,
        pairs: Sequence[LayerPairs],
        widths: Sequence[int],
        teachers: Sequence[PreTrainedModel] = (),
    ) -> None:
        super().__init__(model)
        self.weights, self.pairs = weights, list(pairs)
        self.kind: str = model.config.problem_type or "single_label_classification"
        self.teachers = tuple(teacher.eval() for teacher in teachers)  # a tuple registers no modules
        self.projections = nn.ModuleList()
        if weights.hidden_weight > 0:
            own = model.config.hidden_size
            for width in widths:
                self.projections.append(nn.Identity() if width == own else nn.Linear(own, width, bias=False))

    def units(self, batch: Batch) -> dict[str, int]:
        """Return the numbers of examples, tokens without padding, and decisions."""
        examples = decided = len(batch["input_ids"])
        if isinstance(self.model, ForQuestionAnswering):
            decided = 2 * examples
        elif isinstance(self.model, ForTokenClassification):
            decided = int((batch["labels"] != IGNORED).sum())
        return {"examples": examples, "tokens": int(batch["attention_mask"].sum()), "decisions": decided}

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the micro-batch's share of the loss, and of its terms."""
        weights = self.weights
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        teachers = self._teacher_outputs(batch, inputs)
        output = self.model(
            **inputs, output_hidden_states=weights.hidden_weight > 0, output_attentions=weights.attention_weight > 0
        )
        scalars: dict[str, Tensor] = {}
        logits, labels = decisions(logits_of(output).float(), batch)
        if weights.alpha < 1:
            scalars["hard"] = hard_loss(logits, labels, self.kind) / totals["decisions"]
        if weights.alpha > 0:
            targets = [decisions(teacher.logits, batch)[0] for teacher in teachers]
            targets += batch["table_logits"].unbind(1) if "table_logits" in batch else []
            scalars["soft"] = soft_loss(logits, targets, weights.temperature, self.kind) / totals["decisions"]
        real = _real(batch)
        if weights.hidden_weight > 0:
            losses = [
                hidden_loss(projection(output.hidden_states[layer][real]), target)
                for teacher, projection, pairs in zip(teachers, self.projections, self.pairs, strict=True)
                for (layer, _), target in zip(pairs, teacher.hidden or (), strict=True)
            ]
            scalars["hidden"] = torch.stack(losses).mean() / totals["tokens"]
        if weights.attention_weight > 0:
            losses = [
                attention_loss(output.attentions[layer - 1], target, real)
                for teacher, pairs in zip(teachers, self.pairs, strict=True)
                for (layer, _), target in zip([p for p in pairs if p[1] > 0], teacher.attention or (), strict=True)
            ]
            scalars["attention"] = torch.stack(losses).mean() / totals["tokens"]
        factors = {
            "hard": 1 - weights.alpha, "soft": weights.alpha,
            "hidden": weights.hidden_weight, "attention": weights.attention_weight,
        }  # fmt: skip
        loss = torch.stack([factors[name] * value for name, value in scalars.items()]).sum()
        return {"loss": loss, **scalars}

    def _teacher_outputs(self, batch: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> list[TeacherOutput]:
        if self.teachers:
            return [
                run_teacher(teacher, inputs, pairs, self.weights)
                for teacher, pairs in zip(self.teachers, self.pairs, strict=True)
            ]
        return [
            TeacherOutput(
                batch["teacher_logits"][:, number],
                tuple(batch[f"teacher_hidden_{number}_{p}"] for p in range(len(pairs)))
                if self.weights.hidden_weight > 0
                else None,
            )
            for number, pairs in enumerate(self.pairs)
        ]


def _real(batch: Mapping[str, Tensor]) -> Tensor:
    """Return [B, S] a mask of the tokens without padding; [B · C, S] of choices."""
    return batch["attention_mask"].bool().flatten(0, -2)


# ── outputs of heads ──


def logits_of(output: ModelOutput) -> Tensor:
    """Return the logits of a head: of texts [B, L], choices [B, C], tags [B, S, L], starts and ends [B, S, 2]."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    logits: Tensor = output["logits"]
    return logits


def decisions(logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits with one row per decision, [D, L], and the labels [D]; several labels per text are [D, L].

    For starts and ends L is S, and padding can never be chosen.
    """
    if "start_positions" in batch:
        padding = ~batch["attention_mask"].bool()
        rows = logits.masked_fill(padding[..., None], _NEVER).transpose(1, 2).flatten(0, 1)
        return rows, torch.stack([batch["start_positions"], batch["end_positions"]], dim=1).flatten()
    labels = batch["labels"]
    if logits.ndim == 2:
        return logits, labels
    counts = labels != IGNORED
    return logits[counts], labels[counts]


# ── losses, each summed over decisions or tokens ──


def hard_loss(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """Return the loss of [D, L] against labels, summed over the decisions that have one."""
    if problem_type == "regression":
        known = ~labels.isnan()
        return (logits.view(-1)[known] - labels[known]).square().sum()
    if problem_type == "multi_label_classification":
        known = (labels >= 0).all(-1)
        each = F.binary_cross_entropy_with_logits(logits[known], labels[known].float(), reduction="none")
        return each.mean(-1).sum()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


def soft_loss(logits: Tensor, teachers: Sequence[Tensor], temperature: float, problem_type: str) -> Tensor:
    """Return the loss of [D, L] against the logits of the teachers, each [D, L], summed over decisions.

    The factor T² keeps the size of the gradient when T changes: the softened gradient is about 1/T² of it.
    """
    if problem_type == "regression":
        return (logits - torch.stack([target.float() for target in teachers]).mean(0)).square().sum()
    if problem_type == "multi_label_classification":
        target = torch.stack([(teacher.float() / temperature).sigmoid() for teacher in teachers]).mean(0)
        scaled = logits / temperature
        cross = F.binary_cross_entropy_with_logits(scaled, target, reduction="none")
        own = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
        return temperature**2 * (cross - own).mean(-1).sum()
    target = torch.stack([(teacher.float() / temperature).softmax(-1) for teacher in teachers]).mean(0)
    return temperature**2 * F.kl_div((logits / temperature).log_softmax(-1), target, reduction="sum")


def hidden_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of [N, H] states, normalised over their width; a mean over H, summed over tokens.

    Without the norm the loss would depend on the scale of a residual stream, which reaches 2.5e7 in MobileBERT.
    """
    width = student.size(-1)
    if bf16.applies(student) and student.dtype in (torch.bfloat16, torch.float32) and not teacher.requires_grad:
        return bf16.difference(student, teacher, 1e-5)
    own, other = (F.layer_norm(states.float(), [width]) for states in (student, teacher))
    return F.mse_loss(own, other, reduction="sum") / width


def attention_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Return KL(teacher ‖ student) of attention [B, heads, S, S], a mean over heads, summed over query tokens.

    Args:
        student: probabilities of the student.
        teacher: probabilities of the teacher; where the numbers of heads differ, means over heads are compared.
        real: [B, S] a mask of the tokens without padding.
    """
    if student.size(1) != teacher.size(1):
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    student, teacher = student.float(), teacher.float()
    # Padding keys have probability 0 on both sides, which must not become 0 · log 0.
    least = torch.finfo(torch.float32).tiny
    each = torch.xlogy(teacher, teacher) - teacher * student.clamp_min(least).log()
    divergence = each.masked_fill(~real[:, None, None, :], 0.0).sum(-1)  # [B, heads, S]
    return divergence.mean(1)[real].sum()

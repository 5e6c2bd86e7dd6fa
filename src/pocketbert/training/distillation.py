"""Distillation as an objective: a student learns from what teachers make of the same tokens.

The loss of a batch is

    (1 - alpha) · hard + alpha · soft + hidden_weight · hidden + attention_weight · attention

- hard: the model's own loss on the labels; an example without a label adds nothing.
- soft: T² · KL(teacher ‖ student) of the classes at temperature T; where a number is predicted, the squared difference.

Both are means over decisions: the class of a text; the tag of every labelled token; where an answer starts and where it
ends, among the tokens that are no padding; the right choice among several.

- hidden: the squared difference of hidden states, both normalised over their width, a mean over tokens and channels.
- attention: KL(teacher ‖ student) of what each token looks at, a mean over heads and tokens.

Several teachers count alike: soft targets are the mean of their *probabilities* at temperature T (or of their numbers),
the hidden and attention terms the mean of those for each. A student of another width is projected into the teacher's
by one learned matrix for all layers (TinyBERT). Tokens that are padding count nowhere.

Sources: hard and soft, Hinton et al. 2015, https://arxiv.org/abs/1503.02531; hidden and attention, Sun et al. 2020
(MobileBERT), https://arxiv.org/abs/2004.02984, section 3.5; projection and pairs of layers, Jiao et al. 2020
(TinyBERT), https://arxiv.org/abs/1909.10351.

A bare encoder decides nothing: it learns from hidden states and attention alone, on any text.

Shapes: B batch, S sequence, N = the tokens of a batch that are no padding, L labels, C choices, D decisions, H hidden,
K teachers. Of choices, B · C inputs count as a batch of hidden states and attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.features import IGNORED
from pocketbert.models.heads import ForQuestionAnswering, ForTokenClassification
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel
from pocketbert.outputs import ModelOutput
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.settings import DistillationWeights, LayerPairs

_NEVER = -1e9  # the score of what cannot be chosen; finite, for 0 · -∞ is no number


def pair_layers(student: int, teacher: int) -> LayerPairs:
    """Which of `teacher` layers each of `student` layers learns from: evenly spread, the last from the last.

    Layers count from 1; (0, 0) are the embeddings. A deeper student repeats teachers' layers.
    """
    return ((0, 0), *((layer, max(1, layer * teacher // student)) for layer in range(1, student + 1)))


def check_pairs(pairs: LayerPairs, student: int, teacher: int) -> None:
    """Raise `ConfigError` where a pair names a layer that a student or teacher of so many layers has not."""
    for here, there in pairs:
        if not (0 <= here <= student and 0 <= there <= teacher and (here == 0) == (there == 0)):
            raise ConfigError(
                f"the pair of layers {here}:{there} does not go with a student of {student} and a teacher of {teacher} "
                "layers, which count from 1; 0:0 are the embeddings"
            )


@dataclass(frozen=True, eq=False)
class Lecture:
    """What one teacher makes of a batch; what is not needed is None."""

    logits: Tensor | None = None
    """As `logits_of` gives them."""
    hidden: tuple[Tensor, ...] | None = None
    """One a pair, [N, H]."""
    attention: tuple[Tensor, ...] | None = None
    """One a pair that is no embedding, [B, heads, S, S]."""


@torch.no_grad()  # not inference mode: what it returns is needed for the student's derivatives
def listen(
    teacher: PreTrainedModel, batch: Mapping[str, Tensor], pairs: LayerPairs, terms: DistillationWeights
) -> Lecture:
    """Run a teacher on a batch (`input_ids`, `attention_mask`, `token_type_ids`)."""
    output = teacher(
        **batch, output_hidden_states=terms.hidden_weight > 0, output_attentions=terms.attention_weight > 0
    )
    real = _real(batch)
    return Lecture(
        None if isinstance(teacher, EncoderModel) else logits_of(output),
        None if output.hidden_states is None else tuple(output.hidden_states[there][real] for _, there in pairs),
        None if output.attentions is None else tuple(output.attentions[there - 1] for _, there in pairs if there > 0),
    )


class Distillation(Objective):
    """What a student learns from labels and teachers.

    A micro-batch holds, besides the model's inputs, what is right: "labels" (of texts `IGNORED`, or NaN for numbers,
    where there is none; of tokens `IGNORED` where nothing is decided), or "start_positions" and "end_positions"; and
    what `teachers.TaughtBatches` puts there if the teachers were asked before: "teacher_logits" [B, K, …], and
    "teacher_hidden_K_P" [N, H] for teacher K and its P-th pair. Teachers that are given here are asked now.

    Args:
        model: the student: with a head for texts, tags, spans or choices, or a bare encoder.
        terms: the weights of the loss.
        pairs: for each teacher the layers (student's, teacher's) that are compared; see `pair_layers`.
        widths: for each teacher its hidden size.
        teachers: to be run beside the student; none if their outputs are in the batches. They know the student's ids
            and labels, and are neither trained nor saved.

    Raises:
        ConfigError: a pair names a layer that is not there.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        terms: DistillationWeights,
        *,
        pairs: Sequence[LayerPairs],
        widths: Sequence[int],
        teachers: Sequence[PreTrainedModel] = (),
    ) -> None:
        super().__init__(model)
        self.terms, self.pairs = terms, list(pairs)
        self.kind: str = model.config.problem_type or "single_label_classification"
        self.teachers = tuple(teacher.eval() for teacher in teachers)  # a tuple registers no modules
        self.projections = nn.ModuleList()
        if terms.hidden_weight > 0:
            own = model.config.hidden_size
            for width in widths:
                self.projections.append(nn.Identity() if width == own else nn.Linear(own, width, bias=False))

    def units(self, batch: Batch) -> dict[str, int]:
        """Examples, tokens that are no padding, and decisions."""
        examples = decided = len(batch["input_ids"])
        if isinstance(self.model, ForQuestionAnswering):
            decided = 2 * examples
        elif isinstance(self.model, ForTokenClassification):
            decided = int((batch["labels"] != IGNORED).sum())
        return {"examples": examples, "tokens": int(batch["attention_mask"].sum()), "decisions": decided}

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The micro-batch's share of the loss, and of its terms."""
        terms = self.terms
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        lectures = self._lectures(batch, inputs)
        output = self.model(
            **inputs, output_hidden_states=terms.hidden_weight > 0, output_attentions=terms.attention_weight > 0
        )
        scalars: dict[str, Tensor] = {}
        if not isinstance(self.model, EncoderModel):
            logits, right = decisions(logits_of(output).float(), batch)
            if terms.alpha < 1:
                scalars["hard"] = hard_loss(logits, right, self.kind) / totals["decisions"]
            if terms.alpha > 0:
                said = [decisions(one.logits, batch)[0] for one in lectures if one.logits is not None]
                scalars["soft"] = soft_loss(logits, said, terms.temperature, self.kind) / totals["decisions"]
        real = _real(batch)
        if terms.hidden_weight > 0:
            losses = [
                hidden_loss(projection(output.hidden_states[here][real]), theirs)
                for lecture, projection, layers in zip(lectures, self.projections, self.pairs, strict=True)
                for (here, _), theirs in zip(layers, lecture.hidden or (), strict=True)
            ]
            scalars["hidden"] = torch.stack(losses).mean() / totals["tokens"]
        if terms.attention_weight > 0:
            losses = [
                attention_loss(output.attentions[here - 1], theirs, real)
                for lecture, layers in zip(lectures, self.pairs, strict=True)
                for (here, _), theirs in zip([p for p in layers if p[1] > 0], lecture.attention or (), strict=True)
            ]
            scalars["attention"] = torch.stack(losses).mean() / totals["tokens"]
        weights = {
            "hard": 1 - terms.alpha, "soft": terms.alpha,
            "hidden": terms.hidden_weight, "attention": terms.attention_weight,
        }  # fmt: skip
        loss = torch.stack([weights[name] * value for name, value in scalars.items()]).sum()
        return {"loss": loss, **scalars}

    def _lectures(self, batch: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> list[Lecture]:
        if self.teachers:
            return [
                listen(teacher, inputs, pairs, self.terms)
                for teacher, pairs in zip(self.teachers, self.pairs, strict=True)
            ]
        return [
            Lecture(
                batch["teacher_logits"][:, number],
                tuple(batch[f"teacher_hidden_{number}_{p}"] for p in range(len(pairs)))
                if self.terms.hidden_weight > 0
                else None,
            )
            for number, pairs in enumerate(self.pairs)
        ]


def _real(batch: Mapping[str, Tensor]) -> Tensor:
    """[B, S] which tokens are no padding; choices stand one under the other, [B · C, S]."""
    return batch["attention_mask"].bool().flatten(0, -2)


# ── what heads decide ──


def logits_of(output: ModelOutput) -> Tensor:
    """What a head says: of texts [B, L], of choices [B, C], of tags [B, S, L], of starts and ends [B, S, 2]."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    logits: Tensor = output["logits"]
    return logits


def decisions(logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits as one row a decision, [D, L], and what is right [D]: of several labels [D, L].

    Of starts and ends L is S, and padding can never be chosen.
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


# ── the terms, each summed over decisions or tokens ──


def hard_loss(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """The loss of [D, L] against labels, summed over the decisions that have one."""
    if problem_type == "regression":
        known = ~labels.isnan()
        return (logits.view(-1)[known] - labels[known]).square().sum()
    if problem_type == "multi_label_classification":
        known = (labels >= 0).all(-1)
        each = F.binary_cross_entropy_with_logits(logits[known], labels[known].float(), reduction="none")
        return each.mean(-1).sum()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


def soft_loss(logits: Tensor, teachers: Sequence[Tensor], temperature: float, problem_type: str) -> Tensor:
    """How far [D, L] is from what the teachers say, each [D, L], summed over decisions.

    The factor T² keeps the size of the gradient when T changes: the softened one is about 1/T² of it.
    """
    if problem_type == "regression":
        return (logits - torch.stack([theirs.float() for theirs in teachers]).mean(0)).square().sum()
    if problem_type == "multi_label_classification":
        target = torch.stack([(theirs.float() / temperature).sigmoid() for theirs in teachers]).mean(0)
        scaled = logits / temperature
        cross = F.binary_cross_entropy_with_logits(scaled, target, reduction="none")
        own = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
        return temperature**2 * (cross - own).mean(-1).sum()
    target = torch.stack([(theirs.float() / temperature).softmax(-1) for theirs in teachers]).mean(0)
    return temperature**2 * F.kl_div((logits / temperature).log_softmax(-1), target, reduction="sum")


def hidden_loss(mine: Tensor, theirs: Tensor) -> Tensor:
    """Squared difference of [N, H] and [N, H], each normalised over its width; a mean over H, summed over tokens.

    Without the norm the loss would hang on the scale of a residual stream, which reaches 2.5e7 in MobileBERT.
    """
    width = [mine.size(-1)]
    return (F.layer_norm(mine.float(), width) - F.layer_norm(theirs.float(), width)).square().mean(-1).sum()


def attention_loss(mine: Tensor, theirs: Tensor, real: Tensor) -> Tensor:
    """KL(theirs ‖ mine) of the probabilities [B, heads, S, S], a mean over heads, summed over the tokens that look.

    `real` [B, S] says which tokens are no padding. Where the numbers of heads differ, their means are compared.
    """
    if mine.size(1) != theirs.size(1):
        mine, theirs = mine.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    mine, theirs = mine.float(), theirs.float()
    # A key that is padding has probability 0 on both sides: it must not become 0 · log 0.
    least = torch.finfo(torch.float32).tiny
    each = torch.xlogy(theirs, theirs) - theirs * mine.clamp_min(least).log()
    looks = each.masked_fill(~real[:, None, None, :], 0.0).sum(-1)  # [B, heads, S]
    return looks.mean(1)[real].sum()

"""The objective of general distillation: an encoder is trained on its teachers' states for raw text, without labels.

The loss of a batch is

    hidden_weight · hidden + attention_weight · attention + relation_weight · relation + sentence_weight · sentence
    + word_weight · masked + pair_weight · pair

- hidden: the squared difference of hidden states, both normalised over their width (LN0, a layer norm without gain and
  bias), a mean over the pairs (s, t) of layers, tokens and channels: mean (LN0(H_s) - LN0(H_t))².
- attention: KL(teacher ‖ student) of the attention of each token, a mean over pairs of layers, heads and tokens.
- relation: KL(teacher ‖ student) of the relations of tokens in the last layers, a mean over queries, keys and values X,
  relation heads and tokens: softmax(X Xᵀ / √d), where X [tokens, d] is the part of a relation head. The widths of all
  heads are cut into relation heads, so that neither widths nor heads need to agree (MiniLMv2, Wang et al. 2020,
  https://arxiv.org/abs/2012.15828).
- sentence: 1 - cos(mean of H_s, mean of H_t), the means over the tokens of an example in the last layers, a mean over
  examples. Sentence encoders compare texts by this cosine (Reimers and Gurevych 2019,
  https://arxiv.org/abs/1908.10084); as a loss beside others, Sanh et al. 2019, https://arxiv.org/abs/1910.01108.
- masked: the cross entropy of masked words (Devlin et al. 2018), a mean over masked positions. A masked copy of some of
  the examples of a batch goes through the student as well; the teachers do not read it.
- pair: the squared error of the student's prediction how alike its teacher finds the two texts of a pair
  (`pair_loss`), a mean over pairs.

Layer-local training compares hidden states alone, and gives each layer the teacher's input instead of the student's:
for consecutive pairs (s', t') and (s, t), layers s'+1 … s read H_t' of the teacher and learn H_t. All layers learn at
once from one pass of the teacher, and no gradient goes from one part to another: MobileBERT's progressive transfer
(Sun et al. 2020, section 3.6) without its order. The pair (0, 0) compares the embeddings.

Several teachers have equal weights. A student of another width is projected to a teacher's width by one trained matrix
for all layers and sentences. Sources of the other terms: see `training.distillation`.

Batches are packed (`tasks.raw_text`): all examples end to end, without padding, so that states are compared where they
are. Shapes: N tokens, E examples, H hidden, M masked positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.models.cpu import largest
from pocketbert.models.heads import WordHead
from pocketbert.models.init_from_teacher import common_name
from pocketbert.models.ops import Packing
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distillation import attention_loss, hidden_loss
from pocketbert.training.engine_teachers import EngineTeacher
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.pair_loss import PairHead, pair_loss, pairs_of
from pocketbert.training.pretraining import packing_of
from pocketbert.training.settings import EncoderWeights, LayerPairs
from pocketbert.training.transfer import LayerOutputs, embed, run_layers


class EncoderDistillation(Objective):
    """Distillation of an encoder on packed raw text.

    A micro-batch holds `input_ids`, `token_type_ids` and `position_ids` [N] and `starts` [E + 1]; with `word_weight`
    also the masked copies of the first examples: `copy_ids` [tokens], `copy_starts` [copies + 1], `masked_positions`
    [M] into the copies, and `masked_labels` [M].

    Args:
        model: the student: an encoder, or with `word_weight` a …ForMaskedLM.
        weights: the weights of the losses.
        pairs: per teacher, the pairs of layers (student's, teacher's) to compare.
        teachers: the teachers, which are neither trained nor saved.
        layer_local: whether each layer reads its teacher's states.
        engines: the same teachers on the engine, which then runs them; not for the losses of attention and relations.

    Raises:
        ConfigError: widths, pairs or heads do not fit layer-local training or relations.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weights: EncoderWeights,
        *,
        pairs: Sequence[LayerPairs],
        teachers: Sequence[PreTrainedModel],
        layer_local: bool = False,
        engines: Sequence[EngineTeacher] = (),
    ) -> None:
        super().__init__(model)
        if layer_local:
            check_layer_local(model, pairs, teachers)
        if weights.relation_weight > 0:
            for one in (model, *teachers):
                check_relations(one, weights.relation_heads)
        self.layer_local, self.engines = layer_local, list(engines)
        self.weights, self.pairs = weights, list(pairs)
        self.teachers = tuple(teacher.eval() for teacher in teachers)  # a tuple registers no modules
        self.projections = nn.ModuleList()
        if weights.hidden_weight > 0 or weights.sentence_weight > 0:
            own = model.config.hidden_size
            for teacher in teachers:
                width = teacher.config.hidden_size
                self.projections.append(nn.Identity() if width == own else nn.Linear(own, width, bias=False))
        self.pair_head = PairHead(model.config.hidden_size) if weights.pair_weight > 0 else None

    def units(self, batch: Batch) -> dict[str, int]:
        """Return the numbers of examples, tokens, masked positions and pairs."""
        return {
            "examples": len(batch["starts"]) - 1,
            "tokens": len(batch["input_ids"]),
            "masked": len(batch.get("masked_labels", ())),
            "pairs": 0 if self.pair_head is None else len(pairs_of(batch)),
        }

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the micro-batch's share of the loss, and of its terms."""
        if self.layer_local:
            return self._layer_local(batch, totals)
        model: Any = self.model
        with_attention = self.weights.attention_weight > 0
        packing, tokens = packing_of(batch), len(batch["input_ids"])
        # One lookup for the copies as well: the gradient of the table of words costs more than its few rows suggest.
        whole = with_copies(batch) if "copy_ids" in batch else batch
        embedded = embed(model, whole, packing_of(whole)).split([tokens, len(whole["input_ids"]) - tokens], dim=1)
        layers = model.config.num_hidden_layers
        with recorded(model, self.weights.relation_weight > 0) as relations:
            student = run_layers(model, batch, packing, layers, with_attention=with_attention, embedded=embedded[0])
        terms: dict[str, list[Tensor]] = {}
        for number, (teacher, pairs) in enumerate(zip(self.teachers, self.pairs, strict=True)):
            with recorded(teacher, self.weights.relation_weight > 0) as targets:
                target = self._run_teacher(
                    number, batch, packing, teacher.config.num_hidden_layers, with_attention=with_attention
                )
            if targets:
                losses = [
                    relation_loss(own, other, packing, self.weights.relation_heads)
                    for own, other in zip(relations, targets, strict=True)
                ]
                terms.setdefault("relation", []).append(torch.stack(losses).mean() / totals["tokens"])
            for name, value in self._compare(student, target, number, pairs, packing, totals).items():
                terms.setdefault(name, []).append(value)
            if self.pair_head is not None:
                loss = pair_loss(self.pair_head, student.states[-1][0], batch, partial(self._vectors, number))
                terms.setdefault("pair", []).append(loss / max(1, totals["pairs"]))
        shares = {name: torch.stack(values).mean() for name, values in terms.items()}
        if "copy_ids" in batch:
            copies = Packing.of(batch["copy_starts"], int(batch["copy_starts"].diff().max()))
            read = run_layers(model, batch, copies, layers, with_attention=False, embedded=embedded[1])
            shares |= masked_losses(model, read.states[-1][0], batch, totals)
        return {"loss": self._weighted(shares), **shares}

    def _compare(
        self,
        student: LayerOutputs,
        teacher: LayerOutputs,
        number: int,
        pairs: LayerPairs,
        packing: Packing,
        totals: Mapping[str, int],
    ) -> dict[str, Tensor]:
        """Return the terms for teacher `number`."""
        weights = self.weights
        terms: dict[str, Tensor] = {}
        if weights.hidden_weight > 0:
            project = self.projections[number]
            losses = [hidden_loss(project(student.states[own][0]), teacher.states[other][0]) for own, other in pairs]
            terms["hidden"] = torch.stack(losses).mean() / totals["tokens"]
        if weights.attention_weight > 0:
            losses = [
                attention_loss(student.attention[own - 1], teacher.attention[other - 1], packing.real)
                for own, other in pairs
                if other > 0
            ]
            terms["attention"] = torch.stack(losses).mean() / totals["tokens"]
        if weights.sentence_weight > 0:
            own = self.projections[number](mean_pool(student.states[-1][0], packing))
            terms["sentence"] = sentence_loss(own, mean_pool(teacher.states[-1][0], packing)) / totals["examples"]
        return terms

    def _layer_local(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the share of the loss in which every part between two pairs reads the teacher's states."""
        model: Any = self.model
        packing, encoder = packing_of(batch), model.base_model
        [pairs] = self.pairs
        states = self._run_teacher(0, batch, packing, max(other for _, other in pairs), with_attention=False).states
        losses, done, read = [], 0, 0
        shared = encoder.shared_by_layers(packing.real.size(1))
        for own, other in pairs:
            if own == 0:
                hidden = embed(model, batch, packing)
            else:
                hidden = states[read]
                for layer in encoder.layers[done:own]:
                    hidden, _ = layer(hidden, packing, False, *shared)
            losses.append(hidden_loss(hidden[0], states[other][0]))
            done, read = own, other
        share = torch.stack(losses).mean() / totals["tokens"]
        return {"loss": self.weights.hidden_weight * share, "hidden": share}

    @torch.no_grad()  # not inference mode: the student's gradients need these tensors
    def _run_teacher(
        self, number: int, batch: Mapping[str, Tensor], packing: Packing, layers: int, *, with_attention: bool
    ) -> LayerOutputs:
        """Return the outputs of the first layers of teacher `number`."""
        if self.engines:
            return LayerOutputs(self.engines[number].states(batch), [])
        return run_layers(self.teachers[number], batch, packing, layers, with_attention=with_attention)

    def _vectors(self, number: int, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean last states [E, H] of teacher `number` for the examples of a packed batch."""
        packing = packing_of(batch)
        layers = self.teachers[number].config.num_hidden_layers
        return mean_pool(self._run_teacher(number, batch, packing, layers, with_attention=False).states[-1][0], packing)

    def _weighted(self, shares: Mapping[str, Tensor]) -> Tensor:
        weights = self.weights
        factors = {
            "hidden": weights.hidden_weight, "attention": weights.attention_weight,
            "relation": weights.relation_weight, "sentence": weights.sentence_weight, "masked": weights.word_weight,
            "pair": weights.pair_weight,
        }  # fmt: skip
        return torch.stack([factor * shares[name] for name, factor in factors.items() if name in shares]).sum()


def with_copies(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of a batch with the masked copies of its first examples behind them."""
    copied = len(batch["copy_ids"])
    inputs = {name: torch.cat([batch[name], batch[name][:copied]]) for name in ("token_type_ids", "position_ids")}
    starts = torch.cat([batch["starts"], batch["starts"][-1] + batch["copy_starts"][1:]])
    return {"input_ids": torch.cat([batch["input_ids"], batch["copy_ids"]]), "starts": starts, **inputs}


# ── checks ──


def check_layer_local(model: PreTrainedModel, pairs: Sequence[LayerPairs], teachers: Sequence[PreTrainedModel]) -> None:
    """Raise `ConfigError` where layers cannot read the states of one teacher of the same width, part after part."""
    if len(teachers) != 1:
        raise ConfigError(f"--layer-local gives layers the inputs of one teacher, not of {len(teachers)}")
    own, other = model.config.hidden_size, teachers[0].config.hidden_size
    if own != other:
        raise ConfigError(f"--layer-local needs a student as wide as its teacher: {own} and {other} differ")
    for before, pair in pairwise(pairs[0]):
        if not (before[0] < pair[0] and before[1] < pair[1]):
            written = ",".join(f"{a}:{b}" for a, b in pairs[0])
            raise ConfigError(
                f"--layer-local needs layers that increase in student and teacher, and {written} do not: name others "
                "with --layers"
            )


def check_relations(model: PreTrainedModel, heads: int) -> None:
    """Raise `ConfigError` where queries, keys and values cannot be cut into `heads` relation heads."""
    for module in last_projections(model):
        weight: Any = module.weight
        width = weight.size(0)
        if width % heads:
            raise ConfigError(
                f"--relation-heads {heads} must divide the width of queries, keys and values, which is {width} in a "
                f"{type(model).__name__}"
            )


# ── relations of tokens ──


def last_projections(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules of the last layer that compute queries, keys and values."""
    names = {common_name(name, model): name for name, _ in model.base_model.named_parameters()}
    last = f"encoder.layer.{model.config.num_hidden_layers - 1}.attention.self"
    wanted = [names[f"{last}.{part}.weight"] for part in ("query", "key", "value")]
    return [model.base_model.get_submodule(name.removesuffix(".weight")) for name in wanted]


@contextmanager
def recorded(model: PreTrainedModel, wanted: bool) -> Iterator[list[Tensor]]:
    """Record the queries, keys and values [1, N, width] of the last layer in the block, if wanted."""
    outputs: list[Tensor] = []
    modules = last_projections(model) if wanted else []
    hooks = [module.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def relation_loss(student: Tensor, teacher: Tensor, packing: Packing, heads: int) -> Tensor:
    """Return KL(teacher ‖ student) of relations of [1, N, width] states, a mean over heads, summed over tokens."""
    own, other = (log_relations(states, packing, heads) for states in (student, teacher))
    divergence = (other.exp() * (other - own)).sum(-1)  # [E, heads, longest]
    return divergence.mean(1)[packing.real].sum()


def log_relations(states: Tensor, packing: Packing, heads: int) -> Tensor:
    """Return the logarithms of relations [E, heads, longest, longest] in fp32; those to padding are finite."""
    x = packing.pad(states).unflatten(-1, (heads, -1)).transpose(1, 2)  # [E, heads, longest, d]
    scores = (x @ x.transpose(-1, -2)).float() / math.sqrt(x.size(-1))
    return scores.masked_fill(~packing.real[:, None, None], torch.finfo(torch.float32).min / 2).log_softmax(-1)


# ── losses ──


def mean_pool(hidden: Tensor, packing: Packing) -> Tensor:
    """Return the means [E, H] of [N, H] over the tokens of each example, special tokens included, in fp32."""
    lengths = packing.starts.diff()
    if packing.full:
        return hidden.view(len(lengths), -1, hidden.size(-1)).float().mean(1)
    examples = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
    sums = hidden.new_zeros(len(lengths), hidden.size(-1), dtype=torch.float32).index_add(0, examples, hidden.float())
    return sums / lengths[:, None]


def sentence_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cosine of vectors [E, H], summed over examples."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).sum()


def masked_losses(
    model: WordHead, hidden: Tensor, batch: Mapping[str, Tensor], totals: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return shares of the loss and the accuracy of masked words, from the states [tokens, H] of the copies."""
    labels, masked = batch["masked_labels"], max(1, totals["masked"])
    scores = model.score_words(hidden[batch["masked_positions"]]).float()  # [M, V]
    return {
        "masked": F.cross_entropy(scores, labels, reduction="sum") / masked,
        "masked_accuracy": (largest(scores) == labels).sum() / masked,
    }

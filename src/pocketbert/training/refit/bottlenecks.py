"""MobileBERT's layers, fitted to those of a BERT: several thin layers share the heads and units of one.

With P layers of the student for a layer of the teacher, each has 1/P of its heads and units, and a width inside of as
many heads. The residual stream has the teacher's width. Let x be the teacher's hidden states before its layer,
aᵢ and fᵢ what the heads and units of part i add, and

    h = γ · (x + a₁ + … + a_P - mean) / deviation + β

its hidden states after attention. The stream after part j < P should be

    uⱼ = h + f₁ + … + fⱼ, with only the first j of the a's in h

and after part P the teacher's hidden states. Each matrix is fitted to what the student really has at that place:

- the bottleneck of queries and keys has the directions of the stream that tell most about both: the best regression
  whose rank is the width inside; queries and keys are fitted to its output, values to the stream;
- the input bottleneck and the output of attention add up to the directions of stream and context that tell most about
  the units, weighted by what these add to the output, and about the sum that the part should add to the stream;
- units are fitted to the teacher's; all networks of a stack compute the same ones, each from what it gets;
- their outputs are chosen so that the best regression of that sum, whose rank is the width inside, can be read;
- the output bottleneck is fitted to that sum, and the norm behind it to uⱼ.

Norms inside the bottleneck have gain 1: the directions above have a variance of 1.

Shapes: N tokens of a batch, H stream, T inside, I units, E embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.families.mobilebert import MobileBertConfig
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.mobilebert import MobileBertEmbeddings, MobileBertLayer
from pocketbert.models.ops import Packing, attend
from pocketbert.models.pretrained import EncoderModel
from pocketbert.training.refit.bert_layers import BertLayer, bert_layers, bias_of, full_weight
from pocketbert.training.refit.least_squares import RIDGE, Moments, NormFit
from pocketbert.training.refit.text import Advance, Batches, Text

_SLOPE = 0.5  # of the activation, roughly: how much of an error of a unit is left behind it
_LEAST_GAIN = 0.1  # of the mean gain of a norm; a channel with less would need sums without limit
_STABLE = 1e-2  # of the mean square of what is read of the inner state: below it a direction is not made larger


def refit_bottlenecks(
    student: EncoderModel, teacher: EncoderModel, sources: Sequence[int], batches: Batches, console: Console | None
) -> None:
    """Initialise a MobileBERT: see `refit_from_teacher`."""
    config = student.config
    assert isinstance(config, MobileBertConfig)
    parts = [sources.count(source) for source in sources]
    teacher_layers = bert_layers(teacher)
    _check(config, teacher, set(parts))
    init_from_teacher(student, teacher, [])
    _set_embeddings(student.embeddings, teacher, batches)  # type: ignore[arg-type]
    text = Text.of(batches, teacher, student, console)
    finished, passes = 0, 5 + 2 * config.num_feedforward_networks
    with text.counting(passes * len(sources)) as advance:
        for source in dict.fromkeys(sources):
            for passed in teacher_layers[finished : source - 1]:
                text.pass_teacher(passed)
            finished = source
            whole = _Whole(teacher_layers[source - 1], text, sources.count(source))
            for i in (i for i, other in enumerate(sources) if other == source):
                _Part(student.layers[i], whole, config, f"layer {i + 1}", advance).run()  # type: ignore[arg-type]
            text.teacher = whole.after


def _check(config: MobileBertConfig, teacher: EncoderModel, parts: set[int]) -> None:
    """Raise `ConfigError` where the student does not have the shape of a part of the teacher's layers."""
    theirs = teacher.config
    if len(parts) > 1:
        raise ConfigError(
            f"--init refit divides every layer of the teacher into as many: {config.num_hidden_layers} layers are "
            f"not a multiple of {theirs.num_hidden_layers}"
        )
    [count] = parts
    wanted = {
        "hidden_size": theirs.hidden_size,
        "num_attention_heads": theirs.num_attention_heads / count,
        "intra_bottleneck_size": theirs.hidden_size / count,
        "intermediate_size": theirs.intermediate_size / count,
        "hidden_act": theirs.hidden_act,
        "normalization_type": "layer_norm",
        "use_bottleneck": True,
        "use_bottleneck_attention": False,
        "key_query_shared_bottleneck": True,
    }
    for name, value in wanted.items():
        own = getattr(config, name)
        if own != value:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise ConfigError(
                f"--init refit of {config.num_hidden_layers} layers from {theirs.num_hidden_layers} of "
                f"{theirs.hidden_size} channels, {theirs.num_attention_heads} heads and {theirs.intermediate_size} "
                f"units needs {name}={shown}, not {own}"
            )


@torch.no_grad()
def _set_embeddings(embeddings: MobileBertEmbeddings, teacher: EncoderModel, batches: Batches) -> None:
    """Set word embeddings and their widening: those principal components of the teacher's that E has room for.

    Words count as often as they occur. Neighbours begin without influence.
    """
    table = teacher.get_input_embeddings().weight.double().cpu()  # [V, H]
    own = embeddings.word_embeddings.weight
    if not embeddings.widens:
        own.copy_(table)
        return
    counts = torch.ones(len(table), dtype=torch.float64)
    for batch in batches:
        counts += torch.bincount(batch["input_ids"].cpu(), minlength=len(table))
    mean, directions = torch.zeros(table.size(1), dtype=table.dtype), torch.eye(table.size(1), dtype=table.dtype)
    if own.size(1) < table.size(1):
        share = (counts / counts.sum())[:, None]
        mean = (share * table).sum(0)
        centred = table - mean
        directions = torch.linalg.eigh(centred.T @ (share * centred))[1][:, -own.size(1) :]  # [H, E]
    own.copy_((table - mean) @ directions)
    layer = embeddings.embedding_transformation
    layer.weight.zero_()
    middle = own.size(1) if embeddings.trigram else 0  # columns are those of the next token, the token, the one before
    layer.weight[:, middle : middle + own.size(1)] = directions
    layer.bias.copy_(mean)


class _Whole:
    """A layer of the teacher, and for every batch of text what its parts have added so far."""

    def __init__(self, layer: BertLayer, text: Text, parts: int) -> None:
        self.layer, self.text, self.parts, self.finished = layer, text, parts, 0
        self.middle, self.after = list[Tensor](), list[Tensor]()  # hidden states after attention, after the layer
        self.center, self.spread = list[Tensor](), list[Tensor]()  # of the sum before the first norm [1, N, 1]
        self.added = list[Tensor]()  # Σ γ a / deviation + f over all finished parts
        self.gain, self.shift = full_weight(layer.attention_norm), bias_of(layer.attention_norm)
        for x, packing in zip(text.teacher, text.packings, strict=True):
            total = layer.attention_output(layer.attention(x, packing)) + x
            self.center.append(total.mean(-1, keepdim=True))
            self.spread.append(total.std(-1, keepdim=True, correction=0))
            self.middle.append(layer.attention_norm(total))
            self.after.append(layer.after_units(self.middle[-1]))
            self.added.append(torch.zeros_like(x))
        self.scale = float(self.gain.mean()) / float(torch.cat(self.spread, 1).mean())

    def rows(self, size: int) -> slice:
        """Return the share of the current part of so many rows."""
        count = size // self.parts
        return slice(self.finished * count, (self.finished + 1) * count)

    def projected(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the rows of the current part of a linear layer's output."""
        weight, bias = full_weight(module), bias_of(module)
        rows = self.rows(len(bias))
        return F.linear(x, weight[rows], bias[rows])

    def add_part(self) -> None:
        """Add what the current part adds, so that `sums` returns what the stream should be after it."""
        layer, width = self.layer, self.middle[0].size(-1)
        first = self.finished == 0  # has the biases
        attention, output = full_weight(layer.attention_output), full_weight(layer.output)
        heads, units = self.rows(width), self.rows(output.size(1))
        for i, (x, packing) in enumerate(zip(self.text.teacher, self.text.packings, strict=True)):
            query, key, value = (self.projected(part, x) for part in (layer.query, layer.key, layer.value))
            context = attend(query, key, value, layer.heads // self.parts, packing, 0.0, False)[0]
            a = context @ attention[:, heads].T
            f = layer.activation(self.units(i)) @ output[:, units].T
            if first:
                a, f = a + bias_of(layer.attention_output), f + bias_of(layer.output)
            self.added[i] += a * self.gain / self.spread[i] + f

    def units(self, batch: int) -> Tensor:
        """Return the units of the current part before the activation."""
        return self.projected(self.layer.intermediate, self.middle[batch])

    def sums(self, batch: int) -> Tensor:
        """Return what the stream and the current part should add up to, before the norm.

        Until the first part the stream has not passed the teacher's first norm: that is the norm behind this part.
        """
        if self.finished > 0:
            return self._partial(batch)
        gain = self.gain.abs().clamp_min(_LEAST_GAIN * float(self.gain.abs().mean())) * self.gain.sign()
        return self.text.teacher[batch] + self.added[batch] * self.spread[batch] / gain

    def stream(self, batch: int) -> Tensor:
        """Return what the stream should be after the current part."""
        return self.after[batch] if self.finished == self.parts - 1 else self._partial(batch)

    def _partial(self, batch: int) -> Tensor:
        """Return the hidden states with what all parts so far have added."""
        normed = (self.text.teacher[batch] - self.center[batch]) / self.spread[batch]
        return normed * self.gain + self.shift + self.added[batch]


class _Part:
    """One layer of the student, as a part of a layer of the teacher."""

    def __init__(
        self, layer: MobileBertLayer, whole: _Whole, config: MobileBertConfig, name: str, advance: Advance
    ) -> None:
        self.layer, self.whole, self.name, self.advance = layer, whole, name, advance
        self.width, self.inside, self.units = config.hidden_size, config.true_hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.device = whole.middle[0].device

    def run(self) -> None:
        """Fit all matrices, and replace the student's hidden states by those after the layer."""
        self._attention_inputs()
        self.whole.add_part()
        inner = self._input()
        layer: Any = self.layer
        for network in (*layer.ffn, layer):
            inner = self._network(network, inner)
        self._output(inner)
        self.whole.finished += 1

    def _batches(self) -> Iterator[tuple[int, Tensor, Packing]]:
        """Yield number, stream [1, N, H] and packing of each batch."""
        for i, packing in enumerate(self.whole.text.packings):
            yield i, self.whole.text.student[i], packing
            self.advance()

    def _moments(self, inputs: int, targets: int) -> Moments:
        return Moments(inputs, targets, device=self.device)

    def _missing(self, batch: int, stream: Tensor) -> Tensor:
        """Return [N, H] what the layer should add to the stream."""
        return (self.whole.sums(batch) - stream)[0]

    def _attention_inputs(self) -> None:
        """Fit the bottleneck of queries and keys, both, and values."""
        layer, teacher, inside = self.layer, self.whole.layer, self.inside
        attention: Any = layer.attention["self"]
        moments = self._moments(self.width, 3 * inside)

        def targets(i: int) -> list[Tensor]:
            x = self.whole.text.teacher[i]
            return [self.whole.projected(part, x)[0] for part in (teacher.query, teacher.key, teacher.value)]

        for i, stream, _ in self._batches():
            moments.add(stream[0], torch.cat(targets(i), 1))
        covariance = moments.covariance(f"{self.name}, queries, keys and values")
        values = covariance.rows(torch.arange(2 * inside, 3 * inside))
        prior = full_weight(teacher.value)[self.whole.rows(self.width)]
        _assign(attention.value, *values.solve(prior, RIDGE))
        directions = covariance.rows(torch.arange(2 * inside)).directions(inside, RIDGE)
        bottleneck: Any = layer.bottleneck["attention"]
        _assign(bottleneck.dense, directions, -directions @ covariance.x_mean)
        _neutral(bottleneck.LayerNorm)
        moments = self._moments(inside, 2 * inside)
        for i, stream, _ in self._batches():
            moments.add(bottleneck(stream)[0], torch.cat(targets(i)[:2], 1))
        weight, bias = moments.covariance(f"{self.name}, queries and keys").solve(
            torch.zeros(2 * inside, inside), RIDGE
        )
        _assign(attention.query, weight[:inside], bias[:inside])
        _assign(attention.key, weight[inside:], bias[inside:])

    def _input(self) -> list[Tensor]:
        """Fit input bottleneck and output of attention; return the output of both [1, N, T]."""
        layer, width, inside = self.layer, self.width, self.inside
        bottleneck: Any = layer.bottleneck["input"]
        attention: Any = layer.attention["output"]
        output = full_weight(self.whole.layer.output)[:, self.whole.rows(self.units * self.whole.parts)]
        weight = _SLOPE * output.norm(dim=0)  # [I] what an error of a unit does to the output
        scale = self.whole.scale if self.whole.finished == 0 else 1.0
        moments, contexts = self._moments(width + inside, self.units + width), list[Tensor]()
        for i, stream, packing in self._batches():
            contexts.append(self._context(stream, packing))
            targets = torch.cat([self.whole.units(i)[0] * weight, self._missing(i, stream) * scale], 1)
            moments.add(torch.cat([stream[0], contexts[-1][0]], 1), targets)
        covariance = moments.covariance(f"{self.name}, input")
        directions = covariance.directions(inside, RIDGE)  # [T, H + T]
        first, second = directions[:, :width], directions[:, width:]
        mean = covariance.x_mean
        _assign(bottleneck.dense, first, -first @ mean[:width])
        deviation = (first @ covariance.xx[0][:width, :width] @ first.T).diagonal().mean().sqrt()
        _assign(attention.dense, second / deviation, -second @ mean[width:] / deviation)
        for module in (bottleneck, attention):
            _neutral(module.LayerNorm)
        streams = self.whole.text.student
        return [attention(context, bottleneck(stream)) for context, stream in zip(contexts, streams, strict=True)]

    def _context(self, stream: Tensor, packing: Packing) -> Tensor:
        """Return the context of the student's heads [1, N, T]."""
        layer: Any = self.layer
        attention = layer.attention["self"]
        narrow = layer.bottleneck["attention"](stream)
        query, key, value = attention.query(narrow), attention.key(narrow), attention.value(stream)
        return attend(query, key, value, self.heads, packing, 0.0, False)[0]

    def _network(self, network: Any, inner: list[Tensor]) -> list[Tensor]:
        """Fit a feed-forward network; return its output for `inner` [1, N, T]."""
        up, down = network.intermediate["dense"], network.output["dense"]
        moments = self._moments(self.inside, self.units)
        for i, _, _ in self._batches():
            moments.add(inner[i][0], self.whole.units(i)[0])
        _assign(up, *moments.covariance(f"{self.name}, units").solve(torch.zeros(self.units, self.inside), RIDGE))
        moments = self._moments(self.inside + self.units, self.width)
        for i, stream, _ in self._batches():
            both = torch.cat([inner[i][0], network.activation(up(inner[i]))[0]], 1)
            moments.add(both, self._missing(i, stream))
        covariance = moments.covariance(f"{self.name}, output of units")
        whole, _ = covariance.solve(torch.zeros(self.width, self.inside + self.units), RIDGE)  # [H, T + I]
        axes = torch.linalg.eigh(whole @ covariance.xx[0] @ whole.T)[1][:, -self.inside :]  # [H, T]
        straight, through = (axes.T @ whole).split([self.inside, self.units], 1)  # [T, T] and [T, I]
        # What is read is straight · (inner + down(units)): down is straight⁻¹ · through, as far as that is stable.
        gram = straight.T @ straight
        damped = gram + _STABLE * gram.diagonal().mean() * torch.eye(self.inside, dtype=gram.dtype)
        weight = torch.linalg.solve(damped, straight.T @ through)
        _assign(down, weight, -weight @ covariance.x_mean[self.inside :])
        _neutral(network.output["LayerNorm"])
        return [network.output["LayerNorm"](down(network.activation(up(x))) + x) for x in inner]

    def _output(self, inner: list[Tensor]) -> None:
        """Fit the output bottleneck, and move the stream on."""
        out: Any = self.layer.output["bottleneck"]
        moments = self._moments(self.inside, self.width)
        for i, stream, _ in self._batches():
            moments.add(inner[i][0], self._missing(i, stream))
        _assign(
            out.dense, *moments.covariance(f"{self.name}, output").solve(torch.zeros(self.width, self.inside), RIDGE)
        )
        fit = NormFit(self.width, self.device)
        for i, stream, _ in self._batches():
            fit.add((out.dense(inner[i]) + stream)[0], self.whole.stream(i)[0])
        fit.set(out.LayerNorm)
        streams = self.whole.text.student
        self.whole.text.student = [out(x, stream) for x, stream in zip(inner, streams, strict=True)]


def _assign(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})


def _neutral(norm: nn.Module) -> None:
    nn.init.ones_(norm.weight)  # type: ignore[arg-type]
    nn.init.zeros_(norm.bias)  # type: ignore[arg-type]

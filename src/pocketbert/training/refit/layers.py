"""Layers with BERT's parts (BERT's and SqueezeBERT's), refitted to a teacher's, one after the other.

Each matrix is fitted to the inputs that the student really has, and to what its teacher computes for the same text:

- queries, keys and values → the teacher's;
- the output of attention → the teacher's sum of attention and residual, minus the student's residual;
- units of the feed-forward network → the teacher's, before the activation;
- its output → the teacher's sum, minus the student's residual.

So every error made so far is a part of the next target. Before a matrix with groups is fitted, heads and units are
assigned to groups. Norms stay the teacher's.

A further layer for the same layer of the teacher is fitted to what the others left: both its sums should be the hidden
states after the teacher's layer, and its norms are fitted so that they change as little as possible.

Shapes: N tokens of a batch, H hidden, I units, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from rich.console import Console
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.models.init_from_teacher import fit_shape, init_from_teacher
from pocketbert.models.pretrained import EncoderModel
from pocketbert.training.refit.bert_layers import BertLayer, bert_layers, full_weight, groups_of
from pocketbert.training.refit.groups import order_heads, order_units
from pocketbert.training.refit.least_squares import RIDGE, Covariance, Moments, NormFit
from pocketbert.training.refit.text import Advance, Batches, Text


def refit_layers(
    student: EncoderModel, teacher: EncoderModel, sources: Sequence[int], batches: Batches, console: Console | None
) -> None:
    """Initialise a student whose layers have BERT's parts: see `refit_from_teacher`."""
    own_layers, teacher_layers = bert_layers(student), bert_layers(teacher)
    for name in ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act"):
        own, other = getattr(student.config, name), getattr(teacher.config, name)
        if own != other:
            raise ConfigError(
                f"--init refit needs a student with the teacher's {name}: {other}, not {own} (change it in the "
                "configuration of --from-scratch)"
            )
    init_from_teacher(student, teacher, [])
    text = Text.of(batches, teacher, student, console)
    further = len(sources) - len(set(sources))
    finished = 0  # layers of the teacher that its hidden states have passed
    with text.counting(4 * len(sources) + 2 * further) as advance:
        for i, (layer, source) in enumerate(zip(own_layers, sources, strict=True)):
            for passed in teacher_layers[finished : source - 1]:
                text.pass_teacher(passed)
            finished = max(finished, source - 1)
            kind = FurtherRefit if source in sources[:i] else Refit
            kind(layer, teacher_layers[source - 1], text, advance).run()


class Refit:
    """The refit of one layer, in four passes over the text."""

    def __init__(self, layer: BertLayer, teacher: BertLayer, text: Text, advance: Advance) -> None:
        self.layer, self.teacher, self.text, self.advance = layer, teacher, text, advance
        self.device = text.teacher[0].device
        self.width = text.teacher[0].size(-1)

    def run(self) -> None:
        """Fit all matrices, and replace the student's hidden states by those after the layer."""
        layer, text = self.layer, self.text
        heads = self._attention_inputs()
        middle = self._attention_output(heads)  # hidden states of the teacher after attention
        self._attention_norm(middle)
        for i, packing in enumerate(text.packings):
            text.student[i] = layer.after_attention(text.student[i], packing)
        units = self._units(middle)
        self._output(middle, units)
        self._output_norm(middle)
        for i, states in enumerate(text.student):
            text.student[i] = layer.after_units(states)

    def _attention_sum(self, total: Tensor) -> Tensor:
        """Return the wanted sum after attention, for the teacher's."""
        return total

    def _output_sum(self, total: Tensor) -> Tensor:
        """Return the wanted sum after the feed-forward network, for the teacher's."""
        return total

    def _attention_norm(self, middle: list[Tensor]) -> None:
        """Set the norm after attention."""
        self.layer.attention_norm.load_state_dict(self.teacher.attention_norm.state_dict())

    def _output_norm(self, middle: list[Tensor]) -> None:
        """Set the norm after the feed-forward network."""
        self.layer.output_norm.load_state_dict(self.teacher.output_norm.state_dict())

    def _attention_inputs(self) -> Tensor:
        """Fit queries, keys and values; return [H] the row of the teacher for each row."""
        moments = Moments(self.width, 3 * self.width, device=self.device)
        parts = ("query", "key", "value")
        for own, other in zip(self.text.student, self.text.teacher, strict=True):
            moments.add(own[0], torch.cat([getattr(self.teacher, part)(other)[0] for part in parts], dim=1))
            self.advance()
        whole = moments.covariance(f"{self.layer.name}, queries, keys and values")
        ranges = torch.arange(3 * self.width).view(3, -1)
        covariances = [whole.rows(chosen) for chosen in ranges]
        groups = [groups_of(getattr(self.layer, part)) for part in parts]
        order = order_heads(
            [own.unexplained(count, RIDGE).numpy() for own, count in zip(covariances, groups, strict=True)],
            [own.y_variance.numpy() for own in covariances],
            self.layer.heads,
        )
        rows = torch.arange(self.width).view(self.layer.heads, -1)[torch.from_numpy(order)].flatten()
        for part, covariance, count in zip(parts, covariances, groups, strict=True):
            prior = full_weight(getattr(self.teacher, part))[rows]
            _set(getattr(self.layer, part), covariance.rows(rows).divided(count), prior)
        return rows

    def _attention_output(self, rows: Tensor) -> list[Tensor]:
        """Fit the output of attention; return the teacher's hidden states after it."""
        layer, teacher, middle = self.layer, self.teacher, []
        moments = Moments(self.width, self.width, groups_of(layer.attention_output), self.device)
        for own, other, packing in zip(self.text.student, self.text.teacher, self.text.packings, strict=True):
            total = teacher.attention_output(teacher.attention(other, packing)) + other
            moments.add(layer.attention(own, packing)[0], (self._attention_sum(total) - own)[0])
            middle.append(teacher.attention_norm(total))
            self.advance()
        covariance = moments.covariance(f"{layer.name}, output of attention")
        _set(layer.attention_output, covariance, full_weight(teacher.attention_output)[:, rows])
        return middle

    def _units(self, middle: list[Tensor]) -> Tensor:
        """Fit the units; return [I] the unit of the teacher for each."""
        layer, teacher = self.layer, self.teacher
        size = len(full_weight(teacher.intermediate))
        moments = Moments(self.width, size, device=self.device)
        active = Moments(1, size, device=self.device)
        for own, other in zip(self.text.student, middle, strict=True):
            units = teacher.intermediate(other)[0]
            moments.add(own[0], units)
            active.add(units[:, :1], teacher.activation(units))
            self.advance()
        covariance = moments.covariance(f"{layer.name}, units")
        order = order_units(
            covariance.unexplained(groups_of(layer.intermediate), RIDGE).numpy(),
            covariance.y_variance.numpy(),
            active.covariance(f"{layer.name}, units").y_variance.numpy(),
            full_weight(teacher.output).double().cpu().numpy(),
            groups_of(layer.output),
        )
        chosen = torch.from_numpy(order)
        prior = full_weight(teacher.intermediate)[chosen]
        _set(layer.intermediate, covariance.rows(chosen).divided(groups_of(layer.intermediate)), prior)
        return chosen

    def _output(self, middle: list[Tensor], units: Tensor) -> None:
        """Fit the output of the feed-forward network."""
        layer, teacher = self.layer, self.teacher
        moments = Moments(len(units), self.width, groups_of(layer.output), self.device)
        for own, other in zip(self.text.student, middle, strict=True):
            total = teacher.output(teacher.units(other)) + other
            moments.add(layer.units(own)[0], (self._output_sum(total) - own)[0])
            self.advance()
        _set(layer.output, moments.covariance(f"{layer.name}, output"), full_weight(teacher.output)[:, units])


class FurtherRefit(Refit):
    """The refit of a further layer for a layer of the teacher, in six passes."""

    def _attention_sum(self, total: Tensor) -> Tensor:
        middle: Tensor = self.teacher.attention_norm(total)
        return self.teacher.after_units(middle)

    def _output_sum(self, total: Tensor) -> Tensor:
        normed: Tensor = self.teacher.output_norm(total)
        return normed

    def _attention_norm(self, middle: list[Tensor]) -> None:
        def sums() -> Iterator[tuple[Tensor, Tensor]]:
            for own, other, packing in zip(self.text.student, middle, self.text.packings, strict=True):
                total = self.layer.attention_output(self.layer.attention(own, packing)) + own
                yield total, self.teacher.after_units(other)

        self._fit_norm(self.layer.attention_norm, sums())

    def _output_norm(self, middle: list[Tensor]) -> None:
        def sums() -> Iterator[tuple[Tensor, Tensor]]:
            for own, other in zip(self.text.student, middle, strict=True):
                yield self.layer.output(self.layer.units(own)) + own, self.teacher.after_units(other)

        self._fit_norm(self.layer.output_norm, sums())

    def _fit_norm(self, norm: nn.Module, sums: Iterator[tuple[Tensor, Tensor]]) -> None:
        fit = NormFit(self.width, self.device)
        for total, wanted in sums:
            fit.add(total[0], wanted[0])
            self.advance()
        fit.set(norm)


def _set(module: nn.Module, covariance: Covariance, prior: Tensor) -> None:
    """Fit the weights of a layer; `prior` [M, K] are the teacher's."""
    parameter, bias_parameter = module.weight, module.bias
    assert isinstance(parameter, Tensor)
    assert isinstance(bias_parameter, Tensor)
    blocks = fit_shape(prior, parameter, groups_of(module))
    assert blocks is not None
    weight, bias = covariance.solve(blocks.flatten(1), RIDGE)
    parameter.copy_(weight.view_as(parameter))
    bias_parameter.copy_(bias)

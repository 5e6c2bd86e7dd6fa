"""The heads, written once for all families: a `Family` lists its heads and the names of their layers.

A public class names its family's encoder and a head: `class BertForMaskedLM(BertPreTrainedModel, ForMaskedLM)`.
Shapes: B batch, S sequence, H hidden, E embedding, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import HEADS, HeadKind, WordScores
from pocketbert.models.ops import (
    ACTIVATIONS,
    Dropout,
    FirstToken,
    LayerNorm,
    Linear,
    MeanToken,
    WordTable,
    init_parameters,
    wide_linear,
)
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel, as_requested, resized
from pocketbert.outputs import (
    BaseModelOutputWithPooling,
    LogitsOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
)

Inputs = tuple[Tensor | None, ...]
Result = tuple[Any, ...]


class Head(PreTrainedModel):
    """An encoder under its official name, and the layers that the family has for this kind of head."""

    kind: ClassVar[HeadKind]
    encoder_class: ClassVar[type[EncoderModel]]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        takes_first = self.kind.name in self.family.first_token
        pools = (self.kind.pooled and not takes_first) or self.family.always_pools
        encoder = self.encoder_class(config, add_pooling_layer=pools)  # type: ignore[call-arg]
        reads = config.classifier_input if self.kind.name == "ForSequenceClassification" else None
        if reads is not None:
            token = MeanToken if reads.endswith("mean") else FirstToken
            encoder.pooler = token(reads.startswith("normalized"))
        elif takes_first:
            encoder.pooler = FirstToken()
        setattr(self, self.base_model_prefix, encoder)
        self._add_words()
        layers = config.head_layers(self.kind.name)
        if rates := {getattr(config, layer.dropout) for layer in layers if layer.dropout}:
            [rate] = rates
            self.dropout = Dropout(rate)
        for layer in layers:
            scores = config.num_labels if self.kind.scores is None else self.kind.scores
            width = scores if layer is layers[-1] else config.hidden_size
            _place(self, layer.name, Linear(config.hidden_size, width))
        init_parameters(self, config.initializer_range)
        self.tie_weights()

    def _add_words(self) -> None:
        """Add the layers that score words, if this kind of head does."""

    @property
    def head_layers(self) -> list[nn.Linear]:
        """The layers beyond word scores."""
        return [_linear_at(self, layer.name) for layer in self.config.head_layers(self.kind.name)]

    def apply_layers(self, x: Tensor) -> Tensor:
        """Map hidden states or pooled vectors [..., H] to scores [..., L]."""
        for layer, linear in zip(self.config.head_layers(self.kind.name), self.head_layers, strict=True):
            x = wide_linear(linear, self.dropout(x) if layer.dropout else x)
            x = x if layer.activation is None else ACTIVATIONS[layer.activation](x)
        return x

    def encode(
        self, inputs: Inputs, output_attentions: bool | None, output_hidden_states: bool | None
    ) -> BaseModelOutputWithPooling:
        """Run the encoder on ids, mask, segments, positions and embeddings; see `EncoderModel.forward`."""
        output = self.base_model(*inputs, output_attentions, output_hidden_states, return_dict=True)
        assert isinstance(output, BaseModelOutputWithPooling)
        return output


class LogitsHead(Head):
    """A head with one kind of logits: a subclass computes them, and their loss."""

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """The logits."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LogitsOutput | Result:
        """Logits, and with `labels` their loss: shapes as in the class, other arguments as `EncoderModel.forward`."""
        encoded = self.encode(
            (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds),
            output_attentions,
            output_hidden_states,
        )
        logits = self.score(encoded)
        loss = None if labels is None else self.loss(logits, labels)
        output = LogitsOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return as_requested(output, self.config, return_dict)


class WordHead(Head):
    """A head with word scores, whose last product is with the word embeddings."""

    @property
    def _words(self) -> WordScores:
        assert self.family.words is not None
        return self.family.words

    def _add_words(self) -> None:
        config, words = self.config, self._words
        narrow = config.embedding_size
        width = narrow if words.rest is None else config.hidden_size
        _place(self, words.transform, Linear(config.hidden_size, width))
        _place(self, words.norm, LayerNorm(width, config.layer_norm_eps))
        if words.rest is not None:
            _place(self, words.rest, WordTable(width - narrow, config.vocab_size))
        _place(self, words.decoder, Linear(narrow, config.vocab_size))
        if not words.own_bias:
            self._set_bias(nn.Parameter(torch.zeros(config.vocab_size)))

    def score_words(self, hidden: Tensor) -> Tensor:
        """Map [..., H] to [..., V]."""
        words, decoder = self._words, self.get_output_embeddings()
        x = ACTIVATIONS[words.activation or self.config.hidden_act](
            wide_linear(_linear_at(self, words.transform), hidden)
        )
        x = self.get_submodule(words.norm)(x).to(decoder.weight.dtype)
        if words.rest is None:
            return decoder(x)
        narrow, rest = x.tensor_split([decoder.in_features], dim=-1)  # [..., E], [..., H-E]
        return decoder(narrow) + rest @ self.get_parameter(f"{words.rest}.weight")

    def get_output_embeddings(self) -> nn.Linear:
        """The product with the word embeddings that ends the word scores."""
        return _linear_at(self, self._words.decoder)

    def tie_weights(self) -> None:
        """Share word embeddings and bias with the encoder, unless `tie_word_embeddings` is False."""
        if self.config.tie_word_embeddings:
            decoder = self.get_output_embeddings()
            decoder.weight = self.get_input_embeddings().weight
            if not self._words.own_bias:
                decoder.bias = self.get_parameter(self._words.bias)

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Give embeddings and word scores `new_num_tokens` rows; see `PreTrainedModel.resize_token_embeddings`."""
        embeddings = super().resize_token_embeddings(new_num_tokens)
        words, decoder, std = self._words, self.get_output_embeddings(), self.config.initializer_range
        decoder.weight = resized(decoder.weight, new_num_tokens, 0, std)
        decoder.bias = resized(decoder.bias, new_num_tokens, 0, std)
        biases = [decoder.bias]
        if not words.own_bias:
            self._set_bias(resized(self.get_parameter(words.bias), new_num_tokens, 0, std))
            biases.append(self.get_parameter(words.bias))
        with torch.no_grad():
            for bias in biases:
                bias[decoder.out_features :] = 0.0
        decoder.out_features = new_num_tokens
        if words.rest is not None:
            table = self.get_submodule(words.rest)
            assert isinstance(table, WordTable)
            table.weight = resized(table.weight, new_num_tokens, 1, std)
        self.tie_weights()
        return embeddings

    def _set_bias(self, bias: nn.Parameter) -> None:
        path, _, name = self._words.bias.rpartition(".")
        setattr(self.get_submodule(path), name, bias)


class ForMaskedLM(WordHead, LogitsHead):
    """Masked words: the word scores [B, S, V] of every position; of `labels` [B, S] -100 counts for nothing."""

    kind = HEADS["ForMaskedLM"]

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, S, V]."""
        return self.score_words(encoded.last_hidden_state)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return word_loss(logits, labels)


class ForPreTraining(WordHead):
    """Both pretraining tasks: masked words, and how two segments relate.

    The second is next-sentence prediction (0: B continues A, 1: B is random) in BERT and MobileBERT, and sentence
    order (0: as written, 1: swapped; ALBERT, section 3.1) in SqueezeBERT, whose head was never published.
    """

    kind = HEADS["ForPreTraining"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PreTrainingOutput | Result:
        """Logits [B, S, V] and [B, 2]; given `labels` [B, S] and `next_sentence_label` [B], the sum of both losses."""
        encoded = self.encode(
            (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds),
            output_attentions,
            output_hidden_states,
        )
        logits = self.score_words(encoded.last_hidden_state)
        relationship = self.apply_layers(pooled(encoded))
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = word_loss(logits, labels) + F.cross_entropy(relationship, next_sentence_label.view(-1))
        output = PreTrainingOutput(loss, logits, relationship, encoded.hidden_states, encoded.attentions)
        return as_requested(output, self.config, return_dict)


class ForNextSentencePrediction(LogitsHead):
    """Does B continue A (0), or is it random (1)? Logits [B, 2] for `labels` [B]."""

    kind = HEADS["ForNextSentencePrediction"]

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, 2]."""
        return self.apply_layers(pooled(encoded))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(logits, labels.view(-1))


class ForSequenceClassification(LogitsHead):
    """Classes or a number for a text or a pair: a linear layer on the pooled output, logits [B, L].

    A `problem_type` of None is settled by the first labels and kept in the configuration: one label makes a
    regression (mean squared error, labels [B]), whole-number labels [B] a single-label problem (cross entropy),
    others [B, L] a multi-label problem (binary cross entropy).
    """

    kind = HEADS["ForSequenceClassification"]

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, L]."""
        return self.apply_layers(pooled(encoded))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of `config.problem_type`."""
        problem = self.config.problem_type
        if problem is None:
            if self.config.num_labels == 1:
                problem = "regression"
            else:
                whole = not labels.is_floating_point()
                problem = "single_label_classification" if whole else "multi_label_classification"
            self.config = self.config.replace(problem_type=problem)
        if problem == "regression":
            return F.mse_loss(logits, labels.view_as(logits).to(logits.dtype))
        if problem == "single_label_classification":
            return F.cross_entropy(logits, labels.view(-1))
        return F.binary_cross_entropy_with_logits(logits, labels)


class ForMultipleChoice(LogitsHead):
    """One of several answers: every (question, answer) pair gets a score.

    All inputs are [B, C, S] (`inputs_embeds` [B, C, S, E]); logits [B, C] for `labels` [B].
    """

    kind = HEADS["ForMultipleChoice"]

    def encode(
        self, inputs: Inputs, output_attentions: bool | None, output_hidden_states: bool | None
    ) -> BaseModelOutputWithPooling:
        """Run the encoder on every choice of every row; the pooled output is [B, C, H]."""
        choices = next((x.size(1) for x in inputs if x is not None), 1)
        flat = tuple(None if x is None else x.flatten(0, 1) for x in inputs)  # [B, C, …] → [B·C, …]
        encoded = super().encode(flat, output_attentions, output_hidden_states)
        return replace(encoded, pooler_output=pooled(encoded).unflatten(0, (-1, choices)))

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, C]."""
        return self.apply_layers(pooled(encoded)).squeeze(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the choices."""
        return F.cross_entropy(logits, labels)


class ForTokenClassification(LogitsHead):
    """A tag for every token: logits [B, S, L]; of `labels` [B, S] -100 counts for nothing."""

    kind = HEADS["ForTokenClassification"]

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, S, L]."""
        return self.apply_layers(encoded.last_hidden_state)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return word_loss(logits, labels)


class ForQuestionAnswering(Head):
    """The span of a passage that answers a question: a start score and an end score for every token."""

    kind = HEADS["ForQuestionAnswering"]

    def __init__(self, config: PreTrainedConfig) -> None:
        if config.num_labels != 2:
            raise ConfigError(
                f"num_labels={config.num_labels} must be 2 to find spans (start and end): pass num_labels=2"
            )
        super().__init__(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | Result:
        """Start and end logits, each [B, S]; with both positions [B], the mean of the two cross entropies.

        A position beyond the text counts for nothing: it is clamped to S, which the loss ignores.
        """
        encoded = self.encode(
            (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds),
            output_attentions,
            output_hidden_states,
        )
        start, end = self.apply_layers(encoded.last_hidden_state).unbind(-1)  # [B, S, 2] → two of [B, S]
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start.size(1)
            losses = [
                F.cross_entropy(logits, positions.view(-1).clamp(0, length), ignore_index=length)
                for logits, positions in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        output = QuestionAnsweringModelOutput(loss, start, end, encoded.hidden_states, encoded.attentions)
        return as_requested(output, self.config, return_dict)


def pooled(encoded: BaseModelOutputWithPooling) -> Tensor:
    """The pooler's output [B, H] of an encoder that has one."""
    assert encoded.pooler_output is not None
    return encoded.pooler_output


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits [B, S, N] against labels [B, S], those of -100 left out."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def _place(model: nn.Module, path: str, part: nn.Module) -> None:
    """Add `part` under a dotted path, inside modules that only carry the names."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(model, parent):
            model.add_module(parent, nn.Module())
        model = model.get_submodule(parent)
    model.add_module(name, part)


def _linear_at(model: nn.Module, path: str) -> nn.Linear:
    linear = model.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    return linear

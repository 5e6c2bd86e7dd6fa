"""The heads, written once for all three families: each is generic over an encoder that pools.

A public class names its family's encoder and a head: `class BertForMaskedLM(BertPreTrainedModel, ForMaskedLM)`.
Shapes: B batch, S sequence, H hidden, E embedding, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.models.ops import ACTIVATIONS, Dropout, LayerNorm, Linear, init_parameters, wide_linear
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel, as_asked, resized
from pocketbert.outputs import (
    BaseModelOutputWithPooling,
    LogitsOutput,
    PreTrainingOutput,
    QuestionAnsweringModelOutput,
)

Inputs = tuple[Tensor | None, ...]
Result = tuple[Any, ...]


class Transform(nn.Module):
    """Linear, activation, layer normalisation: [..., H] to [..., H]."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., H] to [..., H]."""
        return self.LayerNorm(self.activation(wide_linear(self.dense, hidden)))


class Predictions(nn.Module):
    """Word scores: the transform, then a product with the (tied) word embeddings, [..., H] to [..., V]."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        width = getattr(config, "embedding_size", config.hidden_size)
        self.decoder = Linear(width, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., H] to [..., V]."""
        return self.decoder(self.transform(hidden).to(self.decoder.weight.dtype))

    def tie(self, word_embeddings: nn.Embedding) -> None:
        """Share the embeddings [V, E] and the one bias."""
        self.decoder.weight = word_embeddings.weight
        self.decoder.bias = self.bias

    def resize(self, size: int, std: float) -> None:
        """Follow a vocabulary of another size; what is tied follows in `tie`."""
        self.decoder.weight = resized(self.decoder.weight, size, 0, std)
        self.decoder.bias = resized(self.decoder.bias, size, 0, std)
        self.bias = resized(self.bias, size, 0, std)
        with torch.no_grad():
            for bias in (self.bias, self.decoder.bias):
                bias[self.decoder.out_features :] = 0.0
        self.decoder.out_features = size


class MLMHead(nn.Module):
    """What the files call `cls` in a model that scores words."""

    def __init__(self, predictions: Predictions) -> None:
        super().__init__()
        self.predictions = predictions


class NSPHead(nn.Module):
    """What the files call `cls` in a model that relates two segments."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.seq_relationship = Linear(config.hidden_size, 2)


class PreTrainingHeads(MLMHead):
    """What the files call `cls` in a model that does both."""

    def __init__(self, config: PreTrainedConfig, predictions: Predictions) -> None:
        super().__init__(predictions)
        self.seq_relationship = Linear(config.hidden_size, 2)


class Head(PreTrainedModel):
    """An encoder under its official name, to which a subclass adds what reads it."""

    encoder_class: ClassVar[type[EncoderModel]]
    predictions_class: ClassVar[type[Predictions]] = Predictions
    reads_pooler: ClassVar[bool] = True

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        pools = self.reads_pooler or self.encoder_class.always_pools
        setattr(self, self.base_model_prefix, self.encoder_class(config, add_pooling_layer=pools))  # type: ignore[call-arg]

    def finish(self) -> None:
        """Draw all weights and share what is shared: the last line of a subclass's constructor."""
        init_parameters(self, self.config.initializer_range)
        self.tie_weights()

    def encode(
        self, inputs: Inputs, output_attentions: bool | None, output_hidden_states: bool | None
    ) -> BaseModelOutputWithPooling:
        """Run the encoder on ids, mask, segments, positions and embeddings; see `EncoderModel.forward`."""
        output = self.base_model(*inputs, output_attentions, output_hidden_states, return_dict=True)
        assert isinstance(output, BaseModelOutputWithPooling)
        return output


class LogitsHead(Head):
    """A head with one kind of logits: a subclass says how they come about, and what labels cost."""

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
        """Logits, and with `labels` their loss: shapes as the class says, other arguments as `EncoderModel.forward`."""
        encoded = self.encode(
            (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds),
            output_attentions,
            output_hidden_states,
        )
        logits = self.score(encoded)
        loss = None if labels is None else self.loss(logits, labels)
        output = LogitsOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return as_asked(output, self.config, return_dict)


class WordHead(Head):
    """What the heads with word scores share: the tie to the embeddings."""

    cls: MLMHead

    def get_output_embeddings(self) -> nn.Linear:
        """The product with the word embeddings that ends the word scores."""
        return self.cls.predictions.decoder

    def tie_weights(self) -> None:
        """Share word embeddings and bias with the encoder, unless `tie_word_embeddings` is False."""
        if self.config.tie_word_embeddings:
            self.cls.predictions.tie(self.get_input_embeddings())

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Give embeddings and word scores `new_num_tokens` rows; see `PreTrainedModel.resize_token_embeddings`."""
        embeddings = super().resize_token_embeddings(new_num_tokens)
        self.cls.predictions.resize(new_num_tokens, self.config.initializer_range)
        self.tie_weights()
        return embeddings


class ForMaskedLM(WordHead, LogitsHead):
    """Masked words: the word scores [B, S, V] of every position; of `labels` [B, S] -100 counts for nothing."""

    reads_pooler: ClassVar[bool] = False

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.cls = MLMHead(self.predictions_class(config))
        self.finish()

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, S, V]."""
        return self.cls.predictions(encoded.last_hidden_state)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return word_loss(logits, labels)


class ForPreTraining(WordHead):
    """Both pretraining tasks: masked words, and how two segments relate.

    The second is next-sentence prediction (0: B continues A, 1: B is random) in BERT and MobileBERT, and sentence
    order (0: as written, 1: swapped; ALBERT, section 3.1) in SqueezeBERT, whose head was never published.
    """

    cls: PreTrainingHeads

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.cls = PreTrainingHeads(config, self.predictions_class(config))
        self.finish()

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
        logits = self.cls.predictions(encoded.last_hidden_state)
        relationship = wide_linear(self.cls.seq_relationship, pooled(encoded))
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = word_loss(logits, labels) + F.cross_entropy(relationship, next_sentence_label.view(-1))
        output = PreTrainingOutput(loss, logits, relationship, encoded.hidden_states, encoded.attentions)
        return as_asked(output, self.config, return_dict)


class ForNextSentencePrediction(LogitsHead):
    """Does B continue A (0), or is it random (1)? Logits [B, 2] for `labels` [B]."""

    cls: NSPHead

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.cls = NSPHead(config)
        self.finish()

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, 2]."""
        return wide_linear(self.cls.seq_relationship, pooled(encoded))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(logits, labels.view(-1))


class ForSequenceClassification(LogitsHead):
    """Classes or a number for a text or a pair: a linear layer on the pooled output, logits [B, L].

    A `problem_type` of None is settled by the first labels and kept in the configuration: one label makes a
    regression (mean squared error, labels [B]), whole-number labels [B] a single-label problem (cross entropy),
    others [B, L] a multi-label problem (binary cross entropy).
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        self.finish()

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, L]."""
        return wide_linear(self.classifier, self.dropout(pooled(encoded)))

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

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, 1)
        self.finish()

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
        return wide_linear(self.classifier, self.dropout(pooled(encoded))).squeeze(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the choices."""
        return F.cross_entropy(logits, labels)


class ForTokenClassification(LogitsHead):
    """A tag for every token: logits [B, S, L]; of `labels` [B, S] -100 counts for nothing."""

    reads_pooler: ClassVar[bool] = False

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        self.finish()

    def score(self, encoded: BaseModelOutputWithPooling) -> Tensor:
        """[B, S, L]."""
        return wide_linear(self.classifier, self.dropout(encoded.last_hidden_state))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return word_loss(logits, labels)


class ForQuestionAnswering(Head):
    """The span of a passage that answers a question: a start score and an end score for every token."""

    reads_pooler: ClassVar[bool] = False

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ConfigError(
                f"num_labels={config.num_labels} must be 2 to find spans (start and end): pass num_labels=2"
            )
        self.qa_outputs = Linear(config.hidden_size, 2)
        self.finish()

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
        start, end = wide_linear(self.qa_outputs, encoded.last_hidden_state).unbind(-1)  # [B, S, 2] → two of [B, S]
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start.size(1)
            losses = [
                F.cross_entropy(logits, positions.view(-1).clamp(0, length), ignore_index=length)
                for logits, positions in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        output = QuestionAnsweringModelOutput(loss, start, end, encoded.hidden_states, encoded.attentions)
        return as_asked(output, self.config, return_dict)


def pooled(encoded: BaseModelOutputWithPooling) -> Tensor:
    """The pooler's output [B, H] of an encoder that has one."""
    assert encoded.pooler_output is not None
    return encoded.pooler_output


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits [B, S, N] against labels [B, S], those of -100 left out."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

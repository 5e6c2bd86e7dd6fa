"""The heads, written once for all families: each reads an encoder that pools.

A public class names its family and a head: `class TFMobileBertForMaskedLM(TFMobileBertPreTrainedModel, ForMaskedLM)`.
Shapes: B batch, S sequence, H hidden, E embedding, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import keras
import tensorflow as tf

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.tf.layers import ACTIVATIONS, Block, LayerNorm, Linear, Tensor, drawn
from pocketbert.tf.outputs import (
    TFBaseModelOutputWithPooling,
    TFLogitsOutput,
    TFPreTrainingOutput,
    TFQuestionAnsweringModelOutput,
)
from pocketbert.tf.pretrained import TFPreTrainedModel

Result = tuple[Any, ...]
IGNORED = -100


class Encoder(TFPreTrainedModel):
    """The encoder alone."""

    headless = True

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFBaseModelOutputWithPooling | Result:
        """Encode a batch: shapes and errors as `MainLayer.call`."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        return self.result(self.encode(inputs, output_attentions, output_hidden_states), {}, return_dict)


class LogitsHead(TFPreTrainedModel):
    """A head with one kind of logits: a subclass computes them, and their loss."""

    label_names = ("labels",)

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """The logits."""
        raise NotImplementedError

    def loss_of(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """Mean cross entropy over the labels that are not -100."""
        return cross_entropy(output.logits, labels[self.label_names[0]])

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        training: bool = False,
    ) -> TFLogitsOutput | Result:
        """Logits, and with `labels` their loss: shapes as in the class, other arguments as `MainLayer.call`."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encode(inputs, output_attentions, output_hidden_states)
        output = TFLogitsOutput(None, self.score(encoded), encoded.hidden_states, encoded.attentions)
        return self.result(output, {"labels": labels}, return_dict)


class Predictions(Block):
    """Word scores: linear, activation, normalisation, then a product with the (tied) word embeddings."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(name="cls.predictions")
        self.config = config
        hidden = config.hidden_size
        self.activation = ACTIVATIONS[config.hidden_act]
        self.dense = Linear(hidden, hidden, config.initializer_range, name="transform.dense")
        self.norm = LayerNorm(hidden, config.layer_norm_eps, name="transform.LayerNorm")

    def build(self, input_shape: object = None) -> None:
        """Make the variables: a matrix of its own only where nothing is tied."""
        super().build()
        config, tied = self.config, self.config.tie_word_embeddings
        shape = (config.vocab_size, config.embedding_size)
        # Files have this bias twice; untied, the second one counts.
        self.bias = self.add_weight(name="bias", shape=shape[:1], initializer="zeros", trainable=tied)
        if not tied:
            self.decoder = self.add_weight(
                name="decoder.weight", shape=shape, initializer=drawn(config.initializer_range)
            )
            self.decoder_bias = self.add_weight(name="decoder.bias", shape=shape[:1], initializer="zeros")

    def call(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Map [..., H] to [..., V], given [V, E]."""
        x = self.norm(self.activation(self.dense(hidden)))
        if self.config.tie_word_embeddings:
            return self.score(x, word_embeddings) + self.bias
        return self.score(x, self.decoder) + self.decoder_bias

    def score(self, x: Tensor, table: Tensor) -> Tensor:
        """Map [..., H] to [..., V] with the matrix [V, H]."""
        return tf.matmul(x, table, transpose_b=True)


class WordHead(TFPreTrainedModel):
    """A head with word scores."""

    predictions_class: ClassVar[type[Predictions]] = Predictions

    def score_words(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, S, V]."""
        table = tf.convert_to_tensor(self.main_layer.embeddings.word_embeddings.weight)
        return self.predictions(encoded.last_hidden_state, table)


class ForMaskedLM(WordHead, LogitsHead):
    """Masked words: the word scores [B, S, V] of every position; of `labels` [B, S] -100 counts for nothing."""

    reads_pooler = False

    def add_head(self) -> None:
        """The word scores."""
        self.predictions = self.predictions_class(self.config)

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, S, V]."""
        return self.score_words(encoded)


class ForPreTraining(WordHead):
    """Both pretraining tasks: masked words, and how two segments relate.

    The second is next-sentence prediction (0: B continues A, 1: B is random) in MobileBERT, and sentence order
    (0: as written, 1: swapped) in SqueezeBERT.
    """

    label_names = ("labels", "next_sentence_label")

    def add_head(self) -> None:
        """The word scores, and two scores for a pair."""
        self.predictions = self.predictions_class(self.config)
        self.seq_relationship = pair_scores(self.config)

    def loss_of(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """The sum of both mean cross entropies."""
        words = cross_entropy(output.prediction_logits, labels["labels"])
        return words + cross_entropy(output.seq_relationship_logits, labels["next_sentence_label"])

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        training: bool = False,
    ) -> TFPreTrainingOutput | Result:
        """Logits [B, S, V] and [B, 2]; given `labels` [B, S] and `next_sentence_label` [B], the sum of both losses."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encode(inputs, output_attentions, output_hidden_states)
        words, pair = self.score_words(encoded), self.seq_relationship(encoded.pooler_output)
        output = TFPreTrainingOutput(None, words, pair, encoded.hidden_states, encoded.attentions)
        return self.result(output, {"labels": labels, "next_sentence_label": next_sentence_label}, return_dict)


class ForNextSentencePrediction(LogitsHead):
    """Does B continue A (0), or is it random (1)? Logits [B, 2] for `next_sentence_label` [B]."""

    label_names = ("next_sentence_label",)

    def add_head(self) -> None:
        """Two scores for a pair."""
        self.seq_relationship = pair_scores(self.config)

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, 2]."""
        return self.seq_relationship(encoded.pooler_output)

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        next_sentence_label: Tensor | None = None,
        training: bool = False,
    ) -> TFLogitsOutput | Result:
        """Logits [B, 2], and with `next_sentence_label` [B] their loss."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encode(inputs, output_attentions, output_hidden_states)
        output = TFLogitsOutput(None, self.score(encoded), encoded.hidden_states, encoded.attentions)
        return self.result(output, {"next_sentence_label": next_sentence_label}, return_dict)


class ClassifierHead(LogitsHead):
    """Dropout, then a linear layer."""

    def add_head(self) -> None:
        """Dropout and the linear layer."""
        config = self.config
        self.dropout = keras.layers.Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, self.units, config.initializer_range, name="classifier")

    @property
    def units(self) -> int:
        """Number of scores."""
        return self.config.num_labels


class ForSequenceClassification(ClassifierHead):
    """Classes or a number for a text or a pair: a linear layer on the pooled output, logits [B, L].

    A `problem_type` of None is settled by the first labels and kept in the configuration: one label makes a
    regression (mean squared error, labels [B]), whole-number labels [B] a single-label problem (cross entropy),
    others [B, L] a multi-label problem (binary cross entropy).
    """

    def add_head(self) -> None:
        """Dropout and the linear layer. Raises `ConfigError` for a head that does not read the pooled output."""
        if self.config.classifier_input is not None:
            raise ConfigError(
                f"classifier_input={self.config.classifier_input!r}: this head was fitted on other vectors than the "
                "pooled output, which the TensorFlow classes do not compute; run the folder itself, or export it"
            )
        super().add_head()

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, L]."""
        return self.classifier(self.dropout(encoded.pooler_output))

    def loss_of(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of `config.problem_type`."""
        logits, wanted = output.logits, tf.convert_to_tensor(labels["labels"])
        problem = self.config.problem_type
        if problem is None:
            if self.config.num_labels == 1:
                problem = "regression"
            else:
                problem = "single_label_classification" if wanted.dtype.is_integer else "multi_label_classification"
            self.config = self.config.replace(problem_type=problem)
        if problem == "single_label_classification":
            return cross_entropy(logits, wanted)
        wanted = tf.reshape(tf.cast(wanted, logits.dtype), tf.shape(logits))
        if problem == "regression":
            return tf.reduce_mean(tf.math.squared_difference(logits, wanted))
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits))


class ForMultipleChoice(ClassifierHead):
    """One of several answers: every (question, answer) pair gets a score.

    All inputs are [B, C, S] (`inputs_embeds` [B, C, S, E]); logits [B, C] for `labels` [B].
    """

    axes = 3
    units = 1

    def encode(self, inputs: tuple[Tensor | None, ...], *options: Any) -> TFBaseModelOutputWithPooling:
        """Run the encoder on every choice of every row; the pooled output is [B, C, H]."""
        given = next(x for x in inputs if x is not None)
        choices = tf.shape(given)[1] if given.shape[1] is None else given.shape[1]
        flat = tuple(None if x is None else merged(x) for x in inputs)  # [B, C, …] → [B·C, …]
        encoded = super().encode(flat, *options)
        pooled = tf.reshape(encoded.pooler_output, (-1, choices, self.config.hidden_size))
        return replace(encoded, pooler_output=pooled)

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, C]."""
        return tf.squeeze(self.classifier(self.dropout(encoded.pooler_output)), -1)


class ForTokenClassification(ClassifierHead):
    """A tag for every token: logits [B, S, L]; of `labels` [B, S] -100 counts for nothing."""

    reads_pooler = False

    def score(self, encoded: TFBaseModelOutputWithPooling) -> Tensor:
        """[B, S, L]."""
        return self.classifier(self.dropout(encoded.last_hidden_state))


class ForQuestionAnswering(TFPreTrainedModel):
    """The span of a passage that answers a question: a start score and an end score for every token."""

    reads_pooler = False
    label_names = ("start_positions", "end_positions")

    def add_head(self) -> None:
        """Two scores for each token."""
        config = self.config
        if config.num_labels != 2:
            raise ConfigError(
                f"num_labels={config.num_labels} must be 2 to find spans (start and end): pass num_labels=2"
            )
        self.qa_outputs = Linear(config.hidden_size, 2, config.initializer_range, name="qa_outputs")

    def loss_of(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """The mean of the two cross entropies; a position beyond the text counts for nothing."""
        length = tf.shape(output.start_logits)[1]
        start, end = (
            cross_entropy(logits, tf.clip_by_value(tf.cast(labels[name], tf.int32), 0, length), ignored=length)
            for name, logits in (("start_positions", output.start_logits), ("end_positions", output.end_logits))
        )
        return (start + end) / 2

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        training: bool = False,
    ) -> TFQuestionAnsweringModelOutput | Result:
        """Start and end logits, each [B, S]; with both positions [B], their loss."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encode(inputs, output_attentions, output_hidden_states)
        start, end = tf.unstack(self.qa_outputs(encoded.last_hidden_state), axis=-1)  # [B, S, 2] → two of [B, S]
        output = TFQuestionAnsweringModelOutput(None, start, end, encoded.hidden_states, encoded.attentions)
        return self.result(output, {"start_positions": start_positions, "end_positions": end_positions}, return_dict)


def pair_scores(config: PreTrainedConfig) -> Linear:
    """How two segments relate: [B, H] to [B, 2]."""
    return Linear(config.hidden_size, 2, config.initializer_range, name="cls.seq_relationship")


def merged(x: Tensor) -> Tensor:
    """[B, C, …] to [B·C, …]."""
    rest = [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)][2:]
    return tf.reshape(x, (-1, *rest))


def cross_entropy(logits: Tensor, labels: Tensor, ignored: Any = IGNORED) -> Tensor:
    """Mean cross entropy of logits [..., N] against labels [...], those that are to be ignored left out."""
    labels = tf.reshape(tf.cast(labels, tf.int32), (-1,))
    counted = labels != ignored
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(counted, labels, 0), tf.reshape(logits, (-1, logits.shape[-1] or tf.shape(logits)[-1]))
    )
    weights = tf.cast(counted, losses.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))

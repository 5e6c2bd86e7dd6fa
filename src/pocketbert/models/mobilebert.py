"""MobileBERT (Sun et al. 2020, https://arxiv.org/abs/2004.02984) and IB-BERT, its teacher.

A thin layer (128 wide inside) between wide connections (512): bottlenecks carry the residual stream into the layer
and out again. IB-BERT is the same code with `intra_bottleneck_size` above `hidden_size`.

The residual stream is never narrower than fp32: in the published weights it reaches 2.5e7, where fp16 has ended and
bf16 counts in steps of 131,072. Layers between narrow weights and the stream go through `wide_linear`.

Shapes: B batch, S sequence, H hidden (512), T true hidden (128, inside the bottleneck), E embedding (128),
I intermediate (512), V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import InputError
from pocketbert.families.mobilebert import FAMILY, MobileBertConfig
from pocketbert.models import heads
from pocketbert.models.bf16 import narrow
from pocketbert.models.ops import (
    ACTIVATIONS,
    Dropout,
    LayerNorm,
    Linear,
    NoNorm,
    Packing,
    activate,
    add_norm,
    attend,
    init_parameters,
    wide_linear,
)
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel
from pocketbert.outputs import PreTrainingOutput

TORCH_EPS = 1e-5  # of two norms under "layer_norm" in the published code, which ignores config.layer_norm_eps there


def norm(config: MobileBertConfig, width: int, eps: float | None = None) -> nn.Module:
    """The norm of this `normalization_type`."""
    if config.normalization_type == "no_norm":
        return NoNorm(width)
    return LayerNorm(width, config.layer_norm_eps if eps is None else eps)


def typed(layer: nn.Module, x: Tensor) -> Tensor:
    """What `layer`, inside the bottleneck, reads: `x` in the type of its weights, unless autocast converts it."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(layer.weight.dtype)  # type: ignore[arg-type]


class MobileBertEmbeddings(nn.Module):
    """Words of width E with their neighbours, widened to H; plus position and segment, normalised."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        hidden, width = config.hidden_size, config.embedding_size
        self.trigram, self.mask_aware = config.trigram_input, config.mask_aware_trigram
        self.widens = config.trigram_input or width != hidden
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, hidden)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.embedding_transformation = Linear(3 * width if config.trigram_input else width, hidden)
        self.LayerNorm = norm(config, hidden, TORCH_EPS)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | Packing | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Ids [B, S], or word embeddings [B, S, E], to [B, S, H].

        The published trigram reads the embedding of padding beside the last token. With `mask_aware_trigram`
        masked positions count as zero, as beyond the text's ends, and padding changes nothing. Packed examples do not
        see each other either.
        """
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # [B, S, E]
        if position_ids is None:
            position_ids = torch.arange(words.size(1), device=words.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        if self.trigram:
            packing = attention_mask if isinstance(attention_mask, Packing) else None
            if self.mask_aware and isinstance(attention_mask, Tensor):
                if attention_mask.dim() != 2:
                    raise InputError("mask_aware_trigram needs an attention_mask of [batch, sequence]")
                words = words * attention_mask[..., None].to(words.dtype)
            following, previous = F.pad(words[:, 1:], (0, 0, 0, 1)), F.pad(words[:, :-1], (0, 0, 1, 0))
            if packing is not None:
                borders = packing.starts[1:-1]
                following = following.index_fill(1, borders - 1, 0.0)
                previous = previous.index_fill(1, borders, 0.0)
            words = torch.cat([following, words, previous], dim=-1)  # [B, S, 3E], in the published order
        if self.widens:
            words = self.embedding_transformation(typed(self.embedding_transformation, words))  # [B, S, H]
        x = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # the stream begins
        return self.dropout(self.LayerNorm(x))


class MobileBertSelfAttention(nn.Module):
    """Heads of the inner width; the inputs of query, key and value have the widths of what they read."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        hidden, inner = config.hidden_size, config.true_hidden_size
        narrowed = config.use_bottleneck and (config.key_query_shared_bottleneck or config.use_bottleneck_attention)
        query_key = inner if narrowed else hidden
        self.query = Linear(query_key, inner)
        self.key = Linear(query_key, inner)
        self.value = Linear(inner if config.use_bottleneck_attention else hidden, inner)

    def forward(
        self, query_key: Tensor, value: Tensor, keep: Tensor | Packing | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens: [B, S, T or H] to [B, S, T]."""
        q, k = wide_linear(self.query, query_key), wide_linear(self.key, query_key)
        v = wide_linear(self.value, value)
        return attend(q, k, v, self.heads, keep, self.dropout if self.training else 0.0, with_weights)


class MobileBertAttentionOutput(nn.Module):
    """Linear, add the layer's (bottlenecked) input, normalise: T to T."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.true_hidden_size, config.true_hidden_size)
        self.LayerNorm = norm(config, config.true_hidden_size)
        self.dropout = Dropout(0.0 if config.use_bottleneck else config.hidden_dropout_prob)

    def forward(self, context: Tensor, layer_input: Tensor) -> Tensor:
        """Join two [B, S, T] into one."""
        return add_norm(self.dense, self.LayerNorm, typed(self.dense, context), layer_input, self.dropout)


class Bottleneck(nn.Module):
    """From the stream into the layer, H to T."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intra_bottleneck_size)
        self.LayerNorm = norm(config, config.intra_bottleneck_size)

    def forward(self, stream: Tensor) -> Tensor:
        """Map [B, S, H] to [B, S, T]."""
        return add_norm(self.dense, self.LayerNorm, stream, None, wide=True)


class OutputBottleneck(nn.Module):
    """From the layer back into the stream, T to H."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.true_hidden_size, config.hidden_size)
        self.LayerNorm = norm(config, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, stream: Tensor) -> Tensor:
        """Join [B, S, T] and the stream [B, S, H] into [B, S, H]."""
        return add_norm(self.dense, self.LayerNorm, x, stream, self.dropout, wide=True)


class FeedForward(nn.Module):
    """One network of the stack that balances a thin layer's attention (section 3.2): T to I to T."""

    def __init__(self, config: MobileBertConfig, eps: float | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        inner, between = config.true_hidden_size, config.intermediate_size
        self.activation = ACTIVATIONS[config.hidden_act]
        self.intermediate = nn.ModuleDict({"dense": Linear(inner, between)})
        self.output = nn.ModuleDict({"dense": Linear(between, inner), "LayerNorm": norm(config, inner, eps)})
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, T] to [B, S, T]."""
        return feed_forward(self, x)


class MobileBertLayer(nn.Module):
    """Bottleneck, attention, a stack of feed-forward networks, bottleneck.

    The last network of the stack is the layer's own `intermediate` and `output`, as the checkpoints name them.
    """

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.use_bottleneck = config.use_bottleneck
        self.bottleneck_attention = config.use_bottleneck_attention
        self.shared = config.key_query_shared_bottleneck
        self.attention = nn.ModuleDict(
            {"self": MobileBertSelfAttention(config), "output": MobileBertAttentionOutput(config)}
        )
        # Without a bottleneck the last network has the dropout; with one, the bottleneck after it.
        last = FeedForward(config, TORCH_EPS, 0.0 if config.use_bottleneck else config.hidden_dropout_prob)
        self.activation, self.dropout = last.activation, last.dropout
        self.intermediate, self.output = last.intermediate, last.output
        if config.use_bottleneck:
            self.bottleneck = nn.ModuleDict({"input": Bottleneck(config)})
            if config.key_query_shared_bottleneck:  # published files have it even where attention does not use it
                self.bottleneck["attention"] = Bottleneck(config)
            self.output["bottleneck"] = OutputBottleneck(config)
        self.ffn = nn.ModuleList(FeedForward(config) for _ in range(config.num_feedforward_networks - 1))

    def forward(
        self, stream: Tensor, keep: Tensor | Packing | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Map [B, S, H] to [B, S, H]."""
        read = narrow(stream)
        x = query_key = value = read
        if self.use_bottleneck:
            x = self.bottleneck["input"](read)  # [B, S, T]
            if self.bottleneck_attention:
                query_key = value = x
            elif self.shared:
                query_key = self.bottleneck["attention"](read)  # [B, S, T]
        context, weights = self.attention["self"](query_key, value, keep, with_weights)
        x = self.attention["output"](context, x if self.use_bottleneck else stream)
        for network in self.ffn:
            x = network(x)
        x = feed_forward(self, x)
        return (self.output["bottleneck"](x, stream) if self.use_bottleneck else x), weights


def feed_forward(network: FeedForward | MobileBertLayer, x: Tensor) -> Tensor:
    """Linear, activation, linear, dropout, add, normalise: [B, S, T] to [B, S, T]."""
    first, second = network.intermediate["dense"], network.output["dense"]
    inner = activate(first, network.activation, typed(first, x))  # [B, S, I]
    return add_norm(second, network.output["LayerNorm"], typed(second, inner), x, network.dropout)


class MobileBertPooler(nn.Module):
    """The first token, through a linear layer and tanh if `classifier_activation`: [B, S, H] to [B, H]."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size) if config.classifier_activation else None

    def forward(self, stream: Tensor) -> Tensor:
        """Map [B, S, H] to [B, H]."""
        first = stream[:, 0]
        return first if self.dense is None else torch.tanh(wide_linear(self.dense, first))


# ── the public classes ──

MobileBertForPreTrainingOutput = PreTrainingOutput


class MobileBertPreTrainedModel(PreTrainedModel):
    """Base of all MobileBERT classes."""

    family = FAMILY


class MobileBertModel(MobileBertPreTrainedModel, EncoderModel):
    """MobileBERT's encoder, or IB-BERT's."""

    def __init__(self, config: MobileBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = MobileBertEmbeddings(config)
        layers = nn.ModuleList(MobileBertLayer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.pooler = MobileBertPooler(config) if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class MobileBertForPreTraining(MobileBertPreTrainedModel, heads.ForPreTraining):
    """MobileBERT with masked words and next-sentence prediction."""

    encoder_class = MobileBertModel


class MobileBertForMaskedLM(MobileBertPreTrainedModel, heads.ForMaskedLM):
    """MobileBERT that fills masked words."""

    encoder_class = MobileBertModel


class MobileBertForNextSentencePrediction(MobileBertPreTrainedModel, heads.ForNextSentencePrediction):
    """MobileBERT that predicts whether one sentence follows another."""

    encoder_class = MobileBertModel


class MobileBertForSequenceClassification(MobileBertPreTrainedModel, heads.ForSequenceClassification):
    """MobileBERT that classifies or rates a text or a pair."""

    encoder_class = MobileBertModel


class MobileBertForMultipleChoice(MobileBertPreTrainedModel, heads.ForMultipleChoice):
    """MobileBERT that picks one of several answers."""

    encoder_class = MobileBertModel


class MobileBertForTokenClassification(MobileBertPreTrainedModel, heads.ForTokenClassification):
    """MobileBERT that tags tokens."""

    encoder_class = MobileBertModel


class MobileBertForQuestionAnswering(MobileBertPreTrainedModel, heads.ForQuestionAnswering):
    """MobileBERT that finds an answer in a passage."""

    encoder_class = MobileBertModel

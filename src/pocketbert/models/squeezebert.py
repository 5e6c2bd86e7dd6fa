"""SqueezeBERT (Iandola et al. 2020, https://arxiv.org/abs/2006.11316): BERT with grouped convolutions for its linears.

A grouped convolution of kernel 1 is a product with a block-diagonal matrix. Here it runs token-major, on [B, S, C] as
everything else does, so that no norm has to permute the hidden states; the weights keep their published shape
[C', C/groups, 1]. Embeddings, pooler and heads are BERT's.

Shapes: B batch, S sequence, N = B·S tokens, H hidden, I intermediate, C and C' channels in and out, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pocketbert.families.squeezebert import FAMILY, SqueezeBertConfig
from pocketbert.models import bf16, heads
from pocketbert.models.bert import BertEmbeddings, BertPooler
from pocketbert.models.cpu import block_weight_gradient, linear, nhwc_input_gradient, nhwc_product
from pocketbert.models.ops import (
    ACTIVATIONS,
    Dropout,
    LayerNorm,
    Packing,
    activate,
    add_norm,
    attend_to_itself,
    init_parameters,
)
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel

# ── the block-diagonal product ──


def block_diagonal(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Multiply [..., C] by the block-diagonal matrix of `weight` [C', C/G, 1], add `bias` [C']: [..., C']."""
    if bf16.applies(x) and weight.dtype == torch.float32:
        return bf16.product(x, weight, bias, groups)
    if groups == 1:
        return linear(x, weight.squeeze(-1), bias)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    rows = x.reshape(-1, x.size(-1))  # [N, C]
    if device != "cpu" or not rows.numel() or torch.compiler.is_compiling():  # Inductor would compile for every N
        product = _batched_product
    else:
        product = _NhwcProduct.apply if torch.is_grad_enabled() else _nhwc
    return product(rows, weight, bias, groups).view(*x.shape[:-1], weight.size(0))


def _batched_product(rows: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The product on other devices and for compilers: one of matrices for each group, side by side."""
    blocks = weight.view(groups, -1, weight.size(1)).transpose(1, 2)  # [G, C/G, C'/G]
    parts = torch.baddbmm(bias.view(groups, 1, -1), _grouped(rows, groups), blocks)  # [G, N, C'/G]
    return parts.transpose(0, 1).reshape(rows.size(0), weight.size(0))


def _nhwc(rows: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return nhwc_product(rows, weight[..., 0], bias, groups)


def _grouped(rows: Tensor, groups: int) -> Tensor:
    """View [N, C] as [G, N, C/G]."""
    return rows.unflatten(-1, (groups, -1)).transpose(0, 1)


class _NhwcProduct(Function):
    """The product on a CPU, with a backward pass of our own."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.groups = groups
        return nhwc_product(rows, weight[..., 0], bias, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return (
            nhwc_input_gradient(grad, rows, weight[..., 0], ctx.groups) if ctx.needs_input_grad[0] else None,
            block_weight_gradient(grad, rows, ctx.groups).view(weight.shape) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
            None,
        )


class GroupedLinear(nn.Module):
    """`block_diagonal` with the parameters of a grouped convolution of kernel 1."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in // groups, 1))
        self.bias = nn.Parameter(torch.empty(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C']."""
        return block_diagonal(x, self.weight, self.bias, self.groups)

    def product(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C'] in bf16, without the bias."""
        return bf16.product(x, self.weight, groups=self.groups)


# ── the layer ──


class SqueezeBertSelfAttention(nn.Module):
    """Queries, keys and values of all heads at once; with 4 groups and 12 heads a group covers 3 heads."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = GroupedLinear(config.hidden_size, config.hidden_size, config.q_groups)
        self.key = GroupedLinear(config.hidden_size, config.hidden_size, config.k_groups)
        self.value = GroupedLinear(config.hidden_size, config.hidden_size, config.v_groups)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Mix tokens: [B, S, H] to [B, S, H]."""
        rate = self.dropout if self.training else 0.0
        return attend_to_itself(self.query, self.key, self.value, x, self.heads, keep, rate, with_weights)


class SqueezeBertOutput(nn.Module):
    """Back into the residual stream: product, dropout, add, normalise."""

    def __init__(self, config: SqueezeBertConfig, width: int, groups: int) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(width, config.hidden_size, groups)
        self.layernorm = LayerNorm(config.hidden_size, 1e-12)  # as published, not config.layer_norm_eps
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Join [B, S, width] and the residual [B, S, H] into [B, S, H]."""
        return add_norm(self.conv1d, self.layernorm, x, residual, self.dropout)


class SqueezeBertLayer(nn.Module):
    """Attention and feed-forward network, each followed by add and normalise.

    Only `post_attention` mixes the groups: nothing is shuffled between them.
    """

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.attention = SqueezeBertSelfAttention(config)
        self.post_attention = SqueezeBertOutput(config, hidden, config.post_attention_groups)
        self.intermediate = nn.ModuleDict({"conv1d": GroupedLinear(hidden, inner, config.intermediate_groups)})
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = SqueezeBertOutput(config, inner, config.output_groups)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Map [B, S, H] to [B, S, H]."""
        x = bf16.narrow(x)
        context, weights = self.attention(x, keep, with_weights)
        x = self.post_attention(context, x)
        inner = activate(self.intermediate["conv1d"], self.activation, x)  # [B, S, I]
        return self.output(inner, x), weights


# ── the public classes ──


class SqueezeBertPreTrainedModel(PreTrainedModel):
    """Base of all SqueezeBERT classes."""

    family = FAMILY


class SqueezeBertModel(SqueezeBertPreTrainedModel, EncoderModel):
    """SqueezeBERT's encoder."""

    def __init__(self, config: SqueezeBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        layers = nn.ModuleList(SqueezeBertLayer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.pooler = BertPooler(config) if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class SqueezeBertForPreTraining(SqueezeBertPreTrainedModel, heads.ForPreTraining):
    """SqueezeBERT with masked words and sentence order, as it was pretrained; `next_sentence_label` 1 means swapped."""

    encoder_class = SqueezeBertModel


class SqueezeBertForMaskedLM(SqueezeBertPreTrainedModel, heads.ForMaskedLM):
    """SqueezeBERT that fills masked words."""

    encoder_class = SqueezeBertModel


class SqueezeBertForSequenceClassification(SqueezeBertPreTrainedModel, heads.ForSequenceClassification):
    """SqueezeBERT that classifies or rates a text or a pair."""

    encoder_class = SqueezeBertModel


class SqueezeBertForMultipleChoice(SqueezeBertPreTrainedModel, heads.ForMultipleChoice):
    """SqueezeBERT that picks one of several answers."""

    encoder_class = SqueezeBertModel


class SqueezeBertForTokenClassification(SqueezeBertPreTrainedModel, heads.ForTokenClassification):
    """SqueezeBERT that tags tokens."""

    encoder_class = SqueezeBertModel


class SqueezeBertForQuestionAnswering(SqueezeBertPreTrainedModel, heads.ForQuestionAnswering):
    """SqueezeBERT that finds an answer in a passage."""

    encoder_class = SqueezeBertModel

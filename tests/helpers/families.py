"""Small, unusual configurations of all three families, and the two ways from ours to transformers' classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers

import pocketbert
from helpers.pairs import in_turn
from pocketbert import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig

VOCABULARY = 99
FAMILIES = {"bert": "Bert", "squeezebert": "SqueezeBert", "mobilebert": "MobileBert"}
HEADS = (
    "Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification",
    "ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering",
)  # fmt: skip

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_squeeze: dict[str, Any] = {"hidden_size": 24, "embedding_size": 24, "num_attention_heads": 3, **_small}
_mobile: dict[str, Any] = {"hidden_size": 64, "embedding_size": 32, "intermediate_size": 37, **_small}

CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, **_small),
    "bert, relu6, 3 segments": BertConfig(
        hidden_size=20, num_attention_heads=5, intermediate_size=33, hidden_act="relu6", type_vocab_size=3, **_small
    ),
    "squeezebert": SqueezeBertConfig(
        **(_squeeze | {"hidden_size": 32, "embedding_size": 32, "num_attention_heads": 4}), intermediate_size=64
    ),
    "squeezebert, a different group everywhere": SqueezeBertConfig(
        **_squeeze, intermediate_size=48, q_groups=2, k_groups=3, v_groups=1, post_attention_groups=4,
        intermediate_groups=6, output_groups=8,
    ),
    "squeezebert, no groups, other eps": SqueezeBertConfig(
        **_squeeze, intermediate_size=50, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=1, output_groups=1,
        layer_norm_eps=1e-3, hidden_act="gelu_new",
    ),
    "squeezebert, a group a channel": SqueezeBertConfig(
        **_squeeze, intermediate_size=72, q_groups=24, k_groups=12, v_groups=8, intermediate_groups=24, output_groups=24
    ),
    "mobilebert": MobileBertConfig(**_mobile, intra_bottleneck_size=16),
    "mobilebert, layer_norm, raw pooler": MobileBertConfig(
        **_mobile, intra_bottleneck_size=16, normalization_type="layer_norm", classifier_activation=False,
        layer_norm_eps=1e-3, classifier_dropout=0.0,
    ),
    "mobilebert, no bottleneck, no trigram": MobileBertConfig(
        **_mobile, use_bottleneck=False, trigram_input=False, num_feedforward_networks=1,
        normalization_type="layer_norm",
    ),
    "mobilebert, no bottleneck, as wide as its embeddings": MobileBertConfig(
        **(_mobile | {"embedding_size": 64}), use_bottleneck=False, trigram_input=False, hidden_act="silu"
    ),
    "mobilebert, tiny F-2": MobileBertConfig(
        **_mobile, intra_bottleneck_size=16, use_bottleneck_attention=True, key_query_shared_bottleneck=False,
        num_feedforward_networks=2,
    ),
    "mobilebert, bottleneck attention with an unused shared one": MobileBertConfig(
        **_mobile, intra_bottleneck_size=24, use_bottleneck_attention=True
    ),
    "mobilebert, wide queries": MobileBertConfig(  # the one width at which transformers runs IB-BERT's structure
        **_mobile, intra_bottleneck_size=64, key_query_shared_bottleneck=False
    ),
}  # fmt: skip


def theirs(config: PreTrainedConfig) -> Any:
    """`config` as transformers' class."""
    data = config.to_dict()
    return getattr(transformers, f"{FAMILIES[config.model_type]}Config").from_dict(data)


def our_class(config: PreTrainedConfig, head: str) -> Any:
    return getattr(pocketbert, FAMILIES[config.model_type] + head, None)


def their_class(config: PreTrainedConfig, head: str) -> Any:
    return getattr(transformers, FAMILIES[config.model_type] + head, None)


def pairs() -> Iterator[tuple[str, str]]:
    """Every configuration with every head that transformers has for it."""
    for name, config in CONFIGS.items():
        for head in HEADS:
            if their_class(config, head) is not None:
                yield name, head


def each_in_turn(
    heads: Sequence[str] = HEADS, configs: Mapping[str, PreTrainedConfig] = CONFIGS
) -> list[tuple[str, str]]:
    """Every configuration with some head, and some configuration of each family with every head that it has."""
    families = [[name for name, config in configs.items() if config.model_type == family] for family in FAMILIES]
    groups = [(names, [head for head in heads if our_class(configs[names[0]], head)]) for names in families]
    return [(name, head) for name, head in in_turn(groups)]


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter, norms and biases too, so that no part of a model can hide behind ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)


def batch(head: str, seed: int) -> dict[str, torch.Tensor]:
    """Ids with padding, segments, and the labels that the head wants."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    rows, length = 3, 11
    shape = (rows, 4, length) if head == "ForMultipleChoice" else (rows, length)
    mask = torch.ones(shape, dtype=torch.long)
    mask[1, ..., 7:] = 0
    mask[2, ..., 1:] = 0
    inputs = {"input_ids": draw(VOCABULARY, *shape), "attention_mask": mask, "token_type_ids": draw(2, *shape)}
    words = draw(VOCABULARY, rows, length)
    words[:, ::3] = -100
    labels: dict[str, dict[str, torch.Tensor]] = {
        "Model": {},
        "ForPreTraining": {"labels": words, "next_sentence_label": draw(2, rows)},
        "ForMaskedLM": {"labels": words},
        "ForNextSentencePrediction": {"labels": draw(2, rows)},
        "ForSequenceClassification": {"labels": draw(2, rows)},
        "ForMultipleChoice": {"labels": draw(4, rows)},
        "ForTokenClassification": {"labels": words.clamp(max=1)},
        "ForQuestionAnswering": {  # one position outside the text, which counts for nothing
            "start_positions": torch.tensor([2, 40, 0]),
            "end_positions": torch.tensor([3, 5, 99]),
        },
    }
    return inputs | labels[head]

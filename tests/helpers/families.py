"""Small, unusual configurations of all families, and the two ways from ours to transformers' classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
import transformers

import pocketbert
from helpers.configs import VOCABULARY
from helpers.pairs import in_turn
from pocketbert import PreTrainedConfig
from pocketbert.families import FAMILIES
from pocketbert.families.family import HEADS as HEAD_KINDS

HEADS = tuple(HEAD_KINDS)
CONFIGS: dict[str, PreTrainedConfig] = {
    name: config
    for model_type in FAMILIES
    for name, config in import_module(f"helpers.configs.{model_type.replace('-', '_')}").CONFIGS.items()
}

#: Families whose layers, heads and lowering are another's: family → that one.
ALIKE = {"xlm-roberta": "roberta", "camembert": "roberta"}


def theirs(config: PreTrainedConfig) -> Any:
    """`config` as transformers' class."""
    data = config.to_dict()
    return getattr(transformers, f"{FAMILIES[config.model_type].name}Config").from_dict(data)


def our_class(config: PreTrainedConfig, head: str) -> Any:
    return getattr(pocketbert, FAMILIES[config.model_type].class_name(head), None)


def their_class(config: PreTrainedConfig, head: str) -> Any:
    """transformers' class for a head that the family has here; None without one."""
    if head not in FAMILIES[config.model_type].heads:
        return None
    return getattr(transformers, FAMILIES[config.model_type].class_name(head), None)


def all_that_matter(
    configs: Mapping[str, PreTrainedConfig] = CONFIGS, class_of: Callable[[PreTrainedConfig, str], Any] = our_class
) -> list[tuple[str, str]]:
    """Every head of the first configuration of each family; of its others what reads all that an encoder computes.

    Those of a family that is `ALIKE` another are others.

    A head depends on the configuration in its word scores and in the pooler alone, and `ForPreTraining` has both; where
    there is none, a head of each kind. A model without a head has an output of the pooler even where that has no layer.
    """
    cases = []
    for name, config in configs.items():
        heads = [head for head in HEADS if class_of(config, head) is not None]
        if name not in FAMILIES or name in ALIKE:
            both = ("ForPreTraining",) if "ForPreTraining" in heads else ("ForMaskedLM", "ForSequenceClassification")
            heads = [head for head in heads if head in both or (head == "Model" and not config.has_pooler_layer)]
        cases += [(name, head) for head in heads]
    return cases


def each_in_turn(
    heads: Sequence[str] = HEADS, configs: Mapping[str, PreTrainedConfig] = CONFIGS
) -> list[tuple[str, str]]:
    """Every configuration with some head, and some configuration of each family with every head that it has.

    Families that are `ALIKE` count as one.
    """
    families = [
        [name for name, config in configs.items() if ALIKE.get(config.model_type, config.model_type) == family]
        for family in FAMILIES
    ]
    groups = [(names, [head for head in heads if our_class(configs[names[0]], head)]) for names in families if names]
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

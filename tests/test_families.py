"""Every registered family has all that the rest of the package and of the repository expects of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest

from helpers.families import CONFIGS
from pocketbert.configs import PRESETS
from pocketbert.families import FAMILIES, MODULES, family_of, find_family
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import HEADS, Dense, Family, WordScores
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel

ROOT = Path(__file__).parents[1]


def lacking(family: Family) -> Iterator[str]:
    """The parts that a family lacks, each by name."""
    if family.config_class.model_type != family.model_type:
        yield "config: its model_type is another"
    if family.tensorflow is not None and not _exists(f"{family.tensorflow}.TF{family.class_name('Model')}"):
        yield f"TensorFlow module: {family.tensorflow}"
    if unknown := family.heads.keys() - HEADS.keys():
        yield f"heads: {', '.join(sorted(unknown))} unknown"
    for head in family.heads:
        if not _exists(f"{family.models}.{family.class_name(head)}"):
            yield f"model: {family.models}.{family.class_name(head)}"
    if not _exists(f"{family.lowering}.lower_encoder"):
        yield f"lowering: {family.lowering}.lower_encoder"
    if not _exists(family.tokenizer):
        yield f"tokenizer: {family.tokenizer}"
    if family.model_type not in CONFIGS or family_of(CONFIGS[family.model_type]) is not family:
        yield f"parity fixture: tests/helpers/configs/{family.model_type}.py"
    pages = {page: (ROOT / "docs" / "api" / page).read_text(encoding="utf-8") for page in ("models.md", "configs.md")}
    for page, module in (("models.md", family.models), ("configs.md", family.config_class.__module__)):
        if f"::: {module}\n" not in pages[page]:
            yield f"documentation: ::: {module} in docs/api/{page}"


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(module), attribute)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("model_type", FAMILIES)
def test_nothing_is_lacking(model_type: str) -> None:
    if FAMILIES[model_type].tensorflow is not None:
        pytest.importorskip("tensorflow")
    assert list(lacking(FAMILIES[model_type])) == []


def test_what_is_lacking_is_named() -> None:
    bare = replace(
        FAMILIES["bert"],
        model_type="stone",
        name="Stone",
        models="pocketbert.models.stone",
        lowering="pocketbert.runtime.lowering.stone",
        tensorflow="pocketbert.errors",
        tokenizer="pocketbert.tokenization.StoneTokenizer",
        heads={"Model": (), "ForEverything": (Dense("classifier"),)},
    )
    assert [part.partition(":")[0] for part in lacking(bare)] == [
        "config", "TensorFlow module", "heads", "model", "model", "lowering", "tokenizer", "parity fixture",
        "documentation",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_have_the_names_that_the_family_gives(name: str) -> None:
    config, family = CONFIGS[name], family_of(CONFIGS[name])
    for head in family.heads:
        model: PreTrainedModel = family.load(f"{family.models}.{family.class_name(head)}")(config)
        own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        encoder = {name for name in own if not family.is_optional(name)}
        assert all(name.startswith(f"{family.prefix}.") for name in encoder) or isinstance(model, EncoderModel)
        layers = {f"{layer.name}.{part}" for layer in family.heads[head] for part in ("weight", "bias")}
        assert layers <= own
        assert len(model.base_model.layers) == config.num_hidden_layers
        assert {family.short(name) for name in own} >= set(family.embeddings)
        if HEADS[head].words:
            assert set(family.tied) <= own


def test_presets_have_names_of_their_own() -> None:
    names = [name for family in FAMILIES.values() for name in family.presets]
    assert len(names) == len(set(names)) == len(PRESETS)


def test_a_family_is_found_by_its_model_type() -> None:
    assert [find_family(model_type).model_type for model_type in MODULES] == list(FAMILIES)
    assert len(FAMILIES) == len(MODULES)


def test_word_scores_that_own_their_bias_tie_the_matrix_alone() -> None:
    assert WordScores().tied == ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    assert WordScores(bias="cls.predictions.decoder.bias").tied == ("cls.predictions.decoder.weight",)


def test_a_configuration_without_a_size_says_which() -> None:
    with pytest.raises(AttributeError, match="PreTrainedConfig has no field hidden_size, nor is it in attribute_map"):
        PreTrainedConfig()
    assert "hidden_size" not in {field.name for field in fields(PreTrainedConfig)}

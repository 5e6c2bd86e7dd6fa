"""Configurations: published defaults and files, and every message for what cannot be built."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pocketbert import AutoConfig, BertConfig, CheckpointError, ConfigError, MobileBertConfig, SqueezeBertConfig
from pocketbert.configs import PRESETS, PreTrainedConfig

ALL = pytest.mark.parametrize("cls", [BertConfig, SqueezeBertConfig, MobileBertConfig])


def test_presets_survive_a_file(tmp_path: Path) -> None:
    for name, preset in PRESETS.items():
        preset.save_pretrained(tmp_path / name)
        assert AutoConfig.from_pretrained(tmp_path / name) == preset


@ALL
def test_unknown_keys_are_kept_and_written_back(cls: type[PreTrainedConfig], tmp_path: Path) -> None:
    data = {**cls().to_dict(), "finetuning_task": "mrpc", "my": {"nested": [1, None]}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    config = cls.from_pretrained(tmp_path)
    assert config.extra == {"finetuning_task": "mrpc", "my": {"nested": [1, None]}}
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == data


def test_what_published_files_hold_is_taken_by_name(tmp_path: Path) -> None:
    """Of code for transformers: labels by name, and keys that no output depends on."""
    make: Any = BertConfig
    ids = {"no": 0, "maybe": 1, "yes": 2}
    config = make(label2id=ids)
    assert (config.num_labels, config.label2id) == (3, ids)
    assert make(label2id=ids, id2label={0: "no", 1: "maybe", 2: "yes"}) == config
    with pytest.raises(ConfigError, match="contradict each other"):
        make(label2id=ids, id2label={0: "yes", 1: "maybe", 2: "no"})
    given: dict[str, Any] = {
        "use_cache": False, "torch_dtype": "torch.float32", "architectures": ["BertModel"], "is_decoder": False,
        "chunk_size_feed_forward": 0, "transformers_version": "4.40.0",
    }  # fmt: skip
    config = make(**given, model_type="bert")
    assert config.extra == {**given, "torch_dtype": "float32"}
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, use_cache=True).extra == {**config.extra, "use_cache": True}
    assert json.loads(config.to_json_string()) == config.to_dict()
    for wrong in ({"is_decoder": True}, {"position_embedding_type": "relative_key"}, {"pruned_heads": {"0": [1]}}):
        with pytest.raises(ConfigError, match=f"BertConfig: {next(iter(wrong))}=.* is not supported, only"):
            make(**wrong)
    for name in ("foo", "model_type"):
        with pytest.raises(ConfigError, match=f"BertConfig has no field {name}"):
            make(**{name: "x"})


def test_the_published_files_are_read() -> None:
    """Of squeezebert-mnli (no labels by name, no pad token) and of mobilebert-uncased (with a derived width)."""
    mnli = SqueezeBertConfig.from_dict({"model_type": "squeezebert", "vocab_size": 30528, "num_labels": 3})
    assert mnli == PRESETS["squeezebert-mnli"]
    assert mnli.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    mobile = MobileBertConfig.from_dict(
        {"classifier_activation": False, "true_hidden_size": 999}
    )  # a stored one is wrong
    assert mobile == PRESETS["mobilebert-uncased"]
    assert mobile.to_dict()["true_hidden_size"] == 128


def test_labels_follow_each_other() -> None:
    config = BertConfig(id2label={0: "no", 1: "maybe", 2: "yes"})
    assert config.num_labels == 3
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert config.replace(num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.replace(num_labels=3).id2label == config.id2label
    assert config.replace(id2label={0: "a"}).num_labels == 1
    assert BertConfig().num_labels == 2
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@ALL
def test_frozen(cls: type[PreTrainedConfig]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().hidden_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (BertConfig, {"num_attention_heads": 5}, "num_attention_heads=5 must divide hidden_size=768"),
        (BertConfig, {"hidden_size": 0}, "hidden_size=0 must be at least 1"),
        (BertConfig, {"hidden_size": "768"}, "hidden_size='768' must be of type int"),
        (BertConfig, {"vocab_size": True}, "vocab_size=True must be of type int"),
        (BertConfig, {"hidden_act": "gelu_13"}, "hidden_act='gelu_13' must be one of gelu, gelu_new"),
        (BertConfig, {"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob=1.0 must lie in \[0, 1\)"),
        (BertConfig, {"classifier_dropout": -0.1}, r"classifier_dropout=-0.1 must lie in \[0, 1\)"),
        (BertConfig, {"layer_norm_eps": 0.0}, "layer_norm_eps=0.0 must be positive"),
        (BertConfig, {"layer_norm_eps": float("nan")}, "layer_norm_eps=nan must be positive"),
        (BertConfig, {"pad_token_id": 30522}, "pad_token_id=30522 must be an id below vocab_size=30522"),
        (BertConfig, {"problem_type": "guess"}, "problem_type='guess' must be one of regression"),
        (BertConfig, {"num_labels": 1, "problem_type": "single_label_classification"}, "num_labels=1 must be over 1"),
        (BertConfig, {"num_labels": -1}, "num_labels=-1 must be at least 1"),
        (BertConfig, {"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "num_labels=3 must equal the number of labels"),
        (BertConfig, {"id2label": {0: "a", 2: "b"}}, "id2label=.* must have the keys 0, 1, 2"),
        (BertConfig, {"id2label": {0: "a", 1: "a"}}, "id2label=.* must not name two labels alike"),
        (BertConfig, {"id2label": {"x": "a"}}, "id2label=.* must map whole numbers to names"),
        (BertConfig, {"extra": {"is_decoder": True}}, "is_decoder=True is not supported, only False"),
        (BertConfig, {"extra": {"position_embedding_type": "relative_key"}}, "position_embedding_type='relative_key'"),
        (BertConfig, {"extra": {"embedding_size": 128}}, "embedding_size=128 is not supported, only 768"),
        (SqueezeBertConfig, {"embedding_size": 128}, "embedding_size=128 must equal hidden_size=768"),
        (SqueezeBertConfig, {"q_groups": 5}, "q_groups=5 must divide hidden_size=768"),
        (SqueezeBertConfig, {"k_groups": 0}, "k_groups=0 must divide hidden_size=768"),
        (SqueezeBertConfig, {"v_groups": 7}, "v_groups=7 must divide hidden_size=768"),
        (SqueezeBertConfig, {"post_attention_groups": 9}, "post_attention_groups=9 must divide hidden_size=768"),
        (
            SqueezeBertConfig,
            {"intermediate_groups": 3, "intermediate_size": 1000},
            "intermediate_groups=3 must divide inter",
        ),
        (
            SqueezeBertConfig,
            {"output_groups": 6, "intermediate_size": 1000, "intermediate_groups": 4},
            "output_groups=6",
        ),
        (MobileBertConfig, {"num_attention_heads": 3}, "num_attention_heads=3 must divide intra_bottleneck_size=128"),
        (MobileBertConfig, {"num_attention_heads": 3, "use_bottleneck": False}, "must divide hidden_size=512"),
        (MobileBertConfig, {"normalization_type": "batch"}, "normalization_type='batch' must be no_norm or layer_norm"),
        (MobileBertConfig, {"num_feedforward_networks": 0}, "num_feedforward_networks=0 must be at least 1"),
        (MobileBertConfig, {"embedding_size": 1024}, "embedding_size=1024 must not exceed hidden_size=512"),
    ],
)
def test_what_cannot_be_built(cls: type[PreTrainedConfig], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**values)


def test_another_family_and_no_family() -> None:
    with pytest.raises(ConfigError, match="model_type='gpt2' is not one of bert, squeezebert, mobilebert"):
        AutoConfig.from_dict({"model_type": "gpt2"})
    with pytest.raises(ConfigError, match="model_type=None"):
        AutoConfig.from_dict({})
    with pytest.raises(ConfigError, match="model_type='bert' is not 'mobilebert': MobileBertConfig cannot describe"):
        MobileBertConfig.from_dict({"model_type": "bert"})
    with pytest.raises(ConfigError, match="BertConfig has no field hidden"):
        BertConfig().replace(hidden=3)


def test_damaged_files(tmp_path: Path) -> None:
    for content in ("", "[]", "{", '{"a": }', "\x00"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises((CheckpointError, ConfigError), match=r"config\.json"):
            BertConfig.from_pretrained(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        BertConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("written", "understood"), [(["BertModel"], ["BertModel"]), ([5, "BertModel"], ["BertModel"]), (5, []), ("B", [])]
)
def test_architectures(written: Any, understood: list[str]) -> None:
    config = BertConfig(extra={"architectures": written})
    assert config.architectures == understood
    config.refuse_other_head("ForSequenceClassification", "a folder")

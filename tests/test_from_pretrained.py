"""`from_pretrained` with the arguments that code written for transformers passes; older methods of tokenizers."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)
from pocketbert.arguments import FROM_PRETRAINED
from pocketbert.errors import CheckpointError, ConfigError, InputError, TokenizerError

NAMES = {0: "bad", 1: "good", 2: "plain"}
IDS = {name: index for index, name in NAMES.items()}
# A value of each argument that chooses nothing, other than None.
IDLE = {
    "trust_remote_code": False, "code_revision": "main", "low_cpu_mem_usage": True, "use_safetensors": True,
    "weights_only": False, "from_tf": False, "from_flax": False, "from_pt": True, "resume_download": True,
    "force_download": False, "subfolder": "", "attn_implementation": "sdpa", "device_map": "auto",
    "load_in_8bit": False, "finetuning_task": "sst2", "token": False, "use_auth_token": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head, with a tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tokenizer_of(spelling("the", "film"))
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    AutoModel.from_config(config, torch_dtype="auto", attn_implementation="eager").save_pretrained(folder)
    return folder


def test_labels_in_every_form(base: Path) -> None:
    texts = {str(index): name for index, name in NAMES.items()}
    forms: list[dict[str, Any]] = [
        {"num_labels": 3, "id2label": NAMES, "label2id": IDS},
        {"id2label": NAMES, "label2id": {name: str(index) for name, index in IDS.items()}},
        {"id2label": texts},
        {"label2id": IDS},
        {"label2id": IDS, "num_labels": 3, "id2label": None},
    ]
    for given in forms:
        for kind in (AutoModelForSequenceClassification, BertForSequenceClassification):
            model: Any = kind.from_pretrained(base, **given)
            config = model.config
            assert (config.id2label, config.label2id, config.num_labels) == (NAMES, IDS, 3)
        assert AutoConfig.from_pretrained(base, **given).label2id == BertConfig.from_pretrained(base, **given).label2id
    assert AutoConfig.from_pretrained(base, num_labels=None, label2id=None).num_labels == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id2label": NAMES, "label2id": {"bad": 1, "good": 0, "plain": 2}}, "contradict each other"),
        ({"id2label": NAMES, "label2id": {"bad": 0, "good": 1}}, "contradict each other"),
        ({"label2id": {"bad": 0, "good": 0}}, "two names one number"),
        ({"label2id": ["bad", "good"]}, "must map names to whole numbers"),
        ({"label2id": {"bad": "first"}}, "must map names to whole numbers"),
        ({"label2id": {"bad": 1, "good": 2}}, "keys 0, 1, 2"),
        ({"num_labels": 2, "label2id": IDS}, "num_labels=2 must equal the number of labels"),
        ({"label_to_id": IDS}, "no field label_to_id"),
    ],
)
def test_labels_that_contradict(base: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutoModelForSequenceClassification.from_pretrained(base, **given)


def test_arguments_that_choose_nothing(base: Path) -> None:
    wanted = AutoModel.from_pretrained(base).state_dict()
    for given in (IDLE, dict.fromkeys([*FROM_PRETRAINED, "revision"])):
        found = AutoModel.from_pretrained(pretrained_model_name_or_path=base, **given).state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert AutoConfig.from_pretrained(base, **given) == AutoConfig.from_pretrained(base)
        for kind in (AutoTokenizer, BertTokenizer):
            assert kind.from_pretrained(base, use_fast=True, **given)("the film") == kind.from_pretrained(base)(
                "the film"
            )


def test_arguments_that_cannot_be_meant(base: Path) -> None:
    refused: dict[str, Any] = {
        "trust_remote_code": True, "subfolder": "model", "device_map": "cuda:0", "load_in_8bit": True,
        "state_dict": {"x": 1}, "force_download": True, "proxies": {"https": "x"},
    }  # fmt: skip
    for name, value in refused.items():
        for kind in (AutoModel, AutoModelForSequenceClassification, AutoConfig, AutoTokenizer, BertTokenizer):
            with pytest.raises(InputError, match=rf"^{name}={re.escape(repr(value))}: "):
                kind.from_pretrained(base, **{name: value})
        with pytest.raises(InputError, match=rf"^{name}="):
            AutoModel.from_config(AutoConfig.from_pretrained(base), **{name: value})
    with pytest.raises(InputError, match="folder or name on the hub, once"):
        AutoModel.from_pretrained(base, pretrained_model_name_or_path=base)
    with pytest.raises(InputError, match="no argument num_labels"):
        AutoModel.from_config(AutoConfig.from_pretrained(base), num_labels=3)


def test_precision_by_any_name(base: Path, tmp_path: Path) -> None:
    for given in ({"dtype": torch.bfloat16}, {"dtype": "bfloat16"}, {"torch_dtype": "torch.bfloat16"}):
        assert AutoModel.from_pretrained(base, **given).dtype == torch.bfloat16
    half = AutoModel.from_pretrained(base, torch_dtype=torch.float16)
    half.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.float32
    assert AutoModel.from_pretrained(tmp_path, torch_dtype="auto").dtype == torch.float16
    assert transformers.AutoModel.from_pretrained(tmp_path).dtype == torch.float16
    for wrong in ("int8", "long", torch.int64, 16):
        with pytest.raises(InputError, match="no floating-point type"):
            AutoModel.from_pretrained(base, dtype=wrong)


def test_a_configuration_by_its_folder(base: Path, tmp_path: Path) -> None:
    AutoConfig.from_pretrained(base, id2label=NAMES).save_pretrained(tmp_path)
    for kind in (AutoModelForSequenceClassification, BertForSequenceClassification):
        assert kind.from_pretrained(base, config=str(tmp_path)).config.id2label == NAMES


def test_another_number_of_labels_needs_a_word(base: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight of shape"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, label2id=IDS)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, label2id=IDS, ignore_mismatched_sizes=True)
    assert model.config.label2id == IDS


# ── tokenizers ──


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return tokenizer_of(spelling("the", "film", "great"), model_max_length=32)


def test_older_methods_are_calls(tokenizer: BertTokenizer) -> None:
    one, pair = "the film", ("the film", "great")
    assert tokenizer.encode_plus(one, max_length=4, truncation=True) == tokenizer(one, max_length=4, truncation=True)
    assert tokenizer.encode_plus(*pair, return_tensors="np")["input_ids"].tolist() == [tokenizer(*pair)["input_ids"]]
    for batch in ([one, "great"], (one, "great"), [pair, pair]):
        assert tokenizer.batch_encode_plus(batch, padding=True) == tokenizer(list(batch), padding=True)
    padded = tokenizer.encode_plus(one, pad_to_max_length=True, max_length=9)
    assert tokenizer(one, pad_to_max_length=True, max_length=9) == padded
    assert padded == tokenizer(one, padding="max_length", max_length=9)
    assert tokenizer.batch_encode_plus([one, "great"], pad_to_max_length=True) == tokenizer(
        [one, "great"], padding=True
    )
    assert tokenizer.vocab == tokenizer.get_vocab()
    assert tokenizer.get_added_vocab() == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert (tokenizer.max_len_single_sentence, tokenizer.max_len_sentences_pair, tokenizer.is_fast) == (30, 29, True)
    assert pickle.loads(pickle.dumps(tokenizer))(one) == tokenizer(one)


def test_older_methods_that_are_gone(tokenizer: BertTokenizer) -> None:
    for name, instead in {"prepare_for_model": "tokenizer", "push_to_hub": "save_pretrained"}.items():
        with pytest.raises(AttributeError, match=f"'{name}'; use .*{instead}"):
            getattr(tokenizer, name)
    with pytest.raises(AttributeError, match=r"has no 'stones'$"):
        tokenizer.stones  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(TokenizerError, match="call the tokenizer itself"):
        tokenizer.batch_encode_plus("the film")
    for given, says in (
        ({"truncation_strategy": "only_first"}, "truncation_strategy; pass truncation with its value"),
        ({"is_pretokenized": True}, "is_pretokenized; pass is_split_into_words"),
        ({"max_len": 8}, "has no argument max_len$"),
    ):
        for call in (tokenizer, tokenizer.encode_plus, tokenizer.encode):
            with pytest.raises(TokenizerError, match=says):
                call("the film", **given)

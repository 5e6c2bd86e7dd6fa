"""BPE and Unigram tokenizers against transformers', from the same files; and models that have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from helpers.families import our_class, randomise
from helpers.tokenizers import spelling, tokenizer_of
from pocketbert import AutoTokenizer, BertConfig, MPNetTokenizer, RobertaConfig, XLMRobertaConfig, pipeline
from pocketbert.errors import TokenizerError
from pocketbert.features import encode_questions, encode_texts, encode_tokens, encode_words
from pocketbert.runtime.quantized_folders import quantize_folder
from pocketbert.tokenization import BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CORPUS = [
    "The old film was great, wasn't it?", "Paris is the capital of France.",
    "La vieille maison était là-bas, près du lac.",
    "今日は良い天気ですね", "She didn't like the new film at all; he'd seen it twice.",
    "naïve café costs 3,50 € or $4.00",
] * 3  # fmt: skip
TEXTS = [
    "The film is old.", " Paris", "", "a\tb\n\nc", "naïve  café 😀!", "de la France <mask> été", "<s> inside </s>",
    "unknown Ωμέγα 漢字", "3,50 €", "x" * 40, "The film is <pad> old", "it's n't 've",
]  # fmt: skip
PAIRS = [("The film", "is old."), ("", "x"), ("Paris is", "")]


@cache
def trained(kind: str) -> str:
    """A small tokenizer, as the text of its `tokenizer.json`."""
    if kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    else:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        backend.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=SPECIAL, unk_token="<unk>")
    backend.train_from_iterator(CORPUS, trainer)
    if kind == "bytes":
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return backend.to_str()


@pytest.fixture(params=["RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "PreTrainedTokenizerFast"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tokenizer of this class as transformers saves it."""
    kind = "bytes" if request.param == "RobertaTokenizer" else "pieces"
    (tmp_path / "tokenizer.json").write_text(trained(kind))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(_config(request.param)))
    saved = tmp_path / "saved"
    theirs(tmp_path).save_pretrained(saved)
    return saved


def _config(name: str) -> dict[str, Any]:
    named = {
        "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "mask_token": {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False,
        "single_word": False, "special": True, "__type": "AddedToken"},
    }  # fmt: skip
    return {"tokenizer_class": name, "model_max_length": 30, **named}


def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def same(ours: Any, reference: Any) -> None:
    """Ids, offsets and masks of texts, of pairs and of words; padded and cut."""
    ways: list[dict[str, Any]] = [
        {}, {"padding": True}, {"truncation": True, "max_length": 9}, {"add_special_tokens": False},
        {"truncation": True, "max_length": 7, "stride": 2, "return_overflowing_tokens": True},
    ]  # fmt: skip
    for way in ways:
        options = {**way, "return_offsets_mapping": True, "return_special_tokens_mask": True}
        for inputs in (TEXTS, [list(pair) for pair in PAIRS]):
            if inputs is not TEXTS and "stride" in way:
                continue
            got, expected = (one(inputs, **options) for one in (ours, reference))
            for key in expected:
                assert got[key] == expected[key], (key, way)
            assert [got.word_ids(i) for i in range(len(inputs))] == [expected.word_ids(i) for i in range(len(inputs))]
    assert len(ours) == len(reference)
    assert ours.get_vocab() == reference.get_vocab()
    for name in ("cls", "sep", "pad", "unk", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(reference, f"{name}_token_id")
    for text in TEXTS:
        ids = reference(text)["input_ids"]
        for skip in (False, True):
            assert ours.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)
        tokens = reference.convert_ids_to_tokens(ids[1:-1])
        assert ours.convert_ids_to_tokens(ids[1:-1]) == tokens
        if tokens:
            assert ours.convert_tokens_to_string(tokens) == reference.convert_tokens_to_string(tokens)
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == reference.num_special_tokens_to_add(pair)
    ids = reference("a", "b")["input_ids"]
    a, b = (reference(text, add_special_tokens=False)["input_ids"] for text in "ab")
    assert ours.build_inputs_with_special_tokens(a, b) == ids
    assert ours.get_special_tokens_mask(a, b) == [0 if i in (*a, *b) else 1 for i in ids]


def test_the_same_as_transformers(folder: Path, tmp_path: Path) -> None:
    reference, ours = theirs(folder), AutoTokenizer.from_pretrained(folder)
    assert type(ours).__name__ == json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"].replace(
        "TokenizersBackend", "PreTrainedTokenizerFast"
    )
    assert ours.model_max_length == 30
    same(ours, reference)
    ours.save_pretrained(tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    same(AutoTokenizer.from_pretrained(tmp_path / "ours"), reference)
    same(ours, theirs(tmp_path / "ours"))


def test_a_vocabulary_and_its_merges(tmp_path: Path) -> None:
    model = json.loads(trained("bytes"))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    ours = AutoTokenizer.from_pretrained(tmp_path)
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)  # as in the published files
    same(ours, transformers.RobertaTokenizer.from_pretrained(tmp_path, mask_token=mask))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BartTokenizer"}))
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"] == ours(TEXTS)["input_ids"]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match="vocab_file and merges_file"):
        AutoTokenizer.from_pretrained(tmp_path)


def test_words_have_spaces_before_them(tmp_path: Path) -> None:
    """transformers refuses lists of words without `add_prefix_space`, with which its taggers are trained."""
    (tmp_path / "tokenizer.json").write_text(trained("bytes"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(_config("RobertaTokenizer")))
    theirs(tmp_path).save_pretrained(tmp_path)
    words = [["The", "film", "was", "great"], ["Paris"]]
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    expected = reference(words, is_split_into_words=True)
    plain, spaced = (AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=add) for add in (None, True))
    for ours in (plain, spaced):
        assert [one.input_ids.tolist() for one in encode_words(ours, words)] == expected["input_ids"]
    assert spaced(TEXTS)["input_ids"] == reference(TEXTS)["input_ids"]
    assert plain("film")["input_ids"] != spaced("film")["input_ids"]
    spaced.save_pretrained(tmp_path / "spaced")
    assert AutoTokenizer.from_pretrained(tmp_path / "spaced")(TEXTS)["input_ids"] == spaced(TEXTS)["input_ids"]


def test_windows_of_questions(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained("bytes"))
    tokenizer = PreTrainedTokenizerFast(tmp_path / "tokenizer.json")
    context = " ".join(CORPUS[:4])
    [windows] = encode_questions(
        tokenizer, ["What is old?"], [context], max_length=32, doc_stride=8, max_question_length=12
    )
    assert len(windows) > 2
    question = tokenizer("What is old?", add_special_tokens=False)["input_ids"]
    for window in windows:
        ids = window.input_ids.tolist()
        assert ids[: len(question) + 3] == [0, *question, 2, 2]
        assert window.context.start == len(question) + 3
        assert ids[-1] == 2
        assert len(ids) <= 32
        assert not window.token_type_ids.any()


def test_words_by_spaces(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained("bytes"))
    tokenizer = PreTrainedTokenizerFast(tmp_path / "tokenizer.json")
    text = "Paris, wasn't great"
    [tokens] = encode_tokens(tokenizer, [text])
    found = [text[tokens.offsets[word[0], 0] : tokens.offsets[word[-1], 1]] for word in tokens.tokens_of_words()]
    assert found == ["Paris,", "wasn't", "great"]
    assert tokens.words == 3


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (RobertaConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=4, intermediate_size=48,
                       max_position_embeddings=42, type_vocab_size=1, vocab_size=400), "bytes"),
        (BertConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=4, intermediate_size=48,
                    max_position_embeddings=40, vocab_size=400, pad_token_id=1), "pieces"),  # as multilingual MiniLM
    ],
)  # fmt: skip
def test_pipelines_are_those_of_transformers(config: Any, kind: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained(kind))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(_config("PreTrainedTokenizerFast")))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    config = config.replace(id2label={0: "O", 1: "B-A", 2: "I-A"}, vocab_size=len(tokenizer))

    def saved(head: str) -> Path:
        model = our_class(config, head)(config)
        randomise(model, 0)
        model.save_pretrained(tmp_path / head)
        tokenizer.save_pretrained(tmp_path / head)
        return tmp_path / head

    texts = ["The film is great, isn't it?", "Paris, the capital of France", "naïve café"]
    folder = saved("ForTokenClassification")
    for strategy in ("none", "simple", "first", "average", "max"):
        ours = pipeline("token-classification", folder, aggregation_strategy=strategy)(texts)
        reference = transformers.pipeline("token-classification", str(folder), aggregation_strategy=strategy)
        for text, got, expected in zip(texts, ours, reference(texts), strict=True):
            if strategy in ("first", "average", "max"):  # there the text of a word is decoded twice, and loses spaces
                assert all(one.pop("word").strip() == text[one["start"] : one["end"]] for one in got)
                expected = [{key: value for key, value in one.items() if key != "word"} for one in expected]
            assert _rounded(got) == _rounded(expected), strategy
    folder = saved("ForSequenceClassification")
    pair = [{"text": "The film", "text_pair": "is great"}, {"text": "a", "text_pair": "b"}]
    reference = transformers.pipeline("text-classification", str(folder), top_k=None)
    assert _rounded(pipeline("text-classification", folder, top_k=None)(pair)) == _rounded(reference(pair))
    folder = saved("ForMaskedLM")
    reference = transformers.pipeline("fill-mask", str(folder))
    assert _rounded(pipeline("fill-mask", folder)("The <mask> is great.")) == _rounded(
        reference("The <mask> is great.")
    )
    quantize_folder(folder, tmp_path / "int8")
    assert len(pipeline("fill-mask", tmp_path / "int8")("The <mask> is great.")) == 5


def _rounded(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return round(float(value), 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return int(value) if isinstance(value, np.integer) else value


def test_mpnet_has_two_separators_and_its_own_names(tmp_path: Path) -> None:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *spelling("the", "film")[1:], "<mask>"]
    ours = tokenizer_of(pieces, MPNetTokenizer)
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "MPNetTokenizer"
    reference = theirs(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in (ours, again):
        for inputs in (["the film", "the <mask>film", "", "<s> x"], [["the", "film"], ["", "x"]]):
            got, expected = tokenizer(inputs), reference(inputs)
            assert got["input_ids"] == expected["input_ids"]
            assert not np.concatenate(got["token_type_ids"]).any()
    assert isinstance(again, MPNetTokenizer)
    (tmp_path / "tokenizer.json").unlink()
    assert AutoTokenizer.from_pretrained(tmp_path)("the <mask>")["input_ids"] == ours("the <mask>")["input_ids"]


def test_what_is_refused(tmp_path: Path, subtests: Any) -> None:
    def refused(match: str, change: Callable[[dict[str, Any]], None] = lambda _: None, **config: Any) -> None:
        with subtests.test(match):
            data = json.loads(trained("bytes"))
            change(data)
            folder = tmp_path / "one"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "tokenizer.json").write_text(json.dumps(data))
            (folder / "tokenizer_config.json").write_text(json.dumps(_config("RobertaTokenizer") | config))
            with pytest.raises(TokenizerError, match=match):
                AutoTokenizer.from_pretrained(folder)

    template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {}}  # fmt: skip
    refused("which is not supported: models here read a first token", lambda data: data.update(post_processor=template))
    refused("around a text, and not <mask>", cls_token="<mask>")
    refused("no '<gap>'", mask_token="<gap>")
    refused("not a vocabulary that can be read", lambda data: data["model"].update(type="Charms"))
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "sentencepiece.bpe.model").write_bytes(b"\n")
    (lone / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    with pytest.raises(TokenizerError, match=r"sentencepiece\.bpe\.model alone is not read: .*save_pretrained"):
        AutoTokenizer.from_pretrained(lone)
    (tmp_path / "tokenizer.json").write_text(trained("bytes"))
    with pytest.raises(TokenizerError, match=r"holds a BPE model; .* PreTrainedTokenizerFast read any"):
        BertTokenizer(tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="id 400 is not in the vocabulary"):
        PreTrainedTokenizerFast(tmp_path / "tokenizer.json").decode([400])


def test_a_text_with_padding_in_it(tmp_path: Path) -> None:
    """Positions leave it out, as in transformers; and the longest input is read to its end."""
    (tmp_path / "tokenizer.json").write_text(trained("pieces"))
    config = XLMRobertaConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=4, intermediate_size=48,
                              max_position_embeddings=42, type_vocab_size=1, vocab_size=400)  # fmt: skip
    model = our_class(config, "Model")(config)
    randomise(model, 0)
    model.save_pretrained(tmp_path)
    reference = transformers.AutoModel.from_pretrained(tmp_path).eval()
    extract = pipeline("feature-extraction", tmp_path)
    texts = ["The film <pad> is old", "x " * 60, "Paris"]
    features = encode_texts(extract.tokenizer, texts, max_length=config.max_tokens)
    assert [len(one) for one in features][1] == config.max_tokens == 40
    for text, one in zip(texts, features, strict=True):
        import torch

        expected = reference(torch.from_numpy(one.input_ids[None].astype(np.int64)))[0][0]
        np.testing.assert_allclose(extract(text)[0], expected.detach().numpy(), atol=1e-4)


def test_roberta_is_the_class_of_its_family(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained("bytes"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is RobertaTokenizer

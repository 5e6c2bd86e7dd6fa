"""Vectors and ranked passages, in the forms of several services."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sentences import copy, declare
from helpers.service import Service, running
from pocketbert import CrossEncoder, SentenceTransformer, pipeline

TEXT = "the film is great"
LONG = "marie curie was born in warsaw " + "dull " * 100
QUERY, PASSAGES = "who was born ?", ["the film is dull", "marie curie was born in warsaw", "great"]


@pytest.fixture(scope="module")
def encoder(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder with declarations."""
    files = {
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 16},
        "config_sentence_transformers.json": {"prompts": {"query": "film . ", "document": ""}},
    }
    return declare(copy(models["embed"], tmp_path_factory.mktemp("encoder") / "model"), files)


@pytest.fixture(scope="module")
def served(models: dict[str, Path], encoder: Path) -> Iterator[Service]:
    named = [f"encoder={encoder}", f"rank={models['rank']}", f"nli={models['nli']}", f"tag={models['tag']}"]
    named.append(f"answer={models['answer']}")
    with running(*named, "--no-log") as one:
        yield one


def same(found: Any, wanted: np.ndarray) -> bool:
    return np.array_equal(np.array(found, np.float32), wanted)


def test_embed(served: Service, encoder: Path) -> None:
    model = SentenceTransformer(encoder)
    for body, options in (
        ({}, {"normalize_embeddings": True}),
        ({"normalize": False}, {}),
        ({"normalize": False, "prompt_name": "query"}, {"prompt_name": "query"}),
        ({"dimensions": 5}, {"truncate_dim": 5, "normalize_embeddings": True}),
    ):
        expected = model.encode([TEXT, LONG], **options)
        for path, key in (("/embed", None), ("/v1/embed", "results")):
            found = served.ask(path, {"inputs": [TEXT, LONG], **body}).json
            assert same(found if key is None else found[key], expected)
    nothing = dict.fromkeys(("normalize", "truncate", "truncation_direction", "prompt_name", "dimensions", "model"))
    expected = served.ask("/embed", {"inputs": TEXT}).json
    assert served.ask("/embed", {"inputs": TEXT, **nothing}).json == expected
    assert served.ask("/info").json["model_type"] == {"embedding": {"pooling": "cls"}}
    assert served.ask("/info").json["max_input_length"] == 16


def test_the_side_that_is_cut(served: Service, encoder: Path) -> None:
    text = "dull " * 100 + "marie curie was born in warsaw"
    words = text.split()[-14:]
    expected = SentenceTransformer(encoder).encode(" ".join(words))
    for side in ("Left", "left"):
        body = {"inputs": text, "truncation_direction": side, "normalize": False}
        assert same(served.ask("/embed", body).json[0], expected)
        assert same(served.ask("/v1/embed", body).json["results"][0], expected)
        assert same(served.ask("/models/encoder", body).json[0], expected)
    left, right = (
        served.ask("/predict", {"inputs": text, "model": "nli", "truncation_direction": side}).json
        for side in ("Left", "Right")
    )
    assert left != right


def test_token_ids(served: Service, encoder: Path) -> None:
    model = SentenceTransformer(encoder)
    ids = [model.tokenizer.encode(text, add_special_tokens=False) for text in (TEXT, "dull")]
    whole = [model.tokenizer.encode(text) for text in (TEXT, "dull")]
    expected = served.ask("/embed", {"inputs": [TEXT, "dull"]}).json
    for given in (ids, whole):
        assert served.ask("/embed", {"inputs": given}).json == expected
        found = served.ask("/v1/embeddings", {"input": given, "model": "encoder"}).json
        assert [one["embedding"] for one in found["data"]] == expected
        assert served.ask("/embed", {"inputs": given[0]}).json == expected[:1]
    prompted = served.ask("/embed", {"inputs": ids[0], "prompt_name": "query"}).json
    assert prompted == served.ask("/embed", {"inputs": TEXT, "prompt_name": "query"}).json
    long = [ids[0][0]] * 50
    assert served.ask("/embed", {"inputs": long}).json == served.ask("/embed", {"inputs": "the " * 50}).json
    assert served.ask("/embed", {"inputs": long, "truncate": False}).status == 422
    assert "token id" in served.ask("/embed", {"inputs": [10**6]}).json["error"]
    assert served.ask("/embed", {"inputs": [-1]}).status == 422


def test_openai(served: Service, encoder: Path) -> None:
    body = {"input": TEXT, "model": "encoder", "dimensions": 7, "encoding_format": None, "user": None}
    found = served.ask("/v1/embeddings", body).json
    expected = SentenceTransformer(encoder).encode(TEXT, truncate_dim=7, normalize_embeddings=True)
    assert same(found["data"][0]["embedding"], expected)
    for wrong, message in (
        ({"dimensions": 33}, "exceeds the 32"),
        ({"dimensions": 0}, "dimensions"),
        ({"normalise": False}, "normalise"),
        ({"input": []}, "empty"),
        ({"input": [[]]}, "input"),
    ):
        reply = served.ask("/v1/embeddings", {**body, **wrong})
        assert (reply.status, message in reply.json["error"]["message"]) == (422, True)


def test_vectors_of_tokens(served: Service, encoder: Path) -> None:
    found = served.ask("/embed_all", {"inputs": [TEXT, "dull"]}).json
    expected = SentenceTransformer(encoder).encode([TEXT, "dull"], output_value="token_embeddings")
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    reply = served.ask("/embed_all", {"inputs": [LONG] * 300})
    assert reply.status == 413
    assert "4,096" in reply.json["error"]


def test_similarity(served: Service, encoder: Path) -> None:
    model = SentenceTransformer(encoder)
    body = {"inputs": {"source_sentence": TEXT, "sentences": PASSAGES}}
    for parameters in (None, {}, {"prompt_name": "query"}):
        found = served.ask("/similarity", {**body, "parameters": parameters}).json
        name = (parameters or {}).get("prompt_name")
        vectors = model.encode([TEXT, *PASSAGES], prompt_name=name)
        assert found == pytest.approx(model.similarity(vectors[0], vectors[1:])[0].tolist(), abs=1e-6)
    assert served.ask("/similarity", {**body, "parameters": {"metric": "dot"}}).status == 422


def test_decode_and_tokenize(served: Service) -> None:
    for name in ("encoder", "tag"):
        [tokens] = served.ask("/tokenize", {"inputs": TEXT, "model": name, "prompt_name": None}).json
        ids = [one["id"] for one in tokens]
        assert served.ask("/decode", {"ids": [ids, ids[1:2]], "model": name}).json == [TEXT, "the"]
        with_them = served.ask("/decode", {"ids": ids, "skip_special_tokens": False, "model": name}).json
        assert with_them == [f"[CLS] {TEXT} [SEP]"]
    [tokens] = served.ask("/tokenize", {"inputs": TEXT, "prompt_name": "query"}).json
    assert [one["text"] for one in tokens][1:3] == ["film", "."]
    assert served.ask("/tokenize", {"inputs": TEXT, "prompt_name": "query", "model": "tag"}).status == 422
    assert served.ask("/decode", {"ids": [10**6]}).status == 422


def test_rerank(served: Service, models: dict[str, Path]) -> None:
    expected = CrossEncoder(models["rank"]).rank(QUERY, PASSAGES)
    found = served.ask("/rerank", {"query": QUERY, "texts": PASSAGES}).json
    assert [one["index"] for one in found] == [one["corpus_id"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-6)
    raw = served.ask("/rerank", {"query": QUERY, "texts": PASSAGES, "raw_scores": True, "return_text": True}).json
    logits = CrossEncoder(models["rank"], activation_fn="torch.nn.Identity").rank(QUERY, PASSAGES)
    assert [one["score"] for one in raw] == pytest.approx([one["score"] for one in logits], abs=1e-5)
    assert [one["text"] for one in raw] == [PASSAGES[one["index"]] for one in raw]
    assert served.ask("/rerank", {"query": QUERY, "texts": [LONG * 2], "truncate": False}).status == 422


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_rerank_of_jina_and_cohere(served: Service, models: dict[str, Path], path: str) -> None:
    expected = CrossEncoder(models["rank"]).rank(QUERY, PASSAGES)
    documents: list[Any] = [PASSAGES[0], {"text": PASSAGES[1]}, PASSAGES[2]]
    found = served.ask(path, {"model": "rank", "query": QUERY, "documents": documents, "top_n": None}).json
    assert [one["index"] for one in found["results"]] == [one["corpus_id"] for one in expected]
    scores = [one["relevance_score"] for one in found["results"]]
    assert scores == pytest.approx([one["score"] for one in expected], abs=1e-6)
    assert (found["model"], found["usage"]["total_tokens"] > 10) == ("rank", True)
    best = served.ask(path, {"query": QUERY, "documents": documents, "top_n": 1, "return_documents": True}).json
    index = expected[0]["corpus_id"]
    assert best["results"] == [{"index": index, "relevance_score": scores[0], "document": {"text": PASSAGES[index]}}]
    for wrong, status in (
        ({"max_chunks_per_doc": 3}, 422),
        ({"model": "nli"}, 422),
        ({"model": "tag"}, 422),
        ({"model": "x"}, 404),
        ({"documents": []}, 422),
        ({"documents": [{"title": "a"}]}, 422),
    ):
        assert served.ask(path, {"query": QUERY, "documents": documents, **wrong}).status == status


def test_nothing_that_ranks(service: Service, models: dict[str, Path]) -> None:
    with running(f"nli={models['nli']}", "--no-log") as other:
        reply = other.ask("/rerank", {"query": QUERY, "texts": PASSAGES})
        assert (reply.status, "cross encoder" in reply.json["error"]) == (404, True)


def test_classify_of_vllm(served: Service, models: dict[str, Path]) -> None:
    pipe = pipeline("text-classification", models["nli"], top_k=None)
    names = list(pipe.config.id2label.values())
    for path in ("/classify", "/v1/classify"):
        found = served.ask(path, {"input": [TEXT, "dull"], "model": "nli", "user": None}).json
        for one, wanted in zip(found["data"], pipe([TEXT, "dull"]), strict=True):
            shares = {scored["label"]: scored["score"] for scored in wanted}
            assert one["probs"] == [shares[name] for name in names]
            assert (one["label"], one["num_classes"]) == (wanted[0]["label"], 3)
        assert [one["index"] for one in found["data"]] == [0, 1]
        assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == 9
        assert len(served.ask(path, {"input": TEXT, "model": "nli"}).json["data"]) == 1
        assert served.ask(path, {"input": TEXT, "inputs": TEXT, "model": "nli"}).status == 422
    ours = served.ask("/v1/classify", {"inputs": TEXT, "model": "nli", "top_k": None, "labels": None}).json
    assert json.loads(json.dumps(pipe(TEXT))) == ours["results"]
    for nulls in ({"input": None, "inputs": TEXT}, {"input": TEXT, "inputs": None}):
        assert served.ask("/v1/classify", {**nulls, "model": "nli"}).status == 200
    wrong = served.ask("/v1/classify", {"inputs": 7, "model": "nli"}).json["error"]
    assert wrong["param"] == "inputs"


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/classify": {"inputs": TEXT, "model": "nli"},
    "/v1/tag": {"inputs": TEXT},
    "/v1/embed": {"inputs": TEXT},
    "/v1/embeddings": {"input": TEXT, "model": "encoder"},
    "/v1/rerank": {"query": QUERY, "documents": PASSAGES},
    "/rerank": {"query": QUERY, "texts": PASSAGES},
    "/classify": {"input": TEXT, "model": "nli"},
    "/embed": {"inputs": TEXT},
    "/embed_all": {"inputs": TEXT},
    "/similarity": {"inputs": {"source_sentence": TEXT, "sentences": PASSAGES}},
    "/predict": {"inputs": TEXT, "model": "nli"},
    "/tokenize": {"inputs": TEXT},
    "/decode": {"ids": [1, 2]},
    "/models/encoder": {"inputs": TEXT},
}


@pytest.mark.parametrize("path", ROUTES)
def test_null_is_as_left_out_and_unknown_options_are_refused(served: Service, path: str) -> None:
    """Cases 40 and 41: on every route, for every field of its description."""
    body = ROUTES[path]
    document = served.ask("/openapi.json").json
    name = "/models/{name}" if path.startswith("/models/") else path
    schema = document["paths"][name]["post"]["requestBody"]["content"]["application/json"]["schema"]
    forms = [one for one in (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())) if "$ref" in one]
    fields = [document["components"]["schemas"][form["$ref"].rsplit("/", 1)[1]] for form in forms]
    form = next(one for one in fields if set(body) <= set(one["properties"]))
    expected = served.ask(path, body)
    assert expected.status == 200, expected.body
    optional = [field for field in form["properties"] if field not in body]
    for field in optional:
        assert {"type": "null"} in form["properties"][field]["anyOf"]
    reply = served.ask(path, {**body, **dict.fromkeys(optional)})
    assert reply.status == 200, reply.body
    if "/v1/" not in path and path != "/classify":
        assert reply.json == expected.json
    reply = served.ask(path, {**body, "normalise": False})
    assert reply.status == 422
    assert b"normalise" in reply.body


def test_windows_on_every_route_that_cuts(served: Service, encoder: Path, models: dict[str, Path]) -> None:
    """A text that is too long is read whole if the client asks for it, and its cut noted otherwise."""
    whole = SentenceTransformer(encoder).encode(LONG * 3, windows=True, normalize_embeddings=True)
    label = pipeline("text-classification", models["nli"], top_k=None)(LONG * 3, windows=True)
    score = CrossEncoder(models["rank"]).predict([(QUERY, LONG * 3)], windows=True)[0]
    [other] = CrossEncoder(models["rank"]).predict([(QUERY, LONG * 3)])
    assert abs(score - other) > 1e-4
    bodies: dict[str, tuple[dict[str, Any], Any]] = {
        "/embed": ({"inputs": LONG * 3}, lambda found: same(found[0], whole)),
        "/v1/embeddings": (
            {"input": LONG * 3, "model": "encoder"}, lambda found: same(found["data"][0]["embedding"], whole)
        ),
        "/predict": ({"inputs": LONG * 3, "model": "nli"}, lambda found: found == label[0]),
        "/classify": (
            {"input": LONG * 3, "model": "nli"}, lambda found: max(found["data"][0]["probs"]) == label[0][0]["score"]
        ),
        "/rerank": ({"query": QUERY, "texts": [LONG * 3]}, lambda found: abs(found[0]["score"] - score) < 1e-6),
        "/v1/rerank": (
            {"query": QUERY, "documents": [LONG * 3]},
            lambda found: abs(found["results"][0]["relevance_score"] - score) < 1e-6,
        ),
        "/similarity": (
            {"inputs": {"source_sentence": LONG * 3, "sentences": [LONG * 3]}},
            lambda found: found == pytest.approx([1.0]),
        ),
        "/models/encoder": (
            {"inputs": LONG * 3, "parameters": {"normalize": True}}, lambda found: same(found[0], whole)
        ),
        "/models/nli": ({"inputs": LONG * 3, "parameters": {"top_k": 3}}, lambda found: found == label),
    }  # fmt: skip
    for path, (body, is_right) in bodies.items():
        assert int(served.ask(path, body).headers["x-truncated"]) >= 1, path
        nested = "parameters" if path.startswith(("/models", "/similarity")) else None
        asked = {**body, nested: {**body.get(nested, {}), "windows": True}} if nested else {**body, "windows": True}
        found = served.ask(path, asked)
        assert "x-truncated" not in found.headers, path
        assert is_right(found.json), path


def test_what_the_hub_publishes(served: Service, models: dict[str, Path]) -> None:
    """Cases 42 and 10: all parameters of question answering, and similarity by the name of its model."""
    asked = {"question": "the film?", "context": "the film is great. a dull film. " * 8}
    chosen = {"align_to_words": False, "doc_stride": 9, "max_seq_len": 40, "max_question_len": 6, "max_answer_len": 4,
              "handle_impossible_answer": True, "top_k": 3}  # fmt: skip
    expected = pipeline("question-answering", models["answer"])(asked, **chosen)
    found = served.ask("/models/answer", {"inputs": asked, "parameters": chosen})
    assert found.json == json.loads(json.dumps(expected))
    assert served.ask("/models/answer", {"inputs": asked, "parameters": {"doc_stride": 500}}).status == 422
    body = {"inputs": {"source_sentence": TEXT, "sentences": PASSAGES}}
    assert served.ask("/models/encoder", body).json == served.ask("/similarity", body).json
    assert served.ask("/models/nli", body).status == 422


def test_strides_of_tags(served: Service) -> None:
    """Case 42: published, and of no effect where a text fits into one window."""
    asked = {"inputs": TEXT, "parameters": {"stride": 16}}
    assert served.ask("/models/tag", asked).json == served.ask("/models/tag", {"inputs": TEXT}).json
    asked["parameters"] = {"stride": 5000}
    long = served.ask("/models/tag", {**asked, "inputs": LONG * 10})
    assert (long.status, "stride=5000" in long.json["error"]) == (422, True)

"""Unmodified clients of other APIs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.service import Service
from pocketbert import AutoTokenizer
from pocketbert.pipelines import pipeline


def test_openai(service: Service, models: dict[str, Path]) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        assert "embed" in [one.id for one in client.models.list()]
        texts = ["the film is great", "dull"]
        found = client.embeddings.create(model="embed", input=texts)  # as base64
        plain = client.embeddings.create(model="embed", input=texts, encoding_format="float")
        for one, other in zip(found.data, plain.data, strict=True):
            assert np.array_equal(np.float32(one.embedding), np.float32(other.embedding))
        assert [np.linalg.norm(one.embedding) for one in found.data] == pytest.approx([1, 1])
        assert found.usage.prompt_tokens == 9
        with pytest.raises(openai.NotFoundError, match="no model of that name"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.UnprocessableEntityError):
            client.embeddings.create(model="embed", input=[[10**6]])
        ids = AutoTokenizer.from_pretrained(models["embed"]).encode(texts[0])
        by_ids = client.embeddings.create(model="embed", input=[ids], dimensions=8)
        short = client.embeddings.create(model="embed", input=texts[0], dimensions=8)
        assert by_ids.data[0].embedding == short.data[0].embedding


def test_huggingface_hub(service: Service, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", False
    )  # conftest.py sees to it that nothing is reached
    text, gap = "marie curie was born in warsaw", "the [MASK] is great"
    clients: Any = {name: hub.InferenceClient(model=f"{service.url}/models/{name}", token="none") for name in models}

    found = clients["classify"].text_classification(text)
    best = pipeline("text-classification", models["classify"])(text, top_k=None)
    assert [(one.label, one.score) for one in found] == [(one["label"], one["score"]) for one in best]

    found = clients["tag"].token_classification(text, aggregation_strategy="simple")
    tagged = pipeline("token-classification", models["tag"])(text, aggregation_strategy="simple")
    assert [(one.entity_group, one.score) for one in found] == [(one["entity_group"], one["score"]) for one in tagged]

    found = clients["answer"].question_answering(question="who was born ?", context=text)
    read = pipeline("question-answering", models["answer"])(question="who was born ?", context=text)
    assert (found.answer, found.score, found.start) == (read["answer"], read["score"], read["start"])

    found = clients["fill-mask"].fill_mask(gap, top_k=3)
    assert [one.token_str for one in found] == [
        one["token_str"] for one in pipeline("fill-mask", models["fill-mask"])(gap, top_k=3)
    ]

    found = clients["nli"].zero_shot_classification(text, ["film", "poland"], multi_label=True)
    judged = pipeline("zero-shot-classification", models["nli"])(text, ["film", "poland"], multi_label=True)
    assert [(one.label, one.score) for one in found] == list(zip(judged["labels"], judged["scores"], strict=True))

    vector = clients["embed"].feature_extraction(text)
    wanted = pipeline("feature-extraction", models["embed"])(text, pooling="mean")
    assert np.array_equal(vector, np.array([wanted], np.float32))

    with pytest.raises(hub.utils.HfHubHTTPError, match="takes no targets"):
        clients["classify"].fill_mask(gap, targets=["film"])

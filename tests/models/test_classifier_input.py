"""Classifiers that read the mean of the token vectors, or the first of them: PyTorch, packed, the engine, exports."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.cases import save
from helpers.families import CONFIGS, our_class, randomise
from pocketbert.configs import BertConfig, PreTrainedConfig
from pocketbert.decode import softmax
from pocketbert.errors import ConfigError, InputError
from pocketbert.exporters.export import export
from pocketbert.exporters.load import find_export, load_export
from pocketbert.exporters.options import ExportOptions
from pocketbert.families.config import CLASSIFIER_INPUTS
from pocketbert.features import Features
from pocketbert.models.auto import model_class
from pocketbert.models.ops import Packing
from pocketbert.models.predict import TorchPredictor
from pocketbert.runtime import reference
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.quantize import quantize

HEAD = "ForSequenceClassification"
USUAL = [name for name, config in CONFIGS.items() if name == config.model_type and our_class(config, HEAD)]


def classifier(config: PreTrainedConfig, reads: str) -> Any:
    labels = {0: "a", 1: "b", 2: "c"}
    torch.manual_seed(0)
    model = model_class(config, HEAD)(config.replace(id2label=labels, extra=config.extra | {"classifier_input": reads}))
    randomise(model, 0)
    return model.eval()


def inputs(config: PreTrainedConfig, lengths: list[int]) -> list[Features]:
    random = np.random.default_rng(len(lengths))
    segments = max(1, config.type_vocab_size)
    return [
        Features(
            random.integers(5, config.vocab_size, n).astype(np.int32), random.integers(0, segments, n).astype(np.int32)
        )
        for n in lengths
    ]


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("reads", CLASSIFIER_INPUTS)
def test_all_paths_read_the_same_vector(name: str, reads: str) -> None:
    """PyTorch in a padded and in a packed batch, the engine and the interpreter, in fp32 and in int8."""
    model = classifier(CONFIGS[name], reads)
    config = model.config
    given = inputs(config, [7, 1, 12, 7])
    hidden = [
        model.base_model(torch.from_numpy(one.input_ids)[None].long(), None,
                         torch.from_numpy(one.token_type_ids)[None].long()).last_hidden_state[0].detach().numpy()
        for one in given
    ]  # fmt: skip
    last = model.head_layers[-1]
    vectors = np.stack([rows.mean(axis=0) if reads.endswith("mean") else rows[0] for rows in hidden])
    if reads.startswith("normalized"):
        vectors -= vectors.mean(axis=1, keepdims=True)
        vectors /= vectors.std(axis=1, keepdims=True)
    expected = vectors @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    assert len(model.head_layers) == 1

    def close(got: Any, tolerance: float = 2e-4) -> None:
        rows = np.stack([output["logits"] for output in got]) if isinstance(got, list) else got
        np.testing.assert_allclose(rows, expected, atol=tolerance * max(1.0, float(np.abs(expected).max())), rtol=0)

    close(TorchPredictor(model)(given))
    starts = np.cumsum([0, *map(len, given)])
    ids, types = (torch.from_numpy(np.concatenate([getattr(x, n) for x in given]))[None].long()
                  for n in ("input_ids", "token_type_ids"))  # fmt: skip
    places = torch.cat([torch.arange(len(x)) for x in given])[None]
    packing = Packing.of(torch.from_numpy(starts), 12)
    if config.type_vocab_size == 0:
        types = torch.zeros_like(types)
    close(model(ids, packing, types, places).logits.detach().numpy())
    plan = lower(config, {n: t.detach().numpy() for n, t in model.state_dict().items()}, HEAD)
    close(Engine(plan)(given))
    int8 = quantize(plan)
    interpreted = [
        {"logits": reference.run(int8, ids[0, a:b].numpy(), types[0, a:b].numpy(), np.array([0, b - a]))["logits"][0]}
        for a, b in pairwise(starts)
    ]
    difference = np.stack([x["logits"] for x in Engine(int8)(given)]) - np.stack([x["logits"] for x in interpreted])
    assert np.abs(difference).max() < 0.05 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("format_", "package"),
    [
        ("onnx", "onnxruntime"),
        pytest.param("litert", "ai_edge_litert", marks=pytest.mark.slow),
        pytest.param("savedmodel", "tensorflow", marks=pytest.mark.slow),
    ],
)
def test_exports_answer_alike(format_: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    config = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                        intermediate_size=48, max_position_embeddings=32)  # fmt: skip
    folder = save(classifier(config, "normalized_mean"), tmp_path / "model")
    export(ExportOptions(model=folder, output=tmp_path / "out", format=format_))
    file = find_export(tmp_path / "out")
    assert file is not None
    given = inputs(config, [5, 9])
    got, expected = load_export(file)(given), Engine.from_pretrained(folder, HEAD)(given)
    for one, other in zip(got, expected, strict=True):
        shares = softmax(one["logits"]), softmax(other["logits"])  # some formats hold logarithms of probabilities
        np.testing.assert_allclose(*shares, atol=0.01)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="classifier_input='max' must be one of mean, cls"):
        BertConfig(extra={"classifier_input": "max"})
    model = classifier(CONFIGS["bert"], "mean")
    with pytest.raises(InputError, match="needs an attention_mask"):
        model(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, 3))

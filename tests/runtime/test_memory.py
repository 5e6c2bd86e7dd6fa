"""What the engine keeps in memory: a model once, and a workspace that does not grow with the variety of shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.families import CONFIGS, our_class
from helpers.plans import tensors
from pocketbert.configs import BertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.features import Features
from pocketbert.runtime import engine as engine_module
from pocketbert.runtime.engine import Engine, native_core
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.quantize import quantize
from pocketbert.runtime.quantized_folders import quantize_folder

pytestmark = [
    pytest.mark.skipif(native_core() is None, reason="the native core was not built"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak of memory"),
]

_sizes: dict[str, Any] = {"vocab_size": 20_000, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
          "intermediate_size": 2048, "max_position_embeddings": 64}  # fmt: skip
LOAD = """
import re, sys
import numpy as np
from pathlib import Path
from pocketbert.features import Features
from pocketbert.runtime.engine import Engine

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

tiny, model = sys.argv[1:]
text = Features(np.arange(30, dtype=np.int32), np.zeros(30, np.int32))
Engine.from_pretrained(tiny, "Model")([text])
before = peak()
engine = Engine.from_pretrained(model, "Model")
loaded = peak()
engine([text])
print(before, loaded - before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("config", [BertConfig(**_sizes), SqueezeBertConfig(**_sizes, embedding_size=512)])
def test_a_model_is_in_memory_once(config: PreTrainedConfig, int8: bool, tmp_path: Path) -> None:
    """Neither the file nor its tensors stand beside what the core packs of them, in large pages, which cost a third."""
    tiny = config.replace(vocab_size=40, num_hidden_layers=1)
    for name, which in (("tiny", tiny), ("model", config)):
        our_class(which, "Model")(which).save_pretrained(tmp_path / name)
    model = tmp_path / "model"
    if int8:
        quantize_folder(model, tmp_path / "int8")
        model = tmp_path / "int8"
    command = [sys.executable, "-c", LOAD, str(tmp_path / "tiny"), str(model)]
    _, loaded, ran = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    size = (model / "model.safetensors").stat().st_size
    assert size / 2 < loaded < 1.15 * size + 3e6
    assert ran < 1.15 * size + 6e6


def workspace(engine: Engine) -> int:
    size: int = engine.run.program.workspace_bytes  # type: ignore[attr-defined]
    return size


def texts(lengths: list[int], rows: list[int] | None = None) -> list[Features]:
    asked = None if rows is None else np.array(rows, np.int32)
    return [Features(np.arange(n, dtype=np.int32) % 90, np.zeros(n, np.int32), rows=asked) for n in lengths]


def made(name: str, head: str, threads: int, int8: bool = True) -> Engine:
    model = our_class(CONFIGS[name], head)(CONFIGS[name])
    plan = lower(CONFIGS[name], tensors(model), head)
    return Engine(quantize(plan, smallest=0) if int8 else plan, threads)


@pytest.mark.parametrize(
    ("name", "head", "int8"),
    [("squeezebert", "Model", False), ("mobilebert", "ForMaskedLM", True), ("bert", "ForQuestionAnswering", False)],
)
def test_the_workspace_does_not_grow_with_the_variety_of_shapes(name: str, head: str, int8: bool) -> None:
    """After a thousand random batches it is what the largest alone makes it."""
    longest, most = CONFIGS[name].max_position_embeddings, 6
    once, often = made(name, head, 2, int8), made(name, head, 2, int8)
    once(texts([longest] * most))
    assert workspace(once) > 0
    draws = np.random.default_rng(0)
    for number in range(1000):
        often(texts([int(n) for n in draws.integers(1, longest + 1, draws.integers(1, most + 1))]))
        if number == 500:
            often(texts([longest] * most))
    assert workspace(often) == workspace(once)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_run_keeps_is_bounded(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes: outputs that are as wide as the vocabulary leave room for few tokens, unless few are asked for."""
    sequences = []
    for rows in (None, [3]):
        engine = made("bert", "ForMaskedLM", threads)
        monkeypatch.setattr(engine_module, "BYTES_PER_THREAD", 0)
        engine(texts([40] * 3, rows))
        alone = workspace(engine)
        monkeypatch.setattr(engine_module, "BYTES_PER_THREAD", 1 << 18)
        inner, runs = engine.run, list[int]()

        def run(ids: Any, segments: Any, starts: Any, asked: Any, inner: Any = inner, runs: list[int] = runs) -> Any:
            runs.append(len(starts) - 1)
            return inner(ids, segments, starts, asked)

        monkeypatch.setattr(engine, "run", run)
        answers = engine(texts([40] * 300, rows))
        monkeypatch.setattr(engine, "run", inner)
        assert [answer["logits"].shape for answer in answers] == [(1 if rows else 40, 99)] * 300
        assert alone < workspace(engine) <= alone + threads * (1 << 18)
        sequences.append(max(runs))
    assert 1 < sequences[0] < sequences[1]

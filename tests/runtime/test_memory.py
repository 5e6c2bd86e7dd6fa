"""What the engine keeps in memory: a model once, and a workspace that does not grow with the variety of shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parity.families import our_class
from pocketbert.configs import BertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.runtime.engine import native_core
from pocketbert.runtime.quantize import quantize_folder

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


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("config", [BertConfig(**_sizes), SqueezeBertConfig(**_sizes, embedding_size=512)])
def test_a_model_is_in_memory_once(config: PreTrainedConfig, int8: bool, tmp_path: Path) -> None:
    """Neither the file nor its tensors stand beside what the core packs of them: so much and the largest tensor."""
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

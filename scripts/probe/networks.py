"""Models in PyTorch, on every kernel of the native engine, and in NumPy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from probe.inputs import CONFIGS, HEADS, TEXTS, features, models, save_tokenizer
from probe.recorder import Probe, lines, tensors

SEVERAL_THREADS = (
    "squeezebert"  # the configuration that the engine runs on two; the others on one, which is faster here
)


def _torch(probe: Probe) -> None:
    """Fresh weights, outputs, losses and gradients of every class, and what it saves; this writes `models/`."""
    import torch

    import pocketbert

    probe.bits("presets", {name: config.to_dict() for name, config in pocketbert.PRESETS.items()})
    for name, (family, values) in CONFIGS.items():
        config = getattr(pocketbert, f"{family}Config")(**values)
        for head in HEADS:
            kind = getattr(pocketbert, family + head, None)
            if kind is None:
                continue
            item = f"{name}/{head}"
            torch.manual_seed(0)
            model = kind(config)
            probe.bits(f"{item}/fresh weights", dict(model.state_dict()))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_(0.2, 0.3) if parameter.dim() == 1 else parameter.normal_(0.0, 0.12)
            _outputs(probe, item, model, *_batch(head))
            folder = Path("models", name, head)
            model.save_pretrained(folder)
            save_tokenizer(folder)
            probe.bits(f"{item}/saved tensors", tensors(folder))
            probe.bits(f"{item}/config.json", json.loads((folder / "config.json").read_text()))
            auto = pocketbert.AutoModel if head == "Model" else getattr(pocketbert, f"AutoModel{head}")
            probe.bits(f"{item}/loaded", dict(auto.from_pretrained(folder).state_dict()))
    _tokenizers(probe)


def _outputs(probe: Probe, item: str, model: Any, inputs: dict[str, Any], labels: dict[str, Any]) -> None:
    import torch

    model.eval()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
    for key, value in output.items():
        probe.bits(f"{item}/{key}", value)
    if labels:
        model.train()  # with dropout
        torch.manual_seed(1)
        loss = model(**inputs, **labels).loss
        loss.backward()
        gradients = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
        probe.bits(f"{item}/gradients", {"loss": loss, **gradients})


def _batch(head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs with padding, and labels."""
    import torch

    draw = torch.Generator().manual_seed(3)

    def ids(high: int, *shape: int) -> Any:
        return torch.randint(0, high, shape, generator=draw)

    shape = (3, 4, 11) if head == "ForMultipleChoice" else (3, 11)
    mask = torch.ones(shape, dtype=torch.long)
    mask[1, ..., 7:] = 0
    mask[2, ..., 1:] = 0
    labels: dict[str, dict[str, Any]] = {
        "Model": {},
        "ForPreTraining": {"labels": ids(120, 3, 11), "next_sentence_label": ids(2, 3)},
        "ForMaskedLM": {"labels": ids(120, 3, 11)},
        "ForNextSentencePrediction": {"labels": ids(2, 3)},
        "ForSequenceClassification": {"labels": ids(2, 3)},
        "ForMultipleChoice": {"labels": ids(4, 3)},
        "ForTokenClassification": {"labels": ids(2, 3, 11)},
        "ForQuestionAnswering": {"start_positions": torch.tensor([2, 40, 0]), "end_positions": torch.tensor([3, 5, 9])},
    }
    inputs = {"input_ids": ids(120, *shape), "attention_mask": mask, "token_type_ids": ids(2, *shape)}
    return inputs, labels[head]


def _tokenizers(probe: Probe) -> None:
    from pocketbert import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path("models", "bert", "Model"))
    cut: dict[str, Any] = {"truncation": "only_second", "max_length": 24}
    calls: dict[str, Callable[[], Any]] = {
        "texts": lambda: tokenizer(TEXTS, padding=True, truncation=True, max_length=16),
        "pairs": lambda: tokenizer(TEXTS, TEXTS[::-1], truncation=True, max_length=32),
        "arrays": lambda: tokenizer(TEXTS[0], TEXTS[1], return_tensors="np"),
        "offsets": lambda: tokenizer(TEXTS, return_offsets_mapping=True, return_special_tokens_mask=True),
        "windows": lambda: tokenizer(TEXTS[0], TEXTS[3], **cut, stride=8, return_overflowing_tokens=True),
        "decoded": lambda: {"text": tokenizer.decode(tokenizer(TEXTS[4])["input_ids"], skip_special_tokens=True)},
        "vocabulary": tokenizer.get_vocab,
    }
    for name, call in calls.items():
        probe.bits(f"tokenizer/{name}", dict(call()))


def _quantize(probe: Probe) -> None:
    """`pocketbert quantize` of every model, which writes `int8/`."""
    for name, head, folder in models():
        out = Path("int8", name, head)
        out.parent.mkdir(parents=True, exist_ok=True)
        [line] = lines("quantize", folder, out)
        probe.bits(f"{name}/{head}/tensors", tensors(out))
        probe.text(f"{name}/{head}/output", json.dumps(line, indent=1))
        probe.text(f"{name}/{head}/config.json", (out / "config.json").read_text())


def _engine(probe: Probe) -> None:
    """Every model in fp32 and int8 on each kernel of this processor."""
    try:
        from pocketbert.runtime.core import available_kernels
    except ModuleNotFoundError:  # an older revision
        available_kernels = import_module("pocketbert._core").available_kernels

    for kernel in available_kernels():
        os.environ["POCKETBERT_KERNEL"] = kernel
        _run_models(probe, kernel)


def _numpy(probe: Probe) -> None:
    """The same in NumPy, as where the core was not built."""
    modules: dict[str, Any] = sys.modules
    modules["pocketbert._core"] = None
    _run_models(probe, "numpy")


def _run_models(probe: Probe, kernel: str) -> None:
    from pocketbert.runtime.engine import Engine

    for name, head, folder in models():
        for precision, path in (("fp32", folder), ("int8", Path("int8", name, head))):
            engine = Engine.from_pretrained(path, head, threads=2 if name == SEVERAL_THREADS else 1)
            outputs = engine(features())
            for key in outputs[0]:
                probe.bits(f"{kernel}/{precision}/{name}/{head}/{key}", [one[key] for one in outputs])


SECTIONS = {"torch": _torch, "quantize": _quantize, "engine": _engine, "numpy": _numpy}

"""`finetune --few-shot`: from a file to a model that answers, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers.imports import imported, packages
from helpers.shell import Outcome

TEXTS = {
    "billing": ["I was charged twice.", "Please refund my payment.", "The invoice is wrong.", "Send a receipt."],
    "bug": ["The app crashes.", "I see an error.", "The screen stays black.", "The page does not load."],
}


def test_from_a_file_to_an_answer(run: Callable[..., Outcome], tmp_path: Path) -> None:
    data, model = tmp_path / "tickets.csv", tmp_path / "model"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for label in TEXTS for text in TEXTS[label]))
    done = run("finetune", data, "--few-shot", "-o", model, "--json")
    [line] = done.lines
    assert line["folder"] == str(model)
    assert line["metrics"]["accuracy"] > 0.5
    assert "cross-validated: accuracy" in done.err
    assert run("classify", "--model", model, "My card was charged for nothing.").lines[0]["label"] == "billing"
    refused = run("finetune", data, "--few-shot", "--seeds", "2", "-o", tmp_path / "other")
    assert refused.code == 2
    assert "--seeds is for training the encoder" in refused.err


def test_it_needs_no_pytorch() -> None:
    assert "torch" not in packages(imported("import pocketbert.frozen.few_shot"))

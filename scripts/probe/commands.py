"""The commands for inference and evaluation, each on a small model of its task."""

from __future__ import annotations

from pathlib import Path

from probe.inputs import CONFIGS, HEADS, TEXTS, save_tokenizer, write_data
from probe.recorder import Probe, command, lines

LABELS = {
    "classify": ["bad", "good"],
    "nli": ["contradiction", "entailment", "neutral"],
    "tag": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
}
TASKS = {
    "classify": "ForSequenceClassification", "nli": "ForSequenceClassification", "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering", "fill-mask": "ForMaskedLM", "choose": "ForMultipleChoice", "embed": "Model",
}  # fmt: skip
assert set(TASKS.values()) <= set(HEADS)


def write_task_models(folder: Path = Path("tasks")) -> dict[str, Path]:
    """A model for each task, its family by turns."""
    import torch

    import pocketbert

    torch.manual_seed(0)
    kinds = ("squeezebert", "mobilebert-norm", "bert")
    for i, (task, head) in enumerate(TASKS.items()):
        family, values = CONFIGS[kinds[i % 3]]
        labels = dict(enumerate(LABELS.get(task, ["LABEL_0", "LABEL_1"])))
        config = getattr(pocketbert, f"{family}Config")(**values, id2label=labels)
        model = getattr(pocketbert, family + head)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:  # larger than a new model's, so that its outputs differ
                    parameter.normal_(0.0, 2.0 if "word_embeddings" in name else 0.2)
        model.save_pretrained(folder / task)
        save_tokenizer(folder / task)
    return {task: folder / task for task in TASKS}


def _commands(probe: Probe) -> None:
    write_data()
    made = write_task_models()
    for task, path in made.items():
        lines("quantize", path, Path("int8-tasks", task))
    data, text, device = Path("data"), TEXTS[0], ("--device", "cpu")
    both = {"": made, "int8 ": {task: Path("int8-tasks", task) for task in made}}
    for prefix, at in both.items():
        calls: dict[str, tuple[str | Path, ...]] = {
            "classify": ("classify", "-m", at["classify"], *TEXTS[:2], TEXTS[3], TEXTS[4]),
            "classify, a file": ("classify", "-m", at["classify"], "-f", data / "texts.txt", "--top-k", "2"),
            "classify, a pair": ("classify", "-m", at["nli"], text, "--pair", TEXTS[1], "--top-k", "3"),
            "classify, labels": ("classify", "-m", at["nli"], text, "--labels", "film,story", "--template", "a {}"),
            "classify, PyTorch": ("classify", "-m", at["classify"], *TEXTS[:2], *device),
            "tag": ("tag", "-m", at["tag"], text, TEXTS[3]),
            "tag, a file": ("tag", "-m", at["tag"], "-f", data / "texts.txt"),
            "answer": ("answer", "-m", at["answer"], "who ?", "where ?", "-c", TEXTS[3], "--top-k", "3"),
            "answer, empty": ("answer", "-m", at["answer"], "who ?", "-c", TEXTS[3], "--allow-empty"),
            "fill-mask": ("fill-mask", "-m", at["fill-mask"], "the [MASK] is [MASK] .", "--top-k", "4"),
            "fill-mask, targets": ("fill-mask", "-m", at["fill-mask"], "the [MASK] .", "--targets", "film,story"),
            "choose": ("choose", "-m", at["choose"], "ann lives", "in rome", "in bob", "is"),
            "embed": ("embed", "-m", at["embed"], text, TEXTS[4]),
            "embed, cls": ("embed", "-m", at["embed"], text, "--pooling", "cls", "--normalize"),
            "evaluate classify": ("evaluate", at["classify"], data / "reviews.csv", "-o", f"{prefix}predictions"),
            "evaluate tag": ("evaluate", at["tag"], data / "tags.txt"),
            "evaluate answer": ("evaluate", at["answer"], data / "questions.json"),
            "evaluate choose": ("evaluate", at["choose"], data / "choices.jsonl"),
            "evaluate, PyTorch": ("evaluate", at["tag"], data / "tags.txt", *device),
        }
        for name, arguments in calls.items():
            if prefix and "PyTorch" in name:
                continue  # models in int8 run on the engine
            probe.bits(f"{prefix}{name}", lines(*arguments))
            if not prefix and not name.startswith("evaluate"):
                probe.text(f"{name}, as a table", command(*arguments, "--table"))
        for file in sorted(Path(f"{prefix}predictions").rglob("*")):
            if file.is_file():
                probe.bits(f"{prefix}evaluate classify, {file.name}", file.read_bytes())
        probe.text(f"{prefix}info", command("info", at["classify"], "--table"))
        probe.text(f"{prefix}info --plan", command("info", at["classify"], "--plan", "--table"))
    probe.bits("classify, the bundled model", lines("classify", *(text for text in TEXTS if text)))


SECTIONS = {"commands": _commands}

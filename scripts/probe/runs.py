"""Short training runs: what they write, tensor by tensor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from probe.inputs import CONFIGS, save_tokenizer, write_data
from probe.recorder import Probe, command, tensors

# Of run.json: what differs between two runs that are the same.
VOLATILE = {"seconds", "started", "machine", "versions", "pocketbert", "git"}
# … and of a model card.
_VOLATILE_LINES = re.compile(r"^(.* ms \||Timed on .*|PocketBERT \d.*)$", re.MULTILINE)
_FEW = ("--no-tensorboard", "--device", "cpu")


def _train(probe: Probe, name: str, *arguments: str | Path) -> Path:
    """Run a training command into the folder `name`, and record what lies there."""
    folder = Path(name)
    command(*arguments, *_FEW)
    probe.bits(f"{name}/tensors", tensors(folder))
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or inside.parts[0] in {"checkpoints", "teachers", "tensorboard"}:
            continue
        if file.name == "run.json":
            run = json.loads(file.read_text())
            probe.bits(f"{name}/history", run.get("history"))
            steady = {key: value for key, value in run.items() if key not in VOLATILE}
            probe.text(f"{name}/run.json", json.dumps(steady, indent=1, sort_keys=True))
        elif file.name == "README.md":
            probe.text(f"{name}/README.md", _VOLATILE_LINES.sub("…", file.read_text()))
        elif file.suffix == ".json" and file.name != "tokenizer.json":
            probe.bits(f"{name}/{inside}", json.loads(file.read_text()))
        elif file.suffix not in {".html", ".png", ".safetensors"}:
            probe.bits(f"{name}/{inside}", file.read_bytes())
    return folder


def _config(name: str, **changes: Any) -> Path:
    """A config.json: a model small enough that a run takes a second."""
    family, values = CONFIGS[name]
    small = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, **changes}
    if family != "Bert":
        small = {"embedding_size": 16 if family == "MobileBert" else 32, **small}
    if family == "MobileBert":
        small = {"intra_bottleneck_size": 16, **small}
    path = Path(f"{name}.json")
    path.write_text(json.dumps({**values, "model_type": family.lower(), "initializer_range": 0.2, **small}))
    return path


def _finetune(probe: Probe) -> None:
    write_data()
    save_tokenizer(Path("words"))
    data, few = Path("data"), ("--epochs", "2", "--batch-size", "8", "--learning-rate", "5e-3")  # 18 steps
    scratch = {name: ("--from-scratch", _config(name), "--tokenizer", "words") for name in CONFIGS}

    def finetune(name: str, file: str, start: tuple[str | Path, ...], *more: str) -> Path:
        return _train(probe, name, "finetune", data / file, "-o", name, *start, *few, *more)

    finetune("classify", "reviews.csv", scratch["squeezebert"])
    finetune("pairs", "pairs.csv", scratch["bert"], "--accumulation", "2", "--eval-every", "5")
    finetune("tag", "tags.txt", scratch["mobilebert"], "--task", "token-classification")
    finetune("answer", "questions.json", scratch["squeezebert-groups"], "--task", "question-answering")
    finetune("choose", "choices.jsonl", scratch["bert"], "--task", "multiple-choice")
    finetune("quantization-aware", "reviews.csv", scratch["mobilebert"], "--quantization-aware")
    fresh = ("--from-scratch", scratch["squeezebert"][1], "--vocab-size", "100")
    finetune("new-vocabulary", "reviews.csv", fresh, "--precision", "bf16")
    finetune("from-checkpoint", "reviews.csv", ("--model", "classify"), "--seed", "7", "--patience", "3")

    def distill(name: str, file: str, *more: str | Path) -> Path:
        return _train(probe, name, "distill", data / file, "-o", name, *few, *more)

    hidden = ("--hidden-weight", "1", "--attention-weight", "1")
    distill("distil-classify", "reviews.csv", "--teacher", "classify", "--student", "classify", *hidden)
    student = ("--teacher", "classify", "--init", "copy", "--augment", "1")
    distill("distil-from-teacher", "reviews.csv", *student, "--from-scratch", scratch["squeezebert"][1],
            "--keep-vocabulary", "90")  # fmt: skip
    two = ("--teacher", "pairs", "--teacher", "pairs", "--student", "pairs", "--temperature", "2")
    distill("distil-two-teachers", "pairs.csv", *two, "--unlabelled", data / "pairs.csv")
    for task, file, folder in (
        ("token-classification", "tags.txt", "tag"),
        ("question-answering", "questions.json", "answer"),
        ("multiple-choice", "choices.jsonl", "choose"),
    ):
        teach = ("--task", task, "--teacher", folder, "--student", folder)
        distill(f"distil-{folder}", file, *teach, *(hidden if folder == "tag" else ()))


def _pretrain(probe: Probe) -> None:
    write_data()
    save_tokenizer(Path("words"))
    documents = Path("data", "documents.txt")
    command("prepare", documents, "learned", "--vocab-size", "110", "--held-out", "0.2", "--workers", "1")
    command("prepare", documents, "corpus", "--tokenizer", "words", "--held-out", "0.2", "--workers", "1")
    for corpus in ("learned", "corpus"):
        for file in sorted(Path(corpus).iterdir()):
            if file.suffix in {".safetensors", ".txt"}:
                probe.bits(f"prepare/{corpus}/{file.name}", file.read_bytes())
            else:
                probe.text(f"prepare/{corpus}/{file.name}", file.read_text())
    few = ("--steps", "12,8", "--length", "16,32", "--batch-size", "8", "--tokens", "128", "--eval-every", "10",
           "--eval-batches", "1", "--mini", "--learning-rate", "0.005")  # fmt: skip
    norm = {"normalization_type": "layer_norm", "key_query_shared_bottleneck": False, "num_feedforward_networks": 1}
    squeeze, mobile = _config("squeezebert"), _config("mobilebert", num_hidden_layers=2)
    teacher = _config("mobilebert-norm", intra_bottleneck_size=48, hidden_act="gelu", **norm)

    def pretrain(name: str, preset: str, config: Path, *more: str) -> None:
        _train(probe, name, "pretrain", "corpus", name, "--preset", preset, "--model-config", config, *few, *more)

    pretrain("squeezebert", "squeezebert", squeeze)
    pretrain("whole-words", "squeezebert", squeeze, "--whole-words", "--pairs", "none", "--optimizer", "adamw")
    pretrain("ib-bert", "ib-bert", teacher)
    pretrain("mobilebert", "mobilebert", mobile, "--optimizer", "lamb-nvidia", "--precision", "bf16")
    for strategy in ("progressive", "auxiliary", "joint"):
        taught = ("--teacher", "ib-bert", "--strategy", strategy, "--layer-steps", "6", "--layer-batch-size", "8")
        _train(probe, strategy, "transfer", "corpus", strategy, "--model-config", mobile, *taught, *few)
    words = ("--task", "feature-extraction", "--hidden-weight", "1", "--alpha", "0")
    _train(probe, "distil-encoder", "distill", "corpus", "-o", "distil-encoder", "--teacher", "squeezebert",
           "--student", "squeezebert", *words, "--epochs", "1", "--batch-size", "8", "--max-length", "32")  # fmt: skip


SECTIONS = {"finetune": _finetune, "pretrain": _pretrain}

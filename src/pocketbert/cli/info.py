"""Inspection of a model without running it: info."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import click_argument, click_option, command

if TYPE_CHECKING:
    from pocketbert.checkpoints.safetensors_files import Tensors
    from pocketbert.families.config import PreTrainedConfig


@command(examples=["pocketbert info my-model", "pocketbert info google/mobilebert-uncased --json | jq .parameters"])
@click_argument("model", type=click.Path(), help="Model folder, or hub name, which is downloaded.")
@click_option("--plan", is_flag=True, help="Show the steps of the engine's plan instead.")
@console.json_option
def info(model: str, plan: bool, json: bool | None) -> None:
    """Show a model's architecture, labels, training run and files."""
    if plan:
        _show_plan(model)
        return
    config, facts = _facts(model)
    if console.use_json(json):
        console.print_json(facts)
    else:
        console.print_facts([(name, value) for name, value in _rows(config, facts) if value])


def _show_plan(model: str) -> None:
    from pocketbert.runtime.engine import Engine
    from pocketbert.sentences.declared import read_declared

    with console.busy("reading the weights"):
        declared = read_declared(model)
        engine = Engine.from_pretrained(declared.encoder, declared.read_config().saved_head)
    console.print_text(str(engine.plan))


def _facts(model: str) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The configuration, and all facts for JSON; needs no PyTorch."""
    from pocketbert.checkpoints import read_tensors, resolve
    from pocketbert.configs import AutoConfig
    from pocketbert.families import family_of
    from pocketbert.runtime.engine import backend

    folder = resolve(model, files=("*.json", "*.txt"))
    config = AutoConfig.from_pretrained(folder)
    family = family_of(config)
    with console.busy("reading the weights"):
        tensors = read_tensors(model, widen=False)
    sizes = {
        name: tensor.size
        for name, tensor in tensors.items()
        if not (config.tie_word_embeddings and name in family.tied) and not name.endswith(("_scale", ".balance"))
    }
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return config, {
        "model": model,
        "folder": str(folder),
        "family": family.name,
        "architecture": next(iter(config.architectures), None),
        "parameters": sum(sizes.values()),
        "int8_parameters": sum(tensor.size for tensor in tensors.values() if tensor.dtype.kind == "i"),
        "embedding_parameters": sum(size for name, size in sizes.items() if family.short(name) in family.embeddings),
        "config": {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")},
        "labels": _labels(config, tensors),
        **_vocabulary(folder, config),
        "run": _run(folder),
        "files": {path.name: path.stat().st_size for path in files},
        "engine": backend()._asdict(),
    }


def _labels(config: PreTrainedConfig, tensors: Tensors) -> list[str] | None:
    """The labels of a classifier; None for other models."""
    from pocketbert.families import family_of
    from pocketbert.families.family import HEADS

    heads = family_of(config).heads.items()
    layers = {layers[-1].name for head, layers in heads if HEADS[head].task and HEADS[head].scores is None}
    weights = [tensors[f"{name}.weight"] for name in layers if f"{name}.weight" in tensors]
    return list(config.id2label.values()) if any(len(w) == config.num_labels for w in weights) else None


def _vocabulary(folder: Path, config: PreTrainedConfig) -> dict[str, Any]:
    from pocketbert.errors import TokenizerError
    from pocketbert.features import fit
    from pocketbert.tokenization import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except TokenizerError:
        return {"vocabulary": None, "tokens": None}
    return {"vocabulary": len(tokenizer), "tokens": fit(tokenizer, config.max_tokens)}


def _run(folder: Path) -> dict[str, Any] | None:
    """The run manifest, if the folder has one."""
    from pocketbert.checkpoints.files import read_json

    path = folder / "run.json"
    return read_json(path) if path.is_file() else None


# ── table ──


def _rows(config: PreTrainedConfig, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    files, labels = facts["files"], facts["labels"]
    if labels is not None and config.problem_type == "regression":
        labels = ["a number"]
    total, embeddings, int8 = (facts[name] for name in ("parameters", "embedding_parameters", "int8_parameters"))
    vocabulary = facts["vocabulary"]
    return [
        ("model", f"{facts['architecture'] or facts['family']}"),
        ("folder", facts["folder"]),
        ("parameters", f"{total:,}, of them {embeddings:,} in embeddings" + (f", {int8:,} in int8" if int8 else "")),
        ("layers", _layers(config)),
        ("inputs", f"up to {facts['tokens']:,} tokens" if facts["tokens"] else ""),
        ("vocabulary", f"{vocabulary:,} tokens" if vocabulary else "none: the folder has no tokenizer"),
        ("labels", "" if labels is None else _some(labels)),
        ("trained", _training(facts["run"])),
        ("files", ", ".join(f"{name} {_size(size)}" for name, size in files.items())),
        ("on disk", _size(sum(files.values()))),
        ("runs on", _engine(**facts["engine"])),
    ]


def _layers(config: PreTrainedConfig) -> str:
    return ", ".join(
        [
            f"{config.num_hidden_layers} of width {config.hidden_size}",
            f"{config.num_attention_heads} heads",
            f"{config.intermediate_size} inside",
            *config.details,
        ]
    )


def _training(run: Mapping[str, Any] | None) -> str:
    """One line from a run manifest; without what it lacks."""
    if run is None:
        return ""
    options, best = run.get("options") or {}, run.get("best") or {}
    train = (run.get("data") or {}).get("train") or {}
    metric = run.get("metric")
    start = options.get("model") or options.get("from_scratch")
    parts = [
        f"{str(run.get('started', ''))[:10]} on {train.get('file', 'unknown data')}",
        f"{train['examples']:,} examples" if "examples" in train else "",
        f"from {start}" if start else "",
        f"{metric} {best[metric]:.4f} after step {best['step']:,}" if metric in best else "",
        "" if run.get("finished") else "not finished",
    ]
    return ", ".join(part for part in parts if part)


def _engine(kernels: str | None, threads: int, refused: Mapping[str, str]) -> str:
    what = "NumPy, as the native core is not built" if kernels is None else f"the native core, {kernels} kernels"
    without = "".join(f"; not {name}: {reason}" for name, reason in refused.items())
    return f"{what}, {threads} thread{'s' if threads > 1 else ''}{without}"


def _some(names: list[str], limit: int = 20) -> str:
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"

"""The report of a run or an evaluation: one page, from what is written beside the model."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import read_json
from pocketbert.errors import PocketBertError
from pocketbert.reports import sections
from pocketbert.reports.page import facts, page, section, table, text, tiles
from pocketbert.reports.sections import Explanation
from pocketbert.tasks.outcomes import FILE, Outcomes, Shown, read_outcomes

REPORT = "report.html"
#: Kind of outcomes → the pipeline that explains errors, and of how many: each takes as many passes as it has words.
_EXPLAINED = {
    "classes": ("text-classification", 6),
    "several": ("text-classification", 6),
    "numbers": ("text-classification", 6),
    "tags": ("token-classification", 4),
    "answers": ("question-answering", 2),
}


def write_run_report(
    folder: Path, latency: Mapping[str, float] | None = None, notes: Mapping[str, str] | None = None
) -> None:
    """Write the report of a finished run, from its `run.json` and the outcomes in `evaluation/`.

    Args:
        folder: the output folder of the run.
        latency: condition → milliseconds per input, as measured on this machine.
        notes: further facts on the data: name → value.
    """
    run = read_json(folder / "run.json")
    _, sets = read_outcomes(folder / "evaluation" / FILE)
    options = run["options"]
    start = options["model"] or "random weights"
    teachers = f", distilled from {', '.join(options['teacher'])}" if options.get("teacher") else ""
    below = (
        f"A model for {options['task'].replace('-', ' ')}, trained with PocketBERT {run['pocketbert']} from "
        f"{_last(start)}{teachers}. {run['started'][:10]}"
    )
    parts = _of_sets(folder, sets, run)
    parts += [_data(run, notes or {}), _size(folder, run, latency or {}), _reproduction(run)]
    write_text(folder / REPORT, page(folder.resolve().name, below, *parts))


def write_evaluation_report(
    folder: Path, model: str, sizes: Mapping[str, str], argv: Sequence[str], *, explained: str | None
) -> None:
    """Write the report of an evaluation beside its predictions.

    Args:
        folder: the folder of the predictions.
        model: the name of the model.
        sizes: facts on the model, the data and the machine.
        argv: the command.
        explained: the model folder that explains errors, None where there is none.
    """
    _, sets = read_outcomes(folder / FILE)
    parts = _of_sets(None if explained is None else Path(explained), sets, {})
    parts += [section("Data, model and machine", facts(sizes))]
    if argv:
        parts.append(section("Reproduction", f"<pre>{text(shlex.join(argv))}</pre>"))
    write_text(folder / REPORT, page(f"{_last(model)} on {_files(sets)}", "An evaluation with PocketBERT.", *parts))


def write_few_shot_report(folder: Path, name: str, *, held_out: bool) -> None:
    """Write the report of a head on frozen vectors, from its `few-shot.json` and the outcomes in `evaluation/`.

    Args:
        folder: the folder of the model, complete but for this.
        name: what it will be called.
        held_out: whether the outcomes are for evaluation data, and not of cross-validation.
    """
    facts_of = read_json(folder / "few-shot.json")
    _, sets = read_outcomes(folder / "evaluation" / FILE)
    below = (
        f"A head on the vectors of {_last(facts_of['encoder'])}, which is not trained "
        f"(strength {facts_of['strength']:g})."
        + ("" if held_out else " Every example is predicted by a head that was fitted without it (cross-validation).")
    )
    megabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    parts = _of_sets(folder, sets, {"baseline": facts_of["baseline"], "calibration": facts_of.get("calibration")})
    data = facts_of["data"] if held_out else {"train": facts_of["data"]["train"]}
    parts += [_data({"data": data}, {}), section("Size", facts({"weights": f"{megabytes:.1f} MB"}))]
    write_text(folder / REPORT, page(name, below, *parts))


def _last(name: str) -> str:
    """Return the name of a folder without its place, which is the user's; names on the hub as they are."""
    return Path(name).name if Path(name).exists() else name


def _files(sets: Mapping[str, Outcomes]) -> str:
    return ", ".join(dict.fromkeys(one.file for one in sets.values()))


def _of_sets(model: Path | None, sets: Mapping[str, Outcomes], run: Mapping[str, Any]) -> list[str]:
    """Return the sections of each set."""
    parts: list[str] = []
    for name, outcomes in sets.items():
        found = sections.limits_of(outcomes)
        several = f" ({name})" if len(sets) > 1 else ""
        prefix = f"{name}_" if len(sets) > 1 else ""
        baseline = {key.removeprefix(prefix): value for key, value in run.get("baseline", {}).items()}
        explanations, why_not = ({}, None) if model is None else explain(model, outcomes)
        first = next(iter(outcomes.metrics.items()), None)
        if first is not None:
            low, high = found.get(first[0], (math.nan, math.nan))
            limits = f"{low:.3f} – {high:.3f}" if math.isfinite(low) else ""
            values = [(f"{first[0]}{several}", f"{first[1]:.3f}", limits), ("examples", f"{len(outcomes):,}", several)]
            if outcomes.labels:
                values.append(("labels", f"{len(outcomes.labels):,}", ""))
            parts.append(tiles(values))
        parts += [
            sections.scores(outcomes, found, baseline, f"Scores{several}", selected=len(run.get("history", ())) > 1),
            sections.per_class(outcomes, found),
            sections.confusion(outcomes),
            sections.plots(outcomes, *((None, ()) if several else (run.get("calibration"), run.get("history", ())))),
            sections.errors(outcomes, explanations, why_not),
            sections.suspects(outcomes),
        ]
    return parts


def explain(model: Path, outcomes: Outcomes) -> tuple[dict[int, Explanation], str | None]:
    """Return explanations of the first errors, by occlusion on the engine; or why there are none."""
    if outcomes.kind not in _EXPLAINED or not outcomes.errors:
        return {}, None
    from pocketbert.pipelines import pipeline

    task, count = _EXPLAINED[outcomes.kind]
    found: dict[int, Explanation] = {}
    why_not = None
    try:
        answer = pipeline(task, model=str(model))
    except PocketBertError as error:
        return {}, f"No explanations: {error}"
    for number, one in enumerate(outcomes.errors[:count]):
        try:
            explanation = _explained(answer, outcomes.kind, one)
        except PocketBertError as error:  # a passage of several windows, for example
            why_not = f"Some explanations are missing: {error}"
            continue
        if explanation is not None:
            found[number] = explanation
    return found, why_not


def _explained(answer: Any, kind: str, one: Shown) -> Explanation | None:
    """Return what the words contribute to the score of the prediction: of tags, of the first entity that is wrong."""
    how = {"explain": "occlusion"}
    if kind == "answers":
        found = answer(question=one.text, context=one.second, **how)
        return {"words": [{**word, "text_pair": not word.get("question", False)} for word in found["words"]]}
    if kind == "tags":
        for entity in answer(one.text, aggregation_strategy="first", **how):
            first = one.text[entity["start"] : entity["end"]].split()[0]
            known = {part.rpartition(" ")[0] for part in one.label.split(", ") if part.endswith(entity["entity_group"])}
            if first not in known:
                return {"words": entity["words"], "of": f"{entity['word']} {entity['entity_group']}"}
        return None
    given = one.text if one.second is None else {"text": one.text, "text_pair": one.second}
    return dict(answer([given], top_k=1, **how)[0][0])


# ── what a run tells ──


def _data(run: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    rows, counted = [], []
    for name, part in run["data"].items():
        skipped = f", {part['skipped']:,} skipped" if part.get("skipped") else ""
        rows.append((name, part["file"], f"{part['examples']:,}{skipped}", f"{part['sha256'][:16]}…"))
        if part.get("labels"):
            counted.append((name, part["labels"]))
    parts = [table(("set", "file", "examples", "SHA-256"), rows)]
    if counted:
        names = sorted({label for _, labels in counted for label in labels}, key=lambda one: -counted[0][1].get(one, 0))
        header = ["label", *(f"{name}" for name, _ in counted)]
        cells = [[label, *(f"{labels.get(label, 0):,}" for _, labels in counted)] for label in names[:60]]
        parts.append(table(header, cells, numbers=range(1, len(header))))
    if notes:
        parts.append(facts(notes))
    return section("Data", *parts)


def _size(folder: Path, run: Mapping[str, Any], latency: Mapping[str, float]) -> str:
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    machine = run["machine"]
    values = {
        "parameters": f"{run['parameters']:,}",
        "model.safetensors": f"{megabytes:.1f} MB",
        "training": f"{run['seconds']:,.0f} s, {run['steps']:,} steps, {run['precision']}",
        "machine": f"{machine['processor']}, {machine['cores']} cores"
        + (f", {machine['gpu']}" if machine["gpu"] else ""),
    }
    values |= {condition: f"{milliseconds:.2f} ms" for condition, milliseconds in latency.items()}
    return section("Size and speed", facts(values))


def _reproduction(run: Mapping[str, Any]) -> str:
    command = shlex.join(["pocketbert", *run["argv"][1:]]) if run["argv"] else ""
    given = {name: value for name, value in run["options"].items() if value not in (None, False, [], ())}
    options = "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    own = f"PocketBERT {run['pocketbert']}" + (f" at {run['git']}" if run["git"] else "")
    parts = [f"<pre>$ {text(command)}</pre>"] if command else []
    return section("Reproduction", *parts, f"<p>{text(own)}; {text(versions)}.</p>", f"<pre>{text(options)}</pre>")

#!/usr/bin/env python3
"""Compare our pipelines with those of the installed transformers: arguments and forms of inputs, value by value.

Both run the same models: tiny ones with random weights, which are made here, and published ones by --model. Each case
is an argument of a pipeline. Its results must be those of transformers, if transformers has the argument, and must
differ from the results without it, unless it is one of those that choose nothing. The table of the documentation says
what was found.

  python scripts/compare_pipelines.py                                        all cases on tiny models
  python scripts/compare_pipelines.py --model feature-extraction=FOLDER      the cases of a task on another model
  python scripts/compare_pipelines.py --write docs/api/pipeline-arguments.md
"""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers
from pipeline_cases import ALWAYS, HEADS, INPUTS, MADE, NOTHING, Case, cases, forms, make_models

from pocketbert import pipeline
from pocketbert.arguments import FROM_PRETRAINED, WORDPIECE_FROM_PRETRAINED
from pocketbert.errors import InputError
from pocketbert.pipelines import TASKS
from pocketbert.pipelines.arguments import IDLE, READING
from pocketbert.pipelines.loading import LOADING

OLD = int(transformers.__version__.partition(".")[0]) < 5

# ── comparison ──


class Pair(NamedTuple):
    """Both pipelines of a task; without that of transformers, if it has none."""

    ours: Any
    theirs: Any


def pairs(models: dict[str, Path]) -> dict[str, Pair]:
    """Both pipelines of each model."""
    from transformers.pipelines import PIPELINE_REGISTRY

    known = PIPELINE_REGISTRY.get_supported_tasks()
    return {
        task: Pair(
            pipeline(task, folder),
            transformers.pipeline(task, model=str(folder), device="cpu") if task in known else None,
        )
        for task, folder in models.items()
    }


def values(result: Any) -> Any:
    """Results that can be compared: lists, plain numbers, arrays; iterators marked as such."""
    if isinstance(result, dict):
        return {key: values(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [values(one) for one in result]
    if isinstance(result, str | int | float | np.number):
        return result if isinstance(result, str) else float(result)
    if hasattr(result, "numpy"):
        return ("tensor", result.numpy().tolist())
    if isinstance(result, np.ndarray):
        return ("array", result.tolist())
    if hasattr(result, "__iter__"):
        return ("iterator", [values(one) for one in result])
    return result


def difference(ours: Any, theirs: Any, tolerance: float = 1e-4, where: str = "the result") -> str | None:
    """Where two values differ by more than rounding; None if they do not."""
    if isinstance(theirs, float) and isinstance(ours, float):
        near = abs(ours - theirs) <= tolerance * max(1.0, abs(theirs))
        return None if near else f"{where}: {ours:.6g}, expected {theirs:.6g}"
    if type(ours) is not type(theirs):
        return f"{where}: {ours!r:.60}, expected {theirs!r:.60}"
    if isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return f"{where}: the keys {sorted(ours)}, expected {sorted(theirs)}"
        found = (difference(ours[key], theirs[key], tolerance, f"{where}, {key}") for key in theirs)
        return next((one for one in found if one), None)
    if isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            return f"{where}: {len(ours)} elements, expected {len(theirs)}"
        parts = enumerate(zip(ours, theirs, strict=True))
        found = (difference(one, other, tolerance, f"{where}[{i}]") for i, (one, other) in parts)
        return next((one for one in found if one), None)
    return None if ours == theirs else f"{where}: {ours!r:.60}, expected {theirs!r:.60}"


class Found(NamedTuple):
    """What a comparison found."""

    cells: dict[tuple[str, str], str]  # (argument, task) → a sign of `SIGNS`
    problems: list[str]


SIGNS = {
    "same": "as in transformers, compared value by value",
    "older": "as in transformers 4",
    "own": "of PocketBERT alone, or with a meaning of its own",
    "nothing": "taken, and chooses nothing here",
}


def compare(models: dict[str, Path]) -> Found:
    """Run the cases of the tasks of `models`."""
    found = Found({}, [])
    both = pairs(models)
    for case in cases():
        if case.task in both:
            _compare_case(case, both[case.task], found)
    for name, (value, takers) in NOTHING.items():
        for task, pair in both.items():
            if name not in _own(task):
                _compare_idle(task, {name: value}, pair, task in takers, found)
    for task, form, make in forms():
        if task in both and both[task].theirs is not None:
            needed = ALWAYS.get(task, {})
            wrong = difference(*(values(pipe(make(), **needed)) for pipe in both[task]))
            found.problems.extend([f"{task} of {form}: {wrong}"] if wrong else [])
    for task, made, asked in MADE:
        if task in both:
            reference = transformers.pipeline(task, model=str(models[task]), **{"device": "cpu", **made})
            wrong = difference(values(pipeline(task, models[task], **made)(asked)), values(reference(asked)))
            found.problems.extend([f"pipeline({task!r}, **{made!r}): {wrong}"] if wrong else [])
    return found


def _compare_case(case: Case, pair: Pair, found: Found) -> None:
    """Whether an argument changes our results, and whether they are those of transformers."""
    usual = {**ALWAYS.get(case.task, {}), **case.beside}
    got = values(pair.ours(case.asked, **{**usual, case.name: case.value}))
    try:
        without = values(pair.ours(case.asked, **usual))
    except InputError:  # such inputs need the argument
        without = None
    if difference(got, without) is not None:
        found.cells.setdefault((case.name, case.task), "own" if case.ours else "older" if case.older else "same")
    if pair.theirs is None or case.ours or (case.older and not OLD):
        return
    expected = values(pair.theirs(case.asked, **{**usual, case.name: case.value}))
    if wrong := difference(_placed(case.task, got), _placed(case.task, expected)):
        found.problems.append(f"{case.task}, {case.name}={case.value!r:.40}: {wrong}")


def _compare_idle(task: str, given: dict[str, Any], pair: Pair, theirs_takes_it: bool, found: Found) -> None:
    """Whether an argument changes nothing."""
    [name] = given
    needed = ALWAYS.get(task, {})
    got, usual = values(pair.ours(INPUTS[task], **needed, **given)), values(pair.ours(INPUTS[task], **needed))
    if (name, task) not in found.cells:
        found.cells[name, task] = "nothing"
    if wrong := difference(got, usual, 0.0):
        found.problems.append(f"{task}, {given} should choose nothing: {wrong}")
    # With a size of batches, transformers returns the vectors of padding, too.
    if pair.theirs is not None and theirs_takes_it and (task, name) != ("feature-extraction", "batch_size"):
        expected = values(pair.theirs(INPUTS[task], **needed, **given))
        if wrong := difference(_placed(task, got), _placed(task, expected)):
            found.problems.append(f"{task}, {given}: {wrong}")


def _placed(task: str, result: Any) -> Any:
    """Of answers only their places: the scores are shares of other spans in transformers 4."""
    if task != "question-answering":
        return result
    if isinstance(result, list):
        return [_placed(task, one) for one in result]
    return {name: value for name, value in result.items() if name != "score"}


def _own(task: str) -> list[str]:
    """The options of a task's `job`."""
    kind = TASKS[task]
    nested = [kind.nested] if kind.nested else []
    return [name for name in inspect.signature(kind.job).parameters if name not in ("self", "reading")] + nested


def taken(task: str) -> list[str]:
    """Every argument that calls of a task take."""
    return list(dict.fromkeys([*_own(task), *READING, *IDLE]))


# ── the table ──

IDLE_TABLES = {
    "Arguments of calls that choose nothing are checked all the same:": IDLE,
    "So are these, which only `pipeline` takes:": {n: one for n, one in LOADING.items() if n not in FROM_PRETRAINED},
    "And these, which `from_pretrained` of models, configurations and tokenizers takes, and `pipeline` but for "
    "`device_map`:": FROM_PRETRAINED,
    "And these of tokenizers:": WORDPIECE_FROM_PRETRAINED,
}

HEADER = """# Arguments of pipelines

<!-- Written by scripts/compare_pipelines.py; a test compares it. -->

Arguments that code written for transformers' pipelines passes in a call, or to `pipeline` as the default of calls. They
were compared with transformers on the same models, value by value.

"""


def table(found: Found) -> str:
    """The page of the documentation."""
    tasks = list(HEADS)
    names = list(dict.fromkeys(name for task in tasks for name in taken(task)))
    lines = [f"- **{sign}**: {meaning}" for sign, meaning in SIGNS.items()]
    lines += [
        "- **–**: refused, with the reason",
        "",
        f"| argument | {' | '.join(tasks)} |",
        "|---|" + "---|" * len(tasks),
    ]
    for name in names:
        cells = [found.cells.get((name, task), "–") for task in tasks]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    for title, known in IDLE_TABLES.items():
        lines += ["", title, "", "| argument | any other value is refused |", "|---|---|"]
        lines += [f"| `{name}` | {idle.advice} |" for name, idle in known.items() if idle.advice]
    return HEADER + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="TASK=FOLDER", action="append", default=[], help="compare on this model")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the table of the documentation")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pocketbert").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        models = {task: Path(path) for task, _, path in (one.partition("=") for one in given.model)}
        found = compare(models or make_models(Path(folder)))
    for problem in found.problems:
        print(problem)
    print(
        f"transformers {transformers.__version__}: {len(found.cells)} arguments of tasks, {len(found.problems)} differ"
    )
    if given.write:
        given.write.write_text(table(found), encoding="utf-8")
    sys.exit(1 if found.problems else 0)


if __name__ == "__main__":
    main()

"""The check of a table of labelled texts: labels, duplicates, leaks, what is out of place. No file is changed."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import write_text
from pocketbert.checks.labels import suspects, suspects_of_several
from pocketbert.checks.options import CheckOptions
from pocketbert.checks.texts import language_of, near_duplicates, normal, script_of
from pocketbert.checks.words import Words, joined
from pocketbert.data.labels import Labels
from pocketbert.data.memory import as_source
from pocketbert.data.spellings import Label
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.decode import sigmoid, softmax
from pocketbert.errors import DataError
from pocketbert.features import encode_texts
from pocketbert.frozen.encoder import FrozenEncoder
from pocketbert.frozen.linear import CLASSES, SEVERAL, folds, out_of_sample

_CHUNK = 1024  # texts whose tokens are in memory at a time
_FEW = 5  # rows of a class, below which its labels are not judged
_RARE = 0.02  # of the rows of the largest class: a class with fewer is noted
_NEIGHBOURS = 5
_APART = 6.0  # deviations from the median likeness of neighbours, from which on a text is out of place

Advance = Callable[[int, float], None]

#: Kinds of findings with what they are called in the table.
KINDS = {
    "unusable": "bad rows",
    "label": "probable label errors",
    "two labels": "duplicates with conflicting labels",
    "duplicate": "duplicates",
    "near duplicate": "near-duplicates",
    "leak": "evaluation texts that are also in the training data",
    "near leak": "evaluation texts with near-duplicates in the training data",
    "too long": "texts that are truncated",
    "script": "texts in another script",
    "language": "texts in another language",
    "out of place": "outliers: texts unlike all others",
    "class": "classes with few rows",
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a row, or with a class (line 0)."""

    kind: str
    """A key of `KINDS`."""
    file: str
    line: int
    reason: str
    label: str = ""
    suggestion: str = ""
    """The more probable label."""
    score: float = 0.0
    """Confidence of the finding, comparable within its kind."""
    text: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    rows: int
    """Number of rows of the table without bad ones."""
    classes: dict[str, int]
    """Label → number of rows."""
    findings: list[Finding]
    """By kind, in the order of `KINDS`, the most confident first."""
    notes: tuple[str, ...] = ()
    """What could not be checked."""

    def counts(self) -> dict[str, int]:
        """Return kind → number of findings."""
        found = Counter(one.kind for one in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}


def check(options: CheckOptions, *, advance: Advance | None = None) -> CheckResult:
    """Check a table of labelled texts, and evaluation data beside it.

    Args:
        options: the data and the encoder.
        advance: called with the number of texts that are encoded, and their fraction of all texts.

    Raises:
        DataError: a file cannot be read, or most of its rows cannot be used.
        CheckpointError: the encoder cannot be read; `output` cannot be written.
    """
    data = _read(options, options.data)
    evaluation = None if options.eval_data is None else _read(options, options.eval_data)
    encoder = FrozenEncoder(options.model, max_length=options.max_length)
    total, done = len(data) + len(evaluation or ()), 0

    def encoded(table: Table) -> tuple[npt.NDArray[np.float32], list[int]]:
        nonlocal done
        parts, cut = [], []
        for start in range(0, len(table), _CHUNK):
            some = table.examples[start : start + _CHUNK]
            pairs = None if table.columns.text_pair is None else [one.text_pair or "" for one in some]
            features = encode_texts(encoder.tokenizer, [one.text for one in some], pairs, max_length=encoder.max_length)
            cut += [start + i for i, one in enumerate(features) if one.cut]
            parts.append(encoder(features))
            done += len(some)
            if advance is not None:
                advance(done, done / total)
        return np.concatenate(parts), cut

    vectors, cut = encoded(data)
    texts = [normal(_shown(one)) for one in data.examples]
    found = [*_unusable(data), *_same(data, texts), *_near(data, texts, vectors), *_long(data, cut, encoder.max_length)]
    found += [*_foreign(data), *_apart(data, vectors)]
    if evaluation is not None:
        others, cut = encoded(evaluation)
        found += [*_unusable(evaluation), *_long(evaluation, cut, encoder.max_length)]
        found += _leaks(data, texts, vectors, evaluation, others)
    classes, judged, note = _labels(data, vectors, texts, options.seed)
    ordered = sorted([*found, *judged], key=lambda one: (list(KINDS).index(one.kind), -one.score, one.line))
    result = CheckResult(len(data), classes, ordered, () if note is None else (note,))
    if options.output is not None:
        _write(Path(options.output), result)
    return result


def _read(options: CheckOptions, data: Any) -> Table:
    return read_table(
        as_source(data),
        text=options.text_column,
        text_pair=options.text_pair_column,
        label=options.label_column,
        skip_bad=True,
    )


def _shown(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} ⟂ {example.text_pair}"


def _name(label: Label) -> str:
    return ", ".join(label) if isinstance(label, tuple) else str(label)


def _finding(table: Table, row: int, kind: str, reason: str, **more: Any) -> Finding:
    one = table.examples[row]
    return Finding(kind, table.path.name, one.line, reason, label=_name(one.label), text=_shown(one), **more)


# ── texts ──


def _unusable(table: Table) -> Iterator[Finding]:
    for row in table.bad:
        yield Finding("unusable", table.path.name, row.line, row.problem, text=str(row.row or ""))


def _same(table: Table, texts: Sequence[str]) -> Iterator[Finding]:
    """Yield rows whose text an earlier row has, with another label or the same."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        groups[text].append(row)
    for rows in groups.values():
        first: dict[str, int] = {}  # label → the first line with it
        for row in rows:
            first.setdefault(_name(table.examples[row].label), table.examples[row].line)
        for row in rows if len(first) > 1 else rows[1:]:
            if len(first) == 1:
                yield _finding(table, row, "duplicate", f"the same text as in line {table.examples[rows[0]].line}")
                continue
            own = _name(table.examples[row].label)
            others = ", ".join(f"{name!r} in line {line}" for name, line in first.items() if name != own)
            yield _finding(table, row, "two labels", f"the same text has {others}")


def _near(table: Table, texts: Sequence[str], vectors: npt.NDArray[np.float32]) -> Iterator[Finding]:
    unit = _unit(vectors)
    for row, other, likeness in near_duplicates(texts, unit, texts, unit):
        one, two = table.examples[row], table.examples[other]
        labels = "" if one.label == two.label else f", which has the label {_name(two.label)!r}"
        reason = f"nearly the same text as in line {two.line}{labels}"
        yield _finding(table, row, "near duplicate", reason, score=likeness + (1.0 if labels else 0.0))


def _long(table: Table, cut: Sequence[int], limit: int) -> Iterator[Finding]:
    for row in cut:
        yield _finding(table, row, "too long", f"more than {limit} tokens: its end is ignored")


def _foreign(table: Table) -> Iterator[Finding]:
    """Yield texts in another script or language than most have."""
    for kind, of in (("script", script_of), ("language", language_of)):
        told = [of(_shown(one)) for one in table.examples]
        counts = Counter(one for one in told if one is not None)
        if not counts:
            continue
        usual, most = counts.most_common(1)[0]
        if most < 0.5 * sum(counts.values()):
            continue  # no script or language is the usual one
        for row, one in enumerate(told):
            if one is not None and one != usual:
                yield _finding(table, row, kind, f"{one}, where {most:,} texts are {usual}")


def _apart(table: Table, vectors: npt.NDArray[np.float32]) -> Iterator[Finding]:
    """Yield texts whose nearest neighbours are much farther than those of other texts."""
    if len(table) < 10 * _NEIGHBOURS:
        return
    unit, near = _unit(vectors), np.empty(len(vectors))
    for start in range(0, len(unit), _CHUNK):
        cosines = unit[start : start + _CHUNK] @ unit.T
        best = np.partition(cosines, -_NEIGHBOURS - 1, axis=1)[:, -_NEIGHBOURS - 1 :]
        near[start : start + _CHUNK] = (best.sum(axis=1) - best.max(axis=1)) / _NEIGHBOURS  # without itself
    middle = np.median(near)
    deviation = 1.4826 * np.median(np.abs(near - middle)) or 1.0
    for row in np.flatnonzero(near < middle - _APART * deviation):
        away = float((middle - near[row]) / deviation)
        reason = f"its {_NEIGHBOURS} nearest texts are unlike it: a cosine of {near[row]:.2f}, usually {middle:.2f}"
        yield _finding(table, int(row), "out of place", reason, score=away)


def _leaks(
    data: Table,
    texts: Sequence[str],
    vectors: npt.NDArray[np.float32],
    evaluation: Table,
    others: npt.NDArray[np.float32],
) -> Iterator[Finding]:
    lines = {text: data.examples[row].line for row, text in reversed(list(enumerate(texts)))}
    asked = [normal(_shown(one)) for one in evaluation.examples]
    exact = {row for row, text in enumerate(asked) if text in lines}
    for row in sorted(exact):
        yield _finding(evaluation, row, "leak", f"the same text as in line {lines[asked[row]]} of {data.path.name}")
    for row, other, likeness in near_duplicates(asked, _unit(others), texts, _unit(vectors)):
        if row not in exact:
            line = data.examples[other].line
            reason = f"nearly the same text as in line {line} of {data.path.name}"
            yield _finding(evaluation, row, "near leak", reason, score=likeness)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


# ── labels ──


def _labels(
    table: Table, vectors: npt.NDArray[np.float32], texts: Sequence[str], seed: int
) -> tuple[dict[str, int], list[Finding], str | None]:
    """Return the number of rows of each label, findings on labels, and what could not be checked."""
    names = Counter(
        name
        for one in table.examples
        for name in (one.label if isinstance(one.label, tuple) else (str(one.label),))
        if one.label is not None
    )
    try:
        labels = Labels.of(table)
    except DataError as error:  # one class only
        return dict(names), [], f"labels are not checked: {error}"
    if labels.regression:
        return {}, [], "labels are not checked: they are numbers (regression)"
    table = labels.named(table)
    counts = {name: names[name] for name in labels.names} if not table.classes else dict(names)
    found = list(_rare(table, counts))
    gold = labels.encode(table)
    problem = SEVERAL if labels.several else CLASSES
    _, groups = np.unique(np.array(texts, dtype=object), return_inverse=True)
    if labels.several:
        few = [i for i in range(len(labels.names)) if min(gold[:, i].sum(), len(gold) - gold[:, i].sum()) < _FEW]
    else:
        few = [i for i in range(len(labels.names)) if int((gold == i).sum()) < _FEW]
    if len(few) >= len(labels.names) - (0 if labels.several else 1):
        return counts, found, f"labels are not checked: too few have {_FEW} rows"
    logits = out_of_sample(vectors, gold, problem, len(labels.names), seed=seed, groups=groups)
    parts, words, gold = folds(gold, problem, seed, groups), Words(texts), gold.astype(np.int64)
    if labels.several:
        for i, own in enumerate(gold.T):
            no, yes = words.out_of_sample(own, 2, parts).T
            logits[:, i] = joined(logits[:, i], yes - no, own)
        wrong = [one for one in suspects_of_several(sigmoid(logits), gold) if one.given not in few]
    else:
        logits = joined(logits, words.out_of_sample(gold, len(labels.names), parts), gold)
        wrong = [one for one in suspects(softmax(logits), gold) if not {one.given, one.other} & {*few}]
    for one in wrong:
        name = labels.names[one.other]
        if labels.several:
            has = bool(gold[one.row, one.given])
            reason = f"seems {'not ' if has else ''}to have {name!r}"
            suggestion = f"{'without' if has else 'with'} {name}"
        else:
            reason, suggestion = f"{name!r} is more probable by {one.margin:.2f}", name
        found.append(_finding(table, one.row, "label", reason, suggestion=suggestion, score=one.margin))
    skipped = ", ".join(labels.names[i] for i in few[:10])
    return counts, found, f"labels with fewer than {_FEW} rows are not checked: {skipped}" if few else None


def _rare(table: Table, counts: dict[str, int]) -> Iterator[Finding]:
    most = max(counts.values(), default=0)
    for name, count in sorted(counts.items(), key=lambda item: item[1]):
        if count < _FEW or count < _RARE * most:
            reason = f"{count:,} row{'s' if count != 1 else ''}; the largest class has {most:,}"
            yield Finding("class", table.path.name, 0, reason, label=name)


def _write(path: Path, result: CheckResult) -> None:
    """Write all findings as a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("kind", "file", "line", "reason", "label", "suggestion", "score", "text")
    writer.writerow(names)
    for one in result.findings:
        writer.writerow([f"{one.score:.4f}" if name == "score" else getattr(one, name) for name in names])
    write_text(path, text.getvalue())

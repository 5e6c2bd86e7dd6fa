"""The sections of a report that follow from the outcomes of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from pocketbert.metrics import mass_bins, smaller_is_better
from pocketbert.reports.intervals import draws, intervals, resampled
from pocketbert.reports.page import Markup, captioned, note, section, table
from pocketbert.reports.svg import Plot, limits
from pocketbert.tasks.outcomes import Outcomes, Shown

Limits = Mapping[str, tuple[float, float]]
#: Contributions of words to the score of the prediction, as `pipelines.explain` gives them, and to which label.
Explanation = Mapping[str, Any]

_CLASSES = 20  # in a confusion matrix
_BESIDE = 60  # characters of all labels above its columns; of more, each is written from top to bottom
_ROWS = 60  # of a table
_CHARACTERS = 600  # of a text
_CLOUD = 800  # dots


def limits_of(outcomes: Outcomes) -> dict[str, tuple[float, float]]:
    """Return the bootstrap intervals of all metrics."""
    return intervals(outcomes, resampled(outcomes))


def score(value: float) -> str:
    """Return a metric with as many digits as mean something."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.2f}"


def _between(found: Limits, name: str) -> str:
    return f"{score(found[name][0])} – {score(found[name][1])}" if name in found else ""


def scores(
    outcomes: Outcomes, found: Limits, baseline: Mapping[str, float], title: str = "Scores", *, selected: bool = False
) -> str:
    """Return all metrics with their intervals, beside those of the baseline if there is one.

    Args:
        outcomes: of the evaluation.
        found: the intervals.
        baseline: metrics of the baseline.
        title: of the section.
        selected: whether the model is the best of several on these examples.
    """
    header = ["metric", "value", "95 % interval", *(["TF-IDF, logistic regression"] if baseline else [])]
    rows = []
    for name, value in outcomes.metrics.items():
        row = [name, score(value), _between(found, name)]
        if baseline:
            row.append(score(baseline[name]) if name in baseline else "")
        rows.append(row)
    about = (
        f"{len(outcomes):,} examples of {outcomes.file}. An interval covers the central 95 % of the scores in "
        f"{draws(len(outcomes)):,} resamples of these examples: the range of scores to expect on another evaluation "
        f"set of the same size and kind."
        + (" The model is the best of a run on the same examples, so they are slightly optimistic." if selected else "")
    )
    return section(title, table(header, rows, numbers=(1, 2, 3)), note(about))


def per_class(outcomes: Outcomes, found: Limits) -> str:
    """Return F1, precision and recall of each class or label, or of each type of entities."""
    if outcomes.types:
        rows = [
            [kind, _bar(f1), score(f1), score(precision), score(recall), f"{count:,}"]
            for kind, f1, precision, recall, count in outcomes.types
        ]
        return section("Types of entities", _table_of_classes(["type"], rows, 0))
    if outcomes.kind not in ("classes", "several"):
        return ""
    gold, predicted = (_members(outcomes, name) for name in ("gold", "predicted"))
    rows = []
    for i, name in enumerate(outcomes.labels):
        hits, proposed, actual = (gold[i] & predicted[i]).sum(), predicted[i].sum(), gold[i].sum()
        f1 = 2 * hits / (proposed + actual) if proposed + actual else 0.0
        precision, recall = (score(hits / of) if of else "–" for of in (proposed, actual))
        rows.append([name, _bar(f1), score(f1), _between(found, f"f1 of {name}"), precision, recall, f"{actual:,}"])
    return section("Per label", _table_of_classes(["label"], rows, 1))


def _table_of_classes(first: list[str], rows: Sequence[Sequence[Any]], more: int) -> str:
    header = [*first, "", "F1", *["95 % interval"] * more, "precision", "recall", "examples"]
    cut = note(f"{len(rows) - _ROWS:,} more are not shown.") if len(rows) > _ROWS else ""
    return table(header, rows[:_ROWS], numbers=range(2, len(header))) + cut


def _bar(share: float) -> Markup:
    return Markup(f'<i class="bar" style="width:{round(90 * share) + 1}px"></i>')


def _members(outcomes: Outcomes, column: str) -> np.ndarray:
    """Return which examples have a label, [labels, examples]."""
    members = np.zeros((len(outcomes.labels), len(outcomes)), dtype=bool)
    for example, labels in enumerate(outcomes.columns[column]):
        members[labels, example] = True
    return members


def confusion(outcomes: Outcomes) -> str:
    """Return the confusion matrix; of many classes, the pairs that are confused most."""
    if outcomes.kind != "classes":
        return ""
    count = len(outcomes.labels)
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (outcomes.columns["gold"], outcomes.columns["predicted"]), 1)
    if count > _CLASSES:
        wrong = matrix * (1 - np.eye(count, dtype=np.int64))
        order = [int(i) for i in np.argsort(-wrong.ravel(), kind="stable")[:_CLASSES] if wrong.ravel()[i]]
        rows = [(outcomes.labels[i // count], outcomes.labels[i % count], f"{wrong.ravel()[i]:,}") for i in order]
        return section("Confusions", table(("label", "predicted", "examples"), rows, numbers=(2,)))
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in outcomes.labels)
    kind = "matrix tall" if sum(map(len, outcomes.labels)) > _BESIDE else "matrix"
    lines = []
    for i, name in enumerate(outcomes.labels):
        total = max(1, matrix[i].sum())
        cells = "".join(
            f'<td style="--tone:var(--{"for" if i == j else "against"});--a:{0.75 * value / total:.3f}">{value:,}</td>'
            for j, value in enumerate(matrix[i].tolist())
        )
        lines.append(f'<tr><th class="row">{escape(name)}</th>{cells}</tr>')
    grid = f'<div class="scroll"><table class="{kind}"><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'
    return section(
        "Confusion matrix", grid, note("Labels in rows, predictions in columns; shading is the fraction of the row.")
    )


def plots(outcomes: Outcomes, calibration: Mapping[str, Any] | None, history: Sequence[Mapping[str, float]]) -> str:
    """Return reliability, risk over coverage, numbers over labels, and the learning curve."""
    found = []
    if outcomes.kind == "classes" or calibration is not None:
        found.append(_reliability(outcomes, calibration))
    if outcomes.kind == "classes":
        found.append(_risk_coverage(outcomes))
    if outcomes.kind == "numbers":
        found.append(_cloud(outcomes))
    if len(history) > 1:
        found += _curves(history)
    return section("Curves", f'<div class="plots">{"".join(found)}</div>') if found else ""


def _reliability(outcomes: Outcomes, calibration: Mapping[str, Any] | None) -> str:
    plot = Plot("Accuracy over confidence", "confidence", "fraction correct", (0, 1), (0, 1))
    plot.rule([(0, 0), (1, 1)])
    if calibration is not None:
        for series, name in ((3, "before"), (0, "after")):
            plot.line([(bin_[0], bin_[1]) for bin_ in calibration[name]["bins"]], series, f"{name} calibration")
    else:
        confidence, right = outcomes.array("confidence"), outcomes.array("right")
        bins = [(float(confidence[part].mean()), float(right[part].mean())) for part in mass_bins(confidence)]
        plot.line(bins, 0)
    about = "Reliability diagram: bins of equal numbers of predictions; on the diagonal, confidence equals accuracy."
    if calibration is not None:
        before, after = (calibration[name]["calibration_error"] for name in ("before", "after"))
        about += (
            f" Calibration error {before:.3f} before, {after:.3f} after; up to {calibration['chance']:.3f} is chance "
            f"on {calibration['examples']:,} examples."
        )
    return captioned(plot.html(), about)


def _risk_coverage(outcomes: Outcomes) -> str:
    order = np.argsort(-outcomes.array("confidence"), kind="stable")
    right = outcomes.array("right")[order]
    share = np.cumsum(right) / np.arange(1, len(right) + 1)
    points = [(k / 20, float(share[max(1, round(len(right) * k / 20)) - 1])) for k in range(1, 21)]
    low = min(value for _, value in points)
    plot = Plot(
        "Accuracy over coverage",
        "coverage: fraction answered",
        "accuracy",
        (0, 1),
        (min(low, 0.99) - 0.01, 1),
    )
    plot.line(points, 0)
    return captioned(plot.html(), "Risk and coverage: accuracy if only the most confident predictions are answered.")


def _cloud(outcomes: Outcomes) -> str:
    step = -(-len(outcomes) // _CLOUD)
    gold, predicted = outcomes.array("gold")[::step], outcomes.array("predicted")[::step]
    both = limits([*gold.tolist(), *predicted.tolist()])
    plot = Plot("Predicted numbers over labels", "label", "predicted", both, both)
    plot.rule([(both[0], both[0]), (both[1], both[1])])
    plot.dots(list(zip(gold.tolist(), predicted.tolist(), strict=True)), 0)
    return captioned(plot.html(), "Predicted numbers over labels.")


def _curves(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return scores, and losses, over the steps."""
    names = [name for name in history[0] if name != "step" and "threshold" not in name]
    steps = [entry["step"] for entry in history]
    found = []
    for title, falling in (("scores", False), ("losses and errors", True)):
        panel = [name for name in names if smaller_is_better(name) is falling][:4]
        if not panel:
            continue
        values = [entry[name] for name in panel for entry in history if name in entry]
        plot = Plot(f"{title} over steps", "step", title, limits(steps), limits(values))
        for series, name in enumerate(panel):
            plot.line([(entry["step"], entry[name]) for entry in history if name in entry], series, name)
        found.append(captioned(plot.html(), "Learning curve: every evaluation of the run." if not falling else ""))
    return found


# ── examples ──


def errors(outcomes: Outcomes, explanations: Mapping[int, Explanation], why_not: str | None = None) -> str:
    """Return the worst errors, with words in colours where explanations tell what they contributed.

    Args:
        outcomes: of the evaluation.
        explanations: number of an error → its explanation.
        why_not: why there are none.
    """
    shown = [_error(one, explanations.get(i)) for i, one in enumerate(outcomes.errors)]
    if not shown:
        return section("Errors", note("None.")) if outcomes.kind != "numbers" else ""
    about = "The most confident first." if outcomes.errors[0].score is not None else "The largest first."
    if explanations:
        about += (
            " Green words support the prediction and red words oppose it: the colour is the change of its score "
            "without the word (occlusion)."
        )
    return section("Errors", note(about + ("" if why_not is None else f" {why_not}")), *shown)


def _error(one: Shown, explanation: Explanation | None) -> str:
    words = () if explanation is None else explanation["words"]
    body = "".join(
        f"<p>{_coloured(content, [word for word in words if word.get('text_pair', False) is second])}</p>"
        for content, second in ((one.text, False), (one.second, True))
        if content is not None
    )
    sure = "" if one.score is None else f" ({one.score:.3f})"
    line = f"line {one.line}: " if one.line else ""
    answer = f"{line}label <b>{escape(one.label) or '(none)'}</b>, predicted <b>{escape(one.predicted) or '(none)'}</b>"
    of = "" if explanation is None or "of" not in explanation else f"; in colours: {escape(explanation['of'])}"
    return f'<div class="error">{body}<p class="soft">{answer}{sure}{of}</p></div>'


def _coloured(content: str, words: Sequence[Mapping[str, Any]]) -> str:
    most = max((abs(word["score"]) for word in words), default=0.0)
    parts, end = [], 0
    for word in words:
        share = abs(word["score"]) / most if most else 0.0
        if share < 0.1:
            continue
        kind = "for" if word["score"] > 0 else "against"
        parts.append(escape(content[end : word["start"]]))
        marked = escape(content[word["start"] : word["end"]])
        parts.append(
            f'<mark class="{kind}" style="--a:{0.75 * share:.2f}" title="{word["score"]:+.3f}">{marked}</mark>'
        )
        end = word["end"]
    rest = content[end:]
    kept = rest if len(content) <= _CHARACTERS else rest[: max(0, _CHARACTERS - end)] + " …"
    return "".join([*parts, escape(kept)])


def suspects(outcomes: Outcomes) -> str:
    """Return the examples whose label looks wrong."""
    if not outcomes.suspects:
        return ""
    rows = [
        (
            str(one.line),
            one.label,
            one.predicted,
            f"{one.score or 0:.2f}",
            f"{one.text} {one.second or ''}"[:_CHARACTERS],
        )
        for one in outcomes.suspects
    ]
    about = (
        "Confident learning: the model, which was not trained on these examples, is as confident of another label "
        "as it usually is for texts with that label. pocketbert check finds such labels in training data."
    )
    header = ("line", "label", "more probable label", "margin", "text")
    return section("Probable label errors", table(header, rows, numbers=(0, 3)), note(about))

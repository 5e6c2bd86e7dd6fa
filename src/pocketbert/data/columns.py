"""Which columns of a table hold the texts and the label: by name, or from what the table leaves."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pocketbert.data.separated import looks_like_example, no_header
from pocketbert.data.spellings import truth
from pocketbert.errors import DataError

# Names of columns to detect, best first; case is ignored.
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("query", "passage"),
    ("文本1", "文本2"),
    ("句子1", "句子2"),
    ("前提", "假设"),
    ("النص1", "النص2"),
    ("الجملة1", "الجملة2"),
)
TEXTS = (
    "text", "sentence", "review", "content", "comment", "document", "body", "message", "tweet", "question", "utterance",
    "sentence1", "premise", "title",
    "文本", "内容", "句子", "评论", "正文", "留言", "问题", "标题",
    "النص", "نص", "المحتوى", "الجملة", "التعليق", "المراجعة", "الرسالة", "السؤال", "العنوان",
)  # fmt: skip
LABELS = (
    "label", "labels", "label_text", "gold_label", "class", "category", "target", "sentiment", "intent", "score",
    "rating", "stars", "topic", "queue", "team", "department", "emotion", "tag",
    "标签", "类别", "分类", "情感", "意图", "评分", "主题", "部门",
    "التصنيف", "تصنيف", "الفئة", "التسمية", "الوسم", "المشاعر", "التقييم", "الموضوع", "القسم",
)  # fmt: skip
_NUMBERS_OF_ROWS = re.compile(r"|(unnamed: ?)?\d+|id|idx|index|row|no\.?|nr\.?|#|序号|编号|رقم|م", re.IGNORECASE)


class Columns(NamedTuple):
    """The names of the columns in use, or None."""

    text: str
    text_pair: str | None
    label: str | None


class Choice(NamedTuple):
    """The columns in use; with `classes`, several columns, one for each label, say whether a text has it."""

    columns: Columns
    classes: tuple[str, ...] = ()


def choose(
    path: Path,
    names: Sequence[str],
    text: str | None,
    pair: str | None,
    label: str | None,
    *,
    labelled: bool,
    first: Sequence[Any] | None = None,
) -> Choice:
    """Return the columns of a table that hold its texts and labels.

    A column that the caller names is taken; others follow from their names, or by elimination: the only other column,
    or several that hold nothing but truth values.

    Args:
        path: the file, for messages.
        names: all columns.
        text: the column of texts, if the caller names one; likewise the next ones.
        pair: the column of second texts.
        label: the column of labels, or several separated by commas, one for each label.
        labelled: whether labels are needed.
        first: the first row, if there is any.

    Raises:
        DataError: a column is missing, or two could be meant.
    """
    classes = () if label is None or label in names else tuple(name.strip() for name in label.split(","))
    classes = classes if len(classes) > 1 else ()
    listed = _listed(names)
    for option, name in (
        ("--text-column", text),
        ("--text-pair-column", pair),
        *(("--label-column", name) for name in classes or (label,)),
    ):
        if name is not None and name not in names:
            raise DataError(f"{path}: has no column {name!r} ({option}); {listed}")
    known = {name.lower(): name for name in reversed(names)}
    detected = []
    if text is None and pair is None:
        text, pair = next(((known[a], known[b]) for a, b in PAIRS if a in known and b in known), (None, None))
        detected += [text, pair]
    if text is None:
        text = next((known[name] for name in TEXTS if name in known and known[name] != pair), None)
        detected.append(text)
    if label is None and labelled:
        label = next((known[name] for name in LABELS if name in known and known[name] not in (text, pair)), None)
        detected.append(label)
    rest = [name for name in names if name not in (text, pair, label) and not _NUMBERS_OF_ROWS.fullmatch(name)]
    if text is not None and label is None and labelled:
        if len(rest) == 1:
            label = rest[0]
        elif len(rest) > 1 and first is not None and len(first) == len(names):
            values = dict(zip(names, first, strict=True))
            classes = tuple(rest) if all(truth(values[name]) is not None for name in rest) else ()
    elif text is None and label is not None and len(rest) == 1:
        text = rest[0]
    for name in detected:
        alike = [other for other in names if name is not None and other.lower() == name.lower()]
        if len(alike) > 1:
            option = "--label-column" if name == label else "--text-column"
            raise DataError(f"{path}: two columns are called {' and '.join(alike)}; name the one to use with {option}")
    label = ", ".join(classes) if classes else label
    for option, role, column in (("--text-column", "text", text), ("--label-column", "label", label or not labelled)):
        if not column:
            remedy = "" if looks_like_example(names) or len(names) < 2 else f"name it with {option}; "
            raise DataError(f"{path}: no column was recognized as the {role}; {remedy}{listed}")
    assert text is not None
    return Choice(Columns(text, pair, label if labelled else None), classes if labelled else ())


def _listed(names: Sequence[str]) -> str:
    if looks_like_example(names):
        return no_header()
    listed = f"the columns are: {', '.join(f'{name:.40}' for name in names)}"
    if len(names) == 1:
        return f"{listed}; commas, semicolons, tabs or vertical bars separate columns, and the first line names them"
    return f"{listed}; if these are not names, add a first line such as text,label"

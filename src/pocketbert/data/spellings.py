"""How programs write labels: numbers with a sign or a decimal comma, lists that a CSV file holds as text."""

import ast
import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pocketbert.errors import DataError

Label = str | tuple[str, ...] | None

_SEPARATORS = ";|,；，、،؛"  # of labels in one cell
# Full width, Arabic; an Arabic thousands separator can be nothing else.
_SIGNS = str.maketrans("％٪．，＋－٫،", "%%.,+-.,", "٬")
_WHOLE = re.compile(r"[+\N{MINUS SIGN}-]?\d+")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_LIST = re.compile(r"[\[({].*[\])}]|set\(\)", re.DOTALL)
_TRUTH = {
    "0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True,
}  # fmt: skip
_HOT = ("0", "1", "0.0", "1.0", "false", "true")
_TRUTH |= {"否": False, "是": True, "لا": False, "نعم": True}
_MARKS = {"": False, "x": True, "✓": True, "✔": True}  # of columns that people fill in by hand
_MISSING = ("nan", "na", "n/a", "null", "none", "-", "?")
_GROUPED = {  # thousands separators, and what they are with a decimal point
    re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+"): (".", ","),
    re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+"): (",", "."),
}


def with_ascii_digits(text: str) -> str:
    """Return a text with ASCII digits in place of those of other scripts, and their signs alike."""
    if text.isascii():
        return text
    digits = ((letter, unicodedata.decimal(letter, None)) for letter in text)
    return "".join(letter if digit is None else str(digit) for letter, digit in digits).translate(_SIGNS)


def is_whole(label: str) -> bool:
    """Whether a label is a whole number, with or without a sign."""
    return _WHOLE.fullmatch(with_ascii_digits(label)) is not None


def truth(value: Any, *, marked: bool = False) -> bool | None:
    """Return the truth value that a cell holds: 0, 1, true, no, …; None for anything else.

    With `marked` a cross or tick is true, and nothing is false.
    """
    written = "" if value is None else with_ascii_digits(str(value)).strip().casefold()
    found = _TRUTH.get(written)
    return _MARKS.get(written) if found is None and marked else found


def number(label: str) -> float | None:
    """Return the number that a label is, with a decimal point or comma, or in percent; None for anything else.

    Digits may be those of any script, and signs of full width or Arabic.
    """
    label = with_ascii_digits(label)
    label = label.removesuffix("%").rstrip() if label.endswith("%") else label
    label = "-" + label[1:] if label[:1] == "\N{MINUS SIGN}" else label
    for pattern, (thousands, decimal) in _GROUPED.items():
        if pattern.fullmatch(label):
            label = label.replace(thousands, "").replace(decimal, ".")
    try:
        value = float(label.replace(",", ".") if _COMMA.fullmatch(label) else label)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in label else None  # Python reads 1_000


def is_class_number(label: str) -> bool:
    """Whether a label is a whole number, perhaps written as a float: pandas does so where a cell is empty."""
    value = None if label.endswith("%") else number(label)
    return value is not None and value.is_integer()


def whole(label: str) -> int:
    """Return the value of a label that is a whole number, perhaps written as a float."""
    label = with_ascii_digits(label)
    try:
        return int(label.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return int(number(label) or 0)


def odd_among_numbers(labels: Collection[str]) -> list[str]:
    """Return the labels that are no numbers, where all others, nine times as many or more, are numbers to predict."""
    others = sorted(label for label in labels if number(label) is None)
    numbers = [label for label in labels if number(label) is not None]
    few = len(numbers) >= 9 * len(others) or all(label.casefold() in _MISSING for label in others)
    return others if few and numbers and not all(map(is_whole, numbers)) else []


def are_numbers(labels: Collection[str]) -> bool:
    """Whether labels are numbers to predict rather than classes: all are numbers, and some have decimals.

    Raises:
        DataError: all have a comma before three digits, which may be a decimal comma or a thousands separator. The
            message continues the name of the file.
    """
    if all(map(is_whole, labels)) or not all(number(label) is not None for label in labels):
        return False
    commas = [label for label in labels if _COMMA.fullmatch(with_ascii_digits(label))]
    if commas and all(len(with_ascii_digits(label).partition(",")[2]) == 3 for label in commas):
        raise DataError(
            f"the label {commas[0]!r} may be a number with a decimal comma or one with a thousands separator; write it "
            "with a decimal point, or without a separator"
        )
    return True


def read_lists(written: Sequence[Label]) -> list[Label]:
    """Return the labels of a table; where all are lists that were written as text, `['a', 'b']`, as lists."""
    texts = [label for label in written if isinstance(label, str)]
    if texts and len(texts) == len(written) and all(map(_LIST.fullmatch, texts)):
        lists = list(map(read_list, texts))
        if all(labels is not None for labels in lists):
            return list(lists)
    return list(written)


def read_list(text: str) -> tuple[str, ...] | None:
    """Return the items of a list that was written as text, by Python or NumPy; None for anything else."""
    # NumPy writes no commas, and without them Python would join texts.
    commas = re.sub(r"""(?<=['"\w.])\s+(?=['"\w.+-])""", ", ", text) if "," not in text else text
    try:
        value = set() if text == "set()" else ast.literal_eval(commas)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
    if not all(isinstance(item, str | int | float) for item in items):
        return None
    return tuple(str(item).strip() for item in items)


def merged(counts: Mapping[str, int], names: Sequence[str] = ()) -> dict[str, str]:
    """Return the labels that differ from others in case or spaces alone, each with the spelling to use in its place.

    Args:
        counts: how often each label occurs.
        names: spellings that count wherever they occur; otherwise the most frequent counts, of equal ones the shortest.
    """
    best: dict[str, str] = {}
    for label in [*names, *sorted(counts, key=lambda label: (-counts[label], len(label), label))]:
        best.setdefault(_alike(label), label)
    return {label: best[_alike(label)] for label in counts if best[_alike(label)] != label and label not in names}


def _alike(label: str) -> str:
    return " ".join(with_ascii_digits(unicodedata.normalize("NFKC", label)).casefold().split())


def joined(labels: Collection[str]) -> str | None:
    """Return a label that joins others by a separator, if there is one.

    Such is a;b beside a and b, or 0,1,1 where all labels are as many truth values.
    """
    known = set(labels)
    values = [re.split(f"[{_SEPARATORS} ]+", label) for label in labels]
    # Of two values, 0,1 may be a number with a decimal comma.
    if values and all(len(values[0]) == len(parts) > 2 and set(parts) <= set(_HOT) for parts in values):
        return min(known)
    for label in labels:
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(part in known for part in parts):
                return label
    return None


def read_hot(written: Sequence[Label], names: Sequence[str] | None) -> list[Label]:
    """Return the labels of a table; where all are lists of a 0 or a 1 for each class, as lists of names.

    Lists of ids are another thing: they differ in length, or have a number that is neither, and repeat nothing.

    Args:
        written: the labels.
        names: the classes, one for each column; without them they are called 0, 1, …
    """
    lists = [label for label in written if isinstance(label, tuple)]
    width = max(map(len, lists), default=0)
    classes = tuple(map(str, range(width))) if names is None else names
    hot = len(lists) == len(written) and all(len(labels) == width > 1 and set(_HOT) >= set(labels) for labels in lists)
    if not hot or len(classes) != width:
        return list(written)
    return [tuple(name for label, name in zip(labels, classes, strict=True) if _TRUTH[label]) for labels in lists]

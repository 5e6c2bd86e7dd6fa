"""How programs write labels: numbers with a sign or a decimal comma, lists that a CSV file holds as text."""

import ast
import math
import re
from collections.abc import Collection, Sequence

from pocketbert.errors import DataError

Label = str | tuple[str, ...] | None

_WHOLE = re.compile(r"[+-]?\d+")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_LIST = re.compile(r"[\[({].*[\])}]|set\(\)", re.DOTALL)
_HOT = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def is_whole(label: str) -> bool:
    """Whether a label is a whole number, with or without a sign."""
    return _WHOLE.fullmatch(label) is not None


def number(label: str) -> float | None:
    """Return the number that a label is, with a decimal point or comma; None for anything else."""
    try:
        value = float(label.replace(",", ".") if _COMMA.fullmatch(label) else label)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in label else None  # Python reads 1_000


def is_class_number(label: str) -> bool:
    """Whether a label is a whole number, perhaps written as a float: pandas does so where a cell is empty."""
    value = number(label)
    return value is not None and value.is_integer()


def are_numbers(labels: Collection[str]) -> bool:
    """Whether labels are numbers to predict rather than classes: all are numbers, and some have decimals.

    Raises:
        DataError: all have a comma before three digits, which may be a decimal comma or a thousands separator. The
            message continues the name of the file.
    """
    if all(map(is_whole, labels)) or not all(number(label) is not None for label in labels):
        return False
    commas = [label for label in labels if _COMMA.fullmatch(label)]
    if commas and all(len(label.partition(",")[2]) == 3 for label in commas):
        raise DataError(
            f"the label {commas[0]!r} may be a number with a decimal comma or one with a thousands separator; write it "
            "with a decimal point, or without a separator"
        )
    return True


def read_lists(written: Sequence[Label]) -> list[Label]:
    """Return the labels of a table; where all are lists that were written as text, `['a', 'b']`, as lists."""
    texts = [label for label in written if isinstance(label, str)]
    if texts and len(texts) == len(written) and all(map(_LIST.fullmatch, texts)):
        lists = list(map(_read_list, texts))
        if all(labels is not None for labels in lists):
            return list(lists)
    return list(written)


def _read_list(text: str) -> tuple[str, ...] | None:
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
    hot = len(lists) == len(written) and all(
        len(labels) == width > 1 and _HOT.keys() >= set(labels) for labels in lists
    )
    if not hot or len(classes) != width:
        return list(written)
    return [tuple(name for label, name in zip(labels, classes, strict=True) if _HOT[label]) for labels in lists]

"""What is wrong with a body, in one line: pydantic's problems in the words of the API, without the request's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

FORMS = ("ours", "vllm")  # tags of `other_schemas.AnyClassifyRequest`
_KINDS = {"str", "int", "float", "bool", "list", "dict"}  # what pydantic calls the parts of a union
_MUST = "must be "
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a text",
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type"), "must be an object"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length}",
    "too_long": "may have at most {max_length}",
    "string_too_long": "may have at most {max_length} characters",
    "literal_error": "must be {expected}",
}

MOST = 200  # problems that are looked at

Problem = Mapping[str, Any]


class InvalidError(Exception):
    """A body, or a query, is not what it should be; `problems` are pydantic's, each at its place in the request."""

    def __init__(self, error: ValidationError, *place: str) -> None:
        super().__init__()
        self.problems: list[Problem] = [
            {**one, "loc": (*place, *one["loc"])} for one in error.errors(include_url=False)
        ]


def describe(problems: Sequence[Problem]) -> tuple[str, str | None]:
    """The first three problems in one line, and the field of the first.

    Of a field that may have several forms, the form counts whose problems lie deepest, of equally deep ones that with
    the fewest; forms that are missed alike are named together.
    """
    lines: dict[str, list[str]] = {}
    for problem in _of_closest_forms(problems[:MOST]):
        words = lines.setdefault(".".join(map(str, _fields(problem)))[:80] or "the body", [])
        if (said := _said(problem)) not in words:
            words.append(said)
    written = [f"{place} {_together(words)}" for place, words in lines.items()]
    more = f" (and {len(written) - 3} more)" if len(written) > 3 else ""
    field = next((str(part) for part in _fields(problems[0])[:1]), None)
    return "; ".join(written[:3])[:500] + more, field


def _place(problem: Problem) -> Sequence[Any]:
    """Where a problem is, in the body or the query, without the name of the form that a body has."""
    place: Sequence[Any] = problem["loc"][1:]
    return place[1:] if place and place[0] in FORMS else place


def _is_form(part: Any) -> bool:
    """Whether a part of a place is pydantic's name for a form that a value may have, rather than a field or index."""
    return isinstance(part, str) and (part in _KINDS or not part.isidentifier() or part != part.lower())


def _fields(problem: Problem) -> list[Any]:
    """The fields and indices that lead to a problem; a field that is not known counts where options are.

    Elsewhere its name may be a part of the text that a client sent.
    """
    place = list(_place(problem))
    unknown = [place.pop()] if problem["type"] == "extra_forbidden" else []
    fields = [part for part in place if not _is_form(part)]
    return fields + (unknown if fields in ([], ["parameters"]) else [])


def _depth(problem: Problem) -> int:
    return len(_fields(problem)) + _is_hidden(problem)


def _is_hidden(problem: Problem) -> bool:
    """Whether the name of an unknown field is not repeated."""
    return problem["type"] == "extra_forbidden" and _fields(problem)[-1:] != [_place(problem)[-1]]


def _of_closest_forms(problems: Sequence[Problem]) -> Iterable[Problem]:
    """Problems without those of other forms of a field than the closest."""
    by_field: dict[Any, dict[tuple[Any, ...], list[Problem]]] = {}
    for problem in problems:
        field, *rest = [*_place(problem), ""]
        forms = tuple(part for part in rest if _is_form(part) and part != "")
        by_field.setdefault(field, {}).setdefault(forms, []).append(problem)
    for of_field in by_field.values():
        ranked = [(max(map(_depth, found)), -len(found)) for found in of_field.values()]
        for rank, found in zip(ranked, of_field.values(), strict=True):
            if rank == max(ranked):
                yield from found


def _said(problem: Problem) -> str:
    words = _WORDS.get(problem["type"])
    if _is_hidden(problem):
        return "has a field that is not known"
    if words is not None:
        return words.format_map(problem.get("ctx", {}))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text.replace("Input should be", "must be", 1)


def _together(words: Sequence[str]) -> str:
    kinds = [one.removeprefix(_MUST) for one in words]
    if len(words) == 1 or not all(one.startswith(_MUST) for one in words):
        return " or ".join(words)
    return f"{_MUST}{', '.join(kinds[:-1])} or {kinds[-1]}"

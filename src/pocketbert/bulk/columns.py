"""The columns that results fill, for each task: their names and types, and the values of one result.

The types are written once, and become those of Arrow and of Spark. Numbers are as the pipeline computes them: scores
are doubles, vectors hold the 32 bits of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pocketbert.errors import InputError

if TYPE_CHECKING:
    import pyarrow

#: "string", "double", "float", "bigint" or "boolean"; a list of one type; a structure of named types.
Type = str | list[Any] | dict[str, Any]

_LABEL: dict[str, Type] = {"label": "string", "score": "double"}
_ENTITY: dict[str, Type] = {
    "label": "string", "text": "string", "score": "double", "start": "bigint", "end": "bigint",
}  # fmt: skip
_ANSWER: dict[str, Type] = {"score": "double", "start": "bigint", "end": "bigint", "answer": "string"}
_WORD: dict[str, Type] = {"token": "string", "id": "bigint", "score": "double", "sequence": "string"}
_CHOICE: dict[str, Type] = {"choice": "string", "index": "bigint", "score": "double"}


@dataclass(frozen=True)
class Form:
    """How the results of a task are written.

    Args:
        inputs: the columns that an input is made of; the first is always there, and those in `optional` may be missing.
        options: of the pipeline's calls.
        types: the columns of a result.
        values: an input and its result → the values of the columns.
    """

    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    types: Mapping[str, Type]
    values: Callable[[Any, Any], dict[str, Any]]
    optional: tuple[str, ...] = ()

    def input(self, row: Mapping[str, Any]) -> Any:
        """An input of the pipeline, from the values of its columns; None if one that is needed is null or empty."""
        given = {name: row[name] for name in self.inputs if name in row and not _is_missing(row[name])}
        if any(name not in given for name in self.inputs if name not in self.optional):
            return None
        return given[self.inputs[0]] if len(given) == 1 else given


def _is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN as pandas writes it, an empty list or text, or one of spaces alone."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value if not hasattr(value, "__len__") else not len(value)


def form_of(task: str, options: Mapping[str, Any]) -> Form:
    """The form of a task's results, with these options of its pipeline's calls.

    `top_k` is one of every task with several results for an input: without it there is the best alone.

    Raises:
        InputError: the results of these options have no columns.
    """
    if task not in _FORMS:
        raise InputError(f"{task} has no columns: it must be one of {', '.join(_FORMS)}")
    return _FORMS[task](dict(options))


# ── one function for each task ──


def _classified(options: dict[str, Any]) -> Form:
    if options.get("return_all_scores") is not None:
        raise InputError("return_all_scores has no columns: pass top_k=None for all labels")
    several = "top_k" in options or options.get("conformal") is not None
    label = _LABEL | _reasons(options, "text_pair")
    types: dict[str, Type] = {"labels": [label]} if several else label

    def values(_: Any, result: Any) -> dict[str, Any]:
        if several:
            return {"labels": [_of(label, one) for one in result]}
        if isinstance(result, list):
            raise InputError("the model answers with any number of labels: pass top_k='chosen' for a list of labels")
        return _of(label, result)

    return Form(("text", "text_pair"), options, types, values, optional=("text_pair",))


def _zero_shot(options: dict[str, Any]) -> Form:
    several, count = "top_k" in options, options.pop("top_k", 1)

    def values(_: Any, result: Any) -> dict[str, Any]:
        ranked = [
            {"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)
        ][:count]
        return {"labels": ranked} if several else ranked[0]

    return Form(("text",), options, {"labels": [_LABEL]} if several else _LABEL, values)


def _tagged(options: dict[str, Any]) -> Form:
    # A word has the label of its first token, as in training.
    options.setdefault("aggregation_strategy", "first")
    if options["aggregation_strategy"] == "none" or options.get("is_split_into_words"):
        raise InputError("entities in columns need whole texts, and an aggregation_strategy other than 'none'")

    def values(text: str, result: Any) -> dict[str, Any]:
        return {"entities": entities(text, result)}

    return Form(("text",), options, {"entities": [_ENTITY | _reasons(options)]}, values)


def entities(text: str, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entities of a text, from the results of its pipeline with an aggregation strategy."""
    return [
        {
            "label": group["entity_group"],
            "text": text[group["start"] : group["end"]],
            **{key: group[key] for key in ("score", "start", "end", "base", "words") if key in group},
        }
        for group in groups
    ]


def _answered(options: dict[str, Any]) -> Form:
    several = options.get("top_k", 1) != 1
    answer = _ANSWER | _reasons(options, "question")
    types: dict[str, Type] = {"answers": [answer]} if several else answer

    def values(_: Any, result: Any) -> dict[str, Any]:
        if not several:
            return _of(answer, result)
        return {"answers": [_of(answer, one) for one in (result if isinstance(result, list) else [result])]}

    return Form(("question", "context"), options, types, values)


def _filled(options: dict[str, Any]) -> Form:
    return Form(("text",), options, {"gaps": [[_WORD]]}, lambda _, result: {"gaps": gaps(result)})


def gaps(result: list[Any]) -> list[list[dict[str, Any]]]:
    """The words for each masked word of a text, from the result of its pipeline."""
    return [
        [
            {"token": word["token_str"], "id": word["token"], "score": word["score"], "sequence": word["sequence"]}
            for word in gap
        ]
        for gap in (result if result and isinstance(result[0], list) else [result])
    ]


def _chosen(options: dict[str, Any]) -> Form:
    def values(_: Any, result: Any) -> dict[str, Any]:
        return {"ranked": [_of(_CHOICE, one) for one in result]}

    return Form(("prompt", "choices"), options, {"ranked": [_CHOICE]}, values)


def _embedded(options: dict[str, Any]) -> Form:
    options.setdefault("pooling", "declared")
    if options["pooling"] is None or options.get("return_tensors") not in (None, False):
        raise InputError("a column holds one vector per text: leave out return_tensors, and name a pooling")
    return Form(("text",), options, {"embedding": ["float"]}, lambda _, vector: {"embedding": vector})


def _reasons(options: Mapping[str, Any], *marks: str) -> dict[str, Type]:
    """The columns that `explain` adds; `marks` are true of the words of another text."""
    place = {"word": "string", "start": "bigint", "end": "bigint"}
    word: dict[str, Type] = {**place, **dict.fromkeys(marks, "boolean"), "score": "double"}
    return {"base": "double", "words": [word]} if options.get("explain") else {}


def _of(types: Mapping[str, Type], result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in types}


_FORMS: dict[str, Callable[[dict[str, Any]], Form]] = {
    "text-classification": _classified,
    "zero-shot-classification": _zero_shot,
    "token-classification": _tagged,
    "question-answering": _answered,
    "fill-mask": _filled,
    "multiple-choice": _chosen,
    "feature-extraction": _embedded,
}


# ── types ──


def arrow_type(kind: Type) -> pyarrow.DataType:
    """A type of Arrow."""
    import pyarrow

    match kind:
        case list():
            return pyarrow.list_(arrow_type(kind[0]))
        case dict():
            return pyarrow.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
    names = {"string": "string", "double": "float64", "float": "float32", "bigint": "int64", "boolean": "bool_"}
    return getattr(pyarrow, names[kind])()


def spark_type(kind: Type) -> str:
    """A type as Spark's schemas are written."""
    match kind:
        case list():
            return f"array<{spark_type(kind[0])}>"
        case dict():
            return f"struct<{', '.join(f'`{name}`: {spark_type(inner)}' for name, inner in kind.items())}>"
    return kind

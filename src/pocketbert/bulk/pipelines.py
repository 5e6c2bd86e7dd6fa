"""A pipeline over columns, which other engines call in their workers: batches in, batches with results out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.bulk.columns import Type, arrow_type, form_of, spark_type
from pocketbert.errors import InputError
from pocketbert.pipelines import ALIASES, TASKS, Pipeline, pipeline
from pocketbert.pipelines.arguments import READING

_MODELS = 2  # in one process at a time


@lru_cache(maxsize=_MODELS)
def load(task: str, model: str | None, threads: int | None) -> Pipeline:
    """The pipeline of a task; a process reads a model once, however many objects that name it are sent there."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker has one processor
    return pipeline(task, model, model_kwargs={"threads": threads})


def absolute(model: str | Path | None) -> str | None:
    """The name of a model that means the same in another folder: of a folder the whole path."""
    if model is None:
        return None
    return str(Path(model).absolute()) if Path(model).is_dir() else str(model)


class ColumnPipeline:
    """A pipeline over batches of columns: the batch in, the same batch with columns of results out.

    A batch is a table or record batch of Arrow, a data frame of pandas, or a dictionary of columns; the result is of
    the same type. Rows are neither left out nor reordered: those whose text is missing have results that are missing.
    An object holds names alone until its first batch, so it is small when engines send it to their workers, where
    it reads the model once per process. The results of a row depend on that row alone, to the bit.

        rows.map_batches(ColumnPipeline, fn_constructor_args=("text-classification",), batch_format="pyarrow")
        frame.mapInPandas(pipe.each, schema=f"id bigint, text string, {pipe.schema}")

    Args:
        task: one of `pipelines.TASKS`, or an alias of one.
        model: a model folder, which all machines must see under this name, or a hub name [default: as of `pipeline`].
        columns: the names of input columns where they are not `text`; `question` and `context`; `prompt` and `choices`;
            for pairs of texts `text` and `text_pair`, which is read where the batch has it.
        threads: of the engine, in each worker.
        **options: of the pipeline's calls. `top_k` makes one column, a list, of the results of a row.

    Raises:
        InputError: an option is unknown, or makes results that have no columns.
    """

    def __init__(
        self,
        task: str,
        model: str | Path | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        threads: int = 1,
        **options: Any,
    ) -> None:
        self.task, self.model, self.threads = ALIASES.get(task, task), absolute(model), threads
        self.form = form_of(self.task, options)
        known = {*inspect.signature(TASKS[self.task].job).parameters, *READING} - {"self", "reading"}
        if unknown := [name for name in self.form.options if name not in known]:
            raise InputError(f"{self.task} has no option {', '.join(unknown)}: it takes {', '.join(sorted(known))}")
        self._options, self._given = options, dict(columns or {})
        if strange := [name for name in self._given if name not in self.form.inputs]:
            raise InputError(f"columns: {', '.join(strange)} is not one of {', '.join(self.form.inputs)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.task, self.model, self._given, self.threads, self._options)

    def __repr__(self) -> str:
        return f"ColumnPipeline({self.task}, {self.model or 'bundled'}, {', '.join(self.form.types)})"

    @property
    def schema(self) -> str:
        """The columns of results and their types, as Spark's schemas are written."""
        return ", ".join(f"`{name}` {spark_type(kind)}" for name, kind in self.form.types.items())

    def each(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The results of batch after batch, as `mapInPandas` and `mapInArrow` of Spark ask for them."""
        return map(self, batches)

    def __call__(self, batch: Any) -> Any:
        """The batch with the columns of results.

        Raises:
            InputError: the batch lacks a column, or has one of the results already; or a row cannot be answered, which
                the message quotes.
        """
        names = list(batch.column_names if hasattr(batch, "column_names") else batch)
        if taken := [name for name in self.form.types if name in names]:
            raise InputError(f"the batch has a column {taken[0]} already, which is one of the results: rename it")
        inputs = {name: self._given.get(name, name) for name in self.form.inputs}
        for name, column in dict(inputs).items():
            if column not in names:
                if name not in self.form.optional or name in self._given:
                    raise InputError(f"the batch has no column {column!r}: it has {', '.join(map(str, names))}")
                del inputs[name]
        results = self._results([_cells(batch[column]) for column in inputs.values()], list(inputs))
        return _with_columns(batch, self.form.types, results)

    def _results(self, columns: Sequence[list[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
        """The columns of results."""
        rows = [self.form.input(dict(zip(names, cells, strict=True))) for cells in zip(*columns, strict=True)]
        results: dict[str, list[Any]] = {name: [None] * len(rows) for name in self.form.types}
        there = [place for place, row in enumerate(rows) if row is not None]
        if there:
            pipe = load(self.task, self.model, self.threads)
            try:
                answers = pipe.stream([rows[place] for place in there], **self.form.options)
                for place, answer in zip(there, answers, strict=True):
                    for name, value in self.form.values(rows[place], answer.value).items():
                        results[name][place] = value
            except InputError as error:
                if error.position is None:
                    raise
                row = there[error.position]
                raise InputError(f"row {row} of the batch ({rows[row]!r:.60}): {error.message}") from None
        return results


def _again(
    task: str, model: str | None, columns: dict[str, str], threads: int, options: dict[str, Any]
) -> ColumnPipeline:
    return ColumnPipeline(task, model, columns=columns, threads=threads, **options)


def _cells(column: Any) -> list[Any]:
    """The values of a column, as Python has them."""
    for method in ("to_pylist", "tolist"):
        if hasattr(column, method):
            return list(getattr(column, method)())
    return list(column)


def _with_columns(batch: Any, types: Mapping[str, Type], results: Mapping[str, list[Any]]) -> Any:
    """A batch of the same type with further columns."""
    if hasattr(batch, "column_names"):
        import pyarrow

        for name, values in results.items():
            array = pyarrow.array(values, arrow_type(types[name]))
            batch = (
                batch.append_column(name, array)
                if isinstance(batch, pyarrow.Table)
                else pyarrow.record_batch([*batch.columns, array], names=[*batch.schema.names, name])
            )
        return batch
    arrays = {name: _array(values, types[name]) for name, values in results.items()}
    if hasattr(batch, "assign"):
        import pandas

        return batch.assign(**{name: pandas.Series(array, index=batch.index) for name, array in arrays.items()})
    return {**batch, **arrays}


def _array(values: list[Any], kind: Type) -> np.ndarray:
    """A column for NumPy: of numbers where it holds numbers, else of objects."""
    if kind == "double":
        return np.array(values, np.float64)
    array = np.empty(len(values), object)
    for place, value in enumerate(values):  # at once, lists of equal length would become a matrix
        array[place] = value
    return array

"""One chunk of input → one shard of results: the work of a worker, which depends on the chunk and the job alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from pocketbert.bulk.columns import Form, Type, arrow_type, form_of
from pocketbert.bulk.inputs import Chunk
from pocketbert.bulk.options import Format
from pocketbert.bulk.pipelines import load
from pocketbert.bulk.storage import Folder
from pocketbert.errors import InputError

UNFINISHED = ".unfinished"  # in the output: what is known of finished shards until the manifest is written


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a shard.

    Args:
        file: its name.
        bytes: its size.
        sha256: of its content.
        rows: of results.
        inputs: rows of input.
        input_sha256: of what was in them.
        cut: how many texts were longer than the model's input, and not read to their end.
        first_cut: where the first of them is.
    """

    file: str
    bytes: int
    sha256: str
    rows: int
    inputs: int
    input_sha256: str
    cut: int = 0
    first_cut: str = ""


@dataclass(frozen=True)
class Job:
    """What all chunks have in common."""

    output: str
    format: Format
    task: str
    model: str | None
    threads: int | None
    options: Mapping[str, Any]
    questions: tuple[str, ...]
    kept: Mapping[str, Type]

    def shard(self, number: int) -> str:
        """The name of a shard."""
        return f"part-{number:05}.{self.format}"

    @staticmethod
    def entry(number: int) -> str:
        """The name of the file with what is known of a shard."""
        return f"{UNFINISHED}/part-{number:05}.json"


def write_shard(job: Job, chunk: Chunk) -> tuple[int, Entry]:
    """Answer a chunk and write its shard, then its entry; both replace what an earlier attempt has left.

    Raises:
        InputError: a row cannot be answered; names its file and line.
        DataError: the shard cannot be written.
    """
    form = form_of(job.task, job.options)
    cut: list[int] = []
    rows = list(_answers(job, form, chunk, cut))
    paired = rows and "text_pair" in rows[0]
    texts = ("text", *(["text_pair"] if paired else []), *(["question"] if job.questions else []))
    types = {**job.kept, **dict.fromkeys(texts, "string"), **form.types}
    content = _FORMATS[job.format](rows, types)
    file = job.shard(chunk.number)
    folder = Folder(job.output)
    folder.write(file, content)
    digest = hashlib.sha256(content).hexdigest()
    first = chunk.place(cut[0]) if cut else ""
    entry = Entry(
        file, len(content), digest, len(rows), len(chunk.rows), chunk.sha256(), len(cut), first
    )  # fmt: skip
    folder.write(job.entry(chunk.number), json.dumps(asdict(entry), ensure_ascii=False).encode())
    return chunk.number, entry


def _answers(job: Job, form: Form, chunk: Chunk, cut: list[int]) -> Iterator[dict[str, Any]]:
    """The rows of results; `cut` receives the places of texts that were not read to their end."""
    pipe = load(job.task, job.model, job.threads)
    pairs = list(product(range(len(chunk.rows)), job.questions or (None,)))
    inputs: list[Any] = []
    for place, question in pairs:
        row = chunk.rows[place]
        if question is not None:
            inputs.append({"question": question, "context": row.text})
        else:
            inputs.append(row.text if row.text_pair is None else {"text": row.text, "text_pair": row.text_pair})
    try:
        for (place, question), one, answer in zip(pairs, inputs, pipe.stream(inputs, **form.options), strict=True):
            row = chunk.rows[place]
            if any(features.cut for features in answer.features):
                cut.append(place)
            texts = {"text": row.text, "text_pair": row.text_pair, "question": question}
            yield {
                **dict(zip(job.kept, row.kept, strict=True)),
                **{name: text for name, text in texts.items() if text is not None},
                **form.values(one, answer.value),
            }
    except InputError as error:
        if error.position is None:
            raise
        raise InputError(f"{chunk.place(pairs[error.position][0])}: {error.message}") from None


# ── formats ──

Rows = list[dict[str, Any]]


def _jsonl(rows: Rows, types: Mapping[str, Type]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n" for row in rows)


def _csv(rows: Rows, types: Mapping[str, Type]) -> bytes:
    """A table with a header; lists are written as JSON."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(types)
    for row in rows:
        writer.writerow(
            json.dumps(row[name], ensure_ascii=False) if isinstance(row[name], list | dict) else row[name]
            for name in types
        )
    return file.getvalue().encode()


def _parquet(rows: Rows, types: Mapping[str, Type]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name, kind in types.items():
        values = [row[name] for row in rows]
        if kind == "string":
            values = [value if value is None or isinstance(value, str) else _text(value) for value in values]
        try:
            columns[name] = pyarrow.array(values, arrow_type(kind))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:  # of kept columns alone
            raise InputError(
                f"the column {name!r} begins with values of the type {kind}, and has others later ({error}): "
                "--format jsonl keeps values as they are"
            ) from None
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


_FORMATS: dict[Format, Callable[[Rows, Mapping[str, Type]], bytes]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}

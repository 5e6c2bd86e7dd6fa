"""Files of any size through a pipeline: shards of results, a manifest, and a run that resumes where it was stopped.

    OUT/part-00000.jsonl, …      results, in the order of the input
    OUT/manifest.json            versions, model, options, input; rows, size and hash of every shard; written last
    OUT/.unfinished/             options of an unfinished run, and an entry for each of its shards

This process reads the files and hands out chunks of rows; whoever runs them (this process, others of this machine, a
Ray cluster) writes a shard for each. Because the bits of a result depend on its row alone, the executor changes
nothing. Memory holds a few chunks. A run that goes on reads its input again, and compares the hash of every chunk with
that of the shard which is there, so no row is lost, doubled or taken from another input.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pocketbert
from pocketbert.bulk.columns import form_of
from pocketbert.bulk.inputs import Chunk, Inputs, types_of
from pocketbert.bulk.options import BulkOptions
from pocketbert.bulk.pipelines import absolute
from pocketbert.bulk.shards import UNFINISHED, Entry, Job, write_shard
from pocketbert.bulk.storage import Folder, find, is_url
from pocketbert.bundles import BUNDLED
from pocketbert.checkpoints import resolve
from pocketbert.configs import AutoConfig
from pocketbert.data import executors
from pocketbert.data.bad_rows import looked_at
from pocketbert.decisions import stated_thresholds
from pocketbert.errors import DataError, InputError, require
from pocketbert.pipelines import TASKS, TextClassification

logger = logging.getLogger("pocketbert")

FORMAT = 1
MANIFEST = "manifest.json"
_STARTED = f"{UNFINISHED}/run.json"
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*/*.json", "*/*.safetensors", "*/*.bin")
_TEXTS = ("text", "text_pair", "question")  # of the input, which the results have as well
_NUMBER = re.compile(r"part-(\d+)\.")

Advance = Callable[[int, float | None], None]


@dataclass(frozen=True)
class BulkResult:
    """Result of a bulk inference."""

    folder: str
    """The folder or URL of the shards."""
    rows: int
    """Rows of results."""
    shards: int
    """Shards, of which the last may be shorter."""
    skipped: int
    """Rows of the input without text, which have no results."""
    cut: int
    """Number of texts that were longer than the model's input, whose ends were ignored."""
    first_cut: str
    """File and line of the first of them."""


def answer_files(options: BulkOptions, *, advance: Advance = lambda rows, fraction: None) -> BulkResult:
    """Write the results of all rows of some files, or finish what an earlier call with the same options started.

    With `workers` a script must have its calls under `if __name__ == "__main__":`, as for all of Python's
    multiprocessing.

    Args:
        options: input, task, model, output and who computes.
        advance: called with the rows that have results, and with the fraction of the input that was read.

    Raises:
        DataError: a file or folder cannot be read or written, files have different columns, the output was started with
            other input, model or options, no cluster is there, or a worker was killed. What is finished stays.
        InputError: a row cannot be answered; names its file and line.
        MissingExtraError: Parquet and URLs need pyarrow, Ray needs the extra `ray`.
    """
    if options.format == "parquet" or is_url(str(options.output)):
        require("parquet")
    output = (
        str(options.output).rstrip("/") if is_url(str(options.output)) else str(Path(str(options.output)).absolute())
    )
    asked = _asked(options)
    form = form_of(options.task, asked)  # refuses what has no columns before anything is read
    if taken := [name for name in options.keep if name in (*_TEXTS, *form.types)]:
        raise DataError(f"--keep {taken[0]}: the results have a column of this name; rename that of the input")
    inputs = Inputs(
        find(str(options.file)), options.text_column, options.text_pair_column, options.text_pair,
        pairs=options.task == "text-classification", keep=options.keep, shard_rows=options.shard_rows,
    )  # fmt: skip
    first, chunks = looked_at(inputs.chunks(), 1)
    if not first:
        next(chunks)  # which raises what is wrong with it
    kept = types_of(options.keep, first[0].rows)
    one = options.engine == "local" and options.workers in (None, 1)
    job = Job(
        output, options.format, options.task, absolute(options.model), None if one and options.workers is None else 1,
        asked, options.questions, kept,
    )  # fmt: skip
    facts = {
        "versions": {"pocketbert": pocketbert.__version__},
        "task": options.task,
        "model": {"sha256": _model_hash(options)},
        "options": {**asked, "format": options.format, "shard_rows": options.shard_rows}
        | ({"questions": list(options.questions)} if options.questions else {}),
        "columns": kept,
    }
    folder = Folder(output)
    finished = _begin(folder, facts)
    state = _Run(folder, finished, inputs, advance)
    execute = _executor(options)
    for number, entry in execute(partial(write_shard, job), state.due(chunks)):
        state.add(number, entry)
    return state.finish(facts)


def _asked(options: BulkOptions) -> dict[str, Any]:
    """The options of the calls; of a classifier that decides on any number of labels, that its list is meant."""
    asked = dict(options.options)
    if options.task == "text-classification" and not {"top_k", "min_confidence", "answer_share", "conformal"} & set(
        asked
    ):
        config = AutoConfig.from_pretrained(
            BUNDLED / str(TextClassification.bundled) if options.model is None else options.model
        )
        return asked if stated_thresholds(config) is None else {**asked, "top_k": "chosen"}
    return asked


def _executor(options: BulkOptions) -> executors.Executor:
    if options.engine == "ray":
        return executors.ray_executor(options.address, options.workers)
    return executors.this_process if options.workers is None else executors.local_executor(options.workers)


class _Run:
    """The shards of a run: those that were there, and those that are written."""

    def __init__(self, folder: Folder, there: dict[int, Entry], inputs: Inputs, advance: Advance) -> None:
        self.folder, self.there, self.inputs, self.advance = folder, there, inputs, advance
        self.entries: dict[int, Entry] = {}
        self.rows = 0

    def due(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks that have no shard yet; those that have one are compared with it."""
        for chunk in chunks:
            entry = self.there.pop(chunk.number, None)
            if entry is None:
                yield chunk
                continue
            if entry.input_sha256 != chunk.sha256():
                raise self._other(f"{chunk.place(0)}, or some row after it")
            content = self.folder.read(entry.file)
            if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
                logger.info("%s/%s: missing or damaged: writing it again", self.folder.where, entry.file)
                yield chunk
            else:
                self.add(chunk.number, entry)
        if self.there:
            raise self._other(f"it has fewer rows: none are left for {self.there[min(self.there)].file}")

    def add(self, number: int, entry: Entry) -> None:
        self.entries[number] = entry
        self.rows += entry.rows
        self.advance(self.rows, self.inputs.fraction)

    def _other(self, where: str) -> DataError:
        return DataError(
            f"{self.folder.where}: was started with other input ({where}): choose a new folder, or delete this one"
        )

    def finish(self, facts: Mapping[str, Any]) -> BulkResult:
        """Write the manifest, and remove what an unfinished run needs."""
        shards = [self.entries[number] for number in sorted(self.entries)]
        first = next((entry.first_cut for entry in shards if entry.cut), "")
        counts = {
            "rows": sum(entry.rows for entry in shards),
            "inputs": sum(entry.inputs for entry in shards),
            "skipped": self.inputs.skipped,
            "cut": sum(entry.cut for entry in shards),
        }
        sources = [{"file": source.name, "bytes": source.bytes} for source in self.inputs.sources]
        manifest = {"format": FORMAT, **facts, "input": sources, "counts": counts, "shards": [*map(asdict, shards)]}
        self.folder.write(MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
        self.folder.remove(UNFINISHED)
        return BulkResult(
            self.folder.where, counts["rows"], len(shards), counts["skipped"], counts["cut"], first
        )  # fmt: skip


def _begin(folder: Folder, facts: Mapping[str, Any]) -> dict[int, Entry]:
    """The entries of shards that are there; of an empty folder none, and it is started.

    Raises:
        DataError: the folder holds something else, or shards of other options or another model.
    """
    names = folder.names()
    if MANIFEST in names:
        manifest = _json(folder, MANIFEST)
        if manifest.get("format") != FORMAT or not isinstance(manifest.get("shards"), list):
            raise DataError(f"{folder.where}/{MANIFEST}: is not the manifest of a bulk inference: choose a new folder")
        _check_same(folder, facts, manifest)
        entries = [Entry(**entry) for entry in manifest["shards"]]
    elif _STARTED in names:
        _check_same(folder, facts, _json(folder, _STARTED))
        entries = [
            Entry(**_json(folder, name)) for name in names if re.fullmatch(rf"{UNFINISHED}/part-\d+\.json", name)
        ]
        logger.info("%s: continuing, with %d shards already written", folder.where, len(entries))
    else:
        if names:
            raise DataError(f"{folder.where}: is not empty: choose a new folder")
        folder.write(_STARTED, json.dumps(facts, ensure_ascii=False).encode())
        entries = []
    return {int(found[1]): entry for entry in entries if (found := _NUMBER.match(entry.file))}


def _json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        value = json.loads(folder.read(name) or b"")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{folder.where}/{name}: is damaged: choose a new folder, or delete this one")
    return value


def _check_same(folder: Folder, facts: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    facts = json.loads(json.dumps(facts))  # as it was written
    for name, value in facts.items():
        if earlier.get(name) != value:
            raise DataError(
                f"{folder.where}: was started with other {name} ({_difference(earlier.get(name), value)}): choose a "
                "new folder, or delete this one"
            )


def _difference(earlier: Any, now: Any) -> str:
    """What differs between two facts."""
    if not isinstance(earlier, dict) or not isinstance(now, dict):
        return f"{earlier!r:.60}, now {now!r:.60}"
    names = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return ", ".join(f"{name}: {earlier.get(name)!r:.40}, now {now.get(name)!r:.40}" for name in names)


def _model_hash(options: BulkOptions) -> str:
    """The hash of a model's files."""
    name = options.model
    kind = TASKS.get(options.task)
    if name is None:
        if kind is None or kind.bundled is None:
            raise InputError(f"{options.task} has no bundled model: choose one")
        name = BUNDLED / kind.bundled
    folder = resolve(name, files=_MODEL_FILES)
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()}):
        if path.name != "run.json":  # which describes a training run, and changes no result
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()

"""Preparation of a corpus from raw text: find, clean, deduplicate, train a vocabulary, tokenize, write shards.

The sources are cut into parts. Pure functions process every part twice: for the signatures that identify
near-duplicates, and for the shards. Memory holds one part per worker, and one number per document at a time. Finished
files are in the output folder, so a killed run continues where it stopped, with the same shards as an uninterrupted
one; the manifest is written last.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import pocketbert
from pocketbert.checkpoints.files import atomic_write, read_json, write_text
from pocketbert.corpus.corpus import MANIFEST, ShardWriter, read_manifest, vocabulary_hash, write_manifest
from pocketbert.corpus.documents import PERMUTATIONS, clean, is_held_out, sentences, signature
from pocketbert.corpus.duplicates import near_duplicates
from pocketbert.corpus.prepare_options import PrepareOptions
from pocketbert.corpus.sources import Part, cut, find_sources, read
from pocketbert.corpus.vocabulary import train_vocabulary
from pocketbert.data import executors
from pocketbert.data.executors import Executor
from pocketbert.errors import DataError, require
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

logger = logging.getLogger("pocketbert")

UNFINISHED = ".unfinished"  # folder in the output for intermediate files, removed when the manifest is written
_VOCABULARY_TEXT = 1 << 28  # characters to train a vocabulary on, at most, about
_AT_ONCE = 256  # sentences per call of the tokenizer

Advance = Callable[[int, float | None], None]


@dataclass(frozen=True)
class PrepareResult:
    """Result of a corpus preparation."""

    folder: Path
    """The corpus."""
    documents: int
    """Documents of both splits."""
    held_out: int
    """Documents of the held-out split."""
    sentences: int
    """Sentences of both splits."""
    tokens: int
    """Tokens of both splits."""
    vocabulary: int
    """Size of the vocabulary."""
    shards: int
    """Shards of both splits."""
    near_duplicates: int
    """Documents that were left out as near-duplicates of an earlier one."""
    short: int
    """Documents that were left out because they hold too little text."""


@dataclass(frozen=True)
class _Job:
    """What a worker needs: the parts, the output folder and the options that decide the contents."""

    folder: Path
    parts: tuple[Part, ...]
    language: str
    held_out: float
    similarity: float
    seed: int

    def file(self, kind: str, number: int) -> Path:
        return self.folder / UNFINISHED / f"{kind}-{number:05}"


def prepare(options: PrepareOptions, *, advance: Advance = lambda megabytes, fraction: None) -> PrepareResult:
    """Write a corpus, or finish one that an earlier call with the same options began.

    With several workers a script must have its calls under `if __name__ == "__main__":`, as for all of Python's
    multiprocessing.

    Args:
        options: sources, output, vocabulary and filters.
        advance: called with the megabytes done, and with the fraction of all work.

    Raises:
        DataError: a source cannot be read, or the output folder holds something else.
        CheckpointError: the disk is full, …: what was written stays, and the same call goes on from there.
        MissingExtraError: the extra `corpus` is not installed.
    """
    require("corpus")
    output, lower_case = Path(options.output), not options.cased
    tokenizer = _read_tokenizer(options.tokenizer, lower_case) if options.tokenizer is not None else None
    sources = find_sources(options.sources)
    facts: dict[str, Any] = {
        "versions": {name: version(name) for name in ("tokenizers", "sentencex", "datasketch")},
        "options": options.content(),
        "sources": [{"name": source.name, "bytes": source.bytes, "sha256": source.sha256} for source in sources],
        "asked": {
            "vocabulary": vocabulary_hash(tokenizer) if tokenizer else None,
            "size": options.vocab_size,
            "lower_case": lower_case,
        },
    }
    if (output / MANIFEST).exists():
        manifest = read_manifest(output)
        _check_same(output, facts, manifest)
        logger.info("%s: is complete already", output)
        return _result(output, manifest)
    _begin(output, facts)
    job = _Job(output.resolve(), tuple(cut(sources)), **options.content())
    ray = options.engine == "ray"
    execute = (
        executors.ray_executor(options.address, options.workers) if ray else executors.local_executor(options.workers)
    )
    meter = _Meter(job.parts, advance)
    left_out = _compare(job, execute, meter)
    if tokenizer is None:
        tokenizer = _train_tokenizer(job, options.vocab_size or 0, lower_case)
    tokenizer.save_pretrained(output)
    shards = _shards(job, execute, meter)
    if not shards["train"]:
        names, held = ", ".join(map(str, options.sources)), sum(shard["documents"] for shard in shards["held-out"])
        if held:
            raise DataError(
                f"{names}: all {held} documents were assigned to the held-out split by chance: use --held-out 0, or "
                "another --seed"
            )
        raise DataError(f"{names}: no document has enough text")
    written = [*shards["train"], *shards["held-out"]]
    counts = {what: sum(entry[what] for entry in written) for what in ("documents", "sentences", "tokens")}
    manifest = {
        **facts,
        "versions": {"pocketbert": pocketbert.__version__, **facts["versions"]},
        "vocabulary": {"size": len(tokenizer), "sha256": vocabulary_hash(tokenizer)},
        "counts": {**counts, "left_out": left_out},
        **shards,
    }
    write_manifest(output, manifest)
    shutil.rmtree(output / UNFINISHED)
    return _result(output, read_manifest(output))


def _result(folder: Path, manifest: Mapping[str, Any]) -> PrepareResult:
    counts = manifest["counts"]
    return PrepareResult(
        folder,
        documents=counts["documents"],
        held_out=sum(shard["documents"] for shard in manifest["held-out"]),
        sentences=counts["sentences"],
        tokens=counts["tokens"],
        vocabulary=manifest["vocabulary"]["size"],
        shards=len(manifest["train"]) + len(manifest["held-out"]),
        near_duplicates=counts["left_out"]["near_duplicates"],
        short=counts["left_out"]["short"],
    )


def _read_tokenizer(given: str | Path | BertTokenizer, lower_case: bool) -> BertTokenizer:
    if isinstance(given, BertTokenizer):
        return given
    if Path(given).is_file():
        return BertTokenizer(given, do_lower_case=lower_case)
    return AutoTokenizer.from_pretrained(given)


# ── resuming ──


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Create the folder, or check that an earlier run left it unfinished with the same options."""
    plan = folder / UNFINISHED / "plan.json"
    if plan.exists():
        _check_same(folder, facts, read_json(plan))
        logger.info("%s: continuing an unfinished run", folder)
    elif folder.exists() and any(path.name != UNFINISHED for path in folder.iterdir()):
        raise DataError(f"{folder}: is not empty: choose a new folder")
    else:
        write_text(plan, json.dumps(facts))


def _check_same(folder: Path, facts: dict[str, Any], earlier: dict[str, Any]) -> None:
    for name, value in facts.items():
        recorded = earlier.get(name)
        if name == "versions" and isinstance(recorded, dict):
            recorded = {package: recorded.get(package) for package in value}
        if recorded != value:
            changed = "tokenizer options" if name == "asked" else name
            raise DataError(f"{folder}: was started with other {changed}: choose a new folder, or delete this one")


class _Meter:
    """Progress of the work: both passes count, weighted by their cost."""

    def __init__(self, parts: Sequence[Part], advance: Advance) -> None:
        self.bytes = [sum(piece.bytes for piece in part) for part in parts]
        self.total, self.done, self.advance = max(1, sum(self.bytes)), 0.0, advance

    def add(self, part: int, cost: float) -> None:
        self.done += cost * self.bytes[part]
        self.advance(int(self.done / 1e6), min(1.0, self.done / self.total))


_COMPARING, _TOKENISING = 0.25, 0.75  # of the work


def _each(
    job: _Job, execute: Executor, function: Callable[[_Job, int], int], kind: str, cost: float, meter: _Meter
) -> None:
    """Call `function` on all parts whose file of this kind does not exist yet."""
    finished = {number for number in range(len(job.parts)) if job.file(kind, number).exists()}
    for number in sorted(finished):
        meter.add(number, cost)
    items = [number for number in range(len(job.parts)) if number not in finished]
    for number in execute(partial(function, job), items) if items else ():
        meter.add(number, cost)


# ── near-duplicates ──

_NO_TEXT = np.iinfo(np.uint32).max  # signature of a document with too little text


def _sign(job: _Job, number: int) -> int:
    """Write the signatures of the documents of a part."""
    rows = []
    for text in read(job.parts[number]):
        paragraphs = clean(text)
        row = np.full(PERMUTATIONS if job.similarity else 1, _NO_TEXT, dtype=np.uint32)
        if paragraphs:
            row = signature(paragraphs) if job.similarity else np.zeros_like(row)
        rows.append(row)
    with atomic_write(job.file("signatures", number)) as file:
        np.save(file, np.stack(rows) if rows else np.empty((0, PERMUTATIONS), np.uint32))
    return number


def _compare(job: _Job, execute: Executor, meter: _Meter) -> dict[str, int]:
    """Decide which documents to keep; return the number of those left out by reason."""
    numbers = range(len(job.parts))
    _each(job, execute, _sign, "signatures", _COMPARING, meter)
    signed = (np.load(job.file("signatures", number)) for number in numbers)
    short = [(rows == _NO_TEXT).all(axis=1) for rows in signed]
    ends = np.cumsum([0, *map(len, short)])
    repeated = np.zeros(ends[-1], dtype=bool)
    if job.similarity and ends[-1]:
        together = np.lib.format.open_memmap(
            job.folder / UNFINISHED / "signatures", "w+", np.uint32, (int(ends[-1]), PERMUTATIONS)
        )
        for number in numbers:
            together[ends[number] : ends[number + 1]] = np.load(job.file("signatures", number))
        repeated = near_duplicates(together, job.similarity) & ~np.concatenate(short)
    for number in numbers:
        with atomic_write(job.file("kept", number)) as file:
            np.save(file, ~(short[number] | repeated[ends[number] : ends[number + 1]]))
    return {"short": int(sum(map(np.sum, short))), "near_duplicates": int(repeated.sum())}


def _kept(job: _Job, number: int) -> Iterator[list[str]]:
    """Yield the paragraphs of each kept document of a part."""
    kept = np.load(job.file("kept", number))
    return (clean(text) for text, stays in zip(read(job.parts[number]), kept.tolist(), strict=True) if stays)


# ── the vocabulary ──


class _Texts:
    """Documents to train a vocabulary on, evenly from all parts; every iteration reads them again."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        total = sum(piece.bytes for part in job.parts for piece in part)
        self.every = max(1, round(total / _VOCABULARY_TEXT))

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self.job.parts)):
            for count, paragraphs in enumerate(_kept(self.job, number)):
                if count % self.every == 0:
                    yield "\n".join(paragraphs)


def _train_tokenizer(job: _Job, size: int, lower_case: bool) -> BertTokenizer:
    """Train the vocabulary, unless an earlier run already has."""
    done = job.file("vocabulary", 0)
    if not done.exists():
        vocabulary = train_vocabulary(_Texts(job), size, lower_case=lower_case)
        write_text(done, json.dumps(list(vocabulary)))
    pieces = json.loads(done.read_text(encoding="utf-8"))
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=lower_case)


# ── shards ──


def _shard(job: _Job, number: int) -> int:
    """Write the shard of a part for each split, then their entries of the manifest."""
    tokenizer, size = _backend(str(job.folder))
    writers = {"train": ShardWriter(size), "held-out": ShardWriter(size)}
    for paragraphs in _kept(job, number):
        held = is_held_out(paragraphs, job.held_out, job.seed)
        texts = sentences(paragraphs, job.language)
        writers["held-out" if held else "train"].add(
            [
                encoding.ids
                for start in range(0, len(texts), _AT_ONCE)
                for encoding in tokenizer.encode_batch_fast(texts[start : start + _AT_ONCE], add_special_tokens=False)
            ]
        )
    entries = {split: writer.save(job.folder / f"{split}-{number:05}.safetensors") for split, writer in writers.items()}
    write_text(
        job.file("shard", number), json.dumps({split: asdict(entry) for split, entry in entries.items() if entry})
    )
    return number


@lru_cache(maxsize=1)
def _backend(folder: str) -> tuple[Tokenizer, int]:
    """Load the tokenizer of the folder such that "[MASK]" in a text is ordinary text and not a special token."""
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer, tokenizer.get_vocab_size()


def _shards(job: _Job, execute: Executor, meter: _Meter) -> dict[str, list[dict[str, Any]]]:
    _each(job, execute, _shard, "shard", _TOKENISING, meter)
    entries = [read_json(job.file("shard", number)) for number in range(len(job.parts))]
    return {split: [entry[split] for entry in entries if split in entry] for split in ("train", "held-out")}

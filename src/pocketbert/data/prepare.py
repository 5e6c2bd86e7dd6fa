"""From raw text to a prepared corpus: find, clean, compare, learn a vocabulary, tokenise, write shards.

The sources are cut into parts. Twice every part is gone through, by a pure function of it: for the signatures by which
near-duplicates are found, and for the shards. Memory holds a part a worker, and of all documents one number at a time.
What is finished lies in OUT, so a run that was killed goes on where it was, and its shards are those of one that
was not; the manifest comes last.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import pocketbert
from pocketbert.checkpoints.files import atomic_write, read_json, write_text
from pocketbert.data import engines
from pocketbert.data.corpus import MANIFEST, ShardWriter, read_manifest, vocabulary_hash, write_manifest
from pocketbert.data.documents import PERMUTATIONS, clean, is_held_out, sentences, signature
from pocketbert.data.duplicates import near_duplicates
from pocketbert.data.sources import Part, cut, find_sources, read
from pocketbert.data.vocabulary import train_vocabulary
from pocketbert.errors import ConfigError, DataError, require
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

logger = logging.getLogger("pocketbert")

UNFINISHED = ".unfinished"  # the folder in OUT for what is only needed until the manifest is there
_VOCABULARY_TEXT = 1 << 28  # characters that a vocabulary is learned from, at most, about
_AT_ONCE = 256  # sentences to tokenise

Advance = Callable[[int, float | None], None]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What decides the contents of a corpus, besides its sources and its tokenizer."""

    language: str = "en"
    """For the sentences: a code of ISO 639."""
    held_out: float = 0.03
    """Which part of the documents to keep back; SqueezeBERT's is said to have been 3 %."""
    similarity: float = 0.8
    """Leave out documents that share so much with an earlier one; 0 keeps all."""
    seed: int = 42
    """Decides what is kept back."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1 or not 0 <= self.similarity <= 1:
            raise ConfigError(f"{self.held_out=} and {self.similarity=} must be from 0 to 1")
        if self.seed < 0:
            raise ConfigError(f"{self.seed=} must not be negative")


@dataclass(frozen=True)
class _Job:
    """All that a worker has to know."""

    folder: Path
    parts: tuple[Part, ...]
    options: Preparation

    def file(self, what: str, number: int) -> Path:
        return self.folder / UNFINISHED / f"{what}-{number:05}"


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: str | Path | BertTokenizer | None = None,
    vocab_size: int | None = None,
    lower_case: bool = True,
    options: Preparation | None = None,
    engine: engines.Engine = "local",
    workers: int | None = None,
    address: str | None = None,
    advance: Advance = lambda megabytes, fraction: None,
) -> dict[str, Any]:
    """Write the corpus of `sources` to the folder `out`, or finish what an earlier call began there.

    With several workers a script must have its calls under `if __name__ == "__main__":`, as for all of Python's
    multiprocessing.

    Args:
        sources: files, folders, or `hub:NAME`; see `pocketbert.data.sources`.
        out: a new folder, or one that an earlier call of the same kind left unfinished.
        tokenizer: a tokenizer, a folder with one, a hub name or a vocab.txt; or
        vocab_size: learn a vocabulary of so many pieces from the sources.
        lower_case: whether that vocabulary is lower-case, or a vocab.txt.
        options: what to keep.
        engine: "local" or "ray".
        workers: how many processes; as many as there are processors by default.
        address: Ray's cluster; this machine alone by default.
        advance: called with the megabytes done, and with the fraction of all work.

    Returns:
        The manifest.

    Raises:
        DataError: a source cannot be read, or `out` holds something else.
        CheckpointError: the disk is full, …: what was written stays, and the same call goes on from there.
    """
    require("corpus")
    if (tokenizer is None) == (vocab_size is None):
        raise ConfigError("give either a tokenizer (folder, hub name or vocab.txt) or the size of a new vocabulary")
    out, options = Path(out), options or Preparation()
    ready = _tokenizer(tokenizer, lower_case) if tokenizer is not None else None
    found = find_sources(sources)
    facts: dict[str, Any] = {
        "versions": {name: version(name) for name in ("tokenizers", "sentencex", "datasketch")},
        "options": asdict(options),
        "sources": [{"name": one.name, "bytes": one.bytes, "sha256": one.sha256} for one in found],
        "asked": {
            "vocabulary": vocabulary_hash(ready) if ready else None,
            "size": vocab_size,
            "lower_case": lower_case,
        },
    }
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        _check_same(out, facts, manifest)
        logger.info("%s: is complete already", out)
        return manifest
    _begin(out, facts)
    job = _Job(out.resolve(), tuple(cut(found)), options)
    work = engines.ray(address, workers) if engine == "ray" else engines.local(workers)
    meter = _Meter(job.parts, advance)
    left_out = _compare(job, work, meter)
    if ready is None:
        ready = _learned(job, vocab_size or 0, lower_case)
    ready.save_pretrained(out)
    shards = _shards(job, work, meter)
    if not shards["train"]:
        raise DataError(f"{', '.join(map(str, sources))}: there is no document with enough text in it")
    written = [*shards["train"], *shards["held-out"]]
    counts = {what: sum(entry[what] for entry in written) for what in ("documents", "sentences", "tokens")}
    manifest = {
        **facts,
        "versions": {"pocketbert": pocketbert.__version__, **facts["versions"]},
        "vocabulary": {"size": len(ready), "sha256": vocabulary_hash(ready)},
        "counts": {**counts, "left_out": left_out},
        **shards,
    }
    write_manifest(out, manifest)
    shutil.rmtree(out / UNFINISHED)
    return read_manifest(out)


def _tokenizer(given: str | Path | BertTokenizer, lower_case: bool) -> BertTokenizer:
    if isinstance(given, BertTokenizer):
        return given
    if Path(given).is_file():
        return BertTokenizer(given, do_lower_case=lower_case)
    return AutoTokenizer.from_pretrained(given)


# ── what is there already ──


def _begin(out: Path, facts: dict[str, Any]) -> None:
    """Make the folder, or see to it that what an earlier run left there is the beginning of the same."""
    plan = out / UNFINISHED / "plan.json"
    if plan.exists():
        _check_same(out, facts, read_json(plan))
        logger.info("%s: going on with what an earlier run left", out)
    elif out.exists() and any(path.name != UNFINISHED for path in out.iterdir()):
        raise DataError(f"{out}: is not empty: choose a new folder")
    else:
        write_text(plan, json.dumps(facts))


def _check_same(out: Path, facts: dict[str, Any], there: dict[str, Any]) -> None:
    for what, value in facts.items():
        known = there.get(what)
        if what == "versions" and isinstance(known, dict):
            known = {name: known.get(name) for name in value}
        if known != value:
            raise DataError(
                f"{out}: was begun with other {'tokenizer options' if what == 'asked' else what}: choose a new folder, "
                "or delete this one"
            )


class _Meter:
    """How far the work is: both passes count, by what they cost."""

    def __init__(self, parts: Sequence[Part], advance: Advance) -> None:
        self.bytes = [sum(piece.bytes for piece in part) for part in parts]
        self.total, self.done, self.advance = max(1, sum(self.bytes)), 0.0, advance

    def add(self, part: int, cost: float) -> None:
        self.done += cost * self.bytes[part]
        self.advance(int(self.done / 1e6), min(1.0, self.done / self.total))


_COMPARING, _TOKENISING = 0.25, 0.75  # of the work


def _each(
    job: _Job, work: engines.Work, function: Callable[[_Job, int], int], what: str, cost: float, meter: _Meter
) -> None:
    """Call `function` on all parts of which the file `what` is not there yet."""
    there = {number for number in range(len(job.parts)) if job.file(what, number).exists()}
    for number in sorted(there):
        meter.add(number, cost)
    tasks = [number for number in range(len(job.parts)) if number not in there]
    for number in work(partial(function, job), tasks) if tasks else ():
        meter.add(number, cost)


# ── near-duplicates ──

_NO_TEXT = np.iinfo(np.uint32).max  # in a signature: of a document with too little text


def _sign(job: _Job, number: int) -> int:
    """Write the signatures of a part's documents."""
    rows = []
    for text in read(job.parts[number]):
        paragraphs = clean(text)
        row = np.full(PERMUTATIONS if job.options.similarity else 1, _NO_TEXT, dtype=np.uint32)
        if paragraphs:
            row = signature(paragraphs) if job.options.similarity else np.zeros_like(row)
        rows.append(row)
    with atomic_write(job.file("signatures", number)) as file:
        np.save(file, np.stack(rows) if rows else np.empty((0, PERMUTATIONS), np.uint32))
    return number


def _compare(job: _Job, work: engines.Work, meter: _Meter) -> dict[str, int]:
    """Decide which documents stay; returns how many do not, by reason."""
    numbers = range(len(job.parts))
    _each(job, work, _sign, "signatures", _COMPARING, meter)
    signed = (np.load(job.file("signatures", number)) for number in numbers)
    short = [(rows == _NO_TEXT).all(axis=1) for rows in signed]
    ends = np.cumsum([0, *map(len, short)])
    repeated = np.zeros(ends[-1], dtype=bool)
    if job.options.similarity and ends[-1]:
        together = np.lib.format.open_memmap(
            job.folder / UNFINISHED / "signatures", "w+", np.uint32, (int(ends[-1]), PERMUTATIONS)
        )
        for number in numbers:
            together[ends[number] : ends[number + 1]] = np.load(job.file("signatures", number))
        repeated = near_duplicates(together, job.options.similarity) & ~np.concatenate(short)
    for number in numbers:
        with atomic_write(job.file("kept", number)) as file:
            np.save(file, ~(short[number] | repeated[ends[number] : ends[number + 1]]))
    return {"short": int(sum(map(np.sum, short))), "near_duplicates": int(repeated.sum())}


def _kept(job: _Job, number: int) -> Iterator[list[str]]:
    """The paragraphs of the documents of a part that stay."""
    kept = np.load(job.file("kept", number))
    return (clean(text) for text, stays in zip(read(job.parts[number]), kept.tolist(), strict=True) if stays)


# ── the vocabulary ──


class _Texts:
    """Documents to learn a vocabulary from, read anew by every loop over them: evenly from all parts."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        total = sum(piece.bytes for part in job.parts for piece in part)
        self.every = max(1, round(total / _VOCABULARY_TEXT))

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self.job.parts)):
            for count, paragraphs in enumerate(_kept(self.job, number)):
                if count % self.every == 0:
                    yield "\n".join(paragraphs)


def _learned(job: _Job, size: int, lower_case: bool) -> BertTokenizer:
    """The new vocabulary; in OUT already where an earlier run has come that far."""
    done = job.file("vocabulary", 0)
    if not done.exists():
        vocabulary = train_vocabulary(_Texts(job), size, lower_case=lower_case)
        write_text(done, json.dumps(list(vocabulary)))
    pieces = json.loads(done.read_text(encoding="utf-8"))
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=lower_case)


# ── shards ──


def _shard(job: _Job, number: int) -> int:
    """Write a part's shard of each split, then what the manifest will say of them."""
    tokenizer, size = _backend(str(job.folder))
    writers = {"train": ShardWriter(size), "held-out": ShardWriter(size)}
    for paragraphs in _kept(job, number):
        held = is_held_out(paragraphs, job.options.held_out, job.options.seed)
        found = sentences(paragraphs, job.options.language)
        writers["held-out" if held else "train"].add(
            [
                encoding.ids
                for start in range(0, len(found), _AT_ONCE)
                for encoding in tokenizer.encode_batch_fast(found[start : start + _AT_ONCE], add_special_tokens=False)
            ]
        )
    entries = {split: writer.save(job.folder / f"{split}-{number:05}.safetensors") for split, writer in writers.items()}
    write_text(job.file("shard", number), json.dumps({split: asdict(one) for split, one in entries.items() if one}))
    return number


@lru_cache(maxsize=1)
def _backend(folder: str) -> tuple[Tokenizer, int]:
    """The tokenizer of the folder, for text in which "[MASK]" is five letters in brackets and no token."""
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer, tokenizer.get_vocab_size()


def _shards(job: _Job, work: engines.Work, meter: _Meter) -> dict[str, list[dict[str, Any]]]:
    _each(job, work, _shard, "shard", _TOKENISING, meter)
    told = [read_json(job.file("shard", number)) for number in range(len(job.parts))]
    return {split: [one[split] for one in told if split in one] for split in ("train", "held-out")}

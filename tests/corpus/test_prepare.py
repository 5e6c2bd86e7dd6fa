"""Raw text → a corpus: what is read, what is kept, the same bytes whatever happens on the way, and what is refused."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.tokenizers import LETTERS, spelling, tokenizer_of
from pocketbert.corpus import sources
from pocketbert.corpus.corpus import Corpus, read_manifest
from pocketbert.corpus.documents import clean, is_held_out, sentences, signature
from pocketbert.corpus.duplicates import near_duplicates
from pocketbert.corpus.prepare import prepare
from pocketbert.corpus.prepare_options import PrepareOptions
from pocketbert.corpus.pretraining_batches import PretrainingBatches
from pocketbert.data import executors
from pocketbert.errors import CheckpointError, ConfigError, DataError
from pocketbert.tokenization import BertTokenizer

pytest.importorskip("sentencex")
pytest.importorskip("datasketch")

PIECES = spelling(".")


def tokenizer() -> BertTokenizer:
    return tokenizer_of(PIECES)


def document(seed: int, count: int = 6) -> list[str]:
    """Sentences of made-up words, too long for abbreviations; no two documents share any five."""
    draw = random.Random(seed)
    return [" ".join(word(draw) for _ in range(draw.randint(4, 12))).capitalize() + "." for _ in range(count)]


def word(draw: random.Random) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(6, 9)))


def texts(count: int, seed: int = 0) -> list[str]:
    return [" ".join(document(1000 * seed + i)) for i in range(count)]


def write_text(path: Path, documents: list[str]) -> Path:
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def run(given: Path | list[Path], out: Path, **changes: Any) -> dict[str, Any]:
    """Prepare a corpus; return its manifest."""
    options: dict[str, Any] = {"tokenizer": tokenizer(), "workers": 1, "held_out": 0.1, **changes}
    sources = tuple(given) if isinstance(given, list) else (given,)
    result = prepare(PrepareOptions(sources=sources, output=out, **options))
    assert result.folder == out
    return read_manifest(out)


def decoded(corpus: Corpus) -> list[list[str]]:
    """The sentences of every document."""
    found = []
    for shard in corpus.shards:
        texts = [
            corpus.tokenizer.decode(shard.tokens[start:stop].tolist())
            for start, stop in zip(shard.sentences[:-1], shard.sentences[1:], strict=True)
        ]
        found += [texts[a:b] for a, b in zip(shard.documents[:-1], shard.documents[1:], strict=True)]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few documents."""
    monkeypatch.setattr(sources, "_PART", 2000)


# ── from text to examples ──


def test_documents_and_sentences(tmp_path: Path) -> None:
    """Every sentence arrives, in its document, in order; and what is kept back is not trained on."""
    given = [document(i) for i in range(60)]
    manifest = run(write_text(tmp_path / "a.txt", [" ".join(one) for one in given]), tmp_path / "out")
    train, held = (decoded(Corpus(tmp_path / "out", split)) for split in ("train", "held-out"))
    lower = [[sentence.lower() for sentence in one] for one in given]
    assert sorted(train + held) == sorted(lower)
    assert train == [one for one in lower if one in train]
    assert 1 <= len(held) <= 15
    counts = manifest["counts"]
    assert (counts["documents"], counts["sentences"]) == (60, 360)
    assert counts["tokens"] == sum(Corpus(tmp_path / "out", split).tokens for split in ("train", "held-out"))
    assert manifest["sources"][0]["name"] == "a.txt"
    assert not (tmp_path / "out" / ".unfinished").exists()
    batch = PretrainingBatches(Corpus(tmp_path / "out"), 64, 8, pairs="sop").batch(0)
    assert len(batch["pair_labels"]) == 8


def test_all_kinds_of_sources_give_the_same_documents(tmp_path: Path) -> None:
    given = ["\n".join(document(i)) for i in range(12)]
    files = {
        "text.txt": "\n\n\n".join(given),
        "bom.txt": "\ufeff" + "\n \n".join(given),
        "lines.jsonl": "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(given)),
        "wiki_00": "\n".join(
            f'<doc id="{i}" url="u?a=1&amp;b" title="A &amp; &quot;B&quot; {i}">\nA &amp; "B" {i}\n\n{text}\n\n</doc>'
            for i, text in enumerate(given)
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    table = pa.table({"title": [f"{i}" for i in range(12)], "text": given})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=5)
    results = []
    for name in (*files, "table.parquet"):
        run(tmp_path / name, tmp_path / f"out-{name}")
        results.append(decoded(Corpus(tmp_path / f"out-{name}")))
    assert len(results[0]) > 5
    assert all(result == results[0] for result in results)


def test_data_sets_of_the_hub(tmp_path: Path) -> None:
    """`datasets` reads folders as it reads the hub."""
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(20)))
    manifest = run([f"hub:{folder}"], tmp_path / "out")  # type: ignore[list-item]
    assert manifest["counts"]["documents"] == 20
    with pytest.raises(DataError, match="datasets cannot read it"):
        run([f"hub:{tmp_path / 'nothing'}"], tmp_path / "other")  # type: ignore[list-item]


def test_folders(tmp_path: Path) -> None:
    """In the order of names, hidden files left out; the manifest names them without the way there."""
    (tmp_path / "in" / "AA").mkdir(parents=True)
    for i, name in enumerate(("AA/wiki_00", "AA/wiki_01", "b.txt", ".hidden")):
        write_text(tmp_path / "in" / name, texts(4, seed=i + 1))
    manifest = run(tmp_path / "in", tmp_path / "out", held_out=0)
    assert [source["name"] for source in manifest["sources"]] == ["in/AA/wiki_00", "in/AA/wiki_01", "in/b.txt"]
    assert manifest["counts"]["documents"] == 12
    assert manifest["held-out"] == []


def test_a_vocabulary_is_learned(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(40))
    for out in ("a", "b"):
        run(source, tmp_path / out, tokenizer=None, vocab_size=150)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    learned = Corpus(tmp_path / "a").tokenizer
    assert 100 < len(learned) <= 150
    assert learned.unk_token_id not in Corpus(tmp_path / "a").shards[0].tokens


def test_special_tokens_in_the_text_are_text(tmp_path: Path) -> None:
    run(write_text(tmp_path / "a.txt", ["a b [MASK] c d [SEP] e f g h i j k l m"]), tmp_path / "out")
    tokens = Corpus(tmp_path / "out").shards[0].tokens
    assert not set(tokens.tolist()) & {2, 3, 4}


# ── cleaning, sentences, near-duplicates ──


def test_cleaning() -> None:
    words = "one two three four five six seven eight nine"
    assert clean(f"\t{words} \u00a0 ten\r\n\n  12 — 14\n* * *\nmore") == [f"{words} ten", "more"]
    assert clean(words) == []
    assert clean("") == []


def test_sentences_end_where_they_end() -> None:
    assert sentences(["Dr. Smith left at 3.5 p.m. on Jan. 5. He came back.", "A title"], "en") == [
        "Dr. Smith left at 3.5 p.m. on Jan. 5.", "He came back.", "A title",
    ]  # fmt: skip


def test_near_duplicates(tmp_path: Path) -> None:
    """Copies and nearly copies of earlier documents go, however far apart; the first stays, and so do all others."""
    given = texts(50)
    changed = given[7].split()
    changed[len(changed) // 2] = "changed"
    copies = [given[3], " ".join(changed), given[3].upper().replace(".", "!")]
    source = write_text(tmp_path / "a.txt", given + copies)
    for similarity, left in ((0.8, 50), (0.0, 53)):
        manifest = run(source, tmp_path / f"{similarity}", similarity=similarity, held_out=0)
        assert manifest["counts"]["documents"] == left
        assert manifest["counts"]["left_out"] == {"short": 0, "near_duplicates": 53 - left}
    lower = [" ".join(one) for one in decoded(Corpus(tmp_path / "0.8"))]
    assert lower == [one.lower() for one in given]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_similarity_is_jaccard(share: float) -> None:
    """Signatures and bands against the plain definition, on pairs that share a part of their words."""
    draw = random.Random(1)
    pairs = []
    for _ in range(40):
        common = [word(draw) for _ in range(round(share * 400))]
        pairs.append([[*common, *(word(draw) for _ in range(400 - len(common)))] for _ in range(2)])
    flat = [" ".join(words) for pair in pairs for words in pair]
    found = near_duplicates(np.stack([signature([text]) for text in flat]), 0.8)

    def shingles(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    for (a, b), first, second in zip(pairs, found[::2], found[1::2], strict=True):
        jaccard = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
        assert not first
        assert second == (jaccard > 0.8)


# ── the same bytes, whatever happens ──


@pytest.mark.usefixtures("small_parts")
def test_parts_change_nothing_but_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts fall between documents, for every kind of file."""
    given = ["\n".join(document(i)) for i in range(40)]
    write_text(tmp_path / "a.txt", given)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
    (tmp_path / "wiki_00").write_text("".join(f'<doc title="t">\nt\n\n{text}\n</doc>\n' for text in given))
    for name in ("a.txt", "a.jsonl", "wiki_00"):
        for size in (1, 1999, 5000, 10**9):
            monkeypatch.setattr(sources, "_PART", size)
            parts = sources.cut(sources.find_sources([tmp_path / name]))
            assert (len(parts) > 1) == (size < 10**9)
            there = [text.strip() for part in parts for text in sources.read(part)]
            assert there == given


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_workers_change_nothing(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(60))
    run(source, tmp_path / "one", workers=1)
    run(source, tmp_path / "two", workers=2)
    assert len(list((tmp_path / "one").glob("train-*"))) > 3
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


SCRIPT = """
    import sys
    from pathlib import Path
    from pocketbert.corpus import sources
    from pocketbert.corpus.prepare import prepare
    from pocketbert.corpus.prepare_options import PrepareOptions
    sources._PART = 2000
    if __name__ == "__main__":
        source, out, engine, workers = sys.argv[1:]
        prepare(
            PrepareOptions(
                sources=(source,), output=out, vocab_size=150, engine=engine, workers=int(workers), held_out=0.1
            )
        )
"""


@pytest.mark.usefixtures("small_parts")
def test_a_killed_run_continues_to_identical_shards(tmp_path: Path) -> None:
    """SIGKILL in the midst of each phase, one after the other, then to the end."""
    source = write_text(tmp_path / "a.txt", texts(200))
    run(source, tmp_path / "whole", tokenizer=None, vocab_size=150)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(source), str(tmp_path / "killed"), "local", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(sources.__file__).parents[2])}
    for files, count in (("signatures-*", 10), ("vocabulary-*", 1), ("train-*.safetensors", 10)):
        process = subprocess.Popen(command, env=environment)
        while len(list((tmp_path / "killed").rglob(files))) < count:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not list((tmp_path / "killed").glob("manifest*"))
    run(source, tmp_path / "killed", tokenizer=None, vocab_size=150)
    left = contents(tmp_path / "killed")
    there = {name: data for name, data in left.items() if not name.endswith(".tmp")}  # of a file that never was
    assert there == contents(tmp_path / "whole")


def test_a_worker_that_is_killed_is_named() -> None:
    """By the system, where memory is short; here by itself."""
    with pytest.raises(DataError, match=r"worker process was killed, perhaps for lack of memory: .*--workers"):
        list(executors.local_executor(2)(os._exit, [9, 9]))


@pytest.mark.usefixtures("small_parts")
def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_text(tmp_path / "a.txt", texts(40))
    run(source, tmp_path / "out")
    monkeypatch.setattr(executors, "local_executor", lambda workers: pytest.fail("there is nothing to do"))
    assert run(source, tmp_path / "out")["counts"]["documents"] == 40


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """A corpus of many parts takes no more than one of a single part, by far less than its size."""
    draw = np.random.default_rng(0)
    words = np.array(["".join(draw.choice(list(LETTERS), 7)) for _ in range(2000)])
    with (tmp_path / "a.txt").open("w") as file:
        for _ in range(800):
            file.write(" ".join(draw.choice(words, 1500).tolist()) + ".\n\n")
    size = (tmp_path / "a.txt").stat().st_size
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys\n"
        "from pocketbert.corpus import sources\n"
        "from pocketbert.corpus.prepare import prepare\n"
        "from pocketbert.corpus.prepare_options import PrepareOptions\n"
        "sources._PART = 1 << 18\n"
        "options = {'tokenizer': sys.argv[4], 'workers': 1, 'similarity': 0}\n"
        "prepare(PrepareOptions(sources=(sys.argv[1],), output=sys.argv[3], **options))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "prepare(PrepareOptions(sources=(sys.argv[2],), output=sys.argv[5], **options))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    (tmp_path / "small.txt").write_bytes((tmp_path / "a.txt").read_bytes()[: 1 << 18])
    tokenizer_of([*PIECES, *words]).save_pretrained(tmp_path / "tokenizer")
    places = [str(tmp_path / name) for name in ("small.txt", "a.txt", "small", "tokenizer", "out")]
    environment = os.environ | {"PYTHONPATH": str(Path(sources.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, script, *places], env=environment, check=True, capture_output=True, text=True
    )
    assert size > 9e6
    assert int(done.stdout) < 3e6


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_ray_gives_the_same_corpus(tmp_path: Path) -> None:
    """Ray, on this machine, in a process of its own: it talks over sockets."""
    pytest.importorskip("ray")
    source = write_text(tmp_path / "a.txt", texts(60))
    run(source, tmp_path / "local", tokenizer=None, vocab_size=150)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": str(Path(sources.__file__).parents[2])}
    command = [sys.executable, str(script), str(source), str(tmp_path / "ray"), "ray", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")


# ── what is refused ──


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", r"a\.txt: is empty"),
        ("a.txt", b"\n\n \n", "no document has enough text"),
        ("a.txt", b"too short.\n", "no document has enough text"),
        ("a.txt", b"\x1f\x8b\x08", "compressed"),
        ("a.txt", b"text and then\n\0\0\0", "is binary"),
        ("a.txt", b"x " * 70000 + b"\nthen \0\n", r"a\.txt, line 2: is binary"),
        ("a.txt", b"good line\nM\xfcller and so on\n", r"a\.txt, line 2: byte 0xFC is not UTF-8"),
        ("a.csv", b"text\nhello\n", "must be one of"),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', r"a\.jsonl, line 2: is not JSON"),
        ("a.jsonl", b'[{"text": "one"}]\n', "jq"),
        ("a.jsonl", b'{"content": "one"}\n', 'line 1: "text" holds nothing'),
        ("a.jsonl", b'{"text": 3}\n', 'line 1: "text" holds a int'),
        ("a.jsonl", b'{"text": "half \\ud83d"}\n', "an unpaired surrogate"),
        ("a.parquet", b"PAR1 and no more", "is not a Parquet file"),
        ("wiki_00", b'<doc title="A">\nA\n\nSome text of it.\n', "ends within the document 'A'"),
        ("wiki_00", b'<doc title="A">\nA\n\nText.\n<doc title="B">\n', "line 5: a document begins before"),
    ],
)
def test_bad_sources(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        run(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.usefixtures("small_parts")
def test_errors_come_from_workers_as_they_are(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(30))
    with source.open("ab") as file:
        file.write(b"\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        run(source, tmp_path / "out", workers=2)


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["one"]}), path)
    with pytest.raises(DataError, match="has no column 'text'; the columns are: content"):
        run(path, tmp_path / "out")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="has no rows"):
        run(path, tmp_path / "out")
    pq.write_table(pa.table({"text": ["one", None]}), path)
    with pytest.raises(DataError, match='row 2: "text" holds nothing'):
        run(path, tmp_path / "out")
    pq.write_table(pa.table({"text": texts(200)}), path, compression="none")
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged in row group 0"):
        run(path, tmp_path / "out-damaged")


def test_bad_requests(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(5))
    with pytest.raises(ConfigError, match="give either --tokenizer or --vocab-size"):
        run(source, tmp_path / "out", vocab_size=100)
    with pytest.raises(ConfigError, match=r"--held-out 1\.0 must lie in"):
        run(source, tmp_path / "out", held_out=1.0)
    with pytest.raises(ConfigError, match="--seed -1 must not be negative"):
        run(source, tmp_path / "out", seed=-1)
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no files in it"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no sources"):
        run([], tmp_path / "out")


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", texts(20))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        run(source, tmp_path / "full")
    run(source, tmp_path / "out")
    with pytest.raises(DataError, match="started with other options"):
        run(source, tmp_path / "out", held_out=0.2)
    write_text(source, texts(21))
    with pytest.raises(DataError, match="started with other sources"):
        run(source, tmp_path / "out")


def test_a_full_disk(tmp_path: Path) -> None:
    """What could not be written is said, nothing is lost, and the same call goes on from there."""
    source = write_text(tmp_path / "a.txt", texts(300))
    run(source, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            run(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    run(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_documents_in_scripts_without_spaces(tmp_path: Path) -> None:
    draw = random.Random(3)
    documents = ["".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(60)) + "。" for _ in range(12)]
    source = write_text(tmp_path / "zh.txt", [*documents, "太短了。", documents[0][:-6] + "好。"])
    counts = run(source, tmp_path / "zh", tokenizer=None, vocab_size=2000, language="zh", held_out=0)["counts"]
    assert (counts["documents"], counts["left_out"]) == (12, {"short": 1, "near_duplicates": 1})


def test_the_only_document_is_held_out(tmp_path: Path) -> None:
    source = write_text(tmp_path / "one.txt", texts(1))
    seed = next(seed for seed in range(99) if is_held_out(clean(source.read_text()), 0.5, seed))
    with pytest.raises(
        DataError,
        match=r"all 1 documents were assigned to the held-out split .*--held-out 0, or "
        r"another --seed",
    ):
        run(source, tmp_path / "out", held_out=0.5, seed=seed)

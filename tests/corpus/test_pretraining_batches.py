"""Examples and masks: everything in its place, and batch t nothing but a function of the seed and of t."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from helpers.corpora import WORDS, build, documents, tagged, tokenizer
from helpers.tokenizers import SPECIAL
from pocketbert.corpus.corpus import Corpus
from pocketbert.corpus.pretraining_batches import PackedBatch, Pairs, PretrainingBatches, padded
from pocketbert.data.batches import random_words
from pocketbert.errors import ConfigError, DataError
from pocketbert.features import IGNORED
from pocketbert.tokenization import BertTokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
ALL_PAIRS = (None, "sop", "nsp")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(tmp_path_factory.mktemp("corpus"), documents(60, 1), documents(40, 2), documents(1, 3))


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Every token occurs once, in the order of documents and sentences: 40 documents of 10 sentences of 8 tokens."""
    return build(tmp_path_factory.mktemp("counted"), tagged(40)[:25], tagged(40)[25:])


def unmasked(batch: PackedBatch) -> npt.NDArray[np.int64]:
    ids = batch["input_ids"].copy()
    ids[batch["masked_positions"]] = batch["masked_labels"]
    return ids


def examples(batch: PackedBatch) -> list[list[list[int]]]:
    """The segments of every example, as they were before masking; the layout is checked."""
    found = []
    ids = unmasked(batch)
    for start, stop in zip(batch["starts"][:-1], batch["starts"][1:], strict=True):
        one, types = ids[start:stop].tolist(), batch["token_type_ids"][start:stop].tolist()
        assert one[0] == CLS
        assert one[-1] == SEP
        assert batch["position_ids"][start:stop].tolist() == list(range(stop - start))
        ends = [i for i, token in enumerate(one) if token == SEP]
        assert len(ends) <= 2
        assert types == [0] * (ends[0] + 1) + [1] * (len(one) - ends[0] - 1)
        found.append([one[1 : ends[0]]] + ([one[ends[0] + 1 : -1]] if len(ends) == 2 else []))
    return found


def same(one: PackedBatch, other: PackedBatch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def joined(parts: list[PackedBatch]) -> PackedBatch:
    """The batch that shares are of."""
    names = ("input_ids", "token_type_ids", "position_ids", "masked_labels", "pair_labels")
    batch = {name: np.concatenate([part[name] for part in parts]) for name in names if name in parts[0]}
    before = np.cumsum([0, *(len(part["input_ids"]) for part in parts)])
    batch["starts"] = np.concatenate(
        [part["starts"][:-1] + b for part, b in zip(parts, before[:-1], strict=True)] + [before[-1:]]
    )
    batch["masked_positions"] = np.concatenate(
        [part["masked_positions"] + b for part, b in zip(parts, before[:-1], strict=True)]
    )
    return batch


# ── batches as functions of seed and step ──


@pytest.mark.parametrize("pairs", ALL_PAIRS)
@pytest.mark.parametrize("whole_words", [False, True])
def test_batches_depend_on_seed_and_step_alone(corpus: Corpus, pairs: Pairs | None, whole_words: bool) -> None:
    """Not on what was asked before, on another object, nor on how many share."""
    batches = PretrainingBatches(corpus, 64, 13, pairs=pairs, whole_words=whole_words, seed=7)
    forward = [batches.batch(t) for t in range(40)]
    again = PretrainingBatches(Corpus(corpus.folder), 64, 13, pairs=pairs, whole_words=whole_words, seed=7)
    for t in (39, 0, 17, 3):
        assert same(again.batch(t), forward[t])
        for ranks in (1, 2, 3, 13):
            assert same(joined([again.batch(t, rank, ranks) for rank in range(ranks)]), forward[t])
    other = PretrainingBatches(corpus, 64, 13, pairs=pairs, whole_words=whole_words, seed=8)
    assert not any(same(other.batch(t), forward[t]) for t in range(5))
    assert {array.dtype for batch in forward for array in batch.values()} == {np.dtype(np.int64)}


def test_ranks_draw_different_masks(corpus: Corpus) -> None:
    batches = PretrainingBatches(corpus, 64, 24, seed=1)
    masks = []
    for rank in range(4):
        share = batches.batch(0, rank, 4)
        chosen = np.zeros((6, 64), dtype=bool)
        rows = np.searchsorted(share["starts"], share["masked_positions"], side="right") - 1
        chosen[rows, share["masked_positions"] - share["starts"][rows]] = True
        masks.append(chosen)
    assert not any(np.array_equal(masks[a], masks[b]) for a in range(4) for b in range(a))


def test_an_epoch_has_every_example_once_and_new_masks(counted: Corpus) -> None:
    batches = PretrainingBatches(counted, 32, 8, seed=3)
    steps = batches.examples // 8
    assert steps > 5

    def epoch(number: int) -> dict[tuple[int, int], tuple[int, ...]]:
        """Text before masking → what is masked in it."""
        seen = {}
        for k in range(number * batches.examples, (number + 1) * batches.examples):
            batch = batches.batch(k // 8, k % 8, 8)
            ids = unmasked(batch)[1:-1]
            assert len(ids)
            seen[int(ids[0]) // 8, int(ids[-1]) // 8] = tuple(batch["masked_labels"].tolist())
        return seen

    first, second = epoch(0), epoch(1)
    assert len(first) == len(second) == batches.examples  # nothing twice, so nothing left out
    assert sum(first[key] != second.get(key) for key in first) > 0.9 * len(first)


def test_a_batch_may_end_one_epoch_and_begin_the_next(counted: Corpus) -> None:
    batches = PretrainingBatches(counted, 32, 9, seed=3)
    assert batches.examples % 9, "the test needs a batch across the end"
    last = batches.examples // 9
    assert len(batches.batch(last)["starts"]) == 10
    assert same(batches.batch(last), PretrainingBatches(counted, 32, 9, seed=3).batch(last))


def test_random_words_can_be_made_in_parts() -> None:
    whole = random_words(5, "purpose", 9, 64)
    for start in (0, 4, 32, 60):
        assert np.array_equal(random_words(5, "purpose", 9, 64 - start, start), whole[start:])


# ── packing and segments ──


@pytest.mark.parametrize("pairs", ALL_PAIRS)
def test_examples_are_runs_of_one_document(counted: Corpus, pairs: Pairs | None) -> None:
    """With NSP of two: by construction, since every token names its place in the corpus."""
    for length in (8, 9, 31, 64, 500):
        are_runs_of_one_document(counted, length, pairs)


def are_runs_of_one_document(counted: Corpus, length: int, pairs: Pairs | None) -> None:
    batches = PretrainingBatches(counted, length, 16, pairs=pairs, seed=length)
    labels = Counter[int]()
    for t in range(30):
        batch = batches.batch(t)
        for i, segments in enumerate(examples(batch)):
            assert sum(map(len, segments)) + 1 + len(segments) <= length
            for segment in segments:
                assert len(segment)
                assert segment == list(range(segment[0], segment[0] + len(segment)))
                assert (segment[0] - 5) // 80 == (segment[-1] - 5) // 80
            if pairs is None:
                assert len(segments) == 1
                continue
            label = int(batch["pair_labels"][i])
            labels[label] += 1
            if label == IGNORED:
                assert len(segments) == 1
                assert pairs == "sop"
                continue
            a, b = segments
            same_document = (a[0] - 5) // 80 == (b[0] - 5) // 80
            in_order = a[-1] < b[0]
            if pairs == "sop":
                assert same_document
                assert in_order == (label == 0)
            else:
                assert (same_document and in_order) == (label == 0)
                assert same_document == (label == 0)
    if pairs and length >= 31:
        proper = labels[0] + labels[1]
        assert proper > 0.8 * sum(labels.values())
        # Single sentences, closed early or at the end of a document, are always random in NSP.
        assert abs(labels[1] / proper - 0.5) < (0.08 if pairs == "sop" else 0.2)


def test_long_examples_are_full(tmp_path: Path) -> None:
    """Truncation leaves exactly `length` tokens, and takes from both segments only what is longer."""
    corpus = build(tmp_path, [[[7] * 500, [8] * 500], [[9] * 500, [10] * 3]], tagged(5, 40, 20))
    batches = PretrainingBatches(corpus, 64, 8, pairs="sop", seed=0)
    lengths, seen = [], set()
    for t in range(40):
        batch = batches.batch(t)
        lengths += np.diff(batch["starts"]).tolist()
        seen |= {(len(one), one[0][0]) for one in examples(batch) if len(one) == 2}
    assert max(lengths) == 64
    assert np.mean(np.array(lengths) == 64) > 0.6


def test_the_longer_segment_is_cut(tmp_path: Path) -> None:
    corpus = build(tmp_path, [[[7] * 20, [8] * 400], [[9] * 20, [10] * 400]])
    batches = PretrainingBatches(corpus, 64, 1, pairs="sop", seed=0)
    fronts = set()
    for t in range(30):
        (segments,) = examples(batches.batch(t))
        if len(segments) == 2:
            assert sorted(map(len, segments)) == [20, 41]
    counted = build(tmp_path / "b", tagged(2, 2, 300))
    batches = PretrainingBatches(counted, 101, 1, pairs=None, seed=0)
    for t in range(30):
        (segments,) = examples(batches.batch(t))
        fronts.add((segments[0][0] - 5) % 300)
    assert len(fronts) > 10  # the front is cut as well as the end


def test_a_document_of_one_sentence(tmp_path: Path) -> None:
    corpus = build(tmp_path, [[[10 + i, 11 + i, 12 + i]] for i in range(9)])
    plain = PretrainingBatches(corpus, 16, 4).batch(0)
    assert np.diff(plain["starts"]).tolist() == [5] * 4
    sop = PretrainingBatches(corpus, 16, 4, pairs="sop").batch(0)
    assert sop["pair_labels"].tolist() == [IGNORED] * 4
    nsp = PretrainingBatches(corpus, 16, 4, pairs="nsp").batch(0)
    assert nsp["pair_labels"].tolist() == [1] * 4
    assert all(len(one) == 2 and one[0] != one[1] for one in examples(nsp))


def test_short_examples(tmp_path: Path) -> None:
    """A tenth is closed early, wherever that may be."""
    corpus = build(tmp_path, tagged(2, 2000, 1))
    batches = PretrainingBatches(corpus, 34, 1, seed=5)
    lengths = np.concatenate([np.diff(batches.batch(t)["starts"]) for t in range(batches.examples)])
    short = lengths[lengths < 34]
    assert 0.05 < len(short) / len(lengths) < 0.15
    assert len(set(short.tolist())) > 3


# ── masks ──


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks(corpus: Corpus, whole_words: bool) -> None:
    """15 % of each example, 80/10/10; special tokens neither masked nor drawn."""
    batches = PretrainingBatches(corpus, 64, 50, pairs="sop", whole_words=whole_words, seed=11)
    masked = random = kept = total = 0
    drawn = set()
    for t in range(60):
        batch = batches.batch(t)
        places, labels = batch["masked_positions"], batch["masked_labels"]
        assert np.all(np.diff(places) > 0)
        assert np.all(labels >= len(SPECIAL))
        now = batch["input_ids"][places]
        masked += int(np.sum(now == MASK))
        kept += int(np.sum(now == labels))
        other = now[(now != MASK) & (now != labels)]
        random += len(other)
        total += len(now)
        drawn |= set(other.tolist())
        assert np.sum(batch["input_ids"] == MASK) == np.sum(now == MASK)
        rows = np.searchsorted(batch["starts"], places, side="right") - 1
        count = np.bincount(rows, minlength=50)
        lengths = np.diff(batch["starts"])
        wanted = np.minimum(np.maximum(1, np.rint(0.15 * lengths)), lengths - 2)
        assert np.all(count <= wanted) if whole_words else np.all(count == wanted)
    assert total > 10_000
    assert abs(masked / total - 0.8) < 0.015
    assert abs(random / total - 0.1) < 0.012
    assert abs(kept / total - 0.1) < 0.012
    assert min(drawn) >= len(SPECIAL)
    assert max(drawn) < len(SPECIAL) + WORDS
    assert len(drawn) > 0.2 * WORDS


def test_every_place_is_masked_equally_often(tmp_path: Path) -> None:
    corpus = build(tmp_path, [[[7 + 3 * i for i in range(60)]] for _ in range(8)])
    batches = PretrainingBatches(corpus, 22, 8, seed=0)
    counts = np.zeros(22)
    steps = 400
    for t in range(steps):
        batch = batches.batch(t)
        lengths = np.diff(batch["starts"])
        rows = np.searchsorted(batch["starts"], batch["masked_positions"], side="right") - 1
        full = lengths[rows] == 22
        np.add.at(counts, batch["masked_positions"][full] - batch["starts"][rows[full]], 1)
    assert counts[0] == counts[-1] == 0
    inner = counts[1:-1] / counts.sum()
    assert np.all(np.abs(inner - 0.05) < 0.012)


def test_whole_words_stay_whole(corpus: Corpus) -> None:
    """Of every word either all pieces are to be predicted or none, and words of several pieces are among them."""
    vocabulary = tokenizer().get_vocab()
    inner = np.array([token.startswith("##") for token in sorted(vocabulary, key=lambda token: vocabulary[token])])
    batches = PretrainingBatches(corpus, 64, 50, pairs="nsp", whole_words=True, seed=2)
    several = 0
    for t in range(20):
        batch = batches.batch(t)
        ids = unmasked(batch)
        chosen = np.zeros(len(ids), dtype=bool)
        chosen[batch["masked_positions"]] = True
        after_special = np.concatenate([[False], ids[:-1] < len(SPECIAL)])
        follows = inner[ids] & ~after_special
        assert np.array_equal(chosen[1:][follows[1:]], chosen[:-1][follows[1:]])
        several += int(np.sum(chosen & follows))
    assert several > 500


def test_text_of_nothing_but_special_tokens_is_not_masked(tmp_path: Path) -> None:
    batch = PretrainingBatches(build(tmp_path, [[[UNK, UNK, UNK]]]), 16, 1).batch(0)
    assert batch["input_ids"].tolist() == [CLS, UNK, UNK, UNK, SEP]
    assert len(batch["masked_positions"]) == 0


def test_padded(corpus: Corpus) -> None:
    batch = PretrainingBatches(corpus, 64, 10, pairs="sop").batch(2)
    arrays = padded(batch, PAD)
    lengths = np.diff(batch["starts"])
    assert arrays["input_ids"].shape == (10, lengths.max())
    assert arrays["attention_mask"].sum(axis=1).tolist() == lengths.tolist()
    there = arrays["attention_mask"] == 1
    assert np.array_equal(arrays["input_ids"][there], batch["input_ids"])
    assert np.array_equal(arrays["token_type_ids"][there], batch["token_type_ids"])
    assert not arrays["input_ids"][~there].any()
    labels = arrays["labels"][there]
    assert np.array_equal(np.flatnonzero(labels != IGNORED), batch["masked_positions"])
    assert np.array_equal(labels[labels != IGNORED], batch["masked_labels"])
    assert np.array_equal(arrays["pair_labels"], batch["pair_labels"])


# ── what cannot be ──


def test_bad_requests(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use smaller batches"):
        PretrainingBatches(corpus, 64, 10_000)
    with pytest.raises(ConfigError, match="too short"):
        PretrainingBatches(corpus, 7, 4)
    with pytest.raises(ConfigError, match="must be at least 1"):
        PretrainingBatches(corpus, 64, 0)
    with pytest.raises(ConfigError, match="no share"):
        PretrainingBatches(corpus, 64, 4).batch(0, 0, 5)
    with pytest.raises(DataError, match="only one document"):
        PretrainingBatches(build(tmp_path, documents(1)), 16, 1, pairs="nsp")


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pocketbert prepare"):
        Corpus(tmp_path)
    build(tmp_path, documents(20))
    with pytest.raises(DataError, match="held-out"):
        Corpus(tmp_path, "held-out")
    other = BertTokenizer(vocab={token: i for i, token in enumerate((*SPECIAL, "word"))})
    with pytest.raises(DataError, match="another vocabulary"):
        Corpus(tmp_path).check_vocabulary(other)
    other.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="another vocabulary"):
        PretrainingBatches(Corpus(tmp_path), 16, 2)

    manifest = tmp_path / "manifest.json"
    good = manifest.read_text()
    for text, what in (("{", "not JSON"), ("{}", "format None"), ('{"format": 1}', "damaged")):
        manifest.write_text(text)
        with pytest.raises(DataError, match=what):
            Corpus(tmp_path)
    entry = json.loads(good)
    entry["train"][0]["tokens"] += 1
    manifest.write_text(json.dumps(entry))
    with pytest.raises(DataError, match="is not the file"):
        Corpus(tmp_path)


@pytest.mark.parametrize("change", ["flip", "shorten", "replace", "remove"])
def test_shards_that_changed_since_the_manifest(tmp_path: Path, change: str) -> None:
    build(tmp_path, documents(20))
    path = tmp_path / "train-00000.safetensors"
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    elif change == "shorten":
        path.write_bytes(data[: len(data) // 2])
    elif change == "replace":
        path.write_bytes(b"x" * len(data))
        with pytest.raises(DataError, match="train-00000"):
            Corpus(tmp_path, verify=False)
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"train-00000\.safetensors: is"):
        Corpus(tmp_path)

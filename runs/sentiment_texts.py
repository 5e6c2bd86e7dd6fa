"""The labelled texts of the bundled sentiment model: phrases, long texts, altered spellings, texts without opinion.

    python runs/sentiment_texts.py SST2 OUT
    python runs/sentiment_texts.py SST2 OUT CORPUS TEACHER

SST2 has the official train.tsv. The first command divides its phrases: OUT gets sst2.csv, to train a teacher with, and
phrases.csv, 2,000 phrases of other sentences. The second makes the rest, with CORPUS, a folder of Parquet files with a
column `text`, and TEACHER, a model of SST-2's two labels: train.csv, with the labels negative, neutral and positive;
logits.jsonl, the logits for each of its texts; and long.csv, 1,000 long texts of the sentences of phrases.csv, and
altered.csv, its phrases with typing errors.

SST-2 has phrases of 6,900 sentences of film reviews, lower-cased and cut into words. What it lacks is made here:

- half of the phrases are written as people write, with their spaces and contractions mended;
- a long text is a run of sentences of one polarity, among a few of the other and sentences of the corpus without any;
  where both polarities are equal, its label is neutral;
- a sentence of the corpus without a word that is polar in SST-2's short phrases is neutral; one with such words has the
  label of the teacher where that is sure and agrees with them, and is left out otherwise;
- texts with nothing to judge: numbers, addresses, other scripts, and mild opinions;
- in a sixth of all texts, some words have typing errors.

The logits of a short text with an opinion are those that the teacher has for it without typing errors, and `ABSENT` for
neutral, which the teacher does not know; others follow from the label (`SURE_OF_LABEL`).

Everything is drawn with one seed: the same inputs give the same files.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from pocketbert import pipeline
from pocketbert.checkpoints import atomic_write

SEED = 17
HELD_OUT = 2000  # phrases
LONG, LONG_HELD_OUT = 14_000, 1000  # texts
NEUTRAL, FILLERS = 16_000, 4000  # sentences of the corpus without polar words; of these, inside long texts
JUDGED, NOTHING = 8000, 1500  # sentences of the corpus with polar words; texts with nothing to judge
MIXED = 2500  # two short phrases of opposite polarity
TYPING_ERRORS = 1 / 6
POLAR, SURE = 1.0, 0.95  # smoothed log-odds of a word; probability of the teacher
SHORT = 40  # words of a text that the teacher judges
SURE_OF_LABEL, ABSENT = 4.0, -4.0  # logits: of a label, with others at 0; of a label that the teacher lacks
MILD = (
    "It's okay.", "It was fine.", "Not good, not bad.", "It is what it is.", "Average.", "So-so.", "Meh.", "It works.",
    "I have no strong feelings about it.", "Neither here nor there.", "Some parts were good, others were not.",
    "It does the job.", "Could be better, could be worse.", "As expected.", "No complaints, no praise.",
    "Mixed feelings.",    "I'm undecided.", "It's alright, I guess.", "Okay overall.",
    "Fair enough.", "Neutral.", "Nothing to report.",
)  # fmt: skip

Texts = list[tuple[str, str]]  # text, label


def read_phrases(path: Path) -> Texts:
    """Return the distinct phrases of a file of SST-2 with their labels."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return list({row["sentence"].strip(): ("negative", "positive")[int(row["label"])] for row in rows}.items())


def sentence_of(texts: Sequence[str]) -> dict[str, str]:
    """Return for each phrase the longest one that contains it, its sentence."""
    found: dict[str, str] = {}
    roots: list[str] = []
    with_word: dict[str, list[int]] = defaultdict(list)
    for text in sorted(texts, key=lambda one: (-len(one), one)):
        rarest = min((with_word[word] for word in text.split()), key=len)
        inside = (roots[i] for i in rarest if f" {text} " in f" {roots[i]} ")
        found[text] = root = next(inside, text)
        if root == text:
            for word in set(text.split()):
                with_word[word].append(len(roots))
            roots.append(text)
    return found


def word_polarity(phrases: Texts, sentence: dict[str, str]) -> dict[str, float]:
    """Return by word the smoothed log-odds of positive against negative, from phrases of up to four words.

    Of all phrases of a sentence that share a word, one counts: they are nested.
    """
    seen = {
        (word, label, sentence[text])
        for text, label in phrases
        if len(text.split()) <= 4
        for word in re.findall(r"[a-z]{3,}", text)
    }
    counts = {label: Counter(word for word, one, _ in seen if one == label) for label in ("negative", "positive")}
    words = {word for counter in counts.values() for word in counter}
    return {word: math.log((counts["positive"][word] + 1) / (counts["negative"][word] + 1)) for word in words}


def as_written(text: str) -> str:
    """Return a phrase of SST-2 with the spaces and contractions of ordinary text, and a capital."""
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m))\b", r"\1", text)
    text = re.sub(r" ([.,!?;:%)\]])", r"\1", text).replace("( ", "(").replace("`` ", '"').replace(" ''", '"')
    text = re.sub(r"\bi\b", "I", text)
    return text[:1].upper() + text[1:]


def with_errors(text: str, draw: Random) -> str:
    """Return a text with typing errors in about a fifth of its longer words."""

    def mistyped(match: re.Match[str]) -> str:
        word = match.group()
        if draw.random() > 0.2:
            return word
        at = draw.randrange(1, len(word) - 1)
        kind = draw.randrange(4)
        if kind == 0:
            return word[:at] + word[at + 1 :]
        if kind == 1:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if kind == 2:
            return word[:at] + word[at] + word[at:]
        return word[:at] + draw.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]

    return re.sub(r"[A-Za-z]{4,}", mistyped, text)


def corpus_sentences(folder: Path, draw: Random) -> Iterator[str]:
    """Yield sentences of 5 to 40 words, in random order within a part of the corpus."""
    from pyarrow.parquet import read_table

    sentences = []
    for path in sorted(folder.glob("*.parquet")):
        texts = read_table(path, columns=["text"])["text"].to_pylist()
        for text in draw.sample(texts, min(len(texts), 500)):
            paragraphs = text.split("\n")
            for paragraph in draw.sample(paragraphs, min(len(paragraphs), 12)):
                sentences += re.split(r"(?<=[.!?])\s+(?=[A-Z\"'])", paragraph)
    draw.shuffle(sentences)
    return (one for one in sentences if 5 <= len(one.split()) <= 40 and one[-1:] in ".!?\"'")


def long_texts(sentences: Texts, fillers: Sequence[str], count: int, draw: Random) -> Texts:
    """Return texts of about 30 to 350 words with the polarity of most of their sentences that have one."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in sentences:
        by_label[label].append(text)
    texts = []
    for _ in range(count):
        label, other = draw.sample(("negative", "positive"), 2)
        mixed = draw.random() < 0.08
        share, filled = 0.5 if mixed else draw.uniform(0.65, 1.0), draw.uniform(0, 0.6)
        wanted, words, parts = draw.uniform(30, 350), 0, []
        opinions: Counter[str] = Counter()
        while words < wanted or not opinions:
            if draw.random() < filled:
                part = draw.choice(fillers)
            else:
                kind = label if draw.random() < share else other
                part = as_written(draw.choice(by_label[kind]))
                opinions[kind] += 1
            parts.append(part)
            words += len(part.split())
        ahead = opinions[label] - opinions[other]
        if mixed != (abs(ahead) <= 0.1 * sum(opinions.values())):
            continue  # the draw came out otherwise
        texts.append((" ".join(parts), "neutral" if mixed else label if ahead > 0 else other))
    return texts


def with_nothing(count: int, draw: Random) -> Texts:
    """Return texts in which there is nothing to judge."""
    scripts = ((0x430, 0x44F), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0x5D0, 0x5EA), (0x627, 0x64A), (0x3B1, 0x3C9))

    def one() -> str:
        kind = draw.randrange(5)
        if kind == 0:
            return draw.choice(MILD)
        if kind == 1:
            return " ".join(str(draw.randrange(10 ** draw.randrange(1, 7))) for _ in range(draw.randrange(1, 8)))
        if kind == 2:
            first, last = draw.choice(scripts)
            words = (
                "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 9)))
                for _ in range(draw.randint(1, 14))
            )
            return " ".join(words)
        if kind == 3:
            return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz  ") for _ in range(draw.randint(1, 40)))
        return draw.choice((".", "...", "?", "-", "[UNK]", "[UNK] [UNK] [UNK]"))

    return [(one(), "neutral") for _ in range(count)]


def judged(sentences: Iterator[str], polarity: dict[str, float], teacher: str, draw: Random) -> tuple[Texts, Texts]:
    """Return sentences of the corpus without opinion, and those whose opinion teacher and words agree on."""
    neutral: Texts = []
    candidates: list[tuple[str, float]] = []
    for text in sentences:
        found = [polarity.get(word, 0.0) for word in re.findall(r"[a-z]{3,}", text.lower())]
        strong = [value for value in found if abs(value) > POLAR]
        if not any(abs(value) > POLAR for value in found):
            if len(neutral) < NEUTRAL:
                neutral.append((text, "neutral"))
        elif strong and abs(sum(strong)) > 1.5 * POLAR and len(candidates) < 6 * JUDGED:
            candidates.append((text, sum(strong)))
    classify = pipeline("text-classification", teacher)
    opinions: Texts = []
    for (text, words), answer in zip(candidates, classify([text for text, _ in candidates]), strict=True):
        if answer["score"] > SURE and answer["label"] == ("positive" if words > 0 else "negative"):
            opinions.append((text, answer["label"]))
    rarer = min(sum(label == kind for _, label in opinions) for kind in ("negative", "positive"))
    kept = [[one for one in opinions if one[1] == kind][: min(rarer, JUDGED // 2)] for kind in ("negative", "positive")]
    return neutral, kept[0] + kept[1]


def logits_of(texts: Texts, teacher: str) -> list[dict[str, float]]:
    """Return the logits of each text for the three labels."""
    classify = pipeline("text-classification", teacher, top_k=None, function_to_apply="none")
    judged = [text for text, label in texts if label != "neutral" and len(text.split()) <= SHORT]
    found = {
        text: {"neutral": ABSENT} | {one["label"]: one["score"] for one in answer}
        for text, answer in zip(judged, classify(judged), strict=True)
    }
    of_label = {
        label: {one: SURE_OF_LABEL * (one == label) for one in ("negative", "neutral", "positive")}
        for label in ("negative", "neutral", "positive")
    }
    return [found.get(text, of_label[label]) for text, label in texts]


def write(path: Path, texts: Texts) -> None:
    """Write a table with a header."""
    with atomic_write(path, "w") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        rows.writerows(texts)
    counts = Counter(label for _, label in texts)
    print(f"{path}: {len(texts):,} texts; {', '.join(f'{label} {counts[label]:,}' for label in sorted(counts))}")


def main() -> None:
    """Make all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sst2", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("teacher", nargs="?")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    draw = Random(SEED)
    phrases = read_phrases(options.sst2 / "train.tsv")
    sentence = sentence_of([text for text, _ in phrases])
    apart: set[str] = set()
    roots = sorted(set(sentence.values()))
    draw.shuffle(roots)
    of_root = Counter(sentence.values())
    for root in roots:
        if sum(of_root[one] for one in apart) >= HELD_OUT:
            break
        apart.add(root)
    held_out = [one for one in phrases if sentence[one[0]] in apart]
    # A phrase of two sentences belongs to one of them here, but its text is in the other as well.
    texts_apart = {f" {root} " for root in apart}
    train = [one for one in phrases if sentence[one[0]] not in apart]
    train = [one for one in train if len(one[0].split()) <= 2 or not any(f" {one[0]} " in root for root in texts_apart)]
    if options.teacher is None:
        write(options.out / "sst2.csv", train)
        write(options.out / "phrases.csv", held_out)
        return

    neutral, opinions = judged(
        corpus_sentences(options.corpus, draw), word_polarity(train, sentence), options.teacher, draw
    )
    fillers = [text for text, _ in neutral[:FILLERS]]
    others, fillers_apart = [text for text, _ in neutral[FILLERS:-1000]], [text for text, _ in neutral[-1000:]]
    kinds = [
        [one for one in train if one[1] == label and len(one[0].split()) <= 8] for label in ("negative", "positive")
    ]
    mixed: Texts = []
    for _ in range(MIXED):
        pair = [as_written(draw.choice(kind)[0]) for kind in kinds]
        draw.shuffle(pair)
        mixed.append((draw.choice((", ", ". ", " but ", "; ")).join(pair), "neutral"))
    written = [(as_written(text) if draw.random() < 0.5 else text, label) for text, label in train]
    whole = [one for one in train if len(one[0].split()) >= 8]
    for kind, texts in (("without opinion", others), ("judged by the teacher", opinions), ("of two polarities", mixed)):
        print(f"{len(texts):,} texts {kind}")
    everything = (
        written + opinions + [(text, "neutral") for text in others] + mixed + with_nothing(NOTHING, draw)
        + long_texts(whole, fillers, LONG, draw)
    )  # fmt: skip
    stripped = {text.strip(): label for text, label in everything}
    everything = [(text, label) for text, label in stripped.items() if text]
    draw.shuffle(everything)
    logits: dict[str, tuple[str, dict[str, float]]] = {}
    for (text, label), values in zip(everything, logits_of(everything, options.teacher), strict=True):
        logits.setdefault(with_errors(text, draw) if draw.random() < TYPING_ERRORS else text, (label, values))
    write(options.out / "train.csv", [(text, label) for text, (label, _) in logits.items()])
    with atomic_write(options.out / "logits.jsonl", "w") as file:
        for text, (_, values) in logits.items():
            file.write(json.dumps({"text": text, "logits": values}) + "\n")
    write(options.out / "altered.csv", [(with_errors(text, draw), label) for text, label in held_out])
    others_held_out = [one for one in held_out if len(one[0].split()) >= 8]
    write(options.out / "long.csv", long_texts(others_held_out, fillers_apart, LONG_HELD_OUT, draw))


if __name__ == "__main__":
    main()

"""Small tables: `TextClassifier` beside TF-IDF and frozen vectors with logistic regression, and SetFit.

    python benchmarks/small_tables.py DATA --model all-MiniLM-L6-v2 --draws 10 --raw small-tables.jsonl

Every table is drawn anew from the files in DATA, with another seed for each draw, and tested on other texts:

- questions: five articles of SQuAD's train set that a draw chooses; a question is to be given to its article
- articles: sentences of five of Wikipedia's articles; those for training are from the first half of an article
- authors: passages of five public-domain books; training and test passages are from different thirds of a book
- sst-2, cola: GLUE, test on its dev set
- mrpc, rte, sts-b: pairs of GLUE, test on its dev set; of STS-B whether the score is at least 3
- qnli: pairs of GLUE's dev set, as its train set is not needed for so few; a sentence is on one side only
- codah: whether an ending is right; all four endings of a question are on one side

The peers: TF-IDF of words and of pieces of two to five characters inside of words, as its users have it, with logistic
regression; vectors of length 1 with logistic regression and scikit-learn's defaults. They read pairs joined by a space.
`--setfit ENCODER` measures SetFit alone, with its defaults, but for at most `--setfit-steps` steps.

The vector of a text is computed once, by the engine, for all heads. `--timed` draws are the exception: there every
method starts from texts, and frozen vectors are those of sentence-transformers and PyTorch where it is installed.
Seconds are those from the texts of a table to a classifier; encoders of either side are in memory when the clock
starts. `--raw` keeps every measurement, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import write_results
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from pocketbert.bundles import ENCODER
from pocketbert.configs import AutoConfig
from pocketbert.frozen.encoder import FrozenEncoder
from pocketbert.sklearn import TextClassifier
from pocketbert.sklearn.vectors import encoder_of

TEST = 400  # texts of a table's test set at most


class Table(NamedTuple):
    """Texts or pairs of them, and their labels; for training more than are used."""

    train: list[Any]
    train_labels: list[str]
    test: list[Any]
    test_labels: list[str]


def questions(data: Path, random: np.random.Generator) -> Table:
    found = {}
    for article in json.loads((data / "squad/train-v1.1.44articles.json").read_text(encoding="utf-8"))["data"]:
        texts = [qa["question"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
        if len(texts) >= 128:
            found[article["title"]] = texts
    table = Table([], [], [], [])
    for title in map(str, random.choice(sorted(found), 5, replace=False)):
        texts = [found[title][i] for i in random.permutation(len(found[title]))]
        half = len(texts) // 2
        _add(table, texts[:half], texts[half : half + TEST // 5], title)
    return table


def authors(data: Path, random: np.random.Generator) -> Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(min((data / "corpus").glob("books-*.parquet")))
    books = next(file.iter_batches(60, columns=["title", "text"])).to_pylist()
    found = [[line for line in book["text"].split("\n") if 60 < len(line) < 400] for book in books]
    found = [passages for passages in found if len(passages) >= 240]
    table = Table([], [], [], [])
    for number in random.choice(len(found), 5, replace=False):
        passages = found[number]
        third = len(passages) // 3
        early, late = passages[:third], passages[2 * third :]
        early, late = ([part[i] for i in random.permutation(len(part))] for part in (early, late))
        _add(table, early, late[: TEST // 5], str(number))
    return table


def articles(data: Path, random: np.random.Generator) -> Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(min((data / "corpus").glob("wiki-*.parquet")))
    found = []
    for article in next(file.iter_batches(4000, columns=["title", "text"])).to_pylist():
        sentences = [one for one in re.split(r"(?<=[.!?])\s", article["text"]) if 60 < len(one) < 300]
        if len(sentences) >= 128:
            found.append((article["title"], sentences))
    table = Table([], [], [], [])
    for number in random.choice(len(found), 5, replace=False):
        title, sentences = found[number]
        half = len(sentences) // 2
        early, late = sentences[:half], sentences[half:]
        early, late = ([part[i] for i in random.permutation(len(part))] for part in (early, late))
        _add(table, early, late[: TEST // 5], title)
    return table


def _add(table: Table, train: Sequence[Any], test: Sequence[Any], label: str) -> None:
    table.train.extend(train)
    table.train_labels.extend([label] * len(train))
    table.test.extend(test)
    table.test_labels.extend([label] * len(test))


def _glue(
    folder: str, text: Sequence[int], label: Callable[[list[str]], str], header: bool
) -> Callable[[Path, np.random.Generator], Table]:
    def read(data: Path, random: np.random.Generator) -> Table:
        table = Table([], [], [], [])
        for name, texts, labels in (("train", *table[:2]), ("dev", *table[2:])):
            rows = _rows(data / "glue" / folder / f"{name}.tsv")[header:]
            for i in random.permutation(len(rows))[: TEST if name == "dev" else None]:
                texts.append(rows[i][text[0]] if len(text) == 1 else [rows[i][column] for column in text])
                labels.append(label(rows[i]))
        return table

    return read


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for row in rows if len(row) >= len(rows[0])]


def qnli(data: Path, random: np.random.Generator) -> Table:
    rows = _rows(data / "glue/QNLI/dev.tsv")[1:]
    table = Table([], [], [], [])
    sentences = sorted({row[2] for row in rows})
    tested = {sentences[i] for i in random.permutation(len(sentences))[: TEST // 2]}
    for i in random.permutation(len(rows)):
        _, question, sentence, label = rows[i]
        pair = [[question, sentence]]
        _add(table, *(([], pair) if sentence in tested else (pair, [])), label)
    return table._replace(test=table.test[:TEST], test_labels=table.test_labels[:TEST])


def codah(data: Path, random: np.random.Generator) -> Table:
    rows = _rows(data / "multiple_choice/codah.tsv")
    table = Table([], [], [], [])
    for place, i in enumerate(random.permutation(len(rows))):
        right, test = int(rows[i][-1]), place < TEST // 2
        for ending in (right, (right + 1 + int(random.integers(3))) % 4):
            text, label = f"{rows[i][1]} {rows[i][2 + ending]}", str(ending == right)
            _add(table, [] if test else [text], [text] if test else [], label)
    return table


TABLES: dict[str, Callable[[Path, np.random.Generator], Table]] = {
    "questions": questions,
    "articles": articles,
    "authors": authors,
    "sst-2": _glue("SST-2", [0], lambda row: row[1], header=True),
    "cola": _glue("CoLA", [3], lambda row: row[1], header=False),
    "mrpc": _glue("MRPC", [3, 4], lambda row: row[0], header=True),
    "rte": _glue("RTE", [1, 2], lambda row: row[3], header=True),
    "sts-b": _glue("STS-B", [7, 8], lambda row: str(float(row[9]) >= 3), header=True),
    "qnli": qnli,
    "codah": codah,
}


def drawn(table: Table, per_label: int, random: np.random.Generator) -> tuple[list[Any], list[str]]:
    """As many training examples of each label; more are those of fewer, and others."""
    labels = np.array(table.train_labels)
    chosen = [
        i for label in sorted(set(labels)) for i in random.permutation(np.flatnonzero(labels == label))[:per_label]
    ]
    return [table.train[i] for i in chosen], [table.train_labels[i] for i in chosen]


class Memory:
    """The vectors of an encoder, each computed once.

    Args:
        encoder: whose `vectors` is replaced by this.
        path: a file that keeps them.

    Attributes:
        fresh: compute the vectors of texts as if there were none.
    """

    def __init__(self, encoder: FrozenEncoder, path: Path | None) -> None:
        self.compute, self.path, self.fresh = encoder.vectors, path, False
        self.known: dict[str, Any] = {}
        if path is not None and path.exists():
            with np.load(path) as kept:
                self.known = dict(zip(json.loads(str(kept["texts"])), kept["vectors"], strict=True))
        self.kept = len(self.known)
        encoder.vectors = self  # type: ignore[method-assign, assignment]  # what a TextClassifier calls

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """[texts, width]."""
        if self.fresh:
            return self.compute(texts, pairs)
        keys = list(texts) if pairs is None else [f"{one}\0{two}" for one, two in zip(texts, pairs, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        found = self.compute([texts[i] for i in new], None if pairs is None else [pairs[i] for i in new])
        self.known.update(zip((keys[i] for i in new), found, strict=True))
        return np.stack([self.known[key] for key in keys])

    def keep(self) -> None:
        """Write the file, if there is anything new."""
        if self.path is None or len(self.known) == self.kept:
            return
        temporary = self.path.with_suffix(".tmp.npz")
        np.savez(temporary, texts=json.dumps(list(self.known)), vectors=np.stack([*self.known.values()]))
        temporary.replace(self.path)
        self.kept = len(self.known)


class Frozen:
    """Vectors of length 1 and scikit-learn's logistic regression with its defaults; pairs are joined by a space.

    Args:
        vectors: texts → their vectors.
    """

    def __init__(self, vectors: Callable[[list[str]], Any]) -> None:
        self.vectors, self.model = vectors, LogisticRegression(max_iter=1000)

    def fit(self, texts: Sequence[Any], labels: Sequence[str]) -> Frozen:
        """Fit to texts or pairs."""
        self.model.fit(_unit(self.vectors(_joined(texts))), labels)
        return self

    def predict(self, texts: Sequence[Any]) -> Any:
        """Return the labels."""
        return self.model.predict(_unit(self.vectors(_joined(texts))))


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class TfIdf:
    """TF-IDF of words and of pieces of words, and logistic regression; pairs are joined by a space."""

    def __init__(self) -> None:
        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        self.model = make_pipeline(make_union(words, pieces), LogisticRegression(C=10, max_iter=1000))

    def fit(self, texts: Sequence[Any], labels: Sequence[str]) -> TfIdf:
        """Fit to texts or pairs."""
        self.model.fit(_joined(texts), labels)
        return self

    def predict(self, texts: Sequence[Any]) -> Any:
        """Return the labels."""
        return self.model.predict(_joined(texts))


def _joined(texts: Sequence[Any]) -> list[str]:
    return [text if isinstance(text, str) else " ".join(text) for text in texts]


class SetFit:
    """SetFit with its defaults; pairs are joined by a space."""

    def __init__(self, name: str, steps: int) -> None:
        from setfit import SetFitModel

        self.model, self.steps = SetFitModel.from_pretrained(name), steps

    def fit(self, texts: Sequence[Any], labels: Sequence[str]) -> SetFit:
        """Fit to texts or pairs."""
        from datasets import Dataset
        from setfit import Trainer, TrainingArguments

        self.names = sorted(set(labels))
        data = {"text": _joined(texts), "label": [self.names.index(label) for label in labels]}
        usual = self.pairs(len(self.names), len(texts) // len(self.names)) // 16
        arguments = TrainingArguments(
            "setfit", max_steps=self.steps if usual > self.steps else -1, report_to="none", save_strategy="no",
            logging_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        Trainer(model=self.model, args=arguments, train_dataset=Dataset.from_dict(data)).train()
        return self

    @staticmethod
    def pairs(labels: int, each: int) -> int:
        """How many pairs SetFit trains on by default: those with two labels, and as many of one, with repetition."""
        return labels * (labels - 1) * each * each

    def predict(self, texts: Sequence[Any]) -> Any:
        """Return the labels."""
        return [self.names[int(one)] for one in self.model.predict(_joined(texts), show_progress_bar=False)]


def original(name: str) -> Callable[[list[str]], Any] | None:
    """The vectors of sentence-transformers; None where it is not installed or cannot read the model."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    if name == ENCODER or AutoConfig.from_pretrained(name).quantized:
        return None
    model = SentenceTransformer(name, device="cpu")
    return lambda texts: model.encode(texts, show_progress_bar=False)


class Measurement(NamedTuple):
    """One classifier on one table."""

    table: str
    per_label: int
    draw: int
    method: str
    accuracy: float
    seconds: float | None
    """None where vectors were there already."""


def measured(given: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[Measurement]:
    """Yield what is not done yet."""
    memories, makers = list[Memory](), dict[str, Callable[[bool], Any]]()
    if given.setfit is None:
        makers["TF-IDF + logistic regression"] = lambda timed: TfIdf()
        for name in (ENCODER, *given.model):
            path = None if given.vectors is None else given.vectors / f"{Path(name).name}.npz"
            memory = Memory(encoder_of(name, None), path)
            memories.append(memory)
            makers[f"PocketBERT, {Path(name).name}"] = partial(_classifier, name)
            makers[f"logistic regression, {Path(name).name}"] = partial(_frozen, memory, original(name))
    else:
        makers["SetFit"] = lambda timed: SetFit(given.setfit, given.setfit_steps)
    for draw in range(given.draws):
        for name in given.tables:
            timed, table = draw < given.timed, TABLES[name](given.data, np.random.default_rng(draw))
            for memory in memories:
                memory.keep()
            for size in given.sizes:
                texts, labels = drawn(table, size, np.random.default_rng(draw))
                for title, make in makers.items():
                    if (name, size, draw, title) in done:
                        continue
                    model = make(timed)
                    for memory in memories:
                        memory.fresh = timed
                    started = time.perf_counter()
                    model.fit(texts, labels)
                    seconds = time.perf_counter() - started if timed or title[:2] in ("TF", "Se") else None
                    for memory in memories:
                        memory.fresh = False
                    right = np.mean(np.array(model.predict(table.test)) == np.array(table.test_labels))
                    yield Measurement(name, size, draw, title, round(float(right), 5), seconds)


def _classifier(name: str, timed: bool) -> TextClassifier:
    return TextClassifier(name)


def _frozen(memory: Memory, other: Callable[[list[str]], Any] | None, timed: bool) -> Frozen:
    return Frozen(other if timed and other is not None else memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[], help="a further encoder")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--timed", type=int, default=3, help="draws of which seconds are measured")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 32, 64], help="examples per label")
    parser.add_argument("--vectors", type=Path, help="a folder that keeps vectors")
    parser.add_argument("--setfit", help="measure SetFit alone, with this encoder")
    parser.add_argument("--setfit-steps", type=int, default=500)
    parser.add_argument("--raw", type=Path, help="keep every measurement here, and do not repeat those that are here")
    given = parser.parse_args()
    found: list[Measurement] = []
    if given.raw is not None and given.raw.exists():
        found = [Measurement(*json.loads(line)) for line in given.raw.read_text(encoding="utf-8").splitlines()]
    for one in measured(given, {one[:4] for one in found}):
        found.append(one)
        print(*one, sep="\t", flush=True)
        if given.raw is not None:
            with given.raw.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
    rows = []
    for key in dict.fromkeys((one.table, one.per_label, one.method) for one in found):
        those = [one for one in found if (one.table, one.per_label, one.method) == key]
        accuracies, seconds = [one.accuracy for one in those], [one.seconds for one in those if one.seconds is not None]
        rows.append(
            {"table": key[0], "per_label": key[1], "method": key[2], "accuracy": round(statistics.mean(accuracies), 4),
             "deviation": round(statistics.stdev(accuracies), 4) if len(those) > 1 else 0.0,
             "seconds": round(statistics.median(seconds), 3) if seconds else None, "draws": len(those)}
        )  # fmt: skip
    write_results("small-tables", sorted(rows, key=lambda row: (list(TABLES).index(row["table"]), row["per_label"])))


if __name__ == "__main__":
    main()

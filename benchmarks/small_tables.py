"""Small tables: `few_shot` beside TF-IDF and beside frozen vectors of the same encoder, each with logistic regression.

    python benchmarks/small_tables.py DATA --model all-MiniLM-L6-v2 --draws 10

Every table is drawn anew from the files in DATA, with another seed for each draw, and tested on other texts:

- questions: five articles of SQuAD's train set that a draw chooses; a question is to be given to its article
- authors: passages of five public-domain books; training and test passages are from different thirds of a book
- sst-2, cola: GLUE, test on its dev set
- mrpc, rte: pairs of GLUE, test on its dev set
- codah: whether an ending is right; all four endings of a question are on one side

TF-IDF is of words and of pieces of two to five characters inside of words, as its users have it. Frozen vectors are
those of `SentenceTransformer`, of length 1, with scikit-learn's defaults. Encoders of either side are in memory when
the clock starts; seconds are those from the texts of a table to a classifier.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import write_results
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from pocketbert.bundles import ENCODER
from pocketbert.sentences.sentence_transformer import SentenceTransformer
from pocketbert.sklearn import TextClassifier

TEST = 600  # texts of a table's test set at most


class Table(NamedTuple):
    """Texts or pairs of them, and their labels; for training more than are used."""

    train: list[Any]
    train_labels: list[str]
    test: list[Any]
    test_labels: list[str]


def questions(data: Path, random: np.random.Generator) -> Table:
    articles = json.loads((data / "squad/train-v1.1.44articles.json").read_text(encoding="utf-8"))["data"]
    table = Table([], [], [], [])
    for number in random.choice(len(articles), 5, replace=False):
        texts = [qa["question"] for paragraph in articles[number]["paragraphs"] for qa in paragraph["qas"]]
        texts = [texts[i] for i in random.permutation(len(texts))]
        half = len(texts) // 2
        _add(table, texts[:half], texts[half : half + TEST // 5], articles[number]["title"])
    return table


def authors(data: Path, random: np.random.Generator) -> Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(min((data / "corpus").glob("books-*.parquet")))
    books = next(file.iter_batches(60, columns=["title", "text"])).to_pylist()
    books = [book for book in books if len(book["text"]) > 200_000]
    table = Table([], [], [], [])
    for number in random.choice(len(books), 5, replace=False):
        passages = [line for line in books[number]["text"].split("\n") if 60 < len(line) < 400]
        third = len(passages) // 3
        early, late = passages[:third], passages[2 * third :]
        early, late = ([part[i] for i in random.permutation(len(part))] for part in (early, late))
        _add(table, early, late[: TEST // 5], str(number))
    return table


def _add(table: Table, train: Sequence[Any], test: Sequence[Any], label: str) -> None:
    table.train.extend(train)
    table.train_labels.extend([label] * len(train))
    table.test.extend(test)
    table.test_labels.extend([label] * len(test))


def _glue(folder: str, text: Sequence[int], label: int, header: bool) -> Callable[[Path, np.random.Generator], Table]:
    def read(data: Path, random: np.random.Generator) -> Table:
        table = Table([], [], [], [])
        for name, texts, labels in (("train", *table[:2]), ("dev", *table[2:])):
            with (data / "glue" / folder / f"{name}.tsv").open(encoding="utf-8-sig") as file:
                rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[header:]
            for i in random.permutation(len(rows))[: TEST if name == "dev" else None]:
                texts.append(rows[i][text[0]] if len(text) == 1 else [rows[i][column] for column in text])
                labels.append(rows[i][label])
        return table

    return read


def codah(data: Path, random: np.random.Generator) -> Table:
    with (data / "multiple_choice/codah.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    table = Table([], [], [], [])
    for place, i in enumerate(random.permutation(len(rows))):
        right, test = int(rows[i][-1]), place < TEST // 2
        for ending in (right, (right + 1 + int(random.integers(3))) % 4):
            text, label = f"{rows[i][1]} {rows[i][2 + ending]}", str(ending == right)
            _add(table, [] if test else [text], [text] if test else [], label)
    return table


TABLES: dict[str, Callable[[Path, np.random.Generator], Table]] = {
    "questions": questions,
    "authors": authors,
    "sst-2": _glue("SST-2", [0], 1, header=True),
    "cola": _glue("CoLA", [3], 1, header=False),
    "mrpc": _glue("MRPC", [3, 4], 0, header=True),
    "rte": _glue("RTE", [1, 2], 3, header=True),
    "codah": codah,
}


def drawn(table: Table, per_label: int, random: np.random.Generator) -> tuple[list[Any], list[str]]:
    """As many training examples of each label."""
    labels = np.array(table.train_labels)
    chosen = [
        i for label in sorted(set(labels)) for i in random.permutation(np.flatnonzero(labels == label))[:per_label]
    ]
    return [table.train[i] for i in chosen], [table.train_labels[i] for i in chosen]


class Frozen:
    """Frozen vectors and scikit-learn's logistic regression with its defaults; pairs are joined by a space."""

    def __init__(self, encoder: SentenceTransformer) -> None:
        self.encoder, self.model = encoder, LogisticRegression(max_iter=1000)

    def fit(self, texts: Sequence[Any], labels: Sequence[str]) -> Frozen:
        """Fit to texts or pairs."""
        self.model.fit(self.encoder.encode(_joined(texts), normalize_embeddings=True), labels)
        return self

    def predict(self, texts: Sequence[Any]) -> Any:
        """Return the labels."""
        return self.model.predict(self.encoder.encode(_joined(texts), normalize_embeddings=True))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[], help="a further encoder")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 32, 64], help="examples per label")
    given = parser.parse_args()
    makers: dict[str, Callable[[], Any]] = {"TF-IDF + logistic regression": TfIdf}
    for name in [ENCODER, *given.model]:
        title, encoder = Path(name).name, SentenceTransformer(name)
        makers[f"PocketBERT, {title}"] = partial(TextClassifier, name)
        makers[f"logistic regression, {title}"] = partial(Frozen, encoder)
        TextClassifier(name).fit(["a", "b"] * 5, ["x", "y"] * 5)  # loads the encoder
    rows = []
    for name in given.tables:
        found: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for draw in range(given.draws):
            table = TABLES[name](given.data, np.random.default_rng(draw))
            for size in given.sizes:
                texts, labels = drawn(table, size, np.random.default_rng([draw, size]))
                for title, make in makers.items():
                    started = time.perf_counter()
                    model = make().fit(texts, labels)
                    seconds = time.perf_counter() - started
                    right = np.mean(np.array(model.predict(table.test)) == np.array(table.test_labels))
                    found.setdefault((size, title), []).append((float(right), seconds))
        for (size, title), results in found.items():
            accuracies, seconds_of = zip(*results, strict=True)
            spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
            rows.append(
                {"table": name, "per_label": size, "method": title, "accuracy": round(statistics.mean(accuracies), 4),
                 "deviation": round(spread, 4), "seconds": round(statistics.median(seconds_of), 3),
                 "draws": len(results)}
            )  # fmt: skip
            print(*rows[-1].values(), sep="\t", flush=True)
    write_results("small-tables", rows)


if __name__ == "__main__":
    main()

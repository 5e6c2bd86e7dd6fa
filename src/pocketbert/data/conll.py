"""Sentences of tagged words in CoNLL columns: one word per line, its tag in the last column, empty lines between.

Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419. Columns are separated by spaces or tabs, and
lines that begin with -DOCSTART- separate documents. Tags of entities may be in IOB1, IOB2, BIOES or BILOU; tags without
such prefixes, such as parts of speech, are used unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pocketbert.data.examples import Examples
from pocketbert.data.files import opened
from pocketbert.decode import chunks
from pocketbert.errors import DataError

_PREFIXES = frozenset("BIESLU")


class Sentence(NamedTuple):
    """Words, their tags, and the line of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Sentences(Examples[Sentence]):
    """The sentences of one file."""

    @cached_property
    def entities(self) -> bool:
        """Whether the tags mark entities rather than single words."""
        return all(tag == "O" or is_entity(tag) for sentence in self.examples for tag in sentence.tags)

    def tags(self) -> list[str]:
        """Return the tags for training: "O" first, the others sorted; IOB1 as IOB2."""
        tags = {
            tag for sentence in self.examples for tag in (to_iob2(sentence.tags) if self.entities else sentence.tags)
        }
        if self.entities:
            # Both B-MISC and I-MISC, even if only one occurs: without I- an entity could not continue.
            tags |= {f"{prefix}-{tag[2:]}" for tag in tags if tag[0] in "BI" for prefix in "BI"}
        return sorted(tags, key=lambda tag: (tag != "O", tag[2:] if self.entities else tag, tag))


def is_entity(tag: str) -> bool:
    """Return whether a tag is of IOB or BIOES, such as B-PER."""
    return len(tag) > 2 and tag[0] in _PREFIXES and tag[1] == "-"


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Return IOB1 or IOB2 tags as IOB2, in which every entity begins with B; BIOES and BILOU stay unchanged.

    `decode.chunks` returns the same entities before and after.
    """
    if any(tag[0] not in "BIO" for tag in tags):
        return list(tags)
    written = ["O"] * len(tags)
    for kind, start, end in chunks(tags):
        written[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return written


def read_conll(path: str | Path, *, word_column: int = 1, tag_column: int | None = None) -> Sentences:
    """Read sentences of tagged words.

    Args:
        path: a text file of any name.
        word_column: number of the column of words, from 1.
        tag_column: number of the column of tags [default: the last].

    Raises:
        DataError: the file is missing or empty; a line has fewer or more columns than the first; some tags have
            prefixes of entities and others do not.
    """
    path = Path(path)
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    first, columns = 0, 0

    def finish() -> None:
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), first))
            words.clear()
            tags.clear()

    with opened(path), path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            cells = line.split()
            if not cells or cells[0] == "-DOCSTART-":
                finish()
                continue
            if not columns:
                columns = len(cells)
                if not (1 <= word_column <= columns and 1 <= (tag_column or columns) <= columns) or columns < 2:
                    raise DataError(
                        f"{path}, line {number}: has {columns} columns: the word should be in column {word_column} and "
                        f"the tag in column {tag_column or max(columns, 2)} (--text-column, --label-column)"
                    )
            if len(cells) != columns:
                raise DataError(
                    f"{path}, line {number}: has {len(cells)} columns, the first line has {columns}: needed is one "
                    "word per line, with its tag in the last column, and an empty line after each sentence"
                )
            first = first if words else number
            words.append(cells[word_column - 1])
            tags.append(cells[(tag_column or columns) - 1])
        finish()
    result = Sentences(path, sentences)
    if not sentences:
        raise DataError(f"{path}: has no sentences")
    if not result.entities:
        _refuse_mixture(result)
    return result


def _refuse_mixture(sentences: Sentences) -> None:
    examples = {
        is_entity(tag): f"line {sentence.line + i} has {tag!r}"
        for sentence in sentences.examples
        for i, tag in enumerate(sentence.tags)
        if tag != "O"
    }
    entities = any(tag[:2] in ("B-", "I-") for sentence in sentences.examples for tag in sentence.tags)
    if len(examples) == 2 and entities:
        raise DataError(
            f"{sentences.path}: {examples[True]} and {examples[False]}: either all tags but O begin with B- or I- "
            "(E-, S-), or none does"
        )

"""Sentences of tagged words in the columns of CoNLL: a word a line, its tag in the last column, an empty line between.

Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419. Columns are parted by spaces or tabs, and lines
that begin with -DOCSTART- are no words. Tags of entities may be written in IOB1, IOB2, BIOES or BILOU; tags without
such prefixes, as of parts of speech, are taken as they are.
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
    """Words, a tag for each, and the line of the first."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Sentences(Examples[Sentence]):
    """The sentences of one file."""

    @cached_property
    def entities(self) -> bool:
        """Whether the tags mark entities, and not every word for itself. Asked for at every tag, found once."""
        return all(tag == "O" or is_entity(tag) for one in self.examples for tag in one.tags)

    def tags(self) -> list[str]:
        """The tags that a model learns: "O" first, the others sorted; those of IOB1 as IOB2."""
        found = {tag for one in self.examples for tag in (to_iob2(one.tags) if self.entities else one.tags)}
        if self.entities:
            # A model that has never seen B-MISC or I-MISC could not continue what it began.
            found |= {f"{prefix}-{tag[2:]}" for tag in found if tag[0] in "BI" for prefix in "BI"}
        return sorted(found, key=lambda tag: (tag != "O", tag[2:] if self.entities else tag, tag))


def is_entity(tag: str) -> bool:
    """Whether a tag is one of those of IOB or BIOES, such as B-PER."""
    return len(tag) > 2 and tag[0] in _PREFIXES and tag[1] == "-"


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Tags of IOB1 or IOB2 as IOB2, in which every entity begins with B; those of BIOES and BILOU stay.

    What `decode.chunks` finds is the same before and after.
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
        word_column: the number of the column with the words, from 1.
        tag_column: that of the column with the tags; the last one when not given.

    Raises:
        DataError: the file is missing or empty; a line has fewer or more columns than the first; some tags have the
            prefixes of entities and others have not.
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
                        f"{path}, line {number}: has {columns} columns: the word is looked for in column {word_column} "
                        f"and the tag in column {tag_column or max(columns, 2)} (--text-column, --label-column)"
                    )
            if len(cells) != columns:
                raise DataError(
                    f"{path}, line {number}: has {len(cells)} columns, the first line has {columns}: needed is a word "
                    "a line, with its tag in the last column, and an empty line after each sentence"
                )
            first = first if words else number
            words.append(cells[word_column - 1])
            tags.append(cells[(tag_column or columns) - 1])
        finish()
    found = Sentences(path, sentences)
    if not sentences:
        raise DataError(f"{path}: has no sentences")
    if not found.entities:
        _refuse_mixture(found)
    return found


def _refuse_mixture(sentences: Sentences) -> None:
    places = {
        is_entity(tag): f"line {one.line + i} has {tag!r}"
        for one in sentences.examples
        for i, tag in enumerate(one.tags)
        if tag != "O"
    }
    begun = any(tag[:2] in ("B-", "I-") for one in sentences.examples for tag in one.tags)
    if len(places) == 2 and begun:
        raise DataError(
            f"{sentences.path}: {places[True]} and {places[False]}: either all tags but O begin with B- or I- (E-, "
            "S-), or none does"
        )

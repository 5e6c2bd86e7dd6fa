"""Sentences of tagged words in columns: one word per line, its tag in the last column, empty lines between.

Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419. Where lines have tabs, tabs separate the
columns, so that a word may contain spaces; elsewhere spaces do. Lines that begin with -DOCSTART- separate documents. A
line before a sentence that begins with # and has another number of columns than words have is a comment, as in GermEval
and CoNLL-U.

CoNLL-U files (https://universaldependencies.org/format.html) have the word in column 2 and its part of speech in
column 4 unless other columns are named; the lines of multiword tokens (1-2) and of empty words (1.1) are left out.

Tags of entities may be in any scheme of `pocketbert.tags`; tags without prefixes, such as parts of speech, are used
unchanged.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from pocketbert.data.bad_rows import BadRows
from pocketbert.data.examples import Examples
from pocketbert.data.files import opened
from pocketbert.data.formats import not_a_table
from pocketbert.errors import DataError
from pocketbert.tags import OUTSIDE, are_entities, is_typed, respelled, vocabulary

_HEADER = {
    "word", "words", "token", "tokens", "form", "text", "lemma", "tag", "tags", "label", "labels", "ner", "ner_tag",
    "pos", "pos_tag", "upos", "xpos", "chunk", "chunk_tag", "entity", "id",
}  # fmt: skip
_NEEDED = "one word per line, with its tag in the last column, and an empty line after each sentence"
_COMMAS = "save it with tabs, or write a list of words and one of tags for each sentence, in JSON lines or in two cells"
_PAIR = re.compile(r".+[/|]([BIMESLU]-.+|O)")  # a word and its tag


class Sentence(NamedTuple):
    """Words, their tags, and the line of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Sentences(Examples[Sentence]):
    """The sentences of one file."""

    def retagged(self, tags: Mapping[str, str]) -> Self:
        """Return these sentences with other tags."""
        examples = [one._replace(tags=tuple(tags[tag] for tag in one.tags)) for one in self.examples]
        return replace(self, examples=examples)

    @cached_property
    def entities(self) -> bool:
        """Whether the tags mark entities rather than single words."""
        return are_entities(tag for sentence in self.examples for tag in sentence.tags)

    def tags(self) -> list[str]:
        """Return the tags for training: "O" first, the others sorted; IOB1 as IOB2."""
        return vocabulary((sentence.tags for sentence in self.examples), entities=self.entities)


def read_conll(
    path: str | Path,
    *,
    word_column: int | None = None,
    tag_column: int | None = None,
    names: Sequence[str] | None = None,
    known: Collection[str] = (),
    bad: BadRows | None = None,
) -> Sentences:
    """Read sentences of tagged words.

    Args:
        path: a text file of any name.
        word_column: number of the column of words, from 1 [default: the first; the second of CoNLL-U].
        tag_column: number of the column of tags [default: the last; the fourth of CoNLL-U].
        names: the tags that the numbers 0, 1, … stand for.
        known: tags that are used as they are written; others are written B-PER.
        bad: receives lines that cannot be used, whose sentences are left out [default: the first one is an error].

    Raises:
        DataError: the file is missing or empty; a line has fewer or more columns than the others; tags that cannot be
            meant, see `checked`.
    """
    path = Path(path)
    bad = BadRows(path) if bad is None else bad
    with opened(path):
        lines = list(_lines(path))
    # Comments may come first, so the number of columns is that of the first line that cannot be one.
    first = next((line for line in lines if line.cells and not line.cells[0].startswith("#")), None)
    first = first or next((line for line in lines if line.cells), None)
    if first is None:
        raise DataError(f"{path}: has no sentences")
    if first.number == 1 and (problem := not_a_table(" ".join(first.cells))):
        raise DataError(f"{path}: {problem}")
    if {cell.casefold() for cell in first.cells} <= _HEADER and len(first.cells) > 1:
        lines.remove(first)
        first = next((line for line in lines if line.cells), first)
    columns = len(first.cells)
    is_conllu = columns == 10 and first.tabs and re.fullmatch(r"1(-\d+)?", first.cells[0]) is not None
    word = word_column or (2 if is_conllu else 1)
    tag = tag_column or (4 if is_conllu else columns)
    if not (1 <= word <= columns and 1 <= tag <= columns) or columns < 2:
        raise DataError(
            f"{path}, line {first.number}: has {columns} columns: the word should be in column {word} and the tag in "
            f"column {tag_column or max(columns, 2)} (--text-column, --label-column)"
            + (f"; tabs or spaces separate columns, not commas: {_COMMAS}" if "," in first.cells[0] else "")
        )
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    start, broken = 0, False
    for line in [*lines, _Line(0, [], tabs=False)]:
        if not line.cells:
            if words and not broken:
                sentences.append(Sentence(tuple(words), tuple(tags), start))
            words, tags, broken = [], [], False
            continue
        if len(line.cells) != columns or line.tabs != first.tabs:
            if not words and line.cells[0].startswith("#"):
                continue
            problem = f"has {_counted(line)}, line {first.number} has {_counted(first)}"
            if not bad.skip and all("," in "".join(one.cells) for one in lines if one.cells):
                problem = f"seems to have columns separated by commas: {_COMMAS}"
            bad(line.number, f"{problem}: expected {_NEEDED}", line.cells)
            broken = True
            continue
        if is_conllu and not line.cells[0].isdecimal():
            continue
        if not line.cells[word - 1] or not line.cells[tag - 1]:
            bad(line.number, f"column {tag if line.cells[word - 1] else word} is empty", line.cells)
            broken = True
            continue
        start = start if words else line.number
        words.append(line.cells[word - 1])
        tags.append(line.cells[tag - 1])
    bad.check(len(sentences))
    return checked(Sentences(path, sentences, skipped=len(bad.found), bad=tuple(bad.found)), names, known)


class _Line(NamedTuple):
    number: int
    cells: list[str]
    """None of them between sentences."""
    tabs: bool


def _lines(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            text, tabs = line.strip("\r\n"), "\t" in line
            # Not at whatever `str.split` takes for a space: a word may contain a no-break space.
            cells = [cell.strip(" ") for cell in text.split("\t")] if tabs else re.split(" +", text.strip(" "))
            is_break = not text.strip() or cells[0] == "-DOCSTART-"
            yield _Line(number, [] if is_break else cells, tabs)


def _counted(line: _Line) -> str:
    columns = f"{len(line.cells)} column" + "s" * (len(line.cells) != 1)
    return f"{columns} separated by {'tabs' if line.tabs else 'spaces'}" if len(line.cells) > 1 else columns


def checked(sentences: Sentences, names: Sequence[str] | None = None, known: Collection[str] = ()) -> Sentences:
    """Return sentences with their tags in the usual spelling.

    Args:
        sentences: the sentences.
        names: the tags that the numbers 0, 1, … stand for.
        known: tags that are used as they are written.

    Raises:
        DataError: there are none; tags are numbers without names, or belong to words in other ways than one each; or
            some have prefixes of entities and others do not.
    """
    if not sentences.examples:
        raise DataError(f"{sentences.path}: has no sentences")
    written = {tag for sentence in sentences.examples for tag in sentence.tags}
    if not written <= {*known, *(names or ())}:
        if all(map(str.isdecimal, written)):
            sentences = _numbered(sentences, names)
        elif other := respelled(written):
            sentences = sentences.retagged({tag: other.get(tag, tag) for tag in written})
        elif all(_PAIR.fullmatch(tag) for tag in written):
            line = sentences.examples[0].line
            raise DataError(
                f"{sentences.path}, line {line}: holds words with their tags, {min(written)!r:.40}; expected {_NEEDED}"
            )
    if sentences.entities:
        return sentences
    examples = {
        is_typed(tag): f"line {sentence.line + i} has {tag!r}"
        for sentence in sentences.examples
        for i, tag in enumerate(sentence.tags)
        if tag != OUTSIDE
    }
    entities = any(tag[:2] in ("B-", "I-") for sentence in sentences.examples for tag in sentence.tags)
    if len(examples) == 2 and entities:
        raise DataError(
            f"{sentences.path}: {examples[True]} and {examples[False]}: either all tags but O begin with B- or I- "
            "(E-, S-), or none does"
        )
    return sentences


def _numbered(sentences: Sentences, names: Sequence[str] | None) -> Sentences:
    """Return sentences with names in place of numbers; raise `DataError` for numbers without names."""
    count = len(names or ())
    for sentence in sentences.examples:
        for i, tag in enumerate(sentence.tags):
            if int(tag) >= count:
                problem = "a number; name the tags in the order of their numbers (--labels O,B-PER,…)"
                problem = f"and there are {count} tags: {', '.join(names)}" if names else problem
                raise DataError(f"{sentences.path}, line {sentence.line}: tag {i + 1} is {tag}, {problem}")
    return sentences.retagged({str(i): name for i, name in enumerate(names or ())})

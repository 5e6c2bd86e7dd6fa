"""Tags of words, and the entities that they mark, in every usual scheme: IOB1, IOB2, BIOES, BILOU, BMES.

A tag is a prefix and the type of the entity, such as B-PER. "O" alone is outside of all entities; a type may be called
O as well. Data with a single type may leave it out: B, I, O. Tags without a prefix are all type, such as parts of
speech.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
UNTYPED = "_"
"""The name of a type that is left out, in reports and predictions; seqeval calls it so."""

_OPENS, _CLOSES = frozenset("BSU"), frozenset("ESLU")
_PREFIXES = frozenset("BIMESLU")


class Run(NamedTuple):
    """Neighbouring words that belong together: words `start` to `end`, exclusive."""

    type: str | None
    """None outside of all entities, "" where types are left out."""
    start: int
    end: int


def is_typed(tag: str) -> bool:
    """Whether a tag has a prefix and a type, such as B-PER."""
    return len(tag) > 2 and tag[0] in _PREFIXES and tag[1] == "-"


def are_entities(tags: Iterable[str]) -> bool:
    """Whether tags, all of a file or a model, mark entities rather than single words."""
    marks = set(tags) - {OUTSIDE}
    return all(map(is_typed, marks)) or marks <= _PREFIXES


def type_of(tag: str) -> str | None:
    """The type of a tag of an entity; "" where types are left out, None for "O"."""
    return None if tag == OUTSIDE else _parts(tag, untyped=True)[1]


def runs(tags: Sequence[str], *, untyped: bool) -> list[Run]:
    """Divide the tags of a text into runs.

    A run ends where the type changes, before B, S and U, and after E, L, S and U. That reads all schemes alike, and
    types without a prefix; a tag that continues nothing of its type begins an entity, as conlleval has it.

    Args:
        tags: the tags.
        untyped: whether a single letter such as B is a prefix; otherwise it is a type.
    """
    found: list[Run] = []
    closed = True
    for i, tag in enumerate(tags):
        prefix, kind = ("I", None) if tag == OUTSIDE else _parts(tag, untyped=untyped)
        if closed or prefix in _OPENS or kind != found[-1].type:
            found.append(Run(kind, i, i + 1))
        else:
            found[-1] = found[-1]._replace(end=i + 1)
        closed = prefix in _CLOSES
    return found


def chunks(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities of one sentence of tags: type, first word, and the word after the last."""
    return [(run.type, run.start, run.end) for run in runs(tags, untyped=True) if run.type is not None]


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Return the IOB1 or IOB2 tags of a sentence as IOB2, in which every entity begins with B; others unchanged.

    `chunks` returns the same entities before and after.
    """
    if any(tag[0] not in "BIO" for tag in tags):
        return list(tags)
    written = [OUTSIDE] * len(tags)
    for kind, start, end in chunks(tags):
        written[start:end] = [_joined("B", kind), *[_joined("I", kind)] * (end - start - 1)]
    return written


def vocabulary(sentences: Iterable[Sequence[str]], *, entities: bool) -> list[str]:
    """Return the tags that a model needs for sentences: "O" first, the others by type; IOB1 as IOB2.

    Entities get both B and I even if only one occurs: without I an entity could not continue.
    """
    tags = {tag for sentence in sentences for tag in (to_iob2(sentence) if entities else sentence)}
    if not entities:
        return sorted(tags, key=lambda tag: (tag != OUTSIDE, tag))
    for tag in [tag for tag in tags if tag != OUTSIDE and tag[0] in "BI"]:
        tags |= {_joined(prefix, type_of(tag) or "") for prefix in "BI"}
    return sorted(tags, key=lambda tag: (tag != OUTSIDE, type_of(tag) or "", tag))


def respelled(tags: Iterable[str]) -> dict[str, str]:
    """Return tag → usual spelling, for the tags of a file that writes all of them otherwise: B_PER, PER-B, b-per, o."""
    written = set(tags)
    marks = written - {"O", "o"}
    for pattern in _SPELLINGS:
        found = {tag: match for tag in marks if (match := pattern.fullmatch(tag)) is not None}
        if len(found) == len(marks) < len(written) and any(match["prefix"] in "Bb" for match in found.values()):
            usual = {tag: f"{match['prefix'].upper()}-{match['type']}" for tag, match in found.items()} | {"o": "O"}
            return {tag: usual[tag] for tag in written if usual.get(tag, tag) != tag}
    return {}


_SPELLINGS = (
    re.compile(r"(?P<prefix>[BIMESLU])[-_:/|](?P<type>.+)", re.IGNORECASE),
    re.compile(r"(?P<type>.+)[-_:/|](?P<prefix>[BIMESLU])", re.IGNORECASE),
)


def _parts(tag: str, *, untyped: bool) -> tuple[str, str]:
    """Return the prefix and the type of a tag inside; what has no known prefix is all type."""
    if untyped and tag in _PREFIXES:
        return tag, ""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and prefix in _PREFIXES else ("I", tag)


def _joined(prefix: str, kind: str) -> str:
    return f"{prefix}-{kind}" if kind else prefix

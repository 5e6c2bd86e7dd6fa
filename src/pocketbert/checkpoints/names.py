"""The names of tensors: those of the published models, the older ones of their files, and TensorFlow's.

The official names are those of the modules, such as `bert.encoder.layer.0.attention.self.query.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache

from pocketbert.errors import CheckpointError
from pocketbert.families import FAMILIES
from pocketbert.families.original import NameTable, Rule

# ── PyTorch's older names ──

_LEGACY = {"gamma": "weight", "beta": "bias"}  # as TensorFlow calls the two of a layer norm


def mend_names(names: Iterable[str], source: object) -> dict[str, str]:
    """The official name of each tensor → its name in the file; `position_ids`, which are 0, 1, 2, …, are left out.

    What a wrapper has put before all names, such as DataParallel's `module.`, is taken off.

    Raises:
        CheckpointError: two tensors of `source` come to the same name, or a name is not printable.
    """
    names = list(names)
    mended: dict[str, str] = {}
    wrapper = _wrapper(names)
    for name in names:
        if not name.isprintable():
            raise CheckpointError(f"{source} has a tensor with the name {name!r}, which no model uses")
        path, _, leaf = name.removeprefix(wrapper).rpartition(".")
        if leaf == "position_ids":
            continue
        new = f"{path}.{_LEGACY[leaf]}" if path and leaf in _LEGACY else name.removeprefix(wrapper)
        if new in mended:
            raise CheckpointError(f"{source} has {new} twice, once under an older name")
        mended[new] = name
    return mended


def _wrapper(names: Collection[str]) -> str:
    """What all names begin with before the name of an encoder; "" if that is nothing, or there is no encoder."""
    encoders = {"embeddings", *(family.prefix.rstrip(".") for family in FAMILIES.values())}
    wrapper = ""
    while True:
        parts = {name.removeprefix(wrapper).partition(".")[0] for name in names}
        if parts & encoders:
            return wrapper
        if len(parts) != 1 or f"{wrapper}{min(parts)}" in names:
            return ""
        wrapper += f"{parts.pop()}."


def match_names(wanted: Collection[str], names: Collection[str], prefix: str) -> dict[str, str]:
    """Pair the names in a file with those of a model: name in the file → name in the model.

    A file of the encoder lacks the prefix that a model with a head has, and the other way round, so the prefix is
    added or removed where that makes a name of the model. Names of either side that are not in the result have no
    partner.

    Args:
        wanted: the official names of the model's tensors.
        names: the names in the file.
        prefix: of the encoder, `Family.prefix`.
    """
    dotted = prefix.rstrip(".") + "."
    own = set(wanted)
    pairs = {name: name for name in names if name in own}
    taken = set(pairs)
    for name in names:
        other = name.removeprefix(dotted) if name.startswith(dotted) else dotted + name
        if name not in pairs and other in own and other not in taken:
            pairs[name] = other
            taken.add(other)
    return pairs


# ── Keras's names ──

_KERAS_LEAVES = {"kernel": "weight", "embeddings": "weight", **_LEGACY}


def keras_name(path: str) -> tuple[str, bool]:
    """The official name of a Keras variable, by its path below the model, and whether it is stored transposed.

    A path is the official name with slashes, except for Keras's own terms at its end. Files of transformers number
    lists as `layer_._0`, and prefix a part with the attribute that holds it and `___`.
    """
    *parts, leaf = path.removesuffix(":0").split("/")
    official = ".".join(part.rpartition("___")[2].replace("_._", ".") for part in parts)
    return f"{official}.{_KERAS_LEAVES.get(leaf, leaf)}", leaf == "kernel"


# ── TensorFlow's names ──


def name_tables() -> dict[str, NameTable]:
    """The tables of all families by title, those with a marker first."""
    tables = [table for family in FAMILIES.values() if family.original for table in family.original.tables]
    return {table.title: table for table in sorted(tables, key=lambda table: not table.marker)}


_OPTIMIZER_STATE = re.compile(
    r"(^|/)(global_step|adam_[mv]|AdamWeightDecayOptimizer(_1)?|(beta[12]_power)|lamb_[mv])(/|$)"
)


def table_for(names: Iterable[str]) -> str:
    """The title of the table with which the names of a TensorFlow checkpoint are to be read."""
    text = "\n".join(names)
    return next(title for title, table in name_tables().items() if re.search(table.marker, text))


def official_names(names: Collection[str], table: str, source: object = "the checkpoint") -> dict[str, Rule]:
    """For each weight of a TensorFlow checkpoint: its name → both names, and whether it is transposed.

    The state of an optimiser is left out.

    Args:
        names: of the variables in the checkpoint.
        table: title of the table.
        source: of the names, for messages.

    Raises:
        CheckpointError: with every name that the table lacks.
    """
    weights = [name for name in names if not _OPTIMIZER_STATE.search(name)]
    known = {name: rule for name in weights if (rule := _translate(name, table)) is not None}
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise CheckpointError(f"{source} has tensors that are not part of {table.split()[0]}: {', '.join(unknown)}")
    return known


def tensorflow_name(official: str, table: str) -> Rule | None:
    """Both names of an official name, the other way round; None if TensorFlow keeps no such tensor (tied weights)."""
    return _first_match(name_tables()[table].rules, official, "official")


def _translate(name: str, table: str) -> Rule | None:
    return _first_match(name_tables()[table].rules, name, "tensorflow")


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(template)))


def _first_match(rules: Iterable[Rule], name: str, side: str) -> Rule | None:
    """The rule whose template on `side` fits `name`, its numbers filled in."""
    for rule in rules:
        if match := _pattern(getattr(rule, side)).fullmatch(name):
            numbers = match.groupdict()
            return Rule(rule.tensorflow.format(**numbers), rule.official.format(**numbers), rule.transposed)
    return None

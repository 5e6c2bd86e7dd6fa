"""The names of tensors: those of the published models, the older ones of their files, and TensorFlow's.

The official names are those of the modules, such as `bert.encoder.layer.0.attention.self.query.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from pocketbert.errors import CheckpointError

# ── PyTorch's older names ──

_LEGACY = {"gamma": "weight", "beta": "bias"}  # as TensorFlow calls the two of a layer norm


def mend_names(names: Iterable[str], source: object) -> dict[str, str]:
    """The official name of each tensor → its name in the file; `position_ids`, which are 0, 1, 2, …, are left out.

    Raises:
        CheckpointError: two tensors of `source` come to the same name, or a name is not printable.
    """
    mended: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise CheckpointError(f"{source} has a tensor with the name {name!r}, which no model has")
        path, _, leaf = name.rpartition(".")
        if leaf == "position_ids":
            continue
        new = f"{path}.{_LEGACY[leaf]}" if path and leaf in _LEGACY else name
        if new in mended:
            raise CheckpointError(f"{source} has {new} twice, once under an older name")
        mended[new] = name
    return mended


def match_names(wanted: Collection[str], found: Collection[str], prefix: str) -> dict[str, str]:
    """Pair the names in a file with those of a model: name found → name wanted.

    A file of the base model lacks the prefix that a model with a head has, and the other way round, so the prefix is
    put on or taken off where that makes a name the model wants. Names of either side that are not in the result have
    no partner.

    Args:
        wanted: the official names of the model's tensors.
        found: the names in the file.
        prefix: of the base model: `bert`, `transformer` or `mobilebert`.
    """
    dotted = prefix.rstrip(".") + "."
    own = set(wanted)
    pairs = {name: name for name in found if name in own}
    taken = set(pairs)
    for name in found:
        other = name.removeprefix(dotted) if name.startswith(dotted) else dotted + name
        if name not in pairs and other in own and other not in taken:
            pairs[name] = other
            taken.add(other)
    return pairs


# ── Keras's names ──

_KERAS_LEAVES = {"kernel": "weight", "embeddings": "weight", **_LEGACY}


def keras_name(path: str) -> tuple[str, bool]:
    """The official name of a Keras variable, by its path below the model, and whether it lies transposed there.

    A path is the official name with slashes, but for Keras's own words at its end. Files of transformers number lists
    as `layer_._0`, and say in front of `___` which attribute of their class a part is.
    """
    *parts, leaf = path.removesuffix(":0").split("/")
    official = ".".join(part.rpartition("___")[2].replace("_._", ".") for part in parts)
    return f"{official}.{_KERAS_LEAVES.get(leaf, leaf)}", leaf == "kernel"


# ── TensorFlow's names ──


@dataclass(frozen=True)
class Rule:
    """One row of a table: a name in TensorFlow, the official one; `{n}` and `{i}` stand for a number in both."""

    tensorflow: str
    official: str
    transposed: bool = False  # TensorFlow keeps a dense layer's weights as [in, out]


def _dense(tensorflow: str, official: str) -> list[Rule]:
    return [Rule(f"{tensorflow}/kernel", f"{official}.weight", True), Rule(f"{tensorflow}/bias", f"{official}.bias")]


def _norm(tensorflow: str, official: str) -> list[Rule]:
    return [Rule(f"{tensorflow}/gamma", f"{official}.weight"), Rule(f"{tensorflow}/beta", f"{official}.bias")]


def _output(tensorflow: str, official: str) -> list[Rule]:
    """A head in Google's scripts: its weights lie as PyTorch's do."""
    return [Rule(f"{tensorflow}weights", f"{official}.weight"), Rule(f"{tensorflow}bias", f"{official}.bias")]


def _shared_rows(base: str, norm: str) -> list[Rule]:
    """What BERT and MobileBERT both have."""
    layer, official = "bert/encoder/layer_{n}", f"{base}.encoder.layer.{{n}}"
    return [
        *(
            Rule(f"bert/embeddings/{kind}_embeddings", f"{base}.embeddings.{kind}_embeddings.weight")
            for kind in ("word", "token_type", "position")
        ),
        *_norm(f"bert/embeddings/{norm}", f"{base}.embeddings.LayerNorm"),
        *(
            rule
            for part in ("query", "key", "value")
            for rule in _dense(f"{layer}/attention/self/{part}", f"{official}.attention.self.{part}")
        ),
        *_dense(f"{layer}/attention/output/dense", f"{official}.attention.output.dense"),
        *_norm(f"{layer}/attention/output/{norm}", f"{official}.attention.output.LayerNorm"),
        *_dense(f"{layer}/intermediate/dense", f"{official}.intermediate.dense"),
        *_dense(f"{layer}/output/dense", f"{official}.output.dense"),
        *_norm(f"{layer}/output/{norm}", f"{official}.output.LayerNorm"),
        *_dense("bert/pooler/dense", f"{base}.pooler.dense"),
        *_dense("cls/predictions/transform/dense", "cls.predictions.transform.dense"),
        *_norm("cls/predictions/transform/LayerNorm", "cls.predictions.transform.LayerNorm"),
        Rule("cls/predictions/output_bias", "cls.predictions.bias"),
        *_output("cls/seq_relationship/output_", "cls.seq_relationship"),
        *_output("cls/squad/output_", "qa_outputs"),
        *_output("output_", "classifier"),
    ]


def _mobilebert_rows(norm: str) -> list[Rule]:
    layer, official = "bert/encoder/layer_{n}", "mobilebert.encoder.layer.{n}"
    rows = _dense("bert/embeddings/embedding_transformation", "mobilebert.embeddings.embedding_transformation")
    rows += [Rule("cls/predictions/extra_output_weights", "cls.predictions.dense.weight", True)]
    for theirs, ours in (
        ("bottleneck/input", "bottleneck.input"),
        ("bottleneck/attention", "bottleneck.attention"),
        ("output/bottleneck", "output.bottleneck"),
        ("ffn_layer_{i}/output", "ffn.{i}.output"),
    ):
        rows += _dense(f"{layer}/{theirs}/dense", f"{official}.{ours}.dense")
        rows += _norm(f"{layer}/{theirs}/{norm}", f"{official}.{ours}.LayerNorm")
    rows += _dense(f"{layer}/ffn_layer_{{i}}/intermediate/dense", f"{official}.ffn.{{i}}.intermediate.dense")
    return _shared_rows("mobilebert", norm) + rows


#: Google's own code writes these; MobileBERT's norm without statistics is a `FakeLayerNorm` there.
TABLES: dict[str, list[Rule]] = {
    "bert": _shared_rows("bert", "LayerNorm"),
    "mobilebert": _mobilebert_rows("FakeLayerNorm"),
    "mobilebert with layer_norm": _mobilebert_rows("LayerNorm"),
}

# The state of an optimiser beside the weights.
_NO_WEIGHT = re.compile(r"(^|/)(global_step|adam_[mv]|AdamWeightDecayOptimizer(_1)?|(beta[12]_power)|lamb_[mv])(/|$)")


def table_for(names: Iterable[str]) -> str:
    """Which of `TABLES` the names of a TensorFlow checkpoint are to be read with."""
    text = "\n".join(names)
    if "/FakeLayerNorm/" in text:
        return "mobilebert"
    if re.search("/bottleneck/|/ffn_layer_|/embedding_transformation/|extra_output_weights", text):
        return "mobilebert with layer_norm"
    return "bert"


def official_names(names: Collection[str], table: str, source: object = "the checkpoint") -> dict[str, Rule]:
    """For each weight of a TensorFlow checkpoint: its name there → both names, and whether it is transposed.

    What an optimiser keeps is left out.

    Raises:
        CheckpointError: names that the table does not have, all of them.
    """
    weights = [name for name in names if not _NO_WEIGHT.search(name)]
    known = {name: rule for name in weights if (rule := _translate(name, table)) is not None}
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise CheckpointError(f"{source} has tensors that no {table.split()[0]} has: {', '.join(unknown)}")
    return known


def tensorflow_name(official: str, table: str) -> Rule | None:
    """Both names of an official name, the other way round; None if TensorFlow keeps no such tensor (tied weights)."""
    return _first_match(TABLES[table], official, "official")


def _translate(name: str, table: str) -> Rule | None:
    return _first_match(TABLES[table], name, "tensorflow")


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

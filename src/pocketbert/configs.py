"""Configurations of BERT, SqueezeBERT and MobileBERT: every published field, its default, and what is checked.

Fields, defaults and `config.json` follow the published classes of both models, so that a file written here is read
by transformers and the other way round. A configuration is frozen: `replace` makes a changed copy.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pocketbert.errors import CheckpointError, ConfigError

# The tanh form of GELU has three published names; "swish" is the older name of "silu".
ACTIVATIONS = (
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu6", "silu", "swish", "tanh",
)  # fmt: skip
_TUNED = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
    "str | None": (str, type(None)),
    "dict[int, str]": (dict,),
    "dict[str, Any]": (dict,),
}


def _int_keys(labels: Mapping[Any, str]) -> dict[int, str]:
    """`id2label` with whole-number keys, which JSON turns into strings."""
    try:
        return {int(key): str(label) for key, label in labels.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"id2label={labels!r} must map whole numbers to names") from None


@dataclass(frozen=True, kw_only=True)
class PreTrainedConfig:
    """The fields that all three families share.

    Raises `ConfigError`, naming the field and its value, for whatever no model can be built from.
    """

    model_type: ClassVar[str] = ""
    #: Keys of a `config.json` that follow from the fields: what a file says there does not count, except `model_type`.
    derived_keys: ClassVar[frozenset[str]] = frozenset({"model_type", "label2id"})

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    num_labels: int = 0  # 0 in a call means: as many as `id2label` has, or 2 without one
    id2label: dict[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    return_dict: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    #: What `config.json` held beyond the fields above: kept, and written back.
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        self._resolve_labels()
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size"):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            rate = getattr(self, name, None)
            self._check(name, rate is None or 0.0 <= rate < 1.0, "must lie in [0, 1)")
        for name in ("initializer_range", "layer_norm_eps"):
            self._check(name, getattr(self, name) > 0.0, "must be positive")
        self._check("hidden_act", self.hidden_act in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}")
        pad = self.pad_token_id
        self._check(
            "pad_token_id",
            pad is None or 0 <= pad < self.vocab_size,
            f"must be an id below vocab_size={self.vocab_size}",
        )
        problem_types = f"must be one of {', '.join(PROBLEM_TYPES)}"
        self._check("problem_type", self.problem_type in (None, *PROBLEM_TYPES), problem_types)
        if self.problem_type == "single_label_classification":
            self._check(
                "num_labels",
                self.num_labels > 1,
                "must be over 1 for problem_type='single_label_classification'",
            )
        self._check_divides("num_attention_heads", self.attention_width_field)

    @property
    def attention_width_field(self) -> str:
        """Name of the field that the attention heads share out."""
        return "hidden_size"

    def refuse_other_head(self, head: str, source: object) -> None:
        """Raise `CheckpointError` if the file `source` says it was made for another task than `head`.

        Heads of different tasks can have the same names and shapes, so the tensors alone would not tell. `head` is the
        part of a class name after the family.
        """
        for made_for in self.architectures:
            if head in _TUNED and made_for.endswith(tuple(set(_TUNED) - {head})):
                raise CheckpointError(
                    f"{source} holds a {made_for}: needed is a checkpoint fine-tuned for it (a …{head})"
                )

    @property
    def tuned_for(self) -> str | None:
        """The head of a task, the part of a class name after the family, that the weights were saved with, if any."""
        return next((head for name in self.architectures for head in _TUNED if name.endswith(head)), None)

    @property
    def architectures(self) -> list[str]:
        """The classes that the weights beside this `config.json` were saved from, as far as it says so."""
        names = self.extra.get("architectures")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def quantized(self) -> bool:
        """Whether the weights beside this `config.json` are in int8, as `pocketbert quantize` writes them."""
        how = self.extra.get("quantization_config")
        return isinstance(how, dict) and how.get("quant_method") == "pocketbert"

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier: `classifier_dropout` where it exists and is set, else that of the layers."""
        rate: float | None = getattr(self, "classifier_dropout", None)
        return self.hidden_dropout_prob if rate is None else rate

    @property
    def label2id(self) -> dict[str, int]:
        """The inverse of `id2label`."""
        return {label: index for index, label in self.id2label.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`; `num_labels` and `id2label` follow each other unless both are given."""
        if "id2label" in changes:
            changes.setdefault("num_labels", 0)
        elif changes.get("num_labels", self.num_labels) != self.num_labels:
            changes["id2label"] = {}
        unknown = changes.keys() - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the object in a `config.json`; keys that are no fields of this family go into `extra`."""
        found = data.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ConfigError(
                f"model_type={found!r} is not {cls.model_type!r}: {cls.__name__} cannot describe that model"
            )
        fields = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        known = {key: value for key, value in data.items() if key in fields}
        if known.get("id2label") is None:
            known.pop("id2label", None)
        else:
            known["id2label"] = _int_keys(known["id2label"])
        extra = {key: value for key, value in data.items() if key not in fields | cls.derived_keys}
        return cls(**known, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The object that `config.json` holds: fields, what follows from them, and what was there before."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["extra"], values["num_labels"]
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return {**self.extra, "model_type": self.model_type, **values, "label2id": self.label2id}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Self:
        """Read `config.json` of a folder or hub name, then apply `changes`."""
        from pocketbert.checkpoints import read_config

        data = read_config(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls.from_dict(data).replace(**changes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into `folder`, which is made if it is missing."""
        from pocketbert.checkpoints import write_text

        write_text(Path(folder) / "config.json", json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    # ── checks ──

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{type(self).__name__}: {name}={getattr(self, name)!r} {rule}")

    def _check_divides(self, divisor: str, width: str) -> None:
        by, total = getattr(self, divisor), getattr(self, width)
        self._check(divisor, by >= 1 and total % by == 0, f"must divide {width}={total}")

    def _check_types(self) -> None:
        for f in dataclasses.fields(self):
            value, allowed = getattr(self, f.name), _TYPES[str(f.type)]
            is_bool_as_number = isinstance(value, bool) and bool not in allowed
            self._check(f.name, isinstance(value, allowed) and not is_bool_as_number, f"must be of type {f.type}")

    def _resolve_labels(self) -> None:
        self._check("num_labels", self.num_labels >= 0, "must be at least 1")
        labels = _int_keys(self.id2label) or {i: f"LABEL_{i}" for i in range(self.num_labels or 2)}
        self._check("id2label", sorted(labels) == list(range(len(labels))), "must have the keys 0, 1, 2, …")
        self._check("id2label", len(set(labels.values())) == len(labels), "must not name two labels alike")
        count = f"must equal the number of labels in id2label, {len(labels)}"
        self._check("num_labels", self.num_labels in (0, len(labels)), count)
        object.__setattr__(self, "id2label", {i: labels[i] for i in range(len(labels))})
        object.__setattr__(self, "num_labels", len(labels))


@dataclass(frozen=True, kw_only=True)
class BertConfig(PreTrainedConfig):
    """Plain BERT (Devlin et al. 2018), encoder only; the defaults are BERT-base uncased."""

    model_type: ClassVar[str] = "bert"

    classifier_dropout: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        only_supported = {
            "is_decoder": False,
            "add_cross_attention": False,
            "position_embedding_type": "absolute",
            "embedding_size": self.hidden_size,
        }
        for key, only in only_supported.items():
            if self.extra.get(key, only) != only:
                raise ConfigError(f"BertConfig: {key}={self.extra[key]!r} is not supported, only {only!r}")


@dataclass(frozen=True, kw_only=True)
class SqueezeBertConfig(PreTrainedConfig):
    """SqueezeBERT (Iandola et al. 2020): BERT with grouped convolutions of kernel 1 for its linear layers.

    `layer_norm_eps` is that of the embeddings and the MLM head; inside the layers it is fixed at 1e-12, as published.
    """

    model_type: ClassVar[str] = "squeezebert"

    bos_token_id: int | None = None
    eos_token_id: int | None = None
    embedding_size: int = 768
    q_groups: int = 4
    k_groups: int = 4
    v_groups: int = 4
    post_attention_groups: int = 1
    intermediate_groups: int = 4
    output_groups: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            "embedding_size",
            self.embedding_size == self.hidden_size,
            f"must equal hidden_size={self.hidden_size}",
        )
        for groups in (
            "q_groups",
            "k_groups",
            "v_groups",
            "post_attention_groups",
            "intermediate_groups",
            "output_groups",
        ):
            self._check_divides(groups, "hidden_size")
        for groups in ("intermediate_groups", "output_groups"):
            self._check_divides(groups, "intermediate_size")


@dataclass(frozen=True, kw_only=True)
class MobileBertConfig(PreTrainedConfig):
    """MobileBERT (Sun et al. 2020), and IB-BERT, its teacher.

    Query and key are as wide as what they read, so that IB-BERT (512 between the blocks, 1024 inside, no shared
    bottleneck) runs; transformers builds them for the inner width and fails on such a model.
    """

    model_type: ClassVar[str] = "mobilebert"
    derived_keys: ClassVar[frozenset[str]] = PreTrainedConfig.derived_keys | {"true_hidden_size"}

    hidden_size: int = 512
    num_hidden_layers: int = 24
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "relu"
    hidden_dropout_prob: float = 0.0
    embedding_size: int = 128
    trigram_input: bool = True
    use_bottleneck: bool = True
    intra_bottleneck_size: int = 128
    use_bottleneck_attention: bool = False
    key_query_shared_bottleneck: bool = True
    num_feedforward_networks: int = 4
    normalization_type: str = "no_norm"
    classifier_activation: bool = True
    classifier_dropout: float | None = None
    #: Ours: with True, padding cannot leak into the last token through the trigram. The published weights were
    #: trained with the leak, hence False.
    mask_aware_trigram: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("embedding_size", "intra_bottleneck_size", "num_feedforward_networks"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check(
            "normalization_type",
            self.normalization_type in ("no_norm", "layer_norm"),
            "must be no_norm or layer_norm",
        )
        # The MLM head stacks the word embeddings on a matrix of the remaining hidden_size - embedding_size rows.
        self._check(
            "embedding_size",
            self.embedding_size <= self.hidden_size,
            f"must not exceed hidden_size={self.hidden_size}",
        )

    @property
    def true_hidden_size(self) -> int:
        """The width inside a layer: of the bottleneck where there is one."""
        return self.intra_bottleneck_size if self.use_bottleneck else self.hidden_size

    @property
    def attention_width_field(self) -> str:
        """Name of the field that the attention heads share out."""
        return "intra_bottleneck_size" if self.use_bottleneck else "hidden_size"

    def to_dict(self) -> dict[str, Any]:
        """The object that `config.json` holds, `true_hidden_size` included."""
        return {**super().to_dict(), "true_hidden_size": self.true_hidden_size}


CONFIGS: dict[str, type[PreTrainedConfig]] = {
    c.model_type: c for c in (BertConfig, SqueezeBertConfig, MobileBertConfig)
}

_MOBILEBERT = MobileBertConfig(classifier_activation=False)  # the published file says False, the class default is True

#: The published models by name, and the two of the MobileBERT paper that were never released. Sources: the models'
#: config.json files and google-research/mobilebert's configuration files.
PRESETS: dict[str, PreTrainedConfig] = {
    "bert-base-uncased": BertConfig(),
    "squeezebert-uncased": SqueezeBertConfig(vocab_size=30528),  # 30522 padded to a multiple of 8
    "squeezebert-mnli": SqueezeBertConfig(vocab_size=30528, num_labels=3),
    "squeezebert-mnli-headless": SqueezeBertConfig(vocab_size=30528),
    "mobilebert-uncased": _MOBILEBERT,
    "mobilebert-qat": _MOBILEBERT.replace(hidden_act="relu6"),
    "mobilebert-tiny": _MOBILEBERT.replace(
        use_bottleneck_attention=True, key_query_shared_bottleneck=False, num_feedforward_networks=2
    ),
    "ib-bert": MobileBertConfig(
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        intermediate_size=4096,
        intra_bottleneck_size=1024,
        key_query_shared_bottleneck=False,
        num_feedforward_networks=1,
        normalization_type="layer_norm",
    ),
}


class AutoConfig:
    """Picks the configuration class by `model_type`."""

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> PreTrainedConfig:
        """Build the configuration of the family that `data["model_type"]` names."""
        family = data.get("model_type")
        if family not in CONFIGS:
            raise ConfigError(f"model_type={family!r} is not one of {', '.join(CONFIGS)}")
        return CONFIGS[family].from_dict(data)

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> PreTrainedConfig:
        """Read `config.json` of a folder or hub name, then apply `changes`."""
        from pocketbert.checkpoints import read_config

        data = read_config(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return AutoConfig.from_dict(data).replace(**changes)

"""The base of all configurations: fields that every family has, `config.json`, and the checks.

Fields, defaults and `config.json` follow the published classes, so that transformers reads a file that was written here
and the other way round. A configuration is frozen: `replace` makes a changed copy.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pocketbert.arguments import read_loading
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.families.family import HEADS, Dense

# The tanh form of GELU has three published names; "swish" is the older name of "silu".
ACTIVATIONS = (
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu6", "silu", "swish", "tanh",
)  # fmt: skip
_TASK_HEADS = tuple(head.name for head in HEADS.values() if head.task)
NORMAL_EPS = 1e-12
"""Of the layer norm of a normalized input of classifiers."""
CLASSIFIER_INPUTS = ("mean", "cls", "normalized_mean", "normalized_cls")
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


_LABELS = ("num_labels", "id2label", "label2id")


def _with_names(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of a configuration with `id2label` in place of `label2id`."""
    if "label2id" not in changes:
        return changes
    given = changes.pop("label2id")
    try:
        names = {int(index): str(label) for label, index in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"label2id={given!r} must map names to whole numbers") from None
    if len(names) < len(given):
        raise ConfigError(f"label2id={given!r} gives two names one number")
    if "id2label" in changes and _int_keys(changes["id2label"]) != names:
        raise ConfigError(f"label2id={given!r} and id2label={changes['id2label']!r} contradict each other")
    return {**changes, "id2label": names}


#: Keys of published `config.json` files that no family has as a field: they are kept, and change no output, or are
#: refused with their value.
PUBLISHED_KEYS = frozenset(
    {
        "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "name_or_path", "use_cache",
        "is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder",
        "chunk_size_feed_forward", "position_embedding_type", "gradient_checkpointing", "finetuning_task",
        "task_specific_params", "pruned_heads", "torchscript", "use_bfloat16", "tokenizer_class", "prefix",
        "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id",
    }
)  # fmt: skip


class _ConfigType(type):
    """Makes configurations: what no field holds goes into `extra` if it is published, and is refused otherwise."""

    if not TYPE_CHECKING:  # a type checker knows the fields from the classes

        def __call__(cls, *args: Any, **given: Any) -> Any:
            return super().__call__(*args, **_in_fields(cls, given))


def _in_fields(cls: type[PreTrainedConfig], given: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Any:
    """Arguments of a configuration by the names of its fields; `extra` is what the configuration has already."""
    known = {f.name for f in dataclasses.fields(cls)}
    given = {cls.attribute_map.get(name, name): value for name, value in _with_names(dict(given)).items()}
    beside = {name: given.pop(name) for name in sorted(given.keys() & (PUBLISHED_KEYS - known))}
    if given.get("model_type") == cls.model_type:
        del given["model_type"]
    if unknown := given.keys() - known:
        raise ConfigError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    if beside:
        beside = {name: str(one).removeprefix("torch.") if "dtype" in name else one for name, one in beside.items()}
        given["extra"] = {**(given.get("extra", extra) or {}), **beside}
    return given


@dataclass(frozen=True, kw_only=True)
class PreTrainedConfig(metaclass=_ConfigType):
    """The fields of every family, and the names by which shared code reads those that families call differently.

    Shared code reads `hidden_size`, `num_hidden_layers` and the like. A family declares them as fields, as
    `BertFields` does, or names its own fields for them in `attribute_map`.

    Raises `ConfigError`, naming the field and its value, for values that no model can be built from.
    """

    model_type: ClassVar[str] = ""
    #: Keys of a `config.json` that follow from the fields: their values in a file are ignored, except `model_type`.
    derived_keys: ClassVar[frozenset[str]] = frozenset({"model_type", "label2id"})
    #: The names below → the family's own fields, where they differ.
    attribute_map: ClassVar[Mapping[str, str]] = {}

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    num_labels: int = 0  # 0 in a call means: as many as `id2label` has, or 2 without one
    id2label: dict[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    return_dict: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    #: The keys of `config.json` beyond the fields above: kept, and written back.
    extra: dict[str, Any] = field(default_factory=dict)

    # ── names that families spell differently ──

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self._mapped("hidden_size")

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return self._mapped("num_hidden_layers")

    @property
    def num_attention_heads(self) -> int:
        """Attention heads per layer."""
        return self._mapped("num_attention_heads")

    @property
    def intermediate_size(self) -> int:
        """Width inside the feed-forward network."""
        return self._mapped("intermediate_size")

    @property
    def hidden_act(self) -> str:
        """Activation of the feed-forward network, one of `ACTIVATIONS`."""
        return self._mapped("hidden_act")

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout in embeddings and layers."""
        return self._mapped("hidden_dropout_prob")

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout on the attention probabilities."""
        return self._mapped("attention_probs_dropout_prob")

    def _mapped(self, name: str, *default: Any) -> Any:
        """The family's own field for `name`; without one the default."""
        own = self.attribute_map.get(name)
        if own is not None:
            return getattr(self, own)
        for value in default:
            return value
        raise AttributeError(f"{type(self).__name__} has no field {name}, nor is it in attribute_map")

    # ── defaults of a family without such a field ──

    @property
    def type_vocab_size(self) -> int:
        """Number of segment embeddings; 0: none."""
        return self._mapped("type_vocab_size", 0)

    @property
    def layer_norm_eps(self) -> float:
        """Of the norms outside the layers."""
        return self._mapped("layer_norm_eps", 1e-12)

    @property
    def embedding_size(self) -> int:
        """Width of the word embeddings."""
        return self._mapped("embedding_size", self.hidden_size)

    @property
    def classifier_dropout(self) -> float | None:
        """Dropout before a classifier; None: that of the layers."""
        return self._mapped("classifier_dropout", None)

    @property
    def max_tokens(self) -> int:
        """The longest input of the model, in tokens."""
        return self.max_position_embeddings

    @property
    def has_pooler_layer(self) -> bool:
        """Whether the pooler is the family's layer, or the first token's hidden state as it is."""
        return True

    @property
    def classifier_input(self) -> str | None:
        """What a classifier of texts reads: the "mean" of the token vectors, or the first one, "cls", as it is.

        With "normalized_" before it the vector has mean 0 and variance 1, as of a layer norm without weights, so that
        its length, which depends on that of the text, does not count. None: what the family's classifiers read. A head
        on frozen vectors is fitted to one of the others, and is a single linear layer. The key is PocketBERT's own:
        elsewhere such a folder has other answers.
        """
        return self.extra.get("classifier_input")

    def head_layers(self, head: str) -> tuple[Dense, ...]:
        """The layers of a head, a key of `HEADS`, beyond word scores."""
        from pocketbert.families import family_of

        layers = family_of(self).heads[head]
        return layers[-1:] if head == "ForSequenceClassification" and self.classifier_input is not None else layers

    @property
    def reads_padding(self) -> bool:
        """Whether the output for a token can depend on padding beside it, even with an attention mask."""
        return False

    @property
    def details(self) -> list[str]:
        """Phrases that `pocketbert info` adds about the layers."""
        return []

    @property
    def attention_width_field(self) -> str:
        """Name of the field whose value the attention heads divide."""
        return "hidden_size"

    def __post_init__(self) -> None:
        self._check_types()
        self._resolve_labels()
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings"):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            rate = getattr(self, name)
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
        inputs = f"must be one of {', '.join(CLASSIFIER_INPUTS)}"
        self._check("classifier_input", self.classifier_input in (None, *CLASSIFIER_INPUTS), inputs)
        if self.problem_type == "single_label_classification":
            self._check(
                "num_labels",
                self.num_labels > 1,
                "must be over 1 for problem_type='single_label_classification'",
            )
        self._check_divides("num_attention_heads", self.attention_width_field)

    def refuse_other_head(self, head: str, source: object) -> None:
        """Raise `CheckpointError` if `source` was saved for another task than that of `head`, a key of `HEADS`.

        Heads of different tasks can have the same names and shapes, so the tensors alone cannot show it.
        """
        for saved in self.architectures:
            if HEADS[head].task and saved.endswith(tuple(set(_TASK_HEADS) - {head})):
                raise CheckpointError(
                    f"{source} is a {saved}: use a checkpoint that was fine-tuned for this task (a …{head})"
                )

    @property
    def tuned_for(self) -> str | None:
        """The head of a task, a key of `HEADS`, that the weights were saved with, if any."""
        return next((head for name in self.architectures for head in _TASK_HEADS if name.endswith(head)), None)

    @property
    def saved_head(self) -> str:
        """The head, a key of `HEADS`, that the weights were saved with; "Model" if `config.json` names none we know."""
        from pocketbert.families import family_of

        known = family_of(self).heads
        return next((head for name in self.architectures for head in known if name.endswith(head)), "Model")

    @property
    def architectures(self) -> list[str]:
        """The classes that the weights beside this `config.json` were saved from, if it names them."""
        names = self.extra.get("architectures")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def quantized(self) -> bool:
        """Whether the weights beside this `config.json` are in int8, as `pocketbert quantize` writes them."""
        how = self.extra.get("quantization_config")
        return isinstance(how, dict) and how.get("quant_method") == "pocketbert"

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier: `classifier_dropout` if it is set, otherwise that of the layers."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def label2id(self) -> dict[str, int]:
        """The inverse of `id2label`."""
        return {label: index for index, label in self.id2label.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`; changing one of `num_labels`, `id2label` and `label2id` adapts the others."""
        changes = _with_names({k: v for k, v in changes.items() if v is not None or k not in _LABELS})
        if "id2label" in changes:
            changes.setdefault("num_labels", 0)
        elif changes.get("num_labels", self.num_labels) != self.num_labels:
            changes["id2label"] = {}
        return dataclasses.replace(self, **_in_fields(type(self), changes, self.extra))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the object in a `config.json`; keys that this family has no fields for go into `extra`."""
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
        """The object for `config.json`: the fields, values derived from them, and all keys that it had before."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["extra"], values["num_labels"]
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return {**self.extra, "model_type": self.model_type, **values, "label2id": self.label2id}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Self:
        """Read `config.json` of a folder or hub name, then apply `changes`."""
        from pocketbert.checkpoints import read_config
        from pocketbert.checkpoints.hub import hub_token

        name_or_path, token, changes = read_loading(name_or_path, changes)
        with hub_token(token):
            data = read_config(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls.from_dict(data).replace(**changes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into `folder`, which is made if it is missing."""
        from pocketbert.checkpoints import write_text

        write_text(Path(folder) / "config.json", self.to_json_string())

    def to_json_string(self) -> str:
        """The content of `config.json`."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    # ── checks ──

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            own = self.attribute_map.get(name, name)
            raise ConfigError(f"{type(self).__name__}: {own}={getattr(self, name)!r} {rule}")

    def _check_divides(self, divisor: str, width: str) -> None:
        by, total = getattr(self, divisor), getattr(self, width)
        self._check(divisor, by >= 1 and total % by == 0, f"must divide {self.attribute_map.get(width, width)}={total}")

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

"""The base of all TensorFlow classes: published calls, loading and saving under the official names, fitting."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

import keras
import numpy as np
import tensorflow as tf

from pocketbert.arguments import Idle, is_float32, read_loading
from pocketbert.checkpoints import write_tensors
from pocketbert.checkpoints.hub import hub_token
from pocketbert.checkpoints.models import Fit, LoadingInfo, fit_tensors, read_model, save_config
from pocketbert.checkpoints.names import keras_name
from pocketbert.checkpoints.safetensors_files import Tensors
from pocketbert.errors import ConfigError, InputError
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family
from pocketbert.tf.encoder import MainLayer
from pocketbert.tf.layers import Tensor
from pocketbert.tf.outputs import TFBaseModelOutputWithPooling, TFModelOutput

Output = TypeVar("Output", bound=TFModelOutput)


_FLOAT32 = dict.fromkeys(("dtype", "torch_dtype"), Idle(is_float32, "TensorFlow models are float32; leave it out"))


class TFPreTrainedModel(keras.Model):
    """Base of all TensorFlow classes; those of a family set `family` and `main_layer_class`.

    Inputs come as keywords, or packed in the first argument: a dict by name, or a list or tuple in the order of
    `call`. Keras's `fit` takes the labels as `y`, or in such a dict; it minimises the loss given to `compile`, by
    default that of the head.
    """

    family: ClassVar[Family]
    #: Both are those of the family.
    config_class: ClassVar[type[PreTrainedConfig]]
    base_model_prefix: ClassVar[str]
    main_layer_class: ClassVar[type[MainLayer]]
    #: Whether the head looks at the pooler's output.
    reads_pooler: ClassVar[bool] = True
    #: Whether this is the encoder alone, whose files lack its prefix.
    headless: ClassVar[bool] = False
    #: Of the ids of a batch: rows and tokens, or choices between the two.
    axes: ClassVar[int] = 2
    #: The arguments of `call` with the labels.
    label_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **named: Any) -> None:
        """Let Keras find the class by its name in `.keras` files, once `pocketbert.tf` is imported."""
        super().__init_subclass__(**named)
        if "family" in vars(cls):
            cls.config_class, cls.base_model_prefix = cls.family.config_class, cls.family.prefix
        keras.saving.register_keras_serializable("pocketbert")(cls)

    def __init__(self, config: PreTrainedConfig, name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(config, self.config_class):
            wanted = self.config_class.__name__
            raise ConfigError(f"{type(self).__name__} needs a {wanted}, not a {type(config).__name__}")
        if self.compute_dtype != "float32":
            raise ConfigError(
                f"Keras's dtype policy is {self.dtype_policy.name}, but {type(self).__name__} computes in float32: "
                "build it under keras.config.set_dtype_policy('float32')"
            )
        self.config: PreTrainedConfig = config
        main = self.main_layer_class(config, pools=self.reads_pooler, name=self.base_model_prefix)
        setattr(self, self.base_model_prefix, main)
        self.add_head()
        self.build()

    def add_head(self) -> None:
        """Make the layers that read the encoder."""

    def build(self, input_shape: object = None) -> None:
        """Make the variables of encoder and head."""
        for part in self.layers:
            part.build(None)

    @property
    def main_layer(self) -> Any:
        """The encoder, which is also to be had under its official name."""
        return getattr(self, self.base_model_prefix)

    # ── being called ──

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run `call`; see the class for the ways to pass its arguments.

        Raises:
            InputError: both or none of `input_ids` and `inputs_embeds`; no batch of rows; longer than the position
                embeddings; a packed name that is none; outside graphs, an id outside the vocabulary.
        """
        given = self._unpacked(args, named)
        self.main_layer.check(given, self.axes)
        try:
            return super().__call__(**given)
        except tf.errors.InvalidArgumentError:
            if wrong := self.main_layer.ids_outside(given):
                raise InputError(wrong) from None
            raise

    def _unpacked(self, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments by name."""
        names = list(inspect.signature(self.call).parameters)
        # Callers may leave trailing arguments out, also where the first argument is a list of all.
        given = {**dict(zip(names, args, strict=False)), **named}
        packed = given.get("input_ids")
        if isinstance(packed, list | tuple) and len(packed) <= len(names):
            packed = dict(zip(names, packed, strict=False))
        if not isinstance(packed, Mapping):
            return given
        del given["input_ids"]
        if wrong := [str(name) for name in packed if name not in names or name in given]:
            raise InputError(f"packed inputs are some of {', '.join(names)}, each once: not {', '.join(wrong)}")
        return {**packed, **given}

    def encode(
        self, inputs: tuple[Tensor | None, ...], output_attentions: bool | None, output_hidden_states: bool | None
    ) -> TFBaseModelOutputWithPooling:
        """Run the encoder on ids, mask, segments, positions and embeddings; see `MainLayer.call`."""
        output: TFBaseModelOutputWithPooling = self.main_layer(
            *inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states
        )
        return output

    def result(
        self, output: Output, labels: Mapping[str, Tensor | None], return_dict: bool | None
    ) -> Output | tuple[Any, ...]:
        """`output`, with its loss where labels were given, or the tuple of its fields if `return_dict` is False."""
        if labels and all(value is not None for value in labels.values()):
            output = with_loss(output, self.loss_of(output, labels))
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    # ── being fitted ──

    def loss_of(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """The head's own loss of an output, given all of `label_names`: a scalar."""
        raise NotImplementedError

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """What `fit` minimises: the loss given to `compile`, or else the head's own."""
        if self.compiled and self.loss is not None:
            return super().compute_loss(x, self._targets(x, y), scores(y_pred), sample_weight, training)
        labels = self._labels(x, y)
        if labels.keys() != set(self.label_names) or not labels:
            raise InputError(f"to be fitted, {type(self).__name__} needs {' and '.join(self.label_names) or 'a loss'}")
        if sample_weight is not None:
            raise InputError("to weigh samples or classes, give compile() a loss")
        return tf.add_n([self.loss_of(named(y_pred), labels), *self.losses])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics given to `compile`, on the logits."""
        values: dict[str, Any] = super().compute_metrics(x, self._targets(x, y), scores(y_pred), sample_weight)
        return values

    def predict_step(self, data: Any) -> Any:
        """The output for a batch, without the loss."""
        output = super().predict_step(data)
        return with_loss(output, None) if isinstance(output, TFModelOutput) and "loss" in output else output

    def _labels(self, x: Any, y: Any) -> dict[str, Tensor]:
        """The labels by name, from wherever they are."""
        if y is None:
            y = {name: x[name] for name in self.label_names if name in x} if isinstance(x, Mapping) else {}
        if isinstance(y, Mapping):
            return dict(y)
        given = y if isinstance(y, list | tuple) else [y]
        if len(given) > len(self.label_names):
            raise InputError(f"{len(given)} labels were given; this head takes {', '.join(self.label_names)}")
        return dict(zip(self.label_names, given, strict=False))  # `compute_loss` refuses too few

    def _targets(self, x: Any, y: Any) -> Any:
        """The labels as Keras's losses and metrics want them: one, or several in order."""
        labels = list(self._labels(x, y).values())
        return labels[0] if len(labels) == 1 else labels or None

    # ── files ──

    @overload
    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, LoadingInfo]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, output_loading_info: Literal[False] = False, **options: Any
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        config: PreTrainedConfig | str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **config_changes: Any,
    ) -> Self | tuple[Self, LoadingInfo]:
        """Load a model folder or a hub name, written by any framework.

        Arguments and errors are those of the PyTorch classes (`PreTrainedModel.from_pretrained`); `dtype` is float32.
        """
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        name_or_path, token, changes = read_loading(name_or_path, config_changes, _FLOAT32)
        with hub_token(token):
            if isinstance(config, str | Path):
                config = cls.config_class.from_pretrained(config, **where)
            config, tensors = read_model(name_or_path, cls.config_class, config, where, changes)
        model = cls(config)
        fit = model._load(tensors, str(name_or_path), ignore_mismatched_sizes)
        if output_loading_info:
            return model, fit.info
        fit.report(name_or_path)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `config.json`, each in one step: a folder like PyTorch's."""
        tensors = {}
        for name, (variable, transposed) in self._named_weights().items():
            value = variable.numpy()
            tensors[name] = value.T if transposed else value
        write_tensors(Path(folder) / "model.safetensors", tensors)
        save_config(self.config, folder, type(self).__name__.removeprefix("TF"), "float32")

    def get_config(self) -> dict[str, Any]:
        """What Keras keeps of a model beside its weights."""
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: object = None) -> Self:
        """The way back."""
        return cls(cls.config_class.from_dict(config["config"]), name=config["name"])

    def _named_weights(self) -> dict[str, tuple[Any, bool]]:
        """The variables by official name, and whether they lie transposed."""
        named = {}
        for variable in self.weights:
            name, transposed = keras_name(variable.path.removeprefix(f"{self.path}/"))
            named[name.removeprefix(f"{self.base_model_prefix}.") if self.headless else name] = variable, transposed
        return named

    def _load(self, tensors: Tensors, source: str, ignore_mismatched_sizes: bool) -> Fit:
        """Copy the tensors that fit, refuse unknown ones; parameters that the file may lack stay random."""
        own = self._named_weights()
        shapes = {name: list(reversed(v.shape)) if turned else list(v.shape) for name, (v, turned) in own.items()}
        tied = self.config.tie_word_embeddings
        words = self.family.words
        if tied and words is not None and words.bias in own:
            table = f"{self.base_model_prefix}.{self.family.word_table}"
            shapes |= dict(zip(words.tied, (shapes[table], shapes[words.bias]), strict=False))
        fit = fit_tensors(
            shapes,
            tensors,
            self.family,
            tied=tied,
            model=type(self).__name__,
            source=source,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        for name, stored in fit.taken.items():
            if name in own:  # tied tensors exist once
                variable, transposed = own[name]
                variable.assign(np.ascontiguousarray(tensors[stored].T if transposed else tensors[stored]))
        return fit


def with_loss(output: Output, loss: Tensor | None) -> Output:
    """A copy of a head's output with this loss."""
    fields: dict[str, Any] = {"loss": loss}
    return replace(output, **fields)


def named(output: Any) -> TFModelOutput:
    """The output of a model, by name."""
    if not isinstance(output, TFModelOutput):
        raise ConfigError("return_dict=False: fit and evaluate need the outputs by name, so leave it True")
    return output


def scores(output: Any) -> Any:
    """The logits in an output, one or several, for Keras's losses and metrics."""
    logits = [value for name, value in named(output).items() if name.endswith("logits")]
    return logits[0] if len(logits) == 1 else logits

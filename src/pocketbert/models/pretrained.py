"""The base of all model classes: loading and saving under the official names, resizing, gradient checkpointing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pocketbert.arguments import read_loading
from pocketbert.checkpoints import atomic_write
from pocketbert.checkpoints.hub import hub_token
from pocketbert.checkpoints.models import Fit, LoadingInfo, fit_tensors, read_model, save_config
from pocketbert.errors import ConfigError, InputError
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family
from pocketbert.models.ops import MeanToken, Packing, init_parameters, keep_mask
from pocketbert.models.tensor_files import serialise
from pocketbert.outputs import BaseModelOutputWithPooling, ModelOutput

Output = TypeVar("Output", bound=ModelOutput)


class PreTrainedModel(nn.Module):
    """Base of all model classes; those of a family set `family`."""

    family: ClassVar[Family]
    #: Both are those of the family.
    config_class: ClassVar[type[PreTrainedConfig]]
    base_model_prefix: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        """Take over the configuration class and the encoder's name from the family."""
        super().__init_subclass__(**options)
        if "family" in vars(cls):
            cls.config_class, cls.base_model_prefix = cls.family.config_class, cls.family.prefix

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            wanted = self.config_class.__name__
            raise ConfigError(f"{type(self).__name__} needs a {wanted}, not a {type(config).__name__}")
        self.config: PreTrainedConfig = config

    # ── properties ──

    @property
    def base_model(self) -> EncoderModel:
        """The encoder: of a headed model its `base_model_prefix`, of an encoder itself."""
        encoder = getattr(self, self.base_model_prefix, self)
        assert isinstance(encoder, EncoderModel)
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype

    def num_parameters(self) -> int:
        """Number of weights, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings [V, E]."""
        table = self.base_model.get_submodule(self.family.word_table.removesuffix(".weight"))
        assert isinstance(table, nn.Embedding)
        return table

    def tie_weights(self) -> None:
        """Share the parameters that the head has in common with the encoder; only word scores do."""

    # ── training ──

    def gradient_checkpointing_enable(self) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again: less memory, more time."""
        self.base_model.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything for the backward pass again."""
        self.base_model.gradient_checkpointing = False

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Give the vocabulary `new_num_tokens` rows: the first ones stay, added ones are drawn as at initialisation.

        Returns:
            The new word embeddings [new_num_tokens, E].
        """
        base, old = self.base_model, self.get_input_embeddings()
        self.config = base.config = self.config.replace(vocab_size=new_num_tokens)
        new = nn.Embedding(new_num_tokens, old.embedding_dim, old.padding_idx, device=old.weight.device)
        new.weight = resized(old.weight, new_num_tokens, 0, self.config.initializer_range)
        path, _, name = self.family.word_table.removesuffix(".weight").rpartition(".")
        setattr(base.get_submodule(path), name, new)
        return new

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
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **config_changes: Any,
    ) -> Self | tuple[Self, LoadingInfo]:
        """Load a model folder or a hub name, in evaluation mode.

        Args:
            name_or_path: a folder in Hugging Face layout, or a name on the hub.
            config: used instead of the folder's `config.json`; or the folder or hub name of such a file.
            revision: a branch, tag or commit on the hub.
            cache_dir: where downloads are kept, instead of the hub's default.
            local_files_only: never download.
            dtype: type of the parameters, whatever the file's, also by its name; "auto" is what `config.json` states.
                Default: float32.
            torch_dtype: an older name of `dtype`.
            ignore_mismatched_sizes: initialise a head randomly where its shape differs from the file's (another number
                of labels); the encoder must always fit.
            output_loading_info: also return which parameters were initialised randomly and which tensors of the file
                were not used, instead of logging it.
            **config_changes: fields of the configuration to change, as `num_labels=3`; and arguments of transformers
                that choose nothing here, as `arguments.FROM_PRETRAINED` lists them.

        Raises:
            InputError: an argument that cannot be meant.
            CheckpointError: a file is missing or damaged, does not fit this model (lists every name), or is quantised.
            ConfigError: `config.json` is of another family, or cannot be built.
        """
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        name_or_path, token, changes = read_loading(name_or_path, config_changes)
        with hub_token(token):
            if isinstance(config, str | Path):
                config = cls.config_class.from_pretrained(config, **where)
            config, tensors = read_model(name_or_path, cls.config_class, config, where, changes)
        kind = read_dtype(torch_dtype if dtype is None else dtype, config)
        with torch.device("meta"):  # neither memory nor random numbers for parameters that the file fills
            model = cls(config)
        model = model.to(kind).to_empty(device="cpu")
        model.tie_weights()
        fit = model._load(tensors, str(name_or_path), ignore_mismatched_sizes)
        model.eval()
        if output_loading_info:
            return model, fit.info
        fit.report(name_or_path)
        return model

    def save_pretrained(self, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write `model.safetensors` and `config.json`, each in one step; transformers loads the folder as it is.

        `state_dict` takes the place of the model's own, where its weights are divided among processes.
        """
        tensors = {name: t.detach().cpu().contiguous() for name, t in (state_dict or self.state_dict()).items()}
        if self.config.tie_word_embeddings:
            tensors = {name: t for name, t in tensors.items() if name not in self.family.tied}
        with atomic_write(Path(folder) / "model.safetensors") as file:
            file.writelines(serialise(tensors))
        save_config(self.config, folder, type(self).__name__, str(self.dtype).removeprefix("torch."))

    def _load(self, tensors: Mapping[str, np.ndarray], source: str, ignore_mismatched_sizes: bool) -> Fit:
        """Copy the tensors that fit; initialise those that the file may lack; refuse the rest."""
        own = dict(self.named_parameters(remove_duplicate=False))
        fit = fit_tensors(
            {name: parameter.shape for name, parameter in own.items()},
            tensors,
            self.family,
            tied=self.config.tie_word_embeddings,
            model=type(self).__name__,
            source=source,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        with torch.no_grad():
            for name, stored in fit.taken.items():
                own[name].copy_(torch.from_numpy(np.ascontiguousarray(tensors[stored])))
        init_parameters(self, self.config.initializer_range, fit.fresh)
        return fit


class EncoderModel(PreTrainedModel):
    """Embeddings, then layers, then the pooler: the pass that all families share.

    A family's class sets `embeddings`, `pooler`, and its layers under the path `family.layers`.
    """

    embeddings: nn.Module
    pooler: nn.Module | None
    gradient_checkpointing = False

    @property
    def layers(self) -> list[nn.Module]:
        """The layers: each maps (hidden, keep, with_weights) to (hidden, probabilities or None)."""
        return list(self.get_submodule(self.family.layers).children())

    def shared_by_layers(self, length: int) -> tuple[Tensor, ...]:
        """What every layer takes besides, for examples of at most `length` tokens."""
        return ()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | Packing | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode a batch.

        Args:
            input_ids: [B, S], ids of the vocabulary; or pass `inputs_embeds`.
            attention_mask: [B, S] (or [B, S, S], or four axes), nonzero where attention may look; all by default.
                A `Packing` if the batch is one row of examples laid end to end.
            token_type_ids: [B, S], 0 by default.
            position_ids: [B, S] or [1, S], 0 to S-1 by default.
            inputs_embeds: [B, S, E], in place of the word embeddings only.
            output_attentions: return the probabilities of every layer (true probabilities in all three families;
                transformers' SqueezeBERT returns the scores before the softmax).
            output_hidden_states: return the input of every layer and the last output.
            return_dict: False for a plain tuple. These three default to the configuration.

        Raises:
            InputError: both or none of `input_ids` and `inputs_embeds`; no batch of rows; longer than the position
                embeddings; an id outside the vocabulary.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise InputError("pass exactly one of input_ids and inputs_embeds")
        if given.dim() != (3 if input_ids is None else 2):
            raise InputError(f"a batch is input_ids [B, S] or inputs_embeds [B, S, E], not {list(given.shape)}")
        packing = attention_mask if isinstance(attention_mask, Packing) else None
        length = given.size(1) if packing is None else packing.real.size(1)
        if length > (limit := self.config.max_tokens):
            raise InputError(f"{length} tokens are more than the {limit} that the model reads: truncate the text")
        with_weights = self.config.output_attentions if output_attentions is None else output_attentions
        with_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states

        hidden = self.embed(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)  # [B, S, H]
        keep = keep_mask(attention_mask) if isinstance(attention_mask, Tensor) else packing
        shared = self.shared_by_layers(length)
        states, weights = [hidden], []
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden, probabilities = checkpoint(layer, hidden, keep, with_weights, *shared, use_reentrant=False)
            else:
                hidden, probabilities = layer(hidden, keep, with_weights, *shared)
            states.append(hidden)
            weights.append(probabilities)

        if isinstance(self.pooler, MeanToken):
            pooled = self.pooler(hidden, attention_mask)
        else:  # a pooler reads the first token of each row: of packed examples, [examples, 1, H]
            firsts = hidden if packing is None else hidden[0, packing.starts[:-1], None]
            pooled = None if self.pooler is None else self.pooler(firsts)
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=tuple(states) if with_states else None,
            attentions=tuple(weights) if with_weights else None,
        )
        return as_requested(output, self.config, return_dict)

    def embed(self, input_ids: Tensor | None, attention_mask: Tensor | Packing | None, *rest: Tensor | None) -> Tensor:
        """What the first layer reads, [B, S, H]: of ids, their mask, segments, positions, or word embeddings."""
        try:
            return self.embeddings(input_ids, attention_mask, *rest)
        except IndexError:  # CPU only: on a GPU the kernel itself stops
            sizes = {"input_ids": self.config.vocab_size, "token_type_ids": self.config.type_vocab_size,
                     "position_ids": self.config.max_position_embeddings}  # fmt: skip
            given = {"input_ids": input_ids, "token_type_ids": rest[0], "position_ids": rest[1]}
            wrong = [
                f"{name} from {ids.min()} to {ids.max()} do not fit a table of {size} rows"
                for name, size in sizes.items()
                if size and (ids := given[name]) is not None and ids.numel() and (ids.min() < 0 or ids.max() >= size)
            ]
            if not wrong:
                raise
            raise InputError("; ".join(wrong)) from None


def read_dtype(dtype: torch.dtype | str | None, config: PreTrainedConfig | None = None) -> torch.dtype:
    """A floating-point type of PyTorch, also by its name; float32 for None, and of "auto" what `config` states.

    Raises:
        InputError: anything else.
    """
    if dtype == "auto":
        stated = {} if config is None else config.extra
        dtype = stated.get("dtype") or stated.get("torch_dtype")
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype={dtype!r:.60} is no floating-point type of PyTorch")
    return found


def as_requested(output: Output, config: PreTrainedConfig, return_dict: bool | None) -> Output | tuple[Any, ...]:
    """`output` itself, or the tuple of its fields if `return_dict`, by default the configuration's, is False."""
    return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def resized(old: Tensor, size: int, axis: int, std: float) -> nn.Parameter:
    """A copy of `old` with `size` entries on `axis`: the first ones kept, added ones drawn from normal(0, std)."""
    shape = list(old.shape)
    shape[axis] = size
    new = torch.empty(shape, dtype=old.dtype, device=old.device).normal_(0.0, std)
    common = min(size, old.size(axis))
    new.narrow(axis, 0, common).copy_(old.detach().narrow(axis, 0, common))
    return nn.Parameter(new)

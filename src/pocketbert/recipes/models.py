"""The model, the tokenizer and the device of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pocketbert.checkpoints.files import read_json
from pocketbert.configs import PRESETS, AutoConfig, PreTrainedConfig
from pocketbert.corpus.vocabulary import train_vocabulary
from pocketbert.errors import ConfigError
from pocketbert.models.auto import model_class
from pocketbert.models.ops import init_parameters
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import TrainingData
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.quantization import bounded
from pocketbert.training.state import latest_state


def prepare(
    folder: Path,
    options: FinetuneOptions,
    data: TrainingData,
    tell: Callable[[str], None],
    tokenizer: BertTokenizer | None = None,
) -> tuple[BertTokenizer, PreTrainedModel]:
    """Tokenizer and model, both also written to `folder`: the model's configuration only, until it is worth more.

    A `tokenizer` that is given is used in place of what the options name.
    """
    state = latest_state(folder / "checkpoints")
    if state is not None:  # its weights replace whatever these are
        tell(f"resuming from {state}")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config, _ = data.configure(AutoConfig.from_pretrained(folder))
        return tokenizer, model_class(config, data.head)(config)
    if options.from_scratch is not None:
        config, _ = data.configure(_ready(_scratch_config(options.from_scratch), options, tell))
        tokenizer = tokenizer or _scratch_tokenizer(options, data)
        if not len(tokenizer) <= config.vocab_size < len(tokenizer) + 64:  # up to 63 rows of padding are customary
            tell(f"vocab_size is {len(tokenizer)}, as the tokenizer has it, instead of {config.vocab_size}")
            config = config.replace(vocab_size=len(tokenizer))
        model = model_class(config, data.head)(config.replace(pad_token_id=tokenizer.pad_token_id))
    else:
        assert options.model is not None
        tokenizer = tokenizer or read_tokenizer(options.tokenizer or options.model)
        theirs = AutoConfig.from_pretrained(options.model)
        config, fits = data.configure(_ready(theirs, options, tell))
        # Heads of different tasks can have the same names and shapes.
        fits = fits and theirs.tuned_for in (None, data.head)
        model, info = model_class(config, data.head).from_pretrained(
            options.model, config=config, ignore_mismatched_sizes=not fits, output_loading_info=True
        )
        if missing := set(info["missing_keys"]):
            tell(f"{options.model} lacks {', '.join(sorted(missing))}: initialised randomly")
        heads = {name for name, _ in model.named_parameters() if name.startswith(model.family.head_prefixes)}
        if not fits and not heads <= missing:
            init_parameters(model, config.initializer_range, heads)
            names = ", ".join(list(theirs.id2label.values())[:10])
            other = f"the labels of {options.model} ({names}) are not those of the data"
            other = other if theirs.tuned_for in (None, data.head) else f"{options.model} was made for another task"
            tell(f"{other}: the head starts fresh")
        if len(tokenizer) > config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not go together"
            )
    begin(folder, tokenizer, model)
    return tokenizer, model


def begin(folder: Path, tokenizer: BertTokenizer, model: PreTrainedModel) -> None:
    """Write what is known before training; a run that goes on has it, and what was saved with its weights says more."""
    if not (folder / "config.json").exists():
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)


def _ready(config: PreTrainedConfig, options: FinetuneOptions, tell: Callable[[str], None]) -> PreTrainedConfig:
    """The configuration as the run needs it."""
    if not options.quantization_aware:
        return config
    ready = bounded(config)
    if ready.hidden_act != config.hidden_act:
        tell(f"hidden_act is {ready.hidden_act} instead of {config.hidden_act}, so that activations have a bound")
    return ready


def _scratch_config(name: str) -> PreTrainedConfig:
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).is_file():
        return AutoConfig.from_dict(read_json(Path(name)))
    if Path(name).is_dir():
        return AutoConfig.from_pretrained(name)
    raise ConfigError(f"--from-scratch {name} is neither a file nor a folder, and no preset: {', '.join(PRESETS)}")


def _scratch_tokenizer(options: FinetuneOptions, data: TrainingData) -> BertTokenizer:
    if options.vocab_size is not None:
        return BertTokenizer(vocab=train_vocabulary(list(data.texts()), options.vocab_size))
    assert options.tokenizer is not None
    return read_tokenizer(options.tokenizer)


def read_tokenizer(name: str) -> BertTokenizer:
    """The tokenizer of a folder or hub name, or of a `vocab.txt`."""
    return BertTokenizer(vocab_file=name) if Path(name).is_file() else AutoTokenizer.from_pretrained(name)

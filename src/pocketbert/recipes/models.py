"""The model and the tokenizer of a fine-tuning or distillation run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pocketbert.bundles import bundled_models
from pocketbert.checkpoints.files import read_json
from pocketbert.configs import PRESETS, AutoConfig, PreTrainedConfig
from pocketbert.corpus.vocabulary import train_vocabulary
from pocketbert.decisions import without_decisions
from pocketbert.errors import ConfigError
from pocketbert.models.auto import model_class
from pocketbert.models.ops import init_parameters
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.frozen_start import begins_frozen, reading_tokens
from pocketbert.tasks.base import TrainingData
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.quantization import bounded
from pocketbert.training.state import latest_state

Log = Callable[[str], None]


def prepare_model(
    folder: Path, options: FinetuneOptions, data: TrainingData, log: Log, tokenizer: BertTokenizer | None = None
) -> tuple[BertTokenizer, PreTrainedModel]:
    """Return the tokenizer and the model of a run, with its initial weights.

    Args:
        folder: the folder of the run; with a training state in it, the model has that run's configuration.
        options: the options of the run.
        data: its training data, which decides the head.
        log: prints a line.
        tokenizer: replaces the tokenizer of the options.

    Raises:
        ConfigError: model, tokenizer and data do not fit together.
        CheckpointError: the model cannot be read.
    """
    found, model = _prepare(folder, options, data, log, tokenizer)
    if found.stated_max_length is None:  # the limit is that of the model, and is saved with it
        found.model_max_length = model.config.max_tokens
    return found, model


def _prepare(
    folder: Path, options: FinetuneOptions, data: TrainingData, log: Log, tokenizer: BertTokenizer | None
) -> tuple[BertTokenizer, PreTrainedModel]:
    state = latest_state(folder / "checkpoints")
    if state is not None:  # its weights will replace the initial ones
        log(f"resuming from {state}")
        config, _ = data.configure(without_decisions(AutoConfig.from_pretrained(folder)))
        return AutoTokenizer.from_pretrained(folder), model_class(config, data.head)(config)
    if options.from_scratch is not None:
        return _fresh_model(options, data, log, tokenizer)
    return _load_model(options, data, log, tokenizer)


def _fresh_model(
    options: FinetuneOptions, data: TrainingData, log: Log, tokenizer: BertTokenizer | None
) -> tuple[BertTokenizer, PreTrainedModel]:
    assert options.from_scratch is not None
    config, _ = data.configure(_quantizable(without_decisions(_read_config(options.from_scratch)), options, log))
    tokenizer = tokenizer or choose_tokenizer(options, data)
    if not len(tokenizer) <= config.vocab_size < len(tokenizer) + 64:  # up to 63 rows of padding are customary
        log(f"vocab_size is {len(tokenizer)}, the size of the tokenizer's vocabulary, instead of {config.vocab_size}")
        config = config.replace(vocab_size=len(tokenizer))
    return tokenizer, model_class(config, data.head)(config.replace(pad_token_id=tokenizer.pad_token_id))


def _load_model(
    options: FinetuneOptions, data: TrainingData, log: Log, tokenizer: BertTokenizer | None
) -> tuple[BertTokenizer, PreTrainedModel]:
    name = options.model
    assert name is not None
    if not Path(name).is_dir() and name in bundled_models():
        log(f"starting from {name}, the bundled encoder")
    tokenizer = tokenizer or choose_tokenizer(options, data)
    stored = without_decisions(AutoConfig.from_pretrained(name))
    config, fits = data.configure(_quantizable(stored, options, log))
    # Heads of different tasks can have the same names and shapes.
    same_task = stored.tuned_for in (None, data.head)
    fits = fits and same_task
    if begins_frozen(options, data) and not (fits and stored.tuned_for == data.head):
        config = reading_tokens(config, name)
    model, info = model_class(config, data.head).from_pretrained(
        name, config=config, ignore_mismatched_sizes=not fits, output_loading_info=True
    )
    missing = set(info["missing_keys"])
    if missing and config.classifier_input is None:
        log(f"{name}: {', '.join(sorted(missing))} are missing and were initialised randomly")
    heads = {parameter for parameter, _ in model.named_parameters() if parameter.startswith(model.family.head_prefixes)}
    if not fits and not heads <= missing:
        init_parameters(model, config.initializer_range, heads)
        labels = ", ".join(list(stored.id2label.values())[:10])
        reason = f"its labels ({labels}) are not those of the data" if same_task else "it was trained for another task"
        if config.classifier_input is None:
            log(f"{name}: the head was initialised randomly, as {reason}")
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not belong together"
        )
    return tokenizer, model


def _quantizable(config: PreTrainedConfig, options: FinetuneOptions, log: Log) -> PreTrainedConfig:
    """Return the configuration with bounded activations, for quantization-aware training."""
    if not options.quantization_aware:
        return config
    result = bounded(config)
    if result.hidden_act != config.hidden_act:
        log(f"hidden_act is {result.hidden_act} instead of {config.hidden_act}, which bounds the activations")
    return result


def _read_config(name: str) -> PreTrainedConfig:
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).is_file():
        return AutoConfig.from_dict(read_json(Path(name)))
    if Path(name).is_dir():
        return AutoConfig.from_pretrained(name)
    raise ConfigError(f"--from-scratch {name} is neither a file nor a folder nor a preset ({', '.join(PRESETS)})")


def read_config(options: FinetuneOptions) -> PreTrainedConfig:
    """Return the configuration that the options name, without what the data changes."""
    if options.from_scratch is not None:
        return _read_config(options.from_scratch)
    assert options.model is not None
    return AutoConfig.from_pretrained(options.model)


def choose_tokenizer(options: FinetuneOptions, data: TrainingData) -> BertTokenizer:
    """Return the tokenizer of the options: that of a checkpoint, or one whose vocabulary is trained on the data."""
    if options.vocab_size is not None:
        return BertTokenizer(vocab=train_vocabulary(list(data.texts()), options.vocab_size))
    name = options.tokenizer or options.model
    assert name is not None
    return read_tokenizer(name)


def read_tokenizer(name: str) -> BertTokenizer:
    """Return the tokenizer of a folder or hub name, or of a `vocab.txt`."""
    return BertTokenizer(vocab_file=name) if Path(name).is_file() else AutoTokenizer.from_pretrained(name)

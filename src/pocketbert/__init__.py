"""PocketBERT: small BERTs, fast on ordinary machines.

The public names load on first use, so that `import pocketbert` stays light and needs no PyTorch.
"""

from functools import cache
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name → the module that defines it; those of the families follow in `_homes`.
_HOME: dict[str, str] = {
    **dict.fromkeys(("AutoConfig", "PRESETS"), "configs"),
    "PreTrainedConfig": "families.config",
    **dict.fromkeys(
        (
            "CheckpointError",
            "ConfigError",
            "DataError",
            "InputError",
            "MissingExtraError",
            "PocketBertError",
            "TokenizerError",
            "TrainingError",
            "TrainingInterrupted",
        ),
        "errors",
    ),
    **dict.fromkeys(("AutoTokenizer", "BatchEncoding", "PreTrainedTokenizerFast"), "tokenization"),
    "pipeline": "pipelines",
    "BulkOptions": "bulk.options",
    "BulkResult": "bulk.run",
    "ColumnPipeline": "bulk.pipelines",
    "answer_files": "bulk.run",
    "CrossEncoder": "sentences.cross_encoder",
    "SentenceTransformer": "sentences.sentence_transformer",
    "FinetuneOptions": "recipes.finetune_options",
    "FinetuneResult": "recipes.epoch_run",
    "finetune": "recipes.finetune",
    "over_seeds": "recipes.seeds",
    "SeedsResult": "recipes.seeds",
    "Callback": "training.callbacks",
    "few_shot": "frozen.few_shot",
    "FewShotResult": "frozen.few_shot",
    "DistillOptions": "recipes.distill_options",
    "distill": "recipes.distill",
    "PrepareOptions": "corpus.prepare_options",
    "PrepareResult": "corpus.prepare",
    "prepare": "corpus.prepare",
    "PretrainOptions": "recipes.pretrain_options",
    "PretrainResult": "recipes.pretrain",
    "pretrain": "recipes.pretrain",
    "TransferOptions": "recipes.transfer_options",
    "transfer": "recipes.transfer",
    "EvaluateOptions": "tasks.evaluate_options",
    "EvaluateResult": "tasks.evaluate",
    "evaluate": "tasks.evaluate",
    "CheckOptions": "checks.options",
    "CheckResult": "checks.check",
    "check": "checks.check",
    "CompareOptions": "reports.options",
    "CompareResult": "reports.compare",
    "compare": "reports.compare",
    "QuantizeOptions": "runtime.quantize_options",
    "QuantizeResult": "runtime.quantized_folders",
    "quantize": "runtime.quantized_folders",
    "ExportOptions": "exporters.options",
    "ExportResult": "exporters.export",
    "export": "exporters.export",
}


@cache
def _homes() -> dict[str, str]:
    """`_HOME`, and the configuration, tokenizers and models of each family."""
    from pocketbert.families import FAMILIES
    from pocketbert.families.family import HEADS

    homes = _HOME | {"AutoModel": "models.auto"}
    homes |= {f"AutoModel{head}": "models.auto" for head in HEADS if head != "Model"}
    for family in FAMILIES.values():
        tokenizers, _, tokenizer = family.tokenizer.rpartition(".")
        names = {
            family.config_class.__name__: family.config_class.__module__,
            tokenizer: tokenizers,
            f"{tokenizer}Fast": tokenizers,
            **{family.class_name(head): family.models for head in family.heads},
            **dict.fromkeys(family.public, family.models),
        }
        homes |= {name: module.removeprefix("pocketbert.") for name, module in names.items()}
    return homes


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    home = _homes().get(name)
    if home is None:
        raise AttributeError(f"module 'pocketbert' has no attribute {name!r}")
    if home.startswith(("models.", "recipes.")) and not home.endswith("_options"):
        from pocketbert.errors import require

        require("train")
    value = getattr(import_module(f"pocketbert.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *_homes()])

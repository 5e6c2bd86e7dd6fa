"""PocketBERT: small BERTs, fast on ordinary machines.

The public names load on first use, so that `import pocketbert` stays light and needs no PyTorch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HEADS = (
    "ForMaskedLM", "ForMultipleChoice", "ForNextSentencePrediction", "ForPreTraining", "ForQuestionAnswering",
    "ForSequenceClassification", "ForTokenClassification", "Model",
)  # fmt: skip

# Public name → the module that defines it.
_HOME: dict[str, str] = {
    **dict.fromkeys(
        ("AutoConfig", "BertConfig", "MobileBertConfig", "PRESETS", "PreTrainedConfig", "SqueezeBertConfig"),
        "configs",
    ),
    **dict.fromkeys(
        (
            "CheckpointError",
            "ConfigError",
            "DataError",
            "InputError",
            "MissingExtraError",
            "PocketBertError",
            "TokenizerError",
        ),
        "errors",
    ),
    "AutoTokenizer": "tokenization",
    "BatchEncoding": "tokenization",
    **{
        f"{family}Tokenizer{speed}": "tokenization"
        for family in ("Bert", "MobileBert", "SqueezeBert")
        for speed in ("", "Fast")
    },
    **{f"Bert{head}": "models.bert" for head in _HEADS},
    **{f"MobileBert{head}": "models.mobilebert" for head in _HEADS},
    "MobileBertForPreTrainingOutput": "models.mobilebert",
    **{f"SqueezeBert{head}": "models.squeezebert" for head in _HEADS if head != "ForNextSentencePrediction"},
    "AutoModel": "models.auto",
    **{f"AutoModel{head}": "models.auto" for head in _HEADS if head != "Model"},
    "pipeline": "pipelines",
    "ExportOptions": "exporters.options",
    "ExportResult": "exporters.export",
    "export": "exporters.export",
}

__all__ = sorted(["__version__", *_HOME])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pocketbert' has no attribute {name!r}")
    if _HOME[name].startswith("models"):
        from pocketbert.errors import require

        require("train")
    value = getattr(import_module(f"pocketbert.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Every error that PocketBERT raises on purpose: what was wrong, where, and what to do about it.

The shell prints these as one line; anything else that reaches it is a bug and shows its traceback.
"""

from importlib.util import find_spec

EXTRAS = {
    "train": ("torch", "pyarrow", "tensorboard"),
    "search": ("optuna", "matplotlib"),
    "datasets": ("datasets",),
    "corpus": ("sentencex", "datasketch"),
    "ray": ("ray",),
    "bench": ("matplotlib",),
    "serve": ("fastapi", "uvicorn"),
    "export": ("onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "tf": ("tensorflow", "h5py"),
}


class PocketBertError(Exception):
    """Base of all errors that a user can act upon."""


class ConfigError(PocketBertError, ValueError):
    """A configuration field has a value that no model can be built from."""


class CheckpointError(PocketBertError, OSError):
    """A model folder, a weight file or a hub name cannot be read or written."""


class TokenizerError(PocketBertError, ValueError):
    """A vocabulary is missing or damaged, or a text cannot be encoded as asked."""


class DataError(PocketBertError, ValueError):
    """A data file cannot be used: names the file and, where there is one, the line."""


class InputError(PocketBertError, ValueError):
    """An input does not fit the model that it is given to; `position` says which of many, counted from 0."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.message, self.position = message, position

    def __str__(self) -> str:
        return self.message if self.position is None else f"input {self.position}: {self.message}"


class TrainingError(PocketBertError, ArithmeticError):
    """The run cannot go on: its loss is no longer a number."""


class TrainingInterrupted(PocketBertError):
    """A signal stopped the run after its state was saved; `signal` is its number (the exit status is 128 more)."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class MissingExtraError(PocketBertError, ImportError):
    """An optional dependency is not installed: says which extra brings it."""


def require(extra: str) -> None:
    """Raise `MissingExtraError` unless every package of `extra` (a key of `EXTRAS`) can be imported."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"this needs {', '.join(missing)}, which the extra '{extra}' brings: pip install 'pocketbert[{extra}]'"
        )

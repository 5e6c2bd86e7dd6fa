"""The errors that a user can act upon: each message states what was wrong, where, and what to do.

The command line prints them as one line; any other exception is a bug and shows its traceback.
"""

from importlib.util import find_spec

EXTRAS = {
    "train": ("torch", "rich", "pyarrow", "tensorboard"),
    "search": ("optuna", "matplotlib"),
    "parquet": ("pyarrow",),
    "datasets": ("datasets",),
    "corpus": ("sentencex", "datasketch"),
    "ray": ("ray",),
    "spark": ("pyspark", "pandas", "pyarrow"),
    "bench": ("matplotlib",),
    "serve": ("fastapi", "uvicorn"),
    "otlp": ("opentelemetry.exporter.otlp.proto.http",),
    "export": ("onnx", "onnxruntime"),
    "sklearn": ("sklearn",),
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
    """A vocabulary is missing or damaged, or a text cannot be encoded with these options."""


class DataError(PocketBertError, ValueError):
    """A data file cannot be used: names the file and, if there is one, the line."""


class InputError(PocketBertError, ValueError):
    """An input does not fit the model; `position` is its index among several, counted from 0."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.message, self.position = message, position

    def __str__(self) -> str:
        return self.message if self.position is None else f"input {self.position}: {self.message}"


class TrainingError(PocketBertError, ArithmeticError):
    """The run cannot continue: its loss is NaN or infinite."""


class TrainingInterrupted(PocketBertError):
    """A signal stopped the run after its state was saved; `signal` is its number (the exit status is 128 more)."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class MissingExtraError(PocketBertError, ImportError):
    """An optional dependency is not installed: names the extra that contains it."""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


def require(extra: str) -> None:
    """Raise `MissingExtraError` unless every package of `extra` (a key of `EXTRAS`) can be imported."""
    missing = [name for name in EXTRAS[extra] if not _is_installed(name)]
    if missing:
        raise MissingExtraError(
            f"this needs {', '.join(missing)}, from the extra '{extra}': pip install 'pocketbert[{extra}]'"
        )

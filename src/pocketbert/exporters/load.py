"""Find exported files, and load each as a `features.Predictor`."""

from __future__ import annotations

from pathlib import Path

from pocketbert.errors import CheckpointError
from pocketbert.exporters.formats import FORMATS, Format
from pocketbert.exporters.predictor import FilePredictor

WEIGHTS = (".safetensors", ".bin", ".index")


def find_export(model: str | Path) -> Path | None:
    """The exported file that `model` means: itself, or the only one of a folder without other weights; else None.

    Raises:
        CheckpointError: a folder holds several.
    """
    path = Path(model)
    if _format_of(path) is not None:
        return path
    if not path.is_dir() or any(file.suffix in WEIGHTS for file in path.iterdir()):
        return None
    files = [file for format_ in FORMATS.values() for file in format_.find(path)]
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise CheckpointError(f"{model} holds several exported files: name one of {names}")
    return files[0] if files else None


def _format_of(path: Path) -> Format | None:
    return next((format_ for format_ in FORMATS.values() if format_.matches(path)), None)


def model_folder(file: Path) -> Path:
    """The folder of an exported file's configuration and tokenizer: its own, or the parent of that."""
    return file.parent.parent if not (file.parent / "config.json").exists() else file.parent


def load_export(file: Path, threads: int | None = None) -> FilePredictor:
    """The predictor that runs an exported file, on a number of threads [default: all that the process may use].

    Raises:
        CheckpointError: the file is missing, damaged, of no known format, or cannot be run.
        MissingExtraError: the engine is not installed.
    """
    format_ = _format_of(file)
    if format_ is None:
        raise CheckpointError(f"{file} is not an exported file of a known format: {', '.join(FORMATS)}")
    return format_.open(file, threads)

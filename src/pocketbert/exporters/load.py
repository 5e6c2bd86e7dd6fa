"""Find exported files and load each as a `features.Predictor`."""

from __future__ import annotations

from pathlib import Path

from pocketbert.errors import CheckpointError
from pocketbert.exporters.predictor import FilePredictor

ONNX_FOLDER = "onnx"  # of a model folder: where transformers.js and optimum look
SAVED_MODEL = Path("saved_model", "1")  # … and where TensorFlow Serving does, which wants a version
WEIGHTS = (".safetensors", ".bin", ".index")


def exported_file(model: str | Path) -> Path | None:
    """The export that `model` means: itself, or the only one of a folder without other weights; else None.

    It is an `.onnx` or `.tflite` file, or a folder that TensorFlow saved a model to.

    Raises:
        CheckpointError: there are several.
    """
    path = Path(model)
    if path.suffix in (".onnx", ".tflite") or _saved_model(path):
        return path
    if not path.is_dir() or any(file.suffix in WEIGHTS for file in path.iterdir()):
        return None
    files = sorted([*path.glob("*.onnx"), *(path / ONNX_FOLDER).glob("*.onnx"), *path.glob("*.tflite")])
    files += [path / SAVED_MODEL] if _saved_model(path / SAVED_MODEL) else []
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise CheckpointError(f"{model} holds several exports: give one of {names}")
    return files[0] if files else None


def _saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").exists()


def model_folder(file: Path) -> Path:
    """Where the configuration and the tokenizer of an export are: in its folder, or in the one that holds it."""
    return file.parent.parent if not (file.parent / "config.json").exists() else file.parent


def load_export(file: Path, threads: int | None = None) -> FilePredictor:
    """What runs an export, with so many threads, or all that there are.

    Raises:
        CheckpointError: it is missing, damaged, or cannot be run.
        MissingExtraError: what runs it is not installed.
    """
    if file.suffix == ".onnx":
        from pocketbert.exporters.onnx.predictor import OnnxPredictor

        return OnnxPredictor(file, threads)
    if file.suffix == ".tflite":
        from pocketbert.exporters.litert.predictor import LiteRtPredictor

        return LiteRtPredictor(file, threads)
    from pocketbert.exporters.saved_model.predictor import SavedModelPredictor

    return SavedModelPredictor(file, threads)

"""Models that the package contains, by name."""

from __future__ import annotations

from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"
# The models that are used unless another is named: ENCODER in training, for vectors and for masked words.
ENCODER, SENTIMENT, ENTITIES, ANSWERS = "squeezebert-small", "sentiment", "entities", "answers"


def bundled_models() -> list[str]:
    """Return the names of the models that the package contains."""
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())


def local_folder(name_or_path: str | Path) -> Path | None:
    """Return the folder at a path or, if there is none, that of the bundled model of this name; None without either."""
    path = Path(name_or_path)
    if path.is_dir():
        return path
    return BUNDLED / path if str(path) in bundled_models() else None

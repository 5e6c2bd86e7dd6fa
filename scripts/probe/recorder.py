"""What a section records: hashes, which must be equal, and texts, whose differences are shown."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What was renamed on purpose, as old: new. A tree gets the new name where its help, or its OpenAPI document, has it.
RENAMED_FLAGS: Mapping[str, str] = {}
RENAMED_ROUTES: Mapping[str, str] = {}


class Probe:
    """The items of a section by name."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, str]] = {}

    def bits(self, name: str, value: Any) -> None:
        """Record a value of which every bit counts: arrays, bytes, JSON, and mappings and lists of these."""
        seen = hashlib.sha256()
        _feed(seen, value)
        self.items[name] = {"bits": seen.hexdigest(), "note": _note(value)}

    def text(self, name: str, value: str) -> None:
        """Record a text that may differ: a difference is shown, and is no failure."""
        self.items[name] = {"text": value}


def _feed(seen: Any, value: Any) -> None:
    if _is_array(value):
        array = _array(value)
        seen.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            seen.update(f"{key}:".encode())
            _feed(seen, value[key])
    elif isinstance(value, list | tuple):
        seen.update(f"{len(value)}[".encode())
        for one in value:
            _feed(seen, one)
    else:
        seen.update(value if isinstance(value, bytes) else json.dumps(value).encode())


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")


def _array(value: Any) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    return array


def _arrays(value: Any) -> list[np.ndarray]:
    """All numeric arrays in a value."""
    if _is_array(value):
        array = _array(value)
        return [array.astype(np.float64)] if array.dtype.kind in "fiub" else []
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [array for one in inner for array in _arrays(one)]


def _note(value: Any) -> str:
    """A few words about a value, from which a report shows how large a difference is."""
    if arrays := _arrays(value):
        total, largest = sum(np.abs(a).sum() for a in arrays), max(np.abs(a).max(initial=0) for a in arrays)
        return f"{sum(a.size for a in arrays)} numbers, sum of magnitudes {total:.12g}, largest {largest:.9g}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, default=str)
    return text[:160]


# ── the command line ──


def command(*arguments: str | Path) -> str:
    """The standard output of a `pocketbert` command, run in this process; raises `SystemExit` where it fails."""
    from pocketbert.cli import main

    words = [str(one) for one in arguments]
    if any(one in RENAMED_FLAGS for one in words):
        known = _help(words[0])
        words = [new if (new := RENAMED_FLAGS.get(one, one)) in known else one for one in words]
    out, err = Path("stdout.txt"), Path("stderr.txt")
    kept, code = (sys.argv, sys.stdout, sys.stderr), None
    with out.open("w", encoding="utf-8") as stdout, err.open("w", encoding="utf-8") as stderr:
        sys.argv, sys.stdout, sys.stderr = ["pocketbert", *words], stdout, stderr
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv, sys.stdout, sys.stderr = kept
    if code:
        raise SystemExit(f"pocketbert {' '.join(words)} ended with {code}:\n{err.read_text()[-3000:]}")
    return out.read_text(encoding="utf-8")


def _help(name: str) -> str:
    run = [sys.executable, "-m", "pocketbert.cli", name, "--help"]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def lines(*arguments: str | Path) -> list[Any]:
    """The JSON lines of a command."""
    return [json.loads(line) for line in command(*arguments, "--json").splitlines()]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """What `model.safetensors` of a folder holds."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")

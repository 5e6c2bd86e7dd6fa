"""The run folder and its manifest, `run.json`: options, data, machine and results of a run."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pocketbert
from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import read_json
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.machine import processor_name
from pocketbert.training.state import latest_state

# These options decide where a run happens and what it shows, not its result, but for the order of sums. Data files,
# corpora and teachers are compared by their hashes.
_WITHOUT_EFFECT = (
    "data", "eval_data", "unlabelled", "teacher", "output", "cache", "resume", "device", "tensorboard", "corpus",
    "push", "save_minutes", "sharded", "similarity_data", "teacher_logits",
)  # fmt: skip


def open_run_folder(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Check that a run may use `folder`; return the manifest of the run to resume, None for a new run.

    A run that ended before it saved anything starts from the beginning.

    Raises:
        CheckpointError: the folder is not empty and holds no run to resume, or cannot be used as a folder.
    """
    try:
        contents = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be used as a folder: {error.strerror}") from None
    if contents and "run.json" not in contents:
        names = ", ".join(sorted(contents)[:5])
        raise CheckpointError(f"{folder} is not empty and holds no run ({names}): choose another folder")
    state = latest_state(folder / "checkpoints")
    if state is None and "model.safetensors" not in contents:
        return None
    if not resume:
        where = f"at {state.name}" if state else "without checkpoints"
        raise CheckpointError(f"{folder} holds a run {where}: resume it with --resume, or choose another folder")
    previous = read_json(folder / "run.json")
    if state is None and previous.get("finished"):
        raise CheckpointError(f"{folder}: the run is finished, and its checkpoints were removed: choose another folder")
    for leftover in folder.glob(".*.tmp"):  # of a file that was being written when a run was killed
        leftover.unlink()
    return previous


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and lock it during the block; the lock of a killed run is released.

    Raises:
        CheckpointError: another run uses the folder, or it cannot be used as a folder.
    """
    if os.name != "posix":  # other systems cannot lock folders
        yield
        return
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be used as a folder: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{folder}: another run is using it: choose another folder") from None
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(descriptor)


class RunManifest:
    """The contents of `run.json`, written after every evaluation.

    Args:
        folder: the folder of the run.
        options: the options of the run, a dataclass.
        facts: facts that decide the result besides the options (data, precision, …), as JSON.
        argv: the command.
        previous: the manifest of the run to resume.

        adjustable: names of options that may differ from those of `previous`.

    Raises:
        ConfigError: `previous` had other options or data, which the message lists. Options that did not exist when that
            run started count with their defaults.
        CheckpointError: the file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        options: Any,
        facts: Mapping[str, Any],
        argv: list[str],
        previous: Mapping[str, Any] | None,
        adjustable: Collection[str] = (),
    ) -> None:
        self.folder = folder
        # Through JSON, to be comparable with what is read back.
        decisive = _through_json({"options": asdict(options), **facts})
        if previous is not None:
            defaults = {field.name: field.default for field in fields(options) if field.default is not MISSING}
            _compare(previous, decisive, _through_json(defaults), adjustable)
        earlier = previous or {}
        self._seconds, self._started = float(earlier.get("seconds", 0.0)), time.monotonic()
        self.content: dict[str, Any] = {
            **decisive,
            "argv": argv,
            "pocketbert": pocketbert.__version__,
            "git": _commit(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors")},
            "machine": _machine(),
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
        }
        self.write(finished=False)

    @property
    def seconds(self) -> float:
        """Duration of the run so far, including the time before it was resumed."""
        return self._seconds + time.monotonic() - self._started

    def write(self, **facts: Any) -> None:
        """Add facts, and write `run.json`."""
        self.content |= {**facts, "seconds": round(self.seconds, 1)}
        write_text(self.folder / "run.json", json.dumps(self.content, indent=1, ensure_ascii=False, default=str) + "\n")


def _named(value: Any) -> str:
    """The text of a value that JSON has no form for: the name of a function, or the text of anything else."""
    return str(getattr(value, "__name__", value))


def _through_json(content: Any) -> Any:
    return json.loads(json.dumps(content, default=_named))


def _compare(
    previous: Mapping[str, Any], current: Mapping[str, Any], defaults: Mapping[str, Any], adjustable: Collection[str]
) -> None:
    completed = {**previous, "options": {**defaults, **(previous.get("options") or {})}}
    before, now = _flat(completed, current), _flat(current, current)
    differences = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and name.removeprefix("options.") not in adjustable:
            removed = name.startswith("options.") and name not in now
            value = "an option that no longer exists" if removed else f"now {now.get(name, 'nothing')}"
            differences.append(f"{name}: was {before.get(name, 'nothing')}, {value}")
    if differences:
        raise ConfigError("cannot resume: options or data changed:\n  " + "\n  ".join(differences))


def _flat(content: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decisive facts of `content`, as "options.epochs" → 3.0."""
    flat: dict[str, Any] = {}
    for section in like:
        value = content.get(section)
        for name, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if not (section == "options" and name in _WITHOUT_EFFECT):
                flat[f"{section}.{name}".rstrip(".")] = inner
    return flat


@functools.cache  # a process computes what it has loaded
def _commit() -> str | None:
    """Return the commit of PocketBERT's source tree, if it runs from one."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }

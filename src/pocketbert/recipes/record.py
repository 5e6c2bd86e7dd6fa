"""`run.json`: what a run was told, what it ran on, and what came out; and who may continue it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
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

# These decide where a run happens and what is seen of it, not what comes out, but for the order of sums. Data files,
# corpora and teachers count by their hashes.
_WITHOUT_EFFECT = (
    "data", "eval_data", "unlabelled", "teacher", "output", "cache", "resume", "device", "tensorboard", "corpus",
    "save_minutes", "sharded",
)  # fmt: skip


def claim(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Check that a run may use `folder`; the `run.json` of the one to be resumed, None where one begins.

    A run that ended before it saved anything is begun anew.

    Raises:
        CheckpointError: the folder is not empty, and not (or not to be) resumed, or no folder can be there.
    """
    try:
        contents = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be used as a folder: {error.strerror}") from None
    if contents and "run.json" not in contents:
        names = ", ".join(sorted(contents)[:5])
        raise CheckpointError(f"{folder} is not empty and holds no run ({names}); choose another folder")
    state = latest_state(folder / "checkpoints")
    if state is None and "model.safetensors" not in contents:
        return None
    if not resume:
        where = f"at {state.name}" if state else "without checkpoints"
        raise CheckpointError(f"{folder} holds a run {where}: continue it with --resume, or choose another folder")
    previous = read_json(folder / "run.json")
    if state is None and previous.get("finished"):
        raise CheckpointError(f"{folder}: the run is finished, and its checkpoints were removed; choose another folder")
    for leftover in folder.glob(".*.tmp"):  # of a file that was being written when the run was killed
        leftover.unlink()
    return previous


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other runs out of it while the block runs; a run that is killed holds nothing.

    Raises:
        CheckpointError: another run is in there, or no folder can be there.
    """
    if os.name != "posix":  # elsewhere folders cannot be locked
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
            raise CheckpointError(f"{folder}: another run is at work there; choose another folder") from None
        except OSError:
            pass  # some network disks know no locks
        yield
    finally:
        os.close(descriptor)


class Record:
    """The contents of `run.json`, written again after every evaluation.

    Args:
        folder: where it is.
        options: of the run, a dataclass.
        settled: what decides the result besides the options: data, precision, …; must be JSON.
        argv: the command.
        previous: the `run.json` of the run that is continued.

    Raises:
        ConfigError: `previous` was a run with other options or data; lists them. An option that was not there yet when
            that run was begun counts as its default.
        CheckpointError: the file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        options: Any,
        settled: Mapping[str, Any],
        argv: list[str],
        previous: Mapping[str, Any] | None,
    ) -> None:
        self.folder = folder
        # Through JSON, so that it compares equal to what is read back.
        told = _plain({"options": asdict(options), **settled})
        if previous is not None:
            defaults = {field.name: field.default for field in fields(options) if field.default is not MISSING}
            _compare(previous, told, _plain(defaults))
        before = previous or {}
        self._seconds, self._started = float(before.get("seconds", 0.0)), time.monotonic()
        self.content: dict[str, Any] = {
            **told,
            "argv": argv,
            "pocketbert": pocketbert.__version__,
            "git": _commit(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors")},
            "machine": _machine(),
            "started": before.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
        }
        self.write(finished=False)

    @property
    def seconds(self) -> float:
        """How long the run has taken, earlier parts included."""
        return self._seconds + time.monotonic() - self._started

    def write(self, **more: Any) -> None:
        """Write `run.json` with `more` in it."""
        self.content |= {**more, "seconds": round(self.seconds, 1)}
        write_text(self.folder / "run.json", json.dumps(self.content, indent=1, ensure_ascii=False, default=str) + "\n")


def _plain(content: Any) -> Any:
    """What JSON makes of it."""
    return json.loads(json.dumps(content, default=str))


def _compare(previous: Mapping[str, Any], told: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    began = {**previous, "options": {**defaults, **(previous.get("options") or {})}}
    before, now = _flat(began, told), _flat(told, told)
    differing = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            gone = name.startswith("options.") and name not in now
            said = "and this version has no such option" if gone else f"{now.get(name, 'nothing')} now"
            differing.append(f"{name}: {before.get(name, 'nothing')} then, {said}")
    if differing:
        raise ConfigError(
            "the run cannot be resumed, for it was begun with other options or data; the result would be neither "
            "one nor the other:\n  " + "\n  ".join(differing)
        )


def _flat(content: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of `content`, as "options.epochs" → 3.0."""
    flat: dict[str, Any] = {}
    for section in like:
        value = content.get(section)
        for name, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if not (section == "options" and name in _WITHOUT_EFFECT):
                flat[f"{section}.{name}".rstrip(".")] = inner
    return flat


def _commit() -> str | None:
    """The commit of PocketBERT's own source tree, when it runs from one."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
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

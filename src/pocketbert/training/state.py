"""The state of a run on disk: weights, optimiser moments, and one integer, the number of steps done.

A state is a folder `step-00000100` of two safetensors files and a JSON file. It is written under another name, flushed
to the disk and renamed, and only then are older ones removed: at any moment there is one complete state, or none
yet. Order, masks and dropout are functions of the step, so nothing else is needed to continue bit for bit.

Sharded tensors are saved whole: a state does not depend on the number of processes, or on whether they divide weights.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pocketbert.checkpoints import atomic_write, write_text
from pocketbert.errors import CheckpointError
from pocketbert.training.distributed import copies, divided_like, is_sharded


@dataclass
class State:
    """How far a run is, and how it went."""

    step: int = 0
    #: One entry for each evaluation: "step" and the metrics.
    history: list[dict[str, float]] = field(default_factory=list)

    def evaluated(self) -> bool:
        """Whether the evaluation that belongs to this step is done."""
        return bool(self.history) and self.history[-1]["step"] == self.step

    def best(self, metric: str) -> dict[str, float] | None:
        """The entry with the best value, the earlier of equal ones; losses are best when small."""
        sign = -1.0 if metric.endswith("loss") else 1.0

        def value(entry: Mapping[str, float]) -> float:
            return -math.inf if math.isnan(entry[metric]) else sign * entry[metric]

        return max(self.history, key=value, default=None)

    def stale(self, metric: str) -> int:
        """How many evaluations there were after the best one."""
        best = self.best(metric)
        return 0 if best is None else len(self.history) - 1 - self.history.index(best)


class Saver:
    """Saves states in a thread: training waits while they are copied in memory, and not while they are written.

    Args:
        folder: where the states are kept.
        keep: how many.
        writes: whether this process does; the others only bring their parts of what is sharded.
    """

    def __init__(self, folder: Path, keep: int = 1, *, writes: bool = True) -> None:
        self.folder, self.keep, self.writes = folder, keep, writes
        self._writer = ThreadPoolExecutor(1, "pocketbert-saver")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except CheckpointError:
            if kind is None:  # otherwise what ended the block says more
                raise
        finally:
            self._writer.shutdown()

    def save(self, state: State, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the state, and begin to write it when the one before is written. All processes call it.

        Raises:
            CheckpointError: that one could not be written; the last good state is still there.
        """
        self.wait()
        files = {"weights": _weights(objective), "optimizer": _moments(objective, optimizer)}
        tensors = {file: copies(named, kept=self.writes) for file, named in files.items()}
        if self.writes:
            summary = json.dumps(asdict(state), indent=1) + "\n"
            self._writing = self._writer.submit(_write, self.folder, state.step, summary, tensors, self.keep)

    def wait(self) -> None:
        """Go on when everything is written; raises `CheckpointError` if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _write(folder: Path, step: int, summary: str, tensors: Mapping[str, dict[str, Tensor]], keep: int) -> Path:
    final = folder / f"step-{step:08d}"
    unfinished = final.with_suffix(".tmp")
    try:
        if final.exists():  # the same step once more, now evaluated: its tensors are the same
            write_text(final / "state.json", summary)
            return final
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, content in tensors.items():
            with atomic_write(unfinished / f"{name}.safetensors") as file:
                file.write(save(content))
        write_text(unfinished / "state.json", summary)
        unfinished.replace(final)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        kept = latest_state(folder)
        there = f"the last good state is {kept}" if kept else "there is no state to continue from yet"
        raise CheckpointError(f"{error}; {there}") from error
    kept_states = sorted(_complete(folder), key=_step_of)[-keep:]
    for other in (path for path in folder.iterdir() if path not in kept_states and path.name.startswith("step-")):
        shutil.rmtree(other, ignore_errors=True)
    return final


def latest_state(folder: Path) -> Path | None:
    """The newest complete state in `folder`, if there is one."""
    if not folder.is_dir():
        return None
    return max(_complete(folder), key=_step_of, default=None)


def _complete(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]


def _step_of(path: Path) -> int:
    return int(path.name[5:])


def load_state(path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Fill `objective` and `optimizer` from a state.

    Raises:
        CheckpointError: the state is damaged or of another model.
    """
    try:
        state = _summary((path / "state.json").read_text(encoding="utf-8"))
        weights = load_file(path / "weights.safetensors")
        moments = load_file(path / "optimizer.safetensors")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged and cannot be continued from: {error}") from None
    own = dict(_weights(objective))
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in weights.items()}:
        names = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
        raise CheckpointError(f"{path}: is the state of another model; these differ: {', '.join(names[:10])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(divided_like(weights[name], tensor) if is_sharded(tensor) else weights[name])
    _load_moments(moments, objective, optimizer)
    return state


def _summary(text: str) -> State:
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise ValueError("state.json does not say how many steps were done")
    state = State(**content)
    if not all(isinstance(entry, dict) and "step" in entry for entry in state.history):
        raise ValueError("state.json does not say how the evaluations went")
    return state


# ── tensors by name ──


def _weights(objective: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers; what is shared appears once."""
    seen: set[int] = set()
    for name, tensor in objective.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _moments(objective: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """What the optimiser keeps for each parameter, as `name/exp_avg`."""
    for name, parameter in objective.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}/{key}", value


def _load_moments(moments: Mapping[str, Tensor], objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = {names[id(parameter)]: i for i, parameter in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in moments.items():
        name, _, key = full.rpartition("/")
        if name not in places:
            raise CheckpointError(f"the saved optimiser knows {name}, which this model does not train")
        if tensor.dim() and tensor.shape != parameters[places[name]].shape:
            raise CheckpointError(f"the saved optimiser has {full} in another shape than the model has {name}")
        # Copied into memory that is aligned as the optimiser's own: vector units must see it the same way.
        state.setdefault(places[name], {})[key] = divided_like(tensor, parameters[places[name]])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

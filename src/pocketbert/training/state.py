"""The training state on disk: weights, optimizer moments, and one integer, the number of finished steps.

A state is a folder `step-00000100` of two safetensors files and a JSON file. It is written under another name, flushed
to the disk and renamed, and only then are older states removed: at any moment there is one complete state, or none
yet. Order, masks and dropout are functions of the step, so nothing else is needed to continue bit for bit.

Sharded tensors are saved whole: a state depends neither on the number of processes nor on sharding.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pocketbert.checkpoints import atomic_write, write_text
from pocketbert.errors import CheckpointError
from pocketbert.metrics import smaller_is_better
from pocketbert.models.tensor_files import read_tensor_file, serialise
from pocketbert.training.distributed import copies, is_sharded, sharded_like


@dataclass
class State:
    """Progress of a run: finished steps and evaluations."""

    step: int = 0
    #: One entry per evaluation: "step" and the metrics.
    history: list[dict[str, float]] = field(default_factory=list)
    #: The step at which the run started; not 0 if it continues another run.
    start: int = 0

    def evaluated(self) -> bool:
        """Return whether the evaluation after this step is finished."""
        return bool(self.history) and self.history[-1]["step"] == self.step

    def best(self, metric: str) -> dict[str, float] | None:
        """Return the entry with the best value, the earlier of equal ones; of losses the smallest is the best."""
        sign = -1.0 if smaller_is_better(metric) else 1.0

        def value(entry: Mapping[str, float]) -> float:
            return -math.inf if math.isnan(entry[metric]) else sign * entry[metric]

        return max(self.history, key=value, default=None)

    def evaluations_since_best(self, metric: str) -> int:
        """Return the number of evaluations after the best one."""
        best = self.best(metric)
        return 0 if best is None else len(self.history) - 1 - self.history.index(best)


class Saver:
    """Saves states in a thread: training waits while they are copied in memory, not while they are written.

    Args:
        folder: the folder of the states.
        keep: number of states to keep.
        writes: whether this process writes; others only provide their parts of sharded tensors.
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
            if kind is None:  # otherwise the error that ended the block is more informative
                raise
        finally:
            self._writer.shutdown()

    def save(self, state: State, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the state, and start to write it when the previous state is written. All processes call this.

        Raises:
            CheckpointError: the previous state could not be written; the last undamaged state is kept.
        """
        self.wait()
        files = {"weights": _weights(objective), "optimizer": _moments(objective, optimizer)}
        tensors = {file: copies(named, kept=self.writes) for file, named in files.items()}
        if self.writes:
            summary = _written(state)
            self._writing = self._writer.submit(_write, self.folder, state.step, summary, tensors, self.keep)

    def wait(self) -> None:
        """Wait until the state is written. Raises `CheckpointError` if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _write(folder: Path, step: int, summary: str, tensors: Mapping[str, dict[str, Tensor]], keep: int) -> Path:
    final = folder / f"step-{step:08d}"
    unfinished = final.with_suffix(".tmp")
    try:
        if final.exists():  # the same step again, now evaluated: its tensors are the same
            write_text(final / "state.json", summary)
            return final
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, content in tensors.items():
            with atomic_write(unfinished / f"{name}.safetensors") as file:
                file.writelines(serialise(content))
        write_text(unfinished / "state.json", summary)
        unfinished.replace(final)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        latest = latest_state(folder)
        remaining = f"the last undamaged state is {latest}" if latest else "no state has been saved yet"
        raise CheckpointError(f"{error}; {remaining}") from error
    kept_states = sorted(_complete(folder), key=_step_of)[-keep:]
    for other in (path for path in folder.iterdir() if path not in kept_states and path.name.startswith("step-")):
        shutil.rmtree(other, ignore_errors=True)
    return final


def latest_state(folder: Path) -> Path | None:
    """Return the newest complete state in `folder`, if there is one."""
    if not folder.is_dir():
        return None
    return max(_complete(folder), key=_step_of, default=None)


def _complete(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]


def _step_of(path: Path) -> int:
    return int(path.name[5:])


def read_progress(path: Path) -> State:
    """Return the progress in a state, without its tensors. Raises `CheckpointError` if it is damaged."""
    try:
        return _summary((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged and cannot be resumed: {error}") from None


def fork_state(source: Path, folder: Path) -> State:
    """Copy the state `source` to the empty folder of the states of another run, which continues it.

    Returns:
        The progress of the new run: the same step, and no evaluations.

    Raises:
        CheckpointError: the state is damaged, or cannot be copied.
    """
    state = read_progress(source)
    state = State(step=state.step, start=state.step)
    final = folder / source.name
    unfinished = final.with_suffix(".tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        write_text(unfinished / "state.json", _written(state))
        unfinished.replace(final)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(f"{source}: cannot be copied to {folder}: {error.strerror or error}") from None
    return state


def load_state(path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load a state into `objective` and `optimizer`.

    Raises:
        CheckpointError: the state is damaged, of another model, or without the moments of the optimizer.
    """
    state = read_progress(path)
    try:
        weights = read_tensor_file(path / "weights.safetensors")
        there = (path / "optimizer.safetensors").exists()
        moments = read_tensor_file(path / "optimizer.safetensors") if there else {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged and cannot be resumed: {error}") from None
    if state.step and not moments:
        raise CheckpointError(
            f"{path}: has the weights after step {state.step:,}, but not the moments of the optimizer, so that it "
            f"cannot be resumed: start another run from the model in the run's folder (--model)"
        )
    own = dict(_weights(objective))
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in weights.items()}:
        names = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
        raise CheckpointError(f"{path}: is the state of another model; these differ: {', '.join(names[:10])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(sharded_like(weights[name], tensor) if is_sharded(tensor) else weights[name])
    _load_moments(moments, objective, optimizer)
    return state


def _written(state: State) -> str:
    content = asdict(state)
    return json.dumps(content | {"checksum": _checksum(content)}, indent=1) + "\n"


def _checksum(content: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _summary(text: str) -> State:
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise ValueError("state.json has no number of steps")
    sum_ = content.pop("checksum", None)  # states of earlier versions have none
    if sum_ is not None and sum_ != _checksum(content):
        raise ValueError("state.json does not have its checksum")
    state = State(**content)
    if not all(isinstance(entry, dict) and "step" in entry for entry in state.history):
        raise ValueError("state.json has an evaluation without a step")
    return state


# ── tensors by name ──


def _weights(objective: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and persistent buffers; shared tensors once."""
    seen: set[int] = set()
    for name, tensor in objective.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _moments(objective: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield the optimizer's tensors of each parameter, as `name/exp_avg`."""
    for name, parameter in objective.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}/{key}", value


def _load_moments(moments: Mapping[str, Tensor], objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {names[id(parameter)]: i for i, parameter in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in moments.items():
        name, _, key = full.rpartition("/")
        if name not in indices:
            raise CheckpointError(f"the saved optimizer state has {name}, which this model does not train")
        if tensor.dim() and tensor.shape != parameters[indices[name]].shape:
            raise CheckpointError(f"the saved optimizer state has {full} in another shape than the model has {name}")
        # Copied into memory with the alignment of the optimizer's own, so that vector units sum in the same order.
        state.setdefault(indices[name], {})[key] = sharded_like(tensor, parameters[indices[name]])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power failure, where the system supports it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

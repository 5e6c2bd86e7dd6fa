"""Engines: they run a plan on the native core, or interpret it in NumPy where the core was not built."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import open_tensors
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, ConfigError, InputError
from pocketbert.features import Features
from pocketbert.runtime import core, reference
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.plan import (
    Attention,
    Columns,
    LayerNorm,
    Lookup,
    Plan,
    Rows,
    Step,
    tensors_of,
)

logger = logging.getLogger("pocketbert")

TOKENS_PER_RUN = 4096  # more would not be faster
BYTES_PER_THREAD = 8 << 20  # of buffers that a run keeps for all its tokens: 546 tokens of a model that is 768 wide
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]


@cache
def native_core() -> type[core.Program] | None:
    """The native core, or None if it was not built or cannot be loaded, which is logged once.

    Raises `ConfigError` if it is of another version.
    """
    try:
        core.library()
    except ImportError:
        logger.warning(
            "the native core was not built (a C++17 compiler is needed): the model runs in NumPy, which is slower"
        )
        return None
    except OSError as error:
        logger.warning("the native core cannot be loaded (%s): the model runs in NumPy, which is slower", error)
        return None
    return core.Program


def chosen_kernels() -> str | None:
    """The kernels that POCKETBERT_KERNEL names; None lets the core choose the fastest."""
    name = os.environ.get("POCKETBERT_KERNEL") or None
    if name is not None:
        try:
            core.capabilities(name)  # not the list: it asks the system for what other kernels need
        except ValueError:
            names = ", ".join(core.available_kernels())
            raise ConfigError(f"POCKETBERT_KERNEL={name}: this processor has {names}") from None
    return name


class Backend(NamedTuple):
    """The kernels and threads of engines."""

    kernels: str | None  # of the native core; None where it was not built, and NumPy computes
    threads: int
    refused: dict[str, str]  # kernels that the processor has instructions for, and why they cannot run all the same


def backend() -> Backend:
    """The default backend of engines in this process; raises `ConfigError` as they do."""
    program = native_core()
    threads = usable_threads()
    if program is None:
        return Backend(None, threads, {})
    name = chosen_kernels()
    return Backend(program(threads, name).kernels, threads, {} if name else dict(core.refused_kernels()))


class Runner(Protocol):
    """Runs one plan over sequences laid end to end; see `reference.run`."""

    def __call__(self, ids: Ints, segments: Ints, starts: Ints, selected: Ints | None = None) -> dict[str, Floats]:
        """The outputs by name."""


class Engine:
    """A `features.Predictor` that needs no PyTorch.

    Args:
        plan: the model.
        threads: how many; by default as many as this process may use.
        config: of the model that the plan was made from, where it was.

    Attributes:
        plan: without tensors where the core, which packs them its own way, runs it.
    """

    run: Runner
    _source: Callable[[], Engine] | None = None  # reads the same model again

    def __init__(self, plan: Plan, threads: int | None = None, config: PreTrainedConfig | None = None) -> None:
        self._start(replace(plan), threads, config)  # a copy: the caller's plan keeps its tensors

    def _start(self, plan: Plan, threads: int | None, config: PreTrainedConfig | None) -> None:
        """Consume `plan`: the core takes its tensors one by one, so that those of large models exist once."""
        self.plan, self.config, program = plan, config, native_core()
        self.threads = threads or usable_threads()
        self.row_bytes = _row_bytes(plan)
        if program is None:
            self.run = partial(reference.run, plan)
        else:
            self.run = NativeRunner(plan, program(self.threads, chosen_kernels()))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        head: str,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        threads: int | None = None,
    ) -> Engine:
        """The model of a folder or hub name, for the task of `head`, the part of a class name after the family.

        It runs in int8 if the weights in the folder are int8, otherwise in fp32; `threads` as for `Engine`, the other
        arguments as for `open_tensors`.

        Raises:
            CheckpointError: the files are missing or damaged, or not of this model; its head is of another task, or not
                in the file, so that the outputs would be random.
            ConfigError: `config.json` cannot be understood.
        """
        config = AutoConfig.from_pretrained(
            name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        config.refuse_other_head(head, name_or_path)
        checkpoint = open_tensors(
            name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        try:
            plan = load_plan(config, checkpoint, head)
        except CheckpointError as error:
            raise CheckpointError(f"{name_or_path} {error}") from None
        engine = cls.__new__(cls)
        engine._start(plan, threads, config)
        is_local = Path(name_or_path).exists()
        engine._source = partial(
            cls.from_pretrained, Path(name_or_path).absolute() if is_local else name_or_path, head,
            revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, threads=threads,
        )  # fmt: skip
        return engine

    def __reduce__(self) -> tuple[Any, ...]:
        """Read the model again on the other side: what was packed for this processor does not travel."""
        if self._source is None:
            raise TypeError("an engine of a plan cannot be pickled; Engine.from_pretrained makes one that can")
        return _read_again, (self._source,)

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; see `features.Predictor`."""
        results: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        lengths = [len(x.input_ids) for x in inputs]
        if too_long := [n for n in lengths if not 0 < n <= self.plan.max_tokens]:
            raise InputError(f"an input has {too_long[0]} tokens: this model takes 1 to {self.plan.max_tokens}")
        selects, gathered = self.plan.selects, self.plan.gathered
        rows = [np.arange(n) if x.rows is None else x.rows for x, n in zip(inputs, lengths, strict=True)]
        for chunk in self._chunks(lengths, [len(r) if selects else 1 for r in rows]):
            starts = np.cumsum([0, *(lengths[i] for i in chunk)])
            ids = np.concatenate([inputs[i].input_ids for i in chunk])
            segments = np.concatenate([inputs[i].token_type_ids for i in chunk])
            selected = [rows[i] + start for i, start in zip(chunk, starts[:-1], strict=True)]
            outputs = self.run(ids, segments, starts, np.concatenate(selected) if selects else None)
            for name, array in outputs.items():
                parts: Iterable[np.ndarray] = array  # one row per text
                if name not in gathered:
                    parts = (array[r] for r in selected)
                elif gathered[name].selected:
                    parts = np.split(array, np.cumsum([len(r) for r in selected])[:-1])
                for i, part in zip(chunk, parts, strict=True):
                    results[i][name] = part
        return results

    def _chunks(self, lengths: Sequence[int], gathered: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive inputs that run together, given the tokens and the rows after a `Gather` of each."""
        token_bytes, gathered_bytes = self.row_bytes
        limit = BYTES_PER_THREAD * self.threads
        chunk: list[int] = []
        total = size = 0
        for i, length in enumerate(lengths):
            more = length * token_bytes + gathered[i] * gathered_bytes
            if chunk and (total + length > TOKENS_PER_RUN or size + more > limit):
                yield chunk
                chunk, total, size = [], 0, 0
            chunk.append(i)
            total, size = total + length, size + more
        if chunk:
            yield chunk


def _read_again(source: Callable[[], Engine]) -> Engine:
    return source()


class NativeRunner:
    """A `Runner` of a plan that was handed over to a program of the core, step by step; the plan loses its tensors."""

    def __init__(self, plan: Plan, program: core.Program) -> None:
        self.program = program
        widths, shared = plan.buffers()
        self.numbers = {name: self.program.buffer(width, name not in shared) for name, width in widths.items()}
        tensors = plan.take_tensors()
        uses = Counter(name for step in plan.steps() for name in tensors_of(step))
        for stage in plan.stages_to_run():
            if isinstance(stage, Rows):
                for step in stage.steps:
                    self._step(step, tensors)
                    for name in tensors_of(step):
                        uses[name] -= 1
                        if not uses[name]:
                            del tensors[name]
            elif isinstance(stage, Attention):
                query, key, value = (self._place(c) for c in (stage.query, stage.key, stage.value))
                bias = None if stage.bias is None else tensors[stage.bias]
                target = self._place(stage.target)
                self.program.attention(query, key, value, target, stage.heads, stage.bfloat16, bias)
            else:
                self.program.gather(self._place(stage.source), self._place(stage.target), stage.selected)
        self.outputs = plan.outputs
        self.places = [self._place(_columns_of(output)) for output in plan.outputs.values()]

    def _place(self, columns: Columns) -> tuple[int, int, int]:
        return self.numbers[columns.buffer], columns.start, columns.width

    def _step(self, step: Step, tensors: Mapping[str, np.ndarray]) -> None:
        target = self._place(step.target)
        if isinstance(step, Lookup):
            how = (step.index, step.add, step.uncounted)
            if step.scales is None:
                self.program.lookup(target, tensors[step.table], *how)
            else:
                self.program.lookup_s8(target, tensors[step.table], tensors[step.scales], *how)
            return
        source, weight, bias = self._place(step.source), tensors[step.weight], tensors[step.bias]
        if isinstance(step, LayerNorm):
            self.program.layer_norm(source, target, weight, bias, step.eps)
            return
        residual = None if step.residual is None else self._place(step.residual)
        scale = None if step.residual_scale is None else tensors[step.residual_scale]
        rest = (bias, step.groups, step.activation or "", residual, scale)
        if step.scales is None:
            self.program.linear(source, target, weight, *rest)
        else:
            outlier_weight = None if step.outlier_weight is None else tensors[step.outlier_weight]
            self.program.linear_s8(source, target, weight, tensors[step.scales], *rest, outlier_weight)

    def __call__(self, ids: Ints, segments: Ints, starts: Ints, selected: Ints | None = None) -> dict[str, Floats]:
        """Run the plan; see `reference.run`."""
        ids, segments, starts = (np.ascontiguousarray(x, np.int32) for x in (ids, segments, starts))
        rows = None if selected is None else np.ascontiguousarray(selected, np.int32)
        arrays = self.program.run(ids, segments, starts, self.places, rows)
        return {
            name: array if isinstance(c, Columns) else array[:, 0]
            for (name, c), array in zip(self.outputs.items(), arrays, strict=True)
        }


def _columns_of(output: Columns | tuple[Columns, int]) -> Columns:
    return output if isinstance(output, Columns) else Columns(output[0].buffer, 1, output[0].start + output[1])


def _row_bytes(plan: Plan) -> tuple[int, int]:
    """Bytes per token, and per row after a `Gather`, of the buffers that outlive a stage and of the outputs."""
    widths, shared = plan.buffers()
    gathered = plan.gathered_buffers
    places = [_columns_of(output) for output in plan.outputs.values()]
    kept = [(name, widths[name]) for name in shared] + [(place.buffer, place.width) for place in places]
    sizes = [4 * sum(width for name, width in kept if (name in gathered) == which) for which in (False, True)]
    return sizes[0], sizes[1]


def usable_threads() -> int:
    """How many threads this process may keep busy: its processors, or its control group's quota if that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return count

"""What the native core bears: forks, threads, hostile calls, and lengths of every kind."""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.core import ask, f, program
from pocketbert.runtime.engine import native_core

if native_core() is None:
    pytest.skip("the native core was not built", allow_module_level=True)

from pocketbert.runtime.core import available_kernels, peak_flops

FUZZER = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_native"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def one(made: Any, word: int, output: tuple[int, int, int]) -> np.ndarray:
    """The answer for a sequence of one word."""
    answer: np.ndarray = made.run(
        np.array([word], np.int32), np.zeros(1, np.int32), np.array([0, 1], np.int32), [output]
    )[0]
    return answer


# ── forks ──


def child(work: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 for true; it is killed if it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            import signal

            signal.alarm(300)
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_program_works_in_the_child_of_a_fork() -> None:
    made = program()
    expected = ask(made)
    assert child(lambda: np.array_equal(ask(made), expected) and np.array_equal(ask(program()), expected)) == 0
    assert child(lambda: child(lambda: np.array_equal(ask(made), expected)) == 0) == 0  # and in its child's
    assert np.array_equal(ask(made), expected)


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_runs_the_program() -> None:
    made = program()
    expected = ask(made)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            ask(made, 1000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert [child(lambda: np.array_equal(ask(made), expected)) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        thread.join()


SHARED: list[Any] = []  # what the pool's processes find after the fork


def _length_sum(length: int) -> float:
    return float(ask(SHARED[0], length).sum())


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_multiprocessing() -> None:
    SHARED[:] = [program()]
    lengths = [1, 5, 100, 300]
    expected = [_length_sum(n) for n in lengths]
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map_async(_length_sum, lengths).get(timeout=300) == expected


# ── threads ──


def test_programs_that_share_a_pool_run_from_several_threads() -> None:
    programs = [program() for _ in range(3)]
    expected = {n: ask(programs[0], n) for n in (1, 90, 300)}
    wrong: list[int] = []

    def run(i: int) -> None:
        for n, answer in list(expected.items()) * 10:
            if not np.array_equal(ask(programs[i % 3], n), answer):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_steps_are_added_while_another_thread_runs_the_program() -> None:
    made = program()
    expected = ask(made)
    thread = threading.Thread(target=lambda: [ask(made) for _ in range(30)])
    thread.start()
    for _ in range(100):
        buffer = made.buffer(16, False)
        made.layer_norm((2, 0, 16), (buffer, 0, 16), f(16), f(16), 1e-5)
    thread.join()
    assert np.array_equal(ask(made), expected)


def test_ids_that_change_during_a_run_stay_inside_their_table() -> None:
    made = program()
    ids = np.zeros(2000, np.int32)
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            ids[:] = 2**30
            ids[:] = 0

    thread = threading.Thread(target=spoil)
    thread.start()
    for _ in range(30):
        try:
            made.run(ids, ids, np.array([0, 2000], np.int32), [(2, 0, 16)])
        except ValueError as error:
            assert "outside its table" in str(error)  # noqa: PT017
    stop.set()
    thread.join()


EXIT = """
import sys, threading
from helpers.core import ask, program
made = sys.kept = program()
ready = threading.Barrier(4)
def run():
    ask(made, 1000)
    ready.wait()
    while True:
        ask(made, 1000)
for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
ready.wait()
"""


def test_the_process_ends_while_daemon_threads_run() -> None:
    path = os.pathsep.join([str(FUZZER.parents[1] / "tests"), *sys.path])
    environment, command = {**os.environ, "PYTHONPATH": path}, [sys.executable, "-c", EXIT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


# ── hostile plans ──


def test_a_step_that_is_refused_leaves_no_trace() -> None:
    made = program()
    expected = ask(made)
    whole, weight = (2, 0, 16), f(16, 16)
    for arguments in (
        ((1, 0, 16), whole, weight, f(15), 1, "", None, None),
        ((1, 0, 16), whole, weight, f(16), 1, "", (0, 0, 8), None),
        ((1, 0, 16), whole, weight, f(16), 1, "", None, f(16)),
        ((1, 0, 16), whole, weight, f(16), 1, "", whole, f(0)),
        ((1, 2**31 - 1, 16), (1, 2**31 - 8, 16), weight, f(16), 1, "", None, None),
    ):
        with pytest.raises(ValueError):
            made.linear(*arguments)
    with pytest.raises(ValueError, match="another buffer"):
        made.gather(whole, whole, False)
    assert np.array_equal(ask(made), expected)
    made.lookup(whole, f(11, 16), "word", False)  # what is refused has not pooled either


def test_columns_without_values_are_not_read() -> None:
    core = native_core()
    assert core is not None
    made = core(1)
    shared, local = made.buffer(8, False), made.buffer(4, True)
    made.lookup((shared, 0, 3), f(11, 3), "word", False)
    made.lookup((shared, 5, 3), f(11, 3), "word", False)
    made.lookup((local, 0, 4), f(11, 4), "word", False)
    for columns in ((shared, 0, 8), (shared, 2, 2), (shared, 3, 2)):
        with pytest.raises(ValueError, match="before it is written"):
            made.layer_norm(columns, columns, f(columns[2]), f(columns[2]), 1e-5)
        with pytest.raises(ValueError, match="an output must be"):
            one(made, 1, columns)
    made.lookup((shared, 3, 2), f(11, 2), "word", False)
    made.layer_norm((shared, 0, 8), (shared, 0, 8), f(8), f(8), 1e-5)
    made.attention((shared, 0, 4), (shared, 0, 4), (shared, 0, 4), (shared, 4, 4), 1, False)
    with pytest.raises(ValueError, match="before it is written"):  # a local buffer ends with its row program
        made.layer_norm((local, 0, 4), (local, 0, 4), f(4), f(4), 1e-5)


def refused(message: str, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call(*arguments)


def test_columns_that_overlap_by_half_are_refused() -> None:
    """A step may replace what it reads, or write elsewhere; a part of it would be read after it was written."""
    made = program()
    expected = ask(made)
    source, target, half = (1, 0, 8), (2, 8, 8), (2, 4, 8)
    norm = f(8), f(8), 1e-5
    refused("residual must be its target", made.linear, source, target, f(8, 8), f(8), 1, "", half, None)
    refused("must replace its source", made.layer_norm, half, target, *norm)
    refused("must keep the width", made.attention, target, target, (2, 8, 4), (1, 0, 8), 1, False)
    assert np.array_equal(ask(made), expected)
    made.linear(source, target, f(8, 8), f(8), 1, "", target, None)
    made.layer_norm(target, target, *norm)
    assert not np.array_equal(ask(made), expected)


def test_what_needs_all_tokens_cannot_follow_a_gather() -> None:
    made = program()
    first = made.buffer(16, False)
    made.gather((2, 0, 16), (first, 0, 16), False)
    other = made.buffer(16, False)
    refused("lookup cannot follow a gather", made.lookup, (other, 0, 16), f(11, 16), "word", False)
    firsts = (first, 0, 16)
    refused("attention cannot follow a gather", made.attention, firsts, firsts, firsts, (other, 0, 16), 1, False)
    answer = one(made, 3, (first, 0, 16))
    assert np.array_equal(answer, one(made, 3, (2, 0, 16)))


def test_sizes_have_limits() -> None:
    """Of an array, of the number of buffers, of a sequence and of a batch."""
    core = native_core()
    assert core is not None
    made, wide = core(1), 2**24
    refused("array is too large", made.lookup, (0, 0, 1), np.zeros((2**28, 0), np.float32), "word", False)
    for _ in range(2**16):
        made.buffer(wide, False)
    refused("too many buffers", made.buffer, 1, False)
    made.lookup((0, 0, wide), np.zeros((1, wide), np.float32), "word", False)
    made.attention((0, 0, wide), (0, 0, wide), (0, 0, wide), (1, 0, wide), wide, False)
    ids = np.zeros(65, np.int32)
    refused("too many sequences", made.run, ids, ids, np.arange(66, dtype=np.int32), [])
    made = program(longest=7)
    assert ask(made, 7).shape == (7, 16)
    refused("longer than the table of positions", ask, made, 8)


def test_a_measurement_of_unknown_arithmetic() -> None:
    for kernels in available_kernels():
        refused("unknown arithmetic: fp4", peak_flops, "fp4", 1, kernels)


def test_sums_of_int8_fit_32_bits() -> None:
    core = native_core()
    assert core is not None
    for kernels in available_kernels():
        made = core(1, kernels)
        for width in (2**16, 2**16 + 1, 1):
            made.buffer(width, False)
        ends = np.full((1, 2**16 + 1), -128, np.int8), np.ones(1, np.float32), np.zeros(1, np.float32)
        made.lookup((0, 0, 2**16), np.ones((1, 2**16), np.float32), "word", False)
        made.lookup((1, 0, 2**16 + 1), np.ones((1, 2**16 + 1), np.float32), "word", False)
        with pytest.raises(ValueError, match="too many numbers"):
            made.linear_s8((1, 0, 2**16 + 1), (2, 0, 1), *ends, 1, "", None, None, None)
        made.linear_s8(
            (0, 0, 2**16), (2, 0, 1), np.ascontiguousarray(ends[0][:, 1:]), *ends[1:], 1, "", None, None, None
        )
        found = one(made, 0, (2, 0, 1))
        np.testing.assert_allclose(found, -128 * 2**16, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-45, 3e38])
def test_int8_of_numbers_at_the_ends(value: float) -> None:
    core = native_core()
    assert core is not None
    for kernels in available_kernels():
        made = core(1, kernels)
        for width in (35, 2):
            made.buffer(width, False)
        for place in (3, 20, 34):
            table = np.zeros((1, 35), np.float32)
            table[0, place] = value
            made.lookup((0, 0, 35), table, "word", False)
            weight = np.ones((2, 35), np.int8)
            made.linear_s8(
                (0, 0, 35), (1, 0, 2), weight, np.ones(2, np.float32), np.zeros(2, np.float32), 1, "", None, None, None
            )
            found = one(made, 0, (1, 0, 2))
            np.testing.assert_allclose(found, value if np.isfinite(value) else np.nan, rtol=1e-5, atol=1e-35)


def test_numbers_at_odd_addresses() -> None:
    core = native_core()
    assert core is not None
    made = core(1)
    made.buffer(4, False)
    table = f(11, 4)
    odd = np.frombuffer(b"?" + table.tobytes(), np.uint8)[1:].view(np.float32).reshape(11, 4)
    made.lookup((0, 0, 4), odd, "word", False)
    del odd
    found = one(made, 7, (0, 0, 4))
    assert np.array_equal(found[0], table[7])


def test_hostile_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FUZZER.parent)  # where a script looks for the modules beside it
    fuzz = runpy.run_path(str(FUZZER))["fuzz"]
    counts = fuzz(0, 400, seed=7)
    assert counts["compared"] > 100
    assert counts["refused calls"] > 100


# ── memory ──


def test_memory_does_not_grow_with_the_variety_of_shapes() -> None:
    made = program()
    ask(made, 3000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for length in range(1, 3000, 23):
        ask(made, length)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 8 * 2**20

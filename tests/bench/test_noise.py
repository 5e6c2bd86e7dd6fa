"""What counts as disturbed, and the estimate of the time left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketbert.bench.noise import (
    MOST_INTERRUPTED,
    MOST_SPREAD,
    MOST_STOLEN,
    disturbance,
    interruptions,
    stolen_seconds,
)
from pocketbert.bench.report import row_of
from pocketbert.bench.time_left import TimeLeft
from pocketbert.bench.worker import Turn

NAMES = {"model": "m", "engine": "e", "precision": "int8", "kernels": "k", "batch": 1, "length": 8}


def test_reasons() -> None:
    assert disturbance(1.1, 1.0, MOST_INTERRUPTED, MOST_STOLEN) == ""
    assert disturbance(1.1, 1.0, None, None) == ""
    assert disturbance(1.1, 1.0, 0.5, 0.0) == "50 % of the passes were interrupted"
    assert disturbance(1.1, 1.0, 0.0, 0.04) == "4 % of the time was stolen by the host"
    assert disturbance(1.01 * MOST_SPREAD, 1.0, None, None) == "median 1.16 times the least"
    assert disturbance(2.0, 1.0, 1.0, 1.0).count(",") == 2


def test_a_row_of_turns() -> None:
    turns = [Turn(9.0, [2.0, 3.0], 1, 0.0), Turn(7.0, [4.0], 1, 0.5), Turn(8.0, [2.5], 0, 0.0)]
    row = row_of(turns, threads=2, **NAMES)
    assert (row.median_ms, row.least_ms, row.after_others_ms, row.passes) == (2750.0, 2000.0, 8000.0, 4)
    assert row.disturbed == (
        "50 % of the passes were interrupted, 2 % of the time was stolen by the host, median 1.38 times the least"
    )
    unknown = row_of([Turn(1.0, [1.0], None, None)], threads=2, **NAMES)
    assert unknown.disturbed == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be pinned")
def test_a_neighbour_on_the_same_processor_interrupts() -> None:
    processor = min(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, {{{processor}}})
print("ready", flush=True)
while True: pass
"""
    neighbour = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert neighbour.stdout is not None
    neighbour.stdout.readline()
    before, allowed = interruptions(), os.sched_getaffinity(0)
    assert before is not None
    os.sched_setaffinity(0, {processor})
    try:
        while interruptions() == before:
            pass
    finally:
        os.sched_setaffinity(0, allowed)
        neighbour.kill()
        neighbour.wait()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no counter")
def test_stolen_time_only_grows() -> None:
    first = stolen_seconds()
    time.sleep(0.02)
    second = stolen_seconds()
    assert first is not None
    assert second is not None
    assert 0 <= first <= second


def test_time_left_follows_the_pace() -> None:
    now = 0.0
    left = TimeLeft({"load": 2.0, "measure": 1.0}, clock=lambda: now)
    left.expect(load=4, measure=10.0)
    assert left.seconds() == 18.0
    with left.step("load"):
        now = 1.0
        assert left.seconds() == 17.0
        now = 6.0
        assert left.seconds() == 16.0  # late: this one may end at any moment
    assert left.seconds() == 3 * 6.0 + 10.0
    with left.step("measure", 10.0):
        now = 26.0
    assert left.seconds() == 18.0
    left.expect(load=0)
    assert left.seconds() == 0.0

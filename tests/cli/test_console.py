"""Signals that wait; cells that stay in their columns."""

import io
import os
import signal
import threading

import pytest
from rich.console import Console
from rich.text import Text

from pocketbert.cli.console import isolated, signals_blocked, table


def test_signals_wait_although_another_thread_would_take_them() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    finished = False

    def interrupted_twice() -> None:
        nonlocal finished
        with signals_blocked():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                other.join(0.05)  # time enough to deliver it
            finished = True

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_twice()
    finally:
        end.set()
        other.join()
    assert finished
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_may_print() -> None:
    failures: list[BaseException] = []

    def block() -> None:
        try:
            with signals_blocked():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert not failures


def test_cells_written_from_right_to_left_are_isolated_on_a_terminal() -> None:
    cells: list[str | Text] = ["رائع 12", "film", Text("مُمِلّ " * 12, "green")]
    shown = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system=None)
        filled = table(["Text", "Label", "Why"])
        filled.add_row(*(isolated(cell) for cell in cells))
        console.print(filled)
        assert isinstance(console.file, io.StringIO)
        shown[terminal] = console.file.getvalue()
    lines = shown[True].splitlines()
    assert "\u2068رائع 12\u2069" in shown[True]
    assert "\u2068film" not in shown[True]
    assert sum("مُمِلّ" in line for line in lines) > 2  # the last cell takes several lines, each isolated
    assert all(line.count("\u2068") == line.count("\u2069") for line in lines)
    assert shown[True].replace("\u2068", "").replace("\u2069", "") == shown[False]

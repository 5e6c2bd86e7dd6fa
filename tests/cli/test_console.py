"""Signals that wait."""

import os
import signal
import threading

import pytest

from pocketbert.cli.console import signals_blocked


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

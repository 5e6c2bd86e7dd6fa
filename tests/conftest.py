"""What holds for every test: nothing leaves this machine, and real data is optional."""

import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# All are read when a library is imported, so not in a fixture.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models only lose by sharing out, and the bits of sums depend on it
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"  # runs train in fp32 on every processor: their bits are compared


hypothesis.settings.register_profile(  # a machine with much to do is slow, and nothing else
    "no clock", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no clock")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever a test made of the number of PyTorch's threads, the next begins with one."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def no_listener() -> Iterator[None]:
    """What a command of one test listens with, the next does not hear."""
    logger = logging.getLogger("pocketbert")
    listeners = list(logger.handlers)
    yield
    logger.handlers[:] = listeners


@pytest.fixture(scope="session", autouse=True)
def no_disk() -> Iterator[None]:
    """Files are written as ever, but nobody waits until the disk has them: no test outlives a failure of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw nothing, as where matplotlib is not installed: two pictures take longer than the training of a test."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Processes that a test starts can be interrupted, also where the tests run in the background.

    A shell has background processes ignore SIGINT, and whatever they start inherits that, but not a handler.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_process_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that a test started and did not end, because it failed, are ended here: no later test is blamed."""
    started: list[subprocess.Popen[Any]] = []
    create = subprocess.Popen.__init__

    def record(self: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **options)
        started.append(self)

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    yield
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # of what was written and not yet sent
                    stream.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tiny model for every task, by its name."""
    from helpers.models import task_models

    return task_models(tmp_path_factory.mktemp("models"))


#: What imports TensorFlow, which takes seconds; from the front of the line, one process takes all of it.
FIRST = (
    "tests/tf/",
    "tests/exporters/",
    "tests/test_docs.py",
    "tests/test_families.py",
    "tests/checkpoints/test_keras",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
    if "POCKETBERT_DATA" not in os.environ:
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason="POCKETBERT_DATA is not set"))


def pytest_collection_finish() -> None:
    """All that modules hold stays to the end: half a million objects, which the collector need not visit ever again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)

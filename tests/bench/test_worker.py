"""Engines in processes: crashes, kills and Ctrl-C, each of real processes."""

import contextlib
import json
import os
import pty
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.peers import Fragile, bench, descendants
from pocketbert.bench.measure import Bench, random_batch
from pocketbert.bench.peers import OURS
from pocketbert.bench.subjects import Subject, with_random_weights
from pocketbert.bench.worker import EngineError, Worker
from pocketbert.checkpoints import write_tensors
from pocketbert.configs import BertConfig

CONFIG = BertConfig(
    vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=40,
)  # fmt: skip
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(autouse=True)
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds on a busy machine."""
    monkeypatch.setattr("pocketbert.bench.measure.peaks", lambda all_kernels: {})


@pytest.fixture
def subject() -> Subject:
    return with_random_weights("made-up", CONFIG)


@pytest.fixture
def model(subject: Subject, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    subject.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", {f"bert.{name}": x for name, x in subject.tensors.items()})
    return folder


@pytest.mark.parametrize(
    ("place", "by", "says"),
    [
        ("files", 0, "crashed: Segmentation fault"),
        ("load", -1, "failed: this engine"),
        ("pass", signal.SIGKILL, "was killed"),
        pytest.param("load", signal.SIGABRT, "crashed: Aborted", marks=pytest.mark.slow),
        pytest.param("files", -1, "failed: this engine", marks=pytest.mark.slow),
        pytest.param("pass", -1, "failed: this engine", marks=pytest.mark.slow),
    ],
)
def test_an_engine_that_fails_is_named_and_the_others_are_measured(
    place: str, by: int, says: str, subject: Subject, tmp_path: Path
) -> None:
    fragile, healthy = Fragile("fp32", place=place, by=by), Fragile("fp32", engine="healthy")  # type: ignore[arg-type]
    with Bench(tmp_path, (fragile, healthy)) as run:
        rows = run.shape(subject, run.prepare(subject), (1, 8), seconds=0.0)
        assert [row.engine for row in rows] == [*(peer.name for peer in OURS), "healthy fp32"]
        [(name, reason)] = run.report.missing.items()
    assert name == "fragile fp32, made-up"
    assert says in reason
    assert "\n" not in reason
    assert not list(tmp_path.glob(".*"))


def test_a_worker_that_is_killed_between_two_calls(subject: Subject, tmp_path: Path) -> None:
    worker = Worker()
    assert worker.load(Fragile("fp32"), subject, tmp_path, None) == ""
    worker.use(random_batch(subject, (1, 4)))
    turn = worker.turn(0.0)
    assert len(turn.times) == 1
    assert 0 < turn.first < 60
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(EngineError, match="its process was killed"):
            worker.turn(0.0)
    worker.end(tmp_path)


def test_a_slow_pass_ends_a_turn(subject: Subject, tmp_path: Path) -> None:
    worker = Worker()
    worker.load(Fragile("fp32"), subject, tmp_path, None)
    worker.use([])
    assert len(worker.turn(1000.0).times) == 10
    assert len(worker.turn(1e-9).times) == 1
    worker.end(tmp_path)


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 300  # only what hangs takes so long
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of processes")
@pytest.mark.parametrize(
    ("moment", "presses"),
    [
        ("start", 1),
        ("files", 2),
        pytest.param("measuring", 1, marks=pytest.mark.slow),
        pytest.param("measuring", 2, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_leaves_nothing_behind(moment: str, presses: int, model: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    endless = Fragile("fp32", place="files" if moment == "files" else "nowhere", by=-2)
    process = bench(endless, model, model, "--full", "--length", "8", "--batch", "1", env={"TMPDIR": str(temporary)})
    assert process.stderr
    if moment == "start":
        wait_until(lambda: list(temporary.glob("pocketbert-bench-*")))
    elif moment == "files":
        wait_until(lambda: list(temporary.glob("*/.*.tmp/model")))
    else:
        assert "made-up" not in process.stderr.readline()  # a row of the first model, "model"
    started = descendants(process.pid)
    assert moment == "start" or started
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert not list(temporary.iterdir())
    wait_until(lambda: not any(map(alive, started)))  # some end when they see that their parent has
    if moment == "measuring" and presses == 1:
        report = json.loads(out)
        assert not report["complete"]
        assert {row["engine"] for row in report["shapes"]} >= {peer.name for peer in OURS}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of processes")
def test_engines_end_with_a_benchmark_that_is_killed(model: Path, tmp_path: Path) -> None:
    endless = Fragile("fp32", place="files", by=-2)
    process = bench(endless, model, "--full", "--exports", tmp_path)
    wait_until(lambda: list(tmp_path.glob(".*.tmp/model")))
    started = descendants(process.pid)
    assert started
    process.kill()
    wait_until(lambda: not any(map(alive, started)))
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_terminal_shows_tables_and_the_time_left(model: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    process = bench(
        Fragile("fp32", place="load", by=0), model, "--full", "--length", "8", "--length", "9", "--batch", "1",
        "--exports", tmp_path, stdout=follower, stderr=follower, env={"TERM": "xterm-256color", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while block := os.read(leader, 4096):
            seen += block
    os.close(leader)
    assert process.wait(300) == 0
    text = seen.decode()
    assert re.search(r"0:\d\d:\d\d left.{0,20}model: loading PocketBERT", text)
    final = text[text.rindex("model, 1×9 tokens") :]
    assert text.count("model, 1×8 tokens") == text.count("model, 1×9 tokens") == 1
    assert "PocketBERT int8" in final
    assert "fragile fp32, model: failed: its process crashed" in " ".join(final.split())
    assert "{" not in final  # JSON is for pipes

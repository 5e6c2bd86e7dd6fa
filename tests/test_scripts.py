"""The scripts beside the package: GLUE downloaded from a server of this test, and the model card's own command."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.configs import SqueezeBertConfig
from pocketbert.data.glue import GLUE
from pocketbert.models.squeezebert import SqueezeBertForSequenceClassification

ROOT = Path(__file__).parents[1]
WORDS = ("one", "two", "three", "four")


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ── utils/download_glue_data.py ──

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
MSR = HEADER + '1\t1\t2\tHe said " so .\tSo .\n0\t3\t4\tA .\tB .\n1\t5\t6\tC .\tD .\n'


def zipped(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


FILES = {
    "/RTE.zip": zipped(
        {
            "RTE/": "",
            "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tA\tC\tnot_entailment\n",
            "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n",
            "RTE/test.tsv": "index\tsentence1\tsentence2\n0\tA\tB\n",
            "__MACOSX/._dev.tsv": "junk",
            "../escaped.tsv": "outside",
        }
    ),
    "/msr_paraphrase_train.txt": f"\ufeff{MSR}".encode(),
    "/msr_paraphrase_test.txt": f"\ufeff{MSR}".encode(),
    "/mrpc_dev_ids.tsv": b"3\t4\n",
}


class Server(ThreadingHTTPServer):
    """Serves `FILES`; breaks off in the middle of a file when told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.breaks_off = False
        self.files = dict(FILES)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        given = self.headers.get("Range")
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given else 0
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest[: len(rest) // 2] if self.server.breaks_off else rest)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def script(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = load("utils/download_glue_data.py")

    def source(name: str) -> Any:
        return module.Source(name, hashlib.sha256(FILES[f"/{name}"]).hexdigest())

    monkeypatch.setattr(module, "PUBLISHED", f"http://127.0.0.1:{server.server_port}/")
    data = {
        "RTE": module.Data((source("RTE.zip"),), (2, 1, 1)),
        "MRPC": module.Data(tuple(source(name[1:]) for name in list(FILES)[1:]), (2, 1, 3)),
    }
    monkeypatch.setattr(module, "DATA", data)
    return module


def test_published_facts() -> None:
    data = load("utils/download_glue_data.py").DATA
    assert sorted(data) == sorted(task.folder for task in GLUE.values())
    for task in GLUE.values():
        assert data[task.folder].rows[-len(task.test) :] == tuple(rows for _, rows in task.submission)
        assert all(len(source.sha256) == 64 for source in data[task.folder].sources)


def test_download_lay_out_and_do_nothing_twice(
    script: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "glue"
    assert script.main(["--data_dir", str(folder)]) == 0
    assert f"RTE: complete, 2, 1, 1 rows in {folder / 'RTE'}" in capsys.readouterr().out
    assert (folder / "MRPC" / "dev.tsv").read_text() == f"{HEADER}0\t3\t4\tA .\tB .\n"
    assert '1\t1\t2\tHe said " so .\tSo .\n' in (folder / "MRPC" / "train.tsv").read_text()
    test = (folder / "MRPC" / "test.tsv").read_text().splitlines()
    assert test[:2] == ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", '0\t1\t2\tHe said " so .\tSo .']
    assert not (tmp_path / "escaped.tsv").exists()
    assert sorted(path.name for path in (folder / "RTE").iterdir()) == ["dev.tsv", "test.tsv", "train.tsv"]
    count = len(server.asked)
    assert script.main(["--data_dir", str(folder)]) == 0
    assert len(server.asked) == count
    (folder / "RTE" / "dev.tsv").unlink()  # mended from what was downloaded
    assert script.main(["--data_dir", str(folder), "--tasks", "RTE"]) == 0
    assert len(server.asked) == count


def test_a_download_that_breaks_off_goes_on(
    script: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks_off = True
    arguments = ["--data_dir", str(tmp_path), "--tasks", "RTE"]
    assert script.main(arguments) == 1
    assert "the connection broke off" in capsys.readouterr().err
    server.breaks_off = False
    assert script.main(arguments) == 0
    half = len(FILES["/RTE.zip"]) // 2
    assert server.asked == [("/RTE.zip", None), ("/RTE.zip", f"bytes={half}-")]


def test_what_is_not_the_published_file_is_refused(
    script: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/RTE.zip"] = b"another file"
    arguments = ["--data_dir", str(tmp_path), "--tasks", "RTE"]
    assert script.main(arguments) == 1
    error = capsys.readouterr().err
    assert "was not the published file: its SHA-256 was " in error
    assert "it is removed, run this again" in error
    assert not (tmp_path / "downloads" / "RTE.zip").exists()
    del server.files["/RTE.zip"]
    assert script.main(arguments) == 1
    assert "Not Found" in capsys.readouterr().err


def test_without_a_network(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "PUBLISHED", "http://127.0.0.1:9/")
    arguments = ["--data_dir", str(tmp_path), "--tasks", "RTE"]
    assert script.main(arguments) == 1
    place = tmp_path / "downloads" / "RTE.zip"
    error = capsys.readouterr().err
    assert "cannot be read (" in error
    assert f"bring the file from elsewhere to {place}" in error
    place.write_bytes(FILES["/RTE.zip"])
    assert script.main(arguments) == 0


def test_microsofts_own_files_and_unknown_tasks(script: Any, server: Server, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"):
        (own / name).write_bytes(FILES[f"/{name}"].replace(b"A .", b"A."))  # not tokenised
    glue = tmp_path / "glue"
    assert script.main(["--data_dir", str(glue), "--tasks", "MRPC", "--path_to_mrpc", str(own)]) == 0
    assert "A." in (glue / "MRPC" / "dev.tsv").read_text()
    assert [path for path, _ in server.asked] == ["/mrpc_dev_ids.tsv"]
    with pytest.raises(SystemExit):
        script.main(["--tasks", "SNLI"])


# ── examples/text-classification/run_glue.py ──


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pieces = [*SPECIAL, *WORDS]
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=len(pieces), hidden_size=32, embedding_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.2,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
    )  # fmt: skip
    SqueezeBertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer_of(pieces).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_model_cards_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "MRPC"
    folder.mkdir()
    rows = [f"{int(a == b)}\t{i}\t{i}\t{a} three\t{b}" for i in range(5) for a in WORDS for b in WORDS[:2]]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text(HEADER + "\n".join(rows))
    (folder / "test.tsv").write_text("index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t1\tone\tone\n")
    script: Any = load("examples/text-classification/run_glue.py")
    out = tmp_path / "out"
    arguments = [
        "--model_name_or_path", str(model), "--task_name", "mrpc", "--data_dir", str(folder), "--output_dir", str(out),
        "--overwrite_output_dir", "--do_train", "--do_eval", "--do_predict", "--num_train_epochs", "2",
        "--learning_rate", "3e-05", "--per_device_train_batch_size", "16", "--save_steps", "20000",
    ]  # fmt: skip
    assert script.main(arguments) == 0
    results = (out / "eval_results_mrpc.txt").read_text()
    assert [line.split(" = ")[0] for line in results.splitlines()] == [
        "eval_accuracy", "eval_f1", "eval_loss", "eval_score",
    ]  # fmt: skip
    run = json.loads((out / "run.json").read_text())
    assert run["options"]["batch_size"] == 16
    assert f"eval_accuracy = {run['best']['accuracy']}" in results
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == ["MRPC.tsv"]
    assert script.main(arguments) == 0  # overwritten
    assert script.main([one for one in arguments if one != "--overwrite_output_dir"]) == 1
    assert "holds a run" in capsys.readouterr().err
    assert script.main([*arguments[:-9], "--do_eval"]) == 0


def test_folders_of_something_else_are_not_overwritten(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script: Any = load("examples/text-classification/run_glue.py")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("years of work")
    flags = ["--model_name_or_path", str(model), "--data_dir", "x", "--output_dir", str(tmp_path / "thesis")]
    assert script.main([*flags, "--task_name", "mrpc", "--overwrite_output_dir", "--do_train"]) == 1
    assert "it is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "a.tex").exists()
    assert script.main([*flags, "--task_name", "snli"]) == 1
    assert "'snli' is no GLUE task" in capsys.readouterr().err


# ── scripts ──


@pytest.mark.parametrize("script", ["fuzz_native", "fuzz_service", "kill_and_resume"])
def test_a_package_without_its_core_is_not_tried(script: str, tmp_path: Path) -> None:
    """NumPy would be tried in its place, which is right but proves nothing."""
    (tmp_path / "pocketbert").mkdir()
    (tmp_path / "pocketbert" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts" / script)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    [line] = run.stderr.splitlines()
    assert line.startswith(f"{script}: {tmp_path / 'pocketbert'} has no native core")


def test_check_native_names_what_is_missing_first(tmp_path: Path) -> None:
    for tool in ("dirname", "mktemp", "python3"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    command = [shutil.which("bash") or "bash", str(ROOT / "scripts" / "check_native")]
    run = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert {"missing: g++", "missing: clang++"} <= set(run.stderr.splitlines())
    assert run.stderr.splitlines()[-1] == "install them, or check the rest with --partial"

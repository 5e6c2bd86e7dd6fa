"""The scripts beside the package: GLUE downloaded from a server of this test, and the model card's own command."""

import hashlib
import importlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.scripts import load
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.configs import SqueezeBertConfig
from pocketbert.data.glue import GLUE
from pocketbert.models.squeezebert import SqueezeBertForSequenceClassification
from pocketbert.runtime.core import library
from pocketbert.runtime.engine import native_core

ROOT = Path(__file__).parents[1]
WORDS = ("one", "two", "three", "four")


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
        "eval_accuracy", "eval_f1", "eval_loss", "eval_brier_loss", "eval_calibration_error", "eval_score",
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
    assert "'snli' is not a GLUE task" in capsys.readouterr().err


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


@pytest.mark.skipif(native_core() is None, reason="the native core was not built")
def test_a_wheel_is_refused_for_what_its_library_needs(tmp_path: Path) -> None:
    pytest.importorskip("lief", reason="what reads libraries is not installed")
    script: Any = load("scripts/wheels")
    target = script.TARGETS["linux-x86_64"]._replace(system="none", processor=script.machine(platform.machine()))
    wheel = tmp_path / f"pocketbert-1-py3-none-{target.tag}.whl"
    stated = f"Root-Is-Purelib: false\nTag: py3-none-{target.tag}\n"
    wheel.write_bytes(zipped({"pocketbert/__init__.py": "", "pocketbert-1.dist-info/WHEEL": stated}))

    def refusal(target: Any) -> str:
        with pytest.raises(SystemExit) as refused:
            script.check("here", target, wheel, tmp_path)
        return str(refused.value)

    assert refusal(target) == f"{wheel.name} has no native core"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(library()._name, target.library)
    assert "states another platform" in refusal(target._replace(tag="win_amd64"))
    assert re.match(r"here: the library is for \w+", refusal(target._replace(processor="none")))
    assert re.match(r"here: the library needs .*libc\.so\.6", refusal(target._replace(needs=frozenset())))
    needs = target.needs | script.read_library(Path(library()._name)).needed
    assert "asks for version 2." in refusal(target._replace(needs=needs, oldest=(2, 1)))
    script.LARGEST = 1
    assert refusal(target).endswith("bytes, and 1 are enough")


def test_kernels_of_a_processor_are_those_that_the_build_names() -> None:
    script: Any = load("scripts/wheels")
    build = (ROOT / "native" / "CMakeLists.txt").read_text(encoding="utf-8")
    built = re.findall(r"^ *add_kernels\((\w+) \w+\.cpp(?! simd128).*\)", build, re.MULTILINE)
    of_all = set().union(*(target.kernels for target in script.TARGETS.values()))
    assert {name for name in built if not name.startswith("amx_emulated")} == of_all
    assert set().union(*script.ARM_PROCESSORS.values()) <= of_all


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


# ── scripts/count_cycles ──

LISTING = """0000000000000000 <f(int)>:
   0:\tcbz\tw0, 20 <f(int)+0x20>
   4:\tmovi\tv0.4s, #0x0
   8:\tldr\tq1, [x1], #16
   c:\tsdot\tv0.4s, v1.16b, v2.4b[0]
  10:\tstr\tq0, [sp, #16]
  14:\tcmp\tx1, x2               \t// of the end
  18:\tb.ne\t8 <f(int)+0x8>  // b.any
  1c:\tstr\tq0, [x3]
  20:\tret

0000000000000040 <g(int)>:
  40:\tsdot\tv0.4s, v1.16b, v2.4b[0]
  44:\tcbnz\tx0, 40 <g(int)>
"""


def test_loops_of_a_listing() -> None:
    module = load("scripts/count_cycles")
    [function] = module.functions(LISTING, "f(int)")
    [body] = module.bodies(function)  # the branch forward makes none
    sdot = "sdot v0.4s, v1.16b, v2.4b[0]"
    assert body == ["ldr q1, [x1], #16", sdot, "str q0, [sp, #16]", "cmp x1, x2", "b.ne 8"]
    assert module.spills(body) == 1
    loop = module.LOOPS[1]
    assert (loop.instruction, module.multiplications(loop, body)) == ("sdot", [sdot])
    [function] = module.functions(LISTING, "g(int)")
    assert module.bodies(function) == [[sdot, "cbnz x0, 40"]]
    assert module.spills([sdot, "cbnz x0, 40"]) == 0


# ── benchmarks/compare.py ──


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Compare two results of the same columns."""

    def run(
        columns: str, before: Sequence[str], after: Sequence[str], *flags: str
    ) -> "subprocess.CompletedProcess[str]":
        for name, rows in (("before.csv", before), ("after.csv", after)):
            (tmp_path / name).write_text("\n".join([columns, *rows]) + "\n")
        command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), "before.csv", "after.csv", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


ENGINES = "model,engine,batch,ms,rounds,share"


def test_what_became_slower_is_named(compare: Any) -> None:
    before = ["bert,PocketBERT int8,1,10.0,9,0.5", "bert,PocketBERT int8,8,50.0,9,0.5"]
    after = ["bert,PocketBERT int8,1,10.4,7,0.5", "bert,PocketBERT int8,8,53.0,7,0.47"]
    run = compare(ENGINES, before, after)
    assert run.returncode == 1
    *rows, total = run.stdout.splitlines()
    assert [row.split()[-1] for row in rows] == ["%", "%", "WORSE", "WORSE"]  # of 4 %, 0 %, 6 % and 6 %
    assert "bert · PocketBERT int8 · 8" in rows[2]
    assert "+6.0 %" in rows[2]
    assert total == "2 of 4 measures are worse by more than 5 %"
    assert compare(ENGINES, before, after, "--threshold", "7").returncode == 0
    assert "1 of 4" not in compare(ENGINES, before, after, "--threshold", "3").stdout


def test_more_is_better_per_second_and_for_accuracy(compare: Any) -> None:
    run = compare("task,texts_per_second,accuracy,loss", ["a,100,0.9,0.5"], ["a,150,0.8,0.4"])
    assert [row.split()[-1] for row in run.stdout.splitlines()[:-1]] == ["better", "WORSE", "better"]


def test_rows_of_measures_with_units_and_repeated_rows(compare: Any) -> None:
    columns = "measure,value,unit,verdict"
    run = compare(columns, ["start,0.4,s,reached", "answers per second,90,,"], ["start,0.5,s,missed"])
    assert run.stdout.splitlines()[0].endswith("WORSE")
    rounds = [f"{i},local,{seconds}" for i, seconds in enumerate((9.0, 1.0, 8.0))]
    assert "8" in compare("round,engine,seconds", rounds, rounds).stdout  # the median


def test_results_without_anything_in_common(compare: Any) -> None:
    run = compare(ENGINES, ["bert,a,1,10,9,0.5"], ["bert,b,1,10,9,0.5"])
    assert (run.returncode, run.stdout) == (2, "")
    assert "no row and measure in common" in run.stderr


def test_every_kept_result_can_be_compared() -> None:
    """Each names measures whose direction is known; those of kill_and_resume measure nothing."""
    module: Any = load("benchmarks/compare.py")
    unknown = [path.name for path in (ROOT / "benchmarks" / "results").glob("*.csv") if not module.read(path)]
    assert not [name for name in unknown if not name.startswith(("kill-and-resume", "mutants"))]


# ── scripts/check_words ──


def test_banned_phrases_are_found_in_prose_alone(tmp_path: Path) -> None:
    page, code = tmp_path / "page.md", tmp_path / "code.py"
    page.write_text(
        "Tokens per text.\n\n```text\n9 tokens a text\n```\nIt has `9 tokens a text`.\nOr 9 tokens a text.\n"
    )
    code.write_text('"""What learns."""\nwhat_learns = 1\nprint("a good end")\n')
    command = [sys.executable, str(ROOT / "scripts" / "check_words"), str(page), str(code)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert [line.rsplit("/", 1)[-1] for line in run.stdout.splitlines()] == [
        "page.md:7: 'tokens a text': write per",
        "code.py:1: 'What learns': write a noun: training, inference, requests …",
        "code.py:3: 'a good end': write graceful shutdown",
    ]


# ── scripts/mutation.py ──


def test_mutants_of_python_change_one_place_and_compile() -> None:
    module: Any = load("scripts/mutation.py")
    source = (
        "def f(a: int, b: int = 1) -> int:\n"
        '    """Not 1 < 2."""\n'
        "    if a < b and not é:  # 3 > 2\n"
        "        call(a, b)\n"
        "    return a + 2\n"
    )
    found = list(module.python_mutants("models", "f.py", source))
    changed = {(m.kind, source.encode()[: m.start].decode().count("\n") + 1, m.before, m.after) for m in found}
    assert changed == {
        ("constant", 1, "1", "2"),
        ("negation", 3, "a < b and not é", "not (a < b and not é)"),
        ("and, or", 3, "and", "or"),
        ("comparison", 3, "<", "<="),
        ("negation", 3, "not é", "é"),
        ("statement", 4, "call(a, b)", "pass"),
        ("arguments", 4, "a, b", "b, a"),
        ("return", 5, "return a + 2", "return None"),
        ("arithmetic", 5, "+", "-"),
        ("constant", 5, "2", "3"),
    }
    for m in found:
        text = source.encode()
        compile(text[: m.start] + m.after.encode() + text[m.end :], "f.py", "exec")


def test_mutants_of_cpp_leave_comments_texts_and_templates_alone() -> None:
    module: Any = load("scripts/mutation.py")
    source = (
        "#include <a>\n"
        "template <class T> // 1 < 2\n"
        "bool f(View<float> x, int n) {\n"
        '    say("1 < 2");\n'
        "    return x.n < n && true;\n"
        "}\n"
    )
    changed = {(m.kind, m.line, m.before, m.after) for m in module.cpp_mutants("f.cpp", source)}
    assert changed == {
        ("statement", 4, 'say("1 < 2")', ""),
        ("comparison", 5, "<", "<="),
        ("and, or", 5, "&&", "||"),
        ("boolean", 5, "true", "false"),
    }


# ── scripts/same_answers ──


def test_different_bits_fail_and_different_texts_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    module: Any = load("scripts/same_answers")
    before = {"a": {"bits": "1", "note": "0.5"}, "b": {"bits": "2", "note": "x"}, "card": {"text": "one\ntwo"}}
    results = {module.Job("base", "torch"): before, module.Job("here", "torch"): dict(before)}
    assert module.report(results, "*/*", "main", True)
    assert "all bits are those of main" in capsys.readouterr().out
    results[module.Job("here", "torch")] |= {"card": {"text": "one\nthree"}}
    assert module.report(results, "*/*", "main", True)
    assert "    -two\n    +three\n" in capsys.readouterr().out
    results[module.Job("here", "torch")] |= {"a": {"bits": "3", "note": "0.6"}}
    assert module.report(results, "torch/b", "main", True)
    assert not module.report(results, "*/*", "main", False)
    shown = capsys.readouterr().out
    assert "DIFFERENT torch/a\n    main: 1  0.5\n    here: 3  0.6\n" in shown
    assert "three" not in shown
    del results[module.Job("here", "torch")]["b"]  # what is gone is different
    assert not module.report(results, "torch/b", "main", True)
    assert "no such item" in capsys.readouterr().out


def test_every_bit_and_every_shape_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    recorder: Any = importlib.import_module("probe.recorder")
    probe = recorder.Probe()
    one = np.array([0.0, 1.0], np.float32)
    values = [
        one, -one, one[None], one.astype(np.float64), np.nextafter(one, np.float32(2)), [one], {"x": one}, {"y": one},
        torch.from_numpy(one).double().requires_grad_()[:1], b"01", "01", 1, 1.0, True, None,
    ]  # fmt: skip
    for i, value in enumerate(values):
        probe.bits(str(i), value)
    assert len({item["bits"] for item in probe.items.values()}) == len(values)
    probe.bits("again", torch.from_numpy(one))
    assert probe.items["again"] == probe.items["0"]

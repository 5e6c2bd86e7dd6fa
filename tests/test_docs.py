"""Every example of the README and of the documentation runs, and prints what the page says.

On a page, blocks run from top to bottom as a reader would type them: ```` ```python ```` in one namespace,
```` ```console ```` line by line on what looks like a terminal. A ```` ```text ```` block right after a Python block is
what that prints; in a console block whatever is not a command is its output. `…` stands for anything.

The hub is out of reach, but a hub name is looked for as a folder first: so in the folder where a page runs, each model
that the pages name stands in as a tiny one of the same class, with random weights. `reviews.csv` is there as well.

Some pages train for minutes. `<!-- reduced: --epochs 8 → --epochs 1 -->` on a page is a replacement in its blocks, and
`<!-- reduced: POCKETBERT_FINETUNE_EPOCHS=1 -->` a variable, that shorten the page for the tests; any number then stands
for any other in its outputs. With DOCS_AT_FULL_SIZE=1, as scripts/docs --full sets it, nothing is shortened.
"""

import ast
import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pocketbert
from helpers.scripts import load
from helpers.tokenizers import spelling

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "SKILL.md",
        *ROOT.glob("README*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "translations").rglob("*.md"),
    ]
)
OUTPUT = r"\n+```text\n(?P<printed>.*?)^```$"
FENCE = re.compile(rf"^```(?P<language>\w*)\n(?P<body>.*?)^```$(?:{OUTPUT})?", re.MULTILINE | re.DOTALL)

REDUCED = re.compile(r"^<!-- reduced: (?P<rule>.*?) -->$", re.MULTILINE)
FULL = "DOCS_AT_FULL_SIZE" in os.environ

MODELS = {  # what stands in for it, and its labels
    "squeezebert/squeezebert-uncased": ("SqueezeBertForMaskedLM", ()),
    "google/mobilebert-uncased": ("MobileBertForPreTraining", ()),
    "typeform/mobilebert-uncased-mnli": (
        "MobileBertForSequenceClassification",
        ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
    ),
    "csarron/mobilebert-uncased-squad-v2": ("MobileBertForQuestionAnswering", ()),
    "mrm8488/mobilebert-finetuned-ner": ("MobileBertForTokenClassification", ("O", "B-PER", "I-PER", "B-LOC")),
    "sentence-transformers/all-MiniLM-L6-v2": ("BertModel", ()),
    "cross-encoder/ms-marco-MiniLM-L6-v2": ("BertForSequenceClassification", ("LABEL_0",)),
    "my-chooser": ("SqueezeBertForMultipleChoice", ()),
}


class Block(NamedTuple):
    place: str
    line: int
    language: str
    body: str
    printed: str | None  # what the page says comes out
    any_number: bool  # the run is a shortened one, whose numbers are others


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, shortened unless the run is a full one."""
    text = page.read_text(encoding="utf-8")
    shorter = {} if FULL else replacements(text)
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("body")) + 1
        known = ("python", "console", "bash", "text")  # the last two are not run
        assert found["language"] in known, f"{page}:{line}: {found['language']!r} is none of {known}"
        body, printed = found["body"], found["printed"]
        for old, new in shorter.items():
            body = body.replace(old, new)
        yield Block(f"{page.name}:{line}", line, found["language"], body, printed, any_number=is_reduced(text))


def is_reduced(text: str) -> bool:
    """Whether the commands of a page do less here than a reader's."""
    return not FULL and REDUCED.search(text) is not None


def replacements(text: str) -> dict[str, str]:
    """What a page has replaced in its blocks to be short; each must be there."""
    rules = [found["rule"].split(" → ") for found in REDUCED.finditer(text)]
    pairs = {rule[0]: rule[1] for rule in rules if len(rule) == 2}
    for old in pairs:
        assert text.count(old) > 1, f"{old!r} is to be shortened, and is not there"
    return pairs


def variables(text: str) -> dict[str, str]:
    """What a page sets in the environment to be short."""
    rules = [found["rule"] for found in REDUCED.finditer(text)]
    return dict(rule.split("=", 1) for rule in rules if " → " not in rule)


def compare(printed: str, promised: str, place: str, *, any_number: bool = False) -> None:
    """`promised` may leave things out with `…`.

    Empty lines and the width of tables do not count, nor a difference of less than 0.01 in numbers of three decimals or
    more: machines differ there. With `any_number` numbers are not compared at all.
    """

    def lines(text: str) -> str:
        return "\n".join(" ".join(line.split()) for line in re.sub("─+", "─", text).splitlines() if line.strip())

    if any_number:
        number = r"\d+(?:[.,]\d+)*"
        promised = re.sub(number, "7", promised)
        printed = re.sub(number, "7", printed)
    parts = re.split(r"(…|\d+\.\d{3,})", lines(promised))
    numbers = [float(part) for part in parts[1::2] if part != "…"]
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [".*?" if part == "…" else r"(\d+\.\d+)" for part in parts[1::2]]
    found = re.fullmatch("".join(parts), lines(printed), re.DOTALL)
    if not found or any(abs(float(got) - number) > 0.01 for got, number in zip(found.groups(), numbers, strict=True)):
        pytest.fail(f"{place} promises\n{promised}\nbut this comes\n{printed}", pytrace=False)


# ── Python ──


def run_python(block: Block, names: dict[str, Any]) -> None:
    code = ast.increment_lineno(ast.parse(block.body), block.line - 1)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, block.place, "exec"), names)
    if block.printed is not None:
        compare(out.getvalue(), block.printed, block.place, any_number=block.any_number)


# ── the shell ──


WORDS = r"""(?:"[^"]*"|'[^']*'|[^|>"'])*"""
COMMAND = re.compile(
    rf"(?:(?P<before>{WORDS})\| *)?(?P<variables>(?:[A-Z_]+=\S+ )*)pocketbert (?P<arguments>{WORDS})(?P<after>[|>].*)?"
)


class Screen(io.BytesIO):
    """What the commands take for a terminal."""

    def isatty(self) -> bool:
        return True


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what the page says it prints."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n", part)
        assert typed is not None
        yield typed[0].replace("\\\n", " ").strip(), part[typed.end() :]


def shell(command: str) -> tuple[int, str]:
    """Status and output of a command: ours runs in this process, which saves its start; all else in bash."""
    found = COMMAND.fullmatch(command)
    if found is None:
        return bash(command)
    given = bash(found["before"])[1] if found["before"] else ""
    with pytest.MonkeyPatch.context() as patch:
        for variable in found["variables"].split():
            patch.setenv(*variable.split("=", 1))
        status, printed = pocketbert_says(found["arguments"], given, terminal=found["after"] is None)
    return (status, printed) if found["after"] is None else bash(f"cat {found['after']}", printed)


def bash(command: str, given: str = "") -> tuple[int, str]:
    done = subprocess.run(["bash", "-c", command], input=given, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def pocketbert_says(arguments: str, given: str = "", *, terminal: bool = True) -> tuple[int, str]:
    from pocketbert.cli import main

    before = sys.argv, sys.stdin, sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)
    screen = Screen() if terminal else io.BytesIO()
    sys.argv = ["pocketbert", *shlex.split(arguments)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    sys.stdout = io.TextIOWrapper(screen, encoding="utf-8", write_through=True)
    sys.stderr = sys.stdout if terminal else io.TextIOWrapper(io.BytesIO())
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0), screen.getvalue().decode()
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr, handler = before
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("main returned")


def run_console(block: Block) -> None:
    for command, promised in commands(block.body):
        status, printed = shell(command)
        if (status == 0) == bool(re.match(r"error:|Usage:.*^Error:", promised, re.MULTILINE | re.DOTALL)):
            pytest.fail(f"{block.place}: {command}\nends with status {status}\n{printed}", pytrace=False)
        if promised.strip():
            compare(printed, promised, f"{block.place}: {command}", any_number=block.any_number)


# ── what a reader has already ──


def a_vocabulary() -> dict[str, int]:
    """Every letter, and every word of the pages."""
    words = {
        word for page in PAGES for word in re.findall(r"[a-z]+|[^\sa-z]", page.read_text(encoding="utf-8").lower())
    }
    return {piece: number for number, piece in enumerate(dict.fromkeys(spelling(*sorted(words))))}


@pytest.fixture(scope="module")
def belongings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for published models, and a table of reviews."""
    import torch

    folder = tmp_path_factory.mktemp("belongings")
    tokenizer = pocketbert.BertTokenizer(vocab=a_vocabulary())
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    torch.manual_seed(0)
    for name, (model, labels) in MODELS.items():
        kind = getattr(pocketbert, model)
        narrow = {"embedding_size": 32, "intra_bottleneck_size": 16}
        fields = {field.name for field in dataclasses.fields(kind.config_class)}
        shape = small | {key: value for key, value in narrow.items() if key in fields}
        config = kind.config_class(vocab_size=len(tokenizer), id2label=dict(enumerate(labels)), **shape)
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [
        (f"The {thing} is {word}.", label)
        for thing in ("film", "plot", "cast", "ending", "score", "dialogue", "opening", "camera")
        for words, label in (
            ("clever funny warm lovely bright", "positive"),
            ("dull slow flat cold clumsy", "negative"),
        )
        for word in words.split()
    ]
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows])
    return folder


@pytest.fixture(autouse=True)
def terminal(tmp_path: Path, belongings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what a reader has, and a plain terminal of a known width."""
    shutil.copytree(belongings, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


# ── the tests ──


@pytest.mark.parametrize(
    ("printed", "promised", "same"),
    [
        ("score 0.9505435", "score 0.9488423", True),
        ("score 0.971", "score 0.9488423", False),
        ("a  b\n\n0.5", "a b\n0.5", True),
        ("version 1.2", "version 1.3", False),
        ("x 0.1234 y 7", "x … y 7", True),
        ("x 0.1234 y 7", "x … y 8", False),
        ("0.999 of 1.234e-08", "0.996 of 1.230e-08", True),
        ("0.999 and more", "0.999", False),
    ],
)
def test_what_counts_as_the_same(printed: str, promised: str, same: bool) -> None:
    if same:
        compare(printed, promised, "here")
    else:
        with pytest.raises(pytest.fail.Exception, match="promises"):
            compare(printed, promised, "here")


def original_of(page: Path) -> Path | None:
    """The English page that a page translates."""
    if (translations := ROOT / "translations") in page.parents:
        return ROOT / "docs" / page.relative_to(translations).relative_to(page.relative_to(translations).parts[0])
    return ROOT / "README.md" if page.name.startswith("README.") and page.name != "README.md" else None


def repeats(page: Path, original: Path) -> bool:
    """Whether all blocks of a page are those of another, which then need not run twice."""
    return [block[2:] for block in blocks(page)] == [block[2:] for block in blocks(original)]


def test_a_translation_that_repeats_its_original(tmp_path: Path) -> None:
    written = {}
    for name, command, printed in (("a", "1 + 1", "2"), ("b", "1 + 1", "2"), ("c", "1 + 2", "2"), ("d", "1 + 1", "3")):
        written[name] = tmp_path / f"{name}.md"
        written[name].write_text(
            f"{name}\n\n```python\nprint({command})\n```\n\n```text\n{printed}\n```\n", encoding="utf-8"
        )
    assert [repeats(written[name], written["a"]) for name in "bcd"] == [True, False, False]
    assert original_of(ROOT / "translations" / "zh" / "models" / "x.md") == ROOT / "docs" / "models" / "x.md"
    assert original_of(ROOT / "README.ar.md") == ROOT / "README.md"
    assert [original_of(ROOT / name) for name in ("README.md", "docs/index.md")] == [None, None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = original_of(page)
    if original is not None and repeats(page, original):
        return  # the test of the original runs them
    if not FULL:
        for name, value in variables(page.read_text(encoding="utf-8")).items():
            monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    for block in blocks(page):
        try:
            if block.language == "python":
                run_python(block, names)
            elif block.language == "console":
                run_console(block)
        except pocketbert.MissingExtraError as missing:
            pytest.skip(str(missing))


def test_numbers_of_a_shortened_page() -> None:
    compare("12 of 3,000 in 0.125 s", "80 of 9 in 7.5 s", "here", any_number=True)
    with pytest.raises(pytest.fail.Exception, match="promises"):
        compare("12 of 3,000", "80 off 9", "here", any_number=True)


def test_run_command_prints_what_the_readme_shows() -> None:
    """The last command of the README's first block; .ci/run does all of it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    run = re.search(rf"<!-- run -->\n```bash\n(?P<command>[^\n]*)\n```{OUTPUT}", readme, re.DOTALL | re.MULTILINE)
    assert run, "README.md: a text block with the output must follow the command"
    status, printed = pocketbert_says(run["command"].partition(".venv/bin/pocketbert ")[2])
    assert status == 0
    compare(printed, run["printed"], "README.md")


# ── notebooks ──

docs = load("scripts/docs")
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_notebooks_are_those_of_the_pages(page: Path) -> None:
    """scripts/docs --notebooks writes them."""
    assert page.with_suffix(".ipynb").read_text(encoding="utf-8") == docs.notebook(page.read_text(encoding="utf-8"))


def test_blocks_become_cells() -> None:
    page = (
        "# A\n\n<!-- reduced: A=1 -->\nText.\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "```console\n$ echo a \\\n      b\na b\n$ echo c\nc\n```\n\nEnd.\n"
    )
    cells = json.loads(docs.notebook(page))["cells"]
    assert [(cell["cell_type"], cell["source"]) for cell in cells] == [
        ("markdown", "# A\n\nText."),
        ("code", "print(1)"),
        ("code", "%%bash\nset -e\necho a \\\n      b\necho c"),
        ("markdown", "End."),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_notebook_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, in a kernel of its own, with the shorter runs and the stand-ins of the page's own test."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    text = shorter = page.read_text(encoding="utf-8")
    for old, new in replacements(text).items():
        shorter = shorter.replace(old, new)
    notebook = nbformat.reads(docs.notebook(shorter), as_version=4)
    nbformat.validate(notebook)
    for name, value in variables(text).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    assert all(cell["execution_count"] for cell in notebook.cells if cell["cell_type"] == "code")

"""The npm package: its own tests, on models and cases that Python makes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pocketbert
from helpers.web_cases import write
from pocketbert.exporters.web import writer
from pocketbert.runtime import core

ROOT = Path(__file__).parents[1]
NPM = ROOT / "npm"
BUILD = "scripts/wasm && cd npm && npm ci && npm run build"


def node_tests(environment: dict[str, str], *names: str) -> str:
    """What Node reports of tests in `npm/test`, which must pass."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    files = ("index.js", "pocketbert.wasm", "pocketbert-relaxed.wasm")
    missing = [name for name in files if not (NPM / "dist" / name).exists()]
    if missing:
        pytest.skip(f"npm/dist lacks {missing[0]}: {BUILD}")
    newest = max(file.stat().st_mtime for file in (NPM / "src").iterdir())
    if newest > (NPM / "dist" / "index.js").stat().st_mtime:
        pytest.skip(f"npm/dist is older than npm/src: {BUILD}")
    tests = [str(NPM / "test" / f"{name}.test.mjs") for name in names]
    found = subprocess.run(
        [node, "--test", *tests], env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stdout[-6000:]
    return found.stdout


def test_versions_agree() -> None:
    """Of the package, of the format that Python writes, and of the interface to the core."""
    assert json.loads((NPM / "package.json").read_text())["version"] == pocketbert.__version__
    stated = {name: re.search(r"^const VERSION = (\d+)", (NPM / "src" / name).read_text(), re.MULTILINE) for name in
              ("model.ts", "core.ts")}  # fmt: skip
    assert {name: found and int(found[1]) for name, found in stated.items()} == {
        "model.ts": writer.VERSION,
        "core.ts": core.VERSION,
    }


def test_twins_agree(tmp_path: Path) -> None:
    """What is written in Python and in TypeScript: texts to tokens and windows, outputs to answers."""
    if not (NPM / "dist" / "index.js").exists():
        node_tests({}, "twins")  # which skips with the reason
    write(tmp_path / "cases.json")
    assert "\n# pass 1" in node_tests({"POCKETBERT_TWINS": str(tmp_path / "cases.json")}, "twins")


@pytest.mark.slow
def test_answers_as_python_does(tmp_path: Path) -> None:
    """Results of all tasks, plans of all families, tokens; and errors with their reasons."""
    # Where two values are as near to a whole number, kernels round them either way; these round as those of the web do.
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = {"POCKETBERT_KERNEL": "portable", "PYTHONPATH": paths, "POCKETBERT_CASES": str(tmp_path)}
    made = [sys.executable, "-W", "ignore", "-m", "helpers.web", str(tmp_path)]
    subprocess.run(made, env=os.environ | environment, check=True, capture_output=True, timeout=300)
    assert "\n# skipped 0" in node_tests(environment, "parity", "errors")


@pytest.mark.slow
def test_page_in_browsers(tmp_path: Path) -> None:
    """The page of the documentation, and the package in pages and service workers: by keyboard, narrow, offline."""
    if not (NPM / "node_modules" / "puppeteer-core").exists():
        pytest.skip("puppeteer-core is not installed: cd npm && npm ci")
    shutil.copytree(ROOT / "docs" / "try", tmp_path / "try")
    made = [sys.executable, str(ROOT / "scripts" / "try_page"), str(tmp_path)]
    subprocess.run(made, check=True, capture_output=True, timeout=300)
    found = node_tests({"POCKETBERT_SITE": str(tmp_path)}, "browser")
    if "\n# skipped 13" in found:
        pytest.skip("neither /usr/bin/chromium nor /usr/bin/firefox-esr is installed")

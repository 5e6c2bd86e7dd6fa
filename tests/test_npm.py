"""The npm package: its own tests, on models and cases that Python makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NPM = ROOT / "npm"


@pytest.mark.slow
def test_answers_as_python_does(tmp_path: Path) -> None:
    """Results of all tasks, plans of all families, tokens; and errors with their reasons."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    missing = [name for name in ("index.js", "pocketbert.wasm") if not (NPM / "dist" / name).exists()]
    if missing:
        pytest.skip(f"npm/dist lacks {missing[0]}: scripts/wasm && cd npm && npm ci && npm run build")
    # Where two values are as near to a whole number, kernels round them either way; these round as those of the web do.
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = os.environ | {"POCKETBERT_KERNEL": "portable", "PYTHONPATH": paths, "POCKETBERT_CASES": str(tmp_path)}
    made = [sys.executable, "-W", "ignore", "-m", "helpers.web", str(tmp_path)]
    subprocess.run(made, env=environment, check=True, capture_output=True, timeout=300)
    tests = sorted(map(str, (NPM / "test").glob("*.test.mjs")))
    found = subprocess.run([node, "--test", *tests], env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout[-6000:]
    assert "\n# skipped 0" in found.stdout

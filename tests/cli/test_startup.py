"""What a process imports before it answers: a newcomer's first second is spent on little else.

Times are measured in `benchmarks/`; this is counted, so no busy machine makes it fail.
"""

import subprocess
import sys

CLASSIFY = "from pocketbert.cli import app; app(['classify', 'a fine film'], standalone_mode=False)"


def imported(code: str) -> set[str]:
    """The modules that `code` imports in a fresh process."""
    script = f"import sys; before = set(sys.modules); {code}; sys.stderr.write('\\n'.join(set(sys.modules) - before))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return set(done.stderr.splitlines())


def packages(modules: set[str]) -> set[str]:
    """Those that neither Python nor this machine brings."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names


def test_import_brings_nothing_along() -> None:
    modules = imported("import pocketbert")
    assert packages(modules) == {"pocketbert"}
    assert not {name for name in modules if name.startswith("pocketbert.")}


def test_help_needs_click_alone() -> None:
    modules = imported("from pocketbert.cli import app; app(['--help'], standalone_mode=False)")
    assert packages(modules) == {"click", "pocketbert"}
    assert not {"pocketbert.cli.predict", "pocketbert.cli.finetune", "pocketbert.configs"} & modules


def test_an_answer_needs_little() -> None:
    modules = imported(CLASSIFY)
    assert packages(modules) == {"click", "numpy", "pocketbert", "safetensors", "tokenizers"}
    # Slow parts of Python itself, as far as NumPy and click do without them.
    slow = {"asyncio", "importlib.metadata", "concurrent.futures", "multiprocessing", "secrets", "hashlib", "tempfile"}
    slow |= {"http", "socket", "ssl", "subprocess", "unittest", "xml", "email"}
    assert not slow & (modules - imported("import numpy, click"))
    assert not {"pocketbert.data", "pocketbert.models", "pocketbert.recipes", "pocketbert.training"} & modules

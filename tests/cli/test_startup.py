"""What a process imports before it answers: a newcomer's first second is spent on little else.

Times are measured in `benchmarks/`; this is counted, so no busy machine makes it fail.
"""

from helpers.imports import imported, packages

CLASSIFY = "from pocketbert.cli import app; app(['classify', 'a fine film'], standalone_mode=False)"


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

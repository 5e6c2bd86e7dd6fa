"""The package that a script tries: the one that this Python imports, which must have its native core."""

import sys
from importlib.util import find_spec
from pathlib import Path


def require_core() -> None:
    """Raise `SystemExit` where there is no PocketBERT, or one without its core: NumPy would be tried in its place."""
    script = Path(sys.argv[0]).name
    package = find_spec("pocketbert")
    if package is None or package.origin is None:
        sys.exit(f"{script}: PocketBERT is not installed for {sys.executable}: pip install '.[train,serve]'")
    if find_spec("pocketbert._core") is None:
        where = Path(package.origin).parent
        sys.exit(f"{script}: {where} has no native core, which is to be tried: pip install '.[train,serve]'")

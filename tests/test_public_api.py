"""The public names: all there, described, typed, and light to import."""

import inspect
import re
import runpy
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import pocketbert
from helpers.imports import imported, packages, python

# What answers or prepares, and must do so where neither PyTorch nor TensorFlow is installed. `_core` is a library of C.
LIGHT = sorted({m.name for m in iter_modules(pocketbert.__path__)} - {"_core", "models", "training", "recipes", "tf"})


def test_all_is_sorted_and_what_dir_shows() -> None:
    assert pocketbert.__all__ == sorted(set(pocketbert.__all__))
    assert dir(pocketbert) == pocketbert.__all__


def test_names_are_importable_and_described() -> None:
    values = {name: getattr(pocketbert, name) for name in pocketbert.__all__}
    described = {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert len(described) > 40
    # Of its own: classes do not inherit `__doc__`.
    assert not [name for name, value in described.items() if not value.__doc__], "no docstring"
    assert not [name for name, value in described.items() if not value.__module__.startswith("pocketbert.")]


def test_star_import() -> None:
    names: dict[str, Any] = {}
    exec("from pocketbert import *", names)
    assert set(pocketbert.__all__) <= names.keys()


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SqueezeBertForEverything'"):
        getattr(pocketbert, "SqueezeBertForEverything")  # noqa: B009


def test_the_stub_has_the_same_names() -> None:
    """Type checkers read `__init__.pyi`, which `scripts/public_names` prints."""
    package = files("pocketbert")
    assert (package / "py.typed").is_file()
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "public_names"))
    assert (package / "__init__.pyi").read_text(encoding="utf-8") == script["stub"]()


def test_api_pages_cover_every_public_name() -> None:
    shown = set()
    for page in (Path(__file__).parents[1] / "docs" / "api").glob("*.md"):
        for found in re.finditer(r"^::: (\S+)\n((?: +.*\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE):
            members = re.findall(r"^ +- (\w+)$", found[2], re.MULTILINE)
            shown |= {f"{found[1]}.{name}" for name in members} or {found[1]}
    for name, home in pocketbert._homes().items():
        value = getattr(pocketbert, name)
        module, own_name = getattr(value, "__module__", f"pocketbert.{home}"), getattr(value, "__name__", name)
        assert {module, f"{module}.{own_name}"} & shown, name


def test_import_is_light() -> None:
    """Importing pocketbert imports nothing but that: no other module of its own, and no package besides."""
    modules = imported("import pocketbert")
    assert packages(modules) == {"pocketbert"}
    assert {name for name in modules if name.startswith("pocketbert")} == {"pocketbert"}


def test_words_and_pipelines_do_without_torch() -> None:
    """With PyTorch out of reach everything but the models can be imported, and a model says what is missing."""
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name="torch")

sys.meta_path.insert(0, Missing())
from importlib import import_module
for module in {LIGHT!r}:
    import_module(f"pocketbert.{{module}}")
import pocketbert
for name in pocketbert.__all__:
    home = pocketbert._homes().get(name, "")
    if not home.startswith(("models.", "recipes.")) or home.endswith("_options"):
        getattr(pocketbert, name)
assert "torch" not in sys.modules
"""
    python(code)


def test_a_missing_extra_is_named() -> None:
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
import pocketbert
try:
    pocketbert.SqueezeBertModel
except pocketbert.MissingExtraError as error:
    print(error)
"""
    assert python(code) == "this needs torch, from the extra 'train': pip install 'pocketbert[train]'"

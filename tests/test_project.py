"""The rules that no linter knows: the import law, the pictures of the tree, one version everywhere, extras, no leaks.

The import law and the module tree are read from docs/architecture.md, so that the page cannot say anything else than
what is checked.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pocketbert
from pocketbert.errors import EXTRAS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pocketbert"
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ── the import law ──


class Layer(NamedTuple):
    modules: frozenset[str]  # the names below pocketbert
    at_the_top: frozenset[str]  # what a module may import when it is imported: layers and packages
    inside: frozenset[str]  # what its functions may import besides


def the_law() -> dict[str, Layer]:
    """The table below "Import law": layer, modules, imports at the top, imports inside functions."""
    section = text("docs/architecture.md").partition("## Import law")[2]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {
        cells[0].strip(): Layer(*(frozenset(re.findall(r"`([\w.]+)`", cell)) for cell in cells[1:]))
        for cells in rows[2:]
    }


class Import(NamedTuple):
    line: int
    name: str  # "torch", or "pocketbert.models" for our own
    inside: bool  # in a function, or for type checkers only


def imports_of(path: Path) -> Iterator[Import]:
    """Every import statement of a file."""

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for name in imported(child):
                    yield Import(child.lineno, package(name), inside)
            deeper = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from walk(child, inside or deeper)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), inside=False)


def package(name: str) -> str:
    """What the law calls a module that is imported. Options of any package are `options`: plain data, and light."""
    parts = name.split(".")
    if parts[0] != "pocketbert":
        return parts[0]
    return "pocketbert.options" if re.search(r"(^|_)(options|settings)$", parts[-1]) else ".".join(parts[:2])


def imported(statement: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement loads."""
    if isinstance(statement, ast.ImportFrom) and statement.module != "pocketbert":
        assert statement.level == 0, "imports are absolute here"
        return [str(statement.module)]
    names = [alias.name for alias in statement.names]
    if isinstance(statement, ast.Import):
        return names
    homes = {"__version__": "pocketbert"} | {name: f"pocketbert.{home}" for name, home in pocketbert._homes().items()}
    return [homes.get(name, f"pocketbert.{name}") for name in names]


def module_of(path: Path) -> str:
    """The name below pocketbert: "configs" for configs.py, "models" for models/bert.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_module_has_one_layer() -> None:
    placed = [module for layer in the_law().values() for module in layer.modules]
    assert sorted(placed) == sorted({module_of(path) for path in SOURCE.rglob("*.py")} - {"__init__"})


def test_import_law() -> None:
    law = the_law()
    layer_of = {module: name for name, layer in law.items() for module in layer.modules}
    broken = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = module_of(path)
        layer = law[layer_of[module]] if module != "__init__" else law["core"]
        for line, name, inside in imports_of(path):
            target = name.removeprefix("pocketbert.")
            ours = target != name or name == "pocketbert"
            allowed = layer.at_the_top | (layer.inside if inside else frozenset())
            free = name == "pocketbert" or (not ours and name in sys.stdlib_module_names)
            if not free and not {target, layer_of.get(target) if ours else target} & allowed:
                where = "inside a function" if inside else "at the top"
                broken.append(f"{path.relative_to(ROOT)}:{line}: {module} must not import {name} {where}")
    assert not broken, "\n".join(broken)


def test_no_test_module_is_imported() -> None:
    """What several of them use is in tests/helpers, or in a module beside them with a name of its own."""
    imports = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
            else:
                continue
            if any(part == "conftest" or part.startswith("test_") for name in names for part in name.split(".")):
                imports.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not imports, "\n".join(imports)


# ── import circles ──


def module_imports() -> dict[str, set[str]]:
    """Every module of the package, with those that it imports anywhere but for type checkers."""
    modules = {module_name(path): path for path in SOURCE.rglob("*.py")}

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    submodule = f"{child.module}.{alias.name}"
                    yield submodule if submodule in modules else str(child.module)
            yield from walk(child)

    return {
        name: {target for target in walk(ast.parse(path.read_text(encoding="utf-8"))) if target in modules} - {name}
        for name, path in modules.items()
    }


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_import_circles() -> None:
    """No module reaches itself by imports, neither at the top of modules nor inside functions."""
    imports = module_imports()
    reachable = {name: set(targets) for name, targets in imports.items()}
    while True:
        grown = {name: targets.union(*(reachable[target] for target in targets)) for name, targets in reachable.items()}
        if grown == reachable:
            break
        reachable = grown
    circles = sorted(name for name in reachable if name in reachable[name])
    steps = [f"{name} imports {', '.join(sorted(imports[name] & set(circles)))}" for name in circles]
    assert not circles, "\n".join(steps)


# ── the pictures ──


def tree(page: str, root: str = r"[^\n]*") -> dict[str, str]:
    """The paths of a page's first fenced tree with this root (a pattern), each with its comment."""
    picture = re.search(rf"^```text\n(?P<tree>{root}\n[├└].*?)^```", text(page), re.DOTALL | re.MULTILINE)
    assert picture, f"{page} has no tree of {root}"
    found, parents = {}, [Path()]
    for line in picture["tree"].splitlines()[1:]:
        branch = re.match(r"(?P<indent>(?:[│ ] {3})*)[├└]── (?P<name>\S+)(?: +(?P<comment>\S.*))?$", line)
        assert branch, f"{page}: {line!r} is no branch of the tree"
        depth = len(branch["indent"]) // 4
        path = parents[depth] / branch["name"]
        found[path.as_posix()] = branch["comment"] or ""
        parents[depth + 1 :] = [path]
    return found


def tracked() -> list[Path]:
    """What git knows, and what it would add; else, in an unpacked archive, every file."""
    git = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if git.returncode:
        pytest.skip("this tree is not a git repository")
    return [Path(name) for name in git.stdout.splitlines() if (ROOT / name).is_file()]


def test_repository_tree() -> None:
    """The first level of the repository and of the package, each with a comment, and nothing that is not there."""
    shown = tree("CONTRIBUTING.md")
    assert not [path for path in shown if not (ROOT / path).exists()]
    there = {path.parts[0] for path in tracked() if len(path.parts) > 1 or not path.name.startswith(".")}
    there |= {"/".join(path.parts[:3]) for path in tracked() if path.parts[:2] == ("src", "pocketbert")}
    there -= {"src", "src/pocketbert/__init__.pyi", "src/pocketbert/py.typed"}
    assert not there - shown.keys(), "missing in the tree of CONTRIBUTING.md"
    assert [path for path, comment in shown.items() if not comment] == ["src/pocketbert"]


@pytest.mark.parametrize("folder", ["benchmarks", "runs"])
def test_scripts_are_listed(folder: str) -> None:
    """Every script of a folder is in its README, and no other."""
    listed = set(re.findall(r"`(\w+\.(?:py|sh))`", text(f"{folder}/README.md")))
    scripts = {path.name for path in tracked() if path.parent == Path(folder) and path.suffix in (".py", ".sh")}
    assert listed == scripts


def test_architecture_tree() -> None:
    """Every module of the package, and nothing else."""
    modules = {path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent == SOURCE}
    folders = {path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}
    assert sorted(tree("docs/architecture.md")) == sorted(
        path.relative_to(SOURCE).as_posix() for path in modules | folders
    )


def test_architecture_tree_of_the_native_core() -> None:
    """Every source of the native core, and nothing else, each with a comment."""
    shown = tree("docs/architecture.md", "native")
    sources = {path.relative_to("native") for path in tracked() if path.parts[0] == "native"}
    assert shown.keys() == {path.as_posix() for path in sources | {path.parent for path in sources} - {Path()}}
    assert all(shown.values())


def test_nothing_depends_on_the_names_of_kernels() -> None:
    """Capabilities say what a set can do; its name only chooses it, so a new set needs no change elsewhere."""
    names = re.findall(r"^ *add_kernels\((\w+)", text("native/CMakeLists.txt"), re.MULTILINE)
    assert names, "the list of kernels is not where this test looks"
    name = rf"""["'](?:{"|".join(names)})["']"""
    compared = re.compile(
        rf"(?:[!=]=|\b(?:in|is|case|strcmp|startswith|endswith)\b)[^\"']*{name}|{name} *(?:[!=]=|\bin\b)"
    )
    assert compared.search(f'kernels.name == "{names[-1]}"')
    code = [path for path in tracked() if path.parts[0] in {"src", "native", "scripts", "tests", "benchmarks", "runs"}]
    code = [path for path in code if path.suffix in {".py", ".h", ".cpp", ""}]
    assert not [
        f"{path}:{number}: {line.strip()}"
        for path in code
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if compared.search(line)
    ]


# ── one truth each ──


def test_one_version() -> None:
    head = re.search(r"^## \[(\d.*?)\]", text("CHANGELOG.md"), re.MULTILINE)
    cited = re.search(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE)
    assert head is not None
    assert cited is not None
    assert head[1] == cited[1] == pocketbert.__version__


def test_extras() -> None:
    """`errors.EXTRAS` names what the extras of pyproject.toml bring; `dev` and `test` need no error message."""
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    brought = {
        extra: tuple(re.split(r"[^\w-]", one)[0].replace("-", "_").replace("scikit_learn", "sklearn") for one in needs)
        for extra, needs in extras.items()
    }
    assert brought.keys() - {"dev", "test"} == EXTRAS.keys()
    assert all({name.replace(".", "_") for name in modules} <= set(brought[extra]) for extra, modules in EXTRAS.items())


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    section = text("docs/architecture.md").partition("## Dependencies")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\| (.+) \|$", section, re.MULTILINE))
    assert rows.keys() == {re.split(r"[>=<]", need)[0] for need in project["dependencies"]}


def test_constraints_cover_what_pyproject_asks_for() -> None:
    settings = tomllib.loads(text("pyproject.toml"))
    project, groups = settings["project"], settings["dependency-groups"]
    asked = {
        re.split(r"[\[>=<]", need)[0].strip()
        for needs in [project["dependencies"], *project["optional-dependencies"].values(), *groups.values()]
        for need in needs
    }
    pinned = re.findall(r"^([\w-]+)==\d[\w.]*$", text("constraints.txt"), re.MULTILINE)
    assert asked - {"pocketbert"} <= set(pinned)
    assert len(pinned) == len(set(pinned)), "a package has two versions"


def test_all_python_is_type_checked() -> None:
    checked = tuple(tomllib.loads(text("pyproject.toml"))["tool"]["mypy"]["files"])
    assert not [path for path in tracked() if path.suffix == ".py" and not path.as_posix().startswith(checked)]


def test_nothing_belongs_to_one_machine() -> None:
    """No path of the machine that it was written on."""
    home = re.compile(r"(?<![\w.-])/(?:home|root|tmp|work|Users)/[\w.]")
    leaks = [
        f"{path}:{number}: {line.strip()}"
        for path in tracked()
        if path.suffix in {".py", ".pyi", ".md", ".toml", ".txt", ".yml", ".json", ".sh", ""}
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if home.search(line)
    ]
    assert not leaks, "\n".join(leaks)

"""The C interface: what Python declares of it, the library as a file, and a program of C that uses it."""

from __future__ import annotations

import ctypes
import logging
import platform
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import wordpiece
from helpers.core import ask, f, program
from pocketbert.errors import ConfigError
from pocketbert.runtime import core
from pocketbert.runtime.engine import native_core

NATIVE = Path(__file__).resolve().parents[2] / "native"
HEADER = (NATIVE / "include" / "pocketbert.h").read_text(encoding="utf-8")
FUNCTIONS = core._PARAMETERS.keys() | wordpiece.PARAMETERS.keys() | {"pb_version", "pb_message", "pb_free"}
COMPILER = shutil.which("cc")
native = pytest.mark.skipif(native_core() is None, reason="the native core was not built")
compiles = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def compiled(source: Path, *arguments: str | Path) -> None:
    """Compile C as strictly as the compiler can."""
    strict = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{NATIVE / 'include'}")
    done = subprocess.run([str(COMPILER), *strict, source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── what Python declares ──


def test_every_function_of_the_header_is_declared() -> None:
    in_header = set(re.findall(r"^PB_API .*?\b(pb_\w+)\(", HEADER, re.MULTILINE))
    assert in_header == FUNCTIONS
    assert f"#define PB_VERSION {core.VERSION}\n" in HEADER


@compiles
def test_structs_are_laid_out_as_in_the_header(tmp_path: Path) -> None:
    ours = {
        "kernels": core._Kernels, "description": core._Description, "columns": core._Columns, "floats": core._Array,
        "bytes": core._Array, "lookup": core._Lookup, "linear": core._Linear, "layer_norm": core._LayerNorm,
        "attention": core._Attention, "gather": core._Gather, "batch": core._Batch, "output": core._Output,
        "time": core._Time, "vocabulary": wordpiece.CVocabulary, "added_token": wordpiece.CAddedToken,
        "token": wordpiece.CToken,
        "team": core.Team, "norm_pass": core.NormPass, "activation_pass": core.ActivationPass,
        "attention_pass": core.AttentionPass, "difference_pass": core.DifferencePass,
        "adamw_pass": core.AdamwPass,
    }  # fmt: skip
    lines = ["#include <pocketbert.h>", "#include <stddef.h>"]
    for name, struct in ours.items():
        lines.append(f'_Static_assert(sizeof(pb_{name}) == {ctypes.sizeof(struct)}, "{name}");')
        for field, *_ in struct._fields_:
            at = getattr(struct, field)
            lines.append(f'_Static_assert(offsetof(pb_{name}, {field}) == {at.offset}, "{name}.{field}");')
            lines.append(f'_Static_assert(sizeof(((pb_{name} *)0)->{field}) == {at.size}, "{name}.{field}");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join([*lines, "int nothing;"]))
    compiled(source, "-fsyntax-only")


# ── the library ──


@native
@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
def test_nothing_but_the_interface_can_be_seen() -> None:
    """So another library with C++ of the same names in the same process is not mixed up with this one."""
    listed = subprocess.run(["nm", "-D", "--defined-only", core.library()._name], capture_output=True, text=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert names == FUNCTIONS


@native
def test_two_libraries_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = core.load(Path(shutil.copy2(core.library()._name, tmp_path / "another.so")))
    first = program()
    monkeypatch.setattr(core, "library", lambda: copy)
    second = program()
    assert first._core is not second._core
    assert np.array_equal(ask(first), ask(second))


@native
def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path = core.library_path()
    assert path is not None
    monkeypatch.setattr(core, "VERSION", core.VERSION + 1)
    told = (
        rf"{re.escape(str(path))} is of another version .* version {core.VERSION - 1} .* needs {core.VERSION}; install"
    )
    with pytest.raises(ConfigError, match=told):
        core.load(path)
    extension = find_spec("tokenizers.tokenizers")  # without an interface, as the core was before it had one
    assert extension is not None
    with pytest.raises(ConfigError, match="version 0 of the interface"):
        core.load(Path(str(extension.origin)))


@pytest.mark.parametrize(("content", "message"), [(None, "was not built"), (b"no library", "cannot be loaded")])
def test_without_a_library_numpy_computes(
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = tmp_path / core.LIBRARY
    if content is not None:
        library.write_bytes(content)
    monkeypatch.setattr(core, "library_path", lambda: None if content is None else library)
    monkeypatch.setattr(core, "library", core.library.__wrapped__)
    with caplog.at_level(logging.WARNING, "pocketbert"):
        assert native_core.__wrapped__() is None
    assert re.fullmatch(
        rf"the native core {message} \(.*\): the model runs in NumPy, which is "
        rf"slower",
        caplog.messages[0],
    )


CPUINFO = Path("/proc/cpuinfo")


@native
@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="Linux tells it of x86-64")
def test_all_kernels_for_this_processor_are_found() -> None:
    """What Linux says of the processor, beside what the core found out: no set is left out without a word."""
    build = (NATIVE / "CMakeLists.txt").read_text(encoding="utf-8")
    flags = {
        flag.replace("_", "") for flag in re.findall(r"^flags\s*: (.*)", CPUINFO.read_text(), re.MULTILINE)[0].split()
    }
    flags |= {"amx"} if {"amxtile", "amxint8", "amxbf16"} <= flags else set()
    several = dict(re.findall(r"^ *set\((avx512) (.*)\)$", build, re.MULTILINE))
    found = {*core.available_kernels(), *(name for name, _ in core.refused_kernels())}
    for name, needs in re.findall(r"^ *add_kernels\((\w+) \w+\.cpp ?(.*?)\)", build, re.MULTILINE):
        instructions = re.sub(r"\$\{(\w+)\}", lambda match: several[match[1]], needs).split()
        assert (name in found) == (flags.issuperset(instructions)), (
            f"{name} needs {instructions}, of the processor and of the compiler"
        )


# ── programs ──


@native
def test_a_program_is_not_copied() -> None:
    import copy

    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.copy(program())


@native
def test_numbers_that_ctypes_would_cut_off() -> None:
    made = program()
    for width in (2**32 + 1, -(2**63), 2**64 + 1):
        with pytest.raises(ValueError, match="beyond 32 bits"):
            made.buffer(width, False)
        with pytest.raises(ValueError, match="beyond 32 bits"):
            made.run(*[np.zeros(1, np.int32)] * 2, np.array([0, 1], np.int32), [(2**32, 0, 16)])
    with pytest.raises(ValueError, match="character 0"):
        made.lookup((0, 0, 16), f(11, 16), "word\0", False)


@native
def test_tables_live_as_long_as_their_program() -> None:
    made, table = core.Program(1), f(1 << 16, 4)
    made.buffer(4, False)
    made.lookup((0, 0, 4), table.copy(), "word", False)
    [np.full((1 << 16, 4), 7, np.float32) for _ in range(3)]  # would be where the copy was
    ids = np.array([0, 5, (1 << 16) - 1], np.int32)
    [found] = made.run(ids, ids * 0, np.array([0, 3], np.int32), [(0, 0, 4)])
    assert np.array_equal(found, table[ids])


# ── from C ──


def text_of(*values: Any) -> str:
    """Values as native/tests/interface.c reads them."""
    words = []
    for value in values:
        if value is None:
            words.append("-")
        elif isinstance(value, np.ndarray):
            numbers = [x.hex() if value.dtype == np.float32 else str(x) for x in value.ravel().tolist()]
            words.append(" ".join(map(str, [*((1, len(value)) if value.ndim == 1 else value.shape), *numbers])))
        elif isinstance(value, tuple):
            words.append(" ".join(map(str, value)))
        else:
            words.append(str(int(value) if isinstance(value, bool) else value or "-"))
    return " ".join(words)


@native
@compiles
@pytest.mark.parametrize("kernels", [core.available_kernels()[0], "portable"] if native_core() else [])
def test_a_program_in_c(kernels: str, tmp_path: Path) -> None:
    """Every kind of step, described in text and run by a program of C: bits as in Python."""
    whole, context, wide, few = (0, 0, 8), (1, 0, 8), (2, 0, 12), (3, 0, 12)
    bytes_ = (np.arange(8 * 8) * 7 % 255 - 127).astype(np.int8).reshape(8, 8)
    calls: list[tuple[Any, ...]] = [
        ("buffer", 8, False), ("buffer", 8, False), ("buffer", 12, False), ("buffer", 12, False),
        ("lookup", whole, f(11, 8), "word", False), ("lookup", whole, f(40, 8), "position", True),
        ("layer_norm", whole, whole, f(8), f(8), 1e-5), ("attention", whole, whole, whole, context, 2, True),
        ("linear_s8", context, whole, bytes_, np.abs(f(8)) / 100, f(8), 1, "gelu", whole, f(8)),
        ("linear", whole, wide, f(12, 4), f(12), 2, "", None, None), ("gather", wide, few, True),
    ]  # fmt: skip
    ids, starts, selected = np.arange(9, dtype=np.int32), np.array([0, 4, 9], np.int32), np.array([8, 0], np.int32)
    made = core.Program(2, kernels)
    lines = [text_of("program", kernels, 2)]
    for method, *arguments in calls:
        getattr(made, method)(*arguments, *([None] if method == "linear_s8" else []))
        lines.append(text_of(method, *arguments))
    expected = made.run(ids, ids * 0, starts, [whole, few], selected)
    lines += [text_of("output", whole), text_of("output", few), text_of("run", ids, ids * 0, starts, selected)]

    binary = tmp_path / "interface"
    library = Path(core.library()._name)
    compiled(NATIVE / "tests" / "interface.c", library, f"-Wl,-rpath,{library.parent}", "-o", binary)
    done = subprocess.run([binary], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [[float.fromhex(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert found == [row for array in expected for row in array.tolist()]
    lines[-1] = text_of("run", ids, ids * 0, starts + 1, selected)
    done = subprocess.run([binary], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "starts must begin at 0 and end at the number of tokens\n")

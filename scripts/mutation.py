"""Small changes of Python and C++ code, each of which a test should notice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """One change: characters `start` to `end` of a file become `after`."""

    package: str
    file: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str


# ── Python ──

_SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"), ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any", "first": "last", "start": "end"}


class _Python:
    """The places of one Python file."""

    def __init__(self, package: str, file: str, text: str) -> None:
        self.package, self.file, self.text = package, file, text
        self.tree = ast.parse(text)
        self.offsets = [0]
        for line in text.encode().splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.bytes = text.encode()

    def position(self, line: int, column: int) -> int:
        """Bytes from the beginning of the file."""
        return self.offsets[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.position(node.lineno, node.col_offset), self.position(node.end_lineno, node.end_col_offset)

    def source(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.bytes[start:end].decode()

    def mutant(self, kind: str, start: int, end: int, after: str) -> Mutant:
        line = self.bytes[:start].count(b"\n") + 1
        return Mutant(self.package, self.file, line, kind, start, end, self.bytes[start:end].decode(), after)

    def replaced(self, kind: str, node: ast.expr | ast.stmt, after: str) -> Mutant:
        return self.mutant(kind, *self.span(node), after)

    def walk(self, node: ast.AST) -> Iterator[Mutant]:
        """All places below a node, but for annotations, docstrings and what only type checkers read."""
        yield from self.of(node)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                    continue
                if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                    continue
                if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) in {"__all__", "__slots__"}:
                    continue
                yield from self.walk(child)

    def of(self, node: ast.AST) -> Iterator[Mutant]:
        """The changes of one node itself."""
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from self.swapped("comparison", node.left, node.comparators[0], node.ops[0])
        elif isinstance(node, ast.BinOp):
            yield from self.swapped("arithmetic", node.left, node.right, node.op)
        elif isinstance(node, ast.BoolOp):
            yield from self.swapped("and, or", node.values[0], node.values[1], node.op)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self.replaced("negation", node, self.source(node.operand))
        elif isinstance(node, ast.Constant):
            yield from self.constant(node)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield self.replaced("negation", node.test, f"not ({self.source(node.test)})")
        elif isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Delete):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)):
                yield self.replaced("statement", node, "pass")
        elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
            yield self.replaced("return", node, "return None")
        elif isinstance(node, ast.Break | ast.Continue):
            yield self.replaced("statement", node, "continue" if isinstance(node, ast.Break) else "break")
        elif isinstance(node, ast.Call):
            yield from self.call(node)

    def swapped(self, kind: str, left: ast.expr, right: ast.expr, operator: ast.AST) -> Iterator[Mutant]:
        """Another operator between two operands."""
        if type(operator) not in _SWAPS:
            return
        before, after = _SWAPS[type(operator)]
        start, end = self.span(left)[1], self.span(right)[0]
        between = self.bytes[start:end].decode()
        if between.count(before) == 1 and "#" not in between:
            place = start + len(between[: between.index(before)].encode())
            yield self.mutant(kind, place, place + len(before), after)

    def constant(self, node: ast.Constant) -> Iterator[Mutant]:
        value = node.value
        if isinstance(value, bool):
            yield self.replaced("constant", node, str(not value))
        elif isinstance(value, int):
            yield self.replaced("constant", node, f"{value + 1}")
        elif isinstance(value, float):
            yield self.replaced("constant", node, f"{value * 2 or 1.0!r}")

    def call(self, node: ast.Call) -> Iterator[Mutant]:
        if isinstance(node.func, ast.Name) and node.func.id in _TWINS:
            yield self.replaced("function", node.func, _TWINS[node.func.id])
        plain = [one for one in node.args if not isinstance(one, ast.Starred)]
        if len(plain) == len(node.args) >= 2 and ast.unparse(node.func) not in {"isinstance", "getattr", "hasattr"}:
            first, second = plain[:2]
            start, end = self.span(first)[0], self.span(second)[1]
            between = self.bytes[self.span(first)[1] : self.span(second)[0]].decode()
            after = f"{self.source(second)}{between}{self.source(first)}"
            if self.source(first) != self.source(second):
                yield self.mutant("arguments", start, end, after)


def python_mutants(package: str, file: str, text: str) -> Iterator[Mutant]:
    """The places of one Python file."""
    places = _Python(package, file, text)
    return places.walk(places.tree)


# ── C++ ──

_CPP = {
    "comparison": (
        r"(?<= )(<=|>=|==|!=|<|>)(?= )", {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    ),
    "arithmetic": (r"(?<= )([-+*/%])(?= )", {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"}),
    "and, or": (r"(?<= )(&&|\|\|)(?= )", {"&&": "||", "||": "&&"}),
    "boolean": (r"\b(true|false)\b", {"true": "false", "false": "true"}),
    "function": (r"\b(min|max)(?=\()", {"min": "max", "max": "min"}),
}  # fmt: skip
# Comments, texts, letters, directives, and angles that are brackets.
_IGNORED = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'"""
    r"""|^\#[^\n]*(?:\\\n[^\n]*)*|static_assert[^;]*;|template\ <[^\n]*""",
    re.DOTALL | re.MULTILINE,
)


def cpp_mutants(file: str, text: str) -> Iterator[Mutant]:
    """The places of one C++ file; operators are what stands between spaces, as brackets of templates do not."""
    code = _IGNORED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)

    def mutant(kind: str, start: int, end: int, after: str) -> Mutant:
        at = len(text[:start].encode())
        line = text[:start].count("\n") + 1
        return Mutant("native", file, line, kind, at, at + len(text[start:end].encode()), text[start:end], after)

    for kind, (pattern, swaps) in _CPP.items():
        for match in re.finditer(pattern, code):
            yield mutant(kind, *match.span(1), swaps[match[1]])
    for match in re.finditer(r"(?<![\w.])(\d+)(?![\w.])", code):
        yield mutant("constant", *match.span(), str(int(match[0]) + 1))
    for match in re.finditer(r"\b(?:if|while) \(([^\n{;]+)\)(?= [{\w]|$)", code, re.MULTILINE):
        if match[1].count("(") == match[1].count(")") and not match[1].startswith("constexpr"):
            yield mutant("negation", *match.span(1), f"!({match[1]})")
    for match in re.finditer(r"^ +([\w:.>-]+\([^;{}]*\));$", code, re.MULTILINE):
        if not match[1].startswith("return"):
            yield mutant("statement", *match.span(1), "")
    for match in re.finditer(r"\((\w+), (\w+)(?=[,)])", code):
        if match[1] != match[2]:
            yield mutant("arguments", match.start(1), match.end(2), f"{match[2]}, {match[1]}")

"""The project's own source, parsed, for the tests about its form."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT


class Import(NamedTuple):
    """One imported module.

    Attributes:
        module: its dotted name; for a relative import, what follows the dots.
        level: the number of dots.
        at_load: whether it is imported when the file is, not inside a function.
        line: where.
    """

    module: str
    level: int
    at_load: bool
    line: int


def modules(*packages: str) -> list[Path]:
    """Return the Python files of some packages, in order."""
    return [path for name in packages for path in sorted((ROOT / name).rglob("*.py"))]


def name_of(path: Path) -> str:
    """Return a file's path as it is written in this project."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST) -> Iterator[Import]:
    """Yield the imports of a file; those for the type checker alone are left out."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, at_load = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += [(child, at_load) for child in node.orelse]
            continue
        if isinstance(node, ast.Import):
            yield from (Import(name.name, 0, at_load, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", node.level, at_load, node.lineno)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack += [(child, at_load and not inside) for child in ast.iter_child_nodes(node)]


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield every call in a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called_name(call: ast.Call) -> str:
    """Return the last part of what is called, such as ``open`` in ``path.open()``."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""

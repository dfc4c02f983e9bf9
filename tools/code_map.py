"""The map of the code in ``CONTRIBUTING.md``, made of the modules' docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

from .environment import ROOT

__all__ = ["PACKAGES", "render", "update"]

PACKAGES = ("genxd_core", "nodes", "trainer", "tools", "benchmarks")
PAGE = ROOT / "CONTRIBUTING.md"

_BEGIN = "<!-- map: made by `python dev.py map` -->"
_END = "<!-- end of the map -->"


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def render(root: Path = ROOT) -> str:
    """Return the map as Markdown: one line a module, grouped by folder."""
    return "\n".join(_lines(root)) + "\n"


def _lines(root: Path) -> Iterator[str]:
    yield from ("**The root**", "")
    yield from (f"- `{name}`: {summary(root / name)}" for name in ("__init__.py", "dev.py"))
    for package in PACKAGES:
        folders = {path.parent for path in (root / package).rglob("*.py")}
        for folder in sorted(folders):
            yield from _folder(folder, root)


def _folder(folder: Path, root: Path) -> Iterator[str]:
    head = folder / "__init__.py"
    title = f": {summary(head)}" if head.is_file() and summary(head) else ""
    yield from ("", f"**`{folder.relative_to(root).as_posix()}/`**{title}", "")
    for path in sorted(folder.glob("*.py")):
        if path != head:
            yield f"- `{path.name}`: {summary(path)}"


def update(page: Path = PAGE, root: Path = ROOT) -> bool:
    """Write the map into a page, between its two marks, and return whether that changed it.

    Raises:
        ValueError: the page lacks a mark.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the marks {_BEGIN!r} and {_END!r} around the map")
    changed = f"{before}{_BEGIN}\n\n{render(root)}\n{_END}{after}"
    if changed != text:
        page.write_text(changed, encoding="utf-8", newline="\n")
    return changed != text

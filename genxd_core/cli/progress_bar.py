"""A progress bar on the terminal, as a progress callback of the library."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..optional import require

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bar", "progress_bar"]


class Bar:
    """A `Progress` that is drawn, with room for a few words at its end."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __call__(self, step: int, total: int, preview: "Tensor | None" = None) -> None:
        """Move the bar, whose length the first report tells."""
        self._bar.total = total
        self._bar.update(step - self._bar.n)

    def tell(self, words: str) -> None:
        """Set the words at the end of the bar, shown with its next move."""
        self._bar.set_postfix_str(words, refresh=False)

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        self._bar.write(line, file=sys.stderr)


@contextmanager
def progress_bar(title: str, *, unit: str, is_bytes: bool = False) -> Iterator[Bar]:
    """Show a bar while the ``with`` block runs; it learns its length from the first report.

    Args:
        title: in front of the bar.
        unit: of a step.
        is_bytes: steps are bytes, shown as kB, MB and so on.
    """
    tqdm = require("tqdm", extra="cli", purpose="show a progress bar")
    with tqdm.tqdm(desc=title, unit=unit, unit_scale=is_bytes, leave=True, ascii=True) as bar:
        yield Bar(bar)

"""A progress bar on the terminal, as a progress callback of the library."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..optional import require
from ..progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(title: str, *, unit: str, is_bytes: bool = False) -> Iterator[Progress]:
    """Show a bar while the ``with`` block runs; it learns its length from the first report.

    Args:
        title: in front of the bar.
        unit: of a step.
        is_bytes: steps are bytes, shown as kB, MB and so on.
    """
    tqdm = require("tqdm", extra="cli", purpose="show a progress bar")
    with tqdm.tqdm(desc=title, unit=unit, unit_scale=is_bytes, leave=True, ascii=True) as bar:

        def progress(step: int, total: int, preview: "Tensor | None" = None) -> None:
            bar.total = total
            bar.update(step - bar.n)

        yield progress

"""A fit on the terminal: its bar, its figures, and what Ctrl-C means while it runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from .progress_bar import Bar, progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from ..lifting.fit import FitStep

__all__ = ["FitWatch", "watch_fit"]


class FitWatch:
    """Progress and steps of a fit on a bar; made by `watch_fit`."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._asked_to_end = False

    def progress(self, step: int, total: int, preview: "Tensor | None" = None) -> bool:
        """Move the bar; ``False``, which ends the fit, after Ctrl-C."""
        self._bar(step, total)
        if self._asked_to_end and step > 0:
            self._bar.write("Ending the fit early; once more Ctrl-C stops without results.")
        return not self._asked_to_end

    def on_step(self, step: "FitStep") -> None:
        """Tell how good it is."""
        aside = ""
        if step.held_out_psnr is not None:
            aside = f"held out {step.held_out_psnr:.1f} dB, "
        self._bar.tell(f"PSNR {step.psnr:.1f} dB, {aside}{step.num_gaussians} Gaussians")

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """What SIGINT does: the first asks the fit to end, the next stops everything."""
        if self._asked_to_end:
            raise KeyboardInterrupt
        self._asked_to_end = True


@contextmanager
def watch_fit() -> Iterator[FitWatch]:
    """Show a fit; in the ``with`` block Ctrl-C ends it early, and the best so far is kept."""
    with progress_bar("fitting", unit="it") as bar:
        watch = FitWatch(bar)
        if threading.current_thread() is not threading.main_thread():
            yield watch
            return
        before = signal.signal(signal.SIGINT, watch.interrupt)
        try:
            yield watch
        finally:
            signal.signal(signal.SIGINT, before)

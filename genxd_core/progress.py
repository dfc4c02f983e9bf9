"""How long work tells its caller where it is, and how the caller stops it."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from .errors import Cancelled

__all__ = ["Progress", "Stages", "part_of", "report"]


@runtime_checkable
class Progress(Protocol):
    """Called after every step of long work; nodes, command line and trainer implement it."""

    def __call__(self, step: int, total: int, preview: Tensor | None = None) -> bool | None:
        """Take note of one finished step.

        Args:
            step: steps done so far, 1..total.
            total: steps in all.
            preview: an optional picture of the state, documented by the caller of this protocol.

        Returns:
            ``False`` to stop the work; anything else lets it go on. It may also raise.
        """
        ...


def report(progress: Progress | None, step: int, total: int, preview: Tensor | None = None) -> None:
    """Call ``progress`` if there is one.

    Raises:
        Cancelled: the callback returned ``False``.
    """
    if progress is not None and progress(step, total, preview) is False:
        raise Cancelled(f"stopped on request after step {step} of {total}")


def part_of(progress: Progress | None, before: int, whole: int) -> Progress | None:
    """The progress of a part of the work, of which ``before`` of ``whole`` steps were done."""
    if progress is None:
        return None

    def tell(step: int, total: int, preview: Tensor | None = None) -> None:
        report(progress, before + step, whole, preview)

    return tell


class Stages:
    """One bar over stages that count in steps of their own.

    Args:
        progress: told of all of them; may be ``None``.
        shares: of the bar, in its steps, one for each stage in their order.
    """

    def __init__(self, progress: Progress | None, shares: Sequence[int]) -> None:
        self._progress, self._shares = progress, list(shares)
        self._whole, self._before = sum(shares), 0

    def following(self) -> Progress | None:
        """The progress of the stage that comes next."""
        before, share = self._before, self._shares.pop(0)
        self._before += share
        if self._progress is None:
            return None

        def tell(step: int, total: int, preview: Tensor | None = None) -> None:
            done = before + math.ceil(share * step / total)
            report(self._progress, max(1, done), self._whole, preview)

        return tell

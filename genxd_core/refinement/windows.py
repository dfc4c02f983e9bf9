"""Which frames of a video are denoised together, and which of them are conditions (App. D)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["RefinePlan", "Window", "plan_windows"]


@dataclass(frozen=True)
class Window:
    """Frames that go through the network together.

    Attributes:
        frames: numbers of neighbours in the video, rising.
        conditions: those that stay as they are; the first is the reference view.
        weights: how much the window counts at each of its frames, in (0, 1]; those of all windows
            of a plan sum to 1 at every frame.
    """

    frames: tuple[int, ...]
    conditions: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def targets(self) -> tuple[int, ...]:
        """Frames that are denoised."""
        return tuple(frame for frame in self.frames if frame not in self.conditions)


@dataclass(frozen=True)
class RefinePlan:
    """Windows that cover a video. None needs another's result.

    Attributes:
        num_frames: of the video.
        conditions: frames that are conditions of every window that they are in, rising.
        windows: in the order of the video; one whose frames are all conditions has no targets.
    """

    num_frames: int
    conditions: tuple[int, ...]
    windows: tuple[Window, ...]

    @property
    def pending(self) -> tuple[int, ...]:
        """Numbers of the windows that have something to denoise."""
        return tuple(number for number, window in enumerate(self.windows) if window.targets)


def plan_windows(
    num_frames: int,
    *,
    conditions: Sequence[int] = (),
    window: int = 12,
    conditions_per_window: int = 3,
    overlap: int = 4,
) -> RefinePlan:
    """Cover a video with overlapping windows, each with enough conditions (App. D).

    Args:
        num_frames: of the video, at least 2.
        conditions: frames that are to be conditions; negative numbers count from the end. The
            first listed in a window is its reference view.
        window: frames that the network sees at once; 12 in the paper. A shorter video is one
            window.
        conditions_per_window: conditions of every window, at least; 3 in the paper. Where
            ``conditions`` are fewer, others are added: the ends of a window first, then the frames
            farthest from those there are. Without ``conditions`` every window has exactly so many:
            the first, middle and last frame of the first one.
        overlap: frames that neighbouring windows share, at least; from 0 to ``window - 1``. Without
            overlap nothing is blended.

    Raises:
        InvalidInputError: a number that cannot be; the message names it.
    """
    if num_frames < 2:
        raise InvalidInputError(
            f"video has {num_frames} frame; expected at least 2, typically 12 or more. For a "
            "single picture generate views instead (GenXDPipeline, GenXD Condition Views)."
        )
    if window < 2:
        raise InvalidInputError(f"window is {window}; expected at least 2 frames, typically 12.")
    if not 0 <= overlap < window:
        raise InvalidInputError(
            f"overlap is {overlap}; expected 0 to {window - 1}, less than the window, typically a "
            "third of it."
        )
    length = min(window, num_frames)
    if not 1 <= conditions_per_window < length:
        what = f"a window of {window}" if length == window else f"a video of {num_frames} frames"
        raise InvalidInputError(
            f"conditions_per_window is {conditions_per_window}; expected 1 to {length - 1}, fewer "
            f"than the frames of {what}, typically 3."
        )
    given = _given(conditions, num_frames)
    starts = _starts(num_frames, length, overlap)
    chosen = set(given)
    before = -1
    for start in starts:
        _add_conditions(chosen, range(start, start + length), before, conditions_per_window)
        before = start + length - 1
    listed = (*given, *sorted(chosen - set(given)))
    shares = _weights(num_frames, length, starts)
    windows = []
    for start, weights in zip(starts, shares, strict=True):
        frames = range(start, start + length)
        own = tuple(frame for frame in listed if frame in frames)
        windows.append(Window(tuple(frames), own, tuple(weights.tolist())))
    return RefinePlan(num_frames, tuple(sorted(chosen)), tuple(windows))


def _given(conditions: Sequence[int], num_frames: int) -> tuple[int, ...]:
    """Conditions as numbers from 0, in the order given."""
    given: list[int] = []
    for condition in conditions:
        if not -num_frames <= condition < num_frames:
            raise InvalidInputError(
                f"conditions has {condition}, but video has {num_frames} frames; give 0 to "
                f"{num_frames - 1}, or -1 to {-num_frames} from the end."
            )
        if condition % num_frames in given:
            raise InvalidInputError(
                f"conditions {list(conditions)} name frame {condition % num_frames} twice; give "
                "each frame once."
            )
        given.append(condition % num_frames)
    if len(given) == num_frames:
        raise InvalidInputError(
            f"conditions name all {num_frames} frames of video, so there is nothing to refine; "
            "name fewer."
        )
    return tuple(given)


def _starts(num_frames: int, length: int, overlap: int) -> list[int]:
    """Windows of one length, spread evenly from the first frame to the last."""
    count = math.ceil((num_frames - overlap) / (length - overlap)) if num_frames > length else 1
    room = num_frames - length
    return [0] if count == 1 else [number * room // (count - 1) for number in range(count)]


def _add_conditions(chosen: set[int], frames: range, before: int, least: int) -> None:
    """Choose among the frames that no earlier window has, whose conditions stay as many so."""
    missing = least - sum(frame in chosen for frame in frames)
    fresh = [frame for frame in frames if frame > before and frame not in chosen]
    if not chosen and missing > 0:
        spread = [number * (len(fresh) - 1) // max(least - 1, 1) for number in range(least)]
        chosen.update(fresh[place] for place in spread)
        return
    for _ in range(missing):
        # The last of equals: at the end of the window there is nothing behind to hold on to.
        best = max(fresh, key=lambda frame: (min(abs(frame - c) for c in chosen), frame))
        chosen.add(best)
        fresh.remove(best)


def _weights(num_frames: int, length: int, starts: list[int]) -> list[Float[Tensor, " {length}"]]:
    """A smooth bump for each window, divided by the sum of those at a frame."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    bump = (math.pi * places).sin() ** 2
    total = torch.zeros(num_frames, dtype=torch.float64)
    for start in starts:
        total[start : start + length] += bump
    return [bump / total[start : start + length] for start in starts]

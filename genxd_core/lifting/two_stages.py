"""What fits of moving scenes share: a stage at rest, then one in which a motion is learnt too.

Dimension letters: n Gaussians.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from ..progress import Progress
from .fit import FitResult
from .fit_inputs import FitInputs
from .fit_loop import DrawnValues, FitLoop, FitStep
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D, Motion, shifted_sh
from .parameters import FreeGaussians
from .rasterize import TensorRendering
from .recipes import FitRecipe
from .sh import rgb_to_sh0
from .sight import seen_by_half
from .start import looked_at_distance, typical_distance

__all__ = [
    "FitResult4D",
    "LearningRates",
    "MovingModel",
    "check_seen_at_all_times",
    "check_times",
    "finish",
    "first_stage",
]

_COVERED = 0.5  # of a mask


@dataclass(frozen=True)
class FitResult4D:
    """What came of a fit of something that moves.

    Attributes:
        gaussians: in the world of the cameras, on the CPU.
        static: what came of the first stage; ``None`` where it was left out.
        history: a record for each iteration of both stages (for every tenth on a GPU).
        metrics: "psnr" and "ssim" of the training views, each at its own time, "held_out_psnr" and
            "held_out_ssim" of the others where there are any, "num_gaussians", "iterations" done
            of both stages, "seconds" of both, "static_seconds" of the first.
        start: what the fit started from.
        backend: that drew.
        cancelled: whether it was stopped before its end; the Gaussians are the best so far.
    """

    gaussians: Gaussians4D
    static: FitResult | None
    history: tuple[FitStep, ...]
    metrics: dict[str, float]
    start: str
    backend: str
    cancelled: bool


@dataclass(frozen=True)
class LearningRates:
    """Of a motion.

    Attributes:
        groups: parameter groups for Adam, with their first rates.
        end: share of the rates that is left at the end; they fall exponentially.
    """

    groups: list[dict[str, object]]
    end: float


class MovingModel:
    """Free Gaussians, a fixed number of them, and what moves them.

    Args:
        inputs: the views, each at its time.
        gaussians: to begin with.
        motion: of these Gaussians.
        recipe: iterations and the Gaussians' learning rates.
        rates: of the motion.
        penalty: on the motion.
        device: of everything.
        outlined: whether masks outline all there is: what drifted out of sight is then invisible.
        features: of a view: what else is drawn for the loss, a row for each Gaussian.
    """

    def __init__(
        self,
        inputs: FitInputs,
        gaussians: Gaussians,
        motion: Motion,
        recipe: FitRecipe,
        rates: LearningRates,
        penalty: Callable[[], Float[Tensor, ""]],
        device: torch.device,
        features: Callable[[int], Float[Tensor, "n d"] | None] | None = None,
        outlined: bool = False,
    ) -> None:
        assert inputs.cameras.times is not None
        self._times = inputs.cameras.times.tolist()
        self._recipe, self._motion, self._penalty = recipe, motion, penalty
        distance = looked_at_distance(inputs.cameras)
        if distance is None:
            distance = typical_distance(gaussians.means, inputs.cameras)
        unit = distance / float(inputs.cameras.Ks_norm[:, 0, 0].mean())
        self._free = FreeGaussians.resumed(gaussians.to(device), recipe=recipe, unit=unit)
        self._features = features
        training = inputs.cameras[torch.tensor(inputs.training)]
        self._outlined = training if outlined else None
        self._optimiser = torch.optim.Adam(
            rates.groups, eps=1e-15, fused=device.type in ("cpu", "cuda")
        )
        self._first_rates = [group["lr"] for group in self._optimiser.param_groups]
        self._end = rates.end

    def __len__(self) -> int:
        return len(self._free)

    def values(self, view: int, iteration: int) -> DrawnValues:
        """The Gaussians at the time of this view, with gradients."""
        degree = min(self._recipe.sh_degree, (iteration - 1) // self._recipe.sh_every)
        moved = self._motion(self._free.moving(), self._times[view])
        colours = self._free.colours(degree)
        if moved.sh_shift is not None:
            sh = rgb_to_sh0(colours)[:, None] if colours.ndim == 2 else colours
            colours = shifted_sh(sh, moved.sh_shift)
        return (
            moved.means,
            moved.quats,
            moved.log_scales.exp(),
            moved.logits.sigmoid(),
            colours,
        )

    def features(self, view: int) -> Float[Tensor, "n d"] | None:
        """What else is drawn in this view for the loss."""
        return None if self._features is None else self._features(view)

    def means_at(self, time: float) -> Float[Tensor, "n 3"]:
        """Where the Gaussians are at a time, with gradients."""
        means: Tensor = self._motion(self._free.moving(), time).means
        return means

    def penalty(self) -> Float[Tensor, ""]:
        """On the motion."""
        return self._penalty()

    def learn(self, rendering: TensorRendering, iteration: int) -> None:
        """Take one step."""
        done = iteration / self._recipe.iterations
        self._free.step(done)
        for group, first in zip(self._optimiser.param_groups, self._first_rates, strict=True):
            group["lr"] = first * self._end**done
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def snapshot(self) -> Gaussians4D:
        """A copy of Gaussians and motion, without gradients."""
        motion = copy.deepcopy(self._motion).requires_grad_(False)
        found = Gaussians4D(self._free.gaussians(), motion)
        if self._outlined is None:
            return found
        # Their number is the motion's; what drifted out of sight is made invisible instead.
        times = self._outlined.times
        assert times is not None
        at = {time: found.at(time).means for time in set(times.tolist())}
        kept = seen_by_half([at[time] for time in times.tolist()], self._outlined)
        still = found.canonical
        opacities = torch.where(kept.to(still.opacities.device), still.opacities, 0.0)
        return Gaussians4D(replace(still, opacities=opacities), motion)


def check_times(inputs: FitInputs) -> list[float]:
    """The different times of the training views, in order.

    Raises:
        InvalidInputError: there are none, or all are the same.
    """
    found = inputs.cameras.times
    if found is None:
        raise InvalidInputError(
            "cameras have no times, so nothing tells when each picture was taken. Give "
            "Cameras(c2w, Ks_norm, times) with a time from 0 (first frame) to 1 (last frame) for "
            "each picture."
        )
    times = sorted({float(time) for time in found[list(inputs.training)]})
    if len(times) < 2:
        raise InvalidInputError(
            f"all pictures that are fitted are of the time {times[0]:.3g}; something that moves "
            "needs at least two different times. For a scene at rest use fit_gaussians (genxd "
            "lift, GenXD Lift To 3DGS)."
        )
    return times


def check_seen_at_all_times(inputs: FitInputs, times: list[float]) -> None:
    """Refuse masks that are empty in all pictures of a time.

    Raises:
        InvalidInputError: with the time.
    """
    if inputs.masks is None or inputs.cameras.times is None:
        return
    covered = inputs.masks.flatten(1).amax(1) > _COVERED
    for time in times:
        if not bool(covered[inputs.cameras.times == time].any()):
            raise InvalidInputError(
                f"masks are empty in all pictures of the time {time:.3g}, where the object cannot "
                "be seen; leave these pictures out, or give masks that outline it."
            )


def first_stage(progress: Progress | None, to_come: int) -> Progress | None:
    """The progress of a first stage on the bar of both; ``to_come`` iterations follow."""
    if progress is None:
        return None

    def first(step: int, total: int, preview: Tensor | None = None) -> bool | None:
        if preview is None:
            return progress(step, total + to_come)
        return progress(step, total + to_come, preview)

    return first


def finish(
    fit: FitLoop,
    static: FitResult | None,
    start: str,
    backend: str,
    progress: Progress | None,
    on_step: Callable[[FitStep], None] | None,
) -> FitResult4D:
    """Run the second stage, unless the first was stopped, and put both together."""
    done, seconds = 0, 0.0
    if static is not None:
        done, seconds = int(static.metrics["iterations"]), static.metrics["seconds"]
        fit.cancelled = static.cancelled
    if not fit.cancelled:
        fit.run(progress, on_step, done_before=done)
    gaussians, metrics = fit.outcome()
    assert isinstance(gaussians, Gaussians4D)
    metrics["iterations"] += done
    metrics["static_seconds"] = seconds
    metrics["seconds"] += seconds
    before = () if static is None else static.history
    return FitResult4D(
        gaussians.to("cpu"),
        static,
        (*before, *fit.history),
        metrics,
        start,
        backend,
        fit.cancelled,
    )

"""What every fit does: views in random order, losses, steps, previews, and the best so far.

What is fitted is a `FitModel`: Gaussians that stand still, or that move.

Dimension letters: n Gaussians.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import Cancelled, InvalidInputError
from ..progress import Progress, report
from .fit_inputs import FitInputs
from .fit_loss import FitLoss
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D, time_of
from .losses import psnr, ssim
from .rasterize import TensorRendering, rasterize, rasterize_tensors

__all__ = ["DrawnValues", "FitLoop", "FitModel", "FitStep"]

_NUM_PREVIEWS = 40
_NUM_EVALUATIONS = 10
_STEPS_BETWEEN_LOOKS = 10  # on devices that must be waited for
_MOST_PREVIEWED = 512  # pixels of a preview's longer side

DrawnValues = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Means, quats, scales, opacities and colours, as `rasterize_tensors` takes them."""


@dataclass(frozen=True)
class FitStep:
    """Where a fit is.

    Attributes:
        iteration: from 1.
        loss: of this iteration's view.
        psnr: in dB, of this iteration's view.
        num_gaussians: now.
        held_out_psnr: in dB, mean over the held-out views, as of the last look at them; ``None``
            without such views.
        seconds: since the first iteration began.
    """

    iteration: int
    loss: float
    psnr: float
    num_gaussians: int
    held_out_psnr: float | None
    seconds: float


@runtime_checkable
class FitModel(Protocol):
    """What a fit changes."""

    def __len__(self) -> int:
        """How many Gaussians there are."""

    def values(self, view: int, iteration: int) -> DrawnValues:
        """The Gaussians as this view sees them, with gradients."""

    def features(self, view: int) -> Float[Tensor, "n d"] | None:
        """What else is drawn in this view for the loss, a row for each Gaussian."""

    def penalty(self) -> Float[Tensor, ""] | None:
        """What is added to the loss of every view."""

    def learn(self, rendering: TensorRendering, iteration: int) -> None:
        """Take one step along the gradients, and whatever else there is to change."""

    def snapshot(self) -> Gaussians | Gaussians4D:
        """A copy of what there is now, without gradients."""


class FitLoop:
    """The state of one fit.

    Args:
        model: what is fitted.
        inputs: the views.
        iterations: how many.
        loss: that compares a rendering with a view: `FitLoss`, or with more terms.
        backend: that draws.
        device: of the model.
        generator: on the CPU, of the order of the views and the backgrounds.

    Attributes:
        history: of the iterations.
        cancelled: whether it was stopped before its end.
    """

    def __init__(
        self,
        model: FitModel,
        inputs: FitInputs,
        iterations: int,
        loss: FitLoss,
        backend: str,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._model, self._inputs, self._total, self._loss = model, inputs, iterations, loss
        self._backend, self._device, self._generator = backend, device, generator
        placed = inputs.cameras.to(device, torch.float32)
        self._viewmats, self._Ks = placed.viewmats, placed.Ks(*inputs.size)
        self._held_out_psnr: float | None = None
        self._best: tuple[float, Gaussians | Gaussians4D] | None = None
        self._order: list[int] = []
        self._began = time.perf_counter()
        self._done = 0
        self.history: list[FitStep] = []
        self.cancelled = False

    def run(
        self,
        progress: Progress | None,
        on_step: Callable[[FitStep], None] | None,
        *,
        done_before: int = 0,
    ) -> None:
        """All iterations, or as many as the caller lets it do.

        Args:
            progress: called after each, with a picture now and then.
            on_step: called with what goes into the history.
            done_before: iterations of earlier stages, for the progress and the history.
        """
        total = self._total
        all_stages = done_before + total
        look = 1 if self._device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        preview_every = max(1, total // _NUM_PREVIEWS)
        evaluate_every = max(1, total // _NUM_EVALUATIONS)
        for iteration in range(1, total + 1):
            loss, quality = self._iterate(iteration)
            self._done = iteration
            if self._inputs.held_out and iteration % evaluate_every == 0 and iteration < total:
                self._evaluate()
            if iteration % look == 0 or iteration == total:
                self._record(done_before + iteration, loss, quality, on_step)
            shown = None
            if progress is not None and iteration % preview_every == 0:
                shown = self._preview()
            try:
                report(progress, done_before + iteration, all_stages, shown)
            except Cancelled:
                self.cancelled = True
                return

    def outcome(self) -> tuple[Gaussians | Gaussians4D, dict[str, float]]:
        """What was fitted and how good it is; the best seen if the fit was stopped."""
        found = self._model.snapshot()
        seconds = time.perf_counter() - self._began
        quality, likeness = self._compare(found, self._inputs.held_out)
        if self.cancelled and self._best is not None and self._best[0] > quality:
            found = self._best[1]
            quality, likeness = self._compare(found, self._inputs.held_out)
        metrics: dict[str, float] = {}
        metrics["psnr"], metrics["ssim"] = self._compare(found, self._inputs.training)
        if self._inputs.held_out:
            metrics |= {"held_out_psnr": quality, "held_out_ssim": likeness}
        metrics["num_gaussians"] = len(found)
        metrics["iterations"] = self._done
        metrics["seconds"] = seconds
        return found, metrics

    def _iterate(self, iteration: int) -> tuple[Tensor, Tensor]:
        """One view: its loss, its gradients, one step."""
        view = self._next_view()
        width, height = self._inputs.size
        rendering = rasterize_tensors(
            *self._model.values(view, iteration),
            viewmats=self._viewmats[view : view + 1],
            Ks=self._Ks[view : view + 1],
            width=width,
            height=height,
            backend=self._backend,  # type: ignore[arg-type]  # as choose_backend found it
            features=self._model.features(view),
        )
        loss, quality = self._loss(rendering, view, self._generator)
        penalty = self._model.penalty()
        if penalty is not None:
            loss = loss + penalty
        loss.backward()
        self._model.learn(rendering, iteration)
        return loss.detach(), quality

    def _next_view(self) -> int:
        """Every view once, in random order, then again."""
        if not self._order:
            order = torch.randperm(len(self._inputs.training), generator=self._generator)
            self._order = [self._inputs.training[int(place)] for place in order]
        return self._order.pop()

    def _record(
        self,
        iteration: int,
        loss: Tensor,
        quality: Tensor,
        on_step: Callable[[FitStep], None] | None,
    ) -> None:
        value = float(loss)
        if value != value:
            raise InvalidInputError(
                f"the fit diverged at iteration {iteration}: its loss is not a number. Lower the "
                "recipe's learning rates, and check that the cameras belong to the pictures."
            )
        step = FitStep(
            iteration,
            value,
            float(quality),
            len(self._model),
            self._held_out_psnr,
            time.perf_counter() - self._began,
        )
        self.history.append(step)
        if on_step is not None:
            on_step(step)

    def _evaluate(self) -> None:
        found = self._model.snapshot()
        self._held_out_psnr, _ = self._compare(found, self._inputs.held_out)
        if self._best is None or self._held_out_psnr > self._best[0]:
            self._best = (self._held_out_psnr, found)

    @torch.no_grad()
    def _compare(self, found: Gaussians | Gaussians4D, views: Sequence[int]) -> tuple[float, float]:
        """Mean PSNR and SSIM of some views; NaN if there are none."""
        pairs: list[tuple[float, float]] = []
        for view in views:
            picture = self._picture(found, view)
            truth = self._inputs.images[view : view + 1]
            pairs.append((float(psnr(picture, truth)), float(ssim(picture, truth, window="valid"))))
        if not pairs:
            return float("nan"), float("nan")
        qualities, likenesses = zip(*pairs, strict=True)
        return sum(qualities) / len(pairs), sum(likenesses) / len(pairs)

    @torch.no_grad()
    def _picture(self, found: Gaussians | Gaussians4D, view: int) -> Float[Tensor, "1 3 h w"]:
        width, height = self._inputs.size
        camera = self._inputs.cameras[view]
        rendering = rasterize(
            found if isinstance(found, Gaussians) else found.at(time_of(camera)),
            camera,
            width=width,
            height=height,
            backend=self._backend,  # type: ignore[arg-type]
            background=self._inputs.background,
        )
        return rendering.rgb.clamp(0, 1).cpu()

    def _preview(self) -> Float[Tensor, "3 h w"]:
        view = (self._inputs.held_out or self._inputs.training)[0]
        picture = self._picture(self._model.snapshot(), view)
        scale = _MOST_PREVIEWED / max(picture.shape[-2:])
        if scale < 1:
            picture = torch.nn.functional.interpolate(picture, scale_factor=scale, mode="area")
        return picture[0]

"""What the nodes that fit Gaussians share: inputs, the device, masks, and the watch over a fit."""

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from latent_preview import MAX_PREVIEW_RESOLUTION
from server import PromptServer

from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.backends import drawing_device
from ..genxd_core.lifting.background_masks import masks_from_background
from ..genxd_core.lifting.fit_loop import FitStep
from ..genxd_core.pictures import to_pil
from ._checks import check_mask
from ._convert import mask_to_maps
from ._groups import STOP, USE

__all__ = [
    "USE",
    "FitWatch",
    "background_input",
    "check_depth",
    "free_device",
    "interruption_input",
    "object_masks",
    "plain_background_input",
    "seed_input",
    "up_input",
]


_TEXT_EVERY = 10  # iterations between two lines of text on the node


def plain_background_input() -> Any:
    """Whether what the border's colour is joined to is background."""
    return io.Boolean.Input(
        "plain_background",
        default=False,
        tooltip="Take everything joined to the pictures' border by the background's "
        "colour for background, and fit the object alone. Typically on for objects "
        "on white, off for scenes.",
    )


def background_input() -> Any:
    """The colour behind the object."""
    return io.Color.Input(
        "background",
        default="#ffffff",
        tooltip="The colour behind the object in the images; typically white, #ffffff.",
    )


def up_input() -> Any:
    """What is up in the cameras' world."""
    return io.Combo.Input(
        "up",
        options=["+Z", "-Y", "from cameras", "keep"],
        default="+Z",
        tooltip="What is up in the cameras' world, so that viewers show the splat "
        "upright. +Z (typical): paths made by GenXD nodes. from cameras: captures. "
        "-Y: upright already. keep: turn nothing.",
    )


def seed_input() -> Any:
    """Of everything random."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="Of everything random; 0 is typical. The same seed gives "
        "the same splat on one device.",
    )


def interruption_input() -> Any:
    """What ComfyUI's cancel does."""
    return io.Combo.Input(
        "when_interrupted",
        options=[STOP, USE],
        default=STOP,
        tooltip="What ComfyUI's cancel does during the fit: stop the graph (typical), "
        "or end the fit early and go on with the best so far.",
    )


def free_device() -> torch.device:
    """The device that fits, with the memory that models held on it."""
    device = drawing_device(comfy.model_management.get_torch_device())
    if device.type != "cpu":
        # The diffusion model that made the views has done its work.
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
    return device


def object_masks(
    views: torch.Tensor,
    mask: torch.Tensor | None,
    plain_background: bool,
    colour: tuple[float, float, float],
    name: str = "mask",
) -> torch.Tensor | None:
    """Masks as maps (V, 1, H, W), those given or those that a plain background tells.

    Raises:
        InvalidInputError: both are asked for, or the masks do not belong to the views.
    """
    if mask is None:
        return masks_from_background(views, colour) if plain_background else None
    if plain_background:
        raise InvalidInputError(
            f"{name} is connected and plain_background is on; both outline the object. Switch "
            "plain_background off, or disconnect the mask."
        )
    check_mask(mask, name)
    maps = mask_to_maps(mask)
    if len(maps) == 1 and len(views) > 1:
        raise InvalidInputError(
            f"{name} has 1 picture for {len(views)} images; give one mask for each."
        )
    if (len(maps), *maps.shape[2:]) != (len(views), *views.shape[2:]):
        (count, _, height, width), (num_views, _, *size) = maps.shape, views.shape
        raise InvalidInputError(
            f"{name} is {width} x {height} pixels in {count} pictures, but images are {size[1]} x "
            f"{size[0]} in {num_views}; give one mask of this size for each."
        )
    return maps


def check_depth(depth: torch.Tensor | None, views: torch.Tensor) -> None:
    """Refuse depth that is not for the views.

    Raises:
        InvalidInputError: its shape is another.
    """
    expected = (len(views), 1, *views.shape[2:])
    if depth is not None and tuple(depth.shape) != expected:
        raise InvalidInputError(
            f"depth has shape {tuple(depth.shape)}; expected {expected}, one map of the images' "
            "size for each. Draw it with GenXD Render Splat at their size."
        )


class FitWatch:
    """The node's bar, previews and text; and what an interruption means."""

    def __init__(self, node: str | None, total: int, goes_on: bool) -> None:
        """Watch so many iterations; with ``goes_on`` an interruption ends the fit early."""
        self._node, self._total, self._goes_on = node, total, goes_on
        self._bar = comfy.utils.ProgressBar(total)

    def progress(self, step: int, total: int, preview: torch.Tensor | None = None) -> bool:
        """Move the bar; `False` ends the fit."""
        shown = None
        if preview is not None and comfy.utils.PROGRESS_BAR_ENABLED:
            shown = ("JPEG", to_pil(preview), MAX_PREVIEW_RESOLUTION)
        try:
            # The bar, which looks for an interruption too, does so a few times a second only.
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._bar.update_absolute(step, total, shown)
        except comfy.model_management.InterruptProcessingException:
            if not self._goes_on or step == 0:
                raise
            return False
        return True

    def on_step(self, step: FitStep) -> None:
        """Write how good it is on the node."""
        if self._node and (step.iteration % _TEXT_EVERY == 0 or step.iteration == self._total):
            aside = ""
            if step.held_out_psnr is not None:
                aside = f", held-out {step.held_out_psnr:.1f} dB"
            text = (
                f"{step.iteration}/{self._total}: PSNR {step.psnr:.1f} dB{aside}, "
                f"{step.num_gaussians:,} Gaussians"
            )
            PromptServer.instance.send_progress_text(text, self._node)

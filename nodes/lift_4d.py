"""Views of something that moves to Gaussians that move."""

import json
from typing import Any

import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.comparison import (
    compare_views,
    describe_fit,
    held_out_views,
    views_to_compare,
)
from ..genxd_core.lifting.fit_4d import fit_gaussians_4d
from ..genxd_core.lifting.fit_motion_bases import fit_motion_bases
from ..genxd_core.lifting.gaussians_4d import Gaussians4D
from ..genxd_core.lifting.hexplane import HexPlaneField
from ..genxd_core.lifting.point_cloud import PointCloud
from ..genxd_core.lifting.recipes_4d import RECIPES_4D, RECIPES_BASES, adjusted_recipe_4d
from ..genxd_core.lifting.tracks import Tracks
from ..genxd_core.lifting.two_stages import FitResult4D
from ..genxd_core.lifting.upright import turn_cameras, upright_rotation
from ._checks import check_images, checked, parse_colour, why_not_a_colour
from ._convert import image_to_views, views_to_image
from ._fits import (
    USE,
    FitWatch,
    background_input,
    check_depth,
    free_device,
    interruption_input,
    object_masks,
    plain_background_input,
    seed_input,
    up_input,
)
from ._types import (
    CamerasSocket,
    DepthSocket,
    PerceptualSocket,
    PointsSocket,
    Splat4DSocket,
)

__all__ = ["NODES", "GenXDLiftTo4DGS", "GenXDLiftToMotionBases"]


class GenXDLiftTo4DGS(io.ComfyNode):
    """Fit Gaussians and how they move to views at several times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LiftTo4DGS",
            display_name="GenXD Lift To 4DGS",
            category="GenXD/lifting",
            description="Fits Gaussians that move to pictures at several times with known cameras: "
            "a moving scene to be seen from anywhere at any time.",
            search_aliases=["4dgs", "dynamic gaussian splatting", "lift", "4d", "deformation"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The pictures at all times, all of one size: one video made in 4D "
                    "mode, or typically several from different sides, one after the other.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    tooltip="One camera for each of the images, in the same order. Their times, 0 "
                    "to 1, tell when each picture was taken; without times the images are taken "
                    "as one video, evenly from 0 to 1.",
                ),
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES_4D),
                    default="demo",
                    tooltip="demo (typical on a CPU): 300 iterations at rest, 1,200 with motion. "
                    "object_4d: the paper's, 500 and 2,000, with a perceptual model. test: "
                    "seconds, rough.",
                ),
                plain_background_input(),
                background_input(),
                io.Int.Input(
                    "hold_out_every",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="One picture in so many is not fitted but compared with; 0 (typical) = "
                    "all are fitted, 8 where several videos show the same times.",
                ),
                up_input(),
                io.Int.Input(
                    "iterations",
                    default=0,
                    min=0,
                    max=200_000,
                    tooltip="With motion; 0 (typical) = as the recipe says.",
                ),
                io.Int.Input(
                    "num_gaussians",
                    default=0,
                    min=0,
                    max=2_000_000,
                    tooltip="How many Gaussians to start with, where the start can choose; 0 "
                    "(typical) = as the recipe says.",
                ),
                io.Float.Input(
                    "lpips_weight",
                    default=-1.0,
                    min=-1.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Weight of the perceptual model; -1 (typical) = as the recipe says: "
                    "0.2 for object_4d. 0 = none is used.",
                ),
                seed_input(),
                interruption_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Optional: 1 = object, one for each of the images; the object alone "
                    "is fitted.",
                ),
                io.Image.Input(
                    "static_images",
                    optional=True,
                    tooltip="Optional, typically connected: views of the first moment from many "
                    "sides, made in 3D mode. The Gaussians are fitted to them before anything "
                    "moves.",
                ),
                CamerasSocket.Input(
                    "static_cameras",
                    optional=True,
                    tooltip="One camera for each of the static images, in the world of cameras.",
                ),
                io.Mask.Input(
                    "static_mask",
                    optional=True,
                    tooltip="Optional: 1 = object, one for each of the static images; goes "
                    "together with mask.",
                ),
                PerceptualSocket.Input(
                    "perceptual",
                    optional=True,
                    tooltip="What object_4d compares pictures with, from GenXD Load Perceptual "
                    "Model; its choice gradient needs no weights.",
                ),
                Splat4DSocket.Input(
                    "splat4d",
                    optional=True,
                    tooltip="Optional: a moving splat of this node to go on from, in the world of "
                    "cameras, without a stage at rest; typically for more or refined pictures.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, background: str | None = None) -> bool | str:
        """What can be said before running."""
        return why_not_a_colour(background)

    @classmethod
    @checked
    def execute(
        cls,
        images: torch.Tensor,
        cameras: Cameras,
        recipe: str,
        plain_background: bool,
        background: str,
        hold_out_every: int,
        up: str,
        iterations: int,
        num_gaussians: int,
        lpips_weight: float,
        seed: int,
        when_interrupted: str,
        mask: torch.Tensor | None = None,
        static_images: torch.Tensor | None = None,
        static_cameras: Cameras | None = None,
        static_mask: torch.Tensor | None = None,
        perceptual: Any = None,
        splat4d: Gaussians4D | None = None,
    ) -> io.NodeOutput:
        """Check, fit, turn upright, compare."""
        if splat4d is not None:
            _check_goes_on(splat4d, up, static_images)
        check_images(images)
        views = image_to_views(images)
        colour = parse_colour(background, "background")
        timed = _timed(cameras, len(views))
        masks = object_masks(views, mask, plain_background, colour)
        still = static_masks = None
        if static_images is not None:
            check_images(static_images, "static_images")
            still = image_to_views(static_images)
            static_masks = object_masks(
                still, static_mask, plain_background, colour, name="static_mask"
            )
        elif static_mask is not None:
            raise InvalidInputError(
                "static_mask is connected without static_images; connect both, or neither."
            )
        settings = adjusted_recipe_4d(
            recipe,
            iterations=iterations or None,
            num_gaussians=num_gaussians or None,
            lpips=lpips_weight if lpips_weight >= 0 else None,
        )
        held_out = held_out_views(len(views), hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = upright_rotation(cameras, up=up)
        device = free_device()
        total = settings.moving.iterations
        total += settings.static.iterations if splat4d is None else 0
        watch = FitWatch(cls.hidden.unique_id, total, when_interrupted == USE)
        result = fit_gaussians_4d(
            views,
            timed,
            recipe=settings,
            masks=masks,
            static_images=still,
            static_cameras=static_cameras,
            static_masks=static_masks,
            background=colour,
            perceptual=perceptual,
            held_out=held_out,
            resume=splat4d,
            seed=seed,
            device=device,
            progress=watch.progress,
            on_step=watch.on_step,
        )
        return _output(result, views, timed, upright, held_out, colour, recipe)


def _check_goes_on(splat4d: Gaussians4D, up: str, static_images: torch.Tensor | None) -> None:
    """Refuse what a fit cannot go on from, or would turn a second time."""
    if splat4d.motion.kind != HexPlaneField.kind:
        raise InvalidInputError(
            "splat4d has motion bases, which this node cannot go on with; connect a splat4d of "
            "GenXD Lift To 4DGS."
        )
    if static_images is not None:
        raise InvalidInputError(
            "static_images and splat4d are connected, but a fit that goes on has no stage at rest; "
            "disconnect one of them."
        )
    turned = not torch.equal(splat4d.rotation, torch.eye(3, dtype=splat4d.rotation.dtype))
    if turned and up not in ("keep", "-Y"):
        raise InvalidInputError(
            f'up is "{up}", but splat4d is turned upright already; choose "keep", and give cameras '
            "of its world, such as the cameras output of the node that made it."
        )


def _timed(cameras: Cameras, num_images: int) -> Cameras:
    """The cameras with times; one for each of the images, which what follows is held against."""
    if len(cameras) != num_images:
        raise InvalidInputError(
            f"images has {num_images} pictures for {len(cameras)} cameras; give one camera per "
            "picture, in the same order."
        )
    if cameras.times is not None or len(cameras) < 2:
        return cameras
    return Cameras(cameras.c2w, cameras.Ks_norm, torch.linspace(0, 1, len(cameras)))


class GenXDLiftToMotionBases(io.ComfyNode):
    """Fit a scene at rest and the rigid motions of what moves in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LiftToMotionBases",
            display_name="GenXD Lift To Motion Bases",
            category="GenXD/lifting",
            description="Fits a scene in which some things move, from one video with cameras and "
            "masks of what moves: a background at rest, and a few rigid motions that Gaussians "
            "share.",
            search_aliases=["shape of motion", "4dgs", "dynamic scene", "video to 4d", "lift"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The frames of a video, or typically several videos one after the "
                    "other, all of one size.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    tooltip="One camera for each of the images, in the same order. Their times, 0 "
                    "to 1, tell when each picture was taken; without times the images are taken "
                    "as one video, evenly from 0 to 1.",
                ),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = what moves, one for each of the images; may be empty where it is "
                    "out of sight.",
                ),
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES_BASES),
                    default="demo",
                    tooltip="demo (typical on a CPU): 500 iterations at rest, 800 with motion. "
                    "scene_4d: 2,000 and 4,000. test: seconds, rough.",
                ),
                io.Boolean.Input(
                    "nothing_at_rest",
                    default=False,
                    tooltip="On: there is nothing but what moves before the background's colour; "
                    "typically off.",
                ),
                background_input(),
                io.Int.Input(
                    "hold_out_every",
                    default=8,
                    min=0,
                    max=1024,
                    tooltip="One picture in so many is not fitted but compared with: the honest "
                    "measure of the result. 8 is typical; 0 = all are fitted.",
                ),
                up_input(),
                seed_input(),
                interruption_input(),
                DepthSocket.Input(
                    "depth",
                    optional=True,
                    tooltip="Optional: depth of the images in the cameras' scene units, 0 where "
                    "unknown; typically connected for a single video, whose depth is a guess else.",
                ),
                PointsSocket.Input(
                    "points",
                    optional=True,
                    tooltip="Optional: points of what is at rest to start from, typically from "
                    "GenXD Load Capture.",
                ),
                io.Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="Optional: points of what moves, followed through the images by a "
                    "point tracker, in their pixels; typically some hundred.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, background: str | None = None) -> bool | str:
        """What can be said before running."""
        return why_not_a_colour(background)

    @classmethod
    @checked
    def execute(
        cls,
        images: torch.Tensor,
        cameras: Cameras,
        mask: torch.Tensor,
        recipe: str,
        nothing_at_rest: bool,
        background: str,
        hold_out_every: int,
        up: str,
        seed: int,
        when_interrupted: str,
        depth: torch.Tensor | None = None,
        points: PointCloud | None = None,
        tracks: dict[str, torch.Tensor] | None = None,
    ) -> io.NodeOutput:
        """Check, fit, turn upright, compare."""
        check_images(images)
        views = image_to_views(images)
        colour = parse_colour(background, "background")
        timed = _timed(cameras, len(views))
        followed = None if tracks is None else _tracks(tracks, views)
        masks = object_masks(views, mask, False, colour)
        assert masks is not None
        check_depth(depth, views)
        settings = RECIPES_BASES[recipe]
        held_out = held_out_views(len(views), hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = upright_rotation(cameras, up=up)
        device = free_device()
        total = settings.moving.iterations
        total += 0 if nothing_at_rest else settings.static.iterations
        watch = FitWatch(cls.hidden.unique_id, total, when_interrupted == USE)
        result = fit_motion_bases(
            views,
            timed,
            masks,
            depths=depth,
            tracks=followed,
            plain_background=nothing_at_rest,
            recipe=settings,
            background=colour,
            points=points,
            held_out=held_out,
            seed=seed,
            device=device,
            progress=watch.progress,
            on_step=watch.on_step,
        )
        return _output(result, views, timed, upright, held_out, colour, recipe)


def _tracks(tracks: dict[str, torch.Tensor], views: torch.Tensor) -> Tracks:
    height, width = views.shape[2:]
    path, visible = tracks.get("track_path"), tracks.get("track_visibility")
    if path is None or visible is None:
        raise InvalidInputError(
            "tracks holds no track_path or no track_visibility; connect the tracks of a point "
            "tracker."
        )
    return Tracks.from_pixels(path, visible, width=width, height=height)


def _outputs() -> list[Any]:
    """What both kinds of fits give."""
    return [
        Splat4DSocket.Output(
            display_name="splat4d",
            tooltip="For GenXD Render Splat, GenXD Splat At Time, GenXD Splat4D To Batch "
            "and GenXD Save 4D.",
        ),
        CamerasSocket.Output(
            display_name="cameras",
            tooltip="The given cameras, with their times, in the splat's world.",
        ),
        io.Image.Output(
            display_name="comparisons",
            tooltip="For held-out pictures, or else some of all: the picture, the "
            "rendering at its time, three times their difference.",
        ),
        io.String.Output(display_name="report", tooltip="Figures of the fit, as JSON."),
    ]


def _output(
    result: FitResult4D,
    views: torch.Tensor,
    cameras: Cameras,
    upright: torch.Tensor,
    held_out: list[int],
    colour: tuple[float, float, float],
    recipe: str,
) -> io.NodeOutput:
    compared = compare_views(
        result, views, cameras, views_to_compare(len(views), held_out), background=colour
    )
    report = describe_fit(result, num_views=len(views), held_out=held_out)
    return io.NodeOutput(
        result.gaussians.turned(upright),
        turn_cameras(cameras, upright),
        views_to_image(compared),
        json.dumps({"recipe": recipe, **report}, indent=2),
    )


NODES = [GenXDLiftTo4DGS, GenXDLiftToMotionBases]

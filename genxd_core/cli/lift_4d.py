"""``genxd lift4d``: pictures at several times to a splat that moves, with a video and a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import InvalidInputError
from .colours import read_colour
from .file_errors import errors_of
from .fit_command import FitCommand
from .fit_watch import watch_fit
from .output_folder import output_folder
from .progress_bar import progress_bar
from .record import write_record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..cameras.cameras import Cameras
    from ..captures import Capture
    from ..lifting.gaussians_4d import Gaussians4D
    from ..lifting.perceptual import PerceptualModel
    from ..lifting.recipes_4d import FitRecipe4D, FitRecipeBases
    from ..lifting.two_stages import FitResult4D

__all__ = ["Lift4D"]

_OPTIONS = {
    "hexplane": (
        *("perceptual", "lpips_weight", "num_gaussians"),
        *("static_images", "static_cameras", "static_masks", "resume"),
    ),
    "bases": ("depths", "nothing_at_rest"),
}
_MOST_FRAMES = 10_000
_NEAR = 0.25  # quantile of the depths that are seen, around which a video's path swings
_LOOKS = 4  # views to measure it in
_SOLID = 0.5
_MOST_COUNTED = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a fit of something that moves is given.

    Attributes:
        capture: pictures, cameras with times, and points.
        masks: (V, 1, H, W), 1 = object or what moves.
        held_out: views to compare with.
        colour: behind everything.
        device: that fits.
    """

    capture: "Capture"
    masks: "Tensor | None"
    held_out: Sequence[int]
    colour: Sequence[float]
    device: "torch.device"


@dataclass(frozen=True, kw_only=True)
class Lift4D(FitCommand):
    """Fit Gaussians that move to pictures at several times with known cameras.

    Ctrl-C during the fit ends it early and keeps the best so far; a second one during the fit stops
    without results. During the video it leaves the video out.

    Attributes:
        method: hexplane is a deformation field, for an object seen from several sides; bases is a
            scene at rest in which the parts outlined by --masks move, also from a single video.
        recipe: demo takes minutes on a CPU, test seconds; object_4d is the paper's for hexplane and
            needs --perceptual, scene_4d is the long one for bases.
        times: when each picture was taken: from-cameras as their file says, video as one video,
            evenly from 0 to 1 in the order of the pictures' names; auto is from-cameras where the
            file has times, else video.
        masks: folder of pictures of the same names. White is the object, which alone is fitted;
            with --method bases, which needs them, white is what moves.
        perceptual: for hexplane; what object_4d compares pictures with: a file of AlexNet, VGG16 or
            SqueezeNet, the name of one in models/genxd/perceptual, or "gradient", which needs no
            weights.
        iterations: with motion; by default the recipe's.
        num_gaussians: for hexplane; to start with, where the start can choose; by default the
            recipe's.
        lpips_weight: for hexplane; weight of --perceptual; by default the recipe's.
        static_images: for hexplane; folder of views of the first moment from many sides, which the
            Gaussians are fitted to before anything moves.
        static_cameras: for hexplane; their cameras, in the world of --cameras.
        static_masks: for hexplane; their masks, where --masks are given.
        resume: for hexplane; the scene.safetensors of an earlier run, to fit on, with cameras as
            they were given to it or those that it left. Learning rates begin anew, so few
            --iterations make it worse.
        depths: for bases; folder of a .npy for each picture, of the same name: z-depth in the units
            of the cameras, 0 where unknown.
        nothing_at_rest: for bases; there is nothing but what moves before the colour --background.
        spin: draw a video in which the camera moves while time runs (needs PyAV).
        frames: .ply files of moments from the first to the last, in the folder frames; 0 = none.
        fps: frames a second of that video, and of the frames.
    """

    record: ClassVar[str] = "lift4d.json"

    out: Path = Path("genxd_lift4d")
    method: Literal["hexplane", "bases"] = "hexplane"
    recipe: Literal["demo", "test", "object_4d", "scene_4d"] = "demo"
    times: Literal["auto", "from-cameras", "video"] = "auto"
    masks: Path | None = None
    perceptual: str | None = None
    iterations: int | None = None
    num_gaussians: int | None = None
    lpips_weight: float | None = None
    static_images: Path | None = None
    static_cameras: Path | None = None
    static_masks: Path | None = None
    resume: Path | None = None
    depths: Path | None = None
    nothing_at_rest: bool = False
    spin: bool = True
    frames: int = 24
    fps: float = 15.0

    def run(self) -> int:
        """Fit and write everything; returns the exit status."""
        from dataclasses import asdict

        from ..cameras.editing import with_even_times
        from ..lifting.comparison import held_out_views
        from ..lifting.spin import is_one_video
        from .devices import choose_drawing_device

        self._check_outputs()
        self._check_numbers()
        self._check_options()
        colour = read_colour(self.background, "background")
        recipe = self._recipe()
        perceptual = self._perceptual_of(self.recipe, recipe.moving.lpips)
        device = choose_drawing_device(self.device)
        earlier = self._earlier()
        capture = self._timed(self._capture())
        cameras = capture.cameras
        inputs = _Inputs(
            capture=capture,
            masks=self._masks_of(capture, self._given_cameras(), self.masks, colour),
            held_out=held_out_views(len(capture.images), self.hold_out_every),
            colour=colour,
            device=device,
        )
        # Before the fit, which would be lost if the cameras do not tell.
        upright = self._upright(cameras)
        spin = None
        if self.spin and not is_one_video(cameras):
            spin = with_even_times(self._around(cameras, upright))
        result = self._fit(inputs, recipe, perceptual, earlier)
        with output_folder(self.out, record=self.record, force=self.force) as folder:
            self._write(folder, result, cameras, upright)
            compared = folder / "comparisons.png"
            self._compare(compared, result, capture, inputs.held_out, colour)
            if self.spin:
                path = self._along(result, inputs) if spin is None else spin
                self._try_spin(folder / "spin.mp4", result, path, capture, colour, device)
            chosen = {"device": str(device), "recipe": asdict(recipe), "times": _times(cameras)}
            facts = self._facts(result, capture, inputs.held_out, chosen)
            write_record(folder / self.record, self, facts)
        self._copy_report()
        print(self._told(result))
        return 0

    # ---- before the fit -------------------------------------------------------------------------

    def _check_options(self) -> None:
        from ..media import check_fps

        if self.frames and not 2 <= self.frames <= _MOST_FRAMES:
            raise InvalidInputError(
                f"--frames is {self.frames}; expected 0 for none, or 2 to {_MOST_FRAMES}."
            )
        if self.frames:
            check_fps(self.fps)
        self._refuse_options_of_other_method()
        if self.method == "bases":
            self._check_what_moves()
        else:
            self._check_static_views()
            self._check_resume()

    def _refuse_options_of_other_method(self) -> None:
        other = "bases" if self.method == "hexplane" else "hexplane"
        for name in _OPTIONS[other]:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                option = name.replace("_", "-")
                raise InvalidInputError(
                    f"--{option} belongs to --method {other}, but the method is {self.method}; "
                    f"leave it out, or give --method {other}."
                )

    def _check_what_moves(self) -> None:
        if self.plain_background and not self.nothing_at_rest:
            raise InvalidInputError(
                "plain_background tells an object before one colour, but --method bases fits what "
                "is at rest behind it too; give --masks FOLDER instead, or --nothing-at-rest where "
                "there is nothing else."
            )
        if self.masks is None and not self.plain_background:
            raise InvalidInputError(
                "masks is missing; --method bases has to be told what moves: give --masks FOLDER "
                "with a picture for each, white where it moves. Without masks use --method "
                "hexplane."
            )

    def _check_static_views(self) -> None:
        if self.static_cameras is None:
            for name, value in (("images", self.static_images), ("masks", self.static_masks)):
                if value is not None:
                    raise InvalidInputError(
                        f"static_{name} is given without static_cameras; give both, or neither."
                    )
        elif (self.static_masks is None) != (self.masks is None):
            raise InvalidInputError(
                "masks and static_masks belong together: give both, or neither of them."
            )

    def _check_resume(self) -> None:
        if self.resume is None:
            return
        for name in ("static_cameras", "points", "num_gaussians"):
            if getattr(self, name) is not None:
                option = name.replace("_", "-")
                raise InvalidInputError(
                    f"--{option} tells what to start from, but --resume goes on from Gaussians "
                    "that are there; leave one of them out."
                )

    def _recipe(self) -> "FitRecipe4D | FitRecipeBases":
        from ..lifting.recipes_4d import (
            RECIPES_4D,
            RECIPES_BASES,
            adjusted_recipe_4d,
            adjusted_recipe_bases,
        )

        known = [*(RECIPES_BASES if self.method == "bases" else RECIPES_4D)]
        if self.recipe not in known:
            raise InvalidInputError(
                f"recipe is {self.recipe!r}, which --method {self.method} does not have; expected "
                f"one of {', '.join(known)}."
            )
        if self.method == "bases":
            return adjusted_recipe_bases(self.recipe, iterations=self.iterations)
        return adjusted_recipe_4d(
            self.recipe,
            iterations=self.iterations,
            num_gaussians=self.num_gaussians,
            lpips=self.lpips_weight,
        )

    def _earlier(self) -> "Gaussians4D | None":
        from ..lifting.files_4d import load_gaussians_4d
        from ..lifting.hexplane import HexPlaneField

        if self.resume is None:
            return None
        with errors_of("--resume", self.resume):
            earlier = load_gaussians_4d(self.resume)
        if not isinstance(earlier.motion, HexPlaneField):
            raise InvalidInputError(
                f"--resume {self.resume} was made by --method bases, which cannot go on from a "
                "file; give one of --method hexplane."
            )
        return earlier

    def _timed(self, capture: "Capture") -> "Capture":
        """The capture with times, and a line that tells where they are from if that was open."""
        given = capture.cameras.times
        if self.times == "from-cameras" and given is None:
            raise InvalidInputError(
                f"times is from-cameras, but {self.cameras} has none; give --times video where the "
                "pictures are one video in the order of their names, or cameras with times."
            )
        if given is not None and self.times != "video":
            return capture
        if self.times == "auto":
            print(
                f"{self.cameras} has no times: the pictures are taken as one video, evenly from 0 "
                "to 1 in the order of their names"
            )
        return replace(capture, cameras=_as_video(capture))

    # ---- the fit --------------------------------------------------------------------------------

    def _fit(
        self,
        inputs: _Inputs,
        recipe: "FitRecipe4D | FitRecipeBases",
        perceptual: "PerceptualModel | Literal['gradient'] | None",
        earlier: "Gaussians4D | None",
    ) -> "FitResult4D":
        from ..lifting.fit_4d import fit_gaussians_4d
        from ..lifting.fit_motion_bases import fit_motion_bases
        from ..lifting.recipes_4d import FitRecipeBases

        capture = inputs.capture
        shared: dict[str, Any] = {
            "images": capture.images,
            "cameras": capture.cameras,
            "masks": inputs.masks,
            "background": inputs.colour,
            "points": capture.points,
            "held_out": inputs.held_out,
            "seed": self.seed,
            "backend": self.backend,
            "device": inputs.device,
        }
        if isinstance(recipe, FitRecipeBases):
            depths = self._depths(capture)
            with watch_fit() as watch:
                return fit_motion_bases(
                    recipe=recipe,
                    depths=depths,
                    plain_background=self.nothing_at_rest,
                    progress=watch.progress,
                    on_step=watch.on_step,
                    **shared,
                )
        static = self._static_views(inputs.colour)
        resume = None if earlier is None else self._in_world_of(inputs, earlier)
        with watch_fit() as watch:
            return fit_gaussians_4d(
                recipe=recipe,
                perceptual=perceptual,
                resume=resume,
                progress=watch.progress,
                on_step=watch.on_step,
                **static,
                **shared,
            )

    def _depths(self, capture: "Capture") -> "Tensor | None":
        from ..capture_depths import load_capture_depths

        if self.depths is None:
            return None
        height, width = capture.images.shape[2:]
        return load_capture_depths(
            self.depths, self._given_cameras(), capture.names, width=width, height=height
        )

    def _static_views(self, colour: Sequence[float]) -> dict[str, Any]:
        if self.static_cameras is None:
            return {}
        static = self._read(self.static_cameras, self.static_images, "--static-cameras")
        print(f"{len(static.images)} pictures of the first moment")
        return {
            "static_images": static.images,
            "static_cameras": static.cameras,
            "static_masks": self._masks_of(static, self.static_cameras, self.static_masks, colour),
        }

    def _in_world_of(self, inputs: _Inputs, earlier: "Gaussians4D") -> "Gaussians4D":
        """The earlier scene in the world of the cameras: its fit's, or the one it was turned to.

        Cameras do not tell which of the two they are in, but what they see does.
        """
        from ..lifting.comparison import views_to_compare
        from ..lifting.losses import psnr
        from ..lifting.render_views import render_views

        capture = inputs.capture
        before = earlier.turned(earlier.rotation.T)
        index = views_to_compare(len(capture.images), ())
        height, width = capture.images.shape[2:]

        def likeness(scene: "Gaussians4D") -> float:
            seen = render_views(
                scene,
                capture.cameras[index],
                width=width,
                height=height,
                backend=self.backend,
                background=inputs.colour,
                device=inputs.device,
            )
            return float(psnr(seen.rgb.clamp(0, 1), capture.images[index]).mean())

        return before if likeness(before) >= likeness(earlier) else earlier

    # ---- after the fit --------------------------------------------------------------------------

    def _write(
        self, folder: Path, result: "FitResult4D", cameras: "Cameras", upright: "Tensor"
    ) -> None:
        from ..cameras.io import save_cameras
        from ..lifting.files_4d import export_sequence, save_gaussians_4d
        from ..lifting.upright import turn_cameras

        gaussians = result.gaussians.turned(upright)
        save_gaussians_4d(gaussians, folder / "scene.safetensors")
        save_cameras(turn_cameras(cameras, upright), folder / "cameras.json")
        if self.frames:
            with progress_bar("writing frames", unit="frame") as progress:
                export_sequence(
                    gaussians,
                    folder / "frames",
                    num_frames=self.frames,
                    fps=self.fps,
                    progress=progress,
                )

    def _along(self, result: "FitResult4D", inputs: _Inputs) -> "Cameras":
        """The path of the video, for pictures that are one video themselves."""
        import torch

        from ..lifting.render_views import render_views
        from ..lifting.spin import swing_along

        cameras = inputs.capture.cameras
        looks = cameras[torch.linspace(0, len(cameras) - 1, _LOOKS).long()]
        height, width = inputs.capture.images.shape[2:]
        drawn = render_views(
            result.gaussians,
            looks,
            width=width,
            height=height,
            backend=self.backend,
            device=inputs.device,
        )
        seen = drawn.depth[drawn.alpha > _SOLID]
        seen = seen[:: len(seen) // _MOST_COUNTED + 1]
        distance = float(seen.quantile(_NEAR)) if len(seen) else 0.0
        return swing_along(cameras, self.spin_views, distance)


def _as_video(capture: "Capture") -> "Cameras":
    """Its cameras with times evenly from 0 to 1, in the order of the pictures' names."""
    import torch

    from ..cameras.cameras import Cameras
    from ..captures import in_order

    names, cameras = capture.names, capture.cameras
    times = torch.empty(len(names))
    order = sorted(range(len(names)), key=lambda view: in_order(names[view]))
    times[order] = torch.linspace(0, 1, len(names))
    return Cameras(cameras.c2w, cameras.Ks_norm, times)


def _times(cameras: "Cameras") -> list[float]:
    assert cameras.times is not None
    return [round(time, 6) for time in cameras.times.tolist()]

"""What ``genxd lift`` and ``genxd lift4d`` share: options, reading pictures, writing results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import InvalidInputError
from .file_errors import errors_of
from .output_folder import check_output_file, check_output_folder
from .progress_bar import progress_bar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..cameras.cameras import Cameras
    from ..captures import Capture
    from ..lifting.fit import FitResult
    from ..lifting.perceptual import PerceptualModel
    from ..lifting.point_cloud import PointCloud
    from ..lifting.two_stages import FitResult4D

__all__ = ["FitCommand"]

_GRADIENT = "gradient"
_LEAST_SHOWN = 160  # pixels of a picture among comparisons


@dataclass(frozen=True, kw_only=True)
class FitCommand:
    """Options of a fit to pictures with cameras, and the steps that all such fits have.

    Attributes:
        images: folder of the pictures; may be left out where --cameras tells where they are.
            Transparent pictures are put over white.
        cameras: a COLMAP model (its folder or the one around it), a transforms.json, or another
            camera file, with one camera for each picture.
        out: folder for the results.
        report: a further file for the report, beside the JSON file in --out.
        masks: folder of pictures of the same names; white is the object, which alone is fitted.
        plain_background: take everything joined to the pictures' border by the colour --background
            for background, and fit the object alone.
        background: colour behind the object in the pictures, and in the video: white, black, or
            red,green,blue from 0 to 1.
        points: file of points to start from (points3D.bin, .txt, .ply); by default those that come
            with --cameras.
        perceptual: what recipes with LPIPS compare pictures with: a file of AlexNet, VGG16 or
            SqueezeNet, the name of one in models/genxd/perceptual, or "gradient", which needs no
            weights.
        hold_out_every: one view in so many is compared with and not fitted; 0 fits all.
        up: what is up in the cameras' world: from-cameras as they were held, +Z for paths made
            here, -Y for one that is upright already, keep to turn nothing.
        iterations: by default the recipe's.
        num_gaussians: to start with, where the start can choose; by default the recipe's.
        lpips_weight: weight of --perceptual; by default the recipe's.
        max_side: larger pictures are made smaller, until their longer side has so many pixels.
        seed: of everything random; the same seed gives the same splat on one device.
        device: such as cuda, cuda:1 or cpu; auto takes the one that draws fastest.
        backend: rasteriser; auto takes the best that works.
        spin: draw a video around the scene (needs PyAV).
        spin_views: frames of that video.
        fps: frames a second of that video.
        force: replace the results of an earlier run in --out.
    """

    record: ClassVar[str]  # name of the JSON file that a run is known by

    images: Path | None = None
    cameras: Path | None = None
    out: Path
    report: Path | None = None
    masks: Path | None = None
    plain_background: bool = False
    background: str = "white"
    points: Path | None = None
    perceptual: str | None = None
    hold_out_every: int = 8
    up: Literal["from-cameras", "+Z", "-Y", "keep"] = "from-cameras"
    iterations: int | None = None
    num_gaussians: int | None = None
    lpips_weight: float | None = None
    max_side: int = 512
    seed: int = 0
    device: str = "auto"
    backend: Literal["auto", "gsplat", "numba", "torch"] = "auto"
    spin: bool = True
    spin_views: int = 60
    fps: float = 15.0
    force: bool = False

    # ---- before the fit -------------------------------------------------------------------------

    def _check_outputs(self) -> None:
        from ..media import check_fps
        from ..optional import require

        check_output_folder(self.out, record=self.record, force=self.force)
        if self.report is not None:
            check_output_file(self.report, name="report", force=self.force)
        if self.spin:
            check_fps(self.fps)
            require(
                "av",
                extra="pipeline",
                purpose="write the video",
                instead="With --no-spin everything else is made all the same.",
            )

    def _check_numbers(self) -> None:
        for option, value, least in (
            ("--max-side", self.max_side, 11),
            ("--spin-views", self.spin_views, 1),
            ("--iterations", self.iterations, 1),
        ):
            if value is not None and value < least:
                raise InvalidInputError(f"{option} is {value}; expected at least {least}.")

    def _perceptual_of(
        self, recipe: str, weight: float
    ) -> "PerceptualModel | Literal['gradient'] | None":
        """What a recipe with such a weight of LPIPS compares with."""
        from ..lifting.perceptual import load_perceptual
        from ..model_folders import PERCEPTUAL_FILES, perceptual_folders

        if self.perceptual is None and weight:
            raise InvalidInputError(
                f"perceptual is missing, but the recipe {recipe!r} has an LPIPS term of weight "
                f"{weight:g}. Give --perceptual gradient, which needs no weights; or a file such "
                f"as torchvision's {PERCEPTUAL_FILES['alex']} (a name is looked for in "
                f"{perceptual_folders()[0]}); or --lpips-weight 0, or --recipe demo."
            )
        if self.perceptual is None:
            return None
        if not weight:
            raise InvalidInputError(
                f"perceptual is {self.perceptual!r}, but its weight is 0 with the recipe "
                f"{recipe!r}, so it would not be used; give --lpips-weight 0.2, or leave "
                "--perceptual out."
            )
        return "gradient" if self.perceptual == _GRADIENT else load_perceptual(self.perceptual)

    def _given_cameras(self) -> Path:
        if self.cameras is None:
            raise InvalidInputError(
                "cameras is missing; give --cameras with a COLMAP model, a transforms.json or "
                "another camera file. Pictures without cameras need those first (COLMAP finds "
                "them)."
            )
        return self.cameras

    def _capture(self) -> "Capture":
        from dataclasses import replace

        cameras = self._given_cameras()
        points = self._points()
        capture = self._read(cameras, self.images, "--cameras")
        if len(capture.images) < 2:
            raise InvalidInputError(
                f"cameras {cameras} has 1 view; a scene needs at least 2 from different "
                "places, and typically 20 or more. Generate views along a path first."
            )
        height, width = capture.images.shape[2:]
        print(f"{len(capture.images)} pictures of {width} x {height} pixels")
        return capture if points is None else replace(capture, points=points)

    def _points(self) -> "PointCloud | None":
        from ..lifting.point_files import load_points

        if self.points is None:
            return None
        with errors_of("--points", self.points):
            return load_points(self.points)

    def _read(self, cameras: Path, images: Path | None, option: str) -> "Capture":
        from ..captures import load_capture

        with progress_bar("reading", unit="picture") as progress, errors_of(option, cameras):
            return load_capture(cameras, images, max_side=self.max_side, progress=progress)

    def _masks_of(
        self, capture: "Capture", cameras: Path, masks: Path | None, colour: Sequence[float]
    ) -> "Tensor | None":
        """Masks of a capture: from files, from its plain background, or none."""
        from ..capture_masks import load_capture_masks
        from ..lifting.background_masks import masks_from_background

        if masks is not None and self.plain_background:
            raise InvalidInputError(
                "masks and plain_background both outline the object; leave one of them out."
            )
        if self.plain_background:
            return masks_from_background(capture.images, colour, names=capture.names)
        if masks is None:
            return None
        height, width = capture.images.shape[2:]
        return load_capture_masks(masks, cameras, capture.names, width=width, height=height)

    def _upright(self, cameras: "Cameras") -> "Tensor":
        from ..lifting.upright import upright_rotation

        return upright_rotation(cameras, up=self.up.replace("-cam", " cam"))

    def _around(self, cameras: "Cameras", upright: "Tensor") -> "Cameras":
        """The path of the video, in the cameras' world, like the fit."""
        from ..cameras.conventions import estimate_up
        from ..lifting.spin import spin_cameras

        # What "keep" leaves is no world of splats: there the cameras alone tell, if anything does.
        up = estimate_up(cameras) if self.up == "keep" else -upright[1]
        return spin_cameras(cameras, self.spin_views, up=up)

    # ---- after the fit --------------------------------------------------------------------------

    def _compare(
        self,
        file: Path,
        result: "FitResult | FitResult4D",
        capture: "Capture",
        held_out: Sequence[int],
        colour: Sequence[float],
    ) -> None:
        from ..lifting.comparison import compare_views, views_to_compare
        from ..media import contact_sheet, save_image

        views = views_to_compare(len(capture.images), held_out)
        rows = compare_views(result, capture.images, capture.cameras, views, background=colour)
        # Small pictures are shown larger, pixel by pixel: their captions need the room.
        larger = -(-_LEAST_SHOWN // capture.images.shape[3])
        rows = rows.repeat_interleave(larger, 2).repeat_interleave(larger, 3)
        kind = "held out" if held_out else "fitted"
        captions = [
            f"{capture.names[view]} ({kind}): given, drawn, 3 x difference" for view in views
        ]
        save_image(contact_sheet(rows, captions=captions), file)

    def _try_spin(self, file: Path, *scene: Any) -> None:
        """Save the video, or do without when it is interrupted: the fit is not to be lost."""
        try:
            self._save_spin(file, *scene)
        except KeyboardInterrupt:
            file.unlink(missing_ok=True)
            print("The video was interrupted and is left out; the splat is kept.")

    def _save_spin(
        self,
        file: Path,
        result: "FitResult | FitResult4D",
        path: "Cameras",
        capture: "Capture",
        colour: Sequence[float],
        device: "torch.device",
    ) -> None:
        from ..lifting.render_views import draw_views
        from ..media import save_video

        height, width = capture.images.shape[2:]
        with progress_bar("drawing spin.mp4", unit="view") as progress:
            drawn = draw_views(
                result.gaussians,
                path,
                width=width,
                height=height,
                backend=self.backend,
                background=colour,
                device=device,
                progress=progress,
            )
            save_video((view.rgb[0].clamp(0, 1) for view in drawn), file, fps=self.fps)

    def _facts(
        self,
        result: "FitResult | FitResult4D",
        capture: "Capture",
        held_out: Sequence[int],
        chosen: dict[str, Any],
    ) -> dict[str, Any]:
        from ..lifting.comparison import describe_fit

        height, width = capture.images.shape[2:]
        return {
            "chosen": {"size": [width, height], **chosen},
            "names": list(capture.names),
            **describe_fit(result, num_views=len(capture.images), held_out=held_out),
        }

    def _copy_report(self) -> None:
        from ..files import write_atomically

        if self.report is not None:
            content = (self.out / self.record).read_bytes()
            write_atomically(self.report, lambda unfinished: unfinished.write_bytes(content))

    def _told(self, result: "FitResult | FitResult4D") -> str:
        figures = result.metrics
        early = ""
        if result.cancelled:
            early = f"The fit was ended early, after {figures['iterations']} iterations; "
        quality = f"PSNR {figures['psnr']:.2f} dB"
        if "held_out_psnr" in figures:
            quality += f", {figures['held_out_psnr']:.2f} dB on held-out views"
        return (
            f"{early}{figures['num_gaussians']:,} Gaussians, {quality}, "
            f"{figures['seconds']:.0f} s; everything is in {self.out}"
        )

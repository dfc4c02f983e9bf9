"""``genxd lift``: pictures with cameras to a Gaussian splat, with a video and a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidInputError
from .colours import read_colour
from .fit_watch import watch_fit
from .output_folder import check_output_file, check_output_folder, output_folder
from .progress_bar import progress_bar
from .record import write_record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..cameras.cameras import Cameras
    from ..captures import Capture
    from ..lifting.fit import FitResult
    from ..lifting.perceptual import PerceptualModel
    from ..lifting.recipes import FitRecipe

__all__ = ["Lift"]

_RECORD = "lift.json"
_GRADIENT = "gradient"
_FAINTEST = 1 / 255  # what is fainter is never drawn


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Fit 3D Gaussians to pictures with known cameras.

    Ctrl-C during the fit ends it early and keeps the best so far; a second one during the fit stops
    without results. During the video it leaves the video out.

    Attributes:
        images: folder of the pictures; may be left out where --cameras tells where they are.
            Transparent pictures are put over white.
        cameras: a COLMAP model (its folder or the one around it), a transforms.json, or another
            camera file, with one camera for each picture.
        out: folder for the results.
        report: a further file for the report, beside the lift.json in --out.
        recipe: demo takes minutes on a CPU, test seconds; single_view and few_view are the paper's
            and need --perceptual.
        masks: folder of pictures of the same names; white is the object, which alone is fitted.
        plain_background: take everything joined to the pictures' border by the colour --background
            for background, and fit the object alone.
        background: colour behind the object in the pictures, and in the video: white, black, or
            red,green,blue from 0 to 1.
        points: file of points to start from (points3D.bin, .txt, .ply); by default those that come
            with --cameras.
        start: what the Gaussians start from; auto takes points, else masks, else what the recipe
            says.
        perceptual: what recipes with LPIPS compare pictures with: a file of AlexNet, VGG16 or
            SqueezeNet, the name of one in models/genxd/perceptual, or "gradient", which needs no
            weights.
        hold_out_every: one view in so many is compared with and not fitted; 0 fits all.
        up: what is up in the cameras' world: from-cameras as they were held, +Z for paths made
            here, -Y for one that is upright already, keep to turn nothing.
        iterations: by default the recipe's.
        num_gaussians: to start with, where the start can choose; by default the recipe's.
        sh_degree: 0 to 3, how colours change with the direction; by default the recipe's.
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

    images: Path | None = None
    cameras: Path | None = None
    out: Path = Path("genxd_lift")
    report: Path | None = None
    recipe: Literal["single_view", "few_view", "demo", "test"] = "demo"
    masks: Path | None = None
    plain_background: bool = False
    background: str = "white"
    points: Path | None = None
    start: Literal["auto", "masks", "points", "triangulate", "frusta"] = "auto"
    perceptual: str | None = None
    hold_out_every: int = 8
    up: Literal["from-cameras", "+Z", "-Y", "keep"] = "from-cameras"
    iterations: int | None = None
    num_gaussians: int | None = None
    sh_degree: int | None = None
    lpips_weight: float | None = None
    max_side: int = 512
    seed: int = 0
    device: str = "auto"
    backend: Literal["auto", "gsplat", "numba", "torch"] = "auto"
    spin: bool = True
    spin_views: int = 60
    fps: float = 15.0
    force: bool = False

    def run(self) -> int:
        """Fit and write everything; returns the exit status."""
        from ..lifting.comparison import held_out_views
        from ..lifting.upright import upright_rotation
        from .devices import choose_drawing_device

        self._check_outputs()
        self._check_numbers()
        colour = read_colour(self.background, "background")
        recipe = self._recipe()
        perceptual = self._perceptual(recipe)
        device = choose_drawing_device(self.device)
        capture = self._capture()
        masks = self._masks(capture, colour)
        held_out = held_out_views(len(capture.images), self.hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = upright_rotation(capture.cameras, up=self.up.replace("-cam", " cam"))
        spin = self._spin_path(capture.cameras, upright)
        result = self._fit(capture, masks, colour, recipe, perceptual, held_out, device)
        with output_folder(self.out, record=_RECORD, force=self.force) as folder:
            self._write(folder, result, capture, upright, held_out, colour)
            if spin is not None:
                self._try_spin(folder / "spin.mp4", result, spin, capture, colour, device)
            facts = self._facts(result, capture, recipe, held_out, device)
            write_record(folder / _RECORD, self, facts)
        self._copy_report()
        print(self._told(result))
        return 0

    def _check_outputs(self) -> None:
        from ..media import check_fps
        from ..optional import require

        check_output_folder(self.out, record=_RECORD, force=self.force)
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
        if self.start == "masks" and self.masks is None and not self.plain_background:
            raise InvalidInputError(
                "--start is masks, but there are none; give --masks FOLDER, or --plain-background "
                "for an object before one colour."
            )

    def _recipe(self) -> "FitRecipe":
        from ..lifting.recipes import adjusted_recipe

        return adjusted_recipe(
            self.recipe,
            iterations=self.iterations,
            num_gaussians=self.num_gaussians,
            sh_degree=self.sh_degree,
            lpips=self.lpips_weight,
        )

    def _perceptual(self, recipe: "FitRecipe") -> "PerceptualModel | Literal['gradient'] | None":
        from ..lifting.perceptual import load_perceptual
        from ..model_folders import PERCEPTUAL_FILES, perceptual_folders

        if self.perceptual is None and recipe.lpips:
            raise InvalidInputError(
                f"perceptual is missing, but the recipe {self.recipe!r} has an LPIPS term of "
                f"weight {recipe.lpips:g}. Give --perceptual gradient, which needs no weights; or "
                f"a file such as torchvision's {PERCEPTUAL_FILES['alex']} (a name is looked for in "
                f"{perceptual_folders()[0]}); or --lpips-weight 0, or --recipe demo."
            )
        if self.perceptual is None:
            return None
        if not recipe.lpips:
            raise InvalidInputError(
                f"perceptual is {self.perceptual!r}, but its weight is 0 with the recipe "
                f"{self.recipe!r}, so it would not be used; give --lpips-weight 0.2, or leave "
                "--perceptual out."
            )
        return "gradient" if self.perceptual == _GRADIENT else load_perceptual(self.perceptual)

    def _capture(self) -> "Capture":
        from dataclasses import replace

        from ..captures import load_capture
        from ..lifting.point_files import load_points

        if self.cameras is None:
            raise InvalidInputError(
                "cameras is missing; give --cameras with a COLMAP model, a transforms.json or "
                "another camera file. Pictures without cameras need those first (COLMAP finds "
                "them)."
            )
        points = None if self.points is None else load_points(self.points)
        with progress_bar("reading", unit="picture") as progress:
            capture = load_capture(
                self.cameras, self.images, max_side=self.max_side, progress=progress
            )
        if len(capture.images) < 2:
            raise InvalidInputError(
                f"cameras {self.cameras} has 1 view; a scene needs at least 2 from different "
                "places, and typically 20 or more. Generate views along a path first."
            )
        height, width = capture.images.shape[2:]
        print(f"{len(capture.images)} pictures of {width} x {height} pixels")
        return capture if points is None else replace(capture, points=points)

    def _masks(self, capture: "Capture", colour: Sequence[float]) -> "Tensor | None":
        from ..capture_masks import load_capture_masks
        from ..lifting.background_masks import masks_from_background

        if self.masks is not None and self.plain_background:
            raise InvalidInputError(
                "masks and plain_background both outline the object; leave one of them out."
            )
        if self.plain_background:
            return masks_from_background(capture.images, colour)
        if self.masks is None or self.cameras is None:
            return None
        height, width = capture.images.shape[2:]
        return load_capture_masks(
            self.masks, self.cameras, capture.names, width=width, height=height
        )

    def _spin_path(self, cameras: "Cameras", upright: "Tensor") -> "Cameras | None":
        """In the cameras' world, like the fit."""
        from ..cameras.conventions import estimate_up
        from ..lifting.spin import spin_cameras

        if not self.spin:
            return None
        # What "keep" leaves is no world of splats: there the cameras alone tell, if anything does.
        up = estimate_up(cameras) if self.up == "keep" else -upright[1]
        return spin_cameras(cameras, self.spin_views, up=up)

    def _fit(
        self,
        capture: "Capture",
        masks: "Tensor | None",
        colour: Sequence[float],
        recipe: "FitRecipe",
        perceptual: "PerceptualModel | Literal['gradient'] | None",
        held_out: Sequence[int],
        device: "torch.device",
    ) -> "FitResult":
        from ..lifting.fit import fit_gaussians

        with watch_fit() as watch:
            return fit_gaussians(
                capture.images,
                capture.cameras,
                recipe=recipe,
                masks=masks,
                background=colour,
                points=capture.points,
                perceptual=perceptual,
                start=self.start,
                held_out=held_out,
                seed=self.seed,
                backend=self.backend,
                device=device,
                progress=watch.progress,
                on_step=watch.on_step,
            )

    def _write(
        self,
        folder: Path,
        result: "FitResult",
        capture: "Capture",
        upright: "Tensor",
        held_out: Sequence[int],
        colour: Sequence[float],
    ) -> None:
        from ..cameras.io import save_cameras
        from ..lifting.comparison import compare_views, views_to_compare
        from ..lifting.ply import save_ply
        from ..lifting.upright import turn_scene
        from ..media import contact_sheet, save_image

        gaussians, cameras = turn_scene(result.gaussians, capture.cameras, upright)
        save_ply(gaussians, folder / "scene.ply", min_opacity=_FAINTEST)
        save_cameras(cameras, folder / "cameras.json")
        views = views_to_compare(len(capture.images), held_out)
        rows = compare_views(result, capture.images, capture.cameras, views, background=colour)
        kind = "held out" if held_out else "fitted"
        captions = [
            f"{capture.names[view]} ({kind}): given, drawn, 3 x difference" for view in views
        ]
        save_image(contact_sheet(rows, captions=captions), folder / "comparisons.png")

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
        result: "FitResult",
        path: "Cameras",
        capture: "Capture",
        colour: Sequence[float],
        device: "torch.device",
    ) -> None:
        from ..lifting.render_views import render_views
        from ..media import save_video

        height, width = capture.images.shape[2:]
        with progress_bar("drawing spin.mp4", unit="view") as progress:
            drawn = render_views(
                result.gaussians,
                path,
                width=width,
                height=height,
                backend=self.backend,
                background=colour,
                device=device,
                progress=progress,
            )
        save_video(drawn.rgb.clamp(0, 1), file, fps=self.fps)

    def _facts(
        self,
        result: "FitResult",
        capture: "Capture",
        recipe: "FitRecipe",
        held_out: Sequence[int],
        device: "torch.device",
    ) -> dict[str, Any]:
        from dataclasses import asdict

        from ..lifting.comparison import describe_fit

        height, width = capture.images.shape[2:]
        return {
            "chosen": {"size": [width, height], "device": str(device), "recipe": asdict(recipe)},
            "names": list(capture.names),
            **describe_fit(result, num_views=len(capture.images), held_out=held_out),
        }

    def _copy_report(self) -> None:
        from ..files import write_atomically

        if self.report is not None:
            content = (self.out / _RECORD).read_bytes()
            write_atomically(self.report, lambda unfinished: unfinished.write_bytes(content))

    def _told(self, result: "FitResult") -> str:
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

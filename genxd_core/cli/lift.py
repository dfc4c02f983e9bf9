"""``genxd lift``: pictures with cameras to a Gaussian splat, with a video and a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import InvalidInputError
from .colours import read_colour
from .fit_command import FitCommand
from .fit_watch import watch_fit
from .output_folder import output_folder
from .record import write_record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..captures import Capture
    from ..lifting.fit import FitResult
    from ..lifting.perceptual import PerceptualModel
    from ..lifting.recipes import FitRecipe

__all__ = ["Lift"]

_FAINTEST = 1 / 255  # what is fainter is never drawn


@dataclass(frozen=True, kw_only=True)
class Lift(FitCommand):
    """Fit 3D Gaussians to pictures with known cameras.

    Ctrl-C during the fit ends it early and keeps the best so far; a second one during the fit stops
    without results. During the video it leaves the video out.

    Attributes:
        recipe: demo takes minutes on a CPU, test seconds; single_view and few_view are the paper's
            and need --perceptual.
        start: what the Gaussians start from; auto takes points, else masks, else what the recipe
            says.
        sh_degree: 0 to 3, how colours change with the direction; by default the recipe's.
    """

    record: ClassVar[str] = "lift.json"

    out: Path = Path("genxd_lift")
    recipe: Literal["single_view", "few_view", "demo", "test"] = "demo"
    start: Literal["auto", "masks", "points", "triangulate", "frusta"] = "auto"
    sh_degree: int | None = None

    def run(self) -> int:
        """Fit and write everything; returns the exit status."""
        from dataclasses import asdict

        from ..lifting.comparison import held_out_views
        from .devices import choose_drawing_device

        self._check_outputs()
        self._check_numbers()
        self._check_start()
        colour = read_colour(self.background, "background")
        recipe = self._recipe()
        perceptual = self._perceptual_of(self.recipe, recipe.lpips)
        device = choose_drawing_device(self.device)
        capture = self._capture()
        masks = self._masks_of(capture, self._given_cameras(), self.masks, colour)
        held_out = held_out_views(len(capture.images), self.hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = self._upright(capture.cameras)
        spin = self._around(capture.cameras, upright) if self.spin else None
        result = self._fit(capture, masks, colour, recipe, perceptual, held_out, device)
        with output_folder(self.out, record=self.record, force=self.force) as folder:
            self._write(folder, result, capture, upright)
            self._compare(folder / "comparisons.png", result, capture, held_out, colour)
            if spin is not None:
                self._try_spin(folder / "spin.mp4", result, spin, capture, colour, device)
            chosen = {"device": str(device), "recipe": asdict(recipe)}
            facts = self._facts(result, capture, held_out, chosen)
            write_record(folder / self.record, self, facts)
        self._copy_report()
        print(self._told(result))
        return 0

    def _check_start(self) -> None:
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
        self, folder: Path, result: "FitResult", capture: "Capture", upright: "Tensor"
    ) -> None:
        from ..cameras.io import save_cameras
        from ..lifting.ply import save_ply
        from ..lifting.upright import turn_scene

        gaussians, cameras = turn_scene(result.gaussians, capture.cameras, upright)
        save_ply(gaussians, folder / "scene.ply", min_opacity=_FAINTEST)
        save_cameras(cameras, folder / "cameras.json")

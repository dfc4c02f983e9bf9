"""``genxd render``: a splat along a camera path, as pictures and a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidInputError
from .colours import read_colour
from .output_folder import check_output_file, check_output_folder, output_folder
from .progress_bar import progress_bar
from .record import write_record

if TYPE_CHECKING:
    from ..cameras.cameras import Cameras
    from ..lifting.gaussians import Gaussians
    from ..lifting.rasterize import Rendering

__all__ = ["Render"]

_RECORD = "rendering.json"


@dataclass(frozen=True, kw_only=True)
class Render:
    """Draw a splat along a camera path: numbered pictures and a video.

    Attributes:
        splat: a standard 3DGS .ply file.
        cameras: a camera file or folder in the splat's world, such as the cameras.json that "lift"
            leaves beside it: this program's own, transforms.json, COLMAP or RealEstate10K.
        spin: instead of these cameras, a path around what they look at; without --cameras, an
            orbit around the splat itself, which has to be upright (-Y up).
        spin_views: cameras of the spin.
        out: folder for the results; a name that ends in .mp4 gives the video alone.
        width: of the pictures in pixels; by default 512, or what follows from --height.
        height: of the pictures in pixels; by default what follows from the width and the cameras.
        background: white, black, or red,green,blue from 0 to 1.
        depth: add pictures of depth; near is white, far is dark, nothing is black.
        alpha: add pictures of what the splat covers; white is covered.
        fps: frames a second of the mp4.
        save_video: write an mp4 (needs PyAV).
        device: such as cuda, cuda:1 or cpu; auto takes the one that draws fastest.
        backend: rasteriser; auto takes the best that works.
        force: replace the results of an earlier run in --out.
    """

    splat: Path | None = None
    cameras: Path | None = None
    spin: bool = False
    spin_views: int = 60
    out: Path = Path("genxd_render")
    width: int | None = None
    height: int | None = None
    background: str = "white"
    depth: bool = False
    alpha: bool = False
    fps: float = 15.0
    save_video: bool = True
    device: str = "auto"
    backend: Literal["auto", "gsplat", "numba", "torch"] = "auto"
    force: bool = False

    def run(self) -> int:
        """Draw and write everything; returns the exit status."""
        from ..lifting.ply import load_ply
        from ..lifting.render_views import picture_size

        self._check_out()
        colour = read_colour(self.background, "background")
        if self.splat is None:
            raise InvalidInputError("splat is missing; give a .ply file: --splat scene.ply.")
        if self.cameras is None and not self.spin:
            raise InvalidInputError(
                "cameras is missing; give a camera file (--cameras cameras.json), or --spin."
            )
        gaussians = load_ply(self.splat)
        cameras = self._path(gaussians)
        wanted = (self.width, self.height)
        width, height = picture_size(cameras, *_given_sides(*wanted))
        drawn = self._draw(gaussians, cameras, (width, height), colour)
        if self._is_video():
            self._save_video(drawn, self.out)
            print(f"A video of {len(cameras)} frames of {width} x {height} is in {self.out}")
            return 0
        with output_folder(self.out, record=_RECORD, force=self.force) as folder:
            self._write(folder, drawn, cameras)
            chosen = {"size": [width, height], "views": len(cameras), "gaussians": len(gaussians)}
            write_record(folder / _RECORD, self, {"chosen": chosen})
        print(f"{len(cameras)} frames of {width} x {height} are in {self.out}")
        return 0

    def _is_video(self) -> bool:
        return self.out.suffix.lower() == ".mp4"

    def _check_out(self) -> None:
        from ..media import check_fps
        from ..optional import require

        if self._is_video():
            check_output_file(self.out, name="out", force=self.force)
            extra = "depth" if self.depth else "alpha" if self.alpha else None
            if extra or not self.save_video:
                told = f"--{extra}" if extra else "--no-save-video"
                raise InvalidInputError(
                    f"out {self.out} is a video alone, which does not go with {told}; give a "
                    "folder as --out."
                )
        else:
            check_output_folder(self.out, record=_RECORD, force=self.force)
        if self.save_video:
            check_fps(self.fps)
            require(
                "av",
                extra="pipeline",
                purpose="write the video",
                instead="With --no-save-video the frames are written all the same.",
            )

    def _path(self, gaussians: "Gaussians") -> "Cameras":
        from ..cameras.io import load_cameras
        from ..lifting.spin import spin_around, spin_cameras

        if self.cameras is None:
            aspect = self.width / self.height if self.width and self.height else 1.0
            return spin_around(gaussians, self.spin_views, aspect=aspect)
        try:
            cameras = load_cameras(self.cameras)
        except InvalidInputError as error:
            raise InvalidInputError(f"cameras: {error}") from error
        return spin_cameras(cameras, self.spin_views) if self.spin else cameras

    def _draw(
        self,
        gaussians: "Gaussians",
        cameras: "Cameras",
        size: tuple[int, int],
        colour: tuple[float, float, float],
    ) -> "Rendering":
        from ..lifting.render_views import render_views
        from .devices import choose_drawing_device

        with progress_bar("drawing", unit="view") as progress:
            return render_views(
                gaussians,
                cameras,
                width=size[0],
                height=size[1],
                backend=self.backend,
                background=colour,
                device=choose_drawing_device(self.device),
                progress=progress,
            )

    def _write(self, folder: Path, drawn: "Rendering", cameras: "Cameras") -> None:
        from ..cameras.io import save_cameras
        from ..lifting.render_views import depth_picture
        from ..media import save_frames

        save_frames(drawn.rgb, folder / "frames")
        if self.depth:
            save_frames(depth_picture(drawn.depth, drawn.alpha), folder / "depth")
        if self.alpha:
            save_frames(drawn.alpha.expand(-1, 3, -1, -1), folder / "alpha")
        save_cameras(cameras, folder / "cameras.json")
        if self.save_video:
            self._save_video(drawn, folder / "video.mp4")

    def _save_video(self, drawn: "Rendering", path: Path) -> None:
        from ..media import save_video

        save_video(drawn.rgb.clamp(0, 1), path, fps=self.fps)


def _given_sides(width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height for `picture_size`, which takes 0 for what follows from the other."""
    for name, value in (("width", width), ("height", height)):
        if value is not None and value < 1:
            raise InvalidInputError(f"{name} is {value}; expected at least 1 pixel.")
    if width is None and height is None:
        return 512, 0
    return width or 0, height or 0

"""``genxd render``: a splat, still or moving, along a camera path, as pictures and a video."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidInputError
from .colours import read_colour
from .file_errors import errors_of
from .output_folder import check_output_file, check_output_folder, output_folder
from .progress_bar import Bar, progress_bar
from .record import write_record

if TYPE_CHECKING:
    from torch import Tensor

    from ..cameras.cameras import Cameras
    from ..lifting.gaussians import Gaussians
    from ..lifting.gaussians_4d import Gaussians4D
    from ..lifting.rasterize import Rendering

__all__ = ["Render"]

_RECORD = "rendering.json"


@dataclass(frozen=True, kw_only=True)
class Render:
    """Draw a splat along a camera path: numbered pictures and a video.

    Attributes:
        splat: a standard 3DGS .ply file, or the .safetensors of one that moves, which "lift4d"
            leaves.
        cameras: a camera file or folder in the splat's world, such as the cameras.json that "lift"
            leaves beside it: this program's own, transforms.json, COLMAP or RealEstate10K.
        spin: instead of these cameras, a path around what they look at; without --cameras, an
            orbit around the splat itself, which has to be upright (-Y up).
        spin_views: cameras of the spin.
        time: of a splat that moves, from 0 to 1, at which it is frozen; by default each camera sees
            it at its own time, and cameras without times from 0 to 1, evenly.
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
    time: float | None = None
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
        from ..lifting.render_views import picture_size

        self._check_out()
        colour = read_colour(self.background, "background")
        if self.cameras is None and not self.spin:
            raise InvalidInputError(
                "cameras is missing; give a camera file (--cameras cameras.json), or --spin."
            )
        gaussians = self._load()
        cameras = self._path(gaussians)
        size = picture_size(cameras, *_given_sides(self.width, self.height))
        told = f"{len(cameras)} frames of {size[0]} x {size[1]}"
        with progress_bar("drawing", unit="view") as progress:
            drawn = self._draw(gaussians, cameras, size, colour, progress)
            if self._is_video():
                self._save_video((view.rgb[0].clamp(0, 1) for view in drawn), self.out)
                print(f"A video of {told} is in {self.out}")
                return 0
            with output_folder(self.out, record=_RECORD, force=self.force) as folder:
                self._write(folder, drawn, cameras)
                chosen = {
                    "size": [*size],
                    "views": len(cameras),
                    "gaussians": len(gaussians),
                }
                write_record(folder / _RECORD, self, {"chosen": chosen})
        print(f"{told} are in {self.out}")
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

    def _load(self) -> "Gaussians | Gaussians4D":
        """The scene, of one time where it is to be frozen."""
        from ..lifting.files_4d import load_gaussians_4d
        from ..lifting.ply import load_ply

        if self.splat is None:
            raise InvalidInputError(
                "splat is missing; give a .ply file, or the .safetensors of a splat that moves: "
                "--splat scene.ply."
            )
        with errors_of("--splat", self.splat):
            if self.splat.suffix.lower() == ".safetensors":
                moving = load_gaussians_4d(self.splat)
                return moving if self.time is None else _frozen(moving, self.time)
            still = load_ply(self.splat)
        if self.time is not None:
            raise InvalidInputError(
                f"--time is {self.time:g}, but --splat {self.splat} does not move; leave --time "
                "out, or give a .safetensors of lift4d."
            )
        return still

    def _path(self, gaussians: "Gaussians | Gaussians4D") -> "Cameras":
        """The cameras, with times where the scene moves."""
        from ..cameras.editing import with_even_times
        from ..lifting.gaussians_4d import Gaussians4D

        if not isinstance(gaussians, Gaussians4D):
            return self._where(gaussians)
        cameras = self._where(gaussians.at(0.0))
        return with_even_times(cameras) if cameras.times is None else cameras

    def _where(self, gaussians: "Gaussians") -> "Cameras":
        from ..cameras.io import load_cameras
        from ..lifting.spin import spin_around, spin_cameras

        if self.cameras is None:
            aspect = self.width / self.height if self.width and self.height else 1.0
            return spin_around(gaussians, self.spin_views, aspect=aspect)
        with errors_of("--cameras", self.cameras):
            cameras = load_cameras(self.cameras)
        return spin_cameras(cameras, self.spin_views) if self.spin else cameras

    def _draw(
        self,
        gaussians: "Gaussians | Gaussians4D",
        cameras: "Cameras",
        size: tuple[int, int],
        colour: tuple[float, float, float],
        progress: Bar,
    ) -> "Iterator[Rendering]":
        from ..lifting.render_views import draw_views
        from .devices import choose_drawing_device

        return draw_views(
            gaussians,
            cameras,
            width=size[0],
            height=size[1],
            backend=self.backend,
            background=colour,
            device=choose_drawing_device(self.device),
            progress=progress,
        )

    def _write(self, folder: Path, drawn: "Iterator[Rendering]", cameras: "Cameras") -> None:
        import torch

        from ..cameras.io import save_cameras
        from ..lifting.render_views import depth_picture
        from ..media import frame_names, save_frames, save_image

        names = frame_names(len(cameras))
        depths: list[Tensor] = []
        alphas: list[Tensor] = []

        def written() -> "Iterator[Tensor]":
            """Write each view when it is drawn; depth waits for the range of all."""
            for name, view in zip(names, drawn, strict=True):
                save_image(view.rgb[0], folder / "frames" / name)
                if self.alpha:
                    save_image(view.alpha[0].expand(3, -1, -1), folder / "alpha" / name)
                if self.depth:
                    depths.append(view.depth)
                    alphas.append(view.alpha)
                yield view.rgb[0].clamp(0, 1)

        if self.save_video:
            self._save_video(written(), folder / "video.mp4")
        else:
            for _ in written():
                pass
        if self.depth:
            pictures = depth_picture(torch.cat(depths), torch.cat(alphas))
            save_frames(pictures, folder / "depth")
        save_cameras(cameras, folder / "cameras.json")

    def _save_video(self, frames: "Iterator[Tensor]", path: Path) -> None:
        from ..media import save_video

        save_video(frames, path, fps=self.fps)


def _frozen(moving: "Gaussians4D", time: float) -> "Gaussians":
    from ..lifting.gaussians_4d import check_time

    try:
        check_time(time)
    except InvalidInputError as error:
        raise InvalidInputError(f"--{error}") from error
    return moving.at(time)


def _given_sides(width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height for `picture_size`, which takes 0 for what follows from the other."""
    for name, value in (("width", width), ("height", height)):
        if value is not None and value < 1:
            raise InvalidInputError(f"{name} is {value}; expected at least 1 pixel.")
    if width is None and height is None:
        return 512, 0
    return width or 0, height or 0

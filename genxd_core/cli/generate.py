"""``genxd generate``: pictures and a camera path to frames, a video and camera files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidInputError
from .output_folder import check_output_folder, output_folder
from .path_options import PathName, make_path
from .progress_bar import progress_bar
from .record import write_record

if TYPE_CHECKING:
    from torch import Tensor

    from ..cameras.cameras import Cameras
    from ..fitting import FitRecord
    from ..pipeline import GenXDOutput, GenXDPipeline

__all__ = ["Generate"]

_RECORD = "generation.json"
_USUAL_MOTION_STRENGTH = 0.5  # as in the released call and in the node
_LARGEST_DEFAULT_SIDE = 256  # of the released command
_PATH_OPTIONS = (
    "elevation_deg",
    "azimuth_deg",
    "azimuth_range_deg",
    "radius",
    "distance",
    "right",
    "up",
    "angle_deg",
    "focal_norm",
    "easing",
)


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Generate the views of a camera path from one or more pictures.

    Options are named as the arguments of the library; those of the path (--elevation-deg to
    --easing) belong to some paths only and keep the path's own default when left out.

    Attributes:
        images: picture files; the first is at the first of --indices.
        out: folder for the results.
        path: name of the camera path; it starts where the first picture was taken.
        cameras: a camera file or folder to use instead of --path: transforms.json, COLMAP,
            RealEstate10K, or this program's own.
        cameras_of: what the intrinsics in --cameras belong to: the pictures as given, or the output
            (as in a cameras.json that this program wrote).
        camera_scale: scale --cameras so that the farthest one stands this far from the first; the
            released model knows 1 to 4. By default they stay as they are.
        views: cameras of --path; 12 is what the released model was made for.
        indices: the view that each picture is; negative numbers count from the end. The first is
            the reference view. A single picture is view 0 unless this says otherwise.
        mode: 3d, a still scene; 4d, camera and scene move; video, the scene moves and the cameras
            are ignored.
        motion_strength: how much moves in 4d and video, 0 (still) to 50; typically 0 to 2. By
            default 0.5 there.
        num_inference_steps: steps of the sampler.
        guidance_scale: how strongly to follow the pictures; up to 1 is without guidance.
        seed: of the noise; the same seed gives the same frames.
        sampler: euler is the released model's; heun takes twice the time.
        size: width and height in pixels; by default the model's training size, at most 256 x 256.
        fit: how pictures of another shape are fitted: crop what stands over, or pad with black.
        video: a video file to start from instead of noise, with as many frames as views.
        strength: with --video, the share of the steps that is run, above 0 up to 1.
        decode_chunk_size: frames decoded at a time; fewer need less memory and change the result.
        weights: a model folder, or the name of one in models/genxd; genxd-nano is built in.
        dtype: precision of the network; auto is bf16 or fp16 on a GPU, fp32 on a CPU.
        device: such as cuda, cuda:1, mps or cpu; auto takes a GPU if there is one.
        fps: frames a second of the mp4.
        save_video: write an mp4 (needs PyAV).
        elevation_deg: elevation of the path.
        azimuth_deg: azimuth of the path "static".
        azimuth_range_deg: first and last azimuth.
        radius: distance to what the camera goes around.
        distance: driven by the path "dolly", positive forward.
        right: moved by the path "slide", positive to the right.
        up: moved by the path "slide", positive upward.
        angle_deg: turned by the paths "pan", "tilt" and "roll".
        keep_target_size: make the path "dolly" a dolly zoom.
        focal_norm: focal length / smaller side of the picture.
        easing: speed along the path.
        force: replace the results of an earlier run in --out.
    """

    images: tuple[Path, ...]
    out: Path = Path("genxd_out")
    path: PathName = "sway"
    cameras: Path | None = None
    cameras_of: Literal["images", "output"] = "images"
    camera_scale: float | None = None
    views: int = 12
    indices: tuple[int, ...] = ()
    mode: Literal["3d", "4d", "video"] = "3d"
    motion_strength: float | None = None
    num_inference_steps: int = 25
    guidance_scale: float = 3.0
    seed: int = 0
    sampler: Literal["euler", "heun"] = "euler"
    size: tuple[int, int] | None = None
    fit: Literal["crop", "pad"] = "crop"
    video: Path | None = None
    strength: float = 1.0
    decode_chunk_size: int | None = None
    weights: str = "genxd-nano"
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    device: str = "auto"
    fps: float = 8.0
    save_video: bool = True
    elevation_deg: float | None = None
    azimuth_deg: float | None = None
    azimuth_range_deg: tuple[float, float] | None = None
    radius: float | None = None
    distance: float | None = None
    right: float | None = None
    up: float | None = None
    angle_deg: float | None = None
    keep_target_size: bool = False
    focal_norm: float | None = None
    easing: Literal["linear", "ease-in", "ease-out", "ease-in-out"] | None = None
    force: bool = False

    def run(self) -> int:
        """Generate and write everything; returns the exit status."""
        from ..media import check_fps
        from ..optional import require

        check_output_folder(self.out, record=_RECORD, force=self.force)
        if self.save_video:
            check_fps(self.fps)
            require(
                "av",
                extra="pipeline",
                purpose="write the video",
                instead="With --no-save-video the frames are written all the same.",
            )
        loaded = self._load_images()
        pipe = self._load_pipeline()
        size = self._size(pipe)
        fitted, records = self._fit(loaded, size)
        cameras = self._cameras(records, size)
        indices = self._indices()
        output = self._sample(pipe, fitted, indices, cameras, size)
        with output_folder(self.out, record=_RECORD, force=self.force) as folder:
            self._write(folder, output, cameras, indices)
            write_record(folder / _RECORD, self, {"chosen": _chosen(pipe, size)})
        print(f"{len(output.frames)} frames and {self._kinds()} are in {self.out}")
        return 0

    def _load_images(self) -> list[Any]:
        from ..media import load_image

        if not self.images:
            raise InvalidInputError("images is empty; give at least one picture file.")
        return [load_image(path) for path in self.images]

    def _load_pipeline(self) -> "GenXDPipeline":
        from ..diffusion.samplers import SAMPLERS
        from ..model_folders import resolve_model
        from ..pipeline import GenXDPipeline
        from .devices import choose_device, choose_dtype

        device = choose_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        folder = resolve_model(self.weights)
        print(f"Loading {self.weights} on {device} in {str(dtype).removeprefix('torch.')}")
        pipe = GenXDPipeline.from_pretrained(folder, dtype=dtype, device=device)
        pipe.sampler = SAMPLERS[self.sampler]
        return pipe

    def _size(self, pipe: "GenXDPipeline") -> tuple[int, int]:
        """Height and width."""
        from ..sizes import check_size

        if self.size is None:
            side = min(pipe.unet.config.sample_size * pipe.vae.factor, _LARGEST_DEFAULT_SIDE)
            multiple = pipe.size_multiple
            return (max(side // multiple, 1) * multiple,) * 2
        width, height = self.size
        check_size(height, width, multiple=pipe.size_multiple, name="size")
        return height, width

    def _fit(self, loaded: list[Any], size: tuple[int, int]) -> tuple["Tensor", "list[FitRecord]"]:
        import torch

        from ..fitting import fit_views

        fitted = [
            fit_views(
                one.image[None],
                None,
                size,
                mode=self.fit,
                alpha=None if one.alpha is None else one.alpha[None],
            )
            for one in loaded
        ]
        return torch.cat([one.images for one in fitted]), [one.record for one in fitted]

    def _cameras(self, records: "list[FitRecord]", size: tuple[int, int]) -> "Cameras":
        import torch

        from ..cameras.cameras import Cameras

        height, width = size
        given = {name: getattr(self, name) for name in _PATH_OPTIONS}
        given["keep_target_size"] = self.keep_target_size or None
        if self.cameras is None:
            if self.camera_scale is not None:
                raise InvalidInputError(
                    f"camera_scale is {self.camera_scale} without --cameras; paths made by name "
                    "have --radius and --distance instead."
                )
            cameras: Cameras = make_path(self.path, self.views, width / height, given)
        else:
            unused = [name for name, value in given.items() if value is not None]
            if unused:
                raise InvalidInputError(
                    f"{', '.join(unused)} cannot be combined with --cameras, which holds the whole "
                    "path; leave one of them out."
                )
            cameras = self._load_cameras(records, size)
        if self.mode != "3d" and cameras.times is None:
            times = torch.linspace(0, 1, len(cameras), dtype=cameras.dtype)
            cameras = Cameras(cameras.c2w, cameras.Ks_norm, times)
        return cameras

    def _load_cameras(self, records: "list[FitRecord]", size: tuple[int, int]) -> "Cameras":
        from ..cameras.conventions import normalise_scale
        from ..cameras.describe import describe
        from ..cameras.io import load_cameras
        from ..fitting import fit_cameras

        if self.cameras is None:
            raise InvalidInputError("cameras is missing; give a camera file.")
        try:
            cameras = load_cameras(self.cameras)
        except InvalidInputError as error:
            raise InvalidInputError(f"cameras: {error}") from error
        if self.camera_scale is not None:
            cameras = normalise_scale(cameras, self.camera_scale)
        print(f"{self.cameras}: {describe(cameras)}")
        if self.cameras_of == "images":
            if len({record.focal_factors for record in records}) > 1:
                raise InvalidInputError(
                    "images have different sizes, so the intrinsics in --cameras cannot belong to "
                    "all of them; bring the pictures to one size, or give --cameras-of output."
                )
            cameras = fit_cameras(cameras, records[0])
        _refuse_stretched(cameras, size, self.cameras_of)
        return cameras

    def _indices(self) -> list[int]:
        if self.indices:
            return list(self.indices)
        if len(self.images) > 1:
            raise InvalidInputError(
                f"indices is missing: say which view of the path each of the {len(self.images)} "
                "images is, such as --indices 0 5 11."
            )
        return [0]

    def _motion_strength(self) -> float:
        if self.motion_strength is not None:
            return self.motion_strength
        return 0.0 if self.mode == "3d" else _USUAL_MOTION_STRENGTH

    def _sample(
        self,
        pipe: "GenXDPipeline",
        images: "Tensor",
        indices: Sequence[int],
        cameras: "Cameras",
        size: tuple[int, int],
    ) -> "GenXDOutput":
        import torch

        video = self._load_video(len(cameras), size)
        with progress_bar("generating", unit="step") as progress:
            return pipe(
                images,
                indices,
                cameras,
                mode=self.mode,
                motion_strength=self._motion_strength(),
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                # On the CPU, so that a seed means the same on every device.
                generator=torch.Generator().manual_seed(self.seed),
                video=video,
                strength=self.strength,
                use_motion_embedding=pipe.unet.config.motion_condition,
                decode_chunk_size=self.decode_chunk_size,
                progress=progress,
            )

    def _load_video(self, views: int, size: tuple[int, int]) -> "Tensor | None":
        if self.video is None:
            return None
        from ..fitting import fit_views
        from ..media import load_video

        frames = load_video(self.video, max_frames=views)
        if len(frames) < views:
            raise InvalidInputError(
                f"video {self.video} has {len(frames)} frames for {views} cameras; give a longer "
                "one or fewer --views."
            )
        return fit_views(frames, None, size, mode=self.fit).images

    def _write(
        self, folder: Path, output: "GenXDOutput", cameras: "Cameras", indices: Sequence[int]
    ) -> None:
        from ..cameras.io import save_cameras
        from ..cameras.preview import draw_camera_path
        from ..media import contact_sheet, frame_names, save_frames, save_image, save_video

        frames, views = output.frames.cpu(), len(cameras)
        given = [index % views for index in indices]
        height, width = frames.shape[2:]
        save_frames(frames, folder / "frames")
        save_image(contact_sheet(frames, given=given), folder / "contact_sheet.png")
        save_image(draw_camera_path(cameras, conditioned=given), folder / "cameras.png")
        save_cameras(cameras, folder / "cameras.json")
        names = [f"frames/{name}" for name in frame_names(views)]
        save_cameras(cameras, folder / "transforms.json", width=width, height=height, names=names)
        if self.save_video:
            save_video(frames, folder / "video.mp4", fps=self.fps)

    def _kinds(self) -> str:
        video = "a video, " if self.save_video else ""
        return f"{video}a contact sheet, cameras.json, transforms.json and a picture of the path"


def _refuse_stretched(cameras: "Cameras", size: tuple[int, int], cameras_of: str) -> None:
    """Pixels that are not square mean intrinsics of pictures of another shape."""
    from ..cameras.conventions import SHAPE_TOLERANCE

    height, width = size
    shape = cameras.Ks_norm[:, 1, 1] * height / (cameras.Ks_norm[:, 0, 0] * width)
    worst = float(shape[(shape.log().abs()).argmax()])
    if abs(worst - 1.0) > SHAPE_TOLERANCE:
        other = "output" if cameras_of == "images" else "images"
        raise InvalidInputError(
            f"cameras: its intrinsics do not belong to pictures of this shape (pixels would be "
            f"{worst:.3g} times as high as wide). They were taken to be of the {cameras_of}; try "
            f"--cameras-of {other}, or another --size."
        )


def _chosen(pipe: "GenXDPipeline", size: tuple[int, int]) -> dict[str, Any]:
    """What was chosen where no option said it."""
    dtype = str(pipe.dtype).removeprefix("torch.")
    return {"size": [size[1], size[0]], "device": str(pipe.device), "dtype": dtype}

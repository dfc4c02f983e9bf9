"""The pictures, videos and camera files that the example workflows load, made of held-out scenes.

The photograph, the capture and the film beside them are not made here;
``workflows/inputs/README.md`` says where they are from.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from genxd_core.cameras.cameras import Cameras
from genxd_core.cameras.io import save_cameras
from genxd_core.media import save_image, save_video
from genxd_core.synthetic import HELD_OUT, make_clips

__all__ = ["CAPTURE", "FILM", "PHOTOGRAPH", "SCENES", "SceneInputs", "write_inputs"]

PHOTOGRAPH = "genxd_coffee.jpg"
CAPTURE = "genxd_lund"
FILM = "genxd_dog"
SIZE = 256
VIEWS, FPS = 12, 8.0


@dataclass(frozen=True)
class SceneInputs:
    """Which frames of which clip become files.

    Attributes:
        name: start of the files' names.
        family: of `genxd_core.synthetic.FAMILIES`.
        seed: held out: training never draws it.
        frames: positions in the clip; one alone gets no number in its name.
        few: whether the cameras of these frames alone have a file too.
        film: whether the frames are one video, without cameras.
    """

    name: str
    family: str
    seed: int
    frames: tuple[int, ...] = (0,)
    few: bool = False
    film: bool = False

    @property
    def video(self) -> str | None:
        """Name of the video's file, where there is one."""
        return f"{self.name}.mp4" if self.film else None

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures' files."""
        if self.film:
            return []
        if len(self.frames) == 1:
            return [f"{self.name}.png"]
        return [f"{self.name}_{frame:02d}.png" for frame in self.frames]

    @property
    def camera_file(self) -> str | None:
        """Name of the file with the clip's cameras, where there are several pictures."""
        return f"{self.name}_cameras.json" if len(self.pictures) > 1 else None

    @property
    def given_camera_file(self) -> str | None:
        """Name of the file with the cameras of the pictures alone, where there is one."""
        return f"{self.name}_given_cameras.json" if self.few else None

    @property
    def files(self) -> list[str]:
        """Names of all files."""
        names = [*self.pictures, self.video, self.camera_file, self.given_camera_file]
        return [name for name in names if name]

    def make(self) -> tuple[Tensor, Cameras]:
        """Render the pictures, (k, 3, SIZE, SIZE), and return them with the clip's cameras."""
        clip = make_clips([self.seed], self.family, num_frames=VIEWS, size=SIZE)
        return clip.images[0, list(self.frames)], clip.cameras(0)


SCENES = (
    SceneInputs("genxd_box_and_ball", "nano_3d", HELD_OUT + 5),
    SceneInputs("genxd_ball_and_boxes", "nano_4d", HELD_OUT + 14),
    SceneInputs("genxd_hop", "nano_4d", HELD_OUT + 112, (0, 5, 11)),
    SceneInputs("genxd_views", "nano_3d", HELD_OUT + 23, (0, 5, 11), few=True),
    SceneInputs("genxd_bounce", "nano_video", HELD_OUT + 5, tuple(range(VIEWS)), film=True),
)


def write_inputs(folder: Path) -> list[Path]:
    """Make the files of every scene and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for scene in SCENES:
        written += [folder / name for name in scene.files]
        images, cameras = scene.make()
        if scene.video:
            save_video(images, folder / scene.video, fps=FPS, crf=8)
        else:
            for image, name in zip(images, scene.pictures, strict=True):
                save_image(image, folder / name)
        if scene.camera_file:
            save_cameras(cameras, folder / scene.camera_file)
        if scene.given_camera_file:
            save_cameras(cameras[list(scene.frames)], folder / scene.given_camera_file)
    return written

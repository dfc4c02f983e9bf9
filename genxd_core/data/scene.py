"""What a dataset knows of a scene before a picture is read, and how its adapters are used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from ..media import LoadedImage

__all__ = [
    "BrokenSceneError",
    "MeasuredMotion",
    "Scene",
    "SceneDataset",
    "SceneKind",
    "expect_folder",
    "median_depth",
]

SceneKind = Literal["3d", "4d"]


class BrokenSceneError(InvalidInputError):
    """One scene cannot be used (a missing file, a truncated picture, a bad pose); others may."""


@dataclass(frozen=True)
class MeasuredMotion:
    """Motion strength of a clip as it was measured (Sec. 3.3, Eq. 3-4).

    Attributes:
        gamma: mean displacement between frames as a fraction of the picture, maximum over objects.
        stride: between which frames of the clip: 1 for neighbours. Displacements grow with it.
        measured: strengths that were measured at other strides too.
    """

    gamma: float
    stride: int = 1
    measured: Mapping[int, float] = field(default_factory=dict)

    def gamma_at(self, stride: int) -> float:
        """Strength between every ``stride``-th frame; proportional to the gap unless measured."""
        return self.measured.get(stride, self.gamma * stride / self.stride)


@dataclass(frozen=True, eq=False)
class Scene:
    """F pictures of a scene or clip with their cameras; pictures are read when called for.

    Attributes:
        scene_id: unique in its dataset; what reports name.
        kind: "3d" (still) or "4d" (moving).
        cameras: of the F pictures, in the dataset's own units; ``times`` where time passes.
        pictures: F functions that each read one picture; transparent ones keep their alpha.
        names: of the pictures.
        masks: F functions that each read the mask of one picture, 1 = object; None where the
            dataset has none.
        motion: measured strength; None for still scenes, and for clips that nobody measured.
        view_depths: median z-depth of the known points seen in each picture, in the cameras' units;
            NaN where there are none, None where the dataset has no depth.
        ordered: neighbours in the list are neighbours in space or time; else views in any order.
    """

    scene_id: str
    kind: SceneKind
    cameras: Cameras
    pictures: Sequence[Callable[[], LoadedImage]]
    names: Sequence[str]
    masks: Sequence[Callable[[], Float[Tensor, "1 h w"]]] | None = None
    motion: MeasuredMotion | None = None
    view_depths: Float[Tensor, " f"] | None = None
    ordered: bool = True

    def __post_init__(self) -> None:
        counts = {"pictures": len(self.pictures), "names": len(self.names)}
        counts |= {} if self.masks is None else {"masks": len(self.masks)}
        counts |= {} if self.view_depths is None else {"view_depths": len(self.view_depths)}
        for name, count in counts.items():
            if count != len(self.cameras):
                raise BrokenSceneError(
                    f"scene {self.scene_id} has {count} {name} for {len(self.cameras)} cameras."
                )

    def with_views(self, views: Sequence[int]) -> "Scene":
        """The scene as some of its views alone show it, in the order given."""
        return replace(
            self,
            cameras=self.cameras[list(views)],
            pictures=[self.pictures[view] for view in views],
            names=[self.names[view] for view in views],
            masks=None if self.masks is None else [self.masks[view] for view in views],
            view_depths=None if self.view_depths is None else self.view_depths[list(views)],
        )


@runtime_checkable
class SceneDataset(Protocol):
    """A folder in a published layout. Constructors look at names only and are quick.

    Attributes:
        name: as the registry has it.
        kind: of its scenes.
        has_depth: whether its scenes tell ``view_depths``.
    """

    name: str
    kind: SceneKind
    has_depth: bool

    @property
    def scene_ids(self) -> Sequence[str]:
        """All scenes, sorted."""
        ...

    def scene(self, scene_id: str) -> Scene:
        """Read what is known of a scene but its pictures.

        Raises:
            BrokenSceneError: a file is missing or damaged, or a pose impossible.
        """
        ...


def expect_folder(root: Path, dataset: str, layout: str) -> Path:
    """Refuse a root that is no folder.

    Args:
        root: of the dataset.
        dataset: its name, for the message.
        layout: what is expected there, completing "expected ...".

    Raises:
        InvalidInputError: it does not exist, is a file, or is empty.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InvalidInputError(f"root of {dataset} is {root}, which {what}; expected {layout}.")
    if not any(root.iterdir()):
        raise InvalidInputError(f"root of {dataset} is {root}, which is empty; expected {layout}.")
    return root


def median_depth(points: Float[Tensor, "n 3"], w2c: Float[Tensor, "4 4"]) -> float:
    """Median z-depth of the points before a camera; NaN where there is none."""
    z = points.to(w2c) @ w2c[2, :3] + w2c[2, 3]
    z = z[z > 0]
    return float(z.median()) if len(z) else float(torch.nan)

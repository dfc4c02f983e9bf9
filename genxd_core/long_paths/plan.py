"""Which cameras of a long path are generated together, and from which views (App. H).

From one picture: anchors spread over the path first, then the cameras between anchors, each group
with the nearest anchors as conditions. From several: groups with the nearest pictures.
"""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .sequence import conditions_of, cut, spread, stretches_of
from .view_points import farthest_point_groups, farthest_points, nearest_points, view_points

__all__ = ["GROUPINGS", "Group", "PathPlan", "View", "plan_path"]

GROUPINGS = ("auto", "anchors", "in sequence", "farthest points")
_SAME_POSE = 1e-4


@dataclass(frozen=True)
class View:
    """A view that a group is generated from.

    Attributes:
        index: of a picture, or of a camera on the path.
        generated: False for a given picture, True for a camera that an earlier group made.
    """

    index: int
    generated: bool


@dataclass(frozen=True)
class Group:
    """Cameras that go through the network together.

    Attributes:
        conditions: what they are generated from; the first, nearest to their middle, is the
            reference view.
        targets: cameras of the path, rising.
    """

    conditions: tuple[View, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class PathPlan:
    """Groups in an order in which every condition is there when it is needed.

    Attributes:
        num_cameras: of the path.
        given: camera of the path and the picture that was taken with it; these are not generated.
        anchors: cameras made in the first group for those after it; may be empty.
        groups: every other camera is a target of exactly one of them.
        places: for each picture, the camera of the path that it is at or nearest to.
    """

    num_cameras: int
    given: tuple[tuple[int, int], ...]
    anchors: tuple[int, ...]
    groups: tuple[Group, ...]
    places: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        """Frames that go through the network, conditions included: what the time is spent on."""
        return sum(len(group.conditions) + len(group.targets) for group in self.groups)

    def cameras_of(self, group: Group) -> set[int]:
        """Cameras of the path that a group shows, conditions included."""
        pictures = {view.index for view in group.conditions if not view.generated}
        made = {view.index for view in group.conditions if view.generated}
        at_pictures = {camera for camera, picture in self.given if picture in pictures}
        return set(group.targets) | made | at_pictures


def plan_path(
    path: Cameras,
    image_cameras: Cameras,
    *,
    grouping: str = "auto",
    views_per_group: int = 12,
    conditions_per_group: int = 3,
    still: bool = True,
) -> PathPlan:
    """Plan the groups of a path.

    Args:
        path: the cameras to generate, neighbours one after another; it may jump.
        image_cameras: the cameras of the given pictures, in the same world.
        grouping: "anchors" makes cameras spread over the path first and all others from them; "in
            sequence" takes neighbours from the nearest pictures; "farthest points" does so for
            cameras that are near in space (the reference's, for paths that come by a place more
            than once). "auto" is anchors for one picture and in sequence for several.
        views_per_group: cameras that the network sees at once; the released model learned with 12.
        conditions_per_group: how many of them are conditions; 3 in the reference. Neighbours have
            more where more is known between them.
        still: whether a picture shows every camera of its pose, or, where the scene moves, only
            the first.

    Raises:
        InvalidInputError: a choice or a number that cannot be, or no camera is left to generate.
    """
    _check_numbers(grouping, views_per_group, conditions_per_group)
    given = _given(path, image_cameras, still=still)
    free = [camera for camera in range(len(path)) if camera not in given]
    if not free:
        raise InvalidInputError(
            f"path has {len(path)} cameras, and every one of them is a given picture's: there is "
            "nothing to generate. Give a path with other cameras."
        )
    on_path, of_images = view_points(path, image_cameras)
    places = _places(given, on_path, of_images)
    stretches = stretches_of(on_path)
    if grouping == "auto":
        grouping = "anchors" if len(image_cameras) == 1 else "in sequence"
    anchors: list[int] = []
    groups: list[Group] = []
    known = {View(picture, generated=False): point for picture, point in enumerate(of_images)}
    if grouping == "anchors":
        chosen = farthest_points(of_images, conditions_per_group)
        first = tuple(View(picture, generated=False) for picture in chosen)
        room = views_per_group - len(first)
        alone = len(free) <= room
        targets = free if alone else spread(free, stretches, room)
        groups.append(Group(first, tuple(targets)))
        anchors = [] if alone else targets
        free = [camera for camera in free if camera not in set(targets)]
        known |= {View(camera, generated=True): on_path[camera] for camera in anchors}
    room = views_per_group - min(conditions_per_group, len(known))
    if not free:
        parts = []
    elif grouping == "farthest points":
        found = farthest_point_groups(of_images[0], on_path[free], room)
        parts = [sorted(free[index] for index in part) for part in found]
    else:
        parts = cut(free, stretches, views_per_group, min(conditions_per_group, len(known)))
    # What is known between neighbours and at both of their ends is where seams would be.
    at = {camera: View(picture, generated=False) for camera, picture in given.items()}
    at |= {camera: View(camera, generated=True) for camera in anchors}
    for part in parts:
        in_space = grouping == "farthest points"
        beside = [] if in_space else _beside(part, stretches, at)
        count = conditions_per_group if in_space else conditions_of(part, conditions_per_group)
        from_views = _conditions(part, on_path, known, beside, count)
        groups.append(Group(from_views, tuple(part)))
    return PathPlan(
        num_cameras=len(path),
        given=tuple(sorted(given.items())),
        anchors=tuple(anchors),
        groups=tuple(groups),
        places=places,
    )


def _check_numbers(grouping: str, views_per_group: int, conditions_per_group: int) -> None:
    if grouping not in GROUPINGS:
        named = ", ".join(f'"{choice}"' for choice in GROUPINGS)
        raise InvalidInputError(f'grouping is "{grouping}"; expected one of {named}.')
    if conditions_per_group < 1:
        raise InvalidInputError(
            f"conditions_per_group is {conditions_per_group}; expected at least 1, typically 3."
        )
    if views_per_group <= conditions_per_group:
        raise InvalidInputError(
            f"views_per_group is {views_per_group} and conditions_per_group "
            f"{conditions_per_group}, which leaves no room for cameras to generate; give more "
            "views, typically 12, than conditions, typically 3."
        )


def _given(path: Cameras, image_cameras: Cameras, *, still: bool) -> dict[int, int]:
    """Cameras of the path that are a picture's, each with the first such picture."""
    c2w, Ks = path.c2w.cpu().double(), path.Ks_norm.cpu().double()
    theirs, their_Ks = image_cameras.c2w.cpu().double(), image_cameras.Ks_norm.cpu().double()
    centres = c2w[:, :3, 3]
    extent = (centres - centres[0]).norm(dim=-1).max()
    # Far from the origin, positions are rounded to coarse numbers.
    extent = torch.stack([extent, 1e-3 * centres.abs().max(), extent.new_tensor(1e-6)]).max()
    size = c2w.new_tensor([1.0, 1.0, 1.0, float(extent)])
    given: dict[int, int] = {}
    for picture, (pose, K) in enumerate(zip(theirs, their_Ks, strict=True)):
        apart = ((c2w - pose).abs() / size).amax((1, 2)).maximum((Ks - K).abs().amax((1, 2)))
        same = [int(camera) for camera in (apart <= _SAME_POSE).nonzero()[:, 0]]
        for camera in same if still else [c for c in same if c not in given][:1]:
            given.setdefault(camera, picture)
    return given


def _places(
    given: dict[int, int], on_path: Float[Tensor, "n d"], of_images: Float[Tensor, "k d"]
) -> tuple[int, ...]:
    at: dict[int, int] = {}
    for camera, picture in sorted(given.items()):
        at.setdefault(picture, camera)
    return tuple(
        at[picture] if picture in at else nearest_points(on_path, point, 1)[0]
        for picture, point in enumerate(of_images)
    )


def _conditions(
    targets: list[int],
    on_path: Float[Tensor, "n d"],
    known: dict[View, Tensor],
    beside: list[View],
    count: int,
) -> tuple[View, ...]:
    """Those beside some targets on the path, then others, each nearest to the middle first."""
    views, points = list(known), torch.stack(list(known.values()))
    by_distance = nearest_points(points, on_path[targets].mean(0), len(points))
    in_order = [views[index] for index in by_distance]
    first = [view for view in in_order if view in beside]
    return tuple(itertools.islice(dict.fromkeys([*first, *in_order]), count))


def _beside(part: list[int], stretches: list[range], known: dict[int, View]) -> list[View]:
    """The known views between some targets, before and after them on their stretch of the path."""
    stretch = next(stretch for stretch in stretches if part[0] in stretch)
    before = [camera for camera in range(stretch.start, part[0]) if camera in known]
    between = [camera for camera in range(part[0], part[-1]) if camera in known]
    after = [camera for camera in range(part[-1] + 1, stretch.stop) if camera in known]
    return [known[camera] for camera in (*before[-1:], *between, *after[:1])]

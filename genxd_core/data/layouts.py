"""Published layouts on disk: which folders there are, and errors that name root or scene."""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ..errors import InvalidInputError
from .scene import BrokenSceneError

__all__ = [
    "checked_scene_id",
    "expect_layout",
    "naming_scene",
    "subfolders",
]

_MOST_NAMED = 4
_TRIED = 64


def subfolders(folder: Path) -> list[str]:
    """Names of the folders within a folder, sorted, without hidden ones; nothing is opened.

    Raises:
        InvalidInputError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError as error:
        raise InvalidInputError(f"folder {folder} cannot be listed ({error}).") from error


def expect_layout(
    scenes: Iterable[str],
    is_scene: Callable[[str], bool],
    root: Path,
    dataset: str,
    layout: str,
) -> tuple[str, ...]:
    """The scenes of a root, sorted, if it looks like the layout.

    A few, spread over all, are looked into until one is right, so that many take no longer;
    `SceneDataset.scene` tells of broken ones when they are read.

    Args:
        scenes: what seem to be scenes.
        is_scene: whether one has the layout, by the names in it.
        root: of the dataset.
        dataset: its name.
        layout: what is expected, completing "expected ...".

    Raises:
        InvalidInputError: none of them has the layout; tells what is there.
    """
    found = tuple(sorted(scenes))
    if any(is_scene(scene) for scene in found[:: 1 + len(found) // _TRIED]):
        return found
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in islice(entries, 1000))
    told = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    raise InvalidInputError(f"root of {dataset} is {root}, which holds {told}; expected {layout}.")


def checked_scene_id(scene_ids: Sequence[str], scene_id: str, dataset: str) -> str:
    """Refuse what is none of the (sorted) scenes.

    Raises:
        InvalidInputError: there is no such scene.
    """
    place = bisect_left(scene_ids, scene_id)
    if place == len(scene_ids) or scene_ids[place] != scene_id:
        raise InvalidInputError(
            f"scene_id is {scene_id!r}; expected one of the {len(scene_ids)} scenes of {dataset}, "
            f"such as {scene_ids[0]!r}."
        )
    return scene_id


@contextmanager
def naming_scene(scene_id: str) -> Iterator[None]:
    """Turn errors of reading a scene's files into ones that name it.

    Raises:
        BrokenSceneError: in place of `InvalidInputError` and `OSError`.
    """
    try:
        yield
    except BrokenSceneError:
        raise
    except (InvalidInputError, OSError) as error:
        raise BrokenSceneError(f"scene {scene_id}: {error}") from error

"""Published layouts on disk: which folders there are, and errors that name root or scene."""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import InvalidInputError
from .scene import BrokenSceneError

__all__ = [
    "checked_scene_id",
    "expect_layout",
    "named_inside",
    "naming_scene",
    "subfolders",
    "unknown_scene",
    "wrong_layout",
]

_MOST_NAMED = 4
_MOST_LISTED = 1000
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
    raise wrong_layout(root, dataset, layout)


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


def wrong_layout(root: Path, dataset: str, layout: str) -> InvalidInputError:
    """The error of a root that holds something else; tells the first names that are there.

    Args:
        root: a folder.
        dataset: its name.
        layout: what is expected there, completing "expected ...".
    """
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in islice(entries, _MOST_LISTED))
    told = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    return InvalidInputError(f"root of {dataset} is {root}, which holds {told}; expected {layout}.")


def unknown_scene(scene_id: str, dataset: str, hint: str) -> InvalidInputError:
    """The error of a scene that a dataset does not have.

    Args:
        scene_id: that was asked for.
        dataset: its name.
        hint: what scenes are called there, completing "scenes are ...".
    """
    return InvalidInputError(
        f"scene_id is {scene_id!r:.200}, which {dataset} does not have; scenes are {hint}."
    )


def named_inside(root: Path, name: object, where: str) -> Path:
    """The file that a dataset's own file names, relative to ``root``.

    Links that the owner of the folder put there are followed; names may not climb.

    Args:
        root: the folder it must lie in.
        name: as it is written.
        where: names the file that names it, for the message.

    Raises:
        InvalidInputError: it is no text, is absolute, or has ``..`` in it.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InvalidInputError(f"{where} names {name!r:.200}, which is no path of a file.")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise InvalidInputError(f"{where} names {name!r:.200}, which leads out of {root}.")
    return root / path


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

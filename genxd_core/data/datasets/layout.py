"""What adapters share: refusing other layouts, paths that stay inside, errors naming scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...errors import InvalidInputError
from ..scene import BrokenSceneError

__all__ = ["named_inside", "naming_scene", "unknown_scene", "wrong_layout"]

_MOST_NAMED = 4


def wrong_layout(root: Path, dataset: str, layout: str) -> InvalidInputError:
    """The error of a root that holds something else; tells the first names that are there.

    Args:
        root: a folder.
        dataset: its name.
        layout: what is expected there, completing "expected ...".
    """
    names = sorted(entry.name for entry in root.iterdir())
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    found = ", ".join(names[:_MOST_NAMED])
    return InvalidInputError(
        f"root of {dataset} is {root}, which holds {found}{more}; expected {layout}."
    )


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
    """Turn what is wrong with a scene's files into a `BrokenSceneError` that names it."""
    try:
        yield
    except InvalidInputError as error:
        raise BrokenSceneError(f"scene {scene_id}: {error}") from error

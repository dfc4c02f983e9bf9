"""Camera paths by name, with their options as flat command line options."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

from ..errors import InvalidInputError

__all__ = ["PathName", "make_path", "path_options"]

PathName = Literal[
    "sway",
    "orbit",
    "forward_facing",
    "static",
    "dolly",
    "slide",
    "pan",
    "tilt",
    "roll",
]


def make_path(name: PathName, num_views: int, aspect: float, given: dict[str, Any]) -> Any:
    """The cameras of a path.

    Args:
        name: of the path.
        num_views: how many cameras.
        aspect: width / height of the pictures.
        given: options by name; None for those that keep the path's default.

    Returns:
        `Cameras`.

    Raises:
        InvalidInputError: the path has no such option, or refuses a value.
    """
    function = _function(name)
    known = path_options(name)
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in known:
            takers = [other for other in get_args(PathName) if option in path_options(other)]
            raise InvalidInputError(
                f"{option} is no option of the path {name!r}, which takes {', '.join(known)}. It "
                f"belongs to {', '.join(takers)}."
            )
    return function(num_views, aspect=aspect, **chosen)


def path_options(name: PathName) -> list[str]:
    """Names of a path's options."""
    parameters = inspect.signature(_function(name)).parameters
    return [option for option in parameters if option not in ("num_views", "aspect")]


def _function(name: PathName) -> Callable[..., Any]:
    from ..cameras import trajectories

    function: Callable[..., Any] = getattr(trajectories, name)
    return function

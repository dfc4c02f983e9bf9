"""Many pictures of Gaussians, still or moving, with the memory of one; and pictures of depth."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import SHAPE_TOLERANCE, picture_aspect
from ..errors import InvalidInputError
from ..progress import Progress, report
from .backends import Backend
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D
from .rasterize import Rendering, rasterize

__all__ = ["depth_picture", "draw_views", "picture_size", "render_views"]

_SOLID = 0.5  # what covers less of a pixel does not set the range of a depth picture
_IGNORED_SHARE = 0.005  # of the nearest and of the farthest pixels: single splats that float about
_FARTHEST_GREY = 0.15  # so that the farthest is still told from nothing
_MOST_COUNTED = 1 << 20


def render_views(
    gaussians: Gaussians | Gaussians4D | Sequence[Gaussians],
    cameras: Cameras,
    *,
    width: int,
    height: int,
    backend: Backend = "auto",
    background: Tensor | Sequence[float] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Rendering:
    """Draw Gaussians view after view, without gradients; the pictures are kept on the CPU.

    Args:
        gaussians: one scene for all cameras; one for each of them (the same scene over time); or
            one that moves, which each camera sees at its own time.
        cameras: V cameras in the world of the Gaussians.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        backend: as for `genxd_core.rasterize`.
        background: (3,) for all views or (V, 3), in [0, 1]; ``None`` is black.
        device: that draws; ``None`` is where the Gaussians lie. Only one scene is on it at a time.
        progress: called after each view; the preview is its picture, (3, H, W) on the CPU.

    Raises:
        InvalidInputError: the number of scenes, a size, a background or the backend does not fit,
            or the cameras of a moving scene have no times.
        MissingDependencyError: the backend that was asked for is not installed.
        Cancelled: ``progress`` returned ``False``.
    """
    pictures: dict[str, Tensor] = {}
    views = draw_views(
        gaussians,
        cameras,
        width=width,
        height=height,
        backend=backend,
        background=background,
        device=device,
        progress=progress,
    )
    for view, drawn in enumerate(views):
        for name in ("rgb", "alpha", "depth"):
            _keep(pictures, name, getattr(drawn, name)[0], view, len(cameras))
    return Rendering(**pictures, features=None)


def draw_views(
    gaussians: Gaussians | Gaussians4D | Sequence[Gaussians],
    cameras: Cameras,
    *,
    width: int,
    height: int,
    backend: Backend = "auto",
    background: Tensor | Sequence[float] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Iterator[Rendering]:
    """As `render_views`, but one view at a time, each drawn when it is asked for.

    Returns:
        For each camera a rendering of one view on the CPU. What does not fit together is refused
        before the first of them.
    """
    scene_of = _scene_of(gaussians, cameras)
    behind = _backgrounds(background, len(cameras))
    still = isinstance(gaussians, Gaussians)

    def draw() -> Iterator[Rendering]:
        for view in range(len(cameras)):
            # Not around the yield, where it would reach into what the caller does.
            with torch.no_grad():
                if view == 0 or not still:
                    placed = scene_of(view).detach().to(device)
                drawn = rasterize(
                    placed,
                    cameras[view],
                    width=width,
                    height=height,
                    backend=backend,
                    background=None if behind is None else behind[view],
                )
            rgb = drawn.rgb.cpu()
            report(progress, view + 1, len(cameras), rgb[0])
            yield Rendering(rgb, drawn.alpha.cpu(), drawn.depth.cpu(), features=None)

    return draw()


def _scene_of(
    gaussians: Gaussians | Gaussians4D | Sequence[Gaussians], cameras: Cameras
) -> Callable[[int], Gaussians]:
    """What gives the scene that a view sees; that of a moving one is made when it is asked for."""
    if isinstance(gaussians, Gaussians):
        return lambda view: gaussians
    if isinstance(gaussians, Gaussians4D):
        times = cameras.times
        if times is None:
            raise InvalidInputError(
                "cameras have no times, so nothing tells when each of them sees the moving scene. "
                "Give Cameras(c2w, Ks_norm, times) with times from 0 to 1, or a scene of one time "
                "(gaussians.at(time))."
            )
        return lambda view: gaussians.at(float(times[view]))
    scenes = list(gaussians)
    if len(scenes) != len(cameras):
        raise InvalidInputError(
            f"gaussians has {len(scenes)} scenes for {len(cameras)} cameras; give one scene for "
            "all of them, or one for each."
        )
    return lambda view: scenes[view]


def _backgrounds(
    background: Tensor | Sequence[float] | None, num_views: int
) -> Float[Tensor, "v 3"] | None:
    if background is None:
        return None
    colours = torch.as_tensor(background).detach().float().cpu()
    if colours.shape not in ((3,), (num_views, 3)):
        raise InvalidInputError(
            f"background has shape {tuple(colours.shape)}; expected (3,) for all views, or "
            f"({num_views}, 3), one colour per view."
        )
    return colours.expand(num_views, 3)


def _keep(pictures: dict[str, Tensor], name: str, picture: Tensor, view: int, count: int) -> None:
    # Filled in place: a list to be stacked would take twice the memory at the end.
    if name not in pictures:
        pictures[name] = torch.empty(count, *picture.shape, dtype=picture.dtype)
    pictures[name][view] = picture


def picture_size(cameras: Cameras, width: int = 0, height: int = 0) -> tuple[int, int]:
    """The size of pictures that cameras are for: (width, height) in pixels.

    Args:
        cameras: their intrinsics say which shape a picture with square pixels has.
        width: in pixels; 0 follows from the height.
        height: in pixels; 0 follows from the width.

    Raises:
        InvalidInputError: both are 0, or the pictures of some camera have another shape, which
            would stretch them.
    """
    aspects = picture_aspect(cameras).detach().cpu().double()
    aspect = float(aspects[0])
    if width < 0 or height < 0 or (width == 0 and height == 0):
        raise InvalidInputError(
            f"width is {width} and height is {height}; give at least one of them in pixels, such "
            "as a width of 512. The other may be 0, which follows from the cameras."
        )
    if width and height:
        aspect = width / height
    wrong = (aspects / aspect).log().abs()
    if float(wrong.max()) > SHAPE_TOLERANCE:
        view = int(wrong.argmax())
        fitting = _fitting(float(aspects[view]), width or height)
        raise InvalidInputError(
            f"cameras: camera {view} is for pictures of width / height {float(aspects[view]):.3f}, "
            f"but this one's is {aspect:.3f}, which would stretch it. Give a width of {fitting[0]} "
            f"and a height of {fitting[1]}, or 0 for one of them, and cameras of one shape."
        )
    return width or max(1, round(height * aspect)), height or max(1, round(width / aspect))


def _fitting(aspect: float, side: int) -> tuple[int, int]:
    return side, max(1, math.floor(side / aspect + 0.5))


def depth_picture(
    depth: Float[Tensor, "v 1 h w"], alpha: Float[Tensor, "v 1 h w"]
) -> Float[Tensor, "v 3 h w"]:
    """Depth as grey levels: the nearest is white, the farthest dark grey, nothing is black.

    One range serves all views, so that levels can be compared between them; it leaves out the
    nearest and the farthest half percent of the pixels.

    Args:
        depth: z-depth in scene units, 0 where nothing is.
        alpha: how much is covered, in [0, 1]; what covers little is drawn faintly.
    """
    solid = depth[(alpha > _SOLID) & (depth > 0)]
    if solid.numel() == 0:
        solid = depth[depth > 0]
    if solid.numel() == 0:
        return torch.zeros_like(depth).expand(-1, 3, -1, -1).clone()
    # A share of the pixels is enough, and all of a long path would take long to sort.
    ends = solid.new_tensor([_IGNORED_SHARE, 1.0 - _IGNORED_SHARE])
    near, far = solid[:: solid.numel() // _MOST_COUNTED + 1].quantile(ends).tolist()
    place = ((depth - near) / max(far - near, 1e-6 * far)).clamp(0, 1)
    levels = torch.lerp(torch.ones_like(place), torch.full_like(place, _FARTHEST_GREY), place)
    return torch.where(depth > 0, levels * alpha, 0.0).clamp(0, 1).expand(-1, 3, -1, -1).clone()

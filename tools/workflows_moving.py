"""The example workflows that end in Gaussians that move, one description each."""

from typing import Any

from .workflows_graph import Group, Link, Workflow
from .workflows_parts import (
    CFG,
    STEPS,
    VIEWS,
    add_condition,
    add_generation,
    add_grid,
    add_model_and_picture,
    add_note,
    add_video,
    save_sheet,
    save_video,
    shape_of,
)

__all__ = ["image_to_4d_object"]

_ELEVATION, _RADIUS = 40.0, 2.3
_STATIC_VIEWS, _AROUND = 40, 180.0
_MOVING_TO = 60.0
_MOTION = 1.0
_SHOWN_VIEWS, _DRAWN, _SHOWN_FPS = 24, 256, 12.0


def _path(
    flow: Workflow,
    group: Group,
    shape: dict[str, Any],
    title: str,
    *,
    column: int = 0,
    **path: Any,
) -> Link:
    given = {"path.elevation": _ELEVATION, "path.radius": _RADIUS} | path | shape
    options: dict[str, Any] = {"title": title, "column": column}
    return flow.add(group, "GenXD_MakeCameraPath", given, **options)["cameras"]


def image_to_4d_object() -> Workflow:
    """One picture to a scene that moves (App. H: 4D generation)."""
    flow = Workflow(
        "09_image_to_4d_object",
        "One picture to a scene of Gaussians that moves: a 3D pass for what it looks like, a 4D "
        "pass for how it moves; then the camera stops, time stops, or neither.",
        picture="Moments",
    )
    add_note(
        flow,
        "# One picture to 4D Gaussians",
        "*3D pass*: 40 views of the first moment. *4D pass*: 12 frames in which the scene moves. "
        "*GenXD Lift To 4DGS* fits Gaussians to the first, then how they move to the second. "
        "*GenXD Preview 4D* plays the scene: drag to turn it, the slider is time.",
        "*Moments*, two lines each: the camera stands still, time stands still, both move. "
        "`up` is *keep*, so that other paths made here are in the splat's world.",
        height=410,
    )
    model, picture = add_model_and_picture(flow, "genxd_box_and_ball.png")
    cameras = flow.group("2  Camera paths", 1, colour="yellow")
    shape = shape_of(flow, cameras, picture)
    orbit: dict[str, Any] = {"path": "orbit", "path.azimuth_to": _MOVING_TO}
    wide: dict[str, Any] = {"path": "orbit", "path.azimuth_to": _AROUND}
    around = _path(flow, cameras, shape, "Around", num_views=_STATIC_VIEWS, **wide)
    filmed = _path(flow, cameras, shape, "Shot", num_views=VIEWS, **orbit)
    still_pass = flow.group("3  3D pass", 2)
    given = {"images": picture["IMAGE"], "mask": picture["MASK"], "cameras": around}
    size = {"width": 64, "height": 64, "multiple": 16}
    fit = flow.add(still_pass, "GenXD_FitViews", given | size)
    task = {"images": fit["images"], "cameras": fit["cameras"], "seed": 1, "steps": STEPS}
    nets = {"model": model["MODEL"], "vae": model["VAE"], "cfg": CFG}
    static = flow.add(still_pass, "GenXD_SamplePath", nets | task)
    moving_pass = flow.group("4  4D pass", 2)
    condition = add_condition(
        flow,
        moving_pass,
        model,
        picture["IMAGE"],
        filmed,
        mask=picture["MASK"],
        mode="4d",
        motion_strength=_MOTION,
    )
    frames = add_generation(flow, moving_pass, model, condition, column=1)
    lift = flow.group("5  Lift", 3)
    lifted = flow.add(
        lift,
        "GenXD_LiftTo4DGS",
        {
            "images": frames,
            "cameras": filmed,
            "static_images": static["images"],
            "static_cameras": static["cameras"],
            "up": "keep",
            "seed": 1,
        },
        width=340,
        room=266,
    )
    saved = {"splat4d": lifted["splat4d"], "filename_prefix": "genxd/scene_4d"}
    flow.add(lift, "GenXD_Save4D", saved, collapsed=True)
    played = {"splat4d": lifted["splat4d"], "cameras": lifted["cameras"]}
    flow.add(lift, "GenXD_Preview4D", played, width=340, room=324)
    looking = flow.group("6  Cameras to look with", 4, colour="yellow")
    views: dict[str, Any] = {"num_views": _SHOWN_VIEWS}
    standing = _path(flow, looking, shape, "Camera that stands", path="static", **views)
    moving = _path(flow, looking, shape, "Camera that moves", column=1, **views, **orbit)
    moment = {"splat4d": lifted["splat4d"], "time": 0.5}
    frozen = flow.add(lift, "GenXD_SplatAtTime", moment, collapsed=True)["splat"]
    shown = {
        "Time alone": (lifted["splat4d"], standing),
        "Camera alone": (frozen, moving),
        "Both": (lifted["splat4d"], moving),
    }
    results = flow.group("7  Results", 4, colour="purple")
    rows = [_drawn(flow, results, *what, title) for title, what in shown.items()]
    _save_rows(flow, results, rows)
    return flow


def _drawn(flow: Workflow, group: Group, splat: Link, cameras: Link, title: str) -> Link:
    given = {"splat": splat, "cameras": cameras, "width": _DRAWN}
    options: dict[str, Any] = {"title": title, "collapsed": True, "column": 1}
    return flow.add(group, "GenXD_RenderSplat", given, **options)["images"]


def _save_rows(flow: Workflow, group: Group, rows: list[Link]) -> None:
    """A sheet with two lines for each, and all three beside each other as a video."""
    cells: dict[str, Any] = {"columns": _SHOWN_VIEWS // 2, "cell": 96, "collapsed": True}
    grids = [add_grid(flow, group, row, **cells) for row in rows]
    sheet, beside = grids[0], rows[0]
    for below, right in zip(grids[1:], rows[1:], strict=True):
        stack = {"image1": sheet, "image2": below, "direction": "down", "spacing_width": 4}
        sheet = flow.add(group, "ImageStitch", stack, title="Below", collapsed=True)["IMAGE"]
        pair = {"image1": beside, "image2": right, "spacing_width": 4}
        options: dict[str, Any] = {"title": "Beside", "collapsed": True, "column": 1}
        beside = flow.add(group, "ImageStitch", pair, **options)["IMAGE"]
    save_sheet(flow, group, sheet, "genxd/09_moments", "Moments", room=260)
    video = add_video(flow, group, beside, _SHOWN_FPS, column=1)
    save_video(flow, group, video, "genxd/09_moments", column=1)

"""The example workflows that end in Gaussians that move, one description each."""

from typing import Any

from .workflows_graph import Group, Link, Workflow
from .workflows_parts import (
    CFG,
    MULTIPLE,
    NANO,
    SIZE,
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

__all__ = ["image_to_4d_object", "video_to_4d"]

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
        room=256,
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
    rows = [_along(flow, results, *what, _DRAWN, title, column=1) for title, what in shown.items()]
    _save_rows(flow, results, rows)
    return flow


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


_FILM_ELEVATION, _FILM_RADIUS = 40.0, 2.2
_SIDES: dict[str, Any] = {"path.azimuth_from": -36.0, "path.azimuth_to": 54.0, "num_views": 5}
_FILM_MOTION = 1.5
_ITERATIONS, _MORE_ITERATIONS = 500, 200


def video_to_4d() -> Workflow:
    """One video to a scene that moves, with a round of refinement (App. C)."""
    flow = Workflow(
        "10_video_to_4d",
        "One video to a scene of Gaussians that moves: what other cameras would have filmed, a "
        "fit, and a round of refinement.",
        picture="Moments",
    )
    add_note(
        flow,
        "# One video to 4D Gaussians",
        "*Videos from all sides* of a film, and a *First fit* to them. *Refinement*: the fit is "
        "drawn along paths that leave the film's camera and come back, noised and denoised in 4D "
        "mode, led by the film's own frames; with these the *Second fit* goes on (the paper's "
        "appendix C).",
        "*Moments*: the film, the first fit, the second fit; the camera goes around. `up` is "
        "*keep*, so that all paths are in the splat's world.",
        height=470,
    )
    given = flow.group("1  Film", 0, colour="green")
    loaded = flow.add(given, "LoadVideo", {"file": "genxd_bounce.mp4"}, title="Film", room=252)
    parts = flow.add(
        given,
        "GetVideoComponents",
        {"video": loaded["VIDEO"]},
        title="Its frames",
        collapsed=True,
    )
    size: dict[str, Any] = {"width": SIZE, "height": SIZE, "multiple": MULTIPLE}
    film = flow.add(given, "GenXD_FitViews", {"images": parts["images"], **size})["images"]
    cameras = flow.group("2  Cameras", 1, colour="yellow")
    filmed = _film_path(flow, cameras, "The film's camera", path="static", num_views=VIEWS)
    sides = _film_path(flow, cameras, "The views", path="orbit", **_SIDES)
    out_and_back = {"input_cameras": filmed, "view_cameras": sides, "num_frames": VIEWS}
    swings = flow.add(cameras, "GenXD_SwingPaths", out_and_back)
    sampling = flow.group("3  Model and videos from all sides", 2)
    model = flow.add(sampling, "GenXD_LoadModel", {"model": NANO}, title="Model")
    nets = {"model": model["MODEL"], "vae": model["VAE"], "seed": 1, "steps": STEPS}
    nets |= {"cfg": CFG, "motion_strength": _FILM_MOTION}
    ends = {"video": film, "input_cameras": filmed, "view_cameras": sides}
    videos = flow.add(sampling, "GenXD_SampleMultiviewVideos", nets | ends)
    fitting: dict[str, Any] = {"up": "keep", "seed": 1}
    first_group = flow.group("4  First fit", 3)
    task = {"images": videos["images"], "cameras": videos["cameras"], "iterations": _ITERATIONS}
    first = flow.add(first_group, "GenXD_LiftTo4DGS", fitting | task, title="First fit", room=222)
    refining = flow.group("5  Refinement", 4)
    drawn = _along(flow, refining, first["splat4d"], swings["cameras"], SIZE, "Along the swings")
    rough = {"video": drawn, "cameras": swings["cameras"], "conditions": swings["conditions"]}
    led = {"condition_images": film, "conditions_per_window": 1}
    refined = flow.add(refining, "GenXD_RefineVideo", nets | rough | led)
    second_group = flow.group("6  Second fit", 5)
    both = {"images.image0": film, "images.image1": refined["images"]}
    images = flow.add(second_group, "BatchImagesNode", both, title="Film and refined", room=12)
    join = {"cameras": filmed, "edit": "join clips", "edit.second": swings["cameras"]}
    joined = flow.add(second_group, "GenXD_EditCameras", join, title="Their cameras")
    task = {"images": images["IMAGE"], "cameras": joined["cameras"], "splat4d": first["splat4d"]}
    task |= {"iterations": _MORE_ITERATIONS}
    second = flow.add(
        second_group, "GenXD_LiftTo4DGS", fitting | task, title="Second fit", room=222
    )
    kept = flow.group("8  The scene", 5, colour="purple")
    results = flow.group("7  Results", 6, colour="purple")
    around: dict[str, Any] = {"path.azimuth_from": -30.0, "path.azimuth_to": 30.0}
    looking = _film_path(flow, cameras, "To look with", path="orbit", num_views=VIEWS, **around)
    rows = [
        _along(flow, first_group, first["splat4d"], looking, _DRAWN, "First moments"),
        _along(flow, kept, second["splat4d"], looking, _DRAWN, "Second moments"),
    ]
    _save_moments(flow, results, film, rows)
    saved = {"splat4d": second["splat4d"], "filename_prefix": "genxd/film_4d"}
    flow.add(kept, "GenXD_Save4D", saved, room=40)
    return flow


def _film_path(flow: Workflow, group: Group, title: str, **path: Any) -> Link:
    place = {"path.elevation": _FILM_ELEVATION, "path.radius": _FILM_RADIUS}
    return flow.add(group, "GenXD_MakeCameraPath", place | path, title=title)["cameras"]


def _along(
    flow: Workflow,
    group: Group,
    splat: Link,
    cameras: Link,
    width: int,
    title: str,
    *,
    column: int = 0,
) -> Link:
    given = {"splat": splat, "cameras": cameras, "width": width}
    options: dict[str, Any] = {"title": title, "collapsed": True, "column": column}
    return flow.add(group, "GenXD_RenderSplat", given, **options)["images"]


def _save_moments(flow: Workflow, group: Group, film: Link, rows: list[Link]) -> None:
    """A line of moments for the film and for each fit, and the fits beside each other."""
    cells: dict[str, Any] = {"columns": VIEWS, "cell": 96, "collapsed": True}
    lines = [add_grid(flow, group, images, **cells) for images in (film, *rows)]
    sheet = lines[0]
    for below in lines[1:]:
        stack = {"image1": sheet, "image2": below, "direction": "down", "spacing_width": 4}
        sheet = flow.add(group, "ImageStitch", stack, title="Below", collapsed=True)["IMAGE"]
    pair = {"image1": rows[0], "image2": rows[1], "spacing_width": 4}
    beside = flow.add(group, "ImageStitch", pair, title="Beside", collapsed=True)["IMAGE"]
    save_sheet(flow, group, sheet, "genxd/10_moments", "Moments", room=130)
    video = add_video(flow, group, beside, collapsed=True)
    save_video(flow, group, video, "genxd/10_fits")

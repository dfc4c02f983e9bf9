"""The example workflow that turns a film into a scene in which something moves."""

from typing import Any

from .workflows_graph import Group, Link, Node, Workflow
from .workflows_inputs import FILM
from .workflows_parts import add_grid, add_note, add_video, save_sheet, save_video

__all__ = ["scene_4d_motion_bases"]

_FRAMES, _STANDS_AT = 24, 12
_PIXELS, _DRAWN, _FPS = 256, 320, 7.5
_CELL = (112, 63)
_GREY = "#808080"


def scene_4d_motion_bases() -> Workflow:
    """A film from a moving camera to a scene at rest and what moves in it (App. E)."""
    flow = Workflow(
        "12_scene_4d_motion_bases",
        "A film with COLMAP's cameras and masks of what moves to a scene that can be seen at any "
        "time from any place.",
        needs="none",
        picture="Moments",
    )
    add_note(
        flow,
        "# A film to a scene that moves",
        "24 frames from a hand-held camera, COLMAP's cameras and points of what is at rest, and "
        "rough masks of the dog. *GenXD Lift To Motion Bases* fits the ground first, then the dog "
        "by a few rigid motions. Nothing is generated.",
        "*Moments*, three lines each: as filmed; the camera stands still; time stands still.",
        "For a film of your own: frames in `input/my_film/images`, masks of the same names (white "
        "= moves) in `input/my_film/masks`, COLMAP's model in `input/my_film/sparse/0`. One camera "
        "sees one side only: depth (any depth node, in the cameras' scale) helps most.",
        height=560,
        generates=False,
    )
    group = flow.group("1  Film", 1, colour="green")
    chosen = {
        "file": f"{FILM}/sparse/0/ (COLMAP)",
        "max_side": _PIXELS,
        "masks": f"{FILM}/masks",
    }
    film = flow.add(group, "GenXD_LoadCapture", chosen, room=120, width=340)
    drawn = {"cameras": film["cameras"]}
    flow.add(group, "GenXD_PreviewCameras", drawn, title="Camera path", room=222, width=340)
    lift = flow.group("2  Lift", 2)
    names = ("images", "cameras", "mask", "points")
    given = {name: film[name] for name in names} | {"background": _GREY, "seed": 1}
    lifted = flow.add(lift, "GenXD_LiftToMotionBases", given, width=340, room=222)
    saved = {"splat4d": lifted["splat4d"], "filename_prefix": "genxd/film_4d"}
    flow.add(lift, "GenXD_Save4D", saved, room=40, width=340)
    compared = flow.group("3  Held-out frames", 3, colour="purple")
    width, height = _CELL
    wide: dict[str, Any] = {"columns": 1, "cell": 6 * width, "height": 2 * height, "width": 400}
    sheet = add_grid(flow, compared, lifted["comparisons"], collapsed=True, **wide)
    save_sheet(flow, compared, sheet, "genxd/12_comparisons", "Comparisons", room=240, width=400)
    results = flow.group("4  Moments", 4, colour="purple")
    _moments(flow, results, lifted)
    return flow


def _moments(flow: Workflow, group: Group, lifted: Node) -> None:
    hold = {"edit": "hold", "edit.view": _STANDS_AT, "edit.num_views": _FRAMES}
    standing = flow.add(
        group, "GenXD_EditCameras", {"cameras": lifted["cameras"], **hold}, title="Camera stands"
    )
    moment = {"splat4d": lifted["splat4d"], "time": 0.5}
    frozen = flow.add(group, "GenXD_SplatAtTime", moment, title="Time stands", column=1)
    shown = {
        "As filmed": (lifted["splat4d"], lifted["cameras"]),
        "Time alone": (lifted["splat4d"], standing["cameras"]),
        "Camera alone": (frozen["splat"], lifted["cameras"]),
    }
    sheet: Link | None = None
    beside: Link | None = None
    for title, (splat, cameras) in shown.items():
        frames = _drawn(flow, group, splat, cameras, title)
        cells: dict[str, Any] = {"columns": _FRAMES // 3, "cell": _CELL[0], "height": _CELL[1]}
        grid = add_grid(flow, group, frames, collapsed=True, **cells)
        sheet = grid if sheet is None else _stitched(flow, group, sheet, grid, "down")
        beside = frames if beside is None else _stitched(flow, group, beside, frames, "right")
    assert sheet is not None
    assert beside is not None
    save_sheet(flow, group, sheet, "genxd/12_moments", "Moments", room=260)
    video = add_video(flow, group, beside, _FPS, column=1)
    save_video(flow, group, video, "genxd/12_moments", column=1)


def _drawn(flow: Workflow, group: Group, splat: Link, cameras: Link, title: str) -> Link:
    given = {"splat": splat, "cameras": cameras, "width": _DRAWN, "background": _GREY}
    options: dict[str, Any] = {"title": title, "collapsed": True}
    return flow.add(group, "GenXD_RenderSplat", given, **options)["images"]


def _stitched(flow: Workflow, group: Group, first: Link, second: Link, direction: str) -> Link:
    pair = {"image1": first, "image2": second, "direction": direction, "spacing_width": 4}
    options: dict[str, Any] = {"collapsed": True, "column": 1 if direction == "right" else 0}
    return flow.add(group, "ImageStitch", pair, title=f"Stitch {direction}", **options)["IMAGE"]

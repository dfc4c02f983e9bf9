"""The example workflows that start from videos, one description each."""

from typing import Any

from .workflows_graph import Group, Link, Node, Workflow
from .workflows_parts import (
    CFG,
    MULTIPLE,
    NANO,
    SIZE,
    STEPS,
    VIEWS,
    add_grid,
    add_note,
    add_video,
    save_sheet,
    save_video,
)

__all__ = ["multiview_videos"]

_ELEVATION, _RADIUS = 40.0, 2.2
_FROM, _TO, _NUM_VIEWS = -30.0, 90.0, 4
_CELL, _LARGE = 96, 256
_STRENGTH, _MOTION = 0.5, 1.5


def multiview_videos() -> Workflow:
    """One video to videos of several views (App. D)."""
    flow = Workflow(
        "11_multiview_videos",
        "One video to what three other cameras would have filmed, all at the same times.",
        picture="Refined videos",
    )
    add_note(
        flow,
        "# One video to multi-view videos",
        "A camera that stands still films a hopping ball. Every frame is seen from four cameras in "
        "3D mode; then each view's video is noised and denoised in 4D mode, three of 12 frames "
        "leading the others (the paper's appendix D).",
        "*Rough videos* are those of `strength` 0. The second node finds them again and only "
        "refines them. The second row is the video itself: its camera is one of the orbit's.",
        "Give both paths the `elevation` that the video was filmed from.",
        height=500,
    )
    given = flow.group("1  Model and video", 1, colour="green")
    model = flow.add(given, "GenXD_LoadModel", {"model": NANO}, title="Model")
    loaded = flow.add(given, "LoadVideo", {"file": "genxd_bounce.mp4"}, title="Film", room=252)
    parts = flow.add(given, "GetVideoComponents", {"video": loaded["VIDEO"]}, title="Its frames")
    size: dict[str, Any] = {"width": SIZE, "height": SIZE, "multiple": MULTIPLE}
    fit = flow.add(given, "GenXD_FitViews", {"images": parts["images"], **size})
    cameras = flow.group("2  Cameras", 2, colour="yellow")
    place = {"path.elevation": _ELEVATION, "path.radius": _RADIUS}
    still = {"path": "static", "num_views": VIEWS, **place}
    filmed = flow.add(cameras, "GenXD_MakeCameraPath", still, title="The film's camera")["cameras"]
    around = {"path": "orbit", "path.azimuth_from": _FROM, "path.azimuth_to": _TO, **place}
    around["num_views"] = _NUM_VIEWS
    views = flow.add(cameras, "GenXD_MakeCameraPath", around, title="The views")["cameras"]
    drawn = {"cameras": views, "indices": "1"}
    flow.add(cameras, "GenXD_PreviewCameras", drawn, title="Camera path", room=222)
    sampling = flow.group("3  Generate", 3)
    inputs = {
        "model": model["MODEL"],
        "vae": model["VAE"],
        "video": fit["images"],
        "input_cameras": filmed,
        "view_cameras": views,
        "motion_strength": _MOTION,
        "seed": 1,
        "steps": STEPS,
        "cfg": CFG,
    }
    rough = _sampled(flow, sampling, inputs, 0.0, "Rough")
    refined = _sampled(flow, sampling, inputs, _STRENGTH, "Refined")
    results = flow.group("4  Results", 4, colour="purple")
    wide: dict[str, Any] = {"width": 400}
    for images, title in ((rough, "Rough videos"), (refined, "Refined videos")):
        shape: dict[str, Any] = {"columns": VIEWS, "cell": _CELL, "collapsed": True, **wide}
        sheet = add_grid(flow, results, images, **shape)
        stem = title.lower().replace(" ", "_")
        save_sheet(flow, results, sheet, f"genxd/11_{stem}", title, room=190, **wide)
    together = flow.group("5  Side by side", 5, colour="purple")
    beside = _side_by_side(flow, together, refined, **wide)
    video = add_video(flow, together, beside, collapsed=True, **wide)
    save_video(flow, together, video, "genxd/11_views", **wide)
    return flow


def _sampled(
    flow: Workflow, group: Group, inputs: dict[str, Any], strength: float, title: str
) -> Link:
    given = inputs | {"strength": strength}
    return flow.add(group, "GenXD_SampleMultiviewVideos", given, title=title)["images"]


def _side_by_side(flow: Workflow, group: Group, images: Link, **options: Any) -> Link:
    """The views' videos beside each other, as one."""
    size = {"upscale_method": "lanczos", "width": _LARGE, "height": _LARGE}
    hidden: dict[str, Any] = {"collapsed": True, **options}
    large: Node = flow.add(
        group, "ImageScale", {"image": images, **size}, title="Enlarge", **hidden
    )
    rows = []
    for view in range(_NUM_VIEWS):
        cut = {"image": large["IMAGE"], "batch_index": view * VIEWS, "length": VIEWS}
        rows.append(flow.add(group, "ImageFromBatch", cut, title=f"View {view + 1}", **hidden))
    beside = rows[0]["IMAGE"]
    for row in rows[1:]:
        pair = {"image1": beside, "image2": row["IMAGE"], "spacing_width": 4}
        stitch = flow.add(group, "ImageStitch", pair, title="Side by side", **hidden)
        beside = stitch["IMAGE"]
    return beside

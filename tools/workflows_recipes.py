"""The example workflows, one description each. `python -m tools.workflows build` writes them."""

from typing import Any

from .workflows_graph import Group, Link, Node, Workflow
from .workflows_moving import image_to_4d_object, video_to_4d
from .workflows_parts import (
    VIEWS,
    add_condition,
    add_generation,
    add_grid,
    add_model_and_picture,
    add_model_and_pictures,
    add_note,
    add_preview,
    add_results,
    add_video,
    sampler_inputs,
    save_sheet,
    save_video,
    shape_of,
)
from .workflows_scene import scene_4d_motion_bases
from .workflows_splats import capture_to_splat, few_views_to_splat, image_to_splat
from .workflows_videos import multiview_videos

__all__ = ["RECIPES", "recipes"]


def image_to_3d_views() -> Workflow:
    """One picture, an orbit."""
    flow = Workflow("01_image_to_3d_views", "One picture of a still scene to 12 views around it.")
    add_note(
        flow,
        "# One picture to 3D views",
        "The picture stands at the start of a camera path (`indices` 0); GenXD makes the other 11 "
        "views. Mode **3d**: nothing moves but the camera.",
        "Give `elevation` as high as the picture was taken from, here 40 degrees. For a scene "
        "without one object in its middle choose the path *forward-facing*. Transparent parts of "
        "a picture become white. `cfg` 1.5 to 3 is usual.",
        height=340,
    )
    model, picture = add_model_and_picture(flow, "genxd_box_and_ball.png")
    cameras = flow.group("2  Camera path", 2, colour="yellow")
    path = {
        "path": "orbit",
        "path.azimuth_to": 180.0,
        "path.elevation": 40.0,
        "path.radius": 2.3,
        "num_views": VIEWS,
        **shape_of(flow, cameras, picture),
    }
    made = flow.add(cameras, "GenXD_MakeCameraPath", path)["cameras"]
    add_preview(flow, cameras, made)
    middle = flow.group("3  Generate", 2)
    images, mask = picture["IMAGE"], picture["MASK"]
    condition = add_condition(flow, middle, model, images, made, mask=mask, mode="3d")
    views = add_generation(flow, middle, model, condition, column=1)
    results = flow.group("4  Results", 3, colour="purple")
    add_results(flow, results, views, "01_views")
    return flow


def image_to_4d_video() -> Workflow:
    """One picture of a moving scene."""
    flow = Workflow(
        "02_image_to_4d_video", "One picture to a video in which objects and the camera move."
    )
    add_note(
        flow,
        "# One picture to 4D video",
        "Mode **4d**: the scene moves while the camera follows its path. `motion_strength` says "
        "how much it moves: 0 still, 0.5 typical, 1.5 strong.",
        "For a video without camera control choose the mode **video**; it ignores the path.",
        height=290,
    )
    model, picture = add_model_and_picture(flow, "genxd_ball_and_boxes.png")
    cameras = flow.group("2  Camera path", 2, colour="yellow")
    path = {
        "path": "orbit",
        "path.azimuth_to": 60.0,
        "path.elevation": 18.0,
        "path.radius": 2.6,
        "num_views": VIEWS,
        **shape_of(flow, cameras, picture),
    }
    made = flow.add(cameras, "GenXD_MakeCameraPath", path)["cameras"]
    add_preview(flow, cameras, made)
    middle = flow.group("3  Generate", 2)
    images, mask = picture["IMAGE"], picture["MASK"]
    condition = add_condition(
        flow, middle, model, images, made, mask=mask, mode="4d", motion_strength=0.7
    )
    views = add_generation(flow, middle, model, condition, column=1)
    results = flow.group("4  Results", 3, colour="purple")
    add_results(flow, results, views, "02_video")
    return flow


def first_middle_last_to_4d_video() -> Workflow:
    """Three moments of a moving scene (Tab. 2 of the paper)."""
    flow = Workflow(
        "02b_first_middle_last_to_4d_video",
        "The first, middle and last picture of a moving shot, and its cameras, to the whole shot.",
    )
    add_note(
        flow,
        "# First, middle and last picture to 4D video",
        "Three pictures of a moving scene at their places on the path (`indices` 0, 5, 11), as in "
        "table 2 of the paper. GenXD makes the nine frames between them.",
        "Pictures and cameras come from one shot: the camera file has all 12 cameras.",
        height=290,
    )
    files = [f"genxd_hop_{number:02d}.png" for number in (0, 5, 11)]
    model, images = add_model_and_pictures(flow, files, ["First", "Middle", "Last"])
    cameras = flow.group("2  Cameras of the shot", 2, colour="yellow")
    loaded = flow.add(cameras, "GenXD_LoadCameras", {"file": "genxd_hop_cameras.json"})["cameras"]
    add_preview(flow, cameras, loaded, "0, 5, 11")
    middle = flow.group("3  Generate", 2)
    condition = add_condition(
        flow, middle, model, images, loaded, mode="4d", indices="0, 5, 11", motion_strength=1.6
    )
    views = add_generation(flow, middle, model, condition, column=1)
    results = flow.group("4  Results", 3, colour="purple")
    add_results(flow, results, views, "02b_video")
    return flow


def few_views_to_path() -> Workflow:
    """Three views with known cameras, and the path through them."""
    flow = Workflow(
        "03_few_views_to_path",
        "Three pictures with known cameras, and a camera file, to all views on the path.",
    )
    add_note(
        flow,
        "# Few views to a path",
        "The camera file holds 12 cameras; the three pictures were taken by those of `indices` "
        "0, 5 and 11. GenXD makes the other nine views. The first index is the reference view.",
        "*GenXD Load Cameras* reads nerfstudio's `transforms.json`, COLMAP and RealEstate10K too. "
        "A file with the three cameras alone: set `num_views` to 11 and `indices` to 0, 5, 10. "
        "`scale_to` 2 brings a capture of any scale near what the model knows.",
        height=360,
    )
    files = [f"genxd_views_{number:02d}.png" for number in (0, 5, 11)]
    model, images = add_model_and_pictures(flow, files, ["View 0", "View 5", "View 11"])
    cameras = flow.group("2  Cameras", 2, colour="yellow")
    loaded = flow.add(cameras, "GenXD_LoadCameras", {"file": "genxd_views_cameras.json"})["cameras"]
    add_preview(flow, cameras, loaded, "0, 5, 11")
    middle = flow.group("3  Generate", 2)
    condition = add_condition(flow, middle, model, images, loaded, mode="3d", indices="0, 5, 11")
    views = add_generation(flow, middle, model, condition, column=1)
    results = flow.group("4  Results", 3, colour="purple")
    add_results(flow, results, views, "03_views")
    return flow


_GALLERY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Orbit", {"path": "orbit", "path.elevation": 20.0}),
    ("Forward-facing", {"path": "forward-facing", "path.elevation": 10.0}),
    ("Dolly", {"path": "dolly", "path.distance": 1.0}),
    ("Slide", {"path": "slide", "path.right": 1.0, "path.up": 0.5}),
    ("Pan", {"path": "pan"}),
    ("Tilt", {"path": "tilt"}),
    ("Roll", {"path": "roll", "path.angle": 60.0}),
    ("Still", {"path": "static"}),
)


def camera_paths() -> Workflow:
    """A gallery of paths."""
    flow = Workflow(
        "04_camera_paths",
        "A gallery of camera paths, and how to change and join them.",
        needs="none",
        picture=None,
    )
    flow.note(
        "# Camera paths\n\n"
        "*GenXD Make Camera Path* has a preset for each of these; *GenXD Preview Cameras* draws "
        "any path in perspective and from above, from violet (first) to yellow (last).\n\n"
        "*GenXD Edit Cameras* changes a path: reverse, loop, resample, ease, scale, cut, join. "
        "*GenXD Save Cameras* writes it for nerfstudio, COLMAP or RealEstate10K.\n\n"
        "Connect a path's `cameras` to *GenXD Condition Views* in the other workflows. Distances "
        "are in scene units; the middle of the scene is `radius` away, 2 by default.",
        0,
        height=380,
    )
    presets = flow.group("Presets", 1, colour="yellow")
    made = {
        title: _shown_path(flow, presets, title, inputs, *divmod(number, 4))
        for number, (title, inputs) in enumerate(_GALLERY)
    }
    edits = flow.group("Changed paths", 2, colour="green")
    eased = {"cameras": made["Orbit"], "edit": "ease"}
    _changed_path(flow, edits, "Orbit, eased", eased, 0, 0)
    back = {"cameras": made["Dolly"], "edit": "loop"}
    _changed_path(flow, edits, "Dolly and back", back, 0, 1)
    joined = {"cameras": made["Dolly"], "edit": "join", "edit.second": made["Pan"]}
    path = _changed_path(flow, edits, "Dolly, then pan", joined, 1, 0)
    even = {"cameras": path, "edit": "even speed", "edit.num_views": VIEWS}
    _changed_path(flow, edits, "The same at even speed", even, 1, 1)
    return flow


def _shown_path(
    flow: Workflow, group: Group, title: str, inputs: dict[str, Any], row: int, column: int
) -> Link:
    make = {**inputs, "num_views": VIEWS}
    at = {"row": row, "column": column}
    cameras = flow.add(group, "GenXD_MakeCameraPath", make, **at)["cameras"]
    flow.add(group, "GenXD_PreviewCameras", {"cameras": cameras}, title=title, room=222, **at)
    return cameras


def _changed_path(
    flow: Workflow, group: Group, title: str, inputs: dict[str, Any], row: int, column: int
) -> Link:
    at = {"row": row, "column": column}
    cameras = flow.add(group, "GenXD_EditCameras", inputs, **at)["cameras"]
    flow.add(group, "GenXD_PreviewCameras", {"cameras": cameras}, title=title, room=222, **at)
    return cameras


STRENGTHS = (0.0, 0.5, 1.0, 2.0)


def motion_strength() -> Workflow:
    """A sweep of strengths (Fig. 8 of the paper)."""
    flow = Workflow(
        "05_motion_strength", "One picture at four motion strengths, side by side (Fig. 8)."
    )
    add_note(
        flow,
        "# Motion strength",
        "One picture, one seed, a camera that stands still, four strengths: only how much the "
        "objects move differs, as in figure 8 of the paper.",
        "*GenXD Set Motion Strength* changes the strength without encoding again; with the unit "
        "*gamma x100* it takes the numbers that the paper prints.",
        height=300,
    )
    model, picture = add_model_and_picture(flow, "genxd_ball_and_boxes.png")
    middle = flow.group("2  Path and conditioning", 1, colour="yellow")
    still = {"path": "static", "path.elevation": 18.0, "path.radius": 2.6, "num_views": VIEWS}
    still |= shape_of(flow, middle, picture)
    path = flow.add(middle, "GenXD_MakeCameraPath", still)["cameras"]
    images, mask = picture["IMAGE"], picture["MASK"]
    condition = add_condition(flow, middle, model, images, path, mask=mask, mode="4d")
    sweep = flow.group("3  One row for each strength", 2)
    rows = [
        _strength_row(flow, sweep, model, condition, strength, row)
        for row, strength in enumerate(STRENGTHS)
    ]
    results = flow.group("4  Results", 3, colour="purple")
    batch = {f"images.image{number}": row for number, row in enumerate(rows)}
    everything = flow.add(results, "BatchImagesNode", batch, title="All rows", room=12)["IMAGE"]
    sheet = add_grid(flow, results, everything, columns=VIEWS, cell=128)
    beside = rows[0]
    for row in rows[1:]:
        pair = {"image1": beside, "image2": row, "spacing_width": 4}
        stitch = flow.add(results, "ImageStitch", pair, title="Side by side", collapsed=True)
        beside = stitch["IMAGE"]
    video = add_video(flow, results, beside)
    wide: dict[str, Any] = {"column": 1, "width": 400}
    save_sheet(flow, results, sheet, "genxd/05_sheet", room=222, **wide)
    save_video(flow, results, video, "genxd/05_strengths", **wide)
    return flow


def _strength_row(
    flow: Workflow, group: Group, model: Node, condition: Node, strength: float, row: int
) -> Link:
    """Set a strength, sample, decode, and write the strength on the frames."""
    inputs = {"positive": condition["positive"], "motion_strength": strength}
    title = f"Strength {strength:g}"
    changed = flow.add(group, "GenXD_SetMotionStrength", inputs, title=title, row=row)
    sampler = sampler_inputs(model, condition, changed["positive"])
    sampled = flow.add(group, "KSampler", sampler, row=row, column=1)["LATENT"]
    decoded = {"samples": sampled, "vae": model["VAE"]}
    images = flow.add(group, "GenXD_DecodeViews", decoded, row=row, column=2)["images"]
    size = {"image": images, "upscale_method": "lanczos", "width": 256, "height": 256}
    at = {"row": row, "column": 2, "collapsed": True}
    large = flow.add(group, "ImageScale", size, title="Enlarge", **at)["IMAGE"]
    label = {"images": large, "text": f"strength {strength:g}", "font_size": 9.0}
    return flow.add(group, "TextOverlay", label, title="Label", **at)["images"]


RECIPES = (
    image_to_3d_views,
    image_to_4d_video,
    first_middle_last_to_4d_video,
    few_views_to_path,
    camera_paths,
    motion_strength,
    image_to_splat,
    few_views_to_splat,
    capture_to_splat,
    image_to_4d_object,
    video_to_4d,
    multiview_videos,
    scene_4d_motion_bases,
)


def recipes() -> list[Workflow]:
    """All workflows, fresh."""
    return [make() for make in RECIPES]

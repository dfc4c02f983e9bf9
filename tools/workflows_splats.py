"""The example workflows that end in 3D Gaussians, one description each."""

from typing import Any

from .workflows_graph import Group, Link, Node, Workflow
from .workflows_parts import (
    MULTIPLE,
    SIZE,
    STEPS,
    add_grid,
    add_model_and_picture,
    add_model_and_pictures,
    add_note,
    add_preview,
    add_video,
    save_sheet,
    save_video,
    shape_of,
)

__all__ = ["capture_to_splat", "few_views_to_splat", "image_to_splat"]

_CFG = 2.0
_PATH_VIEWS, _AROUND = 40, 180.0
_FITTED_VIEWS = 36
_WALK_VIEWS = 60
_DRAWN, _SHOWN_FPS = 512, 16.0
_VIEWER = {"width": 400, "room": 364}  # the page makes a viewer of splats no smaller

_EACH_HAS_SEEN = (
    "While it runs, *GenXD Lift To 3DGS* shows a view that it was not given; *comparisons* has "
    "such views beside their renderings. With the recipes *single_view* and *few_view* connect "
    "*GenXD Load Perceptual Model*."
)


def _fit_views(flow: Workflow, group: Group, given: dict[str, Any]) -> Node:
    size = {"width": SIZE, "height": SIZE, "multiple": MULTIPLE}
    return flow.add(group, "GenXD_FitViews", given | size)


def _sample_path(
    flow: Workflow, group: Group, model: Node, given: dict[str, Any], **options: Any
) -> Node:
    settings = {"seed": 1, "steps": STEPS, "cfg": _CFG}
    nets = {"model": model["MODEL"], "vae": model["VAE"]}
    return flow.add(group, "GenXD_SamplePath", nets | given | settings, **options)


def _lift(flow: Workflow, group: Group, given: dict[str, Any], **options: Any) -> Node:
    return flow.add(group, "GenXD_LiftTo3DGS", given, **options)


def _comparisons(
    flow: Workflow, group: Group, lifted: Node, prefix: str, height: int = 160
) -> None:
    """Save truth, rendering and difference of the held-out views."""
    rows = lifted["comparisons"]
    shape: dict[str, Any] = {"columns": 1, "cell": 480, "height": height, "collapsed": True}
    sheet = add_grid(flow, group, rows, **shape)
    save_sheet(flow, group, sheet, f"genxd/{prefix}_comparisons", "Comparisons", room=240)


def _scene(flow: Workflow, group: Group, lifted: Node, aspect: tuple[int, int]) -> Link:
    """Show the scene in ComfyUI's viewer, as the first camera sees it; return it as a file."""
    file = flow.add(group, "SplatToFile3D", {"splat": lifted["splat"]}, width=400)["model_3d"]
    size = dict(zip(("width", "height"), aspect, strict=True))
    seen = {"cameras": lifted["cameras"], **size}
    options: dict[str, Any] = {"title": "First camera", "collapsed": True}
    camera = flow.add(group, "GenXD_CamerasToLoad3D", seen, **options)["camera_info"]
    shown = {"model_3d": file, "camera_info": camera, **size}
    flow.add(group, "PreviewGaussianSplat", shown, **_VIEWER)
    return file


def _shown_along(
    flow: Workflow, group: Group, splat: Link, cameras: Link, pixels: int, **options: Any
) -> Link:
    drawn = {"splat": splat, "cameras": cameras, "width": pixels}
    return flow.add(group, "GenXD_RenderSplat", drawn, **options)["images"]


def image_to_splat() -> Workflow:
    """One picture to a scene (App. H: single-view 3D generation)."""
    flow = Workflow(
        "06_image_to_splat",
        "One picture to a scene of 3D Gaussians: 40 views, the fit, a viewer, a `.ply` and a spin.",
        picture="Spin",
    )
    add_note(
        flow,
        "# One picture to a splat",
        "*GenXD Sample Path* makes 40 views along half an orbit, anchors first; *GenXD Lift To "
        "3DGS* fits Gaussians to them. Turn the scene with the mouse in *Preview Splat*.",
        _EACH_HAS_SEEN,
        "For an object on white switch *plain_background* on.",
        height=410,
    )
    model, picture = add_model_and_picture(flow, "genxd_box_and_ball.png")
    views = flow.group("2  Camera path", 1, colour="yellow")
    path = {
        "path": "orbit",
        "path.azimuth_to": _AROUND,
        "path.elevation": 40.0,
        "path.radius": 2.3,
        "num_views": _PATH_VIEWS,
        **shape_of(flow, views, picture),
    }
    made = flow.add(views, "GenXD_MakeCameraPath", path)["cameras"]
    add_preview(flow, views, made)
    middle = flow.group("3  Generate", 1)
    given = {"images": picture["IMAGE"], "mask": picture["MASK"], "cameras": made}
    fit = _fit_views(flow, middle, given)
    task = {"images": fit["images"], "cameras": fit["cameras"]}
    sampled = _sample_path(flow, middle, model, task, column=1)
    group = flow.group("4  Lift", 2)
    given = {"images": sampled["images"], "cameras": sampled["cameras"]}
    lifted = _lift(flow, group, given, width=340, room=222)
    _comparisons(flow, group, lifted, "06")
    scene = flow.group("5  Scene", 3, colour="purple")
    file = _scene(flow, scene, lifted, (1024, 1024))
    saved = {"model_3d": file, "filename_prefix": "genxd/scene"}
    flow.add(scene, "SaveGaussianSplat", saved, title="Scene", collapsed=True)
    spin = flow.group("6  Spin", 4, colour="purple")
    there = {"cameras": lifted["cameras"], "edit": "loop"}
    back = flow.add(spin, "GenXD_EditCameras", there, title="There and back", width=400)
    drawn = _shown_along(flow, spin, lifted["splat"], back["cameras"], _DRAWN, width=400)
    video = add_video(flow, spin, drawn, _SHOWN_FPS, width=400)
    save_video(flow, spin, video, "genxd/06_spin", "Spin", width=400)
    return flow


def few_views_to_splat() -> Workflow:
    """Three pictures to a scene, with generated views and without (App. H: few views)."""
    flow = Workflow(
        "07_few_views_to_splat",
        "Three pictures with known cameras to a scene of 3D Gaussians, with generated views and "
        "without, side by side.",
        picture="Video",
    )
    add_note(
        flow,
        "# Few views to a splat",
        "Three pictures are too few for a fit: on the left of the video everything that no two of "
        "them show dissolves. On the right GenXD has made 36 views on a path fitted to the three "
        "cameras, and all 39 are fitted, as in the paper.",
        "*GenXD Cameras From Views* makes the path: *spline* through the views, *spiral*, or "
        "*ellipse* around what they see.",
        _EACH_HAS_SEEN,
        height=470,
    )
    files = [f"genxd_views_{number:02d}.png" for number in (0, 5, 11)]
    model, images = add_model_and_pictures(flow, files, ["View 1", "View 2", "View 3"])
    cameras = flow.group("2  Cameras", 2, colour="yellow")
    file = {"file": "genxd_views_given_cameras.json"}
    loaded = flow.add(cameras, "GenXD_LoadCameras", file)["cameras"]
    fit = _fit_views(flow, cameras, {"images": images, "cameras": loaded})
    path = {"cameras": fit["cameras"], "path": "spline", "num_views": _FITTED_VIEWS}
    fitted = flow.add(cameras, "GenXD_CamerasFromViews", path, column=1)["cameras"]
    add_preview(flow, cameras, fitted)
    middle = flow.group("3  Generate", 2)
    given = {"images": fit["images"], "cameras": fitted, "image_cameras": fit["cameras"]}
    sampled = _sample_path(flow, middle, model, given)
    both = {"images.image0": fit["images"], "images.image1": sampled["images"]}
    at: dict[str, Any] = {"column": 1}
    views = flow.add(middle, "BatchImagesNode", both, title="All 39 views", room=12, **at)["IMAGE"]
    joined = {"cameras": fit["cameras"], "edit": "join", "edit.second": sampled["cameras"]}
    places = flow.add(middle, "GenXD_EditCameras", joined, title="All 39 cameras", **at)["cameras"]
    lift = flow.group("4  Lift", 3)
    given = {"images": fit["images"], "cameras": fit["cameras"]}
    three = _lift(
        flow, lift, given | {"hold_out_every": 0}, title="The three pictures alone", width=280
    )
    given = {"images": views, "cameras": places}
    every = _lift(flow, lift, given, title="Together with the generated views", width=280)
    results = flow.group("5  Side by side", 4, colour="purple")
    cut = {"cameras": every["cameras"], "edit": "slice", "edit.first": 3}
    cut["edit.count"] = _FITTED_VIEWS
    cut_path = flow.add(results, "GenXD_EditCameras", cut, title="The path alone", width=360)
    sides = [
        _labelled(flow, results, splat, cut_path["cameras"], label)
        for splat, label in (
            (three["splat"], "3 pictures"),
            (every["splat"], "3 pictures + 36 views"),
        )
    ]
    pair = {"image1": sides[0], "image2": sides[1], "spacing_width": 4}
    beside = flow.add(results, "ImageStitch", pair, title="Side by side", collapsed=True)["IMAGE"]
    video = add_video(flow, results, beside, 8.0, collapsed=True)
    save_video(flow, results, video, "genxd/07_side_by_side", width=360)
    return flow


def _labelled(flow: Workflow, group: Group, splat: Link, cameras: Link, label: str) -> Link:
    drawn = _shown_along(flow, group, splat, cameras, 384, title=label, width=360)
    text = {"images": drawn, "text": label, "font_size": 7.0}
    return flow.add(group, "TextOverlay", text, title="Label", collapsed=True)["images"]


def capture_to_splat() -> Workflow:
    """Photographs with their cameras to a scene, without generation."""
    flow = Workflow(
        "08_capture_to_splat",
        "Photographs with COLMAP's cameras and points to a scene of 3D Gaussians.",
        needs="none",
        picture="Walk",
    )
    add_note(
        flow,
        "# A capture to a splat",
        "A COLMAP project: 13 photographs of a walk down a street, 624 points. *GenXD Load "
        "Capture* undoes the lens's distortion; the fit starts from the points. Nothing is "
        "generated.",
        "Put a project of your own into ComfyUI's `input` folder: `my_scene/images` and "
        "`my_scene/sparse/0`. For quality: *max_side* 512 and more, the recipe *few_view* with "
        "*GenXD Load Perceptual Model*, on a CUDA card.",
        "*up* is *from cameras*: a capture's world lies as it happens to.",
        height=430,
        generates=False,
    )
    group = flow.group("1  Capture", 1, colour="green")
    chosen = {"file": "genxd_lund/sparse/0/ (COLMAP)", "max_side": 256}
    capture = flow.add(group, "GenXD_LoadCapture", chosen, room=120, width=340)
    drawn = {"cameras": capture["cameras"]}
    flow.add(group, "GenXD_PreviewCameras", drawn, title="Camera path", room=222, width=340)
    lift = flow.group("2  Lift", 2)
    names = ("images", "cameras", "points")
    given = {name: capture[name] for name in names} | {"up": "from cameras"}
    lifted = _lift(flow, lift, given, width=340, room=222)
    _comparisons(flow, lift, lifted, "08", 120)
    scene = flow.group("3  Scene", 3, colour="purple")
    _scene(flow, scene, lifted, (1024, 768))
    walk = flow.group("4  Walk", 4, colour="purple")
    even = {"cameras": lifted["cameras"], "edit": "even speed", "edit.num_views": _WALK_VIEWS}
    path = flow.add(walk, "GenXD_EditCameras", even, title="Even speed", width=400)["cameras"]
    frames = _shown_along(flow, walk, lifted["splat"], path, _DRAWN, width=400)
    video = add_video(flow, walk, frames, _SHOWN_FPS, width=400)
    save_video(flow, walk, video, "genxd/08_walk", "Walk", width=400)
    return flow

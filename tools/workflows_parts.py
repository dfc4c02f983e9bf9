"""Parts that example workflows share: notes, models and pictures, paths, sampling, results."""

from collections.abc import Sequence
from typing import Any

from .workflows_graph import Group, Link, Node, Workflow

__all__ = [
    "CFG",
    "FPS",
    "MULTIPLE",
    "NANO",
    "SIZE",
    "STEPS",
    "VIEWS",
    "add_condition",
    "add_generation",
    "add_grid",
    "add_model_and_picture",
    "add_model_and_pictures",
    "add_note",
    "add_picture",
    "add_preview",
    "add_results",
    "add_video",
    "sampler_inputs",
    "save_sheet",
    "save_video",
    "shape_of",
]

NANO = "genxd-nano (built in)"
SIZE, MULTIPLE = 64, 16
"""Of genxd-nano, in pixels."""
STEPS, CFG, FPS, VIEWS = 25, 3.0, 8.0, 12

_INPUTS = """\
**Inputs**: the files of this pack's folder `workflows/inputs`, copied into ComfyUI's `input` \
folder; or choose pictures of your own."""

_RELEASED = f"""\
**Released weights**: choose them in *GenXD Load Model*, and set 256 x 256 and multiple 64 in \
*GenXD Fit Views*. The built-in genxd-nano knows small synthetic scenes only, at {SIZE} pixels."""


def add_note(flow: Workflow, *parts: str, height: int = 330, generates: bool = True) -> None:
    """Add a note, with what is said of all inputs, and of the released weights where they count."""
    ends = [_INPUTS, _RELEASED] if generates else [_INPUTS]
    flow.note("\n\n".join([*parts, *ends]), 0, height=height)


def add_picture(flow: Workflow, group: Group, file: str, title: str = "Picture") -> Node:
    """Add what loads a picture."""
    return flow.add(group, "LoadImage", {"image": file}, title=title, room=222)


def add_model_and_picture(flow: Workflow, file: str) -> tuple[Node, Node]:
    """Add the model and a picture in a group of their own."""
    group = flow.group("1  Model and picture", 0, colour="green")
    model = flow.add(group, "GenXD_LoadModel", {"model": NANO}, title="Model")
    return model, add_picture(flow, group, file)


def add_model_and_pictures(
    flow: Workflow, files: Sequence[str], titles: Sequence[str]
) -> tuple[Node, Link]:
    """Load pictures and make one batch of them."""
    group = flow.group("1  Model and pictures", 1, colour="green")
    pictures = [add_picture(flow, group, *pair) for pair in zip(files, titles, strict=True)]
    batch = {f"images.image{number}": picture["IMAGE"] for number, picture in enumerate(pictures)}
    model = flow.add(group, "GenXD_LoadModel", {"model": NANO}, title="Model", column=1)
    joined = flow.add(group, "BatchImagesNode", batch, title="All pictures", column=1, room=12)
    return model, joined["IMAGE"]


def shape_of(flow: Workflow, group: Group, picture: Node) -> dict[str, Any]:
    """Width and height of a path for a picture of any shape."""
    size = flow.add(group, "GetImageSize", {"image": picture["IMAGE"]}, title="Its shape", room=56)
    return {"width": size["width"], "height": size["height"]}


def add_preview(flow: Workflow, group: Group, cameras: Link, indices: str = "0") -> None:
    """Add a drawing of a camera path."""
    flow.add(
        group,
        "GenXD_PreviewCameras",
        {"cameras": cameras, "indices": indices},
        title="Camera path",
        column=1,
        room=222,
    )


def add_condition(
    flow: Workflow,
    group: Group,
    model: Node,
    images: Link,
    cameras: Link,
    *,
    mask: Link | None = None,
    mode: str,
    indices: str = "0",
    motion_strength: float = 0.5,
) -> Node:
    """Fit pictures and path, and make the sampler's conditioning of them."""
    sizes: dict[str, Any] = {"width": SIZE, "height": SIZE, "multiple": MULTIPLE}
    given = {"images": images, "cameras": cameras} | ({"mask": mask} if mask else {})
    fit = flow.add(group, "GenXD_FitViews", given | sizes)
    inputs = {
        "vae": model["VAE"],
        "images": fit["images"],
        "cameras": fit["cameras"],
        "fit": fit["fit"],
        "indices": indices,
        "mode": mode,
        "motion_strength": motion_strength,
    }
    return flow.add(group, "GenXD_ConditionViews", inputs)


def sampler_inputs(model: Node, condition: Node, positive: Link | None = None) -> dict[str, Any]:
    """What KSampler gets."""
    return {
        "model": model["MODEL"],
        "positive": positive or condition["positive"],
        "negative": condition["negative"],
        "latent_image": condition["latent"],
        "seed": 1,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "euler",
        "scheduler": "karras",
    }


def add_generation(flow: Workflow, group: Group, model: Node, condition: Node, column: int) -> Link:
    """Sample and decode."""
    sampled = flow.add(group, "KSampler", sampler_inputs(model, condition), column=column)
    decoded = {"samples": sampled["LATENT"], "vae": model["VAE"]}
    return flow.add(group, "GenXD_DecodeViews", decoded, column=column)["images"]


def add_results(flow: Workflow, group: Group, images: Link, prefix: str) -> None:
    """Save the views as a contact sheet and as a video."""
    sheet = add_grid(flow, group, images, columns=4, cell=256)
    save_sheet(flow, group, sheet, f"genxd/{prefix}_sheet", room=260)
    size = {"upscale_method": "lanczos", "width": 256, "height": 256}
    large = flow.add(group, "ImageScale", {"image": images, **size}, title="Enlarge", column=1)
    video = add_video(flow, group, large["IMAGE"], column=1)
    save_video(flow, group, video, f"genxd/{prefix}", column=1)


def add_grid(
    flow: Workflow,
    group: Group,
    images: Link,
    *,
    columns: int,
    cell: int,
    height: int | None = None,
    **options: Any,
) -> Link:
    """Put pictures in a grid of cells, square unless ``height`` says otherwise, in pixels."""
    # ImageGrid takes a list of pictures; a batch would be one picture to it.
    single = flow.add(
        group, "RebatchImages", {"images": images, "batch_size": 1}, title="One by one", **options
    )
    grid = {
        "images": single["IMAGE"],
        "columns": columns,
        "cell_width": cell,
        "cell_height": cell if height is None else height,
        "padding": 4,
    }
    return flow.add(group, "ImageGrid", grid, **options)["images"]


def save_sheet(
    flow: Workflow,
    group: Group,
    sheet: Link,
    prefix: str,
    title: str = "Contact sheet",
    **options: Any,
) -> None:
    """Save a contact sheet."""
    saved = {"images": sheet, "filename_prefix": prefix}
    flow.add(group, "SaveImage", saved, title=title, **options)


def add_video(flow: Workflow, group: Group, images: Link, fps: float = FPS, **options: Any) -> Link:
    """Make a video of frames."""
    return flow.add(group, "CreateVideo", {"images": images, "fps": fps}, **options)["VIDEO"]


def save_video(
    flow: Workflow, group: Group, video: Link, prefix: str, title: str = "Video", **options: Any
) -> None:
    """Save a video."""
    saved = {"video": video, "filename_prefix": prefix}
    flow.add(group, "SaveVideo", saved, title=title, room=290, **options)

"""What the pack tells ComfyUI about its nodes, and how soon."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tools.comfy_server import PACK_NAME

# Permanent: graphs that people have saved name nodes, inputs and outputs so.
NODES: dict[str, tuple[str, list[str], list[str]]] = {
    "GenXD_LoadModel": ("load", ["model", "weight_dtype", "vae"], ["MODEL", "VAE"]),
    "GenXD_MakeCameraPath": (
        "cameras",
        ["path", "num_views", "easing", "focal", "width", "height"],
        ["GENXD_CAMERAS"],
    ),
    "GenXD_EditCameras": ("cameras", ["cameras", "edit"], ["GENXD_CAMERAS"]),
    "GenXD_LoadCameras": (
        "cameras",
        ["file", "scale_to", "num_views", "max_distortion"],
        ["GENXD_CAMERAS", "STRING"],
    ),
    "GenXD_SaveCameras": (
        "cameras",
        ["cameras", "filename_prefix", "format", "width", "height"],
        ["STRING"],
    ),
    "GenXD_PreviewCameras": ("cameras", ["cameras", "indices"], ["IMAGE"]),
    "GenXD_CamerasFromLoad3D": (
        "cameras",
        ["camera_info", "last_camera_info", "num_views", "width", "height"],
        ["GENXD_CAMERAS"],
    ),
    "GenXD_CamerasToLoad3D": (
        "cameras",
        ["cameras", "view", "width", "height", "target_distance"],
        ["LOAD3D_CAMERA"],
    ),
    "GenXD_FitViews": (
        "conditioning",
        [
            *("images", "width", "height", "mode", "mask", "mask_is", "cameras", "multiple"),
            "background",
        ],
        ["IMAGE", "GENXD_CAMERAS", "GENXD_FIT"],
    ),
    "GenXD_UnfitViews": ("conditioning", ["images", "fit"], ["IMAGE"]),
    "GenXD_ConditionViews": (
        "conditioning",
        ["vae", "images", "cameras", "indices", "mode", "motion_strength", "fit"],
        ["CONDITIONING", "CONDITIONING", "LATENT"],
    ),
    "GenXD_SetMotionStrength": (
        "conditioning",
        ["positive", "motion_strength", "unit"],
        ["CONDITIONING"],
    ),
    "GenXD_DecodeViews": ("sampling", ["samples", "vae", "frames_per_chunk"], ["IMAGE"]),
    "GenXD_CamerasFromViews": (
        "cameras",
        ["cameras", "path", "num_views", "shift_x", "shift_y", "shift_z"],
        ["GENXD_CAMERAS"],
    ),
    "GenXD_SwingPaths": (
        "cameras",
        ["input_cameras", "view_cameras", "num_frames", "window"],
        ["GENXD_CAMERAS", "STRING"],
    ),
    "GenXD_LoadCapture": (
        "cameras",
        ["file", "max_side", "scale_to", "pictures", "undistort"],
        ["IMAGE", "GENXD_CAMERAS", "GENXD_POINTS", "STRING", "STRING"],
    ),
    "GenXD_TriangulatePoints": (
        "lifting",
        ["images", "cameras", "max_points", "seed", "time_limit", "mask"],
        ["GENXD_POINTS", "STRING"],
    ),
    "GenXD_RefineVideo": (
        "sampling",
        [
            *("model", "vae", "video", "cameras", "conditions", "strength", "motion_strength"),
            *("seed", "steps", "cfg", "sampler_name", "scheduler", "window"),
            *("conditions_per_window", "overlap", "frames_per_chunk", "when_interrupted"),
            *("condition_images", "latent", "noise"),
        ],
        ["IMAGE", "LATENT", "GENXD_CAMERAS"],
    ),
    "GenXD_SampleMultiviewVideos": (
        "sampling",
        [
            *("model", "vae", "video", "input_cameras", "view_cameras", "strength"),
            *("motion_strength", "seed", "steps", "cfg", "sampler_name", "scheduler"),
            *("views_per_group", "conditions_per_group", "window", "conditions_per_window"),
            *("overlap", "frames_per_chunk", "when_interrupted"),
        ],
        ["IMAGE", "LATENT", "GENXD_CAMERAS"],
    ),
    "GenXD_SamplePath": (
        "sampling",
        [
            *("model", "vae", "images", "cameras", "indices", "mode", "motion_strength", "seed"),
            *("steps", "cfg", "sampler_name", "scheduler", "grouping", "views_per_group"),
            *("conditions_per_group", "keep_images", "frames_per_chunk", "image_cameras"),
        ],
        ["IMAGE", "LATENT", "GENXD_CAMERAS"],
    ),
    "GenXD_RenderSplat": (
        "lifting",
        ["splat", "cameras", "width", "height", "background"],
        ["IMAGE", "MASK", "GENXD_DEPTH", "IMAGE"],
    ),
    "GenXD_LiftTo3DGS": (
        "lifting",
        [
            *("images", "cameras", "recipe", "start", "plain_background", "background"),
            *("hold_out_every", "up", "iterations", "num_gaussians", "lpips_weight", "seed"),
            *("when_interrupted", "mask", "points", "depth", "perceptual"),
        ],
        ["SPLAT", "GENXD_CAMERAS", "IMAGE", "STRING"],
    ),
    "GenXD_LiftTo4DGS": (
        "lifting",
        [
            *("images", "cameras", "recipe", "plain_background", "background"),
            *("hold_out_every", "up", "iterations", "num_gaussians", "lpips_weight", "seed"),
            *("when_interrupted", "mask", "static_images", "static_cameras", "static_mask"),
            *("perceptual", "splat4d"),
        ],
        ["GENXD_SPLAT4D", "GENXD_CAMERAS", "IMAGE", "STRING"],
    ),
    "GenXD_LiftToMotionBases": (
        "lifting",
        [
            *("images", "cameras", "mask", "recipe", "nothing_at_rest", "background"),
            *("hold_out_every", "up", "seed", "when_interrupted", "depth", "points"),
        ],
        ["GENXD_SPLAT4D", "GENXD_CAMERAS", "IMAGE", "STRING"],
    ),
    "GenXD_SplatAtTime": ("lifting", ["splat4d", "time"], ["SPLAT"]),
    "GenXD_Splat4DToBatch": ("lifting", ["splat4d", "num_frames"], ["SPLAT"]),
    "GenXD_Save4D": (
        "lifting",
        ["splat4d", "filename_prefix", "num_frames", "fps", "cameras"],
        ["STRING"],
    ),
    "GenXD_Load4D": ("lifting", ["file"], ["GENXD_SPLAT4D"]),
    "GenXD_Preview4D": ("lifting", ["splat4d", "num_frames", "fps", "cameras"], []),
    "GenXD_LoadPerceptualModel": ("lifting", ["perceptual_model"], ["GENXD_PERCEPTUAL"]),
}
GROUPS = {"load", "cameras", "conditioning", "sampling", "lifting", "curation", "evaluation"}


@pytest.fixture(scope="module")
def schemas(host) -> dict[str, Any]:
    return {
        name: node.GET_SCHEMA()
        for name, node in host.nodes.NODE_CLASS_MAPPINGS.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "") == f"custom_nodes.{PACK_NAME}"
    }


def all_inputs(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every input by its name in the API, those of dynamic choices included."""
    for item in schema.inputs:
        yield item.id, item
        for option in getattr(item, "options", None) or []:
            for nested in getattr(option, "inputs", []):
                yield f"{item.id}[{option.key}].{nested.id}", nested


def test_saved_graphs_still_find_their_nodes_inputs_and_outputs(schemas):
    for name, (group, inputs, outputs) in NODES.items():
        schema = schemas[name]
        assert schema.category == f"GenXD/{group}"
        # Widgets are saved by position: new inputs may only follow.
        assert [item.id for item in schema.inputs][: len(inputs)] == inputs
        types = [output.get_io_type() for output in schema.outputs]
        assert types[: len(outputs)] == outputs


def test_every_node_has_a_name_a_group_a_description_and_aliases(schemas):
    assert set(NODES) <= set(schemas)
    for name, schema in schemas.items():
        assert re.fullmatch(r"GenXD_[A-Z][A-Za-z0-9]+", name)
        assert schema.display_name.startswith("GenXD "), name
        assert schema.category.removeprefix("GenXD/") in GROUPS, name
        assert schema.description.endswith("."), name
        assert len(schema.search_aliases) >= 3, name


def test_every_input_and_output_has_a_tooltip(schemas):
    for name, schema in schemas.items():
        for item_name, item in all_inputs(schema):
            assert item.tooltip, f"{name}.{item_name}"
            assert item.tooltip.endswith((".", ")")), f"{name}.{item_name}"
        for output in schema.outputs:
            assert output.tooltip, f"{name}: output {output.display_name}"


def test_every_number_has_bounds_a_default_within_them_and_says_what_is_typical(schemas):
    for name, schema in schemas.items():
        for item_name, item in all_inputs(schema):
            if item.get_io_type() not in ("INT", "FLOAT"):
                continue
            where = f"{name}.{item_name}"
            assert item.min is not None, where
            assert item.max is not None, where
            assert item.min <= item.default <= item.max, where
            assert re.search(r"typical|released model", item.tooltip), f"{where}: {item.tooltip}"


def test_numbers_with_a_unit_name_it(schemas):
    units = {
        r"\b(width|height|multiple)$": "pixels",
        r"\b(azimuth_from|azimuth_to|elevation|angle)$": "degrees",
        r"\b(radius|distance|right|up|scale|scale_to|target_distance)$": "scene units",
        r"\b(num_views|count)$": "cameras",
        r"\b(frames_per_chunk)$": "frames",
    }
    for name, schema in schemas.items():
        for item_name, item in all_inputs(schema):
            if item.get_io_type() not in ("INT", "FLOAT") or name not in NODES:
                continue
            for pattern, unit in units.items():
                if re.search(pattern, item_name):
                    assert unit in item.tooltip.lower(), f"{name}.{item_name}: {item.tooltip}"


def test_every_choice_has_a_default_among_its_options(schemas):
    for name, schema in schemas.items():
        for item_name, item in all_inputs(schema):
            if item.get_io_type() == "COMBO":
                default = item.default if item.default is not None else item.options[0]
                assert default in item.options, f"{name}.{item_name}"
                assert not any("\\" in str(option) for option in item.options)


def test_model_folders_are_made_known_once(host):
    import folder_paths

    folder = host.base / "models" / "genxd"
    assert folder_paths.get_folder_paths("genxd") == [str(folder)]
    assert folder_paths.get_folder_paths("genxd_perceptual") == [str(folder / "perceptual")]

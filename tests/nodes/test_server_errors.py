"""Every mistake a user can make, through the API of a real server: what it answers, and that the
next prompt runs all the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.nodes.scenes import mini_unet
from tests.nodes.server_graphs import Graph, ask, changed, graph
from tools.comfy_client import ComfyClient, PromptError, output_files

NAN = float("nan")  # Python's JSON has it, and ComfyUI reads it


def solid_mask(value: float, width: int = 80, height: int = 48) -> dict[str, Any]:
    inputs = {"value": value, "width": width, "height": height}
    return {"class_type": "SolidMask", "inputs": inputs}


def picture(width: int, height: int, count: int = 1) -> dict[str, Any]:
    inputs = {"width": width, "height": height, "batch_size": count, "color": 255}
    return {"class_type": "EmptyImage", "inputs": inputs}


SAVE = {
    "class_type": "GenXD_SaveCameras",
    "inputs": {
        "cameras": ["path", 0],
        "filename_prefix": "p",
        "format": "genxd",
        "width": 8,
        "height": 8,
    },
}
LOAD = {
    "class_type": "GenXD_LoadCameras",
    "inputs": {"file": "none.json", "scale_to": 0.0, "num_views": 0, "max_distortion": 0.02},
}
PREVIEW = {
    "class_type": "GenXD_PreviewCameras",
    "inputs": {"cameras": ["path", 0], "indices": ""},
}
EDIT = {"class_type": "GenXD_EditCameras", "inputs": {"cameras": ["path", 0], "edit": "reverse"}}


def node(base: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {**base, "inputs": {**base["inputs"], **inputs}}


# What is changed in the graph, whether it is refused or fails, at which node, and what is said.
MISTAKES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # the model
    "an unknown checkpoint": (
        {"load.model": "gone.safetensors"},
        *("refused", "load", "model: 'gone.safetensors' not in ['genxd-nano (built in)'"),
    ),
    "an unknown precision": (
        {"load.weight_dtype": "fp64"},
        *("refused", "load", "weight_dtype: 'fp64' not in ['default', 'fp32'"),
    ),
    "an unknown VAE": (
        {"load.vae": "gone.safetensors"},
        *("refused", "load", "vae: 'gone.safetensors' not in ['beside the model'"),
    ),
    "a model without a VAE": (
        {"load.model": "alone.safetensors"},
        *("failed", "load", 'vae is "beside the model", but "alone.safetensors" has no vae folder'),
    ),
    "an SVD UNet": (
        {"load.model": "svd"},
        *("failed", "load", "is an SVD UNet. GenXD starts from it but is another network"),
    ),
    "a Stable Diffusion file": (
        {"load.model": "sd"},
        *("failed", "load", "is a Stable Diffusion model, not GenXD. Nothing was loaded."),
    ),
    "a truncated file": (
        {"load.model": "cut"},
        *("failed", "load", "is cut off: "),
    ),
    "an empty file": ({"load.model": "empty"}, "failed", "load", "is empty (0 bytes)"),
    "a pickle by another name": (
        {"load.model": "pickle"},
        *("failed", "load", "is a pickle, which can run code when it is opened, and is not read"),
    ),
    "a VAE as the model": (
        {"load.model": "vae as model"},
        *("failed", "load", "is a VAE, not a UNet. GenXD's folder has the UNet in unet/"),
    ),
    "a folder with a missing tensor": (
        {"load.model": "holes"},
        *("failed", "load", "1 missing (conv_out.bias)"),
    ),
    "a model without its configuration": (
        {"load.model": "nameless"},
        *("failed", "load", "has no configuration: none in its metadata"),
    ),
    # the path
    "an unknown kind of path": (
        {"path.path": "spirograph"},
        *("refused", "path", 'path is "spirograph"; expected one of "orbit", "forward-facing"'),
    ),
    "a list as the kind of path": (
        {"path.path": ["orbit"]},
        *("refused", "path", 'expected one of "orbit", "forward-facing"'),
    ),
    "an object as the kind of path": (
        {"path.path": {"path": "orbit"}},
        *("failed", "path", "path.azimuth_from is empty; connect or enter a value"),
    ),
    "no kind of path": (
        {"path.path": None},
        *("failed", "path", "path is missing or unknown; expected one of"),
    ),
    "a path without its radius": (
        {"path.path.radius": None},
        *("refused", "path", "Required input is missing: radius"),
    ),
    "a radius of zero": (
        {"path.path.radius": 0},
        *("refused", "path", "Value 0.0 smaller than min of 0.05: path.radius"),
    ),
    "a radius that is a word": (
        {"path.path.radius": "far"},
        *("refused", "path", "Failed to convert an input value to a FLOAT value: path.radius, far"),
    ),
    "a radius of NaN": (
        {"path.path.radius": NAN},
        *("failed", "path", "path.radius is nan; expected a number from 0.05 to 100"),
    ),
    "too many views": (
        {"path.num_views": 100_000},
        *("refused", "path", "Value 100000 bigger than max of 1024: num_views"),
    ),
    "views of the original swing that are no multiple of four": (
        {"path.path": "forward-facing (original, jumps)", "path.num_views": 6},
        *("failed", "path", "num_views is 6; the reference's forward-facing path needs a multiple"),
    ),
    "an unknown edit": (
        {"edit": node(EDIT, edit="mirror"), "fit.cameras": ["edit", 0]},
        *("refused", "edit", 'edit is "mirror"; expected one of "reverse"'),
    ),
    "a slice beyond the path": (
        {
            "edit": node(EDIT, **{"edit": "slice", "edit.first": 3, "edit.count": 2}),
            "fit.cameras": ["edit", 0],
        },
        *("failed", "edit", "asks for cameras 3 to 4, but the path has 4"),
    ),
    "a camera file that is not there": (
        {"file": LOAD, "fit.cameras": ["file", 0]},
        *("refused", "file", "file: 'none.json' not in"),
    ),
    "a camera file that is none": (
        {"file": node(LOAD, file="notes.txt"), "fit.cameras": ["file", 0]},
        *("failed", "file", "notes.txt is of no known format"),
    ),
    "a path saved outside": (
        {"other": node(SAVE, filename_prefix="../../stolen")},
        *("refused", "other", "filename_prefix is '../../stolen'; expected a name inside"),
    ),
    "a mark beyond the path": (
        {"other": node(PREVIEW, indices="0, 9")},
        *("failed", "other", "indices is 9, but the path has 4 cameras; give 0 to 3, or -1 to -4"),
    ),
    # the pictures
    "a width that is no multiple": (
        {"fit.width": 40},
        *("failed", "fit", "width is 40, which is no multiple of 16"),
    ),
    "an empty mask": (
        {"mask": solid_mask(0.0), "fit.mask": ["mask", 0], "fit.mask_is": "object"},
        *("failed", "fit", 'mask 0 with mask_is "object" leaves nothing of the picture'),
    ),
    "a mask of another size": (
        {"mask": solid_mask(1.0, 16, 16), "fit.mask": ["mask", 0]},
        *("failed", "fit", "mask is 16x16, but images are 80x48"),
    ),
    "a path in place of pictures": (
        {"fit.images": ["path", 0]},
        *("refused", "fit", "received_type(GENXD_CAMERAS) mismatch input_type(IMAGE)"),
    ),
    "a word in place of pictures": (
        {"fit.images": "picture.png"},
        *("failed", "fit", "images is a str; expected pictures"),
    ),
    # the conditioning
    "pictures of another size than the fit": (
        {"other": picture(64, 64), "condition.images": ["other", 0]},
        *("failed", "condition", "fit was made for 32x32 pictures, but images are 64x64"),
    ),
    "more pictures than indices": (
        {"picture.batch_size": 2},
        *("failed", "condition", 'images has 2 pictures, but indices "0" has 1 positions'),
    ),
    "an index that is no number": (
        {"condition.indices": "first"},
        *("refused", "condition", 'indices is "first", and "first" is not a whole number'),
    ),
    "an empty list of indices": (
        {"condition.indices": ""},
        *("refused", "condition", "write at least one position"),
    ),
    "a repeated index": (
        {"condition.indices": "1, 1"},
        *("refused", "condition", 'indices "1, 1" name a view twice'),
    ),
    "an index beyond the path": (
        {"condition.indices": "7"},
        *("failed", "condition", "indices has 7, expected positions from 0 to 3"),
    ),
    "no path at all": (
        {"fit.cameras": None},
        *("failed", "condition", "cameras is empty; connect a camera path"),
    ),
    "a path for another shape": (
        {"condition.cameras": ["path", 0]},
        *("failed", "condition", "cameras are for pictures of width / height 1.667"),
    ),
    "an unknown mode": (
        {"condition.mode": "4D"},
        *("refused", "condition", "mode: '4D' not in ['3d', 'video', '4d']"),
    ),
    "a negative strength": (
        {"condition.motion_strength": -1},
        *("refused", "condition", "Value -1.0 smaller than min of 0.0: motion_strength"),
    ),
    "a strength of NaN": (
        {"condition.motion_strength": NAN},
        *("failed", "condition", "motion_strength is nan; expected a number from 0 to 20"),
    ),
    # sampling and decoding
    "a size that the network cannot halve": (
        {"fit.multiple": 8, "fit.width": 24},
        *("failed", "sample", "the pictures are 24x32; width and height must be multiples of 16"),
    ),
    "a latent of another node": (
        {
            "other": {
                "class_type": "EmptyLatentImage",
                "inputs": {"width": 32, "height": 32, "batch_size": 3},
            },
            "sample.latent_image": ["other", 0],
        },
        *("failed", "sample", "latent_image has 3 frames, but the camera path has 4"),
    ),
    "a conditioning of another node": (
        {
            "other": {
                "class_type": "ConditioningZeroOut",
                "inputs": {"conditioning": ["condition", 0]},
            },
            "fixed": {
                "class_type": "GenXD_SetMotionStrength",
                "inputs": {"positive": ["other", 0], "motion_strength": 99, "unit": "network"},
            },
            "sample.positive": ["fixed", 0],
        },
        *("refused", "fixed", "Value 99.0 bigger than max of 20.0: motion_strength"),
    ),
    "a latent that is not finite": (
        {
            "other": {
                "class_type": "LatentMultiply",
                "inputs": {"samples": ["sample", 0], "multiplier": NAN},
            },
            "decode.samples": ["other", 0],
        },
        *("failed", "decode", "samples holds values that are not finite (NaN or infinity)"),
    ),
    "a start that is not finite": (
        {
            "other": {
                "class_type": "LatentMultiply",
                "inputs": {"samples": ["condition", 2], "multiplier": NAN},
            },
            "sample.latent_image": ["other", 0],
        },
        *("failed", "sample", "latent_image or its noise holds values that are not finite"),
    ),
    "a negative chunk": (
        {"decode.frames_per_chunk": -1},
        *("refused", "decode", "Value -1 smaller than min of 0: frames_per_chunk"),
    ),
    "a missing input": (
        {"decode.vae": None},
        *("refused", "decode", "Required input is missing: vae"),
    ),
}


def small(**path: Any) -> Graph:
    """A prompt that takes no time: a path and its picture."""
    return {"path": {**graph()["path"], "inputs": graph()["path"]["inputs"] | path}, "see": PREVIEW}


@pytest.fixture(scope="module", autouse=True)
def bad_files(client: ComfyClient, server) -> None:
    """Models and a camera file that are none, where the menus list them."""
    folder = server.base / "models" / "genxd"

    def unet(name: str) -> Path:
        (folder / name / "unet").mkdir(parents=True)
        (folder / name / "vae").mkdir()
        return folder / name / "unet" / "diffusion_pytorch_model.safetensors"

    one = torch.zeros(1)
    svd = ("time_mixer.mix_factor", "transformer_blocks.0.attn2.to_q.weight")
    save_file({f"down_blocks.0.attentions.0.{key}": one.clone() for key in svd}, unet("svd"))
    sd = ("input_blocks.0.0.weight", "middle_block.1.transformer_blocks.0.attn2.to_q.weight")
    save_file({f"model.diffusion_model.{key}": one.clone() for key in sd}, unet("sd"))
    vae = ("encoder.conv_in.weight", "decoder.conv_in.weight")
    save_file({key: one.clone() for key in vae}, unet("vae as model"))
    good = (folder / "mini" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    unet("cut").write_bytes(good[: len(good) // 2])
    unet("empty").touch()
    torch.save({"a": one}, unet("pickle"))
    state = dict(mini_unet().state_dict())
    save_file(state, unet("nameless"))
    del state["conv_out.bias"]
    save_file(state, unet("holes"))
    mini_unet().config.to_json(folder / "holes" / "unet" / "config.json")
    (folder / "alone.safetensors").write_bytes(good)
    (server.base / "input" / "notes.txt").write_text("nothing of use", encoding="utf-8")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_answered_and_the_next_prompt_runs(client, name):
    changes, when, where, message = MISTAKES[name]
    prompt = changed(changes)
    answer = ask(client, prompt)
    assert message in answer.message
    assert (answer.when, answer.node) == (when, where)
    assert answer.class_type == prompt[where]["class_type"]
    assert "Traceback" not in answer.message
    if when == "failed" and answer.class_type.startswith("GenXD_"):
        assert answer.message.startswith("GenXD ")  # the node's name as the menu has it
    client.run(small(), timeout=60)


def test_graph_without_a_mistake_gives_its_pictures(client):
    entry = client.run(graph(), timeout=120)
    assert len(list(output_files(entry))) == 4


def test_built_in_model_gives_pictures(client):
    prompt = changed(
        {
            "load.model": "genxd-nano (built in)",
            "fit.width": 64,
            "fit.height": 64,
            "sample.steps": 1,
        }
    )
    assert len(list(output_files(client.run(prompt, timeout=120)))) == 4


@pytest.mark.parametrize("dynamic", ["path", "edit"])
def test_every_choice_runs_with_the_defaults_of_its_menu(client, dynamic):
    """As a client would that reads /object_info and fills in what it finds there."""
    name = {"path": "GenXD_MakeCameraPath", "edit": "GenXD_EditCameras"}[dynamic]
    info = client.get(f"/object_info/{name}")[name]["input"]["required"]
    kind, details = info[dynamic]
    assert kind == "COMFY_DYNAMICCOMBO_V3"
    assert len(details["options"]) >= 9
    for option in details["options"]:
        nested = {
            f"{dynamic}.{key}": ["path", 0] if spec[0] == "GENXD_CAMERAS" else default_of(spec)
            for key, spec in option["inputs"].get("required", {}).items()
        }
        prompt = small(num_views=12)
        if dynamic == "path":
            prompt = small(**nested, path=option["key"], num_views=12)
        else:
            prompt["edit"] = node(EDIT, edit=option["key"], **nested)
            prompt["see"] = node(PREVIEW, cameras=["edit", 0])
        (picture,) = output_files(client.run(prompt, timeout=60))
        assert client.view(picture).startswith(b"\x89PNG"), option["key"]


def default_of(spec: list[Any]) -> Any:
    return spec[1].get("default", spec[1].get("options", [None])[0])


# ---- interrupting -------------------------------------------------------------------------------


def interrupted_after(client: ComfyClient, prompt: Graph, where: str) -> tuple[int, int]:
    """Interrupt at the second sign of progress of a node: how many came before, how many after."""
    seen: list[str] = []

    def stop(name: str, data: dict[str, Any]) -> None:
        if name == "progress" and data["node"] == where:
            seen.append("progress")
            if len(seen) == 2:
                client.interrupt()
                seen.append("interrupt")

    with pytest.raises(PromptError, match=rf"interrupted at node {where}"):
        client.run(prompt, on_event=stop, timeout=120)
    at = seen.index("interrupt")
    return at, len(seen) - at - 1


def test_interrupt_while_sampling_takes_effect_within_a_step(client):
    prompt = changed({"sample.steps": 500, "load.model": "tiny"})
    prompt = changed({"fit.width": 64, "fit.height": 64, "sample.seed": 77}, prompt)
    _, after = interrupted_after(client, prompt, "sample")
    assert after <= 1
    client.run(graph(), timeout=120)


def test_interrupt_while_decoding_takes_effect_within_a_chunk(client):
    many = {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 192, "height": 192, "batch_size": 500},
    }
    prompt = changed({"many": many, "decode.samples": ["many", 0], "decode.frames_per_chunk": 2})
    _, after = interrupted_after(client, prompt, "decode")
    assert after <= 1
    client.run(graph(), timeout=120)

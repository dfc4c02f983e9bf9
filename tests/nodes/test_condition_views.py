"""What GenXD Condition Views puts out, and what it and the sampler refuse."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nodes.scenes import Scene
from tests.support import assert_same_up_to, seeded


def pictures(count: int = 1, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, height, width, 3, generator=seeded(3))


@pytest.fixture(scope="module")
def given(host, mini) -> dict[str, Any]:
    """Inputs that work."""
    return {
        "vae": mini[1],
        "images": pictures(),
        "cameras": host.module("genxd_core").sway(4),
        "indices": "0",
        "mode": "4d",
        "motion_strength": 0.5,
    }


def told(host: Any, class_type: str, **inputs: Any) -> str:
    graph: dict[str, Any] = {"1": {"class_type": class_type, "inputs": {}}}
    for name, value in inputs.items():
        if isinstance(value, int | float | str):
            graph["1"]["inputs"][name] = value
        else:
            graph[name] = host.value(value)
            graph["1"]["inputs"][name] = [name, 0]
    graph["2"] = host.capture(["1", 0])
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


def test_latent_holds_the_encoded_views_at_their_places(host, given, mini):
    images = pictures(2)
    _, _, latent = host.run_node(
        "GenXD_ConditionViews", **(given | {"images": images, "indices": "2, -4"})
    )
    # One by one, as the node does it: a batch of another size may round otherwise.
    encode = torch.inference_mode()(mini[1].encode)
    encoded = torch.cat(host.call(lambda: [encode(picture[None]) for picture in images]))
    assert latent["samples"].shape == (4, 4, 4, 4)
    assert_same_up_to(latent["samples"][[2, 0]], encoded, 1e-6)
    assert torch.equal(latent["samples"][[1, 3]], torch.zeros(2, 4, 4, 4))
    assert latent["noise_mask"].shape == (4, 1, 4, 4)
    assert latent["noise_mask"][:, 0, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_first_listed_index_is_the_reference_view(host, given, watched_rays):
    """Its own rays start at the origin of the frame that all rays are in."""
    path = host.module("genxd_core").dolly(4)
    for indices, reference in (("2, 0", 2), ("0, 2", 0)):
        options = {"images": pictures(2), "indices": indices, "cameras": path}
        positive, negative, latent = host.run_node("GenXD_ConditionViews", **(given | options))
        rays = watched_rays(positive, negative, latent)
        moments = rays[1, :, 3:].abs().amax((1, 2, 3))
        assert float(moments[reference]) < 1e-6
        assert float(moments[2 - reference]) > 0.1
        assert float(rays[0].abs().max()) == 0.0, "the negative has rays"


@pytest.fixture
def watched_rays(host, mini) -> Any:
    def sample(positive: Any, negative: Any, latent: Any) -> Tensor:
        network, seen = mini[0].model.diffusion_model, []
        original = network.forward_embedded

        def keep(sample: Tensor, **options: Any) -> Tensor:
            order = options["transformer_options"]["cond_or_uncond"]
            seen.append(sample[[order.index(1), order.index(0)]][:, :, 8:14].clone())
            return original(sample, **options)

        network.forward_embedded = keep
        try:
            Scene(host, *mini, positive, negative, latent, ()).sample(steps=1)
        finally:
            del network.forward_embedded
        return seen[0]

    return sample


def test_pictures_are_encoded_one_by_one(host, given, mini, monkeypatch):
    counts: list[int] = []
    encode = mini[1].encode
    monkeypatch.setattr(mini[1], "encode", lambda x: counts.append(len(x)) or encode(x))
    host.run_node("GenXD_ConditionViews", **(given | {"images": pictures(3), "indices": "0 1 2"}))
    assert counts == [1, 1, 1]


def test_path_through_fit_views_is_accepted_and_another_is_not(host, given):
    gx = host.module("genxd_core")
    path = gx.sway(4, aspect=2.0)
    fitted, cameras, record = host.run_node(
        "GenXD_FitViews",
        images=pictures(1, 40, 80),
        width=32,
        height=32,
        mode="crop",
        mask_is="transparency",
        multiple=16,
        background=1.0,
        cameras=path,
    )
    good = given | {"images": fitted, "cameras": cameras, "fit": record}
    host.run_node("GenXD_ConditionViews", **good)
    error = told(host, "GenXD_ConditionViews", **(good | {"cameras": path}))
    assert (
        "cameras are for pictures of width / height 2.000, but the fitted ones have 1.000" in error
    )
    error = told(host, "GenXD_ConditionViews", **(good | {"images": pictures(1, 64, 64)}))
    assert "fit was made for 32x32 pictures, but images are 64x64" in error


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an index that is no number": (
        {"indices": "first"},
        'indices is "first", and "first" is not a whole number',
    ),
    "no index": ({"indices": " , "}, "has no number in it; write at least one position"),
    "the same index twice": ({"indices": "1 1"}, 'indices "1 1" name a view twice'),
    "the same view from both ends": (
        {"indices": "0, -4", "images": pictures(2)},
        "name view 0 twice; give each view once",
    ),
    "an index beyond the path": (
        {"indices": "4"},
        "indices has 4, expected positions from 0 to 3 (or -1 to -4 from the end)",
    ),
    "an index beyond the path from the end": ({"indices": "-5"}, "indices has -5, expected"),
    "a huge index": ({"indices": "99999999"}, '"99999999" is not a whole number'),
    "every view": (
        {"indices": "0 1 2 3", "images": pictures(4)},
        "indices name all 4 views, so there is nothing to generate",
    ),
    "pictures of another count": (
        {"images": pictures(2)},
        'images has 2 pictures, but indices "0" has 1 positions',
    ),
    "a picture that is no multiple": (
        {"images": pictures(1, 36, 32)},
        "images: the pictures are 32x36; width and height must be multiples of 8 for this model. "
        "Nearest: height 32 or 40",
    ),
    "pictures with infinity": (
        {"images": pictures() / 0},
        "images holds values that are not finite",
    ),
    "no path": ({"cameras": None}, "cameras is empty; connect a camera path (GenXD Fit Views"),
    "another mode": ({"mode": "5d"}, "mode: '5d' not in ['3d', 'video', '4d']"),
    "a strength too large": ({"motion_strength": 21.0}, "bigger than max of 20.0: motion_strength"),
    "a negative strength": ({"motion_strength": -0.1}, "smaller than min of 0.0: motion_strength"),
    "a strength of NaN": (
        {"motion_strength": float("nan")},
        "motion_strength is nan; expected a number from 0 to 20",
    ),
    "a VAE that is none": ({"vae": {}}, "vae is empty; connect the VAE output of GenXD Load Model"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(host, given, name):
    changes, message = MISTAKES[name]
    error = told(host, "GenXD_ConditionViews", **(given | changes))
    assert message in error
    assert "GenXD_ConditionViews" in error


def test_path_of_one_camera_is_refused(host, given):
    gx = host.module("genxd_core")
    error = told(host, "GenXD_ConditionViews", **(given | {"cameras": gx.static(1)}))
    assert "cameras has 1 view; expected at least 2, typically 12" in error


def test_vae_of_another_model_is_refused(host, given, mini, monkeypatch):
    monkeypatch.setattr(mini[1], "latent_channels", 16)
    message = "vae makes latents of 16 channels and 2 dimensions, which is another model's"
    assert message in told(host, "GenXD_ConditionViews", **given)
    samples = {"samples": torch.zeros(1, 4, 4, 4)}
    decode = {"samples": samples, "vae": mini[1], "frames_per_chunk": 0}
    assert message in told(host, "GenXD_DecodeViews", **decode)


def test_vae_that_gives_nan_is_told(host, given, mini, monkeypatch):
    monkeypatch.setattr(mini[1], "encode", lambda x: torch.full((1, 4, 4, 4), torch.nan))
    error = told(host, "GenXD_ConditionViews", **given)
    assert "vae gave values that are not finite (NaN or infinity) in torch.float32" in error


def test_strength_needs_a_genxd_conditioning(host):
    other = [[torch.zeros(1, 1, 8), {}]]
    error = told(
        host, "GenXD_SetMotionStrength", positive=other, motion_strength=1.0, unit="network"
    )
    assert "positive was not made for GenXD; connect GenXD Condition Views' positive" in error


DECODED: dict[str, tuple[Any, str]] = {
    "video latents": (torch.zeros(1, 4, 3, 4, 4), "samples has shape (1, 4, 3, 4, 4); expected"),
    "other channels": (torch.zeros(2, 16, 4, 4), "samples has shape (2, 16, 4, 4); expected"),
    "no frames": (torch.zeros(0, 4, 4, 4), "samples has shape (0, 4, 4, 4); expected"),
    "NaN": (torch.full((2, 4, 4, 4), torch.nan), "samples holds values that are not finite"),
}


@pytest.mark.parametrize("name", DECODED)
def test_latents_that_cannot_be_decoded_are_named(host, mini, name):
    samples, message = DECODED[name]
    error = told(
        host,
        "GenXD_DecodeViews",
        samples={"samples": samples},
        vae=mini[1],
        frames_per_chunk=0,
    )
    assert f"GenXD Decode Views: {message}" in error


# ---- what the sampler refuses -------------------------------------------------------------------


def sampled(scene: Scene, **changes: Any) -> str:
    options = {
        "model": scene.model,
        "positive": scene.positive,
        "negative": scene.negative,
        "latent_image": scene.latent,
        "seed": 1,
        "steps": 1,
        "cfg": 3.0,
        "sampler_name": "euler",
        "scheduler": "karras",
        "denoise": 1.0,
    }
    return told(scene.host, "KSampler", **(options | changes))


def test_size_that_the_network_cannot_halve_is_refused_before_the_first_step(host, loaded):
    gx = host.module("genxd_core")
    conditions = host.run_node(
        "GenXD_ConditionViews",
        vae=loaded[1],
        images=pictures(1, 72, 104),
        cameras=gx.sway(4),
        indices="0",
        mode="3d",
        motion_strength=0.0,
    )
    error = sampled(Scene(host, *loaded, *conditions, (0,)))
    assert "the pictures are 104x72; width and height must be multiples of 64" in error
    assert "Nearest: width 64 or 128 and height 64 or 128" in error


LATENTS: dict[str, tuple[Tensor, str]] = {
    "another size": (torch.zeros(4, 4, 8, 8), "latent_image is 8x8 but the conditioned views were"),
    "another count": (
        torch.zeros(6, 4, 4, 4),
        "latent_image has 6 frames, but the camera path has 4",
    ),
    "one frame": (torch.zeros(1, 4, 4, 4), "latent_image has 1 frames, but the camera path has 4"),
    "other channels": (torch.ones(4, 16, 4, 4), "latent_image has shape (4, 16, 4, 4), expected"),
    "video latents": (
        torch.ones(1, 4, 4, 4, 4),
        "latent_image has shape (1, 4, 4, 4, 4), expected",
    ),
    "NaN": (torch.full((4, 4, 4, 4), torch.nan), "values that are not finite (NaN or infinity)"),
}


@pytest.mark.parametrize("name", LATENTS)
def test_latent_that_does_not_belong_to_the_path_is_refused(scene, name):
    samples, message = LATENTS[name]
    assert message in sampled(scene, latent_image={"samples": samples})


def test_conditioning_of_another_model_is_refused(scene):
    other = [[torch.zeros(1, 1, 8), {}]]
    message = "this conditioning was not made for GenXD: connect the positive and negative outputs"
    assert message in sampled(scene, negative=other)
    assert message in sampled(scene, positive=other)


def test_control_net_is_refused(scene):
    class Control:
        """As much of a ControlNet as ComfyUI's sampler asks for."""

        previous_controlnet = None
        extra_hooks = None
        multigpu_clones: dict[Any, Any] = {}  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: {} if name == "get_control" else []

        def get_models(self) -> list[Any]:
            return []

        def inference_memory_requirements(self, dtype: Any) -> int:
            return 0

    controlled = [[scene.positive[0][0], {**scene.positive[0][1], "control": Control()}]]
    error = sampled(scene, positive=controlled)
    assert "a ControlNet is connected, but there are none for GenXD" in error

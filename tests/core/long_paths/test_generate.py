"""The whole way through the library, with a network of random weights."""

import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError, PathStore
from genxd_core.errors import Cancelled
from genxd_core.long_paths.generate import check_request
from genxd_core.long_paths.sampling import camera_noise
from tests.nodes.scenes import make_mini_model
from tests.support import assert_same_up_to, seeded

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

V, SIZE = 11, 32
PATH = gx.orbit(V, azimuth_range_deg=(0.0, 90.0))
SMALL = {"num_inference_steps": 2, "views_per_group": 5, "conditions_per_group": 2}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return gx.GenXDPipeline.from_pretrained(
        make_mini_model(tmp_path_factory.mktemp("long") / "mini")
    )


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=seeded(1))


def generate(pipe, at=(0,), path=PATH, images=None, **options):
    images = pictures(len(at)) if images is None else images
    return gx.generate_path(pipe, images, PATH[list(at)], path, **(SMALL | options))


@pytest.mark.parametrize("mode", ["3d", "4d"])
@pytest.mark.parametrize("at", [(0,), (0, 5, 10)])
def test_a_path_gives_a_frame_for_every_camera_and_the_pictures_at_their_places(pipe, mode, at):
    out = generate(pipe, at, mode=mode, motion_strength=1.0)
    assert out.frames.shape == (V, 3, SIZE, SIZE)
    assert out.latents.shape == (V, 4, SIZE // 8, SIZE // 8)
    assert torch.equal(out.frames[list(at)], pictures(len(at)))
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    assert len(out.plan.groups) > 2


def test_pictures_need_not_be_put_back(pipe):
    kept, decoded = generate(pipe), generate(pipe, keep_images=False)
    assert torch.equal(kept.frames[1:], decoded.frames[1:])
    assert not torch.equal(kept.frames[0], decoded.frames[0])
    assert torch.equal(kept.latents, decoded.latents)


def test_a_path_of_one_group_is_the_pipelines_own(pipe):
    path = PATH[:5]
    out = generate(pipe, path=path, seed=4)
    noise = torch.stack([camera_noise(4, camera, (4, 4, 4)) for camera in range(5)])
    expected = pipe(pictures(1), [0], path, latents=noise, num_inference_steps=2)
    assert_same_up_to(out.latents, expected.latents, 1e-6)


def test_groups_are_generated_from_latents_of_groups_before(pipe):
    out = generate(pipe)
    again = generate(pipe, images=1 - pictures(1))
    assert (out.latents - again.latents).abs().flatten(1).amax(1).min() > 1e-3


def test_the_seed_decides(pipe):
    first = generate(pipe, seed=1).latents
    assert torch.equal(first, generate(pipe, seed=1).latents)
    assert not torch.equal(first, generate(pipe, seed=2).latents)


def test_a_stopped_run_goes_on_from_its_finished_groups(pipe):
    store, told = PathStore(), []
    with pytest.raises(Cancelled):
        generate(pipe, resume=store, progress=lambda step, total, preview: step < 6)
    forwards: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        out = generate(
            pipe, resume=store, progress=lambda step, total, preview: told.append((step, total))
        )
    finally:
        hook.remove()
    # Steps: 1 encoded, then groups of 2: two groups are finished before step 6.
    groups = len(out.plan.groups)
    assert len(forwards) == 2 * (groups - 2)
    assert told[0] == (1, 1 + 2 * groups + V)
    assert told[1] == (6, 1 + 2 * groups + V)
    assert told[-1] == (1 + 2 * groups + V, 1 + 2 * groups + V)
    assert torch.equal(out.latents, generate(pipe).latents)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 9},
        {"guidance_scale": 2.0},
        {"num_inference_steps": 3},
        {"mode": "4d"},
        {"motion_strength": 0.7},
        {"grouping": "in sequence"},
        {"images": 0.5 * pictures(1)},
        {"path": gx.orbit(V, azimuth_range_deg=(0.0, 80.0))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_is_taken_from_another_run(pipe, change):
    store = PathStore()
    generate(pipe, resume=store)
    assert torch.equal(
        generate(pipe, resume=store, **change).latents, generate(pipe, **change).latents
    )


def test_previews_show_the_frames_of_a_group(pipe):
    shown: list[torch.Tensor] = []

    def progress(step, total, preview):
        if preview is not None:
            shown.append(preview)

    out = generate(pipe, progress=progress)
    assert len(shown) == 2 * len(out.plan.groups)
    assert all(preview.shape[1:] == (3, 4, 4) for preview in shown)
    assert max(len(preview) for preview in shown) <= 5


def test_the_network_and_the_decoder_never_see_more_than_a_group(pipe, monkeypatch):
    frames: list[int] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae,
        "decode",
        lambda latents, **options: frames.append(len(latents)) or decode(latents),
    )
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: frames.append(args[0].shape[1]))
    try:
        generate(pipe)
    finally:
        hook.remove()
    assert max(frames) <= 5


def test_pictures_of_pil_are_taken(pipe):
    image = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
    out = generate(pipe, images=[image])
    assert_same_up_to(out.frames[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]), 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "video"}, 'mode is "video"; expected "3d" or "4d"'),
        ({"images": pictures(2)}, "images has 2 pictures, but image_cameras has 1 cameras"),
        ({"images": torch.rand(1, 3, 40, 32)}, "the pictures are 32x40; width and height must"),
        ({"images": torch.full((1, 3, 32, 32), torch.nan)}, "images"),
        ({"motion_strength": -1.0}, "motion_strength is -1.0"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0; expected None or at least 1 frame"),
        ({"seed": -3}, "seed is -3; expected a whole number"),
        ({"grouping": "x"}, 'grouping is "x"'),
    ],
)
def test_user_mistakes_are_named(pipe, options, message):
    with pytest.raises(InvalidInputError, match=message):
        generate(pipe, **options)


def test_what_is_no_camera_path_is_refused():
    with pytest.raises(InvalidInputError, match="path is list; expected Cameras"):
        check_request(1, PATH[[0]], [1, 2], mode="3d")


def test_image_cameras_in_another_precision_are_taken(pipe):
    path = PATH.to(dtype=torch.float64)
    image_cameras = Cameras(PATH.c2w[[0]], PATH.Ks_norm[[0]])
    out = gx.generate_path(pipe, pictures(1), image_cameras, path, **SMALL)
    assert out.plan.given == ((0, 0),)

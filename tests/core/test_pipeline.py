import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import genxd_core as gx
from genxd_core.diffusion.samplers import sample_heun
from genxd_core.errors import Cancelled, InvalidInputError, WeightsError
from tests.support import assert_same_up_to, assert_same_up_to_std, seeded
from tests.tiny_model import make_tiny_model

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

V = 4
# Sizes at which the tiny model is well-conditioned.
H, W = 128, 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def pipe(model):
    return gx.GenXDPipeline.from_pretrained(model)


def pictures(count=1, height=H, width=W, seed=0):
    """Smooth pictures, as the VAE's random weights leave nothing of noise."""
    coarse = torch.rand(count, 3, 4, 4, generator=seeded(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def call(pipe, images=None, indices=(0,), cameras=None, **options):
    images = pictures(len(indices)) if images is None else images
    cameras = gx.orbit(V, aspect=W / H) if cameras is None else cameras
    options = {"num_inference_steps": 2, "generator": seeded(3), **options}
    return pipe(images, list(indices), cameras, **options)


@pytest.mark.parametrize("mode", ["3d", "video", "4d"])
def test_a_run_gives_finite_frames_in_range_for_every_view(pipe, mode):
    out = call(pipe, mode=mode, motion_strength=1.0)
    assert out.frames.shape == (V, 3, H, W)
    assert out.latents.shape == (V, 4, H // 8, W // 8)
    assert out.frames.dtype == out.latents.dtype == torch.float32
    assert torch.isfinite(out.latents).all()
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    assert not out.frames.requires_grad


@pytest.mark.parametrize("indices", [(0,), (3,), (2, 0), (3, 1, 0), (-1,)])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_given_views_come_back_bit_exact_wherever_they_are(pipe, indices, guidance_scale):
    images = pictures(len(indices))
    out = call(pipe, images, indices, guidance_scale=guidance_scale)
    assert torch.equal(out.latents[list(indices)], pipe.vae.encode(images))


def test_output_frames_are_the_decoded_output_latents(pipe):
    out = call(pipe)
    expected = (pipe.vae.decode(out.latents) / 2 + 0.5).clamp(0, 1)
    assert torch.equal(out.frames, expected)


def test_a_chunk_size_reaches_the_decoder(pipe):
    out = call(pipe, decode_chunk_size=3)
    expected = pipe.vae.decode(out.latents, frames_per_chunk=3) / 2 + 0.5
    assert torch.equal(out.frames, expected.clamp(0, 1))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(pipe):
    first = call(pipe, generator=seeded(5))
    assert torch.equal(first.latents, call(pipe, generator=seeded(5)).latents)
    assert not torch.equal(first.latents, call(pipe, generator=seeded(6)).latents)


def test_without_a_generator_the_global_seed_decides(pipe):
    runs = []
    for _ in range(2):
        torch.manual_seed(11)
        runs.append(call(pipe, generator=None).latents)
    torch.manual_seed(11)
    noise = torch.randn(V, 4, H // 8, W // 8)
    runs.append(call(pipe, latents=noise).latents)
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_given_latents_are_unit_noise_with_or_without_a_batch_dimension(pipe):
    noise = torch.randn(V, 4, H // 8, W // 8, generator=seeded(3))
    drawn = call(pipe)
    assert torch.equal(call(pipe, latents=noise).latents, drawn.latents)
    assert torch.equal(call(pipe, latents=noise[None]).latents, drawn.latents)


def test_noise_of_given_views_has_no_influence(pipe):
    noise = torch.randn(V, 4, H // 8, W // 8, generator=seeded(3))
    changed = noise.clone()
    changed[[2, 0]] = 9.0
    before = call(pipe, indices=(2, 0), latents=noise)
    after = call(pipe, indices=(2, 0), latents=changed)
    assert torch.equal(before.latents, after.latents)


def test_moving_the_world_changes_nothing(pipe):
    cameras = gx.orbit(V, aspect=W / H, elevation_deg=20.0).to(dtype=torch.float64)
    angle = torch.tensor(0.7, dtype=torch.float64)
    moved = torch.eye(4, dtype=torch.float64)
    moved[:2, :2] = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    moved[:3, 3] = torch.tensor([3.0, -1.0, 0.5])
    elsewhere = gx.Cameras(moved @ cameras.c2w, cameras.Ks_norm)
    here = call(pipe, cameras=cameras)
    assert_same_up_to_std(call(pipe, cameras=elsewhere).latents, here.latents, 1e-2)


def test_the_first_listed_view_is_the_reference_view(pipe):
    """Only the order changes, so only the frame in which the network sees the cameras."""
    images = pictures(2)
    ab = sample_first_input(pipe, images, (0, 2))
    ba = sample_first_input(pipe, images.flip(0), (2, 0))
    rays = slice(8, 14)
    assert torch.equal(ab[:, :8], ba[:, :8])
    assert_forward(ab[0, rays], True)
    assert_forward(ba[2, rays], True)
    assert_forward(ab[2, rays], False)
    assert_forward(ba[0, rays], False)


def assert_forward(rays, expected):
    """The reference view's own rays: mean direction +Z, no moment."""
    forward = bool(rays[:3].mean((1, 2)).div(rays[:3].mean((1, 2)).norm())[2] > 0.9999)
    still = bool(rays[3:].abs().max() < 1e-6)
    assert (forward, still) == (expected, expected)


def sample_first_input(pipe, images, indices, **options):
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        call(pipe, images, indices, guidance_scale=1.0, **options)
    finally:
        hook.remove()
    return seen[0][0]


def test_video_mode_ignores_the_path(pipe):
    still = gx.static(V, aspect=W / H)
    runs = [call(pipe, mode="video", cameras=path).latents for path in (still, gx.orbit(V))]
    assert torch.equal(*runs)
    assert not sample_first_input(pipe, pictures(), (0,), mode="video")[:, 8:14].any()


def test_motion_strength_counts_in_4d_and_video_but_not_in_3d(pipe):
    for mode, counts in (("3d", False), ("4d", True), ("video", True)):
        runs = [call(pipe, mode=mode, motion_strength=m).latents for m in (0.0, 5.0)]
        assert torch.equal(*runs) is not counts


@pytest.mark.parametrize("guidance_scale", [0.0, 0.5, 1.0])
def test_without_guidance_the_unconditional_branch_is_never_computed(pipe, guidance_scale):
    sizes = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    try:
        call(pipe, guidance_scale=guidance_scale)
        call(pipe, guidance_scale=2.0)
    finally:
        hook.remove()
    assert sizes == [1, 1, 2, 2]


def test_motion_strength_can_go_through_the_added_ids(pipe):
    seen = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    try:
        call(pipe, mode="4d", motion_strength=4.0, use_motion_embedding=False)
    finally:
        hook.remove()
    assert seen[0]["motion_ids"] is None
    assert seen[0]["added_time_ids"][1].tolist() == [[4.0, 1.0]] * V
    assert seen[0]["added_time_ids"][0].tolist() == [[0.0, 0.0]] * V


def test_pictures_may_come_as_a_list_of_pil_and_tensors(pipe):
    images = (pictures(2) * 255).round() / 255
    levels = (images[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    mixed = [Image.fromarray(levels), images[1]]
    assert_same_up_to(call(pipe, mixed, (0, 2)).latents, call(pipe, images, (0, 2)).latents, 1e-6)


def test_transparent_pil_pictures_are_composited_on_white(pipe):
    levels = np.zeros((H, W, 4), dtype=np.uint8)
    transparent = call(pipe, [Image.fromarray(levels)])
    assert torch.equal(transparent.latents, call(pipe, torch.ones(1, 3, H, W)).latents)


def test_sdedit_with_little_strength_stays_near_the_video(pipe):
    video = pictures(V, seed=4)
    clean = pipe.vae.encode(video)

    def distance(strength):
        out = call(pipe, video[:1], video=video, strength=strength, num_inference_steps=10)
        return float((out.latents - clean)[1:].square().mean())

    near, far = distance(0.1), distance(1.0)
    assert near < far / 3


def test_sdedit_runs_only_the_last_steps(pipe):
    steps = []
    video = pictures(V, seed=4)
    call(
        pipe,
        video=video,
        strength=0.5,
        num_inference_steps=6,
        progress=lambda step, total, preview=None: steps.append((step, total, preview is None)),
    )
    # One chunk of given pictures, one of the video, 3 of 6 steps, one chunk of decoded frames.
    assert [(step, total) for step, total, _ in steps] == [(n, 6) for n in range(1, 7)]
    assert [without for *_, without in steps] == [True, True, False, False, False, True]


def test_progress_hands_out_small_previews_of_the_frames(pipe):
    previews = []
    call(pipe, progress=lambda step, total, preview=None: previews.append(preview))
    shown = [preview for preview in previews if preview is not None]
    assert len(shown) == 2
    assert all(preview.shape == (V, 3, H // 8, W // 8) for preview in shown)
    assert all(0 <= preview.min() <= preview.max() <= 1 for preview in shown)


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_a_run_stops_within_the_step_that_was_refused(pipe, stop_at):
    calls, steps = [], []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: calls.append(1))

    def progress(step, total, preview=None):
        steps.append(step)
        return step != stop_at

    try:
        with pytest.raises(Cancelled, match=f"after step {stop_at}"):
            call(pipe, num_inference_steps=3, progress=progress)
    finally:
        hook.remove()
    assert steps == list(range(1, stop_at + 1))
    assert len(calls) == stop_at - 1  # the first step is the encoding


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
def test_half_precision_runs_near_float32(model, pipe, dtype):
    half = gx.GenXDPipeline.from_pretrained(model, dtype=dtype)
    assert half.dtype == dtype
    out, exact = (call(one, num_inference_steps=1) for one in (half, pipe))
    assert out.frames.dtype == out.latents.dtype == torch.float32
    # The sampler's state is float32, so given views lose nothing.
    assert torch.equal(out.latents[0], exact.latents[0])
    difference = (out.latents - exact.latents).std() / exact.latents.std()
    assert difference < (0.5 if dtype == torch.bfloat16 else 0.1)


def test_only_the_network_sees_half_precision(model):
    half = gx.GenXDPipeline.from_pretrained(model, dtype=torch.bfloat16)
    seen = []
    hook = half.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    states = []

    def watching(denoise, noisy, sigmas, *, on_step=None):
        states.extend([noisy.dtype, sigmas.dtype, denoise(noisy, sigmas[0]).dtype])
        return noisy

    half.sampler = watching
    try:
        call(half)
    finally:
        hook.remove()
    assert states == [torch.float32] * 3
    (sample, timestep), conditions = seen[0]
    assert sample.dtype == torch.bfloat16
    assert timestep.dtype == conditions["motion_ids"].dtype == torch.float32
    assert conditions["added_time_ids"].dtype == torch.float32


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in func.name() for name in self.WAITING):
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def test_the_sampling_loop_never_waits_for_the_device(pipe):
    waits = Waits()

    def watching(denoise, noisy, sigmas, *, on_step=None):
        with waits:
            return sample_heun(denoise, noisy, sigmas, on_step=on_step)

    watched = gx.GenXDPipeline(pipe.unet, pipe.vae, pipe.schedule, sampler=watching)
    call(watched, mode="4d", motion_strength=1.0, progress=lambda *_: True)
    assert waits.seen == []


def test_another_sampler_can_be_chosen(pipe):
    heun = gx.GenXDPipeline(pipe.unet, pipe.vae, pipe.schedule, sampler=sample_heun)
    assert torch.equal(
        call(heun, num_inference_steps=1).latents, call(pipe, num_inference_steps=1).latents
    )
    assert not torch.equal(call(heun).latents, call(pipe).latents)


GOOD = torch.full((1, 3, H, W), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": torch.zeros(1, 3, 100, 64)}, r"64x100; .* multiples of 64 .* height 64 or 128"),
        ({"images": torch.zeros(1, 3, 64, 65)}, r"65x64; .* multiples of 64 .* width 64 or 128"),
        ({"images": torch.zeros(1, 4, H, W)}, r"images has shape \(1, 4, 128, 64\)"),
        ({"images": torch.zeros(1, H, W, 3)}, "channels come last"),
        ({"images": torch.zeros(3, H, W)}, r"expected \(V, 3, H, W\)"),
        ({"images": torch.zeros(1, 3, H, W, dtype=torch.uint8)}, "divide by 255"),
        ({"images": GOOD * 255}, r"images lies in \[127.5, 127.5\]; expected \[0, 1\]"),
        ({"images": GOOD * float("nan")}, "no NaN"),
        ({"images": [torch.zeros(3, 64, 64), torch.zeros(3, 64, 128)]}, "different sizes"),
        ({"images": []}, "images is"),
        ({"images": torch.zeros(2, 3, H, W)}, "images has 2 pictures and cond_indices 1"),
        ({"indices": (0, 1)}, None),
        ({"indices": (4,)}, r"indices has 4, expected positions from 0 to 3"),
        ({"indices": (-5,)}, r"indices has -5"),
        ({"indices": (1, 1), "images": torch.zeros(2, 3, H, W)}, "twice"),
        ({"indices": (0, -4), "images": torch.zeros(2, 3, H, W)}, "twice"),
        ({"indices": (0, 1, 2, 3), "images": torch.zeros(4, 3, H, W)}, "nothing to generate"),
        ({"indices": (), "images": GOOD}, "at least one conditioned view"),
        ({"indices": (True,)}, "cond_indices is .* whole numbers"),
        ({"mode": "5d"}, "mode is '5d', expected one of '3d'"),
        ({"motion_strength": -1.0}, "motion_strength is -1.0; expected 0"),
        ({"motion_strength": 50.5}, "motion_strength is 50.5"),
        ({"motion_strength": float("nan")}, "motion_strength is nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": -2.0}, "guidance_scale is -2.0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"strength": 0.5}, "strength is 0.5, but there is no video"),
        ({"video": torch.zeros(V, 3, H, W), "strength": 0.0}, "strength is 0.0; expected"),
        ({"video": torch.zeros(V, 3, H, W), "strength": 1.5}, "strength is 1.5; expected"),
        ({"video": torch.zeros(V, 3, H, W), "strength": 0.1}, "none of 2 steps"),
        ({"video": torch.zeros(3, 3, H, W)}, "video has 3 frames .* expected 4"),
        ({"video": torch.zeros(V, 3, W, H)}, "video has 4 frames of 64 x 128 .* 128 x 64"),
        ({"video": torch.full((V, 3, H, W), 2.0)}, "video lies in"),
        ({"latents": torch.zeros(V, 4, 8, 8)}, r"latents has shape \(4, 4, 8, 8\); expected"),
        ({"latents": torch.zeros(2, V, 4, 16, 8)}, r"first dimension of 1"),
        ({"latents": torch.full((V, 4, 16, 8), float("inf"))}, "latents .* finite"),
        ({"latents": torch.zeros(V, 4, 16, 8, dtype=torch.int32)}, "latents .*int32.* finite"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0"),
    ],
)
def test_user_mistakes_are_named(pipe, options, message):
    if message is None:
        assert call(pipe, **options).frames.shape[0] == V
        return
    with pytest.raises(InvalidInputError, match=message):
        call(pipe, **{"images": GOOD, **options})


def test_mistakes_are_found_before_anything_is_computed(pipe, monkeypatch):
    monkeypatch.setattr(pipe.vae, "encode", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(InvalidInputError):
        call(pipe, guidance_scale=-1.0)
    with pytest.raises(InvalidInputError):
        call(pipe, num_inference_steps=0)


def test_cameras_must_be_cameras(pipe):
    with pytest.raises(Exception, match=r"cameras"):
        pipe(pictures(), [0], torch.eye(4).repeat(V, 1, 1))


def test_loading_says_what_is_missing(model, tmp_path):
    with pytest.raises(WeightsError, match="does not exist; give the folder of a model"):
        gx.GenXDPipeline.from_pretrained(tmp_path / "nowhere")
    file = model / "unet" / "config.json"
    with pytest.raises(WeightsError, match="is a file; give the folder"):
        gx.GenXDPipeline.from_pretrained(file)
    for part, message in (
        ("scheduler", "scheduler_config.json does not exist"),
        ("vae", "has no VAE in it"),
        ("unet", "has no UNet in it"),
    ):
        folder = shutil.copytree(model, tmp_path / part)
        shutil.rmtree(folder / part)
        with pytest.raises(WeightsError, match=message):
            gx.GenXDPipeline.from_pretrained(folder)


def test_precisions_and_devices_that_cannot_be_used_are_refused(model):
    with pytest.raises(InvalidInputError, match=r"dtype is torch\.float64"):
        gx.GenXDPipeline.from_pretrained(model, dtype=torch.float64)
    with pytest.raises(InvalidInputError, match="device is 'toaster', which cannot be used"):
        gx.GenXDPipeline.from_pretrained(model, device="toaster")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_the_machine_lacks_is_refused(model):
    with pytest.raises(InvalidInputError, match="device is 'cuda', which cannot be used here"):
        gx.GenXDPipeline.from_pretrained(model, device="cuda")


def test_parts_of_different_models_are_refused(pipe, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "m")
    file = folder / "unet" / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    config = gx.GenXDUNetConfig.from_dict(values | {"in_channels": 17})
    with pytest.raises(WeightsError, match="17 for in_channels, the pipeline needs 15"):
        gx.GenXDPipeline(gx.GenXDUNet(config, device="meta"), pipe.vae)


def test_motion_embedding_must_exist_to_be_used(pipe, model):
    values = json.loads((model / "unet" / "config.json").read_text(encoding="utf-8"))
    config = gx.GenXDUNetConfig.from_dict(values | {"motion_condition": False})
    without = gx.GenXDPipeline(gx.GenXDUNet(config).requires_grad_(False).eval(), pipe.vae)
    with pytest.raises(InvalidInputError, match="this network has no motion embedding"):
        call(without)
    assert torch.isfinite(call(without, use_motion_embedding=False).latents).all()


def overflowing(pipe, dtype):
    unet = gx.GenXDUNet(pipe.unet.config).requires_grad_(False).eval()
    unet.load_state_dict(pipe.unet.state_dict())
    unet.conv_out.bias.fill_(float("inf"))
    return gx.GenXDPipeline(unet.to(dtype), pipe.vae)


def test_numbers_that_overflow_are_reported_instead_of_black_frames(pipe):
    with pytest.raises(InvalidInputError, match=r"dtype is torch\.float16.*torch\.bfloat16 or"):
        call(overflowing(pipe, torch.float16))
    with pytest.raises(WeightsError, match="float32; its weights are damaged"):
        call(overflowing(pipe, torch.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu_gives_what_the_cpu_gives_and_is_never_waited_for(model, pipe, dtype):
    on_gpu = gx.GenXDPipeline.from_pretrained(model, dtype=dtype, device="cuda")

    def unwaiting(denoise, noisy, sigmas, *, on_step=None):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return sample_heun(denoise, noisy, sigmas, on_step=on_step)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    on_gpu.sampler = unwaiting
    heun = gx.GenXDPipeline(pipe.unet, pipe.vae, pipe.schedule, sampler=sample_heun)
    out, expected = call(on_gpu), call(heun)
    difference = (out.latents.cpu() - expected.latents).std() / expected.latents.std()
    assert difference < {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.5}[dtype]

"""Refining a video through the library, with a network of random weights and the reference's."""

import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core import InvalidInputError, PathStore
from genxd_core.errors import Cancelled
from genxd_core.long_paths.sampling import camera_noise
from genxd_core.long_paths.store import StorePart
from tests.nodes.scenes import make_mini_model
from tests.support import assert_same_up_to, assert_same_up_to_std, seeded
from tests.tiny_model import load_case, make_tiny_model

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

V, SIZE = 9, 32
CAMERAS = gx.orbit(V, azimuth_range_deg=(0.0, 60.0))
# Windows of frames 0-4, 2-6 and 4-8, of whose 2 conditions the last of one is in the next.
SMALL = {
    "num_inference_steps": 4,
    "window": 5,
    "conditions_per_window": 2,
    "overlap": 2,
}
RUN = 2  # of 4 steps at strength 0.5


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return gx.GenXDPipeline.from_pretrained(
        make_mini_model(tmp_path_factory.mktemp("refine") / "mini")
    )


def frames(count: int = V, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=seeded(seed))


def refine(pipe, video=None, cameras=None, **options):
    video = frames() if video is None else video
    cameras = CAMERAS[list(range(len(video)))] if cameras is None else cameras
    return gx.refine_video(pipe, video, cameras, **(SMALL | options))


def rough(pipe, video=None) -> torch.Tensor:
    video = frames() if video is None else video
    return torch.cat([pipe.vae.encode(frame[None]) for frame in video])


def test_a_video_gives_a_frame_and_latents_for_each_of_its_own(pipe):
    out = refine(pipe)
    assert out.frames.shape == (V, 3, SIZE, SIZE)
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    assert out.latents.shape == (V, 4, SIZE // 8, SIZE // 8)
    assert not out.cancelled
    assert len(out.plan.windows) == 3


def test_conditions_keep_their_latents_exactly_and_all_other_frames_change(pipe):
    out = refine(pipe)
    kept = list(out.plan.conditions)
    assert torch.equal(out.latents[kept], rough(pipe)[kept])
    assert out.refined.tolist() == [frame not in kept for frame in range(V)]
    assert (out.latents - rough(pipe)).abs().flatten(1).amax(1)[out.refined].min() > 1e-3


def test_strength_of_zero_returns_the_inputs_latents(pipe):
    forwards: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        out = refine(pipe, strength=0.0)
    finally:
        hook.remove()
    assert torch.equal(out.latents, rough(pipe))
    assert forwards == []
    assert not out.refined.any()


def test_more_strength_leaves_less_of_the_video(pipe):
    changed = [
        float((refine(pipe, strength=strength).latents - rough(pipe)).abs().mean())
        for strength in (0.25, 0.75, 1.0)
    ]
    assert 0 < changed[0] < changed[1] < changed[2]


def test_a_video_of_one_window_is_the_pipelines_own_sdedit(pipe):
    video, cameras = frames(5), CAMERAS[list(range(5))]
    noise = torch.randn(5, 4, 4, 4, generator=seeded(2))
    out = refine(
        pipe, video, cameras, conditions=[4, 0], noise=noise, strength=0.5, motion_strength=1.0
    )
    expected = pipe.sample(
        rough(pipe, video)[[4, 0]],
        [4, 0],
        cameras,
        noise=noise,
        mode="4d",
        motion_strength=1.0,
        num_inference_steps=4,
        video=rough(pipe, video),
        strength=0.5,
    )
    assert torch.equal(out.latents, expected)


def test_sampling_from_a_video_is_what_a_run_with_it_does(pipe):
    video, cameras, noise = frames(4), CAMERAS[list(range(4))], torch.randn(4, 4, 4, 4)
    whole = pipe(
        video[:1],
        [0],
        cameras,
        mode="4d",
        video=video,
        strength=0.5,
        latents=noise,
        num_inference_steps=4,
        generator=seeded(5),
    )
    drawn = pipe.vae.encode(video, sample=True, generator=seeded(5))
    sampled = pipe.sample(
        pipe.vae.encode(video[:1]),
        [0],
        cameras,
        noise=noise,
        mode="4d",
        num_inference_steps=4,
        video=drawn,
        strength=0.5,
    )
    assert_same_up_to(sampled, whole.latents, 1e-6)


def test_blending_of_windows_is_what_their_weights_say(pipe):
    """Each window by itself, in the other order, and put together by hand."""
    out = refine(pipe, seed=3)
    start, by_hand = rough(pipe), torch.zeros(V, 4, 4, 4)
    for window in reversed(out.plan.windows):
        at = list(window.frames)
        sampled = pipe.sample(
            start[list(window.conditions)],
            [frame - at[0] for frame in window.conditions],
            CAMERAS[at],
            noise=torch.stack([camera_noise(3, f"frame {n}", (4, 4, 4)) for n in at]),
            mode="4d",
            motion_strength=0.5,
            num_inference_steps=4,
            video=start[at],
            strength=0.5,
        )
        by_hand[at] += torch.tensor(window.weights)[:, None, None, None] * sampled
    assert_same_up_to(out.latents, by_hand, 1e-5)


def test_the_seed_decides(pipe):
    first = refine(pipe, seed=1).latents
    assert torch.equal(first, refine(pipe, seed=1).latents)
    assert not torch.equal(first, refine(pipe, seed=2).latents)


def test_pictures_take_the_place_of_the_videos_frames_at_conditions(pipe):
    given = frames(1, seed=7)
    out = refine(pipe, conditions=[4], condition_images=given)
    assert_same_up_to(out.latents[4], pipe.vae.encode(given)[0], 1e-6)
    replaced = frames().clone()
    replaced[4] = given[0]
    assert torch.equal(out.latents, refine(pipe, replaced, conditions=[4]).latents)


def test_latents_serve_instead_of_encoding(pipe):
    assert torch.equal(refine(pipe, latents=rough(pipe)).latents, refine(pipe).latents)


def test_a_stopped_run_gives_what_there_is_and_the_next_one_goes_on(pipe):
    store = PathStore()
    # Encoding is V steps; the second window ends with step V + 4.
    stopped = refine(pipe, resume=store, progress=lambda step, *_: step < V + 5)
    assert stopped.cancelled
    assert not stopped.refined[7:].any()
    assert stopped.refined[:4].sum() == 3
    assert torch.equal(stopped.latents[7:], rough(pipe)[7:])
    forwards: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        out = refine(pipe, resume=store)
    finally:
        hook.remove()
    assert len(forwards) == RUN
    assert torch.equal(out.latents, refine(pipe).latents)


def test_nothing_is_taken_from_another_run(pipe):
    store = PathStore()
    refine(pipe, resume=store)
    for change in ({"strength": 0.75}, {"seed": 2}, {"motion_strength": 2.0}, {"overlap": 1}):
        again, anew = refine(pipe, resume=store, **change), refine(pipe, **change)
        assert torch.equal(again.latents, anew.latents), change


def test_a_stop_while_frames_are_encoded_leaves_nothing(pipe):
    with pytest.raises(Cancelled):
        refine(pipe, progress=lambda step, *_: step < 2)


def test_progress_is_one_count_with_previews_of_a_window(pipe):
    told, shown = [], []

    def progress(step, total, preview):
        told.append((step, total))
        if preview is not None:
            shown.append(tuple(preview.shape))

    refine(pipe, progress=progress)
    total = V + 3 * RUN + V
    assert [step for step, _ in told] == sorted(step for step, _ in told)
    assert told[-1] == (total, total)
    assert {out_of for _, out_of in told} == {total}
    assert shown == [(5, 3, 4, 4)] * (3 * RUN)


def test_the_network_and_the_decoder_never_see_more_than_a_window(pipe, monkeypatch):
    seen: list[int] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae, "decode", lambda latents, **_: seen.append(len(latents)) or decode(latents)
    )
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    try:
        refine(pipe, frames(23), gx.orbit(23))
    finally:
        hook.remove()
    assert max(seen) == 5


def test_a_video_shorter_than_the_window_is_one_window(pipe):
    out = refine(pipe, frames(4), window=12)
    assert len(out.plan.windows) == 1
    assert out.frames.shape[0] == 4


def test_pictures_of_pil_are_taken(pipe):
    pictures = [Image.new("RGB", (SIZE, SIZE), (80 * n, 0, 0)) for n in range(3)]
    assert refine(pipe, pictures).frames.shape == (3, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video": frames(1)}, "video has 1 frame; expected at least 2"),
        ({"video": [frames(1)[0], frames(1)[0, :, :16]]}, "video have different sizes"),
        ({"video": torch.rand(3, 3, 40, 32)}, "the pictures are 32x40; width and height must"),
        ({"video": frames() * 255}, "video lies in .* expected \\[0, 1\\]"),
        ({"cameras": CAMERAS[[0, 1]]}, "video has 9 frames, but cameras has 2; give one camera"),
        ({"strength": 1.5}, "strength is 1.5; expected 0 .* to 1"),
        ({"strength": -0.1}, "strength is -0.1; expected 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": 0.1}, "strength is 0.1, which leaves none of 4 steps .* at least 0.25"),
        ({"motion_strength": -1.0}, "motion_strength is -1.0"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"seed": -1}, "seed is -1; expected a whole number"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0; expected None or at least 1"),
        ({"conditions": [9]}, "conditions has 9, but video has 9 frames"),
        ({"conditions_per_window": 5}, "conditions_per_window is 5; expected 1 to 4"),
        ({"condition_images": frames(1)}, "condition_images has 1 pictures, but conditions names"),
        (
            {"conditions": [0], "condition_images": torch.rand(1, 3, 64, 64)},
            "condition_images are 64x64, but video is 32x32",
        ),
        ({"latents": torch.zeros(8, 4, 4, 4)}, r"latents has shape \(8, 4, 4, 4\).*; expected"),
        ({"noise": torch.full((9, 4, 4, 4), torch.nan)}, "noise must be finite"),
    ],
)
def test_user_mistakes_are_named(pipe, options, message):
    with pytest.raises(InvalidInputError, match=message):
        refine(pipe, **options)


def test_reference_sdedit_is_a_refinement_with_one_window(tmp_path):
    case, recorded = load_case("sdedit")
    tiny = gx.GenXDPipeline.from_pretrained(make_tiny_model(tmp_path / "tiny"))
    out = gx.refine_video(
        tiny,
        recorded["in.video_u8"][0].float() / 255,
        gx.Cameras(recorded["in.target_c2w"], recorded["in.intrinsics"]),
        conditions=recorded["in.correspondence"].tolist(),
        condition_images=recorded["in.context_images_u8"].float() / 255,
        conditions_per_window=1,
        strength=case["strength"],
        motion_strength=case["motion_strength"],
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance_scale"],
        latents=recorded["mid.video_latents"],
        noise=recorded["in.noise"],
    )
    assert_same_up_to_std(out.latents, recorded["latents_final"][0], 1e-1)


def test_parts_of_a_store_are_kept_under_one_key_and_do_not_meet():
    store = PathStore(max_runs=1)
    for number in (0, 1, 7):
        StorePart(store, number).add("run", {3: torch.full((1, 1, 1), float(number))})
    for number in (0, 1, 7):
        (kept,) = StorePart(store, number).finished("run").items()
        assert (kept[0], float(kept[1])) == (3, float(number))
    assert StorePart(store, 2).finished("run") == {}

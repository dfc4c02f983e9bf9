"""Videos of many views from one, through the library, with a network of random weights."""

import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError, MultiviewSettings, PathStore
from genxd_core.errors import Cancelled
from genxd_core.refinement.multiview import plan_multiview_videos
from tests.nodes.scenes import make_mini_model
from tests.support import assert_same_up_to, seeded

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

T, SIZE, STEPS = 4, 32, 2
AROUND = gx.orbit(6, azimuth_range_deg=(0.0, 120.0))
INPUT, VIEWS = AROUND[[0]], AROUND[[2, 4]]
SMALL = MultiviewSettings(
    views_per_group=3, conditions_per_group=1, window=3, conditions_per_window=1, overlap=1
)
# One group a frame; of each view two windows, of which one step of two is run.
GROUPS, WINDOWS, RUN = T, 2 * 2, 1


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return gx.GenXDPipeline.from_pretrained(
        make_mini_model(tmp_path_factory.mktemp("multiview") / "mini")
    )


def video(count: int = T) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=seeded(1))


def generate(pipe, input_cameras=INPUT, view_cameras=VIEWS, frames=None, **options):
    options = {"settings": SMALL, "num_inference_steps": STEPS, **options}
    frames = video() if frames is None else frames
    return gx.generate_multiview_videos(pipe, frames, input_cameras, view_cameras, **options)


@pytest.fixture(scope="module")
def made(pipe):
    return generate(pipe)


@pytest.fixture(scope="module")
def coarse(pipe):
    return generate(pipe, strength=0.0)


def test_every_view_has_a_frame_at_every_time_with_its_camera(made):
    assert made.frames.shape == (2, T, 3, SIZE, SIZE)
    assert made.latents.shape == (2, T, 4, SIZE // 8, SIZE // 8)
    assert 0 <= made.frames.min() <= made.frames.max() <= 1
    assert torch.equal(made.cameras.c2w, VIEWS.c2w.repeat_interleave(T, dim=0))
    expected = torch.linspace(0, 1, T).repeat(2)
    torch.testing.assert_close(made.cameras.times.float(), expected)


def test_without_strength_frames_are_views_of_each_input_frame_in_3d_mode(pipe, coarse):
    assert not coarse.refined.any()
    for time in range(T):
        alone = gx.generate_path(
            pipe,
            video()[[time]],
            INPUT,
            VIEWS,
            num_inference_steps=STEPS,
            views_per_group=3,
            conditions_per_group=1,
        )
        assert_same_up_to(coarse.latents[:, time], alone.latents, 1e-6)


def test_conditions_of_the_refinement_are_rough_frames_and_the_others_change(made, coarse):
    kept = list(made.plan.over_time.conditions)
    assert torch.equal(made.latents[:, kept], coarse.latents[:, kept])
    changed = (made.latents - coarse.latents).abs().amax((2, 3, 4)) > 1e-3
    assert torch.equal(changed, made.refined)
    assert made.refined.any()


def test_a_view_from_the_inputs_camera_is_the_input(pipe):
    out = generate(pipe, view_cameras=AROUND[[2, 0]], strength=0.5)
    encoded = torch.cat([pipe.vae.encode(frame[None]) for frame in video()])
    assert torch.equal(out.latents[1], encoded)
    assert not out.refined[1].any()


def test_the_input_camera_may_move(pipe, made):
    moving = generate(pipe, input_cameras=AROUND[[0, 1, 1, 3]])
    assert torch.equal(moving.latents[:, 0], made.latents[:, 0])
    assert not torch.equal(moving.latents[:, 3], made.latents[:, 3])


def counted(pipe, **options):
    forwards: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        return generate(pipe, **options), len(forwards)
    finally:
        hook.remove()


def test_a_stop_among_rough_videos_keeps_finished_frames(pipe, made):
    store = PathStore()
    with pytest.raises(Cancelled):
        generate(pipe, resume=store, progress=lambda step, *_: step < T + 2 * STEPS + 1)
    out, forwards = counted(pipe, resume=store)
    assert forwards == (GROUPS - 2) * STEPS + WINDOWS * RUN
    assert torch.equal(out.latents, made.latents)


def test_a_stop_in_the_refinement_gives_what_there_is_and_the_next_run_goes_on(pipe, made, coarse):
    store = PathStore()
    stop = T + GROUPS * STEPS + 3 * RUN
    out = generate(pipe, resume=store, progress=lambda step, *_: step <= stop)
    assert out.cancelled
    assert torch.equal(out.latents[0], made.latents[0])
    assert out.refined[0].any()
    assert torch.equal(out.latents[1, -1], coarse.latents[1, -1])
    again, forwards = counted(pipe, resume=store)
    assert forwards <= RUN
    assert torch.equal(again.latents, made.latents)


def test_rough_videos_are_found_again_for_another_refinement(pipe, made):
    store = PathStore()
    generate(pipe, resume=store, strength=0.0)
    out, forwards = counted(pipe, resume=store)
    assert forwards == WINDOWS * RUN
    assert torch.equal(out.latents, made.latents)
    _, forwards = counted(pipe, resume=store, seed=5)
    assert forwards == GROUPS * STEPS + WINDOWS * RUN


def test_progress_is_one_count(pipe):
    told = []
    generate(pipe, progress=lambda step, total, preview: told.append((step, total)))
    total = T + GROUPS * STEPS + WINDOWS * RUN + 2 * T
    assert told[-1] == (total, total)
    assert [step for step, _ in told] == sorted(step for step, _ in told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": video(1)}, "video has 1 frame; expected at least 2"),
        ({"input_cameras": AROUND[[0, 1]]}, "video has 4 frames, but input_cameras has 2 cameras"),
        ({"view_cameras": INPUT}, "every one of them is a given picture's"),
        ({"strength": 2.0}, "strength is 2.0; expected 0"),
        ({"seed": -1}, "seed is -1"),
        ({"settings": MultiviewSettings(window=4, overlap=4)}, "overlap is 4; expected 0 to 3"),
        (
            {"settings": MultiviewSettings(views_per_group=3)},
            "views_per_group is 3 and conditions_per_group 3",
        ),
    ],
)
def test_user_mistakes_are_named(pipe, options, message):
    with pytest.raises(InvalidInputError, match=message):
        generate(pipe, **options)


def test_a_plan_counts_its_steps():
    plan = plan_multiview_videos(T, INPUT, VIEWS, SMALL)
    assert plan.num_steps(10, 5) == GROUPS * 10 + WINDOWS * 5
    assert plan.num_steps(10, 0) == GROUPS * 10

"""A video to a moving scene, with a network of random weights: the stages, stops, what is kept."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import genxd_core as gx
from genxd_core import InvalidInputError, MultiviewSettings, PathStore
from genxd_core.errors import Cancelled
from tests.nodes.scenes import make_mini_model
from tests.support import seeded

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

T, SIZE = 4, 32
AROUND = gx.orbit(7, azimuth_range_deg=(0.0, 120.0))
INPUT, VIEWS = AROUND[[0]], AROUND[[0, 2, 4]]
SHORT = replace(
    gx.RECIPES_4D["test"],
    static=replace(gx.RECIPES_4D["test"].static, iterations=4, num_gaussians=60),
    moving=replace(gx.RECIPES_4D["test"].moving, iterations=6),
)
QUICK: dict[str, Any] = {
    "settings": MultiviewSettings(
        views_per_group=4, conditions_per_group=1, window=4, conditions_per_window=1, overlap=1
    ),
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "recipe": SHORT,
}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return gx.GenXDPipeline.from_pretrained(make_mini_model(tmp_path_factory.mktemp("4d") / "mini"))


def film() -> Tensor:
    return torch.rand(T, 3, SIZE, SIZE, generator=seeded(1))


@pytest.fixture(scope="module")
def store() -> PathStore:
    """What the network made once: only what comes after it is made again by each test."""
    return PathStore(max_runs=32)


@pytest.fixture(scope="module")
def make(pipe, store):
    def run(**changes: Any) -> gx.VideoTo4D:
        return gx.video_to_4d(pipe, film(), INPUT, VIEWS, **(QUICK | {"resume": store} | changes))

    return run


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int]]:
    """The progress of `made`."""
    return []


@pytest.fixture(scope="module")
def made(make, told):
    return make(
        static_cameras=AROUND[[0, 1, 2, 3]],
        progress=lambda step, total, preview=None: told.append((step, total)),
    )


def test_a_film_comes_out_as_a_scene_with_all_that_it_was_made_of(made):
    assert not made.cancelled
    assert made.videos.frames.shape == (3, T, 3, SIZE, SIZE)
    assert made.static.frames.shape == (4, 3, SIZE, SIZE)
    assert made.first.metrics["iterations"] == 10
    (last,) = made.rounds
    assert last.fit.start == "resume"
    assert last.fit.metrics["iterations"] == 2
    assert made.gaussians is last.fit.gaussians
    stages = ("videos", "static", "fit", "refine", "refit")
    assert all(made.metrics[f"{stage}_seconds"] > 0 for stage in stages)


def test_the_films_own_frames_lead_what_is_refined(pipe, made):
    (last,) = made.rounds
    swings = gx.swing_paths(INPUT, VIEWS, T, window=4)
    assert last.conditions == (swings.conditions,) * 2
    encoded = torch.cat([pipe.vae.encode(frame[None]) for frame in film()])
    for path, expected, drawn, out in zip(
        last.paths, swings.paths, last.drawn, last.refined, strict=True
    ):
        assert torch.equal(path.c2w, expected.c2w)
        at = list(swings.conditions)
        torch.testing.assert_close(out.latents[at], encoded[at], atol=1e-6, rtol=0)
        assert out.refined.tolist() == [frame not in at for frame in range(T)]
        there = gx.render_views(made.first.gaussians, path, width=SIZE, height=SIZE)
        seen = there.rgb + (1 - there.alpha)
        torch.testing.assert_close(drawn, seen.clamp(0, 1), atol=1e-5, rtol=0)


def test_paths_of_ones_own_and_no_round_at_all(make):
    still = AROUND[[5] * T]
    out = make(refine_paths=[still], rounds=2, refine_iterations=1)
    assert [one.conditions for one in out.rounds] == [((),), ((),)]
    assert [one.fit.metrics["iterations"] for one in out.rounds] == [1, 1]
    torch.testing.assert_close(out.rounds[0].paths[0].times, torch.linspace(0, 1, T))
    plain = make(rounds=0)
    assert plain.rounds == ()
    assert plain.gaussians is plain.first.gaussians


def test_there_is_one_bar(made, told):
    # 300 are the videos, 100 the static views, 300 the first fit, 25 each of two paths, 100 the
    # second fit.
    assert [step for step, _ in told] == sorted(step for step, _ in told)
    assert {total for _, total in told} == {850}
    assert told[-1][0] == 850


def test_a_stop_keeps_what_there_is(make):
    with pytest.raises(Cancelled):
        make(progress=lambda step, *_: step < 200)
    fitting = make(progress=lambda step, *_: step < 500)
    assert fitting.cancelled
    assert fitting.rounds == ()
    refining = make(progress=lambda step, *_: step < 610)
    assert refining.cancelled
    assert refining.rounds[0].fit is None
    assert refining.gaussians is refining.first.gaussians
    again = make(progress=lambda step, *_: step < 720)
    assert again.cancelled
    assert again.rounds[0].fit.cancelled
    assert again.gaussians is again.rounds[0].fit.gaussians


def test_a_second_run_finds_all_that_the_network_made(pipe, make, made):
    forwards: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        again = make(static_cameras=AROUND[[0, 1, 2, 3]])
    finally:
        hook.remove()
    assert forwards == []
    assert torch.equal(again.gaussians.at(0.5).means, made.gaussians.at(0.5).means)


def test_objects_before_a_plain_colour_are_fitted_alone(make):
    """The network of random weights leaves no plain background, which is said."""
    with pytest.raises(InvalidInputError, match="next to no border of the colour"):
        make(plain_background=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "object_4d"}, "perceptual is missing"),
        ({"recipe": "quick"}, "recipe is 'quick'"),
        ({"rounds": -1}, "rounds is -1"),
        ({"refine_iterations": 0}, "refine_iterations is 0"),
        ({"refine_paths": []}, "refine_paths is empty"),
        ({"refine_paths": [AROUND]}, "path 0 has 7 cameras for a video of 4 frames"),
        ({"resume": PathStore(max_runs=3)}, r"resume keeps 3 runs, but 4 are made"),
        ({"strength": 2.0}, "strength is 2.0"),
    ],
)
def test_mistakes_are_named_before_anything_is_generated(make, changes, message):
    def never(*_: Any) -> None:
        pytest.fail("something ran")

    with pytest.raises(InvalidInputError, match=message):
        make(progress=never, **changes)

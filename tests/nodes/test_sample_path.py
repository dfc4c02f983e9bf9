"""Paths longer than a group, through ComfyUI's sampler."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import assert_same_up_to, seeded

# Of nine cameras one is given, four are anchors, and two groups make the others.
V, SIZE, STEPS, GROUPS = 9, 32, 2, 3
OPTIONS: dict[str, Any] = {
    **{"indices": "0", "mode": "3d", "motion_strength": 0.5, "seed": 1, "steps": STEPS},
    **{"cfg": 3.0, "sampler_name": "euler", "scheduler": "karras", "grouping": "auto"},
    **{"views_per_group": 5, "conditions_per_group": 2, "keep_images": True},
    "frames_per_chunk": 0,
}


def pictures(count: int) -> Tensor:
    return torch.rand(count, SIZE, SIZE, 3, generator=seeded(4))


@pytest.fixture(scope="module")
def store(host) -> Any:
    return host.module("nodes.long_paths")._STORE


@pytest.fixture(autouse=True)
def empty(store):
    store.clear()


@pytest.fixture(scope="module")
def path(host) -> Any:
    return host.module("genxd_core").orbit(V, azimuth_range_deg=(0.0, 90.0))


@pytest.fixture(scope="module")
def graph_of(host, mini, path):
    def graph(count: int = 1, **changes: Any) -> dict[str, Any]:
        linked = {
            **{"model": mini[0], "vae": mini[1], "images": pictures(count), "cameras": path},
        }
        linked |= {key: changes.pop(key) for key in [*linked, "image_cameras"] if key in changes}
        inputs = {**OPTIONS, **changes, **{name: [name, 0] for name in linked}}
        return {
            **{name: host.value(value) for name, value in linked.items()},
            "sample": {"class_type": "GenXD_SamplePath", "inputs": inputs},
            **{f"out-{slot}": host.capture(["sample", slot], str(slot)) for slot in range(3)},
        }

    return graph


@pytest.fixture(scope="module")
def sample(host, graph_of):
    def run(count: int = 1, **changes: Any) -> tuple[Tensor, Tensor, Any]:
        captured = host.run(graph_of(count, **changes)).captured
        return captured["0"], captured["1"]["samples"], captured["2"]

    return run


@pytest.mark.parametrize("indices", ["0", "0, 4, 8", "-1, 0"])
def test_a_path_gives_every_frame_its_latents_and_its_cameras(sample, path, indices):
    at = [int(index) for index in indices.split(",")]
    frames, latents, cameras = sample(len(at), indices=indices)
    assert frames.shape == (V, SIZE, SIZE, 3)
    assert latents.shape == (V, 4, SIZE // 8, SIZE // 8)
    assert torch.equal(cameras.c2w, path.c2w)
    assert torch.equal(frames[at], pictures(len(at)))
    assert frames.isfinite().all()
    assert 0 <= frames.min() <= frames.max() <= 1


def test_pictures_need_not_be_put_back(host, sample, mini):
    frames, latents, _ = sample(keep_images=False)
    (decoded,) = host.run_node(
        "GenXD_DecodeViews", samples={"samples": latents}, vae=mini[1], frames_per_chunk=0
    )
    assert torch.equal(frames, decoded)
    assert not torch.equal(frames[0], pictures(1)[0])


def test_node_agrees_with_the_library(host, models, sample, path):
    pytest.importorskip("diffusers", reason="needs the extra `pipeline`")
    gx = host.module("genxd_core")
    pipe = gx.GenXDPipeline.from_pretrained(models / "mini")
    theirs = gx.generate_path(
        pipe,
        pictures(1).movedim(-1, 1),
        path[[0]],
        path,
        seed=1,
        num_inference_steps=STEPS,
        views_per_group=5,
        conditions_per_group=2,
    )
    _, ours, _ = sample()
    scaled = ours * pipe.vae.scaling_factor
    assert_same_up_to(scaled, theirs.latents, 1e-3 * float(theirs.latents.std()))


def test_one_group_is_what_condition_views_and_ksampler_give(host, mini, sample, path):
    short = path[:5]
    _, latents, _ = sample(cameras=short)
    positive, negative, latent = host.run_node(
        "GenXD_ConditionViews",
        vae=mini[1],
        images=pictures(1),
        cameras=short,
        indices="0",
        mode="3d",
        motion_strength=0.5,
    )
    noise = torch.stack(
        [
            host.module("genxd_core.long_paths.sampling").camera_noise(1, camera, (4, 4, 4))
            for camera in range(5)
        ]
    )
    import comfy.sample

    with torch.inference_mode():
        expected = host.call(
            lambda: comfy.sample.sample(
                *(mini[0], noise, STEPS, 3.0, "euler", "karras", positive, negative),
                latent["samples"],
                noise_mask=latent["noise_mask"],
                disable_pbar=True,
                seed=1,
            )
        )
    assert_same_up_to(latents, expected, 1e-5 * float(expected.std()))


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "dpm_2", "uni_pc"])
def test_seed_decides_with_every_sampler(sample, store, sampler):
    first = sample(sampler_name=sampler)[1].clone()
    store.clear()
    assert torch.equal(first, sample(sampler_name=sampler)[1])
    assert not torch.equal(first, sample(sampler_name=sampler, seed=2)[1])


def test_pictures_beside_the_path_are_taken_with_their_cameras(host, sample):
    beside = host.module("genxd_core").orbit(2, elevation_deg=25.0)
    frames, _, _ = sample(2, image_cameras=beside)
    assert all((frames != picture).any() for picture in pictures(2))


def test_one_bar_runs_over_all_groups_and_never_back(host, graph_of):
    run = host.run(graph_of())
    told = [(data["value"], data["max"]) for data in run.told("progress")]
    total = 1 + STEPS * GROUPS + V
    assert {most for _, most in told} == {total}
    assert [value for value, _ in told] == sorted(value for value, _ in told)
    assert told[-1] == (total, total)


def test_previews_show_a_frame_that_is_being_made(host, graph_of, monkeypatch):
    import latent_preview

    shown: list[Tensor] = []

    class Previewer:
        def decode_latent_to_preview_image(self, kind: str, x0: Tensor) -> tuple[str, Any, int]:
            shown.append(x0.clone())
            return (kind, None, 64)

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    latents = host.run(graph_of()).captured["1"]["samples"]
    assert len(shown) == GROUPS * STEPS
    assert all(x0.shape == (1, 4, 4, 4) for x0 in shown)
    # At the last step it is what comes out, in the sampler's units.
    ends = torch.cat(shown[STEPS - 1 :: STEPS])
    apart = (ends[:, None] - latents[None] * 0.18215).abs().flatten(2).amax(2).amin(1)
    assert float(apart.max()) < 1e-3


def interrupted(host, graph: dict[str, Any], model: Any, call: int) -> int:
    """Run, press the button in one call of the network, and return how many calls there were."""
    network = model.model.diffusion_model
    original = network.forward_embedded
    calls: list[int] = []

    def slow(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            host.interrupt()
        time.sleep(0.02)
        return original(*args, **options)

    network.forward_embedded = slow
    try:
        run = host.run(graph, check=False)
    finally:
        del network.forward_embedded
    assert call > len(calls) or "interrupted at GenXD_SamplePath" in run.error
    return len(calls)


def test_interrupt_takes_effect_within_a_step_and_the_next_run_goes_on(
    host, mini, graph_of, sample, store
):
    straight = sample()[1].clone()
    store.clear()
    # Guidance runs both branches in one call: the fifth is the first step of the third group.
    assert interrupted(host, graph_of(), mini[0], 2 * STEPS + 1) == 2 * STEPS + 1
    assert interrupted(host, graph_of(), mini[0], 99) == (GROUPS - 2) * STEPS
    assert torch.equal(sample()[1], straight)


@pytest.mark.parametrize(
    "change",
    [{"seed": 7}, {"steps": 3}, {"cfg": 2.0}, {"sampler_name": "heun"}, {"scheduler": "normal"}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_begin_anew(host, mini, graph_of, change):
    host.run(graph_of())
    assert interrupted(host, graph_of(**change), mini[0], 999) >= GROUPS * STEPS


def test_another_or_a_patched_model_begins_anew(host, mini, graph_of):
    host.run(graph_of())
    assert interrupted(host, graph_of(), mini[0], 999) == 0
    patched = mini[0].clone()
    assert interrupted(host, graph_of(model=patched), mini[0], 999) == GROUPS * STEPS


def test_the_network_sees_a_group_at_once_however_long_the_path(host, mini, sample, watched):
    path = host.module("genxd_core").orbit(30, azimuth_range_deg=(0.0, 200.0))
    with watched(mini[0]) as calls:
        frames, _, _ = sample(cameras=path, mode="4d", frames_per_chunk=4)
    assert len(frames) == 30
    assert {call["frames"] // len(call["cond_or_uncond"]) for call in calls} <= {3, 4, 5}


def refusal(host, graph: dict[str, Any]) -> str:
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": "first"}, '"first" is not a whole number'),
        ({"indices": "0, 3"}, 'images has 1 pictures, but indices "0, 3" has 2 positions'),
        ({"indices": "9"}, "indices has 9, expected positions from 0 to 8"),
        ({"indices": "8, -1"}, "name view 8 twice"),
        ({"views_per_group": 2}, "views_per_group is 2 and conditions_per_group 2, which leaves"),
        ({"grouping": "best"}, "grouping"),
        ({"mode": "video"}, "mode"),
        ({"images": torch.rand(1, 30, 32, 3)}, "the pictures are 32x30"),
        ({"images": torch.rand(1, 40, 40, 3)}, "the pictures are 40x40"),
        ({"images": torch.full((1, 32, 32, 3), torch.nan)}, "images holds values that are not"),
        ({"model": object()}, "model is not a GenXD model"),
        ({"vae": object()}, "vae is empty"),
    ],
)
def test_user_mistakes_are_named(host, graph_of, changes, message):
    assert message in refusal(host, graph_of(**changes))


def test_number_of_image_cameras_is_that_of_the_pictures(host, graph_of, path):
    said = refusal(host, graph_of(image_cameras=path[[0, 1]]))
    assert "images has 1 pictures, but image_cameras has 2 cameras" in said


def test_a_path_of_given_cameras_only_is_refused(host, graph_of, path):
    said = refusal(host, graph_of(2, cameras=path[:2], indices="0, 1"))
    assert "indices name all 2 views, so there is nothing to generate" in said
    said = refusal(host, graph_of(2, cameras=path[:2], image_cameras=path[:2]))
    assert "path has 2 cameras, and every one of them is a given picture's" in said

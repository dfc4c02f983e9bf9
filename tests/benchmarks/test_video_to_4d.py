"""The benchmark of video to 4D compares with what the cameras see in truth."""

import pytest
import torch

import genxd_core as gx
from benchmarks.video_to_4d import FIRST_SCENE, moved_scenes, on_film, turned_about
from genxd_core.synthetic import make_clips
from tests.nodes.scenes import make_mini_model

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")


def test_scenes_are_those_that_move():
    seeds = moved_scenes(3)
    assert seeds[0] >= FIRST_SCENE
    assert make_clips(seeds, "nano_video").motion_strength.min() >= 0.02


def test_cameras_turn_about_the_scenes_middle():
    camera = make_clips([FIRST_SCENE], "nano_video").cameras(0)[[0]]
    turned = turned_about(camera, [0.0, 90.0])
    assert torch.equal(turned.c2w[0], camera.c2w[0])
    x, y, z = camera.centres[0]
    torch.testing.assert_close(turned.centres[1], torch.stack([-y, x, z]))


@pytest.mark.slow
def test_a_row_has_both_fits_and_every_stage(tmp_path):
    pipe = gx.GenXDPipeline.from_pretrained(make_mini_model(tmp_path / "mini"))
    row = on_film(
        pipe,
        FIRST_SCENE,
        views=[-20.0, 0.0, 20.0],
        between=[10.0],
        static=[-10.0, 0.0, 10.0],
        num_frames=4,
        size=32,
        num_inference_steps=2,
        guidance_scale=1.0,
        recipe=gx.adjusted_recipe_4d("test", iterations=3, num_gaussians=60),
    )
    for name in ("views", "between"):
        for when in ("before", "longer", "after"):
            assert 3 < row[f"{name}_psnr_{when}"] < 40
            assert 0 < row[f"{name}_flicker_{when}"] < 1
    stages = [value for key, value in row.items() if key.endswith("_seconds")]
    assert len(stages) == 5
    assert sum(stages) == pytest.approx(row["seconds"], rel=0.1)

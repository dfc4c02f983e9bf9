"""The benchmark of fits compares with views that the fits did not have."""

from dataclasses import replace

import pytest

import genxd_core as gx
from benchmarks.fit import FIRST_OBJECT, on_capture, on_objects, with_generated_views
from genxd_core.synthetic import make_object_views
from tests.nodes.scenes import make_mini_model

pytestmark = pytest.mark.slow  # fits

RECIPE = replace(gx.RECIPES["test"], iterations=10, num_gaussians=200)


def test_objects_are_averaged_over_scenes():
    row = on_objects("test", 24, True, [FIRST_OBJECT, FIRST_OBJECT + 1], "cpu")
    assert row["scenes"] == len(row["by_scene"]) == 2
    assert row["held_out_psnr_db"] == pytest.approx(sum(row["by_scene"]) / 2, abs=0.01)
    assert row["start"] == "masks"
    assert row["fitted_psnr_db"] > row["held_out_psnr_db"] > 10


def test_every_third_photo_of_a_capture_is_held_out(tmp_path):
    views = make_object_views(FIRST_OBJECT, size=24, num_training=6, num_held_out=0)
    names = tuple(f"{number}.png" for number in range(6))
    capture = gx.Capture(views.images, views.cameras, None, names)
    row = on_capture(capture, RECIPE, "cpu", tmp_path)
    assert row["held_out"] == ["1.png", "4.png"]
    assert len(row["by_photo"]) == 2
    assert sum(row["by_photo"]) / 2 == pytest.approx(row["held_out_psnr_db"], abs=0.2)
    assert (tmp_path / "capture.png").is_file()


def test_generated_views_and_the_given_alone_are_seen_by_the_same_cameras(tmp_path):
    pytest.importorskip("diffusers", reason="needs the extra `pipeline`")
    pipe = gx.GenXDPipeline.from_pretrained(make_mini_model(tmp_path / "mini"))
    row = with_generated_views(
        pipe,
        RECIPE,
        scenes=2,
        num_views=13,
        size=32,
        pictures=tmp_path,
        num_inference_steps=1,
    )
    assert (row["views"], row["unseen"], row["scenes"]) == (13, 12, 2)
    gains = row["gain_by_scene_db"]
    assert sum(gains) / 2 == pytest.approx(row["psnr_generated"] - row["psnr_alone"], abs=0.02)
    assert (tmp_path / "views.png").is_file()

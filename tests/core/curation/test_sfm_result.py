from dataclasses import replace

import pytest
import torch

import genxd_core as gx
from genxd_core.cameras.undistort import distort
from genxd_core.curation.sfm_result import (
    MapperTry,
    SfmResult,
    SfmThresholds,
    SparseDepth,
    explain,
    judge,
)
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.point_cloud import PointCloud
from tests.support import assert_same_up_to, seeded


def good(frames=12, **changes):
    result = SfmResult(
        frames=frames,
        size=(80, 60),
        registered=tuple(range(frames)),
        cameras=gx.sway(frames, aspect=80 / 60),
        distortion=({},) * frames,
        points=PointCloud(torch.zeros(5, 3)),
        sparse_depth=(SparseDepth(torch.zeros(0, 2), torch.zeros(0)),) * frames,
        reprojection_error_px=0.3,
        triangulated_fraction=0.5,
        mapper="global",
        mask_share=(0.2,) * frames,
    )
    return replace(result, **changes)


def without(last):
    """The cameras of the last frames are missing."""
    count = 12 - last
    return {"registered": tuple(range(count)), "cameras": gx.sway(count)}


NO_MODEL = {"registered": (), "cameras": None, "points": None}


def test_good_result_is_not_rejected():
    assert judge(good()) is None


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        ({"frames": 11}, "too_few_frames", "has 11 frames; 12 are needed"),
        ({"mask_share": (0.95,) * 6 + (0.1,) * 6}, "mask_covers_frame", "90% of 6 of 12 frames"),
        (
            {**without(1), "mask_share": (0.1,) * 11 + (1.0,)},
            "mask_covers_frame",
            "90% of 1 of 12 frames",
        ),
        (NO_MODEL, "no_reconstruction", "No model of the still parts"),
        ({"triangulated_fraction": 0.149}, "low_triangulation", "Only 15% of the keypoints"),
        ({"triangulated_fraction": None}, "low_triangulation", "turns on the spot"),
        ({"points": None, "triangulated_fraction": 0.0}, "low_triangulation", "Only 0%"),
        (without(1), "partial_registration", "Only 11 of 12 frames got a camera"),
        ({"reprojection_error_px": 1.51}, "high_reprojection_error", "1.51 pixels beside"),
        ({"reprojection_error_px": float("nan")}, "high_reprojection_error", "pixels beside"),
    ],
)
def test_bad_result_is_rejected_with_a_plain_sentence(changes, reason, told):
    result = good(**changes)
    assert judge(result) == reason
    sentence = explain(reason, result)
    assert told in sentence
    assert sentence.endswith(".")


def test_first_of_several_reasons_is_told():
    bad = good(**NO_MODEL, frames=5, mask_share=(1.0,) * 5)
    assert judge(bad) == "too_few_frames"
    assert judge(bad, SfmThresholds(min_frames=3)) == "mask_covers_frame"
    assert judge(good(**without(1), triangulated_fraction=0.05)) == "low_triangulation"


def test_thresholds_are_the_callers():
    loose = SfmThresholds(
        min_triangulated=0.1, min_registered=0.9, max_reprojection_error_px=2.0, min_frames=2
    )
    bad = good(**without(1), triangulated_fraction=0.12, reprojection_error_px=1.9)
    assert judge(bad, loose) is None


def test_few_covered_frames_with_cameras_are_no_reason():
    assert judge(good(mask_share=(0.95,) * 5 + (0.1,) * 7)) is None


def test_reason_of_another_stage_is_not_explained():
    with pytest.raises(InvalidInputError, match="reason is 'low_motion'"):
        explain("low_motion", good())


def test_ratio_focal_and_models_are_derived():
    tries = [
        MapperTry(
            *(),
            mapper=mapper,
            window=0,
            frames=12,
            registered=6,
            points=9,
            reprojection_error_px=0.1,
            models=models,
            seconds=1.0,
            chosen=chosen,
        )
        for mapper, models, chosen in [("global", 3, False), ("incremental", 2, True)]
    ]
    result = good(**without(6), tries=tuple(tries))
    assert (result.registration_ratio, result.models) == (0.5, 2)
    # sway's focal length is 1.0938 of the smaller side by default.
    assert good().focal_norm == pytest.approx(1.0938, abs=1e-4)
    assert good(**NO_MODEL).focal_norm is None


def test_undistorted_places_are_where_the_pinhole_shows_the_points():
    k1, count = 0.1, 3
    lens = gx.sway(count, aspect=80 / 60)
    points = (torch.rand(50, 2, generator=seeded(2)) - 0.5) * torch.tensor([0.9, 0.6])
    K = lens.Ks(80, 60)[0]
    places = distort(points, {"k1": k1}) * K[[0, 1], [0, 1]] + K[:2, 2]
    result = good(
        count,
        cameras=lens,
        distortion=({"k1": k1},) * count,
        sparse_depth=(SparseDepth(places, torch.ones(50)),) * count,
    )
    images = torch.rand(count, 3, 60, 80, generator=seeded(3))
    pictures, plain = result.undistorted(images)
    pinhole = plain.cameras.Ks(80, 60)[0]
    expected = points * pinhole[[0, 1], [0, 1]] + pinhole[:2, 2]
    assert_same_up_to(plain.sparse_depth[0].places, expected, 1e-3)
    assert torch.equal(plain.sparse_depth[0].depth, torch.ones(50))
    assert plain.distortion == ({},) * count
    assert pictures.shape == images.shape


def test_undistorted_without_distortion_gives_the_registered_frames():
    images = torch.rand(12, 3, 60, 80, generator=seeded())
    result = good(registered=(0, 2, 5), cameras=gx.sway(3), distortion=({},) * 3)
    pictures, plain = result.undistorted(images)
    assert plain is result
    assert torch.equal(pictures, images[[0, 2, 5]])
    with pytest.raises(InvalidInputError, match=r"expected the 12 pictures"):
        result.undistorted(images[:5])

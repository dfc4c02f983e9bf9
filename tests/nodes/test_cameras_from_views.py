"""Fitting a path to given views in a graph."""

from typing import Any

import pytest
import torch

from tests.support import assert_same_up_to

SPLINE = {"path": "spline", "path.smoothness": 0.0, "path.rotation_weight": 0.1}
SPIRAL = {"path": "spiral", "path.turns": 1.0}
ELLIPSE = {"path": "ellipse", "path.z_variation": 0.0}
NO_SHIFT = {"shift_x": 0.0, "shift_y": 0.0, "shift_z": 0.0}


def keys(host) -> Any:
    return host.module("genxd_core").sway(5, azimuth_range_deg=(-20.0, 20.0), elevation_deg=8.0)


def fit(host, kind=SPLINE, **changes) -> Any:
    inputs = {"cameras": keys(host), "num_views": 20, **kind, **NO_SHIFT, **changes}
    (cameras,) = host.run_node("GenXD_CamerasFromViews", **inputs)
    return cameras


@pytest.mark.parametrize("kind", [SPLINE, SPIRAL, ELLIPSE], ids=lambda kind: kind["path"])
def test_path_is_the_librarys(host, kind):
    gx = host.module("genxd_core")
    make = {"spline": gx.interpolate, "spiral": gx.spiral, "ellipse": gx.ellipse}[kind["path"]]
    options = {key.removeprefix("path."): v for key, v in kind.items() if key != "path"}
    shifts = [(0.0, 0.0, 0.4), (0.0, 0.0, -0.4)]
    expected = make(keys(host), 20, shifts=shifts, **options)
    cameras = fit(host, kind, shift_z=0.4)
    assert len(cameras) == 60
    assert torch.equal(cameras.c2w, expected.c2w)


def test_side_shifts_come_after_the_path_one_side_then_the_other(host):
    plain, shifted = fit(host), fit(host, shift_x=0.4, shift_y=-0.2)
    assert len(shifted) == 5 * len(plain)
    parts = shifted.centres.reshape(5, 20, 3)
    assert torch.equal(parts[0], plain.centres)
    offsets = (parts[1:] - parts[0])[:, 0]
    assert_same_up_to(offsets[0], -offsets[1], 1e-6)
    assert_same_up_to(offsets[2], -offsets[3], 1e-6)
    assert offsets[0, 0] > 0 > offsets[2, 1]
    assert not offsets[0, 1:].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "circle"}, 'path is "circle"; expected one of "spline", "spiral", "ellipse"'),
        ({"num_views": 0}, "num_views"),
        ({"shift_x": 9.0}, "shift_x"),
    ],
)
def test_user_mistakes_are_named(host, changes, message):
    graph = {
        "cameras": host.value(keys(host)),
        "fit": {
            "class_type": "GenXD_CamerasFromViews",
            "inputs": {"cameras": ["cameras", 0], "num_views": 20, **SPLINE, **NO_SHIFT, **changes},
        },
        "out": host.capture(["fit", 0]),
    }
    run = host.run(graph, check=False)
    assert not run.captured
    assert message in run.error


def test_one_view_is_too_few(host):
    gx = host.module("genxd_core")
    with pytest.raises(AssertionError, match=r"GenXD Cameras From Views: cameras has 1 key views"):
        fit(host, cameras=gx.sway(1))

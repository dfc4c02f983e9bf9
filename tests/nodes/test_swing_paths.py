"""Paths out to views and back, in a graph."""

from typing import Any

import pytest
import torch

from tests.nodes.splats import refusal

NODE = "GenXD_SwingPaths"


@pytest.fixture(scope="module")
def around(host) -> Any:
    return host.module("genxd_core").orbit(6, azimuth_range_deg=(-30.0, 30.0))


def test_paths_are_the_librarys_one_after_the_other(host, around):
    film, views = around[[2]], around[[0, 5]]
    given = {"input_cameras": film, "view_cameras": views, "num_frames": 9, "window": 6}
    cameras, conditions = host.run_node(NODE, **given)
    swings = host.module("genxd_core").swing_paths(film, views, 9, window=6)
    assert len(cameras) == 18
    assert torch.equal(cameras.c2w, torch.cat([path.c2w for path in swings.paths]))
    assert torch.equal(cameras.times[9:], cameras.times[:9])
    assert conditions == ", ".join(map(str, swings.conditions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view_cameras": [2, 2]}, "every one of them is the video's own"),
        ({"input_cameras": [0, 1]}, "video has 12 frames, but input_cameras has 2 cameras"),
        ({"num_frames": 2}, "num_frames"),
    ],
)
def test_mistakes_are_named(host, around, changes, message):
    given: dict[str, Any] = {"input_cameras": [2], "view_cameras": [0, 5]} | changes
    cameras = {name: around[given.pop(name)] for name in ("input_cameras", "view_cameras")}
    assert message in refusal(host, NODE, **{"num_frames": 12, "window": 12} | cameras | given)

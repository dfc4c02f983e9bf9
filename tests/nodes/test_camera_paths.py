"""Making and changing camera paths in a graph."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host.in_process import Host
from tests.support import assert_same_up_to

SWING = {"azimuth_from": -30.0, "azimuth_to": 30.0, "elevation": 0.0, "radius": 2.0}
PRESETS: dict[str, dict[str, Any]] = {
    "orbit": {"azimuth_from": 0.0, "azimuth_to": 360.0, "elevation": 0.0, "radius": 2.0},
    "forward-facing": SWING,
    "forward-facing (original, jumps)": SWING,
    "dolly": {"distance": 0.5, "keep_target_size": False, "radius": 2.0},
    "slide": {"right": 0.5, "up": 0.0, "radius": 2.0},
    "pan": {"angle": 30.0, "radius": 2.0},
    "tilt": {"angle": 20.0, "radius": 2.0},
    "roll": {"angle": 30.0, "radius": 2.0},
    "static": {"elevation": 0.0, "radius": 2.0},
}
FRAME = {"num_views": 8, "easing": "linear", "focal": 1.0938, "width": 256, "height": 256}


def inputs(preset: str, **changes: Any) -> dict[str, Any]:
    """All inputs of GenXD_MakeCameraPath in API form; ``changes`` of either kind."""
    nested = {key: changes.pop(key, value) for key, value in PRESETS[preset].items()}
    return {"path": preset, **{f"path.{key}": v for key, v in nested.items()}, **FRAME, **changes}


def make(host: Host, preset: str, **changes: Any) -> Any:
    (cameras,) = host.run_node("GenXD_MakeCameraPath", **inputs(preset, **changes))
    return cameras


def refusal(host: Host, preset: str, **changes: Any) -> str:
    graph = {
        "1": {"class_type": "GenXD_MakeCameraPath", "inputs": inputs(preset, **changes)},
        "2": host.capture(["1", 0]),
    }
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


def turned_deg(cameras: Any) -> Tensor:
    """How far each camera is turned against the first, about whatever axis."""
    first, all_of = cameras.c2w[0, :3, :3].double(), cameras.c2w[:, :3, :3].double()
    cosine = ((first.T @ all_of).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))


def moved(cameras: Any) -> Tensor:
    """Where each camera stands in the first one's axes: right, down, forward."""
    offsets = cameras.centres - cameras.centres[0]
    return (cameras.c2w[0, :3, :3].T @ offsets.T).T


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts_level_at_its_radius_and_has_even_times(host, preset):
    cameras = make(host, preset)
    assert len(cameras) == 8
    assert_same_up_to(cameras.centres[0], torch.tensor([0.0, 2.0, 0.0]), 1e-6)
    assert_same_up_to(cameras.c2w[0, :3, 2], torch.tensor([0.0, -1.0, 0.0]), 1e-6)
    assert_same_up_to(cameras.times, torch.linspace(0, 1, 8), 1e-6)


def test_presets_are_all_in_the_menu(host):
    schema = host.nodes.NODE_CLASS_MAPPINGS["GenXD_MakeCameraPath"].GET_SCHEMA()
    (path,) = (item for item in schema.inputs if item.id == "path")
    menu = {
        option.key: {item.id: item.default for item in option.inputs} for option in path.options
    }
    assert menu == PRESETS


def test_orbit_keeps_its_distance_and_height(host):
    cameras = make(host, "orbit", elevation=30.0, radius=3.0, azimuth_to=180.0)
    assert_same_up_to(cameras.centres.norm(dim=-1), torch.full((8,), 3.0), 1e-5)
    assert_same_up_to(cameras.centres[:, 2], torch.full((8,), 1.5), 1e-5)
    azimuth = torch.rad2deg(torch.atan2(*cameras.centres[:, :2].double().unbind(-1)))
    assert_same_up_to(azimuth, torch.arange(8) * 22.5, 1e-3)


def test_forward_facing_swings_to_both_sides_without_a_jump(host):
    azimuth = [
        torch.rad2deg(torch.atan2(*make(host, name, num_views=48).centres[:, :2].unbind(-1)))
        for name in ("forward-facing", "forward-facing (original, jumps)")
    ]
    assert [float(a.max()) for a in azimuth] == pytest.approx([30, 30], abs=3)
    assert [float(a.min()) for a in azimuth] == pytest.approx([-30, -30], abs=3)
    jumps = [float((a[1:] - a[:-1]).abs().max()) for a in azimuth]
    assert jumps[0] < 5 < 25 < jumps[1]


def test_dolly_moves_forward_and_dolly_zoom_keeps_the_target_size(host):
    cameras = make(host, "dolly", distance=1.0, keep_target_size=True)
    assert_same_up_to(moved(cameras)[-1], torch.tensor([0.0, 0.0, 1.0]), 1e-5)
    # Half the distance is left: half the focal length.
    assert float(cameras.Ks_norm[-1, 0, 0]) == pytest.approx(1.0938 / 2, rel=1e-5)
    assert float(make(host, "dolly").Ks_norm[-1, 0, 0]) == pytest.approx(1.0938, rel=1e-5)


def test_slide_moves_right_and_up(host):
    cameras = make(host, "slide", right=0.3, up=0.2)
    assert_same_up_to(moved(cameras)[-1], torch.tensor([0.3, -0.2, 0.0]), 1e-5)
    assert float(turned_deg(cameras).max()) < 0.1


@pytest.mark.parametrize(
    ("preset", "axis", "sign"), [("pan", 0, 1), ("tilt", 1, -1), ("roll", None, 0)]
)
def test_turns_go_where_they_say_on_the_spot(host, preset, axis, sign):
    cameras = make(host, preset, angle=40.0)
    assert float(moved(cameras).abs().max()) < 1e-5
    assert float(turned_deg(cameras)[-1]) == pytest.approx(40.0, abs=1e-2)
    if axis is not None:
        forward = cameras.c2w[0, :3, :3].T @ cameras.c2w[-1, :3, 2]
        assert float(forward[axis]) == pytest.approx(sign * math.sin(math.radians(40)), abs=1e-4)


def test_static_stands_still_at_its_elevation(host):
    cameras = make(host, "static", elevation=30.0)
    assert float(cameras.centres[0, 2]) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(cameras.c2w, cameras.c2w[:1].expand(8, 4, 4))


def test_easing_changes_speed_but_not_the_ends(host):
    steady, eased = make(host, "dolly"), make(host, "dolly", easing="ease-in-out")
    assert_same_up_to(eased.centres[[0, -1]], steady.centres[[0, -1]], 1e-6)
    first, middle = (float(x) for x in moved(eased)[[1, 4], 2] - moved(eased)[[0, 3], 2])
    assert first < middle / 2


@pytest.mark.parametrize(("width", "height"), [(256, 256), (512, 256), (256, 512)])
def test_focal_length_is_of_the_shorter_side_and_pixels_are_square(host, width, height):
    K = make(host, "static", width=width, height=height).Ks_norm[0]
    assert float(K[0, 0]) * width == pytest.approx(1.0938 * 256, rel=1e-5)
    assert float(K[1, 1]) * height == pytest.approx(1.0938 * 256, rel=1e-5)


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("orbit", {"radius": 0.0}, "Value 0.0 smaller than min of 0.05: path.radius"),
        ("orbit", {"elevation": 89.0}, "bigger than max of 85.0: path.elevation"),
        ("orbit", {"radius": float("nan")}, "path.radius is nan; expected a number from 0.05"),
        ("orbit", {"radius": "wide"}, "Failed to convert.*path.radius, wide"),
        ("pan", {"angle": float("inf")}, "bigger than max of 360.0: path.angle"),
        ("pan", {"easing": "sudden"}, "easing: 'sudden' not in"),
        ("pan", {"num_views": 1}, "Value 1 smaller than min of 2: num_views"),
        ("pan", {"num_views": 2000}, "bigger than max of 1024: num_views"),
        ("pan", {"focal": 0.0}, "smaller than min of 0.1: focal"),
        (
            "forward-facing",
            {"azimuth_from": 10.0},
            "path.azimuth_from is 10 and path.azimuth_to 30; the swing starts at 0",
        ),
        (
            "forward-facing (original, jumps)",
            {"num_views": 10},
            "GenXD Make Camera Path: num_views is 10; .*multiple of 4 .8 or 12",
        ),
        (
            "dolly",
            {"distance": 2.0, "keep_target_size": True},
            "distance is 2.0 and radius 2.0: a dolly zoom cannot reach its target",
        ),
        ("pan", {"path": "spirograph"}, 'path is "spirograph"; expected one of "orbit", "forward'),
        ("pan", {"path": None}, "path is missing or unknown; expected one of"),
    ],
)
def test_refused_paths_name_node_input_value_and_remedy(host, preset, changes, message):
    import re

    told = refusal(host, preset, **changes)
    assert re.search(message, told), told
    assert "GenXD_MakeCameraPath" in told


def test_missing_number_of_a_preset_is_named(host):
    given = inputs("orbit")
    del given["path.radius"]
    graph = {
        "1": {"class_type": "GenXD_MakeCameraPath", "inputs": given},
        "2": host.capture(["1", 0]),
    }
    assert "Required input is missing: radius" in host.run(graph, check=False).error


def test_leftover_numbers_of_another_preset_do_not_matter(host):
    cameras = make(host, "pan", **{"path.distance": 3.0, "path.azimuth_to": 1e9})
    assert torch.equal(cameras.c2w, make(host, "pan").c2w)


def test_number_through_a_link_is_checked_too(host):
    """ComfyUI checks bounds of what is typed in, not of what another node gives."""
    graph = {
        "value": host.value(1e9),
        "1": {
            "class_type": "GenXD_MakeCameraPath",
            "inputs": {**inputs("pan"), "focal": ["value", 0]},
        },
        "2": host.capture(["1", 0]),
    }
    told = host.run(graph, check=False).error
    assert "focal is 1000000000.0; expected a number from 0.1 to 20" in told
    for value, said in ((5.5, "is 5.5"), ("twelve", "is 'twelve'"), (True, "is True")):
        graph["value"] = host.value(value)
        graph["1"]["inputs"] = {**inputs("pan"), "num_views": ["value", 0]}
        told = host.run(graph, check=False).error
        assert f"num_views {said}; expected a whole number from 2 to 1024" in told
    graph["value"] = host.value("sudden")
    graph["1"]["inputs"] = {**inputs("pan"), "easing": ["value", 0]}
    assert 'easing is "sudden"; expected one of "linear"' in host.run(graph, check=False).error


# ---- editing ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(host) -> Any:
    return make(host, "orbit", azimuth_to=90.0)


def edit(host: Host, cameras: Any, kind: str, **values: Any) -> Any:
    nested = {f"edit.{key}": value for key, value in values.items()}
    (changed,) = host.run_node("GenXD_EditCameras", cameras=cameras, edit=kind, **nested)
    return changed


def test_reverse_runs_the_path_backwards_in_time(host, path):
    changed = edit(host, path, "reverse")
    assert torch.equal(changed.c2w, path.c2w.flip(0))
    assert_same_up_to(changed.times, torch.linspace(0, 1, 8), 1e-6)


def test_loop_comes_back(host, path):
    back = edit(host, path, "loop", loop_mode="there-and-back")
    assert torch.equal(back.c2w, torch.cat([path.c2w, path.c2w[1:-1].flip(0)]))
    assert len(edit(host, path, "loop", loop_mode="closed")) == 8


@pytest.mark.parametrize("kind", ["resample", "even speed"])
def test_resampling_keeps_the_ends(host, path, kind):
    changed = edit(host, path, kind, num_views=15)
    assert len(changed) == 15
    assert_same_up_to(changed.c2w[[0, -1]], path.c2w[[0, -1]], 1e-6)
    assert_same_up_to(changed.c2w[::2], path.c2w, 1e-4)


def test_easing_of_a_path_keeps_the_ends(host, path):
    changed = edit(host, path, "ease", easing="ease-in-out")
    assert_same_up_to(changed.c2w[[0, -1]], path.c2w[[0, -1]], 1e-6)
    assert not torch.equal(changed.c2w[1], path.c2w[1])


def test_scaling_multiplies_distances(host, path):
    assert_same_up_to(edit(host, path, "scale", factor=2.5).centres, 2.5 * path.centres, 1e-5)
    scaled = edit(host, path, "scale to", scale=7.0).centres
    assert float((scaled - scaled[0]).norm(dim=-1).max()) == pytest.approx(7.0, rel=1e-5)


def test_relative_to_a_view_makes_it_the_origin(host, path):
    for view in (3, -5):
        changed = edit(host, path, "relative to view", view=view)
        assert_same_up_to(changed.c2w[3], torch.eye(4), 1e-6)


def test_slice_keeps_what_it_says(host, path):
    changed = edit(host, path, "slice", first=2, count=3)
    assert torch.equal(changed.c2w, path.c2w[2:5])


def test_hold_keeps_one_camera_while_time_goes_on(host, path):
    changed = edit(host, path, "hold", view=-1, num_views=3)
    assert torch.equal(changed.c2w, path.c2w[[-1, -1, -1]])
    assert changed.times.tolist() == [0.0, 0.5, 1.0]


def test_clips_that_are_joined_keep_their_times(host, path):
    changed = edit(host, path, "join clips", second=make(host, "pan", num_views=4))
    assert len(changed) == len(path) + 4
    expected = torch.cat([path.times, torch.linspace(0, 1, 4).to(path.times)])
    torch.testing.assert_close(changed.times, expected)


def test_join_puts_paths_one_after_the_other_with_times_of_the_whole(host, path):
    changed = edit(host, path, "join", second=make(host, "pan", num_views=4))
    assert torch.equal(changed.c2w[:8], path.c2w)
    assert_same_up_to(changed.times, torch.linspace(0, 1, 12), 1e-6)
    gx = host.module("genxd_core")
    assert edit(host, gx.pan(3), "join", second=gx.pan(2)).times is None


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("slice", {"first": 6, "count": 3}, "asks for cameras 6 to 8, but the path has 8"),
        (
            "relative to view",
            {"view": 8},
            "edit.view is 8, but the path has 8 cameras; give 0 to 7",
        ),
        ("scale", {"factor": 0.0}, "smaller than min of 0.0001: edit.factor"),
        ("scale", {"factor": float("nan")}, "edit.factor is nan"),
        ("join", {}, "Required input is missing: second"),
        ("loop", {"loop_mode": "round"}, "edit.loop_mode: 'round' not in"),
        ("mirror", {}, 'edit is "mirror"; expected one of "reverse"'),
    ],
)
def test_refused_edits_name_input_and_value(host, path, kind, values, message):
    nested = {f"edit.{key}": value for key, value in values.items()}
    graph = {
        "path": host.value(path),
        "1": {
            "class_type": "GenXD_EditCameras",
            "inputs": {"cameras": ["path", 0], "edit": kind, **nested},
        },
        "2": host.capture(["1", 0]),
    }
    told = host.run(graph, check=False).error
    assert message in told
    assert "GenXD_EditCameras" in told


def test_anything_else_than_a_path_is_refused(host):
    graph = {
        "path": host.value({"c2w": 1}),
        "1": {
            "class_type": "GenXD_EditCameras",
            "inputs": {"cameras": ["path", 0], "edit": "reverse"},
        },
        "2": host.capture(["1", 0]),
    }
    told = host.run(graph, check=False).error
    assert "GenXD Edit Cameras: cameras is a dict; expected a camera path" in told

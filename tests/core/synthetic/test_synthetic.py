"""Procedural clips: geometry, truth and seeds."""

from dataclasses import replace

import pytest
import torch

from genxd_core.errors import InvalidInputError
from genxd_core.synthetic import FAMILIES, make_clips
from genxd_core.synthetic.camera_paths import PATHS, look_at, sample_path
from genxd_core.synthetic.motion import balls, motion_strength
from genxd_core.synthetic.raycast import render
from genxd_core.synthetic.scenes import BOX, ELLIPSOID, Scenes
from tests.support import assert_same_up_to


def one_object(kind, half_size, center):
    return Scenes(
        present=torch.ones(1, 1),
        kind=torch.tensor([[kind]]),
        center=torch.tensor([[center]]),
        yaw=torch.zeros(1, 1),
        half_size=torch.tensor([[half_size]]),
        color=torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]]),
        texture=torch.zeros(1, 1, 3),
        floor_color=torch.full((1, 2, 3), 0.5),
        floor=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        sky=torch.ones(1, 2, 3),
        light=torch.tensor([[0.0, 0.0, 1.0]]),
    )


def seen(scene, c2w, size=65):
    K = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    views = len(c2w)
    return render(
        scene,
        scene.center[:, None].expand(-1, views, -1, -1),
        torch.zeros(1, views, 1),
        c2w[None],
        K.expand(1, views, 3, 3),
        height=size,
        width=size,
    )


def test_ball_in_the_middle_has_the_depth_and_outline_of_the_formula():
    c2w = look_at(torch.tensor([[0.0, -3.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    out = seen(one_object(ELLIPSOID, [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]), c2w)
    assert float(out.depth[0, 0, 32, 32]) == pytest.approx(2.5, abs=1e-4)
    # The outline of a sphere of radius r at distance d is r / sqrt(d^2 - r^2) from the middle.
    radius_px = 0.5 / (9 - 0.25) ** 0.5 * 65
    area = float((out.ids[0, 0] == 1).sum())
    assert area == pytest.approx(torch.pi * radius_px**2, rel=0.02)


def test_box_face_has_constant_z_depth():
    c2w = look_at(torch.tensor([[0.0, -3.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    out = seen(one_object(BOX, [0.5, 0.4, 0.5], [0.0, 0.0, 1.0]), c2w)
    depths = out.depth[0, 0][out.ids[0, 0] == 1]
    assert_same_up_to(depths, torch.full_like(depths, 2.6), 1e-4)
    assert len(depths) == pytest.approx((2 * 0.5 / 2.6 * 65) ** 2, rel=0.05)


def test_object_on_the_right_appears_on_the_right_and_upright():
    c2w = look_at(torch.tensor([[0.0, -3.0, 0.6]]), torch.tensor([[0.0, 0.0, 0.6]]))
    out = seen(one_object(ELLIPSOID, [0.2, 0.2, 0.2], [0.5, 0.0, 1.0]), c2w)
    rows, columns = (out.ids[0, 0] == 1).nonzero().float().mean(dim=0)
    assert columns > 32 > rows
    assert float(out.depth[0, 0, 0, 0]) == 0.0  # sky above, floor below
    assert float(out.depth[0, 0, -1, 32]) > 0.0


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_depth_lifts_every_object_pixel_onto_the_object(supersample):
    clip = make_clips([3], "nano_3d", size=32, supersample=supersample)
    points = lift(clip)
    for slot in range(clip.object_center.shape[2]):
        mask = clip.ids[0] == slot + 1
        if not mask.any():
            continue
        reach = (points[mask] - clip.object_center[0, 0, slot]).norm(dim=-1)
        half = clip.scenes.half_size[0, slot]
        assert float(reach.max()) <= float(half.norm()) + 1e-3
        assert float(reach.min()) >= float(half.min()) - 1e-3


def lift(clip):
    height, width = clip.depth.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    rays = torch.einsum(
        "vij,hwj->vhwi",
        torch.linalg.inv(clip.Ks_norm[0]),
        torch.stack([x, y, torch.ones_like(x)], -1),
    )
    local = rays * clip.depth[0][..., None]
    turned = torch.einsum("vij,vhwj->vhwi", clip.c2w[0, :, :3, :3], local)
    return turned + clip.c2w[0, :, None, None, :3, 3]


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_floor_pixels_lie_on_the_floor(supersample):
    clip = make_clips([5], "nano_3d", size=32, supersample=supersample)
    floor = (clip.ids[0] == 0) & (clip.depth[0] > 0) & (clip.depth[0] < 20)
    assert float(lift(clip)[floor][:, 2].abs().max()) < 1e-4


def test_clip_depends_on_its_own_seed_alone():
    alone, among = make_clips([7], "nano_4d", size=16), make_clips([3, 7], "nano_4d", size=16)
    assert torch.equal(alone.images[0], among.images[1])
    assert torch.equal(alone.c2w[0], among.c2w[1])
    assert not torch.equal(among.images[0], among.images[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_renders(family):
    clips = make_clips([0, 1], family, size=(16, 24), num_frames=3)
    assert clips.images.shape == (2, 3, 3, 16, 24)
    assert 0.0 <= float(clips.images.min()) < float(clips.images.max()) <= 1.0
    assert len(clips.cameras(0)) == 3


def test_still_family_has_no_motion_and_moving_one_has():
    assert float(make_clips(range(8), "nano_3d", size=16).motion_strength.max()) < 1e-6
    moving = make_clips(range(8), replace(FAMILIES["nano_4d"], still_share=0.0), size=32)
    has_ball = balls(moving.scenes).any(dim=1)
    assert bool((moving.motion_strength[has_ball] > 1e-3).all())
    assert bool((moving.motion_strength[~has_ball] < 1e-6).all())


def test_motion_strength_of_a_known_shift_is_that_shift():
    # A wall-like box moved sideways by 0.1 at depth 2, focal length 1 picture: 0.05 of the picture.
    depth = torch.full((1, 2, 8, 8), 2.0)
    ids = torch.ones(1, 2, 8, 8, dtype=torch.long)
    center = torch.tensor([[[[0.0, 0.0, 2.0]], [[0.1, 0.0, 2.0]]]])
    c2w = torch.eye(4).expand(1, 2, 4, 4)
    K = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]).expand(1, 2, 3, 3)
    gamma = motion_strength(depth, ids, center, torch.zeros(1, 2, 1), c2w, K)
    assert_same_up_to(gamma, torch.tensor([[0.05]]), 1e-6)


def test_motion_strength_ignores_the_cameras_own_motion():
    still = make_clips([11], replace(FAMILIES["nano_4d"], motion=None), size=32)
    assert float(still.motion_strength.max()) < 1e-6


def test_motion_scale_sweeps_the_strength_of_one_scene():
    family = replace(FAMILIES["nano_video"], still_share=0.0)
    seed = next(s for s in range(20) if balls(make_clips([s], family, size=8).scenes).any())
    gammas = [
        float(make_clips([seed], family, size=32, motion_scale=m).motion_strength[0])
        for m in (0.0, 0.5, 1.0)
    ]
    assert gammas[0] < gammas[1] < gammas[2]


def test_hop_starts_and_ends_on_the_floor():
    clip = make_clips([0], replace(FAMILIES["nano_4d"], still_share=0.0), size=8, num_frames=5)
    assert_same_up_to(clip.object_center[0, -1], clip.object_center[0, 0], 1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_every_path_is_made_of_cameras_above_the_floor(name):
    for seed in range(20):
        c2w = sample_path(seed, {name: 1.0}, 12)
        rotation = c2w[:, :3, :3]
        eye = torch.eye(3).expand(12, 3, 3)
        assert_same_up_to(rotation @ rotation.transpose(1, 2), eye, 1e-4)
        assert float(torch.linalg.det(rotation).min()) > 0.99
        assert float(c2w[:, 2, 3].min()) > 0.1


def test_empty_scene_has_no_objects():
    clip = make_clips([0], "nano_3d", size=16, without_objects=True)
    assert int(clip.ids.max()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "nothing"}, "family is 'nothing', expected one of"),
        ({"family": "nano_3d", "size": 0}, "must be at least 1"),
        ({"family": "nano_3d", "num_frames": 0}, "must be at least 1"),
    ],
)
def test_impossible_clips_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_clips([0], **options)

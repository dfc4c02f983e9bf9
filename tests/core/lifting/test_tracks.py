"""Tracks: read, refused, and followed by fits of scenes in which something moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genxd_core import (
    RECIPES_BASES,
    Cameras,
    InvalidInputError,
    Tracks,
    fit_motion_bases,
    load_tracks,
    orbit,
)
from genxd_core.lifting.tracks import TrackFollower
from genxd_core.synthetic import HELD_OUT, SyntheticClips, make_clips
from tests.support import seeded

pytestmark = pytest.mark.slow  # fits

SIZE, FRAMES = 40, 16
RECIPE = replace(
    RECIPES_BASES["test"],
    static=replace(RECIPES_BASES["test"].static, iterations=60, num_gaussians=400),
    moving=replace(
        RECIPES_BASES["test"].moving, iterations=100, num_gaussians=150, max_gaussians=150
    ),
)


def views() -> Cameras:
    around = orbit(3, radius=3.0, azimuth_range_deg=(0.0, 30.0)).to("cpu", torch.float32)
    return Cameras(around.c2w, around.Ks_norm, torch.tensor([0.0, 0.5, 1.0]))


def projected(points: torch.Tensor, cameras: Cameras, view: int) -> torch.Tensor:
    local = points @ cameras.viewmats[view, :3, :3].T + cameras.viewmats[view, :3, 3]
    flat = local @ cameras.Ks_norm[view].T
    return flat[:, :2] / flat[:, 2:]


def test_a_right_motion_costs_nothing_and_a_wrong_one_what_it_is_off_by():
    cameras = views()
    point = torch.tensor([[0.05, -0.1, 0.1]])
    shift = torch.tensor([0.3, 0.0, 0.2])
    where = [point + time * shift for time in (0.0, 0.5, 1.0)]
    places = torch.stack([projected(p, cameras, view) for view, p in enumerate(where)])
    tracks = Tracks(places, torch.ones(3, 1))
    for wrong in (0.0, 0.1):
        follower = TrackFollower(
            tracks,
            cameras,
            (0, 2),
            lambda time, off=wrong: point + time * shift + off * cameras.c2w[2, :3, 0] * time,
            seed=0,
            device=torch.device("cpu"),
        )
        blended = follower.features(0)[0][None, :, None, None].expand(1, 3, SIZE, SIZE)
        alpha = torch.ones(1, 1, SIZE, SIZE)
        found = float(follower.loss(0, alpha, blended))
        depth = (where[2] - cameras.centres[2]) @ cameras.c2w[2, :3, 2]
        expected = wrong * float(cameras.Ks_norm[2, 0, 0] / depth)
        assert found == pytest.approx(expected, abs=1e-4)


def ball_tracks(clip: SyntheticClips) -> Tracks:
    """Points on the hopping ball as the first picture shows them, where nothing hides them."""
    moved = clip.object_center[0, :, :, 2]
    ball = int((moved.amax(0) - moved.amin(0)).argmax())
    cameras, depth = clip.cameras(0), clip.depth[0]
    y, x = (clip.ids[0, 0] == ball + 1).nonzero()[::7].unbind(-1)
    at = (torch.stack([x, y], -1) + 0.5) / SIZE
    rays = torch.cat([at, torch.ones(len(at), 1)], 1) @ cameras.Ks_norm[0].inverse().T
    local = rays * depth[0, y, x, None]
    surface = local @ cameras.c2w[0, :3, :3].T + cameras.c2w[0, :3, 3]
    places, seen = [], []
    for view in range(FRAMES):
        points = surface + clip.object_center[0, view, ball] - clip.object_center[0, 0, ball]
        place = projected(points, cameras, view)
        pixel = (place * SIZE).long().clamp(0, SIZE - 1)
        distance = (points - cameras.centres[view]) @ cameras.c2w[view, :3, 2]
        seen.append((depth[view, pixel[:, 1], pixel[:, 0]] - distance).abs() < 0.05)
        places.append(place)
    return Tracks(torch.stack(places), torch.stack(seen).float())


def test_a_fit_follows_its_tracks():
    clip = make_clips([HELD_OUT + 5], "nano_4d", num_frames=FRAMES, size=SIZE)
    heights = clip.object_center[0, :, :, 2]
    moves = [n + 1 for n, h in enumerate(heights.T) if float(h.max() - h.min()) > 1e-3]
    given = {
        "images": clip.images[0],
        "cameras": clip.cameras(0),
        "masks": torch.isin(clip.ids[0], torch.tensor(moves)).float()[:, None],
        "depths": clip.depth[0][:, None],
        "recipe": RECIPE,
    }
    centres = clip.object_center[0, :, moves[0] - 1]
    errors = []
    for told in (None, ball_tracks(clip)):
        found = fit_motion_bases(**given, tracks=told)
        first = found.gaussians.at(0.0)
        of_ball = (first.means - centres[0]).norm(dim=-1) < 0.5
        of_ball[int(found.metrics["num_moving"]) :] = False
        later = found.gaussians.at(4 / 15).means - first.means
        errors.append(float((later - (centres[4] - centres[0]))[of_ball].norm(dim=-1).median()))
    assert errors[1] < 0.8 * errors[0]


def test_tracks_come_from_files(tmp_path):
    places = torch.rand(4, 5, 2, generator=seeded(0)) * 30
    visible = torch.rand(4, 5, generator=seeded(1)) > 0.3
    path = tmp_path / "tracks.npz"
    np.savez(path, tracks=places.numpy(), visibility=visible.numpy())
    found = load_tracks(path, width=60, height=30)
    torch.testing.assert_close(found.places * torch.tensor([60.0, 30.0]), places)
    assert torch.equal(found.visible > 0.5, visible)


def test_files_that_are_none_are_told(tmp_path):
    (tmp_path / "text.npz").write_text("tracks", encoding="utf-8")
    np.savez(tmp_path / "other.npz", points=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, message in (
        ("text.npz", "cannot be read"),
        ("missing.npz", "cannot be read"),
        ("one.npy", "cannot be read"),
        ("other.npz", "has no array tracks and no visibility"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_tracks(tmp_path / name, width=8, height=8)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(InvalidInputError, match="tracks has shape"):
        Tracks.from_pixels(torch.zeros(3, 2), torch.ones(3, 2), width=8, height=8)
    with pytest.raises(InvalidInputError, match="visibility has shape"):
        Tracks.from_pixels(torch.zeros(3, 5, 2), torch.ones(3, 2), width=8, height=8)
    with pytest.raises(InvalidInputError, match="NaN"):
        Tracks.from_pixels(torch.full((3, 5, 2), float("nan")), torch.ones(3, 1), width=8, height=8)


def test_tracks_of_other_pictures_are_refused_before_anything_is_fitted():
    clip = make_clips([HELD_OUT + 5], "nano_4d", num_frames=4, size=SIZE)
    given = {
        "images": clip.images[0],
        "cameras": clip.cameras(0),
        "masks": (clip.ids[0] == 1).float()[:, None],
        "recipe": RECIPE,
    }
    few = Tracks(torch.full((3, 1, 2), 0.5), torch.ones(3, 1))
    with pytest.raises(InvalidInputError, match="tracks are of 3 pictures"):
        fit_motion_bases(**given, tracks=few)
    unseen = Tracks(torch.full((4, 1, 2), 0.5), torch.zeros(4, 1))
    with pytest.raises(InvalidInputError, match="none is visible in two pictures"):
        fit_motion_bases(**given, tracks=unseen)

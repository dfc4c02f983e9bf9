"""Paths of objects on drawn pictures whose answer is known."""

import pytest
import torch

from genxd_core.evaluation.object_paths import hopping_scenes, near_path, object_path, rise

EMPTY = torch.full((3, 32, 32), 0.4)
CORNERS = [(20, 10), (12, 11), (18, 12)]  # top and left of a block of 6 x 4


def drawn(corners=CORNERS):
    frames = EMPTY.repeat(len(corners), 1, 1, 1)
    for frame, (top, left) in zip(frames, corners, strict=True):
        frame[:, top : top + 6, left : left + 4] = 1.0
    return frames


def test_path_is_the_middle_of_the_object():
    expected = [[left + 2, top + 3] for top, left in CORNERS]
    path = object_path(drawn(), EMPTY)
    torch.testing.assert_close(path, torch.tensor(expected, dtype=torch.float32))
    assert rise(path) == pytest.approx(8.0, abs=1e-4)


def test_small_differences_do_not_count():
    noisy = drawn() + 0.1
    expected = object_path(drawn(), EMPTY)
    torch.testing.assert_close(object_path(noisy.clamp(0, 1), EMPTY), expected)


def test_what_is_far_from_the_true_path_does_not_count():
    frames = drawn()
    near = near_path(frames, EMPTY)
    # Six pixels around the block's rows and columns at all times.
    rows, columns = near.any(dim=1).nonzero().flatten(), near.any(dim=0).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (12 - 6, 25 + 6)
    assert (int(columns[0]), int(columns[-1])) == (10 - 6, 15 + 6)
    expected = object_path(frames, EMPTY)
    frames[:, :, :3, 28:] = 1.0
    torch.testing.assert_close(object_path(frames, EMPTY, near), expected)
    assert not torch.allclose(object_path(frames, EMPTY), expected)


def test_nothing_to_see_is_at_zero():
    assert object_path(EMPTY[None], EMPTY).tolist() == [[0.0, 0.0]]


def test_hopping_scenes_hop_and_are_empty_without_balls():
    for hop in hopping_scenes(2, num_frames=5, size=32):
        path = object_path(hop.clip.images[0], hop.empty)
        assert float(hop.clip.motion_strength) > 0
        assert rise(path) > 0.5
        still = hop.clip.ids[0, 0] == 0
        assert float((hop.clip.images[0, 0] - hop.empty)[:, still].abs().median()) < 1e-6

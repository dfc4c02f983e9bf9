import itertools

import pytest
import torch

import genxd_core as gx
from genxd_core.cameras.rotations import quat_to_rotation, rotation_to_quat
from genxd_core.curation.sfm_windows import (
    WindowModel,
    join_windows,
    one_model_of,
    windows_of,
)
from genxd_core.errors import InvalidInputError
from tests.support import assert_same_up_to, seeded

FRAMES = 20


def truth(frames, *, still=False):
    """A model of some frames of one path, with 40 points that all of them see."""
    path = gx.orbit(FRAMES, azimuth_range_deg=(0.0, 90.0)).to(dtype=torch.float64)
    w2c = path.viewmats
    # The path is made in single precision; here its rotations have to be exact.
    w2c[:, :3, :3] = quat_to_rotation(rotation_to_quat(w2c[:, :3, :3]))
    w2c = w2c[:1].repeat(FRAMES, 1, 1) if still else w2c
    frames = torch.tensor(frames)
    xyz = 0.3 * torch.randn(40, 3, generator=seeded(1), dtype=torch.float64)
    seen = torch.tensor([[int(f), p, p] for f in frames for p in range(40)])
    return WindowModel(
        frames=frames,
        w2c=w2c[frames],
        Ks=path.Ks(100, 100)[frames],
        k1=torch.zeros(len(frames), dtype=torch.float64),
        xyz=xyz,
        rgb=torch.full((40, 3), 0.5, dtype=torch.float64),
        error=torch.full((40,), 0.2, dtype=torch.float64),
        length=torch.full((40,), len(frames)),
        seen=seen,
        places=torch.rand(len(seen), 2, generator=seeded(2), dtype=torch.float64),
    )


def elsewhere(model, seed=3, scale=2.5):
    """The same model in a world and a unit of its own."""
    quat = torch.randn(1, 4, generator=seeded(seed), dtype=torch.float64)
    rotation = quat_to_rotation(quat / quat.norm())[0]
    return model.moved(scale, rotation, torch.tensor([4.0, -2.0, 1.0], dtype=torch.float64))


def test_windows_cover_the_clip_with_enough_in_common():
    assert windows_of(50, 60, 10) == [(0, 50)]
    assert windows_of(60, 60, 10) == [(0, 60)]
    assert windows_of(100, 60, 10) == [(0, 60), (40, 100)]
    for frames in range(61, 400, 7):
        windows = windows_of(frames, 60, 10)
        assert windows[0][0] == 0
        assert windows[-1][1] == frames
        assert all(last - first == 60 for first, last in windows)
        assert all(a[1] - b[0] >= 10 for a, b in itertools.pairwise(windows))


@pytest.mark.parametrize("overlap", [2, 31])
def test_windows_with_too_little_or_too_much_in_common_are_refused(overlap):
    with pytest.raises(InvalidInputError, match=f"window_overlap is {overlap}"):
        windows_of(100, 60, overlap)


def test_moved_model_has_the_same_pictures_in_another_unit():
    model = truth(range(5))
    moved = elsewhere(model, scale=2.5)
    assert_same_up_to(moved.depths, 2.5 * model.depths, 1e-9)


def test_windows_are_joined_exactly_where_nothing_is_wrong():
    whole = truth(range(FRAMES))
    parts = [truth(range(0, 12)), elsewhere(truth(range(8, FRAMES)))]
    chain, (join,) = join_windows(parts)
    joined = one_model_of(chain)
    assert torch.equal(joined.frames, whole.frames)
    assert_same_up_to(joined.w2c, whole.w2c, 1e-9)
    assert (join.shared_frames, join.shared_points, join.joined) == (4, 160, True)
    assert join.scale == pytest.approx(1 / 2.5)
    assert join.shift < 1e-9
    assert join.rotation_deg < 1e-6
    # All that a frame saw is still where it saw it, at its depth.
    assert len(joined.seen) == 40 * FRAMES
    assert_same_up_to(joined.depths, whole.depths, 1e-9)


def test_one_bad_frame_and_some_bad_points_do_not_bend_the_join():
    second = truth(range(8, FRAMES))
    second.w2c[1, :3, 3] += 0.5  # frame 9, shared
    second.w2c[1, :3, :3] = second.w2c[1, :3, :3].flip(0).flip(1)
    second.xyz[:10] += 3.0
    chain, (join,) = join_windows([truth(range(0, 12)), elsewhere(second)])
    assert join.joined
    last = chain[1].w2c[chain[1].frames >= 12]
    assert_same_up_to(last, truth(range(12, FRAMES)).w2c, 1e-6)


def test_still_camera_in_the_shared_frames_still_gives_the_scale():
    first, second = truth(range(0, 12), still=True), truth(range(8, FRAMES), still=True)
    _, (join,) = join_windows([first, elsewhere(second, scale=4.0)])
    assert join.scale == pytest.approx(0.25)


def test_without_shared_points_the_scale_comes_from_the_centres():
    second = elsewhere(truth(range(8, FRAMES)), scale=4.0)
    second.seen[:, 2] += 1000  # other keypoints
    _, (join,) = join_windows([truth(range(0, 12)), second])
    assert (join.shared_points, join.joined) == (0, True)
    assert join.scale == pytest.approx(0.25)


def test_window_that_contradicts_the_one_before_is_left_out():
    wrong = truth(range(8, FRAMES))
    wrong.w2c[:] = truth(range(8, FRAMES)).w2c.flip(0)
    chain, (join,) = join_windows([truth(range(0, 13)), wrong])
    assert not join.joined
    assert [model.frames.tolist() for model in chain] == [list(range(13))]


def test_chain_that_breaks_leaves_its_longest_part():
    parts = [truth(range(0, 6)), None, truth(range(6, 14)), elsewhere(truth(range(10, FRAMES)))]
    chain, joins = join_windows(parts)
    assert torch.equal(one_model_of(chain).frames, torch.arange(6, FRAMES))
    assert [join.window for join in joins] == [3]
    chain, joins = join_windows([truth(range(0, 6)), truth(range(4, 14))])
    assert (joins[0].shared_frames, joins[0].joined, joins[0].shift) == (2, False, float("inf"))
    assert join_windows([None, None]) == ([], [])


def test_shared_frames_are_taken_of_the_window_whose_middle_is_nearer():
    first, second = truth(range(0, 12)), truth(range(8, FRAMES))
    first.k1[:], second.k1[:] = 1.0, 2.0
    joined = one_model_of([first, second])
    # Middles 5.5 and 13.5: frame 9 is nearer to the first, 10 to the second.
    assert joined.k1.tolist() == [1.0] * 10 + [2.0] * 10
    assert len(joined.xyz) == 80
    assert joined.seen[:, 1].amax() == 79

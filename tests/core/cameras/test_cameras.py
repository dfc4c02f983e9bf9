import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from genxd_core import Cameras, InvalidInputError
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.support import assert_same_up_to


def poses(count: int = 3) -> torch.Tensor:
    return random_cameras(count).c2w.float()


def intrinsics(count: int = 3) -> torch.Tensor:
    return random_cameras(count).Ks_norm.float()


@pytest.mark.parametrize("seed", range(5))
def test_viewmats_are_the_inverse_of_c2w(seed):
    cameras = random_cameras(4, seed, spread=50.0)
    identity = torch.eye(4, dtype=torch.float64).expand(4, 4, 4)
    assert_same_up_to(cameras.viewmats @ cameras.c2w, identity, 1e-12)
    assert_same_up_to(cameras.viewmats, torch.linalg.inv(cameras.c2w), 1e-12)


def test_from_w2c_undoes_viewmats():
    cameras = random_cameras(4)
    again = Cameras.from_w2c(cameras.viewmats, cameras.Ks_norm)
    assert_same_up_to(again.c2w, cameras.c2w, 1e-13)


def test_pixel_intrinsics_scale_rows_by_width_and_height():
    Ks_norm = torch.tensor([[[1.5, 0.02, 0.5], [0.0, 2.0, 0.25], [0.0, 0.0, 1.0]]])
    cameras = Cameras(torch.eye(4)[None], Ks_norm)
    expected = torch.tensor([[[960.0, 12.8, 320.0], [0.0, 720.0, 90.0], [0.0, 0.0, 1.0]]])
    assert_same_up_to(cameras.Ks(640, 360), expected, 1e-4)


def test_numpy_arrays_are_taken_and_copied():
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w.setflags(write=False)
    Ks_norm = np.tile(np.eye(3), (2, 1, 1))[::-1]
    cameras = Cameras(c2w, Ks_norm, np.array([0.0, 1.0]))
    assert cameras.dtype == torch.float64
    assert cameras.Ks_norm.dtype == cameras.times.dtype == torch.float64


def test_everything_takes_the_dtype_of_the_poses():
    cameras = Cameras(poses(), intrinsics().double(), np.zeros(3))
    assert cameras.c2w.dtype == cameras.Ks_norm.dtype == cameras.times.dtype == torch.float32
    assert Cameras(torch.eye(4, dtype=torch.int64)[None], torch.eye(3)[None]).dtype == torch.float32


def test_to_changes_the_dtype_of_every_part():
    cameras = random_cameras(3, times=True).to(dtype=torch.float32)
    assert cameras.c2w.dtype == cameras.Ks_norm.dtype == cameras.times.dtype == torch.float32
    assert cameras.to("cpu").device == torch.device("cpu")


def test_to_refuses_half_precision():
    with pytest.raises(InvalidInputError, match=r"dtype is torch\.float16; cameras are kept in"):
        random_cameras(2).to(dtype=torch.float16)


def test_cameras_cannot_be_reassigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        random_cameras(2).c2w = torch.eye(4)[None]


def test_replace_checks_again():
    cameras = random_cameras(2)
    timed = dataclasses.replace(cameras, times=[0.0, 0.5])
    assert timed.times.tolist() == [0.0, 0.5]
    with pytest.raises(InvalidInputError, match="times of camera 1"):
        dataclasses.replace(cameras, times=[0.0, 2.0])


def test_an_integer_index_keeps_one_view():
    cameras = random_cameras(5, times=True)
    assert cameras[2].c2w.shape == (1, 4, 4)
    assert torch.equal(cameras[-1].c2w, cameras.c2w[4:])
    assert torch.equal(cameras[-1].times, cameras.times[4:])


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, 2), [0, 2, 4]),
        ([3, 0, -1], [3, 0, 4]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([True, False, False, False, True]), [0, 4]),
    ],
)
def test_indexing_picks_the_views_named(index, expected):
    cameras = random_cameras(5, times=True)
    picked = cameras[index]
    assert torch.equal(picked.c2w, cameras.c2w[expected])
    assert torch.equal(picked.Ks_norm, cameras.Ks_norm[expected])
    assert torch.equal(picked.times, cameras.times[expected])


def test_iteration_gives_each_view_once():
    cameras = random_cameras(4)
    assert len(cameras) == 4
    assert torch.equal(torch.cat([view.c2w for view in cameras]), cameras.c2w)


@pytest.mark.parametrize("index", [5, -6])
def test_an_index_outside_the_views_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"camera {index} asked for, but there are 5 cameras"):
        random_cameras(5)[index]


def test_selecting_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="selects none of the 5 cameras"):
        random_cameras(5)[3:3]


def test_repr_is_one_line():
    assert repr(random_cameras(3)) == "Cameras(3 views, no times, torch.float64, cpu)"


def broken(change) -> torch.Tensor:
    c2w = poses()
    change(c2w)
    return c2w


def nan(c2w):
    c2w[1, 0, 3] = float("nan")


def infinite(c2w):
    c2w[1, 0, 0] = float("inf")


def zero(c2w):
    c2w[1] = 0.0


def transposed(c2w):
    c2w[1] = c2w[1].T.clone()


def scaled(c2w):
    c2w[1, :3, :3] *= 2.0


def sheared(c2w):
    c2w[1, :3, 0] += 0.01 * c2w[1, :3, 1]


def mirrored(c2w):
    c2w[1, :3, 1] *= -1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, "c2w of camera 1 holds NaN or infinite numbers"),
        (infinite, "c2w of camera 1 holds NaN or infinite numbers"),
        (zero, "c2w of camera 1 has a zero rotation: the pose was never filled in"),
        (transposed, r"c2w of camera 1 has the last row .*expected \[0, 0, 0, 1\]"),
        (scaled, r"c2w of camera 1 has a rotation part that is not orthonormal.*\[2\.0, 2\.0, 2\."),
        (sheared, "c2w of camera 1 has a rotation part that is not orthonormal"),
        (mirrored, r"c2w of camera 1 is mirrored \(its rotation has determinant -1\)"),
    ],
)
def test_an_impossible_pose_is_refused_by_its_index(change, message):
    with pytest.raises(InvalidInputError, match=message):
        Cameras(broken(change), intrinsics())


def test_poses_rounded_to_four_digits_are_taken():
    rounded = (random_rotations(3) * 1e4).round() / 1e4
    c2w = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    c2w[:, :3, :3] = rounded
    assert len(Cameras(c2w, torch.eye(3).repeat(3, 1, 1))) == 3


@pytest.mark.parametrize("shape", [(4, 4), (3, 3, 4), (0, 4, 4)])
def test_poses_of_another_shape_are_refused(shape):
    with pytest.raises(InvalidInputError, match=r"c2w has shape .*expected \(V, 4, 4\)"):
        Cameras(torch.zeros(shape), intrinsics())


def test_half_precision_poses_are_refused():
    with pytest.raises(InvalidInputError, match=r"c2w is in torch\.bfloat16, which is too coarse"):
        Cameras(poses().bfloat16(), intrinsics())


def test_poses_that_are_no_numbers_are_refused():
    with pytest.raises(InvalidInputError, match="c2w is ndarray, not a tensor or numpy array of"):
        Cameras(np.array([["a"]]), intrinsics())


def test_mismatched_counts_are_refused():
    with pytest.raises(InvalidInputError, match="Ks_norm has 2 matrices for 3 poses"):
        Cameras(poses(3), intrinsics(2))


def test_intrinsics_of_another_shape_are_refused():
    with pytest.raises(
        InvalidInputError, match=r"Ks_norm has shape \(3, 3\); expected \(V, 3, 3\)"
    ):
        Cameras(poses(3), intrinsics()[0])


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, 0, float("nan"), "Ks_norm of camera 2 holds NaN"),
        (0, 0, 0.0, r"Ks_norm of camera 2 has the focal lengths 0\.0 and"),
        (1, 1, -1.0, r"focal lengths .* and -1\.0; both must be positive"),
        (2, 0, 0.5, r"Ks_norm of camera 2 is .*expected \[\[fx, skew, cx\]"),
        (2, 2, 2.0, r"expected \[\[fx, skew, cx\]"),
        (0, 2, 320.0, r"principal point at \(320\.0, .*these look like pixels"),
    ],
)
def test_impossible_intrinsics_are_refused_by_their_index(row, column, value, message):
    Ks_norm = intrinsics()
    Ks_norm[2, row, column] = value
    with pytest.raises(InvalidInputError, match=message):
        Cameras(poses(), Ks_norm)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1.0], r"times has shape \(2,\) for 3 cameras"),
        ([0.0, 0.5, 1.5], r"times of camera 2 is 1\.5; times lie in \[0, 1\]"),
        ([0.0, -0.1, 1.0], r"times of camera 1 is -0\.1"),
        ([float("nan"), 0.5, 1.0], "times of camera 0 is nan"),
    ],
)
def test_impossible_times_are_refused(times, message):
    with pytest.raises(InvalidInputError, match=message):
        Cameras(poses(), intrinsics(), times)


def test_slices_may_run_backwards():
    cameras = random_cameras(5)
    assert torch.equal(cameras[::-1].c2w, cameras.c2w.flip(0))
    assert torch.equal(cameras[3:0:-2].c2w, cameras.c2w[[3, 1]])


def test_cameras_can_be_copied_and_pickled():
    cameras = random_cameras(3, times=True)
    for again in (copy.deepcopy(cameras), pickle.loads(pickle.dumps(cameras))):
        assert torch.equal(again.c2w, cameras.c2w)
        assert torch.equal(again.times, cameras.times)

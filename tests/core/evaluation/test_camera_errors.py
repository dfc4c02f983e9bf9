import math

import pytest
import torch

import genxd_core as gx
from genxd_core.cameras.cameras import Cameras
from genxd_core.cameras.rotations import quat_to_rotation
from genxd_core.cameras.similarity import Similarity, fit_similarity
from genxd_core.errors import InvalidInputError
from genxd_core.evaluation.camera_errors import camera_errors, paper_camera_errors
from tests.support import assert_same_up_to, seeded

BOTH = pytest.mark.parametrize("measure", [camera_errors, paper_camera_errors])


def path(views=9):
    return gx.sway(views).to(dtype=torch.float64)


def some_similarity():
    quat = torch.randn(1, 4, generator=seeded(), dtype=torch.float64)
    rotation = quat_to_rotation(quat / quat.norm())[0]
    return Similarity(2.7, rotation, torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))


def about_own_z(cameras, angles_deg):
    """Each camera rolled about its own axis by its angle."""
    a = torch.tensor(angles_deg, dtype=torch.float64).deg2rad()
    turn = torch.eye(4, dtype=torch.float64).repeat(len(a), 1, 1)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = a.cos(), -a.sin(), a.sin(), a.cos()
    return Cameras(cameras.c2w @ turn, cameras.Ks_norm)


def shifted(cameras, shifts):
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] += shifts
    return Cameras(c2w, cameras.Ks_norm)


def on_a_line(x):
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x, dtype=torch.float64)
    return Cameras(c2w, path(len(x)).Ks_norm)


@BOTH
def test_errors_of_the_truth_itself_are_zero(measure):
    errors = measure(path(), path())
    assert errors.rotation_deg < 1e-6
    assert errors.translation < 1e-12
    assert errors.frames == 9


@BOTH
def test_errors_do_not_change_with_a_similarity_of_either_path(measure):
    truth = path()
    rough = shifted(about_own_z(truth, range(9)), 0.1 * torch.randn(9, 3, generator=seeded(1)))
    expected = measure(rough, truth)
    assert expected.translation > 0.01
    for estimated, reference in [
        (some_similarity().of_cameras(rough), truth),
        (rough, some_similarity().of_cameras(truth)),
    ]:
        errors = measure(estimated, reference)
        assert errors.rotation_deg == pytest.approx(expected.rotation_deg, abs=1e-6)
        assert errors.translation == pytest.approx(expected.translation, rel=1e-9)


@BOTH
def test_rotation_error_is_the_mean_angle_relative_to_the_first_frame(measure):
    still = on_a_line([0.0, 1.0, 2.0])
    exact = measure(about_own_z(still, [10.0, 12.0, 7.0]), still)
    assert exact.rotation_deg == pytest.approx((0 + 2 + 3) / 3)
    assert exact.rotation_rad == pytest.approx(math.radians(5 / 3))


def test_aligned_translation_error_is_a_share_of_the_paths_diameter():
    # A square of side 2 (diameter 2 sqrt 2) whose first and third corner rise and whose others
    # sink by 0.1: no similarity does that, and the best fit stays the plane it was.
    corners = torch.tensor([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]], dtype=torch.float64)
    c2w = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    c2w[:, :3, 3] = corners
    truth = Cameras(c2w, path(4).Ks_norm)
    up = torch.tensor([[0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, -1]], dtype=torch.float64) * 0.1
    errors = camera_errors(shifted(truth, up), truth)
    # Least squares shrinks by 8 / (8 + 4 * 0.01): heights become 0.1 s, the corners sqrt(2) s.
    s = 8 / 8.04
    apart = math.hypot(0.1 * s, math.sqrt(2) * (1 - s))
    assert errors.translation == pytest.approx(apart / (2 * math.sqrt(2)), rel=1e-9)
    assert errors.variant == "aligned"


def test_paper_translation_error_divides_each_path_by_its_own_reach():
    errors = paper_camera_errors(on_a_line([0.0, 1.0, 4.0]), on_a_line([0.0, 5.0, 10.0]))
    assert errors.translation == pytest.approx((0 + 0.25 + 0) / 3)
    assert errors.variant == "paper"


@BOTH
def test_a_camera_that_stays_has_a_rotation_error_alone(measure):
    still = on_a_line([1.0, 1.0, 1.0])
    errors = measure(about_own_z(still, [0.0, 3.0, 6.0]), still)
    assert errors.translation is None
    assert errors.rotation_deg == pytest.approx(3.0)


@BOTH
def test_paths_of_different_lengths_are_refused(measure):
    with pytest.raises(InvalidInputError, match="estimated has 3 cameras and reference 4"):
        measure(path(3), path(4))
    with pytest.raises(InvalidInputError, match="at least two"):
        measure(path(3)[:1], path(3)[:1])


# ---- the similarity -----------------------------------------------------------------------------


def test_fit_finds_the_similarity_that_moved_the_points():
    points = torch.randn(12, 3, generator=seeded(3), dtype=torch.float64)
    truth = some_similarity()
    found = fit_similarity(points, truth(points))
    assert found.scale == pytest.approx(truth.scale)
    assert_same_up_to(found.rotation, truth.rotation, 1e-9)
    assert_same_up_to(found.translation, truth.translation, 1e-9)


def test_fit_never_mirrors():
    points = torch.randn(12, 3, generator=seeded(4), dtype=torch.float64)
    mirrored = points * torch.tensor([1.0, 1.0, -1.0])
    assert float(torch.linalg.det(fit_similarity(points, mirrored).rotation)) == pytest.approx(1.0)


def test_fit_of_points_on_a_line_lays_them_on_it():
    line = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, 2.0])
    target = line.flip(1) * 3
    assert_same_up_to(fit_similarity(line, target)(line), target, 1e-9)


def test_moved_cameras_see_moved_points_where_they_were():
    cameras, move = path(4), some_similarity()
    points = 0.3 * torch.randn(7, 3, generator=seeded(5), dtype=torch.float64)

    def seen(by, of):
        local = of @ by.viewmats[:, :3, :3].transpose(1, 2) + by.viewmats[:, None, :3, 3]
        return local[..., :2] / local[..., 2:]

    assert_same_up_to(seen(move.of_cameras(cameras), move(points)), seen(cameras, points), 1e-9)


def test_fit_of_different_numbers_of_points_is_refused():
    with pytest.raises(InvalidInputError, match=r"source has shape \(0, 3\)"):
        fit_similarity(torch.zeros(0, 3), torch.zeros(0, 3))

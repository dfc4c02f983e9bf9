import logging
import math

import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.cameras import conventions as conv
from genxd_core.cameras.rotations import quat_to_rotation
from tests.core.cameras.builders import random_cameras, random_rotations, rays_agree
from tests.support import assert_same_up_to, seeded

LEFT, UP, BACK = -1.0, -1.0, -1.0


def project(c2w: torch.Tensor, K_norm: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Where a world point falls in the normalised picture, with OpenCV axes."""
    in_camera = c2w[:3, :3].T @ (point - c2w[:3, 3])
    image = K_norm @ in_camera
    return image[:2] / image[2]


def points_in_front(c2w: torch.Tensor, seed: int) -> torch.Tensor:
    offsets = torch.rand(8, 3, generator=seeded(seed), dtype=torch.float64) - 0.5
    in_camera = offsets * torch.tensor([2.0, 2.0, 1.0]) + torch.tensor([0.0, 0.0, 3.0])
    return in_camera @ c2w[:3, :3].T + c2w[:3, 3]


def test_opengl_camera_looks_along_minus_z_with_y_up():
    # A Blender camera at rest looks down: at (0, 0, 5), its back is +Z and its up +Y.
    blender = torch.eye(4)
    blender[2, 3] = 5.0
    opencv = conv.opengl_to_opencv_c2w(blender)
    assert opencv[:3, 2].tolist() == [0.0, 0.0, -1.0]
    assert opencv[:3, 1].tolist() == [0.0, -1.0, 0.0]
    assert opencv[:3, 3].tolist() == [0.0, 0.0, 5.0]


@pytest.mark.parametrize("seed", range(3))
def test_opengl_conversions_are_inverse_and_agree_with_each_other(seed):
    cameras = random_cameras(5, seed)
    c2w, w2c = cameras.c2w, cameras.viewmats
    assert torch.equal(conv.opencv_to_opengl_c2w(conv.opengl_to_opencv_c2w(c2w)), c2w)
    assert torch.equal(conv.opencv_to_opengl_w2c(conv.opengl_to_opencv_w2c(w2c)), w2c)
    opengl_w2c = torch.linalg.inv(conv.opencv_to_opengl_c2w(c2w))
    assert_same_up_to(conv.opencv_to_opengl_w2c(w2c), opengl_w2c, 1e-12)
    assert_same_up_to(torch.linalg.det(conv.opengl_to_opencv_c2w(c2w)), torch.ones(5), 1e-12)


def test_y_up_world_puts_azimuth_zero_where_a_viewer_stands():
    c2w = conv.z_up_to_y_up_c2w(gx.orbit(4, elevation_deg=30.0).c2w[0])
    assert_same_up_to(c2w[:3, 3], torch.tensor([0.0, 1.0, math.sqrt(3.0)]), 1e-6)
    assert_same_up_to(-c2w[:3, 1], torch.tensor([0.0, math.sqrt(0.75), -0.5]), 1e-6)


def test_turning_the_world_up_and_back_changes_nothing():
    cameras = random_cameras(4)
    turned = conv.z_up_to_y_up_c2w(cameras.c2w)
    assert torch.equal(conv.y_up_to_z_up_c2w(turned), cameras.c2w)
    assert rays_agree(Cameras(turned, cameras.Ks_norm), cameras)


def pytorch3d_projection(R, T, focal, principal, point, width, height) -> torch.Tensor:
    """PyTorch3D's documented projection: row vectors, +x left, +y up, NDC by the smaller side."""
    in_camera = point @ R + T
    ndc = focal * in_camera[:2] / in_camera[2] + principal
    half = min(width, height) / 2
    return torch.stack([width / 2 - ndc[0] * half, height / 2 - ndc[1] * half])


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (512, 512)])
def test_pytorch3d_cameras_see_points_at_the_same_pixels(width, height):
    cameras = random_cameras(4)
    parts = conv.opencv_to_pytorch3d(cameras.c2w, cameras.Ks_norm, width=width, height=height)
    size = torch.tensor([width, height])
    for view in range(4):
        for point in points_in_front(cameras.c2w[view], view):
            expected = project(cameras.c2w[view], cameras.Ks_norm[view], point) * size
            seen = pytorch3d_projection(*(part[view] for part in parts), point, width, height)
            assert_same_up_to(seen, expected, 1e-9)


def test_pytorch3d_round_trip():
    cameras = random_cameras(4)
    size = {"width": 500, "height": 300}
    parts = conv.opencv_to_pytorch3d(cameras.c2w, cameras.Ks_norm, **size)
    c2w, Ks_norm = conv.pytorch3d_to_opencv(*parts, **size)
    assert_same_up_to(c2w, cameras.c2w, 1e-12)
    assert_same_up_to(Ks_norm, cameras.Ks_norm, 1e-12)


def centred(view: int, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A camera with square pixels and a centred principal point, as three.js has them."""
    return (
        random_cameras(view + 1).c2w[view],
        conv.Ks_norm_from_focal(0.8 + 0.2 * view, width / height),
    )


def three_projection(info: dict, point: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """A splat's pixel by three.js' rules: the world turned about X, the camera looking along -Z."""
    in_three = point * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    position = torch.tensor([info["position"][k] for k in "xyz"], dtype=torch.float64)
    wxyz = torch.tensor([info["quaternion"][k] for k in "wxyz"], dtype=torch.float64)
    in_camera = quat_to_rotation(wxyz).T @ (in_three - position)
    focal_px = min(width, height) / 2 / math.tan(math.radians(info["fov"]) / 2) * info["zoom"]
    x = width / 2 + focal_px * in_camera[0] / -in_camera[2]
    y = height / 2 - focal_px * in_camera[1] / -in_camera[2]
    return torch.stack([x, y])


@pytest.mark.parametrize(("width", "height"), [(320, 192), (192, 320), (256, 256)])
def test_load3d_camera_sees_splats_at_the_same_pixels(width, height):
    size = torch.tensor([width, height])
    for view in range(4):
        c2w, K_norm = centred(view, width, height)
        info = conv.camera_to_load3d(c2w, K_norm, width=width, height=height)
        for point in points_in_front(c2w, view):
            expected = project(c2w, K_norm, point) * size
            assert_same_up_to(three_projection(info, point, width, height), expected, 1e-6)


@pytest.mark.parametrize(("width", "height"), [(320, 192), (192, 320), (256, 256)])
def test_load3d_round_trip(width, height):
    for view in range(4):
        c2w, K_norm = centred(view, width, height)
        info = conv.camera_to_load3d(c2w, K_norm, width=width, height=height)
        c2w_again, K_again = conv.load3d_to_camera(info, width=width, height=height)
        assert_same_up_to(c2w_again, c2w.float(), 1e-6)
        assert_same_up_to(K_again, K_norm.float(), 1e-6)


def test_load3d_field_of_view_is_over_the_smaller_side():
    K_norm = conv.Ks_norm_from_focal(0.5, 2.0)
    info = conv.camera_to_load3d(torch.eye(4), K_norm, width=512, height=256)
    assert info["fov"] == pytest.approx(90.0)
    portrait = conv.Ks_norm_from_focal(0.5, 0.5)
    info = conv.camera_to_load3d(torch.eye(4), portrait, width=256, height=512)
    assert info["fov"] == pytest.approx(90.0)


def test_load3d_target_lies_ahead_at_the_given_distance():
    c2w = random_cameras(1).c2w[0]
    info = conv.camera_to_load3d(
        c2w, conv.Ks_norm_from_focal(1.0), width=64, height=64, target_distance=3.0
    )
    ahead = c2w[:3, 3] + 3.0 * c2w[:3, 2]
    target = torch.tensor([info["target"][k] for k in "xyz"], dtype=torch.float64)
    assert_same_up_to(target * torch.tensor([1.0, -1.0, -1.0]), ahead, 1e-9)


def test_load3d_without_quaternion_looks_at_its_target_with_y_up():
    info = {
        "position": {"x": 0.0, "y": 0.0, "z": 4.0},
        "target": {"x": 0.0, "y": 0.0, "z": 0.0},
        "fov": 0,
        "zoom": 1,
        "cameraType": "perspective",
    }
    c2w, K_norm = conv.load3d_to_camera(info, width=100, height=100)
    # three.js' rest pose is OpenCV's identity orientation in the splat world.
    assert_same_up_to(c2w[:3, :3], torch.eye(3), 1e-6)
    assert c2w[:3, 3].tolist() == [0.0, 0.0, -4.0]
    assert float(K_norm[0, 0]) == pytest.approx(0.5 / math.tan(math.radians(17.5)))


def test_load3d_straight_down_still_has_an_orientation():
    info = {"position": {"y": 3.0}, "target": {}, "fov": 40.0}
    c2w, _ = conv.load3d_to_camera(info, width=64, height=64)
    assert_same_up_to(c2w[:3, 2], torch.tensor([0.0, 1.0, 0.0]), 1e-6)


def test_load3d_zoom_multiplies_the_focal_length():
    info = {"position": {"z": 1.0}, "target": {}, "fov": 90.0, "zoom": 2.0}
    _, K_norm = conv.load3d_to_camera(info, width=64, height=64)
    assert float(K_norm[0, 0]) == pytest.approx(1.0)


def test_load3d_orthographic_camera_is_refused():
    with pytest.raises(InvalidInputError, match="camera_info: an orthographic camera came"):
        conv.load3d_to_camera({"cameraType": "orthographic"}, width=64, height=64)


def test_load3d_camera_without_direction_is_refused():
    with pytest.raises(InvalidInputError, match="no quaternion and its target equals its position"):
        conv.load3d_to_camera({"position": {}, "target": {}}, width=64, height=64)


def test_load3d_target_distance_must_be_positive():
    with pytest.raises(InvalidInputError, match=r"target_distance is 0\.0; expected a positive"):
        conv.camera_to_load3d(torch.eye(4), torch.eye(3), width=64, height=64, target_distance=0.0)


def test_load3d_logs_what_it_cannot_hold(caplog):
    K_norm = conv.Ks_norm_from_focal(1.0).clone()
    K_norm[0, 2] = 0.6
    with caplog.at_level(logging.WARNING):
        conv.camera_to_load3d(torch.eye(4), K_norm, width=64, height=64)
    assert "holds one focal length and a centred principal point" in caplog.text


def test_pixel_and_normalised_intrinsics_are_inverse():
    Ks_norm = random_cameras(4, skew=True).Ks_norm
    Ks = conv.Ks_norm_to_pixels(Ks_norm, 640, 360)
    assert_same_up_to(conv.Ks_to_normalised(Ks, 640, 360), Ks_norm, 1e-14)
    assert_same_up_to(Ks[:, 0], Ks_norm[:, 0] * 640, 1e-12)
    assert_same_up_to(Ks[:, 1], Ks_norm[:, 1] * 360, 1e-12)


@pytest.mark.parametrize(
    ("aspect", "fx", "fy"), [(1.0, 1.2, 1.2), (2.0, 0.6, 1.2), (0.5, 1.2, 0.6)]
)
def test_focal_is_measured_by_the_smaller_side(aspect, fx, fy):
    K_norm = conv.Ks_norm_from_focal(1.2, aspect)
    expected = torch.tensor([[fx, 0.0, 0.5], [0.0, fy, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert_same_up_to(K_norm, expected, 1e-12)
    cameras = Cameras(torch.eye(4)[None], K_norm[None])
    assert float(conv.picture_aspect(cameras)) == pytest.approx(aspect)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_focal_length_or_aspect_that_is_not_positive_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"focal_norm is .*; expected a positive, finite"):
        conv.Ks_norm_from_focal(value)
    with pytest.raises(InvalidInputError, match=r"aspect is .*; expected a positive, finite"):
        conv.Ks_norm_from_focal(1.0, value)


@pytest.mark.parametrize("seed", range(3))
def test_relative_pose_of_the_reference_is_the_identity(seed):
    c2w = random_cameras(3, seed).c2w
    identity = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    assert_same_up_to(conv.relative_c2w(c2w, c2w), identity, 1e-12)
    # Chaining back gives the pose again.
    assert_same_up_to(c2w[0] @ conv.relative_c2w(c2w, c2w[0]), c2w, 1e-12)


def test_path_scale_of_an_orbit_is_its_diameter():
    assert gx.path_scale(gx.orbit(12, radius=2.0)) == pytest.approx(4.0)
    assert gx.path_scale(gx.static(5)) == 0.0


def test_path_scale_is_measured_from_the_reference_view():
    cameras = gx.slide(5, right=2.0)
    assert gx.path_scale(cameras) == pytest.approx(2.0)
    assert gx.path_scale(cameras, 2) == pytest.approx(1.0)


def test_scaling_moves_centres_and_keeps_orientations():
    cameras = random_cameras(4, times=True)
    scaled = gx.scale_cameras(cameras, 0.25)
    assert_same_up_to(scaled.centres, cameras.centres / 4, 1e-14)
    assert torch.equal(scaled.c2w[:, :3, :3], cameras.c2w[:, :3, :3])
    assert torch.equal(scaled.times, cameras.times)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_normalised_path_has_the_scale(scale):
    cameras = gx.scale_cameras(random_cameras(6), 100.0)
    assert gx.path_scale(gx.normalise_scale(cameras, scale)) == pytest.approx(scale)


def test_normalising_a_still_path_changes_nothing():
    still = gx.static(4, target=(100.0, 0.0, 0.0))
    assert gx.normalise_scale(still) is still


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(value):
    with pytest.raises(InvalidInputError, match=r"factor is .*; expected a positive"):
        gx.scale_cameras(random_cameras(2), value)
    with pytest.raises(InvalidInputError, match=r"scale is .*; expected a positive"):
        gx.normalise_scale(random_cameras(2), value)


@pytest.mark.parametrize("elevation_deg", [-20.0, 0.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_estimated_up_of_level_cameras_is_the_worlds_up(elevation_deg, seed):
    cameras = gx.orbit(5, elevation_deg=elevation_deg, azimuth_range_deg=(10.0, 90.0))
    world = random_rotations(1, seed)[0]
    turned = cameras.c2w.double()
    turned[:, :3] = world @ turned[:, :3]
    up = conv.estimate_up(Cameras(turned, cameras.Ks_norm))
    assert_same_up_to(up, world[:, 2], 1e-5)


def test_estimated_up_of_one_camera_is_its_own():
    c2w = random_cameras(1)
    assert_same_up_to(conv.estimate_up(c2w), -c2w.c2w[0, :3, 1], 1e-12)


def test_estimated_up_of_a_full_roll_is_the_first_views():
    up = conv.estimate_up(gx.roll(9, angle_deg=320.0))
    assert_same_up_to(up, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), 1e-6)

"""Cameras and image preparation against recorded numbers of the published inference code.

Tolerances are those of the recording: 1e-5 for float32, 1e-8 for float64 paths and 1e-6 for
splines; pictures from Pillow are equal.
"""

import itertools
import json

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core.cameras.conventions import (
    opencv_to_opengl_c2w,
    opengl_to_opencv_c2w,
    relative_c2w,
    z_up_to_y_up_c2w,
)
from genxd_core.cameras.nerf_paths import (
    average_pose,
    ellipse_poses,
    focus_point,
    interpolated_poses,
    look_along,
    pca_transform,
    recentre_transform,
    spiral_poses,
    transformed,
    vary_positions,
)
from genxd_core.cameras.rays import camera_rays
from genxd_core.cameras.rotations import invert_rigid
from tests.support import REFERENCE, assert_same_up_to

FLOAT32 = 1e-5
PATH = 1e-8
SPLINE = 1e-6

CASES = json.loads((REFERENCE / "cameras_cases.json").read_text(encoding="utf-8"))
with np.load(REFERENCE / "cameras_cases.npz") as _file:
    ARRAYS = {name: _file[name] for name in _file.files}


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[name])


def padded(poses: np.ndarray) -> torch.Tensor:
    last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(poses), 1, 4))
    return torch.from_numpy(np.concatenate([poses, last], axis=1))


def assert_close(actual: np.ndarray, name: str, tolerance: float) -> None:
    assert_same_up_to(torch.from_numpy(np.asarray(actual)), tensor(name), tolerance)


@pytest.mark.parametrize("case", CASES["rays"])
def test_matches_reference_rays(case):
    size = {"height": CASES["rays"][case]["height"], "width": CASES["rays"][case]["width"]}
    c2w, Ks_norm = tensor(f"rays.{case}.extrinsics_c2w")[0], tensor(f"rays.{case}.intrinsics")[0]
    plucker = gx.plucker_rays(gx.Cameras(c2w, Ks_norm), **size, reference=torch.eye(4))
    origins, directions = camera_rays(c2w, Ks_norm, **size)
    assert_same_up_to(plucker, tensor(f"rays.{case}.plucker")[0], FLOAT32)
    expected = tensor(f"rays.{case}.directions")[0].permute(0, 3, 1, 2)
    assert_same_up_to(directions, expected, FLOAT32)
    assert_same_up_to(origins, tensor(f"rays.{case}.origins")[0, :, 0, 0], FLOAT32)


def test_matches_reference_relative_poses():
    reference, targets = tensor("relpose.poses1")[0], tensor("relpose.poses2")[0]
    relative = relative_c2w(targets[None], reference[:, None])
    assert_same_up_to(relative, tensor("relpose.out")[0], FLOAT32)


@pytest.mark.parametrize("case", CASES["orbit"])
def test_matches_reference_orbit(case):
    settings = CASES["orbit"][case]
    first, last = settings["azimuth_range"]
    y_up = settings.get("cam_type") == "opengl"
    cameras = gx.orbit(
        settings["N"],
        elevation_deg=settings["elevation"],
        # The reference's +Y-up world is mirrored: there, azimuth grows to the camera's right.
        azimuth_range_deg=(-first, -last) if y_up else (first, last),
        radius=settings["radius"],
        target=settings.get("target", (0.0, 0.0, 0.0)),
        consistent4d=settings.get("consistent4d", False),
    )
    c2w = z_up_to_y_up_c2w(cameras.c2w) if y_up else cameras.c2w
    assert_same_up_to(invert_rigid(c2w)[:, :3], tensor(f"orbit.{case}.w2c"), FLOAT32)


@pytest.mark.parametrize("case", CASES["forward"])
def test_matches_reference_forward_facing(case):
    settings = CASES["forward"][case]
    cameras = gx.forward_facing(
        settings["N"],
        elevation_deg=settings["elevation"],
        azimuth_range_deg=tuple(settings["azimuth_range"]),
        radius=settings["radius"],
    )
    assert_same_up_to(cameras.viewmats[:, :3], tensor(f"forward.{case}.w2c"), FLOAT32)


def test_matches_reference_nerf_conversion():
    w2c = padded(ARRAYS["conv.colmap_w2c"])
    nerf_c2w = opencv_to_opengl_c2w(invert_rigid(w2c))
    assert_same_up_to(nerf_c2w[:, :3], tensor("conv.nerf_c2w"), PATH)
    back = invert_rigid(opengl_to_opencv_c2w(padded(ARRAYS["conv.nerf_c2w"])))
    assert_same_up_to(back[:, :3], tensor("conv.back_to_colmap"), PATH)


def shifts_of(settings: dict, poses: np.ndarray) -> list[np.ndarray]:
    """The recorded shift_x, shift_z and shift_zy as offsets, without the unshifted path."""
    low, high = np.percentile(poses[:, :, 3], [10, 90], axis=0)
    vertical = 1 if settings.get("shift_zy") else 2
    offsets = []
    across, along = [0.0, *settings.get("shift_x", [])], [0.0, *settings.get("shift_z", [])]
    for x, z in itertools.product(across, along):
        offset = np.zeros(3)
        offset[0], offset[vertical] = x, z
        offsets.append(offset * (high - low) / 2)
    return offsets[1:]


def variants(path: np.ndarray, settings: dict, poses: np.ndarray) -> np.ndarray:
    return vary_positions(path, shifts_of(settings, poses), settings.get("multiscale", ()))


@pytest.mark.parametrize("case", [name for name in CASES["paths"] if name.startswith("interp")])
def test_matches_reference_interpolation(case):
    pytest.importorskip("scipy", reason="spline paths need scipy")
    settings, poses = CASES["paths"][case], ARRAYS[f"{case}.poses"]
    path, _, _ = interpolated_poses(
        poses,
        settings["n_frames"],
        spline_degree=settings.get("spline_degree", 5),
        smoothness=settings.get("smoothness", 0.03),
        rotation_weight=settings.get("rot_weight", 0.1),
    )
    assert_close(variants(path, settings, poses), f"{case}.out", SPLINE)


@pytest.mark.parametrize("case", [name for name in CASES["paths"] if name.startswith("spiral")])
def test_matches_reference_spiral(case):
    settings, poses = CASES["paths"][case], ARRAYS[f"{case}.poses"]
    bounds = settings["bounds"]
    path = spiral_poses(
        poses,
        settings["n_frames"],
        bounds=None if bounds is None else np.array(bounds),
        turns=float(settings["n_rots"]),
        z_rate=settings["zrate"],
        percentile=float(settings.get("perc", 90)),
    )
    assert_close(variants(path, settings, poses), f"{case}.out", PATH)


def test_matches_reference_spiral_centre():
    # The reference puts its centre pose at the world's origin, not at the average camera.
    poses = ARRAYS["spiral.1.poses"]
    centre = look_along(-focus_point(poses), poses[:, :, 1].mean(axis=0), np.zeros(3))
    assert_close(centre[None], "spiral.1.center", PATH)


@pytest.mark.parametrize("case", [name for name in CASES["paths"] if name.startswith("ellipse")])
def test_matches_reference_ellipse(case):
    settings, poses = CASES["paths"][case], ARRAYS[f"{case}.poses"]
    path = ellipse_poses(
        poses,
        settings["n_frames"],
        constant_speed=settings["const_speed"],
        z_variation=settings.get("z_variation", 0.0),
        z_phase=settings.get("z_phase", 0.0),
    )
    assert_close(variants(path, settings, poses), f"{case}.out", PATH)


def test_matches_reference_path_helpers():
    poses = ARRAYS["helpers.poses"]
    transform = recentre_transform(poses)
    assert_close(average_pose(poses), "helpers.average_pose", PATH)
    assert_close(focus_point(poses), "helpers.focus_point", PATH)
    assert_close(transform, "helpers.recenter_transform", PATH)
    assert_close(transformed(poses, transform), "helpers.recentered", PATH)


def test_matches_reference_principal_frame():
    poses, transform = pca_transform(ARRAYS["helpers.pca_in"])
    assert_close(poses, "helpers.pca_poses", PATH)
    assert_close(transform, "helpers.pca_transform", PATH)


def as_image(name: str) -> torch.Tensor:
    return tensor(name).permute(2, 0, 1)[None].float() / 255


def assert_equal_levels(images: torch.Tensor, name: str) -> None:
    levels = (images * 255).round().to(torch.uint8)
    assert torch.equal(levels, tensor(name)), f"{name}: Pillow's levels differ"


@pytest.mark.parametrize("case", CASES["image"])
def test_matches_reference_image_crop(case):
    Ks_norm = tensor("image.intrinsics_in")[0]
    size = tuple(CASES["image"][case]["out"])
    fitted = gx.fit_views(as_image(f"image.{case}.input_u8_hwc"), Ks_norm, size)
    assert_equal_levels(fitted.images, f"image.{case}.crop_u8")
    assert_same_up_to(fitted.Ks_norm, tensor(f"image.{case}.crop_intrinsics"), FLOAT32)


@pytest.mark.parametrize(
    "case", [name for name, settings in CASES["image"].items() if "padded_size" in settings]
)
def test_matches_reference_image_pad(case):
    Ks_norm = tensor("image.intrinsics_in")[0]
    settings = CASES["image"][case]
    images = as_image(f"image.{case}.input_u8_hwc")
    fitted = gx.fit_views(images, Ks_norm, tuple(settings["out"]), mode="pad")
    assert_equal_levels(fitted.images, f"image.{case}.padcrop_u8")
    assert_same_up_to(fitted.Ks_norm, tensor(f"image.{case}.padcrop_intrinsics"), FLOAT32)
    assert list(fitted.record.pad_info) == tensor(f"image.{case}.pad_info").tolist()
    assert list(fitted.record.padded_size) == settings["padded_size"]


@pytest.mark.parametrize("case", CASES["dataset"])
def test_matches_reference_dataset_sample(case):
    settings = CASES["dataset"][case]
    camera = settings["camera"]
    build = {"orbit": gx.orbit, "forward": gx.forward_facing}[camera["mode"]]
    cameras = build(
        12,
        elevation_deg=camera["elevation"],
        azimuth_range_deg=tuple(camera["azimuth_range"]),
        radius=camera["radius"],
    )
    cameras = gx.scale_cameras(cameras, settings.get("scale", 1.0))
    # The reference's focal length is of a square picture and is fitted with the real one.
    Ks_norm = torch.diag(torch.tensor([settings["focal"], settings["focal"], 1.0]))
    Ks_norm[:2, 2] = 0.5
    cameras = gx.Cameras(cameras.c2w, Ks_norm.expand(12, 3, 3))
    picture = as_image(f"dataset.{case}.input_u8")
    fitted = gx.fit_views(
        picture[:, :3],
        Ks_norm,
        settings["size"],
        mode="pad" if settings.get("pad_to_square") else "crop",
        alpha=picture[:, 3:] if picture.shape[1] == 4 else None,
    )
    view = 0 if settings["context_mode"] == "first" else 11
    context = gx.fit_cameras(cameras[view], fitted.record)
    targets = gx.fit_cameras(cameras, fitted.record)
    assert tensor(f"dataset.{case}.context_target_correspondence").tolist() == [view]
    assert_equal_levels(fitted.images, f"dataset.{case}.context.image_u8")
    for name, part in (("context", context), ("target", targets)):
        assert_same_up_to(part.c2w, tensor(f"dataset.{case}.{name}.extrinsics"), FLOAT32)
        assert_same_up_to(part.Ks_norm, tensor(f"dataset.{case}.{name}.intrinsics"), FLOAT32)
    if f"dataset.{case}.pad_info" in ARRAYS:
        assert list(fitted.record.pad_info) == tensor(f"dataset.{case}.pad_info").tolist()

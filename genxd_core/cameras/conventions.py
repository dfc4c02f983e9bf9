"""Axis systems, intrinsics, relative poses and scale. Every flip of axes in the project is here.

Inside, cameras are OpenCV's: +X right, +Y down, +Z forward. The neighbours:

=============  ======================  =====================================================
who            camera axes             conversion
=============  ======================  =====================================================
OpenCV         right, down, forward    COLMAP, gsplat, RealEstate10K, this project
OpenGL         right, up, backward     Blender, NeRF, nerfstudio: half a turn about the camera's X
PyTorch3D      left, up, forward       CO3D: half a turn about the camera's Z; row vectors
three.js       right, up, backward     ComfyUI's LOAD3D_CAMERA; its *world* is turned too
=============  ======================  =====================================================
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .rotations import invert_rigid, quat_to_rotation, rotation_to_quat

__all__ = [
    "SHAPE_TOLERANCE",
    "Ks_norm_from_focal",
    "Ks_norm_to_pixels",
    "Ks_to_normalised",
    "camera_to_load3d",
    "estimate_up",
    "ideas_of_up",
    "load3d_to_camera",
    "normalise_scale",
    "opencv_to_opengl_c2w",
    "opencv_to_opengl_w2c",
    "opencv_to_pytorch3d",
    "opengl_to_opencv_c2w",
    "opengl_to_opencv_w2c",
    "path_scale",
    "picture_aspect",
    "pytorch3d_to_opencv",
    "relative_c2w",
    "scale_cameras",
    "splat_world_rotation",
    "y_up_to_z_up_c2w",
    "z_up_to_y_up_c2w",
]

_log = logging.getLogger(__name__)

SHAPE_TOLERANCE = 0.02
"""Up to this share, intrinsics of another shape than the picture's pass for rounding."""

# Half turns: each is its own inverse, so one diagonal serves both directions.
_TURN_X = (1.0, -1.0, -1.0, 1.0)
_TURN_Z = (-1.0, -1.0, 1.0)

# Of unit vectors about two degrees apart; below, their common normal is mostly noise.
_SMALLEST_SPREAD_OF_RIGHTS = 3e-4


# ---- OpenGL, Blender, NeRF ----------------------------------------------------------------------


def opengl_to_opencv_c2w(c2w_opengl: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenGL (Blender, NeRF, nerfstudio) camera-to-world poses to OpenCV ones; the world stays."""
    return c2w_opengl * c2w_opengl.new_tensor(_TURN_X)


def opencv_to_opengl_c2w(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenCV camera-to-world poses to OpenGL (Blender, NeRF, nerfstudio) ones; the world stays."""
    return opengl_to_opencv_c2w(c2w)


def opengl_to_opencv_w2c(w2c_opengl: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenGL world-to-camera poses to OpenCV ones; the world stays."""
    return w2c_opengl * w2c_opengl.new_tensor(_TURN_X)[:, None]


def opencv_to_opengl_w2c(w2c: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenCV world-to-camera poses to OpenGL ones; the world stays."""
    return opengl_to_opencv_w2c(w2c)


# ---- PyTorch3D (CO3D) ---------------------------------------------------------------------------


def pytorch3d_to_opencv(
    R: Float[Tensor, "v 3 3"],
    T: Float[Tensor, "v 3"],
    focal_ndc: Float[Tensor, "v 2"],
    principal_ndc: Float[Tensor, "v 2"],
    *,
    width: int,
    height: int,
) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 3 3"]]:
    """PyTorch3D cameras, as in CO3D's annotations, to OpenCV.

    PyTorch3D multiplies row vectors, ``x_cam = x_world R + T``, and has +X left, +Y up. Its
    (isotropic) normalised device coordinates measure in halves of the picture's smaller side.

    Args:
        R: rotations as PyTorch3D stores them.
        T: translations.
        focal_ndc: focal lengths along x and y in NDC.
        principal_ndc: principal points in NDC; +x left, +y up, (0, 0) the picture's centre.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        Camera-to-world poses and normalised intrinsics.
    """
    w2c = R.new_zeros(len(R), 4, 4)
    turn = R.new_tensor(_TURN_Z)
    w2c[:, :3, :3] = turn[:, None] * R.transpose(-1, -2)
    w2c[:, :3, 3] = turn * T
    w2c[:, 3, 3] = 1.0
    size = R.new_tensor([width, height])
    half = min(width, height) / 2
    Ks_norm = torch.zeros_like(R)
    Ks_norm[:, [0, 1], [0, 1]] = focal_ndc * half / size
    Ks_norm[:, :2, 2] = 0.5 - principal_ndc * half / size
    Ks_norm[:, 2, 2] = 1.0
    return invert_rigid(w2c), Ks_norm


def opencv_to_pytorch3d(
    c2w: Float[Tensor, "v 4 4"], Ks_norm: Float[Tensor, "v 3 3"], *, width: int, height: int
) -> tuple[
    Float[Tensor, "v 3 3"], Float[Tensor, "v 3"], Float[Tensor, "v 2"], Float[Tensor, "v 2"]
]:
    """OpenCV cameras to PyTorch3D's R, T, focal and principal point; see `pytorch3d_to_opencv`."""
    w2c = invert_rigid(c2w)
    turn = c2w.new_tensor(_TURN_Z)
    R = (turn[:, None] * w2c[:, :3, :3]).transpose(-1, -2)
    T = turn * w2c[:, :3, 3]
    ndc_per_picture = c2w.new_tensor([width, height]) / (min(width, height) / 2)
    focal_ndc = Ks_norm[:, [0, 1], [0, 1]] * ndc_per_picture
    principal_ndc = (0.5 - Ks_norm[:, :2, 2]) * ndc_per_picture
    return R, T, focal_ndc, principal_ndc


# ---- three.js, ComfyUI's LOAD3D_CAMERA ----------------------------------------------------------


def camera_to_load3d(
    c2w: Float[Tensor, "4 4"],
    K_norm: Float[Tensor, "3 3"],
    *,
    width: int,
    height: int,
    target_distance: float = 1.0,
) -> dict[str, Any]:
    """One camera as ComfyUI's LOAD3D_CAMERA dictionary.

    The world turns with it: LOAD3D's is three.js' (+Y up, the camera looks along -Z), reached from
    the OpenCV-style one of splats (+Y down, +Z forward) by half a turn M = diag(1, -1, -1) about X:
    position = M t and R_three = M R M. The field of view is measured over the smaller side, as
    ComfyUI's splat renderer does, so the picture's size decides it.

    An off-centre principal point, pixels that are not square and skew cannot be said in that
    dictionary; they are dropped with a warning in the log.

    Args:
        c2w: OpenCV pose in a splat world.
        K_norm: normalised intrinsics.
        width: of the picture to render, in pixels.
        height: of the picture to render, in pixels.
        target_distance: from the camera to the point that the viewer orbits, in scene units.

    Raises:
        InvalidInputError: ``target_distance`` is not positive.
    """
    if not target_distance > 0:
        raise InvalidInputError(
            f"target_distance is {target_distance}; expected a positive distance in scene units."
        )
    turn = c2w.new_tensor(_TURN_X[:3])
    rotation = turn[:, None] * c2w[:3, :3] * turn
    position = turn * c2w[:3, 3]
    focal_px = _single_focal_px(K_norm, width, height)
    fov_rad = 2 * math.atan(min(width, height) / (2 * focal_px))
    w, x, y, z = rotation_to_quat(rotation.cpu().double()).tolist()
    return {
        "position": _to_xyz(position),
        "target": _to_xyz(position - rotation[:, 2] * target_distance),
        "quaternion": {"x": x, "y": y, "z": z, "w": w},
        "fov": math.degrees(fov_rad),
        "aspect": width / height,
        "zoom": 1.0,
        "cameraType": "perspective",
    }


def load3d_to_camera(
    camera_info: Mapping[str, Any], *, width: int, height: int
) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """The pose and normalised intrinsics of one LOAD3D_CAMERA dictionary; see `camera_to_load3d`.

    Without a quaternion the camera looks from ``position`` to ``target`` with +Y up. A missing or
    zero field of view is ComfyUI's default, 35 degrees.

    Args:
        camera_info: ComfyUI's dictionary.
        width: of the picture that the camera is for, in pixels.
        height: of that picture, in pixels.

    Returns:
        float32 c2w with OpenCV axes in the splat world, and normalised intrinsics.

    Raises:
        InvalidInputError: the camera is orthographic, or nothing says where it looks.
    """
    kind = str(camera_info.get("cameraType") or "perspective")
    if kind.lower().startswith("ortho"):
        raise InvalidInputError(
            "camera_info: an orthographic camera came; only perspective ones have a focal length. "
            "Switch the viewer to perspective."
        )
    position = _from_xyz(camera_info.get("position"))
    quaternion = camera_info.get("quaternion")
    if quaternion:
        wxyz = [float(quaternion.get(key, 1.0 if key == "w" else 0.0)) for key in "wxyz"]
        rotation = quat_to_rotation(torch.tensor(wxyz, dtype=torch.float64))
    else:
        rotation = _three_look_at(position, _from_xyz(camera_info.get("target")))
    turn = torch.tensor(_TURN_X[:3], dtype=torch.float64)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = turn[:, None] * rotation * turn
    c2w[:3, 3] = turn * position
    fov_rad = math.radians(float(camera_info.get("fov") or 35.0))
    zoom = float(camera_info.get("zoom") or 1.0)
    focal_px = min(width, height) / 2 / math.tan(fov_rad / 2) * zoom
    K_norm = torch.diag(torch.tensor([focal_px / width, focal_px / height, 1.0]))
    K_norm[:2, 2] = 0.5
    return c2w.float(), K_norm


def _single_focal_px(K_norm: Tensor, width: int, height: int) -> float:
    fx_px, fy_px = float(K_norm[0, 0]) * width, float(K_norm[1, 1]) * height
    off_centre = float((K_norm[:2, 2] - 0.5).abs().max())
    if abs(fx_px / fy_px - 1) > 1e-3 or off_centre > 1e-3 or abs(float(K_norm[0, 1])) > 1e-6:
        _log.warning(
            "LOAD3D_CAMERA holds one focal length and a centred principal point; this camera "
            "(fx %.2f px, fy %.2f px, principal point %.4f from the centre) is approximated.",
            fx_px,
            fy_px,
            off_centre,
        )
    # The vertical one: the type documents a vertical field of view.
    return fy_px


def _three_look_at(position: Tensor, target: Tensor) -> Tensor:
    backward = position - target
    if float(backward.norm()) < 1e-12:
        raise InvalidInputError(
            "camera_info: it has no quaternion and its target equals its position, so nothing "
            "says where the camera looks. Connect a viewer's camera_info, or give a target."
        )
    backward = backward / backward.norm()
    up = backward.new_tensor([0.0, 1.0, 0.0])
    if abs(float(backward @ up)) > 0.999:
        up = backward.new_tensor([0.0, 0.0, 1.0])
    right = torch.linalg.cross(up, backward)
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(backward, right), backward], dim=1)


def _to_xyz(vector: Tensor) -> dict[str, float]:
    return dict(zip("xyz", vector.tolist(), strict=True))


def _from_xyz(point: Mapping[str, Any] | None) -> Tensor:
    values = [float((point or {}).get(key, 0.0)) for key in "xyz"]
    return torch.tensor(values, dtype=torch.float64)


# ---- worlds -------------------------------------------------------------------------------------


def z_up_to_y_up_c2w(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn a +Z-up world to a +Y-up one; the cameras' own axes stay.

    Half a turn about (0, 1, 1): +Y (where azimuth 0 of our paths stands) becomes +Z, where a
    three.js or glTF viewer stands at first.
    """
    x, y, z, last = c2w.unbind(-2)
    return torch.stack([-x, z, y, last], dim=-2)


def y_up_to_z_up_c2w(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn a +Y-up world to a +Z-up one; the inverse of `z_up_to_y_up_c2w`."""
    return z_up_to_y_up_c2w(c2w)


def splat_world_rotation(
    up: Float[Tensor, "3"] | Sequence[float] = (0.0, 0.0, 1.0),
    heading: Float[Tensor, "3"] | Sequence[float] = (0.0, -1.0, 0.0),
) -> Float[Tensor, "3 3"]:
    """The turn of a world to the one of splats: +Y down and +Z forward, as ComfyUI's SPLAT has it.

    Args:
        up: any vector that points up in the given world; on the paths made here that is +Z.
        heading: where one looks from the front, which becomes +Z: these paths start at +Y and look
            along -Y. Only its level part counts, and it must not be parallel to ``up``.

    Returns:
        float64 on the CPU: ``rotation @ x`` is where the point x comes to lie. Its transpose turns
        back.
    """
    down, forward = (torch.as_tensor(axis).detach().cpu().double() for axis in (up, heading))
    down = -torch.nn.functional.normalize(down, dim=0)
    forward = torch.nn.functional.normalize(forward - (forward @ down) * down, dim=0)
    return torch.stack([torch.linalg.cross(down, forward), down, forward])


# ---- intrinsics ---------------------------------------------------------------------------------


def Ks_to_normalised(
    Ks: Float[Tensor, "*batch 3 3"], width: int, height: int
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics in pixels to normalised ones: first row by the width, second by the height."""
    return Ks / Ks.new_tensor([width, height, 1.0])[:, None]


def Ks_norm_to_pixels(
    Ks_norm: Float[Tensor, "*batch 3 3"], width: int, height: int
) -> Float[Tensor, "*batch 3 3"]:
    """Normalised intrinsics to those of a picture of ``width`` x ``height`` pixels."""
    return Ks_norm * Ks_norm.new_tensor([width, height, 1.0])[:, None]


def Ks_norm_from_focal(focal_norm: float, aspect: float = 1.0) -> Float[Tensor, "3 3"]:
    """Normalised intrinsics of square pixels and a centred principal point.

    Args:
        focal_norm: focal length divided by the picture's smaller side; 1.0938 (49.1 degrees) is
            what the released weights saw most.
        aspect: width / height of the picture.

    Returns:
        float64, fx = focal_norm / max(aspect, 1) and fy = fx * aspect.

    Raises:
        InvalidInputError: one of them is not positive and finite.
    """
    for name, value in (("focal_norm", focal_norm), ("aspect", aspect)):
        if not (math.isfinite(value) and value > 0):
            raise InvalidInputError(f"{name} is {value}; expected a positive, finite number.")
    fx_norm = focal_norm / max(aspect, 1.0)
    return torch.tensor(
        [[fx_norm, 0.0, 0.5], [0.0, fx_norm * aspect, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64
    )


def picture_aspect(cameras: Cameras) -> Float[Tensor, " v"]:
    """The width / height of each view's picture if its pixels are square: fy_norm / fx_norm."""
    return cameras.Ks_norm[:, 1, 1] / cameras.Ks_norm[:, 0, 0]


# ---- relative poses -----------------------------------------------------------------------------


def relative_c2w(
    c2w: Float[Tensor, "*batch 4 4"], reference_c2w: Float[Tensor, "*reference 4 4"]
) -> Float[Tensor, "*all 4 4"]:
    """Poses seen from a reference camera: ``inverse(reference_c2w) @ c2w``; batches broadcast."""
    return invert_rigid(reference_c2w) @ c2w


def estimate_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """The world's upward direction as the cameras suggest it: cameras carry no up of their own.

    Photographers hold the camera level, so its right-hand axis is horizontal: where those axes
    point in different directions of one plane, up is perpendicular to all of them. Otherwise, and
    where the two ideas differ by more than 60 degrees, it is the mean of the pictures' upward
    directions.

    Returns:
        float64 unit vector on the CPU.
    """
    mean_up, level = ideas_of_up(cameras)
    if float(torch.linalg.vector_norm(mean_up)) < 1e-3:
        mean_up = -cameras.c2w[0, :3, 1].cpu().double()
    mean_up = torch.nn.functional.normalize(mean_up, dim=0)
    if level is None:
        return mean_up
    up = level * torch.sign(level @ mean_up)
    return up if float(up @ mean_up) > 0.5 else mean_up


def ideas_of_up(cameras: Cameras) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"] | None]:
    """What cameras say about the world's upward direction, for `estimate_up`.

    Returns:
        The mean of the pictures' upward directions, short where they contradict each other; and a
        unit vector perpendicular to all right-hand axes, up or down, or ``None`` where these axes
        do not lie spread in one plane. float64 on the CPU.
    """
    rotations = cameras.c2w[:, :3, :3].detach().cpu().double()
    rights = rotations[:, :, 0]
    mean_up = -rotations[:, :, 1].mean(0)
    spread, axes = torch.linalg.eigh(rights.T @ rights / len(rights))
    flat = float(spread[0]) < 0.25 * float(spread[1])
    if not flat or float(spread[1]) < _SMALLEST_SPREAD_OF_RIGHTS:
        return mean_up, None
    return mean_up, axes[:, 0]


# ---- scale --------------------------------------------------------------------------------------


def path_scale(cameras: Cameras, reference: int = 0) -> float:
    """How far the path reaches: the largest distance of any camera from the reference view.

    The rays that the network sees are relative to the first conditioned view, so this is the
    largest translation it meets. An orbit of radius 2 has 4, the default forward-facing path about
    1; the released weights saw scales of that order. A COLMAP path at scale 100 is far outside
    them: bring it near with `normalise_scale`.

    Args:
        cameras: the path.
        reference: index of the reference view.

    Returns:
        The distance in scene units; 0 for one camera or one that only turns.
    """
    centres = cameras.centres
    return float((centres - cameras[reference].centres).norm(dim=-1).max())


def scale_cameras(cameras: Cameras, factor: float) -> Cameras:
    """The path with all positions multiplied by ``factor``, about the world's origin.

    Raises:
        InvalidInputError: ``factor`` is not positive and finite.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise InvalidInputError(f"factor is {factor}; expected a positive, finite number.")
    factors = cameras.c2w.new_tensor([1.0, 1.0, 1.0, factor])
    c2w = cameras.c2w.clone()
    c2w[:, :3] *= factors
    return Cameras(c2w, cameras.Ks_norm, cameras.times)


def normalise_scale(cameras: Cameras, scale: float = 2.0, reference: int = 0) -> Cameras:
    """The path scaled so that `path_scale` is ``scale``; one that stays in place is unchanged.

    Positions are multiplied about the world's origin. A path counts as staying in place when it
    reaches less than a millionth of its distance from the origin: that is rounding.

    Raises:
        InvalidInputError: ``scale`` is not positive and finite.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidInputError(f"scale is {scale}; expected a positive, finite number.")
    now = path_scale(cameras, reference)
    if now <= 1e-6 * float(cameras.centres.abs().max()):
        return cameras
    return scale_cameras(cameras, scale / now)

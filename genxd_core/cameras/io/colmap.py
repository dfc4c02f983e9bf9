"""COLMAP models, text and binary, read and written without COLMAP.

A model is a folder with ``cameras``, ``images`` and ``points3D`` as .bin or .txt; newer ones add
``rigs`` and ``frames``, which repeat poses that ``images`` still holds. COLMAP's poses are
world-to-camera with OpenCV axes; its pixels have their centres at + 0.5, as ours.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...errors import InvalidInputError
from ..cameras import Cameras
from ..rotations import quat_to_rotation, rotation_to_quat
from .camera_file import (
    CameraFile,
    check_distortion,
    log_dropped_distortion,
    names_or_numbers,
    resolve_size,
    write_atomically,
)

__all__ = ["find_colmap_model", "read_colmap", "write_colmap"]

# id -> (name, intrinsic parameters, distortion parameters), in COLMAP's order.
_MODELS = {
    0: ("SIMPLE_PINHOLE", ("f", "cx", "cy"), ()),
    1: ("PINHOLE", ("fx", "fy", "cx", "cy"), ()),
    2: ("SIMPLE_RADIAL", ("f", "cx", "cy"), ("k",)),
    3: ("RADIAL", ("f", "cx", "cy"), ("k1", "k2")),
    4: ("OPENCV", ("fx", "fy", "cx", "cy"), ("k1", "k2", "p1", "p2")),
    6: (
        "FULL_OPENCV",
        ("fx", "fy", "cx", "cy"),
        ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    ),
}
_MODEL_IDS = {name: model_id for model_id, (name, _, _) in _MODELS.items()}
_BYTES_PER_POINT2D = 24
_WHERE_MODELS_LIE = (".", "sparse/0", "0", "sparse")


@dataclass(frozen=True)
class _Intrinsics:
    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    name: str
    quat: tuple[float, ...]
    translation: tuple[float, ...]
    camera_id: int
    image_id: int


def find_colmap_model(folder: Path) -> tuple[Path, str] | None:
    """Where in a folder a COLMAP model lies: its folder and ``".bin"`` or ``".txt"``, if any."""
    for place in _WHERE_MODELS_LIE:
        candidate = folder / place
        for suffix in (".bin", ".txt"):
            if all((candidate / f"{stem}{suffix}").is_file() for stem in ("cameras", "images")):
                return candidate, suffix
    return None


def read_colmap(folder: Path, *, max_distortion: float | None) -> CameraFile:
    """Read the registered views of a COLMAP model, sorted by the names of their pictures.

    Args:
        folder: the model, or a folder that holds it as ``sparse/0``, ``0`` or ``sparse``.
        max_distortion: larger distortion coefficients are refused; ``None`` lets any through.

    Raises:
        InvalidInputError: no model is there, it is damaged or empty, or a camera is no pinhole.
    """
    found = find_colmap_model(folder)
    if found is None:
        raise InvalidInputError(
            f"path {folder} holds no COLMAP model: neither it nor its sparse/0, 0 or sparse has "
            "cameras and images as .bin or .txt."
        )
    model, suffix = found
    cameras_path, images_path = model / f"cameras{suffix}", model / f"images{suffix}"
    try:
        if suffix == ".bin":
            intrinsics = dict(_cameras_from_bytes(cameras_path.read_bytes()))
            images = list(_images_from_bytes(images_path.read_bytes()))
        else:
            intrinsics = dict(_cameras_from_text(cameras_path.read_text(encoding="utf-8")))
            images = list(_images_from_text(images_path.read_text(encoding="utf-8")))
    except InvalidInputError:
        raise
    except (struct.error, ValueError, IndexError) as error:
        raise InvalidInputError(
            f"path {model}: the COLMAP files are damaged or cut off ({error}). Export them again."
        ) from error
    if not images:
        raise InvalidInputError(
            f"path {model}: the COLMAP model has no registered image, so there is no camera in it."
        )
    loaded = _to_camera_file(intrinsics, images, model, max_distortion)
    points = model / f"points3D{suffix}"
    return replace(loaded, points=points) if points.is_file() else loaded


def _to_camera_file(
    intrinsics: dict[int, _Intrinsics],
    images: list[_Image],
    model: Path,
    max_distortion: float | None,
) -> CameraFile:
    images = sorted(images, key=lambda image: image.name)
    missing = {image.camera_id for image in images} - set(intrinsics)
    if missing:
        raise InvalidInputError(
            f"path {model}: images refer to the cameras {sorted(missing)}, which the cameras file "
            "does not have. Both files must come from one model."
        )
    Ks_norm, lenses = {}, {}
    dropped = 0.0
    for camera_id in sorted({image.camera_id for image in images}):
        where = f"camera {camera_id} of {model}"
        Ks_norm[camera_id], lenses[camera_id] = _to_K_norm(intrinsics[camera_id])
        dropped = max(dropped, check_distortion(lenses[camera_id], where, max_distortion))
    log_dropped_distortion(dropped, model)
    w2c = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
    w2c[:, :3, :3] = quat_to_rotation(torch.tensor([i.quat for i in images], dtype=torch.float64))
    w2c[:, :3, 3] = torch.tensor([i.translation for i in images], dtype=torch.float64)
    used = [intrinsics[image.camera_id] for image in images]
    return CameraFile(
        Cameras.from_w2c(w2c, np.stack([Ks_norm[image.camera_id] for image in images])),
        names=tuple(image.name for image in images),
        ids=tuple(image.image_id for image in images),
        sizes=tuple((camera.width, camera.height) for camera in used),
        # SIMPLE_RADIAL's only coefficient has no number.
        distortion=tuple(
            {"k1" if name == "k" else name: value for name, value in lens.items()}
            for lens in (lenses[image.camera_id] for image in images)
        ),
    )


def _to_K_norm(camera: _Intrinsics) -> tuple[np.ndarray, dict[str, float]]:
    """Normalised intrinsics, and the distortion coefficients by name."""
    _, names, distortion_names = _MODELS[_MODEL_IDS[camera.model]]
    values = dict(zip(names + distortion_names, camera.params, strict=True))
    fx, fy = values.get("fx", values.get("f")), values.get("fy", values.get("f"))
    size = np.array([camera.width, camera.height, 1.0])
    K = np.array([[fx, 0, values["cx"]], [0, fy, values["cy"]], [0, 0, 1]], dtype=np.float64)
    return K / size[:, None], {name: values[name] for name in distortion_names}


def _unsupported(model: int | str) -> InvalidInputError:
    known = ", ".join(name for name, _, _ in _MODELS.values())
    return InvalidInputError(
        f"path: COLMAP camera model {model} is not supported; expected one of {known}. Undistort "
        "the pictures with COLMAP's image_undistorter, which writes PINHOLE cameras."
    )


def _cameras_from_bytes(data: bytes) -> Iterator[tuple[int, _Intrinsics]]:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        camera_id, model_id, width, height = struct.unpack_from("<IiQQ", data, offset)
        offset += 24
        if model_id not in _MODELS:
            raise _unsupported(model_id)
        name, params, distortion = _MODELS[model_id]
        num_params = len(params) + len(distortion)
        yield (
            camera_id,
            _Intrinsics(name, width, height, struct.unpack_from(f"<{num_params}d", data, offset)),
        )
        offset += 8 * num_params


def _images_from_bytes(data: bytes) -> Iterator[_Image]:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        image_id, *pose, camera_id = struct.unpack_from("<I7dI", data, offset)
        offset += 64
        end = data.index(b"\0", offset)
        name = data[offset:end].decode("utf-8")
        (num_points,) = struct.unpack_from("<Q", data, end + 1)
        offset = end + 9 + _BYTES_PER_POINT2D * num_points
        if offset > len(data):
            raise ValueError(f"image {name} ends after the file")
        yield _Image(name, tuple(pose[:4]), tuple(pose[4:]), camera_id, image_id)


def _cameras_from_text(text: str) -> Iterator[tuple[int, _Intrinsics]]:
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        camera_id, model, width, height, *params = line.split()
        if model not in _MODEL_IDS:
            raise _unsupported(model)
        values = tuple(float(value) for value in params)
        if len(values) != sum(map(len, _MODELS[_MODEL_IDS[model]][1:])):
            raise ValueError(f"camera {camera_id} has {len(values)} parameters")
        yield int(camera_id), _Intrinsics(model, int(width), int(height), values)


def _images_from_text(text: str) -> Iterator[_Image]:
    # Two lines an image; the second lists its points and may be empty.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    filled = [index for index, line in enumerate(lines) if line.strip()]
    lines = lines[filled[0] :] if filled else []
    for line in lines[::2]:
        if not line.strip():
            continue
        image_id, *pose, camera_id, name = line.split(maxsplit=9)
        numbers = tuple(float(value) for value in pose)
        if len(numbers) != 7:
            raise ValueError(f"a line has {len(numbers)} pose numbers, not 7")
        yield _Image(name.strip(), numbers[:4], numbers[4:], int(camera_id), int(image_id))


def write_colmap(
    cameras: Cameras,
    folder: Path,
    *,
    binary: bool,
    width: int | None = None,
    height: int | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write a COLMAP model without points: one PINHOLE camera for each different intrinsics.

    Args:
        cameras: the path; times are not kept, and skew must be zero.
        folder: where to write; made if missing.
        binary: .bin files rather than .txt.
        width: of the pictures, in pixels; see `resolve_size`.
        height: of the pictures, in pixels.
        names: of the pictures; by default 00000.png and so on. Reading sorts by them.

    Raises:
        InvalidInputError: the folder holds a COLMAP model already, or a camera has skew.
    """
    files = ("cameras", "images", "points3D", "rigs", "frames")
    if any((folder / f"{stem}{suffix}").exists() for stem in files for suffix in (".bin", ".txt")):
        raise InvalidInputError(
            f"path {folder} holds a COLMAP model already; its other files would no longer fit. "
            "Give another folder, or remove that model."
        )
    if bool((cameras.Ks_norm[:, 0, 1] != 0).any()):
        raise InvalidInputError(
            "cameras have skew, which COLMAP's PINHOLE model cannot hold; save them as genxd."
        )
    width, height = resolve_size(cameras, width, height)
    sized = cameras.to(device="cpu", dtype=torch.float64)
    Ks = sized.Ks(width, height)
    params = [(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])) for K in Ks]
    camera_ids = {values: index + 1 for index, values in enumerate(dict.fromkeys(params))}
    intrinsics = {i: _Intrinsics("PINHOLE", width, height, p) for p, i in camera_ids.items()}
    quats = rotation_to_quat(sized.viewmats[:, :3, :3]).tolist()
    translations = sized.viewmats[:, :3, 3].tolist()
    images = [
        _Image(name, tuple(quat), tuple(translation), camera_ids[values], index + 1)
        for index, (name, quat, translation, values) in enumerate(
            zip(names_or_numbers(names, len(sized)), quats, translations, params, strict=True)
        )
    ]
    # The images come last: without them the folder does not count as a model.
    encode = _to_bytes if binary else _to_text
    for stem, content in encode(intrinsics, images).items():
        write_atomically(folder / f"{stem}{'.bin' if binary else '.txt'}", content)


def _to_bytes(intrinsics: dict[int, _Intrinsics], images: list[_Image]) -> dict[str, str | bytes]:
    cameras = struct.pack("<Q", len(intrinsics))
    for camera_id, camera in intrinsics.items():
        model_id = _MODEL_IDS[camera.model]
        cameras += struct.pack("<IiQQ", camera_id, model_id, camera.width, camera.height)
        cameras += struct.pack(f"<{len(camera.params)}d", *camera.params)
    views = struct.pack("<Q", len(images))
    for image in images:
        pose = (*image.quat, *image.translation)
        views += struct.pack("<I7dI", image.image_id, *pose, image.camera_id)
        views += image.name.encode("utf-8") + b"\0" + struct.pack("<Q", 0)
    return {"points3D": struct.pack("<Q", 0), "cameras": cameras, "images": views}


def _to_text(intrinsics: dict[int, _Intrinsics], images: list[_Image]) -> dict[str, str | bytes]:
    cameras = "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]\n"
    for camera_id, camera in intrinsics.items():
        params = " ".join(repr(value) for value in camera.params)
        cameras += f"{camera_id} {camera.model} {camera.width} {camera.height} {params}\n"
    views = "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of POINTS2D\n"
    for image in images:
        pose = " ".join(repr(value) for value in (*image.quat, *image.translation))
        views += f"{image.image_id} {pose} {image.camera_id} {image.name}\n\n"
    return {"points3D": "# no points\n", "cameras": cameras, "images": views}

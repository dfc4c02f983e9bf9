"""Sampling the groups of a plan, whatever samples one of them: the library's pipeline or a host.

Dimension letters: f frames of a group, k pictures, v cameras of the path, c h w of a latent.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.editing import join
from ..errors import InvalidInputError, WeightsError
from ..progress import Progress, report
from .plan import Group, PathPlan, View
from .store import PathStore

__all__ = [
    "GenerateGroup",
    "GroupTask",
    "ReportStep",
    "camera_noise",
    "check_finite",
    "check_seed",
    "mixed_seed",
    "sample_path",
    "steps_of",
]

_LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class GroupTask:
    """One group, ready for the network. Frames are in the order of the path.

    Attributes:
        cameras: of all frames.
        clean: latents of conditioned frames, zero elsewhere; on the CPU.
        positions: of the conditioned frames; the first is the reference view.
        noise: unit noise of every frame, on the CPU; each camera's is its own in every group.
        seed: for samplers that draw more noise.
        video: latents of all frames to start from, with noise on them; None for noise alone.
    """

    cameras: Cameras
    clean: Float[Tensor, "f c h w"]
    positions: tuple[int, ...]
    noise: Float[Tensor, "f c h w"]
    seed: int
    video: Float[Tensor, "f c h w"] | None = None


ReportStep = Callable[[int, Tensor | None], None]
"""``report_step(step, preview)`` after each of a group's steps, 1 to ``steps``; it may raise."""

GenerateGroup = Callable[[GroupTask, ReportStep], Tensor]
"""Samples a group: (f, c, h, w) latents of all frames, conditioned ones too, on any device."""


def camera_noise(seed: int, camera: int | str, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Unit noise of one camera: the same whatever is generated with it, and in which order.

    Args:
        seed: of the run, 0 to 2^64 - 1.
        camera: its number on the path, or another name.
        shape: of a latent.
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed, camera))
    return torch.randn(shape, generator=generator)


def sample_path(
    plan: PathPlan,
    path: Cameras,
    image_cameras: Cameras,
    encoded: Float[Tensor, "k c h w"],
    generate: GenerateGroup,
    *,
    steps: int,
    seed: int,
    store: PathStore | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> Float[Tensor, "v c h w"]:
    """Latents of every camera of a path.

    Beside these latents, which are on the CPU, memory does not grow with the path.

    Args:
        plan: of these cameras.
        path: the cameras to generate.
        image_cameras: of the pictures.
        encoded: latents of the pictures.
        generate: samples one group.
        steps: that ``generate`` reports for a group.
        seed: 0 to 2^64 - 1.
        store: where finished groups are kept; those it has are not made again.
        key: what the run is kept under; see `fingerprint`.
        progress: called after every step of every group, with the preview of ``generate``; groups
            that were there already count as done.

    Returns:
        float32 on the CPU; given cameras have their picture's latents exactly.

    Raises:
        InvalidInputError: a seed out of range.
        WeightsError: the network's numbers are not finite.
        Cancelled: ``progress`` asked to stop. What ``generate`` raises goes through too. Finished
            groups stay in ``store``.
    """
    check_seed(seed)
    encoded = encoded.float().cpu()
    shape = tuple(encoded.shape[1:])
    finished = {} if store is None else store.finished(key)
    latents = torch.zeros(len(path), *shape)
    for camera, picture in plan.given:
        latents[camera] = encoded[picture]
    pending: list[Group] = []
    for group in plan.groups:
        if all(camera in finished for camera in group.targets):
            for camera in group.targets:
                latents[camera] = finished[camera]
        else:
            pending.append(group)
    total = steps * len(plan.groups)
    done = total - steps * len(pending)
    if not pending:
        report(progress, done, total)
    # Times do not reach the network, and the pictures' may be missing.
    cameras = join(*(Cameras(one.c2w, one.Ks_norm) for one in (path, image_cameras)))
    for group in pending:
        frames = _frames(plan, group)
        task = _task(group, frames, cameras, encoded, latents, seed)
        sampled = generate(task, steps_of(progress, done, steps, total)).float().cpu()
        check_finite(sampled)
        made = {
            frame.index: sampled[number]
            for number, frame in enumerate(frames)
            if frame.generated and frame not in group.conditions
        }
        for camera, latent in made.items():
            latents[camera] = latent
        if store is not None:
            store.add(key, made)
        done += steps
    return latents


def steps_of(progress: Progress | None, done: int, steps: int, total: int) -> ReportStep:
    """What reports one group's steps as a part of all.

    Args:
        progress: of the whole.
        done: steps before the group.
        steps: of the group.
        total: of all groups.
    """

    def report_step(step: int, preview: Tensor | None = None) -> None:
        # Some samplers take more steps, or fewer, than they were asked for.
        report(progress, done + min(step, steps), total, preview)

    return report_step


def _frames(plan: PathPlan, group: Group) -> list[View]:
    """All views of a group as they lie along the path."""
    middle = sum(group.targets) / len(group.targets)

    def place(view: View) -> tuple[int, bool]:
        if view.generated:
            return view.index, True
        shows = [camera for camera, picture in plan.given if picture == view.index]
        near = min(shows or [plan.places[view.index]], key=lambda camera: abs(camera - middle))
        return near, False

    return sorted([*group.conditions, *(View(i, generated=True) for i in group.targets)], key=place)


def _task(
    group: Group,
    frames: list[View],
    cameras: Cameras,
    encoded: Tensor,
    latents: Tensor,
    seed: int,
) -> GroupTask:
    """A group's frames with what they need; ``cameras`` are the path's, then the pictures'."""
    num_on_path, shape = len(latents), tuple(encoded.shape[1:])
    clean = torch.zeros(len(frames), *shape)
    noise = torch.empty(len(frames), *shape)
    for number, frame in enumerate(frames):
        name = frame.index if frame.generated else f"picture {frame.index}"
        noise[number] = camera_noise(seed, name, shape)
        if frame in group.conditions:
            source = latents if frame.generated else encoded
            clean[number] = source[frame.index]
    return GroupTask(
        cameras=cameras[[f.index if f.generated else num_on_path + f.index for f in frames]],
        clean=clean,
        positions=tuple(frames.index(view) for view in group.conditions),
        noise=noise,
        seed=mixed_seed(seed, group.targets),
    )


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        InvalidInputError: it is not in 0 to 2^64 - 1.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise InvalidInputError(f"seed is {seed}; expected a whole number from 0 to 2^64 - 1.")


def mixed_seed(seed: int, name: object) -> int:
    """A seed of its own for a part of a run, in 0 to 2^63 - 1."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def check_finite(sampled: Tensor) -> None:
    """Refuse latents that are not finite.

    Raises:
        WeightsError: with what helps.
    """
    if not bool(torch.isfinite(sampled).all()):
        raise WeightsError(
            "the network gave values that are not finite (NaN or infinity); load it in bf16 or "
            "fp32, or lower the guidance. The groups finished before are kept."
        )

"""How good genxd-nano is on held-out scenes: ``python -m genxd_core.evaluation.nano``.

Protocol. Scenes have seeds from `HELD_OUT` on, which the trainer refuses. Twelve views of 64 pixels
a scene; PSNR over the views that were generated, per view, then averaged.

- single view: view 0 given; three views: 0, 5 and 11 given, the same nine others counted as for
  the comparison with one view. The baselines repeat the first view, or show the mean of 3,072
  training frames.
- reversed path: two orbits to either side of the given view. Counted: how often the generated
  views are nearer (PSNR) to the truth of their own side, and in how many scenes the two horizontal
  shifts have opposite signs; and both mean shifts.
- motion: still camera, a hopping ball. Its height is the shift of the changed region's centroid
  against the true empty scene. Spearman's correlation between strength and height over a sweep,
  per scene, averaged; and the mean height in 3D mode.
"""

import argparse
import itertools
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..assets import NANO
from ..cameras.cameras import Cameras
from ..files import write_atomically
from ..lifting.losses import psnr
from ..pipeline import GenXDPipeline
from ..synthetic import FAMILIES, HELD_OUT, SyntheticClips, make_clips
from ..synthetic.camera_paths import sample_path
from ..synthetic.motion import balls
from .object_paths import object_path, rise
from .rank import spearman

__all__ = ["Settings", "evaluate", "orbit_from"]

_PARTS = ("views", "reversal", "motion")
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
STRENGTHS = (0.0, 0.15, 0.3, 0.5, 0.8, 1.2)


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        scenes: held-out scenes of the view synthesis figures.
        motion_scenes: held-out scenes of the motion figures.
        training_clips: training clips of twelve views that the mean view is taken of.
        steps: sampling steps.
        guidance: guidance scale.
        seed: of the sampling noise; each scene adds its number.
    """

    scenes: int = 64
    motion_scenes: int = 64
    training_clips: int = 256
    steps: int = 25
    guidance: float = 1.0
    seed: int = 0


class _Runner:
    def __init__(self, pipeline: GenXDPipeline, settings: Settings) -> None:
        self.pipeline, self.settings = pipeline, settings

    def generate(
        self,
        images: Tensor,
        indices: list[int],
        cameras: Cameras,
        scene: int,
        *,
        mode: str = "3d",
        motion_strength: float = 0.0,
    ) -> Tensor:
        """Frames of one scene."""
        noise = torch.Generator().manual_seed(self.settings.seed + scene)
        out = self.pipeline(
            images,
            indices,
            cameras,
            mode=mode,
            motion_strength=motion_strength,
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance,
            generator=noise,
        )
        return out.frames.cpu()


def evaluate(
    pipeline: GenXDPipeline, settings: Settings, parts: Sequence[str] = _PARTS
) -> dict[str, Any]:
    """The figures of the protocol above.

    Args:
        pipeline: the model.
        settings: how many scenes, and how they are sampled.
        parts: any of "views", "reversal" and "motion".
    """
    runner = _Runner(pipeline, settings)
    measures = {"views": _view_figures, "reversal": _reversal_figures, "motion": _motion_figures}
    began = time.perf_counter()
    figures: dict[str, Any] = {"settings": vars(settings).copy()}
    figures |= {part: measures[part](runner) for part in parts}
    figures["seconds"] = round(time.perf_counter() - began, 1)
    where = f"{platform.machine()}, {pipeline.device}, {pipeline.dtype}, torch {torch.__version__}"
    figures["machine"] = where
    return figures


def _view_figures(runner: _Runner) -> dict[str, Any]:
    count = runner.settings.scenes
    # One clip at a time: its rays then fit the processor's cache.
    training = (make_clips([seed], "nano_3d") for seed in range(runner.settings.training_clips))
    clip_means = [clip.images[0].mean(dim=0) for clip in training]
    mean_frame = torch.stack(clip_means).mean(dim=0)
    given, targets = [0, 5, 11], [1, 2, 3, 4, 6, 7, 8, 9, 10]
    rows: dict[str, list[float]] = {}

    def note(name: str, frames: Tensor, truth: Tensor, views: list[int]) -> None:
        rows.setdefault(name, []).append(float(psnr(frames[views], truth[views]).mean()))

    vae = runner.pipeline.vae
    for scene in range(count):
        clip = make_clips([HELD_OUT + scene], "nano_3d")
        truth, cameras = clip.images[0], clip.cameras(0)
        one = runner.generate(truth[:1], [0], cameras, scene)
        three = runner.generate(truth[given], given, cameras, scene)
        everything = list(range(1, 12))
        note("single_view", one, truth, everything)
        note("repeat_input", truth[:1].expand(12, -1, -1, -1), truth, everything)
        note("mean_of_training_views", mean_frame.expand(12, -1, -1, -1), truth, everything)
        note("single_view_same_targets", one, truth, targets)
        note("three_views", three, truth, targets)
        coded = (vae.decode(vae.encode(truth)).cpu() / 2 + 0.5).clamp(0, 1)
        note("vae_ceiling", coded, truth, everything)
    figures = {name: round(sum(values) / len(values), 3) for name, values in rows.items()}
    best_baseline = max(figures["repeat_input"], figures["mean_of_training_views"])
    figures["gain_over_best_baseline"] = round(figures["single_view"] - best_baseline, 3)
    gain = figures["three_views"] - figures["single_view_same_targets"]
    figures["gain_of_three_views"] = round(gain, 3)
    return figures


def _reversal_figures(runner: _Runner) -> dict[str, Any]:
    count = runner.settings.motion_scenes
    nearer, shifts = 0, []
    for scene in range(count):
        seed = HELD_OUT + scene
        start = sample_path(3 * seed + 1, {"still": 1.0}, 1)
        truths, generated = [], []
        for side in (1, -1):
            clip = make_clips([seed], "nano_3d", c2w=orbit_from(start[0], 50.0 * side)[None])
            truths.append(clip.images[0])
            generated.append(runner.generate(clip.images[0, :1], [0], clip.cameras(0), scene))
        for own in (0, 1):
            to_own = psnr(generated[own][1:], truths[own][1:]).mean()
            to_other = psnr(generated[own][1:], truths[1 - own][1:]).mean()
            nearer += int(to_own > to_other)
        shifts.append([_horizontal_shift(frames) for frames in generated])
    pairs = torch.tensor(shifts)
    return {
        "nearer_to_own_side": round(nearer / (2 * count), 3),
        "opposite_shift_share": round(float((pairs[:, 0] * pairs[:, 1] < 0).float().mean()), 3),
        "mean_shift_px": [round(float(v), 3) for v in pairs.mean(dim=0)],
    }


def orbit_from(first: Tensor, span_deg: float, num_views: int = 12) -> Tensor:
    """An orbit about world +Z through the point 2 in front of the first camera.

    Args:
        first: (4, 4) c2w, where it begins.
        span_deg: how far it goes.
        num_views: cameras, both ends included.

    Returns:
        (num_views, 4, 4) c2w.
    """
    pivot = (first[:3, 3] + 2.0 * first[:3, 2]) * torch.tensor([1.0, 1.0, 0.0])
    angles = torch.deg2rad(torch.tensor(span_deg)) * torch.linspace(0, 1, num_views)
    turn = torch.eye(4).repeat(num_views, 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angles.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angles.sin(), angles.sin()
    to_pivot, back = torch.eye(4), torch.eye(4)
    to_pivot[:3, 3], back[:3, 3] = -pivot, pivot
    return back @ turn @ to_pivot @ first


def _horizontal_shift(frames: Tensor, reach: int = 8) -> float:
    """Mean shift in pixels, frame to frame, that best aligns the middle rows (objects)."""
    grey = frames.mean(dim=1)[:, frames.shape[-2] // 4 : -frames.shape[-2] // 4]
    grey = grey - grey.mean(dim=-1, keepdim=True)
    total = 0.0
    for a, b in itertools.pairwise(grey):
        errors = [
            float((a[:, reach + s : a.shape[1] - reach + s] - b[:, reach:-reach]).square().mean())
            for s in range(-reach, reach + 1)
        ]
        total += reach - errors.index(min(errors))
    return total / (len(frames) - 1)


def _motion_figures(runner: _Runner) -> dict[str, Any]:
    correlations, in_3d, heights = [], [], []
    for scene, (clip, empty) in enumerate(_ball_scenes(runner.settings.motion_scenes)):
        truth, cameras = clip.images[0], clip.cameras(0)
        measured = []
        for strength in STRENGTHS:
            frames = runner.generate(
                truth[:1], [0], cameras, scene, mode="4d", motion_strength=strength
            )
            measured.append(_height(frames, empty))
        still = runner.generate(truth[:1], [0], cameras, scene)
        in_3d.append(_height(still, empty))
        heights.append(measured)
        correlations.append(spearman(torch.tensor(STRENGTHS), torch.tensor(measured)))
    return {
        "strengths": list(STRENGTHS),
        "mean_height_px": [round(float(v), 3) for v in torch.tensor(heights).mean(dim=0)],
        "spearman": round(sum(correlations) / len(correlations), 3),
        "height_px_in_3d_mode": round(sum(in_3d) / len(in_3d), 3),
    }


def _ball_scenes(count: int) -> list[tuple[SyntheticClips, Tensor]]:
    """Held-out scenes with a still camera and balls only, and the same scenes without them."""
    family = FAMILIES["nano_video"]
    found: list[tuple[SyntheticClips, Tensor]] = []
    seed = HELD_OUT + 500_000
    while len(found) < count:
        clip = make_clips([seed], family)
        visible = (clip.ids[0, 0] > 0).float().mean()
        if bool((balls(clip.scenes) == (clip.scenes.present > 0.5)).all()) and visible > 0.02:
            away = make_clips([seed], family, without_objects=True)
            found.append((clip, away.images[0, 0]))
        seed += 1
    return found


def _height(frames: Tensor, empty: Tensor) -> float:
    """How far the object rises above its first place at most, in pixels."""
    return rise(object_path(frames, empty))


def main() -> None:
    """Print the figures and save them."""
    parser = argparse.ArgumentParser(description="Quality of genxd-nano on held-out scenes.")
    parser.add_argument("--model", type=Path, default=NANO, help="model folder")
    parser.add_argument("--scenes", type=int, default=64, help="scenes for view synthesis")
    parser.add_argument("--motion-scenes", type=int, default=64, help="scenes for motion")
    parser.add_argument("--steps", type=int, default=25, help="sampling steps")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance scale; 1 = none")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--dtype", choices=sorted(_DTYPES), default="fp32", help="of the network")
    parser.add_argument(
        "--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="which figures to measure"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("nano_evaluation.json"), help="JSON file to write"
    )
    args = parser.parse_args()
    pipeline = GenXDPipeline.from_pretrained(
        args.model, dtype=_DTYPES[args.dtype], device=args.device
    )
    settings = Settings(
        scenes=args.scenes,
        motion_scenes=args.motion_scenes,
        steps=args.steps,
        guidance=args.guidance,
    )
    text = json.dumps(evaluate(pipeline, settings, args.parts), indent=2)
    sys.stdout.write(text + "\n")
    write_atomically(args.out, lambda path: path.write_text(text + "\n", encoding="utf-8"))


if __name__ == "__main__":
    main()

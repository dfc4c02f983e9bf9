"""A small splat that moves, for tests in ComfyUI: its truth is known at every time."""

from typing import Any

import torch

from tests.support import seeded

__all__ = ["BALLS", "moving_balls"]

# In a world with +Z up: colour, centre, radius. The first moves along x, and turns.
BALLS = {
    "red": ((0.9, 0.1, 0.1), (0.0, 0.0, 0.0), 0.25),
    "green": ((0.1, 0.8, 0.1), (0.0, 0.0, 0.7), 0.2),
    "blue": ((0.1, 0.2, 0.9), (0.6, 0.6, -0.4), 0.2),
}


def moving_balls(gx: Any, each: int = 200, *, degree: int = 0) -> Any:
    """Three balls of Gaussians; red goes from x = -0.7 to 0.7 and turns about z.

    Args:
        gx: the package ``genxd_core``, as it was imported where the scene is used.
        each: Gaussians a ball.
        degree: of the spherical harmonics; above 0 colours depend on the side.
    """
    generator = seeded(4)
    parts = []
    for colour, place, radius in BALLS.values():
        directions = torch.nn.functional.normalize(torch.randn(each, 3, generator=generator))
        reach = torch.rand(each, 1, generator=generator) ** (1 / 3)
        ball = gx.Gaussians.from_rgb(
            torch.tensor(place) + radius * reach * directions,
            torch.randn(each, 4, generator=generator),
            radius * (0.05 + 0.2 * torch.rand(each, 3, generator=generator)),
            torch.full((each,), 0.9),
            torch.tensor(colour).expand(each, 3),
        )
        rest = 0.1 * torch.randn(each, (degree + 1) ** 2 - 1, 3, generator=generator)
        sh = torch.cat([ball.sh, rest], 1)
        parts.append(gx.Gaussians(ball.means, ball.quats, ball.scales, ball.opacities, sh))
    motion = gx.lifting.motion_bases.MotionBases(num_moving=each, times=[0.0, 1.0], num_bases=1)
    with torch.no_grad():
        motion.shifts[0] = torch.tensor([[-0.7, 0.0, 0.0], [0.7, 0.0, 0.2]])
        motion.turns[0, 1] = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 0.0])
    return gx.Gaussians4D(gx.Gaussians.concatenate(parts), motion)

"""From the measured motion strength of a clip to the number that the network takes, and back."""

import math

from ..errors import InvalidInputError

__all__ = ["gamma_to_motion_strength", "motion_strength_to_gamma"]


def gamma_to_motion_strength(gamma: float) -> float:
    """What the network takes for a clip of measured strength ``gamma``.

    The released code feeds ``100 (sigmoid(gamma) - 0.5)``, about 25 gamma for small values.

    Args:
        gamma: the paper's strength (Sec. 3.3, Eq. 3-4): mean displacement between neighbouring
            frames as a fraction of the picture, maximum over objects. 0 is still, 0.009 the least
            that counts as motion (App. I), 0.05 a lot. The paper prints it times 100.
    """
    return 100.0 * (1.0 / (1.0 + math.exp(-gamma)) - 0.5)


def motion_strength_to_gamma(motion_strength: float) -> float:
    """The inverse of `gamma_to_motion_strength`.

    Raises:
        InvalidInputError: no gamma gives this value (it must lie between -50 and 50).
    """
    if not -50.0 < motion_strength < 50.0:
        raise InvalidInputError(
            f"motion_strength is {motion_strength}, expected a value between -50 and 50; "
            "typical ones are 0 (still) to 1.5 (strong motion)."
        )
    share = motion_strength / 100.0 + 0.5
    return math.log(share / (1.0 - share))

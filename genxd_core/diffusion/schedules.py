"""Sequences of noise levels: which sigmas a sampler visits, from the most noise down to none."""

import json
import math
import numbers
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError, WeightsError

__all__ = ["NoiseSchedule", "karras_sigmas", "last_steps"]

# Settings of a scheduler_config.json and the values that this module implements. What is not
# listed has no influence on a Karras schedule with continuous timesteps.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("v_prediction",),
    "timestep_type": ("continuous",),
    "timestep_spacing": ("leading",),
    "use_karras_sigmas": (True,),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "final_sigmas_type": ("zero", None),
}
_MAY_BE_ABSENT = {"use_exponential_sigmas", "use_beta_sigmas", "final_sigmas_type"}


def karras_sigmas(
    num_steps: int, *, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0
) -> Float[Tensor, " {num_steps}+1"]:
    """Noise levels evenly spaced in sigma^(1/rho), and a final 0.

    Implements Eq. 5 of Karras et al. (2022); the default range is SVD's.

    Args:
        num_steps: steps of a sampler, at least 1. One step starts at ``sigma_max``.
        sigma_min: the last level above 0.
        sigma_max: the first level.
        rho: larger values spend more steps at low noise.

    Returns:
        float32 on the CPU, falling.

    Raises:
        InvalidInputError: fewer than one step, or a range that is empty or not positive.
    """
    _check_num_steps("num_steps", num_steps)
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise InvalidInputError(
            f"sigma_min is {sigma_min} and sigma_max {sigma_max}; expected finite numbers with "
            "0 < sigma_min < sigma_max (0.002 and 700 for GenXD)."
        )
    if not 0.0 < rho < math.inf:
        raise InvalidInputError(f"rho is {rho}; expected a positive number, usually 7.")
    ramp = torch.linspace(0.0, 1.0, num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def last_steps(sigmas: Float[Tensor, " n"], strength: float) -> Float[Tensor, " m"]:
    """The end of a schedule, for starting from a noised video instead of from noise alone.

    Implements the start of SDEdit (Meng et al. 2022): of N steps the last int(N * strength).

    Args:
        sigmas: levels of N steps and a final 0.
        strength: in (0, 1]: 1 runs every step and keeps next to nothing of the video, small values
            keep nearly all of it.

    Raises:
        InvalidInputError: ``strength`` is out of range, or so small that no step is left.
    """
    if not 0.0 < strength <= 1.0:
        raise InvalidInputError(
            f"strength is {strength}; expected a number above 0, up to 1 (how much of the "
            "schedule is run on the video; 0.5 is usual)."
        )
    num_steps = len(sigmas) - 1
    kept = min(int(num_steps * strength), num_steps)
    if kept < 1:
        raise InvalidInputError(
            f"strength is {strength}, which leaves none of {num_steps} steps to run; raise it to "
            f"at least {1 / num_steps:.3g} or use more num_inference_steps."
        )
    return sigmas[num_steps - kept :]


@dataclass(frozen=True)
class NoiseSchedule:
    """The range of noise levels of a model.

    Attributes:
        sigma_min: the last level above 0.
        sigma_max: the first level.
    """

    sigma_min: float = 0.002
    sigma_max: float = 700.0

    def sigmas(self, num_steps: int, *, strength: float = 1.0) -> Float[Tensor, " n"]:
        """Levels to visit, a final 0 included; see `karras_sigmas` and `last_steps`."""
        _check_num_steps("num_inference_steps", num_steps)
        every = karras_sigmas(num_steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        return last_steps(every, strength)

    @classmethod
    def from_json(cls, path: str | Path) -> "NoiseSchedule":
        """Read a ``scheduler_config.json`` of the released layout.

        Raises:
            WeightsError: the file is missing or damaged, or asks for another kind of schedule than
                Karras sigmas with continuous timesteps and v-prediction.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise WeightsError(
                f"{path} does not exist; the released layout has scheduler/scheduler_config.json "
                "beside unet/ and vae/. Copy it from the model's download."
            ) from error
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read as JSON ({error}).") from error
        if not isinstance(values, dict):
            raise WeightsError(f"{path} holds a JSON {type(values).__name__}, expected an object.")
        _refuse_unimplemented(values, path)
        return cls(_sigma(values, "sigma_min", path), _sigma(values, "sigma_max", path))


def _refuse_unimplemented(values: dict[str, Any], path: Path) -> None:
    for name, implemented in _IMPLEMENTED.items():
        if name not in values and name in _MAY_BE_ABSENT:
            continue
        value = values.get(name)
        if value not in implemented:
            raise WeightsError(
                f"{path} sets {name} to {value!r}; GenXD is sampled with {implemented[0]!r} and "
                "nothing else is implemented. Is this another model's scheduler?"
            )


def _sigma(values: dict[str, Any], name: str, path: Path) -> float:
    value: Any = values.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.0 < value < math.inf:
        raise WeightsError(f"{path} sets {name} to {value!r}; expected a positive number.")
    return float(value)


def _check_num_steps(name: str, num_steps: int) -> None:
    is_whole = isinstance(num_steps, numbers.Integral) and not isinstance(num_steps, bool)
    if not is_whole or num_steps < 1:
        raise InvalidInputError(f"{name} is {num_steps!r}; expected a whole number, at least 1.")

import json
import math

import pytest
import torch

from genxd_core.diffusion.schedules import NoiseSchedule, karras_sigmas, last_steps
from genxd_core.errors import InvalidInputError, WeightsError
from tests.tiny_model import settings


def test_karras_sigmas_are_even_in_the_root_and_end_in_zero():
    sigmas = karras_sigmas(9).double()
    roots = sigmas[:-1] ** (1 / 7)
    gaps = roots.diff()
    assert len(sigmas) == 10
    assert sigmas[-1] == 0
    torch.testing.assert_close(gaps, gaps.mean().expand(8), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 25, 100])
def test_karras_sigmas_start_at_the_most_noise_and_fall(steps):
    sigmas = karras_sigmas(steps)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == pytest.approx(700.0, rel=1e-6)
    assert bool((sigmas.diff() < 0).all())
    if steps > 1:
        assert sigmas[-2] == pytest.approx(0.002, rel=1e-6)


def test_karras_sigmas_in_the_middle_agree_with_the_formula_by_hand():
    # Halfway: ((700^(1/7) + 0.002^(1/7)) / 2)^7.
    expected = ((math.exp(math.log(700) / 7) + math.exp(math.log(0.002) / 7)) / 2) ** 7
    assert karras_sigmas(3)[1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [0, -1, True])
def test_steps_that_are_no_positive_whole_number_are_refused(steps):
    with pytest.raises(InvalidInputError, match=r"num_inference_steps is .* at least 1"):
        NoiseSchedule().sigmas(steps)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)]
)
def test_an_impossible_range_of_sigmas_is_refused(low, high):
    with pytest.raises(InvalidInputError, match="0 < sigma_min < sigma_max"):
        karras_sigmas(5, sigma_min=low, sigma_max=high)


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan])
def test_an_impossible_rho_is_refused(rho):
    with pytest.raises(InvalidInputError, match="rho is"):
        karras_sigmas(5, rho=rho)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"), [(6, 0.5, 3), (25, 0.5, 12), (10, 1.0, 10), (10, 0.1, 1)]
)
def test_strength_keeps_the_last_steps(steps, strength, kept):
    every = karras_sigmas(steps)
    assert torch.equal(NoiseSchedule().sigmas(steps, strength=strength), every[-kept - 1 :])


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_strength_outside_its_range_is_refused(strength):
    with pytest.raises(InvalidInputError, match=r"strength is .* above 0, up to 1"):
        last_steps(karras_sigmas(10), strength)


def test_strength_that_leaves_no_step_is_refused():
    with pytest.raises(InvalidInputError, match=r"none of 10 steps .* at least 0\.1"):
        last_steps(karras_sigmas(10), 0.05)


def written(tmp_path, **changes):
    values = {**settings()["scheduler"], **changes}
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}), "utf-8")
    return file


def test_schedule_is_read_from_the_released_settings(tmp_path):
    assert NoiseSchedule.from_json(written(tmp_path)) == NoiseSchedule(0.002, 700.0)
    narrow = NoiseSchedule.from_json(written(tmp_path, sigma_min=0.01, sigma_max=80))
    assert narrow.sigmas(4)[0] == pytest.approx(80.0)
    assert narrow.sigmas(4)[-2] == pytest.approx(0.01)


def test_what_newer_versions_of_the_file_add_is_accepted(tmp_path):
    NoiseSchedule.from_json(
        written(tmp_path, final_sigmas_type="zero", use_beta_sigmas=False, _class_name="Euler")
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prediction_type", "epsilon"),
        ("prediction_type", "absent"),
        ("timestep_type", "discrete"),
        ("timestep_spacing", "trailing"),
        ("use_karras_sigmas", False),
        ("use_karras_sigmas", "absent"),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
        ("final_sigmas_type", "sigma_min"),
    ],
)
def test_settings_of_another_scheduler_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(WeightsError, match=f"sets {name} to .* nothing else is implemented"):
        NoiseSchedule.from_json(written(tmp_path, **{name: value}))


@pytest.mark.parametrize("value", [None, "700", True, 0, -3.0])
def test_sigmas_of_the_file_must_be_positive_numbers(tmp_path, value):
    with pytest.raises(WeightsError, match=r"sets sigma_max to .* positive number"):
        NoiseSchedule.from_json(written(tmp_path, sigma_max=value))


def test_missing_and_damaged_files_are_told_apart(tmp_path):
    file = tmp_path / "scheduler_config.json"
    with pytest.raises(WeightsError, match="does not exist"):
        NoiseSchedule.from_json(file)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        NoiseSchedule.from_json(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        NoiseSchedule.from_json(file)
    file.write_text("[1]", encoding="utf-8")
    with pytest.raises(WeightsError, match="holds a JSON list"):
        NoiseSchedule.from_json(file)

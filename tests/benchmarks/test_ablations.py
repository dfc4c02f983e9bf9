"""The report of the ablations: its logic on hand-made numbers, and a run through tiny networks."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ablations
from benchmarks.ablations import (
    DIRECTIONS,
    FULL,
    VARIANTS,
    ahead,
    as_text,
    collect,
    compare,
    evaluate_run,
    finished_runs,
    is_better_high,
    not_measured,
    run_folder,
    spread_of_seeds,
    statement,
    train,
    train_command,
    without_places,
)
from genxd_core.autoencoder import Autoencoder
from genxd_core.evaluation.intervals import Interval
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import save_unet
from trainer.recipes import RECIPES

SCENES = [20.0, 24.0, 22.0, 18.0]


def table(shift, figure="three_views_psnr", variant="camera_attention", full_seeds=(0.0,)):
    """A full model, and a variant whose figures lie ``shift`` above its own."""
    return {
        FULL: {figure: [[value + seed for value in SCENES] for seed in full_seeds]},
        variant: {figure: [[value + shift for value in SCENES]]},
    }


@pytest.mark.parametrize(
    ("figure", "shift", "expected"),
    [
        ("three_views_psnr", -1.0, "appears"),
        ("three_views_psnr", 1.0, "reversed"),
        ("three_views_psnr", 0.0, "does not appear"),
        ("other_three_views_ssim", -0.1, "appears"),
        ("clip_random_feature_distance", 0.1, "appears"),
        ("clip_lpips_alex", -0.1, "reversed"),
    ],
)
def test_direction_appears_where_the_full_model_is_surely_ahead(figure, shift, expected):
    (row,) = compare(table(shift, figure))
    assert row["direction"] == expected
    assert row["full_ahead_by"] == pytest.approx(
        [abs(shift)] * 3 if expected == "appears" else [-abs(shift)] * 3
    )
    assert row["full"][0] == pytest.approx(21.0)
    assert row["without"][0] == pytest.approx(21.0 + shift)
    assert (row["seeds"], row["beyond_spread"]) == ([1, 1], None)


def test_doubtful_difference_does_not_appear():
    values = table(0.0)
    values["camera_attention"]["three_views_psnr"] = [[19.0, 25.5, 21.0, 18.2]]
    (row,) = compare(values)
    mean, low, high = row["full_ahead_by"]
    assert mean == pytest.approx(0.075)
    assert low < 0 < high
    assert row["direction"] == "does not appear"


def test_difference_is_held_against_the_spread_of_seeds():
    (row,) = compare(table(-0.5, full_seeds=(0.0, 0.2, 1.0)))
    assert row["seeds"] == [3, 1]
    assert row["spread_of_full_seeds"] == pytest.approx(1.0)
    assert row["full_ahead_by"][0] == pytest.approx(0.9)
    assert row["direction"] == "appears"
    assert row["beyond_spread"] is False
    assert "appears, within the spread of seeds" in as_text([row])
    assert spread_of_seeds(table(0.0), "three_views_psnr") is None


def test_statement_is_the_sign_of_the_interval():
    found = [statement(Interval(0, *ends)) for ends in ((0.1, 1), (-0.1, 1), (-1, -0.1))]
    assert found == ["appears", "does not appear", "reversed"]


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("clip_psnr", True),
        ("clip_ssim", True),
        ("generated_motion_px", True),
        ("clip_lpips_alex", False),
        ("single_view_random_feature_distance", False),
        ("motion_error_px", False),
        ("spurious_motion_px", False),
    ],
)
def test_which_way_is_better(figure, expected):
    assert is_better_high(figure) is expected


def test_spurious_motion_of_the_variant_puts_the_full_model_ahead():
    values = table(2.0, "spurious_motion_px", "no_disentangling")
    assert ahead(values, "no_disentangling", "spurious_motion_px").mean == pytest.approx(2.0)
    (row,) = compare(values)
    assert (row["table"], row["direction"]) == ("Sec. 5.4", "appears")


def test_every_variant_of_the_paper_has_its_directions():
    of_tables = {(d.table, d.variant) for d in DIRECTIONS if d.table.startswith("Table")}
    assert of_tables == {
        ("Table 5", "no_disentangling"),
        ("Table 10", "camera_attention"),
        ("Table 10", "without_3d"),
        ("Table 10", "without_4d"),
    }


def test_directions_without_runs_are_named():
    found = not_measured(compare(table(-1.0)))
    assert len(found) == len(DIRECTIONS) - 1
    assert "Table 10, Camera CA: 4D worse on Cam-DAVIS: FID 105.69 to 101.78" in found
    assert not any("Camera CA: few-view 3D worse on Re10K" in line for line in found)


def test_command_is_the_trainers():
    command = train_command("without_3d", 2, Path("runs") / "x")
    text = " ".join(command[1:])
    assert text == (
        "-m trainer train --recipe ablation_without_3d --resume --data data "
        "--set engine.seed=2 --set engine.mixed_precision=bf16 --out " + str(Path("runs") / "x")
    )
    assert "ablation_without_3d" in RECIPES


def test_commands_are_printed_seed_by_seed_and_not_run(tmp_path, capsys):
    assert train(tmp_path, [FULL, "without_4d"], [0, 1], run=False) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [Path(line.split()[-1]).name for line in lines]
    assert named == ["full_seed0", "without_4d_seed0", "full_seed1", "without_4d_seed1"]
    assert list(tmp_path.iterdir()) == []


def test_only_finished_runs_are_found(tmp_path):
    for name in ("full_seed0", "full_seed2", "full_seedx", "other_seed0"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "without_3d_seed0").mkdir()
    found = finished_runs(tmp_path)
    assert found == {FULL: {0: tmp_path / "full_seed0", 2: tmp_path / "full_seed2"}}


def test_settings_lose_their_places():
    place = str(Path("data").absolute())
    found = without_places({"shards": place, "mix": [{"family": "nano_3d", "at": place}], "n": 3})
    assert found == {"shards": "data", "mix": [{"family": "nano_3d", "at": "data"}], "n": 3}


class Pixels(Autoencoder):
    """Latents that are small pictures."""

    device = torch.device("cpu")

    def __init__(self):
        pass

    def encode(self, images):
        small = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents):
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8.0) * 2 - 1


@pytest.mark.slow
def test_runs_are_measured_once_and_compared(tmp_path, monkeypatch):
    for seed, variant in enumerate((FULL, "without_3d")):
        torch.manual_seed(seed)
        unet = GenXDUNet(GenXDUNetConfig.with_widths((32, 32), (1, 1)))
        save_unet(unet, run_folder(tmp_path, variant, 0) / "unet")
    options = {"scenes": 2, "steps": 1, "num_frames": 4, "size": 32, "parts": ("views",)}

    def measured():
        return {
            variant: {
                seed: evaluate_run(folder, VARIANTS[variant], Pixels(), torch.float32, **options)
                for seed, folder in by_seed.items()
            }
            for variant, by_seed in finished_runs(tmp_path).items()
        }

    first = measured()
    rows = compare(collect(first))
    assert [row["figure"] for row in rows] == [
        "three_views_psnr",
        "three_views_ssim",
        "three_views_random_feature_distance",
    ]
    assert {row["variant"] for row in rows} == {"without_3d"}
    assert len(as_text(rows).splitlines()) == 4
    json.dumps([first, rows])
    monkeypatch.setattr(ablations, "evaluate_variant", None)
    assert measured() == first
    options["steps"] = 2
    with pytest.raises(TypeError, match="not callable"):
        measured()

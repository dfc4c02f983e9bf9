"""``genxd lift``: what it leaves, what it refuses in one line, and Ctrl-C."""

import json
import os
import shutil
import signal
import sys

import pytest
import torch

import genxd_core as gx
from genxd_core.__main__ import main
from genxd_core.cameras.conventions import estimate_up
from genxd_core.media import load_image, load_video, save_image
from genxd_core.synthetic import HELD_OUT, make_object_views
from tests.core.cli.runs import error_line, made, press_ctrl_c, press_ctrl_c_in_video
from tests.support import DATA, assert_same_up_to

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("av", reason="needs the extra `pipeline`")
pytest.importorskip("scipy", reason="needs the extra `lift`")

SIZE, VIEWS = 32, 8
MADE = {"scene.ply", "cameras.json", "comparisons.png", "lift.json", "spin.mp4"}


@pytest.fixture(scope="module")
def views():
    return make_object_views(HELD_OUT + 1, size=SIZE, num_training=VIEWS, num_held_out=0)


@pytest.fixture
def place(tmp_path, monkeypatch, views):
    """A folder to work in, with an object's pictures, masks and cameras."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENXD_MODELS", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for number, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        save_image(image, tmp_path / "images" / f"{number}.png")
        save_image(mask.expand(3, -1, -1), tmp_path / "masks" / f"{number}.png")
    gx.save_cameras(views.cameras, tmp_path / "cameras.json")
    return tmp_path


def lift(*options):
    """Run ``genxd lift`` for a few iterations; later options override the usual ones."""
    usual = ["--images", "images", "--cameras", "cameras.json", "--out", "out", "--spin-views", "4"]
    usual += ["--recipe", "test", "--iterations", "6", "--num-gaussians", "200", "--device", "cpu"]
    return main(["lift", *usual, *map(str, options)])


def report(place):
    return json.loads((place / "out" / "lift.json").read_text(encoding="utf-8"))


def test_lift_writes_everything_that_it_promises(place, capsys):
    before = made(place)
    assert lift("--plain-background", "--hold-out-every", 4, "--report", "report.json") == 0
    assert made(place) - before == {*(f"out/{name}" for name in MADE), "report.json"}
    assert "held-out views" in capsys.readouterr().out
    assert load_video(place / "out" / "spin.mp4").shape == (4, 3, SIZE, SIZE)
    record = report(place)
    assert record == json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert record["held_out"] == [2, 6]
    assert record["started_from"] == "masks"
    assert record["iterations"] == 6
    assert record["options"]["recipe"] == "test"
    assert record["chosen"]["size"] == [SIZE, SIZE]
    assert set(record["files"]) == MADE
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_splat_and_cameras_are_upright_and_belong_together(place, views):
    """Drawn with the cameras left beside it, the splat shows the pictures."""
    options = ["--plain-background", "--iterations", 60, "--num-gaussians", 600]
    assert lift(*options, "--hold-out-every", 0, "--no-spin") == 0
    assert "spin.mp4" not in made(place / "out")
    cameras = gx.load_cameras(place / "out" / "cameras.json")
    assert_same_up_to(estimate_up(cameras), torch.tensor([0.0, -1.0, 0.0]).double(), 1e-4)
    gaussians = gx.load_ply(place / "out" / "scene.ply")
    drawn = gx.render_views(gaussians, cameras, width=SIZE, height=SIZE, background=(1, 1, 1))
    quality = -10 * (drawn.rgb - views.images).square().mean().log10()
    assert float(quality) == pytest.approx(report(place)["psnr"], abs=0.5)
    assert float(quality) > 17


def test_masks_from_files_and_points_are_used(place, views):
    assert lift("--masks", "masks", "--no-spin") == 0
    assert report(place)["started_from"] == "masks"
    (place / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n0.2 0 0\n0 0.1 0.1\n",
        encoding="utf-8",
    )
    assert lift("--masks", "masks", "--points", "points.ply", "--no-spin", "--force") == 0
    assert report(place)["started_from"] == "points"


def test_a_colmap_model_brings_pictures_and_points(place):
    shutil.copytree(DATA / "lund", place / "lund")
    options = ["lift", "--cameras", "lund", "--out", "out", "--recipe", "test", "--max-side", "32"]
    options += ["--iterations", "2", "--spin-views", "2", "--hold-out-every", "3", "--up", "-Y"]
    assert main([*options, "--device", "cpu"]) == 0
    record = report(place)
    assert record["started_from"] == "points"
    assert record["names"][0] == "01.jpg"
    assert record["chosen"]["size"] == [32, 24]
    assert record["held_out"] == [1, 4, 7, 10, 13]


def test_harmonics_are_reached_and_the_weightless_loss_works(place):
    options = ["--recipe", "few_view", "--start", "frusta", "--perceptual", "gradient"]
    assert lift(*options, "--sh-degree", 2, "--no-spin") == 0
    gaussians = gx.load_ply(place / "out" / "scene.ply")
    assert gaussians.degree == 2
    assert float(gaussians.sh[:, 4:].abs().max()) > 0


def test_a_seed_gives_the_same_splat(place):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert lift("--out", name, "--seed", seed, "--iterations", 2, "--no-spin") == 0
    first, second, other = ((place / name / "scene.ply").read_bytes() for name in "abc")
    assert first == second != other


def test_comparisons_name_their_pictures(place):
    assert lift("--hold-out-every", 4, "--iterations", 1, "--no-spin") == 0
    image = load_image(place / "out" / "comparisons.png").image
    assert min(image.shape[1:]) > SIZE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cameras", "none.json"], "--cameras none.json does not exist"),
        (["--images", "none"], "images none is no folder"),
        (["--images", "few"], "few holds 1 picture(s) for 8 cameras"),
        (["--images", "broken"], "is not a picture"),
        (["--masks", "none"], "masks none is no folder"),
        (["--masks", "few"], "pictures have no mask of the same name"),
        (["--masks", "masks", "--plain-background"], "masks and plain_background both"),
        (["--plain-background", "--background", "black"], "picture 0.png has next to no border"),
        (["--background", "mauve"], "background is 'mauve'; expected white, black, or"),
        (["--points", "none.ply"], "--points none.ply is no file"),
        (["--start", "masks"], "give --masks FOLDER, or --plain-background"),
        (["--start", "points"], "no points came"),
        (["--recipe", "single_view"], "Give --perceptual gradient, which needs no weights"),
        (["--perceptual", "gradient"], "its weight is 0 with the recipe 'test'"),
        (["--recipe", "single_view", "--perceptual", "x.pth"], "'x.pth': there is no such file"),
        (["--hold-out-every", 1], "hold_out_every is 1, which leaves 0 of 8 views"),
        (["--hold-out-every", -1], "hold_out_every is -1"),
        (["--iterations", 0], "--iterations is 0; expected at least 1"),
        (["--num-gaussians", 0], "num_gaussians of the recipe is 0"),
        (["--sh-degree", 4], "sh_degree of the recipe is 4"),
        (["--lpips-weight", "nan"], "lpips of the recipe is nan"),
        (["--max-side", 5], "--max-side is 5; expected at least 11"),
        (["--max-side", 0], "--max-side is 0; expected at least 11"),
        (["--device", "toaster"], "device is 'toaster'"),
        (["--fps", 0], "fps is 0"),
        (["--spin-views", 0], "--spin-views is 0"),
        (["--out", "images"], "which is never overwritten"),
        (["--out", "cameras.json"], "is a file; choose another --out"),
        (["--out", "cameras.json/deep/out"], "which is a file; choose another --out"),
        (["--report", "cameras.json"], "report cameras.json exists already"),
        (["--cameras", "apart.json"], "cameras do not overlap"),
        (["--cameras", "still.json"], "stand in"),
        (["--cameras", "nan.json"], "nan.json"),
        (["--cameras", "one.json", "--images", "few"], "has 1 view; a scene needs at least 2"),
        (["--cameras", "wide.json"], "do pictures and cameras belong together?"),
        (["--cameras", "slide.json"], 'Choose "+Z" for paths made here, "-Y"'),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(place, capsys, views, options, message):
    shutil.copytree(place / "images", place / "broken")
    (place / "broken" / "3.png").write_text("hello", encoding="utf-8")
    (place / "few").mkdir()
    shutil.copy(place / "images" / "0.png", place / "few")
    write_wrong_cameras(place, views.cameras)
    before = made(place)
    assert lift(*options) == 2
    assert message in error_line(capsys)
    assert made(place) == before


def write_wrong_cameras(place, cameras):
    apart = cameras.c2w.clone()
    apart[:, :3, 3] *= 100
    apart[:, :3, 0] *= -1
    apart[:, :3, 2] *= -1  # turned to look away from each other
    wide = torch.diag(torch.tensor([1.0, 2.0, 1.0])).expand(VIEWS, 3, 3).clone()
    wide[:, :2, 2] = 0.5
    for name, wrong in {
        "apart": gx.Cameras(apart, cameras.Ks_norm),
        "still": gx.pan(VIEWS),
        "one": cameras[:1],
        "wide": gx.Cameras(cameras.c2w, wide),
        "slide": gx.slide(VIEWS),
    }.items():
        gx.save_cameras(wrong, place / f"{name}.json")
    content = json.loads((place / "cameras.json").read_text(encoding="utf-8"))
    content["cameras"][0]["c2w"][0][3] = float("nan")
    (place / "nan.json").write_text(json.dumps(content), encoding="utf-8")


def test_without_cameras_or_a_video_writer_it_says_so(place, capsys, monkeypatch):
    assert main(["lift", "--images", "images"]) == 2
    assert "cameras is missing" in error_line(capsys)
    monkeypatch.setitem(sys.modules, "av", None)
    assert lift() == 2
    assert "With --no-spin everything else is made" in error_line(capsys)


def test_an_earlier_run_is_replaced_only_by_force(place, capsys):
    assert lift("--no-spin") == 0
    capsys.readouterr()
    assert lift("--no-spin", "--seed", 1) == 2
    assert "holds an earlier run" in error_line(capsys)
    assert lift("--no-spin", "--seed", 1, "--force") == 0
    assert report(place)["options"]["seed"] == 1


def test_ctrl_c_ends_the_fit_early_and_keeps_the_best_so_far(place, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, [4])
    before = signal.getsignal(signal.SIGINT)
    assert lift("--iterations", 500) == 0
    assert signal.getsignal(signal.SIGINT) is before
    output = capsys.readouterr()
    assert "ended early, after 4 iterations" in output.out
    assert "once more Ctrl-C stops without results" in output.err
    assert made(place / "out") == MADE
    assert report(place)["cancelled"] is True
    assert report(place)["iterations"] == 4


def test_a_second_ctrl_c_stops_without_results(place, capsys, monkeypatch):
    before = made(place)
    press_ctrl_c(monkeypatch, [4, 4])
    assert lift("--iterations", 500) == 130
    assert "interrupted; nothing half-written was left" in capsys.readouterr().err
    assert made(place) == before


def test_an_interruption_of_the_video_keeps_the_splat(place, capsys, monkeypatch):
    press_ctrl_c_in_video(monkeypatch)
    assert lift() == 0
    assert made(place / "out") == MADE - {"spin.mp4"}
    assert "the splat is kept" in capsys.readouterr().out


def test_an_interruption_while_writing_leaves_nothing(place, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = made(place)
    monkeypatch.setattr("genxd_core.lifting.ply.save_ply", interrupted)
    assert lift() == 130
    assert made(place) == before
    assert not [name for name in os.listdir(place) if name.startswith(".")]

"""``genxd lift4d``: what it leaves, what it refuses in one line, resuming, and Ctrl-C."""

import contextlib
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core.__main__ import main
from genxd_core.cameras.conventions import estimate_up
from genxd_core.lifting import recipes_4d
from genxd_core.lifting.motion_bases import MotionBases
from genxd_core.media import load_video, save_image
from genxd_core.synthetic import HELD_OUT, make_moving_object_views
from tests.core.cli.runs import error_line, made, press_ctrl_c, press_ctrl_c_in_video
from tests.support import assert_same_up_to

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("av", reason="needs the extra `pipeline`")
pytest.importorskip("scipy", reason="needs the extra `lift`")

SIZE, TIMES, SIDES = 24, 4, 5
VIEWS = TIMES * SIDES
FRAMES = {"frames/manifest.json", *(f"frames/frame_{number:04d}.ply" for number in range(3))}
MADE = {
    *("scene.safetensors", "cameras.json", "comparisons.png", "lift4d.json", "spin.mp4"),
    *FRAMES,
}
VIDEO = ["--images", "film", "--cameras", "film.json", "--masks", "film_masks"]
BASES = ["--method", "bases", *VIDEO, "--up", "+Z"]


@pytest.fixture(scope="module")
def views():
    return make_moving_object_views(HELD_OUT + 1, size=SIZE, num_times=TIMES, num_views=SIDES)


@pytest.fixture(scope="module", autouse=True)
def short_recipes():
    """The recipe "test" with fewer iterations."""
    moving, bases = recipes_4d.RECIPES_4D["test"], recipes_4d.RECIPES_BASES["test"]
    with pytest.MonkeyPatch.context() as patched:
        static = replace(moving.static, iterations=20, num_gaussians=300)
        moving = replace(moving, static=static, moving=replace(moving.moving, iterations=30))
        patched.setattr(recipes_4d, "RECIPES_4D", {**recipes_4d.RECIPES_4D, "test": moving})
        static = replace(bases.static, iterations=6, num_gaussians=200)
        few = replace(bases.moving, iterations=6, num_gaussians=60, max_gaussians=60)
        bases = replace(bases, static=static, moving=few)
        patched.setattr(recipes_4d, "RECIPES_BASES", {**recipes_4d.RECIPES_BASES, "test": bases})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, views):
    """Pictures, masks and cameras of all sides; of one video too, with depth, without times."""
    folder = tmp_path_factory.mktemp("lift4d")
    for number, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        save_image(image, folder / "images" / f"{number}.png")
        save_image(mask.expand(3, -1, -1), folder / "masks" / f"{number}.png")
    gx.save_cameras(views.cameras, folder / "cameras.json")
    film = [time * SIDES + time for time in range(TIMES)]
    (folder / "film_depths").mkdir()
    for number, view in enumerate(film):
        save_image(views.images[view], folder / "film" / f"{number}.png")
        save_image(views.masks[view].expand(3, -1, -1), folder / "film_masks" / f"{number}.png")
        depth = torch.where(views.depths[view, 0] > 0, views.depths[view, 0], 6.0)  # a white wall
        np.save(folder / "film_depths" / f"{number}.npy", depth.numpy())
    gx.save_cameras(still(views.cameras[film]), folder / "film.json")
    return folder


def still(cameras):
    return gx.Cameras(cameras.c2w, cameras.Ks_norm)


@pytest.fixture(scope="module")
def done(folder):
    """A finished run in the folder ``done``, which nothing changes, and what it printed."""
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as text:
        patched.chdir(folder)
        assert lift("--out", "done", "--masks", "masks", "--hold-out-every", 10) == 0
    return text.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch, folder, done):
    """A copy to work in."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENXD_MODELS", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return tmp_path


def lift(*options):
    """Run ``genxd lift4d`` for a few iterations; later options override the usual ones."""
    usual = ["--images", "images", "--cameras", "cameras.json", "--out", "out", "--device", "cpu"]
    usual += ["--recipe", "test", "--spin-views", "4", "--frames", "3"]
    return main(["lift4d", *usual, *map(str, options)])


def report(folder):
    return json.loads((folder / "lift4d.json").read_text(encoding="utf-8"))


def test_lift4d_writes_everything_that_it_promises(place, done, views):
    assert made(place / "done") == MADE
    assert "20 pictures of 24 x 24 pixels" in done
    assert "held-out views" in done
    assert load_video(place / "done" / "spin.mp4").shape == (4, 3, SIZE, SIZE)
    record = report(place / "done")
    assert record["held_out"] == [5, 15]
    assert record["started_from"] == "masks"
    assert record["iterations"] == 50
    assert record["options"]["method"] == "hexplane"
    assert record["chosen"]["size"] == [SIZE, SIZE]
    assert record["chosen"]["times"] == pytest.approx(views.cameras.times.tolist(), abs=1e-5)
    assert set(record["files"]) == MADE
    manifest = json.loads((place / "done" / "frames" / "manifest.json").read_text("utf-8"))
    assert [frame["time"] for frame in manifest["frames"]] == [0.0, 0.5, 1.0]
    assert manifest["fps"] == 15.0


def test_splat_and_cameras_are_upright_and_belong_together(place, views):
    """Drawn with the cameras left beside it, the splat shows the pictures, each at its time."""
    cameras = gx.load_cameras(place / "done" / "cameras.json")
    assert_same_up_to(cameras.times, views.cameras.times, 1e-6)
    assert_same_up_to(estimate_up(cameras), torch.tensor([0.0, -1.0, 0.0]).double(), 1e-4)
    gaussians = gx.load_gaussians_4d(place / "done" / "scene.safetensors")
    drawn = gx.render_views(gaussians, cameras, width=SIZE, height=SIZE, background=(1, 1, 1))
    quality = -10 * (drawn.rgb - views.images).square().flatten(1).mean(1).log10()
    fitted = [view for view in range(VIEWS) if view not in (5, 15)]
    assert float(quality[fitted].mean()) == pytest.approx(report(place / "done")["psnr"], abs=0.5)
    assert float(quality.mean()) > 14
    middle = gx.load_ply(place / "done" / "frames" / "frame_0001.ply")
    assert_same_up_to(middle.means, gaussians.at(0.5).means, 1e-5)


@pytest.mark.parametrize("cameras", ["cameras.json", "done/cameras.json"])
def test_a_run_goes_on_in_the_world_of_either_cameras(place, cameras):
    options = ["--masks", "masks", "--resume", "done/scene.safetensors", "--cameras", cameras]
    assert lift(*options, "--iterations", 3, "--no-spin", "--frames", 0) == 0
    record = report(place / "out")
    assert record["started_from"] == "resume"
    assert record["iterations"] == 3
    assert record["psnr"] > report(place / "done")["psnr"] - 0.5
    assert made(place / "out") == MADE - FRAMES - {"spin.mp4"}


def test_static_views_are_fitted_first(place, views, capsys):
    for number in range(SIDES):
        save_image(views.images[number], place / "static" / f"{number}.png")
    gx.save_cameras(still(views.cameras[:SIDES]), place / "static.json")
    options = ["--static-images", "static", "--static-cameras", "static.json"]
    assert lift("--plain-background", *options, "--iterations", 1, "--no-spin") == 0
    assert "5 pictures of the first moment" in capsys.readouterr().out
    assert report(place / "out")["iterations"] == 21


def test_a_video_with_depth_becomes_a_scene_with_motion_bases(place, capsys):
    assert lift(*BASES, "--depths", "film_depths", "--report", "report.json") == 0
    assert "film.json has no times: the pictures are taken as one video" in capsys.readouterr().out
    assert made(place / "out") == MADE
    assert len(load_video(place / "out" / "spin.mp4")) == 4
    record = report(place / "out")
    assert record == json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert record["started_from"] == "depth"
    assert record["chosen"]["times"] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-5)
    assert gx.load_gaussians_4d(place / "out" / "scene.safetensors").motion.kind == "motion_bases"


def test_what_moves_before_a_plain_background_needs_no_masks(place, capsys):
    options = ["--method", "bases", "--nothing-at-rest", "--plain-background", "--frames", 0]
    assert lift(*options, "--no-spin") == 0
    assert "no times" not in capsys.readouterr().out
    assert report(place / "out")["started_from"] == "masks"
    assert report(place / "out")["iterations"] == 6


def test_a_video_is_in_the_order_of_its_names(place, views):
    shuffled = [10, 9, 100, 1]
    names = [f"pictures/{number}.png" for number in shuffled]
    for number, view in zip(shuffled, (12, 6, 18, 0), strict=True):
        save_image(views.images[view], place / "pictures" / f"{number}.png")
    cameras = views.cameras[[12, 6, 18, 0]]
    gx.save_cameras(cameras, place / "transforms.json", width=SIZE, height=SIZE, names=names)
    options = ["--cameras", "transforms.json", "--images", ".", "--times", "video", "--no-spin"]
    assert lift(*options, "--iterations", 1, "--frames", 0, "--points", "done/frames/x.ply") == 2
    shutil.copy(place / "done" / "frames" / "frame_0000.ply", place / "x.ply")
    assert lift(*options, "--iterations", 1, "--frames", 0, "--points", "x.ply") == 0
    times = report(place / "out")["chosen"]["times"]
    assert times == pytest.approx([2 / 3, 1 / 3, 1, 0], abs=1e-5)
    assert report(place / "out")["started_from"] == "points"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cameras", "none.json"], "--cameras none.json does not exist"),
        (["--cameras", "one.json", "--images", "few"], "has 1 view; a scene needs at least 2"),
        (["--cameras", "late.json"], "late.json: times of camera 3 is 1.5; times lie in [0, 1]"),
        (["--cameras", "same.json"], "all pictures that are fitted are of the time 0.5"),
        (["--cameras", "film.json", "--images", "film", "--times", "from-cameras"], "has none"),
        (["--images", "uneven"], "bring the pictures to one size"),
        (["--masks", "few"], "pictures have no mask of the same name"),
        (["--masks", "masks", "--plain-background"], "masks and plain_background both"),
        (["--plain-background", "--background", "black"], "picture 0.png has next to no border"),
        (["--points", "none.ply"], "--points none.ply is no file"),
        (["--method", "bases"], "masks is missing; --method bases has to be told what moves"),
        (["--method", "bases", "--plain-background"], "or --nothing-at-rest where"),
        ([*BASES, "--resume", "x.safetensors"], "--resume belongs to --method hexplane"),
        ([*BASES, "--num-gaussians", 5], "--num-gaussians belongs to --method hexplane"),
        ([*BASES, "--static-images", "images"], "--static-images belongs to --method hexplane"),
        (["--depths", "film_depths"], "--depths belongs to --method bases"),
        (["--nothing-at-rest"], "--nothing-at-rest belongs to --method bases"),
        (["--recipe", "scene_4d"], "'scene_4d', which --method hexplane does not have"),
        ([*BASES, "--recipe", "object_4d"], "'object_4d', which --method bases does not have"),
        ([*BASES, "--depths", "none"], "depths none is no folder"),
        ([*BASES, "--depths", "film"], "pictures have no depth map of the same name"),
        (["--recipe", "object_4d"], "Give --perceptual gradient, which needs no weights"),
        (["--perceptual", "gradient"], "its weight is 0 with the recipe 'test'"),
        (["--resume", "none.safetensors"], "--resume none.safetensors does not exist"),
        (["--resume", "later.safetensors"], "is a 4D file of version 7"),
        (["--resume", "bases.safetensors"], "was made by --method bases"),
        (
            ["--resume", "done/scene.safetensors", "--num-gaussians", 9],
            "--num-gaussians tells what",
        ),
        (["--static-images", "images"], "static_images is given without static_cameras"),
        (["--static-cameras", "cameras.json", "--masks", "masks"], "masks and static_masks belong"),
        (["--static-cameras", "none.json"], "--static-cameras none.json does not exist"),
        (["--frames", 1], "--frames is 1; expected 0 for none, or 2"),
        (["--no-spin", "--fps", 0], "fps is 0"),
        (["--iterations", 0], "--iterations is 0; expected at least 1"),
        (["--out", "done"], "holds an earlier run"),
        (["--out", "images"], "no lift4d.json of an earlier run"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(place, capsys, views, options, message):
    write_wrong_inputs(place, views)
    before = made(place)
    assert lift(*options) == 2
    assert message in error_line(capsys)
    assert made(place) == before


def write_wrong_inputs(place, views):
    (place / "few").mkdir()
    shutil.copy(place / "images" / "0.png", place / "few")
    shutil.copytree(place / "images", place / "uneven")
    save_image(torch.zeros(3, 32, 32), place / "uneven" / "7.png")
    gx.save_cameras(views.cameras[:1], place / "one.json")
    same = gx.Cameras(views.cameras.c2w, views.cameras.Ks_norm, torch.full((VIEWS,), 0.5))
    gx.save_cameras(same, place / "same.json")
    content = json.loads((place / "cameras.json").read_text(encoding="utf-8"))
    content["cameras"][3]["time"] = 1.5
    (place / "late.json").write_text(json.dumps(content), encoding="utf-8")
    scene = gx.load_gaussians_4d(place / "done" / "scene.safetensors")
    bases = MotionBases.around(scene.canonical.means, times=[0.0, 1.0], num_bases=2, seed=0)
    gx.save_gaussians_4d(gx.Gaussians4D(scene.canonical, bases), place / "bases.safetensors")
    written = (place / "done" / "scene.safetensors").read_bytes()
    later = written.replace(rb"{\"version\": 1", rb"{\"version\": 7")
    (place / "later.safetensors").write_bytes(later)


def test_without_cameras_it_says_so(place, capsys):
    assert main(["lift4d", "--images", "images"]) == 2
    assert "cameras is missing" in error_line(capsys)


def test_ctrl_c_ends_the_fit_early_and_keeps_the_best_so_far(place, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, [4])
    assert lift("--masks", "masks", "--iterations", 500) == 0
    output = capsys.readouterr()
    assert "ended early, after 4 iterations" in output.out
    assert "once more Ctrl-C stops without results" in output.err
    assert made(place / "out") == MADE
    assert report(place / "out")["cancelled"] is True


def test_a_second_ctrl_c_stops_without_results(place, monkeypatch):
    before = made(place)
    press_ctrl_c(monkeypatch, [4, 4])
    assert lift("--masks", "masks") == 130
    assert made(place) == before


def test_an_interruption_of_the_video_keeps_the_splat(place, capsys, monkeypatch):
    press_ctrl_c_in_video(monkeypatch)
    assert lift("--masks", "masks", "--resume", "done/scene.safetensors", "--iterations", 1) == 0
    assert made(place / "out") == MADE - {"spin.mp4"}
    assert "the splat is kept" in capsys.readouterr().out

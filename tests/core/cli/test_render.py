"""``genxd render``: frames and videos of a splat, and what is refused in one line."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

import genxd_core as gx
from genxd_core.__main__ import main
from genxd_core.lifting.hexplane import HexPlaneField
from genxd_core.media import load_image, load_video
from tests.core.cli.runs import error_line, made
from tests.core.lifting.splat_scenes import random_scene
from tests.support import assert_same_up_to, seeded

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("av", reason="needs the extra `pipeline`")

VIEWS = 3
FRAMES = {f"{number:05d}.png" for number in range(VIEWS)}


@pytest.fixture
def scene():
    return random_scene(40).to(dtype=torch.float32)


@pytest.fixture
def cameras(scene):
    return gx.turn_upright(scene, gx.orbit(VIEWS, radius=4.0, aspect=1.5), up="+Z")[1]


@pytest.fixture
def place(tmp_path, monkeypatch, scene, cameras):
    """A folder to work in, with a splat and a path."""
    monkeypatch.chdir(tmp_path)
    gx.save_ply(scene, tmp_path / "scene.ply")
    gx.save_cameras(cameras, tmp_path / "cameras.json")
    return tmp_path


def render(*options):
    usual = ["--splat", "scene.ply", "--cameras", "cameras.json", "--width", "24", "--out", "out"]
    return main(["render", *usual, "--device", "cpu", *map(str, options)])


def test_render_writes_what_the_library_draws(place, scene, cameras, capsys):
    assert render("--background", "0,0.5,1") == 0
    expected = gx.render_views(scene, cameras, width=24, height=16, background=(0.0, 0.5, 1.0))
    for number, picture in enumerate(expected.rgb.clamp(0, 1)):
        loaded = load_image(place / "out" / "frames" / f"{number:05d}.png").image
        assert_same_up_to(loaded, picture, 0.51 / 255)
    assert load_video(place / "out" / "video.mp4").shape == (VIEWS, 3, 16, 24)
    again = gx.load_cameras(place / "out" / "cameras.json")
    assert torch.equal(again.c2w, cameras.c2w)
    record = json.loads((place / "out" / "rendering.json").read_text(encoding="utf-8"))
    assert record["chosen"] == {"size": [24, 16], "views": VIEWS, "gaussians": 40}
    assert "3 frames of 24 x 16 are in out" in capsys.readouterr().out


def test_depth_and_alpha_are_further_pictures(place, scene, cameras):
    assert render("--depth", "--alpha", "--no-save-video") == 0
    kinds = {f"{kind}/{name}" for kind in ("frames", "depth", "alpha") for name in FRAMES}
    assert made(place / "out") == kinds | {"cameras.json", "rendering.json"}
    drawn = gx.render_views(scene, cameras, width=24, height=16)
    alpha = load_image(place / "out" / "alpha" / "00001.png").image[:1]
    assert_same_up_to(alpha, drawn.alpha[1].clamp(0, 1), 0.51 / 255)
    depth = load_image(place / "out" / "depth" / "00001.png").image
    assert_same_up_to(depth, gx.depth_picture(drawn.depth, drawn.alpha)[1], 0.51 / 255)


def test_a_video_alone(place):
    before = made(place)
    assert render("--out", "films/spin.mp4", "--spin", "--spin-views", 5) == 0
    assert made(place) - before == {"films/spin.mp4"}
    assert load_video(place / "films" / "spin.mp4").shape == (5, 3, 16, 24)


@pytest.fixture
def moving(place, scene):
    """The scene, in motion, as a file beside it."""
    field = HexPlaneField.around(scene.means, cells=(4,), channels=4, width=8)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=seeded())
    gaussians = gx.Gaussians4D(scene, field)
    gx.save_gaussians_4d(gaussians, place / "moving.safetensors")
    return gaussians


def drawn_frame(place, number):
    return load_image(place / "out" / "frames" / f"{number:05d}.png").image


def test_a_moving_splat_is_seen_by_each_camera_at_its_time(place, moving, cameras):
    times = torch.tensor([0.9, 0.1, 0.4])
    timed = gx.Cameras(cameras.c2w, cameras.Ks_norm, times)
    gx.save_cameras(timed, place / "timed.json")
    assert render("--splat", "moving.safetensors", "--cameras", "timed.json") == 0
    expected = gx.render_views(moving, timed, width=24, height=16, background=(1.0, 1.0, 1.0))
    for number, picture in enumerate(expected.rgb.clamp(0, 1)):
        assert_same_up_to(drawn_frame(place, number), picture, 0.51 / 255)
    assert_same_up_to(gx.load_cameras(place / "out" / "cameras.json").times, times, 1e-6)


def test_without_times_a_moving_splat_plays_from_first_to_last(place, moving, cameras):
    assert render("--splat", "moving.safetensors", "--no-save-video") == 0
    evenly = gx.Cameras(cameras.c2w, cameras.Ks_norm, torch.tensor([0.0, 0.5, 1.0]))
    expected = gx.render_views(moving, evenly, width=24, height=16, background=(1.0, 1.0, 1.0))
    assert_same_up_to(drawn_frame(place, 2), expected.rgb[2].clamp(0, 1), 0.51 / 255)
    options = ["--splat", "moving.safetensors", "--spin", "--spin-views", "2", "--height", "16"]
    assert main(["render", *options, "--out", "spin.mp4", "--device", "cpu"]) == 0
    assert len(load_video(place / "spin.mp4")) == 2


def test_a_moving_splat_can_be_frozen(place, moving, cameras):
    assert render("--splat", "moving.safetensors", "--time", 0.5, "--no-save-video") == 0
    half = moving.at(0.5)
    expected = gx.render_views(half, cameras, width=24, height=16, background=(1.0, 1.0, 1.0))
    for number in range(VIEWS):
        picture = expected.rgb[number].clamp(0, 1)
        assert_same_up_to(drawn_frame(place, number), picture, 0.51 / 255)
    assert gx.load_cameras(place / "out" / "cameras.json").times is None


def test_a_spin_needs_no_cameras(place, scene):
    options = ["render", "--splat", "scene.ply", "--spin", "--spin-views", "4", "--height", "16"]
    assert main([*options, "--no-save-video", "--out", "out"]) == 0
    path = gx.load_cameras(place / "out" / "cameras.json")
    assert torch.equal(path.c2w, gx.spin_around(scene, 4).c2w)
    assert load_image(place / "out" / "frames" / "00000.png").image.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--splat", "none.ply"], "--splat none.ply is no file"),
        (["--splat", "cameras.json"], "--splat cameras.json is no .ply file"),
        (["--cameras", "none.json"], "--cameras none.json does not exist"),
        (["--splat", "none.safetensors"], "--splat none.safetensors does not exist"),
        (["--splat", "other.safetensors"], "other.safetensors holds no moving Gaussians"),
        (["--splat", "later.safetensors"], "is a 4D file of version 7; this release reads"),
        (["--splat", "moving.safetensors", "--time", 2], "--time is 2.0; expected 0"),
        (["--splat", "moving.safetensors", "--time", "nan"], "--time is nan"),
        (["--time", 0.5], "--time is 0.5, but --splat scene.ply does not move"),
        (["--width", 0], "width is 0; expected at least 1 pixel"),
        (["--height", 24], "which would stretch it"),
        (["--background", "1,2,3"], "background is '1,2,3'; expected white"),
        (["--spin", "--spin-views", 0], "num_views is 0"),
        (["--fps", "nan"], "fps is nan"),
        (["--device", "toaster"], "device is 'toaster'"),
        (["--out", "a.mp4", "--depth"], "does not go with --depth"),
        (["--out", "a.mp4", "--no-save-video"], "does not go with --no-save-video"),
        (["--out", "there.mp4"], "there.mp4 exists already"),
        (["--out", "scene.ply"], "is a file"),
        (["--out", "."], "which is never overwritten"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(place, capsys, moving, options, message):
    (place / "there.mp4").write_bytes(b"x")
    about = json.dumps({"version": 7})
    for name, metadata in (("other", None), ("later", {"genxd_splat4d": about})):
        save_file({"x": torch.zeros(1)}, place / f"{name}.safetensors", metadata)
    before = made(place)
    assert render(*options) == 2
    assert message in error_line(capsys)
    assert made(place) == before


def test_what_is_missing_is_told(place, capsys, monkeypatch):
    assert main(["render", "--cameras", "cameras.json"]) == 2
    assert "splat is missing" in error_line(capsys)
    assert main(["render", "--splat", "scene.ply"]) == 2
    assert "cameras is missing; give a camera file" in error_line(capsys)
    monkeypatch.setitem(sys.modules, "av", None)
    assert render() == 2
    assert "With --no-save-video the frames are written" in error_line(capsys)


def test_an_earlier_run_is_replaced_only_by_force(place, capsys):
    assert render("--no-save-video") == 0
    capsys.readouterr()
    assert render("--no-save-video") == 2
    assert "holds an earlier run" in error_line(capsys)
    assert render("--no-save-video", "--background", "black", "--force") == 0


def test_an_interruption_leaves_nothing(place, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = made(place)
    monkeypatch.setattr("genxd_core.media.save_video", interrupted)
    assert render() == 130
    assert render("--out", "new.mp4") == 130
    assert made(place) == before

"""``genxd generate``: what it leaves, what it refuses in one line, and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core.__main__ import main
from genxd_core.media import load_image, load_video, save_image, save_video
from tests.core.cli.runs import error_line, made
from tests.support import ROOT, assert_same_up_to, seeded
from tests.tiny_model import make_tiny_model

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("diffusers", reason="needs the extra `pipeline`")
pytest.importorskip("av", reason="needs the extra `pipeline`")

VIEWS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture
def generate(model, place):
    """Run ``genxd generate`` with few steps; later options override the usual ones."""

    def run(*options, images=("photo.png",)):
        usual = ["--weights", str(model), "--views", str(VIEWS), "--num-inference-steps", "1"]
        usual += ["--device", "cpu", "--size", "64", "64"]
        return main(["generate", *images, *usual, *map(str, options)])

    return run


def test_generate_writes_everything_that_it_promises(generate, place, capsys):
    assert generate("--out", "out", "--path", "orbit", "--elevation-deg", 20) == 0
    frames = {f"frames/{number:05d}.png" for number in range(VIEWS)}
    assert made(place / "out") == frames | {
        *("cameras.json", "cameras.png", "contact_sheet.png"),
        *("generation.json", "transforms.json", "video.mp4"),
    }
    assert "4 frames" in capsys.readouterr().out
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_generated_files_agree_with_each_other(generate, place):
    assert generate("--path", "orbit", "--azimuth-range-deg", 0, 90, "--radius", 3) == 0
    out = place / "genxd_out"
    expected = gx.orbit(VIEWS, azimuth_range_deg=(0.0, 90.0), radius=3.0)
    for name in ("cameras.json", "transforms.json"):
        cameras = gx.load_cameras(out / name)
        assert_same_up_to(cameras.c2w, expected.c2w, 1e-5)
        assert_same_up_to(cameras.Ks_norm, expected.Ks_norm, 1e-5)
    entries = json.loads((out / "transforms.json").read_text(encoding="utf-8"))["frames"]
    assert all((out / entry["file_path"]).is_file() for entry in entries)
    frames = [load_image(path).image for path in sorted((out / "frames").iterdir())]
    video = load_video(out / "video.mp4")
    assert video.shape == (VIEWS, 3, 64, 64)
    # Little of these noisy frames survives the encoder, so large blocks are compared.
    difference = torch.nn.functional.avg_pool2d(video - torch.stack(frames), 16)
    assert difference.abs().mean() < 0.03


def test_generate_gives_what_the_library_gives(generate, model, place):
    options = ["--mode", "4d", "--motion-strength", 2, "--guidance-scale", 2, "--seed", 7]
    assert generate(*options, "--indices", 2, "--num-inference-steps", 2) == 0
    pipe = gx.GenXDPipeline.from_pretrained(model)
    image = load_image(place / "photo.png").image[None]
    expected = pipe(
        gx.fit_views(image, None, 64).images,
        [2],
        gx.sway(VIEWS),
        mode="4d",
        motion_strength=2.0,
        guidance_scale=2.0,
        num_inference_steps=2,
        generator=seeded(7),
    )
    for number, frame in enumerate(expected.frames):
        loaded = load_image(place / "genxd_out" / "frames" / f"{number:05d}.png").image
        assert_same_up_to(loaded, frame, 0.51 / 255)


def test_generate_records_what_made_the_results(generate, place):
    assert generate("--seed", 3, "--no-save-video") == 0
    record = json.loads((place / "genxd_out" / "generation.json").read_text(encoding="utf-8"))
    assert record["options"]["seed"] == 3
    assert record["options"]["images"] == ["photo.png"]
    assert record["chosen"] == {"size": [64, 64], "device": "cpu", "dtype": "float32"}
    assert "video.mp4" not in record["files"]


def test_moving_scenes_get_times_for_fitting_them_later(generate, place):
    assert generate("--mode", "4d", "--no-save-video") == 0
    cameras = gx.load_cameras(place / "genxd_out" / "cameras.json")
    assert cameras.times.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_the_size_is_the_models_unless_given(generate, model, place):
    arguments = ["--weights", str(model), "--views", "2", "--num-inference-steps", "1"]
    assert main(["generate", "photo.png", *arguments, "--out", "a", "--no-save-video"]) == 0
    with Image.open(place / "a" / "frames" / "00000.png") as picture:
        assert picture.size == (64, 64)
    assert generate("--size", 128, 64, "--out", "b", "--no-save-video") == 0
    with Image.open(place / "b" / "frames" / "00000.png") as picture:
        assert picture.size == (128, 64)


def test_cameras_of_a_capture_are_fitted_with_its_pictures(generate, place):
    """The picture is 100 x 80, the output square: cropping changes the focal length."""
    path = gx.orbit(VIEWS, aspect=100 / 80)
    gx.save_cameras(path, place / "transforms.json", width=100, height=80)
    assert generate("--cameras", "transforms.json", "--no-save-video") == 0
    fitted = gx.load_cameras(place / "genxd_out" / "cameras.json")
    record = gx.fit_views(load_image(place / "photo.png").image[None], None, 64).record
    assert_same_up_to(fitted.Ks_norm, gx.fit_cameras(path, record).Ks_norm, 1e-5)


def test_own_cameras_can_be_used_again(generate, place):
    assert generate("--path", "orbit", "--out", "a", "--no-save-video") == 0
    options = ["--cameras", "a/cameras.json", "--out", "b", "--no-save-video"]
    assert generate(*options, "--cameras-of", "output") == 0
    first, second = (gx.load_cameras(place / name / "cameras.json") for name in "ab")
    assert torch.equal(first.Ks_norm, second.Ks_norm)


def test_scale_of_given_cameras_is_told_and_can_be_changed(generate, place, capsys):
    gx.save_cameras(gx.dolly(VIEWS, distance=100.0), place / "far.json")
    options = ["--cameras", "far.json", "--cameras-of", "output", "--no-save-video"]
    assert generate(*options, "--out", "a") == 0
    assert "path scale 100 " in capsys.readouterr().out
    assert generate(*options, "--out", "b", "--camera-scale", 2) == 0
    told = capsys.readouterr().out
    assert "path scale 2 " in told
    scaled = gx.load_cameras(place / "b" / "cameras.json")
    assert float((scaled.centres[-1] - scaled.centres[0]).norm()) == pytest.approx(2.0, rel=1e-4)


def test_intrinsics_of_another_shape_are_refused(generate, place, capsys):
    gx.save_cameras(gx.orbit(VIEWS), place / "cameras.json")
    assert generate("--cameras", "cameras.json") == 2
    assert "try --cameras-of output" in error_line(capsys)


def test_several_pictures_and_a_video_can_be_given(generate, place):
    save_image(torch.rand(3, 64, 80), place / "other.png")
    save_video(torch.rand(VIEWS, 3, 70, 90), place / "start.mp4")
    options = ["--indices", 3, 0, "--video", "start.mp4", "--strength", 0.5]
    options += ["--num-inference-steps", 2, "--no-save-video"]
    assert generate(*options, images=("photo.png", "other.png")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guidance-scale", "-1"], "guidance_scale is -1.0"),
        (["--num-inference-steps", 0], "num_inference_steps is 0"),
        (["--motion-strength", 99], "motion_strength is 99.0"),
        (["--indices", 9], "indices has 9"),
        (["--strength", 0.5], "there is no video"),
        (["--size", 100, 64], "100x64; width and height must be multiples of 64"),
        (["--weights", "nowhere"], "weights 'nowhere': there is no such folder"),
        (["--device", "toaster"], "device is 'toaster'"),
        (["--views", 0], "num_views is 0"),
        (
            ["--path", "pan", "--distance", 1],
            "distance is no option of the path 'pan', which takes",
        ),
        (["--path", "orbit", "--radius", -1], "radius is -1.0"),
        (["--cameras", "nowhere.json"], "nowhere.json does not exist"),
        (["--cameras", "x.json", "--radius", 1], "radius cannot be combined with --cameras"),
        (["--camera-scale", 2], "camera_scale is 2.0 without --cameras"),
        (["--video", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["--fps", 0], "fps is 0"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(generate, place, capsys, options, message):
    before = made(place)
    assert generate(*options) == 2
    assert message in error_line(capsys)
    assert made(place) == before


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (("nowhere.png",), "nowhere.png does not exist"),
        (("text.txt",), "not a picture"),
        ((), "images is empty"),
        (("photo.png", "photo.png"), "indices is missing"),
    ],
)
def test_mistakes_with_pictures_are_one_line(generate, place, capsys, images, message):
    (place / "text.txt").write_text("hello", encoding="utf-8")
    assert generate(images=images) == 2
    assert message in error_line(capsys)


def test_an_earlier_run_is_not_overwritten_by_mistake(generate, place, capsys):
    assert generate("--no-save-video") == 0
    frame = place / "genxd_out" / "frames" / "00001.png"
    first = frame.read_bytes()
    capsys.readouterr()
    assert generate("--no-save-video", "--seed", 1) == 2
    assert "holds an earlier run" in error_line(capsys)
    assert frame.read_bytes() == first
    assert generate("--no-save-video", "--seed", 1, "--force") == 0
    assert frame.read_bytes() != first


def test_a_missing_package_is_one_line(generate, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert generate() == 2
    assert "With --no-save-video the frames are written" in error_line(capsys)
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["doctor"]) == 2
    assert "pip install tyro (one of the extra 'cli' of genxd)" in error_line(capsys)


def hear_ctrl_c():
    """In a child: background jobs of a shell have it ignored, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupt_when(condition, process):
    """Send Ctrl-C once something is there."""
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    return process.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_leaves_nothing_half_written(model, place):
    arguments = [sys.executable, "-m", "genxd_core", "generate", str(place / "photo.png")]
    arguments += ["--weights", str(model), "--num-inference-steps", "500", "--out"]
    log = place / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*arguments, str(place / "out")], cwd=ROOT, stderr=stream, preexec_fn=hear_ctrl_c
        )
        status = interrupt_when(lambda: b"/50" in log.read_bytes(), process)
    assert status == 130
    text = log.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert "interrupted" in text
    assert made(place) == {"photo.png", "log.txt"}


def test_being_asked_to_end_leaves_nothing(generate, place, monkeypatch):
    monkeypatch.setattr(
        "genxd_core.media.save_video", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)
    assert generate() == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert made(place) == {"photo.png"}


def test_an_interruption_while_writing_leaves_nothing(generate, place, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("genxd_core.media.save_video", interrupted)
    assert generate() == 130
    assert "interrupted" in capsys.readouterr().err
    assert made(place) == {"photo.png"}

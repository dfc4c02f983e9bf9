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
from genxd_core.cli.doctor import OPTIONAL
from genxd_core.cli.path_options import PathName, make_path, path_options
from genxd_core.errors import InvalidInputError
from genxd_core.files import write_checksums
from genxd_core.media import load_image, load_video, save_image, save_video
from tests.hub_server import MODEL_FILES, serve_hub
from tests.support import ROOT, assert_same_up_to, seeded
from tests.tiny_model import make_tiny_model
from tools.environment import package_name, read_dependencies

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("diffusers", reason="needs the extra `pipeline`")
pytest.importorskip("av", reason="needs the extra `pipeline`")

VIEWS = 4
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, with a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENXD_MODELS", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    coarse = torch.rand(1, 3, 4, 4, generator=seeded())
    picture = torch.nn.functional.interpolate(coarse, (80, 100), mode="bicubic")[0]
    save_image(picture.clamp(0, 1), tmp_path / "photo.png")
    return tmp_path


@pytest.fixture
def generate(model, place):
    """Run ``genxd generate`` with few steps; later options override the usual ones."""

    def run(*options, images=("photo.png",)):
        usual = ["--weights", str(model), "--views", str(VIEWS), "--num-inference-steps", "1"]
        usual += ["--device", "cpu", "--size", "64", "64"]
        return main(["generate", *images, *usual, *map(str, options)])

    return run


def error_line(capsys):
    """The one line on the error output."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("genxd: error: ")
    return lines[0]


def made(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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


def test_unknown_options_end_with_two(place, capsys):
    assert main(["generate", "photo.png", "--no-such-option"]) == 2
    assert main(["dance"]) == 2
    assert main([]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_is_given(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("generate", "lift", "render", "doctor", "download"))


@pytest.mark.parametrize("name", PathName.__args__)
def test_every_path_of_the_command_line_can_be_made(name):
    cameras = make_path(name, 8, 1.5, {})
    assert len(cameras) == 8
    assert {"radius", "focal_norm"} <= set(path_options(name))


def test_every_path_option_is_an_option_of_the_command():
    from genxd_core.cli.generate import Generate

    options = set(Generate.__dataclass_fields__)
    known = {option for name in PathName.__args__ for option in path_options(name)}
    assert known - options == {"target", "consistent4d"}


def test_an_option_of_no_path_is_refused_with_those_that_have_it():
    with pytest.raises(InvalidInputError, match="It belongs to dolly"):
        make_path("pan", 4, 1.0, {"distance": 1.0})


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


@pytest.fixture
def hub(monkeypatch):
    with serve_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def download(*options):
    return main(["download", "--repository", "owner/model", *map(str, options)])


def test_download_fetches_a_model_and_tells_addresses_and_checksums(hub, place, capsys):
    assert download() == 0
    folder = place / "models" / "genxd" / "model"
    assert made(folder) == {path for path in MODEL_FILES if not path.endswith(".bin")}
    text = capsys.readouterr().out
    assert f"{hub.address}/owner/model/resolve/main/{UNET}" in text
    assert next(e["lfs"]["oid"] for e in hub.tree() if e["path"] == UNET) in text
    assert "--weights model" in text


def test_download_can_only_show(hub, place, capsys):
    assert download("--list-only") == 0
    assert UNET in capsys.readouterr().out
    assert hub.seen == []
    assert made(place) == {"photo.png"}


def test_download_can_fetch_chosen_files_into_a_chosen_folder(hub, place):
    assert download("--files", "unet/config.json", "--to", "here") == 0
    assert made(place / "here") == {"unet/config.json"}
    assert download("--files", "unet/config.json", "--name", "mine") == 0
    assert made(place / "models" / "genxd") == {"mine/unet/config.json"}


def test_download_fails_with_one_line_where_the_content_is_wrong(hub, place, capsys):
    hub.announced[UNET] = "0" * 64
    assert download() == 1
    assert "not what was announced" in error_line(capsys)
    assert not (place / "models" / "genxd" / "model" / UNET).exists()


def test_download_goes_on_after_an_interruption(hub, place, monkeypatch, capsys):
    class Interrupted:
        calls = 0

    def write(*arguments):
        Interrupted.calls += 1
        if Interrupted.calls == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("genxd_core.hub._BLOCK", 1024)
    with monkeypatch.context() as patched:
        patched.setattr("genxd_core.hub.report", write)
        assert download("--files", UNET) == 130
    hub.seen.clear()
    assert download("--files", UNET) == 0
    assert hub.seen == [(UNET, "bytes=5120-")]


def test_download_holds_the_hub_to_a_known_checksum(hub, place, capsys):
    true = next(e["lfs"]["oid"] for e in hub.tree() if e["path"] == UNET)
    assert download("--sha256", f"{UNET}={'a' * 64}") == 2
    assert f"should be {'a' * 64}, but the Hub announces {true}" in error_line(capsys)
    assert hub.seen == []
    assert download("--sha256", f"{UNET}={true}") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--files", "x.json"], "x.json is not in owner/model; it has unet/config.json"),
        (["--sha256", "x"], "expected FILE=SHA256"),
        (["--sha256", f"{UNET}=123"], "expected FILE=SHA256"),
        (["--name", "../x"], "name is '../x'"),
        (["--repository", "model"], "expected owner/name"),
    ],
)
def test_mistakes_in_a_download_are_one_line(hub, place, capsys, options, message):
    assert download(*options) == 2
    assert message in error_line(capsys)
    assert made(place) == {"photo.png"}


def test_an_unknown_repository_fails_with_one_line(hub, place, capsys):
    assert main(["download", "--repository", "owner/other"]) == 1
    assert "no such repository" in error_line(capsys)


@pytest.fixture
def nano(place, monkeypatch):
    """An embedded model with its checksums."""
    folder = make_tiny_model(place / "nano")
    write_checksums(folder)
    monkeypatch.setattr("genxd_core.assets.NANO", folder)
    monkeypatch.setattr("genxd_core.model_folders.NANO", folder)
    return folder


def line_of(text, what):
    return next(line for line in text.splitlines() if line.split()[1:2] == [what])


def test_doctor_finds_everything_in_order(nano, place, capsys):
    make_tiny_model(place / "models" / "genxd" / "tiny")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert line_of(text, "genxd-nano").startswith("  ok")
    assert "SHA-256 of every file right" in line_of(text, "genxd-nano")
    assert line_of(text, "tiny").startswith("  ok")
    assert torch.__version__.split("+")[0] in line_of(text, "torch")
    assert "No problems." in text


def test_doctor_tells_which_perceptual_models_there_are(nano, place, capsys):
    assert main(["doctor"]) == 0
    line = line_of(capsys.readouterr().out, "weights")
    assert line.startswith("  missing")
    assert f"alexnet-owt-7be5be79.pth of torchvision in {place}" in line
    file = place / "models" / "genxd" / "perceptual" / "mine" / "net.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(3_000_000))
    assert main(["doctor"]) == 0
    line = line_of(capsys.readouterr().out, "mine/net.pth")
    assert line.split() == ["ok", "mine/net.pth", f"{file},", "3", "MB"]


def test_doctor_says_what_brings_a_missing_package(nano, capsys, monkeypatch):
    monkeypatch.setitem(OPTIONAL, "lift", (("genxd_no_such_package", "nonesuch", "magic"),))
    assert main(["doctor"]) == 0
    line = line_of(capsys.readouterr().out, "nonesuch")
    assert line.split() == ["missing", "nonesuch", *"for magic: pip install nonesuch".split()]


def test_doctor_tells_why_an_installed_package_fails(nano, place, capsys, monkeypatch):
    (place / "broken_package.py").write_text("raise OSError('no libfoo.so')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setitem(OPTIONAL, "lift", (("broken_package", "broken_package", "magic"),))
    assert main(["doctor"]) == 1
    assert "OSError: no libfoo.so" in line_of(capsys.readouterr().out, "broken_package")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda nano: (nano / UNET).write_bytes(b"x"), f"{UNET} is damaged"),
        (lambda nano: (nano / UNET).unlink(), f"{UNET} is missing"),
        (lambda nano: (nano / "SHA256SUMS").unlink(), "cannot be verified"),
        (lambda nano: (nano / "SHA256SUMS").write_bytes(b"x"), "no list of SHA-256 values"),
        (lambda nano: (nano / "unet" / "config.json").unlink(), "install again"),
    ],
)
def test_doctor_notices_a_damaged_built_in_model(nano, capsys, harm, told):
    harm(nano)
    assert main(["doctor"]) == 1
    line = line_of(capsys.readouterr().out, "genxd-nano")
    assert line.startswith("  problem")
    assert told in line


def test_doctor_notices_an_incomplete_model(nano, place, capsys):
    folder = make_tiny_model(place / "models" / "genxd" / "tiny")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert main(["doctor"]) == 1
    assert "lacks vae" in line_of(capsys.readouterr().out, "tiny")


def test_doctor_knows_the_packages_of_every_extra():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra, packages in OPTIONAL.items():
        declared = {package_name(line) for line in read_dependencies(pyproject, extra)}
        assert {package for _, package, _ in packages} <= declared

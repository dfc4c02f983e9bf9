"""``genxd doctor``: what it finds in order, missing and damaged."""

import pytest
import torch

from genxd_core.__main__ import main
from genxd_core.cli.doctor import OPTIONAL
from genxd_core.files import write_checksums
from tests.support import ROOT
from tests.tiny_model import make_tiny_model
from tools.environment import package_name, read_dependencies

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")
pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

UNET = "unet/diffusion_pytorch_model.safetensors"


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

"""``genxd download``: what it fetches, and what fails in one line."""

import pytest

from genxd_core.__main__ import main
from tests.core.cli.runs import error_line, made
from tests.hub_server import MODEL_FILES, serve_hub

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")

UNET = "unet/diffusion_pytorch_model.safetensors"


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

import pytest

from genxd_core import model_folders as module
from genxd_core.errors import WeightsError
from genxd_core.model_folders import (
    NANO_NAME,
    find_models,
    find_perceptual,
    model_folders,
    perceptual_folders,
    resolve_model,
    resolve_perceptual,
)
from tests.tiny_model import make_tiny_model


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine on which nothing is set up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENXD_MODELS", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return tmp_path


def test_models_are_looked_for_in_the_current_folder_last(place, monkeypatch):
    assert model_folders()[-1] == place / "models" / "genxd"
    monkeypatch.setenv("COMFYUI_PATH", str(place / "comfy"))
    monkeypatch.setenv("GENXD_MODELS", str(place / "mine"))
    assert model_folders() == [
        place / "mine",
        place / "comfy" / "models" / "genxd",
        place / "models" / "genxd",
    ]


def test_a_pack_inside_comfyui_uses_its_models(place, monkeypatch):
    pack = place / "ComfyUI" / "custom_nodes" / "My Pack" / "genxd_core"
    monkeypatch.setattr(module, "__file__", str(pack / "model_folders.py"))
    assert model_folders()[0] == place / "ComfyUI" / "models" / "genxd"


def test_models_are_found_by_the_name_of_their_folder(place):
    make_tiny_model(place / "models" / "genxd" / "tiny")
    make_tiny_model(place / "models" / "genxd" / "mine" / "big")
    found = find_models()
    assert found["tiny"] == place / "models" / "genxd" / "tiny"
    assert found["mine/big"] == place / "models" / "genxd" / "mine" / "big"
    assert resolve_model("tiny") == found["tiny"]
    assert resolve_model("mine/big") == found["mine/big"]


def test_a_folder_may_be_given_itself(place):
    assert resolve_model(make_tiny_model(place / "x")) == place / "x"


def test_an_unknown_model_is_told_with_those_that_there_are(place):
    make_tiny_model(place / "models" / "genxd" / "tiny")
    with pytest.raises(WeightsError, match=r"'huge': there is no such folder.*found: .*tiny"):
        resolve_model("huge")


def test_the_embedded_model_has_its_name(place, monkeypatch):
    nano = make_tiny_model(place / "assets" / "nano")
    monkeypatch.setattr(module, "NANO", nano)
    assert resolve_model(NANO_NAME) == nano
    assert list(find_models()) == [NANO_NAME]


def test_perceptual_models_lie_in_a_folder_beside_the_models(place, monkeypatch):
    monkeypatch.setenv("GENXD_MODELS", str(place / "mine"))
    assert perceptual_folders() == [
        place / "mine" / "perceptual",
        place / "models" / "genxd" / "perceptual",
    ]


def test_perceptual_models_are_found_by_the_name_of_their_file(place, monkeypatch):
    monkeypatch.setenv("GENXD_MODELS", str(place / "mine"))
    names = ["a.pth", "sub/b.safetensors", "sub/c.PT", "notes.md", "folder.pth/inside.txt"]
    first = place / "mine" / "perceptual"
    for name in names:
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).touch()
    second = place / "models" / "genxd" / "perceptual" / "a.pth"
    second.parent.mkdir(parents=True)
    second.touch()
    found = find_perceptual()
    assert found == {name: first / name for name in names[:3]}
    assert resolve_perceptual("sub/b.safetensors") == first / "sub" / "b.safetensors"
    assert resolve_perceptual(second) == second
    assert not find_models().keys() - {NANO_NAME}


def test_a_missing_perceptual_model_is_told_with_those_that_there_are(place):
    file = place / "models" / "genxd" / "perceptual" / "vgg.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(WeightsError, match=r"'alex': there is no such file.*found: vgg\.pth\. Put"):
        resolve_perceptual("alex")

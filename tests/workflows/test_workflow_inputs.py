"""The bundled inputs: what their scenes make of them."""

import pytest
import torch
from PIL import Image

from genxd_core.cameras.io import load_cameras
from genxd_core.media import load_image, load_video
from genxd_core.synthetic import HELD_OUT
from tools.demo import INPUTS
from tools.workflows_inputs import CAPTURE, FILM, PHOTOGRAPH, SCENES, write_inputs

ONE_LEVEL = 1.001 / 255  # other machines may round a value to the neighbouring level


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_files_are_what_the_scene_makes(scene):
    images, cameras = scene.make()
    if scene.video:
        filmed = load_video(INPUTS / scene.video)
        assert filmed.shape == images.shape
        assert float(((filmed - images) ** 2).mean()) < 1e-4  # 40 dB: what the encoder leaves
        return
    for image, name in zip(images, scene.pictures, strict=True):
        stored = load_image(INPUTS / name)
        assert stored.alpha is None
        assert float((stored.image - image).abs().max()) <= ONE_LEVEL
    if scene.camera_file:
        stored = load_cameras(INPUTS / scene.camera_file)
        torch.testing.assert_close(stored.c2w, cameras.c2w, rtol=0, atol=1e-6)
        torch.testing.assert_close(stored.Ks_norm, cameras.Ks_norm, rtol=0, atol=1e-6)


def test_scenes_are_held_out():
    assert min(scene.seed for scene in SCENES) >= HELD_OUT


def test_written_files_are_the_bundled_ones(tmp_path):
    written = {path.name for path in write_inputs(tmp_path)}
    bundled = {path.name for path in INPUTS.iterdir()}
    assert written == bundled - {PHOTOGRAPH, CAPTURE, FILM, "README.md"}


def test_photograph_is_a_picture_of_usual_size():
    with Image.open(INPUTS / PHOTOGRAPH) as picture:
        assert picture.mode == "RGB"
        assert min(picture.size) >= 256

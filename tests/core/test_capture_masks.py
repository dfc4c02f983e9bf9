"""Masks of captures: found by name, white is object, brought to the pictures."""

import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from genxd_core.media import save_image
from tests.support import DATA, assert_same_up_to

NAMES = ("a.jpg", "sub/b.jpg")


@pytest.fixture
def cameras(tmp_path):
    gx.save_cameras(gx.orbit(2, aspect=1.5), tmp_path / "cameras.json")
    return tmp_path / "cameras.json"


def half(*, width=24, height=16):
    """White on the left, black on the right."""
    picture = torch.zeros(3, height, width)
    picture[:, :, : width // 2] = 1
    return picture


def load(tmp_path, cameras, names=NAMES, **options):
    size = {"width": 24, "height": 16} | options
    return gx.load_capture_masks(tmp_path / "masks", cameras, names, **size)


@pytest.mark.parametrize("files", [("a.jpg", "b.jpg"), ("a.jpg.png", "b.jpg.png"), ("a.png",) * 2])
def test_masks_are_found_by_the_names_of_the_pictures(tmp_path, cameras, files):
    names = NAMES if files[0] != files[1] else ("a.jpg",)
    for file in files:
        save_image(half(), tmp_path / "masks" / file)
    masks = load(tmp_path, cameras, names)
    assert_same_up_to(masks, half()[None, :1].expand(len(names), -1, -1, -1), 0.1)


def test_masks_get_the_size_of_the_pictures(tmp_path, cameras):
    save_image(half(width=48, height=32), tmp_path / "masks" / "a.png")
    assert_same_up_to(load(tmp_path, cameras, ("a.jpg",)), half()[None, :1], 0.3)


def test_transparent_is_no_object(tmp_path, cameras):
    (tmp_path / "masks").mkdir()
    Image.new("RGBA", (24, 16), (255, 255, 255, 0)).save(tmp_path / "masks" / "a.png")
    assert float(load(tmp_path, cameras, ("a.jpg",)).max()) == 0


def test_a_mask_is_undistorted_like_its_picture(tmp_path):
    """The picture itself as a mask comes out as the picture of the capture."""
    capture = gx.load_capture(DATA / "lund")
    height, width = capture.images.shape[2:]
    masks = gx.load_capture_masks(
        DATA / "lund" / "images", DATA / "lund", capture.names, width=width, height=height
    )
    assert_same_up_to(masks, capture.images.mean(1, keepdim=True), 1e-5)


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ((), ("a.jpg",), "is no folder"),
        (("a.png",), ("a.jpg", "b.jpg"), "b.jpg of 2 pictures have no mask of the same name"),
        (("a.png",), ("x/a.jpg", "y/a.jpg"), "several pictures have the mask"),
        (("wide.png",), ("wide.jpg",), "another shape than its picture"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, cameras, files, names, message):
    for file in files:
        save_image(half(width=40 if file == "wide.png" else 24), tmp_path / "masks" / file)
    with pytest.raises(InvalidInputError, match=message):
        load(tmp_path, cameras, names)

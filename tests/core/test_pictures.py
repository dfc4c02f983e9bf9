import numpy as np
import pytest
import torch
from PIL import Image

from genxd_core.errors import InvalidInputError
from genxd_core.pictures import as_pictures, from_pil, to_pil


def test_pil_pictures_become_colour_in_zero_to_one():
    levels = np.zeros((2, 3, 3), dtype=np.uint8)
    levels[0, 2] = (255, 51, 0)
    colour, alpha = from_pil(Image.fromarray(levels))
    assert colour.shape == (3, 2, 3)
    assert colour[:, 0, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert alpha is None


def test_transparency_is_handed_out_beside_the_colour():
    levels = np.full((2, 2, 4), 255, dtype=np.uint8)
    levels[0, 0, 3] = 51
    colour, alpha = from_pil(Image.fromarray(levels))
    assert alpha.shape == (1, 2, 2)
    assert alpha[0].tolist() == [[pytest.approx(0.2), 1.0], [1.0, 1.0]]
    assert colour.min() == 1.0


def test_a_transparent_palette_colour_counts_as_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = 0
    colour, alpha = from_pil(picture)
    assert alpha[0, 0].tolist() == [0.0, 1.0]
    assert colour[:, 0, 1].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 51, 0.2), ("1", 1, 1.0)])
def test_grey_pictures_become_three_equal_channels(mode, value, expected):
    colour, _ = from_pil(Image.new(mode, (2, 2), value))
    assert torch.allclose(colour, torch.full((3, 2, 2), expected))


def test_sixteen_bit_grey_keeps_its_levels():
    values = np.array([[0, 13107], [32768, 65535]], dtype=np.uint16)
    colour, _ = from_pil(Image.fromarray(values))
    assert colour[0].flatten().tolist() == pytest.approx([0, 0.2, 32768 / 65535, 1.0], abs=1e-5)


def test_cmyk_is_converted():
    colour, _ = from_pil(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))
    assert colour[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=0.02)


def test_exif_orientation_turns_the_picture_upright():
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    picture.getexif()[0x0112] = 6  # the camera was held turned: rotate 90 degrees clockwise
    colour, _ = from_pil(picture)
    assert colour.shape == (3, 4, 2)
    assert colour[0, 0, 1] == 1.0


def test_eight_bits_survive_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    picture = to_pil(levels.float() / 255)
    assert torch.equal((from_pil(picture)[0] * 255).round().to(torch.uint8), levels)


def test_saving_rounds_and_clamps():
    values = torch.tensor([-1.0, 0.4999, 2.0]).view(3, 1, 1)
    assert to_pil(values).getpixel((0, 0)) == (0, 127, 255)


def test_a_good_tensor_is_taken_as_it_is():
    images = torch.rand(2, 3, 4, 4)
    assert as_pictures(images, "images") is images


def test_a_string_is_no_list_of_pictures():
    with pytest.raises(Exception, match=r"images"):
        as_pictures("photo.png", "images")


def test_lists_name_the_picture_that_does_not_fit():
    with pytest.raises(InvalidInputError, match=r"images\[1\] is \(4, 4\); expected"):
        as_pictures([torch.zeros(3, 4, 4), torch.zeros(4, 4)], "images")
    with pytest.raises(InvalidInputError, match=r"different sizes \(4 x 4, 4 x 8"):
        as_pictures([torch.zeros(3, 4, 8), torch.zeros(3, 4, 4)], "images")

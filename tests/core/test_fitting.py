import inspect

import numpy as np
import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core import InvalidInputError
from genxd_core.fitting import fit_masks, plan_fit
from tests.support import assert_same_up_to, seeded

SIZES = [(48, 80), (75, 50), (64, 64), (37, 61), (20, 30)]
TARGETS = [32, (24, 40), (40, 24), (64, 64)]


def smooth_images(size: tuple[int, int], count: int = 2) -> torch.Tensor:
    """Pictures without fine detail, so that resizing there and back loses little."""
    small = torch.rand(count, 3, 4, 4, generator=seeded())
    return torch.nn.functional.interpolate(small, size, mode="bicubic").clamp(0, 1)


def intrinsics(cx: float = 0.5, cy: float = 0.5) -> torch.Tensor:
    return torch.tensor([[1.1, 0.0, cx], [0.0, 1.3, cy], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_fitted_views_have_the_size_and_stay_in_range(size, target, mode):
    fitted = gx.fit_views(smooth_images(size), intrinsics(), target, mode=mode)
    expected = (target, target) if isinstance(target, int) else target
    assert fitted.images.shape == (2, 3, *expected)
    assert fitted.Ks_norm.shape == (2, 3, 3)
    assert float(fitted.images.min()) >= 0.0
    assert float(fitted.images.max()) <= 1.0


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_intrinsics_follow_the_pixels(size, target, mode):
    """A ray through a source pixel goes through the pixel where its content ends up."""
    source_height, source_width = size
    record = plan_fit(size, target, mode)
    Ks_norm = intrinsics(0.47, 0.55)[None]
    cameras = gx.Cameras(torch.eye(4)[None], Ks_norm)
    fitted = gx.fit_cameras(cameras, record).Ks_norm[0]
    for x, y in ((10.0, 5.0), (source_width / 2, source_height / 2), (source_width - 1.0, 7.0)):
        ray = torch.linalg.inv(Ks_norm[0]) @ torch.tensor(
            [x / source_width, y / source_height, 1.0]
        )
        top, _, left, _ = record.padding
        rows = record.resized[0] / record.padded_size[0]
        columns = record.resized[1] / record.padded_size[1]
        new_x = (x + left) * columns - record.offset[1]
        new_y = (y + top) * rows - record.offset[0]
        seen = fitted @ ray
        # An odd rest is rounded: up to half a pixel of the padded, and of the resized picture.
        assert float(seen[0]) * record.size[1] == pytest.approx(new_x, abs=0.5 + 0.5 * columns)
        assert float(seen[1]) * record.size[0] == pytest.approx(new_y, abs=0.5 + 0.5 * rows)


def test_a_point_that_is_drawn_is_found_where_the_fitted_camera_projects_it():
    picture = torch.zeros(1, 3, 120, 200)
    picture[:, :, 30:34, 150:154] = 1.0
    Ks_norm = intrinsics()
    ray = torch.linalg.inv(Ks_norm) @ torch.tensor([152 / 200, 32 / 120, 1.0])
    for mode in ("crop", "pad"):
        fitted = gx.fit_views(picture, Ks_norm, 96, mode=mode)
        weights = fitted.images[0, 0]
        rows = (torch.arange(96) + 0.5)[:, None]
        columns = (torch.arange(96) + 0.5)[None]
        found = torch.stack([(weights * grid).sum() for grid in (columns, rows)]) / weights.sum()
        expected = (fitted.Ks_norm[0] @ ray)[:2] * 96
        assert_same_up_to(found, expected, 0.1)


def test_pixels_stay_square_by_cropping_and_by_padding():
    Ks_norm = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    for mode in ("crop", "pad"):
        fitted = gx.fit_views(smooth_images((100, 200)), Ks_norm, (64, 96), mode=mode).Ks_norm[0]
        assert float(fitted[0, 0] * 96 / (fitted[1, 1] * 64)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("size", "target"), [((48, 80), 32), ((75, 50), (64, 48)), ((37, 61), 48), ((31, 64), (33, 47))]
)
def test_padding_keeps_the_whole_picture_and_unfitting_brings_it_back(size, target):
    images = smooth_images(size)
    fitted = gx.fit_views(images, None, target, mode="pad")
    restored = gx.unfit_views(fitted.images, fitted.record)
    assert restored.shape == images.shape
    inner = (..., slice(4, -4), slice(4, -4))
    assert float((restored - images)[inner].abs().mean()) < 0.01


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (64, 64)])
@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_unfitted_cameras_belong_to_the_unfitted_pictures(mode, size):
    record = plan_fit(size, 32, mode)
    path = gx.sway(3, aspect=size[1] / size[0])
    back = gx.unfit_cameras(gx.fit_cameras(path, record), record)
    if mode == "pad":  # the whole picture again
        assert_same_up_to(back.Ks_norm, path.Ks_norm, 1e-6)
    focal = back.Ks_norm[0, [0, 1], [0, 1]] * torch.tensor(record.restored_size[::-1])
    # The fit rounds a side to whole pixels, as the reference does, and stretches by that much.
    stretch = 0.5 / min(record.resized) + 1e-3
    assert float(focal[0] / focal[1]) == pytest.approx(1.0, abs=stretch)
    # In pixels of the given picture the lens is the same, whatever was cut off.
    given = path.Ks_norm[0, 0, 0] * size[1]
    assert float(focal[0] / given) == pytest.approx(1.0, abs=stretch)
    assert torch.equal(back.c2w, path.c2w)


def test_cropping_keeps_the_middle_and_unfitting_brings_it_back():
    images = smooth_images((48, 80))
    fitted = gx.fit_views(images, None, 32)
    restored = gx.unfit_views(fitted.images, fitted.record)
    assert restored.shape == (2, 3, 48, 48)
    # The crop starts at column 10 of 53, which is 15.1 of the given 80.
    assert float((restored - images[:, :, :, 15:63]).abs().mean()) < 0.01


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_fitting_to_the_same_size_only_cuts_to_eight_bits(mode):
    images = smooth_images((32, 32))
    fitted = gx.fit_views(images, intrinsics(), 32, mode=mode)
    assert torch.equal(fitted.images, (images * 255).floor() / 255)
    assert torch.equal(fitted.Ks_norm, intrinsics().expand(2, 3, 3))


def test_every_eight_bit_value_survives():
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16).float()
    fitted = gx.fit_views(levels / 255, None, 16)
    assert torch.equal((fitted.images * 255).round(), levels)


def test_padding_has_its_colour_and_the_odd_pixel_at_the_bottom_and_right():
    images = torch.ones(1, 3, 11, 16)
    fitted = gx.fit_views(images, None, 16, mode="pad", pad_color=(1.0, 0.0, 0.2))
    assert fitted.record.padding == (2, 3, 0, 0)
    top = torch.tensor([1.0, 0.0, 51 / 255]).view(1, 3, 1, 1)
    assert_same_up_to(fitted.images[:, :, :2], top.expand(1, 3, 2, 16), 1e-6)
    assert_same_up_to(fitted.images[:, :, 13:], top.expand(1, 3, 3, 16), 1e-6)
    assert torch.equal(fitted.images[:, :, 2:13], images)


def test_transparent_parts_show_the_background():
    images = torch.zeros(1, 3, 8, 8)
    alpha = torch.ones(1, 1, 8, 8)
    alpha[..., :4] = 0.0
    on_white = gx.fit_views(images, None, 8, alpha=alpha).images
    assert on_white[0, :, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert on_white[0, :, 0, 7].tolist() == [0.0, 0.0, 0.0]
    coloured = gx.fit_views(images, None, 8, alpha=alpha[:, 0], background=(0.0, 1.0, 0.0)).images
    assert coloured[0, :, 0, 0].tolist() == [0.0, 1.0, 0.0]


def test_compositing_agrees_with_pillow():
    levels = torch.randint(0, 256, (4, 16, 16), generator=seeded(), dtype=torch.uint8)
    rgba = Image.fromarray(levels.permute(1, 2, 0).numpy())
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    expected = np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    values = levels[None].float() / 255
    fitted = gx.fit_views(values[:, :3], None, 16, alpha=values[:, 3:]).images
    actual = (fitted[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.abs(actual.astype(int) - expected.astype(int)).max() == 0


def test_a_path_gets_the_intrinsics_of_the_pictures():
    Ks_norm = intrinsics()
    fitted = gx.fit_views(smooth_images((48, 80)), Ks_norm, (32, 24))
    path = gx.Cameras(gx.orbit(5).c2w, Ks_norm.expand(5, 3, 3), [0.0, 0.1, 0.2, 0.3, 0.4])
    fitted_path = gx.fit_cameras(path, fitted.record)
    assert_same_up_to(fitted_path.Ks_norm, fitted.Ks_norm[:1].expand(5, 3, 3), 0.0)
    assert torch.equal(fitted_path.c2w, path.c2w)
    assert torch.equal(fitted_path.times, path.times)


def test_skew_scales_with_the_width():
    Ks_norm = intrinsics()
    Ks_norm[0, 1] = 0.1
    fitted = gx.fit_views(smooth_images((40, 80)), Ks_norm, 40).Ks_norm
    assert_same_up_to(fitted[:, 0, 1], torch.full((2,), 0.2), 1e-6)


def test_the_record_is_the_plan():
    for mode in ("crop", "pad"):
        fitted = gx.fit_views(smooth_images((37, 61)), None, (24, 40), mode=mode)
        assert fitted.record == plan_fit((37, 61), (24, 40), mode)
        assert fitted.Ks_norm is None


def test_masks_follow_their_pictures():
    rows, columns = torch.linspace(-3, 3, 48)[:, None], torch.linspace(-3, 3, 80)[None]
    # Soft, so that Lanczos does not overshoot: 8 bits and float clamp that at different times.
    mask = torch.exp(-(rows**2) - columns**2)[None, None]
    for mode in ("crop", "pad"):
        fitted = gx.fit_views(mask.expand(1, 3, 48, 80), None, 32, mode=mode)
        fitted_mask = fit_masks(mask, fitted.record)
        assert fitted_mask.shape == (1, 1, 32, 32)
        # The pictures are in 8 bits, the masks in float.
        assert_same_up_to(fitted_mask, fitted.images[:, :1], 1.5 / 255)


def test_given_pictures_are_left_alone():
    images = smooth_images((48, 80))
    before = images.clone()
    gx.fit_views(images, intrinsics(), 32, mode="pad", alpha=torch.rand(2, 48, 80))
    assert torch.equal(images, before)


def test_double_precision_pictures_are_taken():
    assert gx.fit_views(smooth_images((8, 8)).double(), None, 4).images.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"images has shape \(3, 8, 8\); expected \(V, 3, H, W\)"),
        (torch.zeros(1, 4, 8, 8), r"images has shape \(1, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "with at least one view"),
        (
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            r"images is in torch\.uint8; expected floating",
        ),
        (torch.full((1, 3, 8, 8), -1.0), r"images lies in \[-1, -1\]; expected \[0, 1\]"),
        (torch.full((1, 3, 8, 8), 255.0), r"images lies in \[255, 255\]"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN must be removed"),
    ],
)
def test_pictures_that_are_no_pictures_are_refused(images, message):
    with pytest.raises(InvalidInputError, match=message):
        gx.fit_views(images, None, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": torch.ones(1, 1, 8, 8)}, r"alpha has shape \(1, 1, 8, 8\) for images"),
        ({"background": (1.0, 1.0)}, r"background is \(1\.0, 1\.0\); expected one or three"),
        ({"pad_color": 2.0}, r"pad_color is 2\.0; expected one or three numbers in \[0, 1\]"),
        ({"Ks_norm": torch.eye(3).repeat(3, 1, 1)}, r"Ks_norm has shape \(3, 3, 3\) for 2 images"),
        ({"size": 0}, "size is 0 x 0; expected at least 1 x 1"),
        ({"size": (32, -1)}, "size is 32 x -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    settings = {"Ks_norm": None, "size": 32, "mode": "pad", **settings}
    with pytest.raises(InvalidInputError, match=message):
        gx.fit_views(smooth_images((48, 80)), **settings)


def test_an_unknown_mode_is_refused():
    # The tests' type checks would refuse it first; a user has none.
    with pytest.raises(InvalidInputError, match="mode is 'stretch'; expected 'crop' or 'pad'"):
        inspect.unwrap(plan_fit)((48, 80), 32, "stretch")


def test_unfitting_views_of_another_size_is_refused():
    record = plan_fit((48, 80), 32)
    with pytest.raises(InvalidInputError, match=r"images are 16 x 16 pixels, but the record was"):
        gx.unfit_views(torch.zeros(1, 3, 16, 16), record)


def test_masks_of_another_size_are_refused():
    record = plan_fit((48, 80), 32)
    with pytest.raises(InvalidInputError, match=r"masks has shape \(1, 1, 32, 32\); expected"):
        fit_masks(torch.zeros(1, 1, 32, 32), record)

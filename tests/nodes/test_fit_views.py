"""Pictures fitted to a size the model takes, and brought back."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.host.in_process import Host
from tests.support import assert_same_up_to, seeded

DEFAULTS = {
    "width": 64,
    "height": 64,
    "mode": "crop",
    "mask_is": "transparency",
    "multiple": 64,
    "background": 1.0,
}


def pictures(count: int = 1, height: int = 48, width: int = 80, channels: int = 3) -> Tensor:
    return torch.rand(count, height, width, channels, generator=seeded(2))


def fit(host: Host, images: Tensor, **changes: Any) -> tuple[Tensor, Any, Any]:
    return host.run_node("GenXD_FitViews", images=images, **(DEFAULTS | changes))


def told(host: Host, class_type: str, **inputs: Any) -> str:
    graph: dict[str, Any] = {"1": {"class_type": class_type, "inputs": {}}}
    for name, value in inputs.items():
        if isinstance(value, int | float | str):
            graph["1"]["inputs"][name] = value
        else:
            graph[name] = host.value(value)
            graph["1"]["inputs"][name] = [name, 0]
    graph["2"] = host.capture(["1", 0])
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


def refusal(host: Host, **changes: Any) -> str:
    return told(host, "GenXD_FitViews", **(DEFAULTS | {"images": pictures()} | changes))


def pillow_crop(picture: Tensor) -> Tensor:
    """80 x 48 to 64 x 64 by hand: to 107 x 64, then the middle."""
    image = Image.fromarray((picture.numpy() * 255).astype(np.uint8))
    resized = image.resize((107, 64), Image.Resampling.LANCZOS).crop((21, 0, 85, 64))
    return torch.from_numpy(np.array(resized)).float() / 255


def test_crop_is_pillows_resize_and_the_middle(host):
    images = pictures(2)
    fitted, cameras, record = fit(host, images)
    assert cameras is None
    assert record.size == (64, 64)
    assert_same_up_to(fitted, torch.stack([pillow_crop(one) for one in images]), 1e-6)


def test_pad_adds_black_bars_and_comes_back_whole(host):
    images = torch.full((1, 48, 80, 3), 0.6)
    fitted, _, record = fit(host, images, mode="pad")
    # 80 x 80 with the picture in rows 16 to 63, then 64 x 64 with it in rows 12.8 to 51.2.
    assert fitted.shape == (1, 64, 64, 3)
    assert float(fitted[0, [*range(10), *range(54, 64)]].max()) == 0.0
    assert_same_up_to(fitted[0, 16:48], torch.full((32, 64, 3), 0.6), 1e-6)
    back, _ = host.run_node("GenXD_UnfitViews", images=fitted, fit=record)
    assert back.shape == images.shape
    assert_same_up_to(back[:, 4:-4], images[:, 4:-4], 1e-2)


def test_crop_comes_back_as_what_was_kept(host):
    fitted, _, record = fit(host, pictures())
    back, _ = host.run_node("GenXD_UnfitViews", images=fitted, fit=record)
    assert back.shape == (1, 48, 48, 3)


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_cameras_follow_the_pictures(host, mode):
    gx = host.module("genxd_core")
    path = gx.sway(5, aspect=80 / 48)
    _, fitted, _ = fit(host, pictures(), mode=mode, cameras=path)
    assert torch.equal(fitted.c2w, path.c2w)
    # The shorter side had the focal length; cropped, it is the whole side, padded, 48 of 80.
    expected = 1.0938 * (1.0 if mode == "crop" else 48 / 80)
    assert_same_up_to(fitted.Ks_norm[:, 0, 0], torch.full((5,), expected), 5e-3)
    assert_same_up_to(fitted.Ks_norm[:, 1, 1], torch.full((5,), expected), 5e-3)


def half_mask(height: int = 48, width: int = 80) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, :, : width // 2] = 1.0
    return mask


def test_mask_says_what_becomes_background_either_way(host):
    images = pictures().clamp(0.0, 0.5)
    transparent, _, _ = fit(host, images, mask=half_mask(), mask_is="transparency")
    objects, _, _ = fit(host, images, mask=half_mask(), mask_is="object")
    # Lanczos overshoots near the edge.
    assert float(transparent[..., :28, :].min()) == 1.0
    assert float(transparent[..., 36:, :].max()) < 0.7
    assert float(objects[..., 36:, :].min()) == 1.0
    assert float(objects[..., :28, :].max()) < 0.7


def test_background_is_a_choice(host):
    fitted, _, _ = fit(host, pictures(), mask=half_mask(), background=0.2)
    assert_same_up_to(fitted[..., :24, :], torch.full_like(fitted[..., :24, :], 51 / 255), 1e-6)


def test_fourth_channel_is_transparency(host):
    images = pictures(channels=4)
    images[..., 3] = 1.0 - half_mask()
    fitted, _, _ = fit(host, images)
    assert float(fitted[..., :28, :].min()) == 1.0
    with_mask, _, _ = fit(host, images[..., :3].contiguous(), mask=half_mask())
    assert torch.equal(fitted, with_mask)


def test_one_mask_serves_all_pictures(host):
    images = pictures(3)
    one, _, _ = fit(host, images, mask=half_mask())
    three, _, _ = fit(host, images, mask=half_mask().expand(3, -1, -1).clone())
    assert torch.equal(one, three)


def test_empty_mask_of_loadimage_stands_for_none(host):
    """LoadImage gives 64 x 64 zeros for a picture without transparency, whatever its size."""
    images = pictures()
    fitted, _, _ = fit(host, images, mask=torch.zeros(1, 64, 64))
    assert torch.equal(fitted, fit(host, images)[0])


def test_overshoot_of_other_resizers_is_cut_off(host):
    images = pictures() * 1.4 - 0.2
    fitted, _, _ = fit(host, images)
    assert torch.equal(fitted, fit(host, images.clamp(0, 1))[0])


MISTAKES = {
    "an empty object mask": (
        {"mask": torch.zeros(1, 48, 80), "mask_is": "object"},
        'mask 0 with mask_is "object" leaves nothing of the picture: it is empty, or mask_is',
    ),
    "an empty object mask of LoadImage": (
        {"mask": torch.zeros(1, 64, 64), "mask_is": "object"},
        "mask is 64x64, but images are 80x48",
    ),
    "a mask that covers all": (
        {"mask": torch.ones(1, 48, 80)},
        'mask 0 with mask_is "transparency" leaves nothing',
    ),
    "one empty mask of several": (
        {
            "images": pictures(2),
            "mask": torch.stack([torch.ones(48, 80), torch.zeros(48, 80)]),
            "mask_is": "object",
        },
        'mask 1 with mask_is "object" leaves nothing',
    ),
    "a mask of another size": (
        {"mask": torch.zeros(1, 32, 32)},
        "mask is 32x32, but images are 80x48; connect the mask of the same pictures",
    ),
    "masks of another count": (
        {"mask": torch.zeros(3, 48, 80)},
        "mask has 3 frames for 1 pictures; give one, or one each",
    ),
    "a mask with NaN": ({"mask": torch.full((1, 48, 80), torch.nan)}, "mask holds values that are"),
    "a mask to 255": ({"mask": half_mask() * 255}, "mask holds values from 0 to 255; expected 0"),
    "no picture": ({"images": torch.zeros(0, 48, 80, 3)}, "images has shape (0, 48, 80, 3)"),
    "grey pictures": ({"images": pictures(channels=1)}, "images has shape (1, 48, 80, 1)"),
    "pictures to 255": ({"images": pictures() * 255}, "images hold values from"),
    "pictures with NaN": (
        {"images": pictures() * torch.nan},
        "images holds values that are not finite",
    ),
    "a width between multiples": (
        {"width": 104},
        "width is 104, which is no multiple of 64 (the input multiple: 64 for the released model, "
        "16 for genxd-nano). Nearest: 64 or 128.",
    ),
    "a height under the multiple": ({"height": 40}, "Nearest: 64."),
    "a width too small": ({"width": 8}, "Value 8 smaller than min of 16: width"),
    "a width too large": ({"width": 5000}, "Value 5000 bigger than max of 4096: width"),
    "a background too bright": ({"background": 2.0}, "bigger than max of 1.0: background"),
    "a background of NaN": ({"background": float("nan")}, "background is nan; expected a number"),
    "another mode": ({"mode": "stretch"}, "mode: 'stretch' not in ['crop', 'pad']"),
    "no multiple": ({"multiple": 0}, "Value 0 smaller than min of 8: multiple"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(host, name):
    changes, message = MISTAKES[name]
    error = refusal(host, **changes)
    assert message in error
    assert "GenXD_FitViews" in error


def test_path_for_pictures_of_another_shape_is_refused(host):
    path = host.module("genxd_core").sway(3)
    options = DEFAULTS | {"images": pictures(), "cameras": path}
    error = told(host, "GenXD_FitViews", **options)
    assert "cameras are for pictures of width / height 1.000, but images are 80x48" in error


def test_path_comes_back_with_the_pictures(host):
    path = host.module("genxd_core").sway(3, aspect=80 / 48)
    fitted, cameras, record = fit(host, pictures(), mode="pad", cameras=path)
    restored, back = host.run_node("GenXD_UnfitViews", images=fitted, fit=record, cameras=cameras)
    assert restored.shape[1:3] == (48, 80)
    assert_same_up_to(back.Ks_norm, path.Ks_norm, 1e-6)
    assert host.run_node("GenXD_UnfitViews", images=fitted, fit=record)[1] is None


def test_views_of_another_size_are_not_unfitted(host):
    _, _, record = fit(host, pictures())
    error = told(host, "GenXD_UnfitViews", images=pictures(), fit=record)
    assert "images are 80x48, but fit was made for 64x64" in error
    error = told(host, "GenXD_UnfitViews", images=pictures(), fit=[1])
    assert "fit is a list; expected the fit output of GenXD Fit Views" in error

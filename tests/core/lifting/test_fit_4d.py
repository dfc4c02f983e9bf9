"""Gaussians that move: how good, the stages, what is refused, and files that keep them."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genxd_core import (
    RECIPES_4D,
    Cameras,
    Gaussians4D,
    InvalidInputError,
    export_sequence,
    fit_gaussians_4d,
    load_cameras,
    load_gaussians_4d,
    load_ply,
    render_views,
    save_gaussians_4d,
)
from genxd_core.lifting.fit_4d import around_what_is_looked_at
from genxd_core.lifting.hexplane import HexPlaneField
from genxd_core.lifting.losses import psnr
from genxd_core.lifting.upright import turn_cameras, upright_rotation
from genxd_core.synthetic import HELD_OUT, MovingObjectViews, make_moving_object_views
from tests.core.lifting.splat_scenes import random_scene
from tests.support import seeded

pytestmark = pytest.mark.slow  # fits

SHORT = replace(
    RECIPES_4D["test"],
    static=replace(RECIPES_4D["test"].static, iterations=12, num_gaussians=200),
    moving=replace(RECIPES_4D["test"].moving, iterations=12),
)


@pytest.fixture(scope="module")
def views() -> MovingObjectViews:
    return make_moving_object_views(HELD_OUT + 1, size=40, num_times=12, num_views=6)


@pytest.fixture(scope="module")
def fitted(views):
    return fit_gaussians_4d(
        views.images, views.cameras, masks=views.masks, recipe="test", held_out=views.held_out
    )


def short(views: MovingObjectViews, **changed: Any) -> Any:
    given: dict[str, Any] = {
        "images": views.images,
        "cameras": views.cameras,
        "masks": views.masks,
        "recipe": SHORT,
        "held_out": views.held_out,
    }
    return fit_gaussians_4d(**(given | changed))


@pytest.fixture(scope="module")
def begun(views) -> Any:
    return short(views)


def _quality(drawn: Tensor, views: MovingObjectViews) -> float:
    return float(psnr(drawn, views.images[list(views.held_out)]).mean())


def _drawn(scene: Any, cameras: Cameras) -> Tensor:
    size = {"width": 40, "height": 40, "background": (1.0, 1.0, 1.0)}
    return render_views(scene, cameras, **size).rgb.clamp(0, 1)


def test_moving_beats_standing_still_by_far(views, fitted):
    unseen = views.cameras[torch.tensor(views.held_out)]
    moving = _quality(_drawn(fitted.gaussians, unseen), views)
    still = _quality(_drawn(fitted.static.gaussians, unseen), views)
    assert fitted.start == "masks"
    assert moving > still + 3
    assert moving > 20
    assert fitted.metrics["held_out_psnr"] == pytest.approx(moving, abs=0.5)


def test_the_objects_follow_their_true_path_before_a_still_camera(views, fitted):
    """Seen from the side, what moves up in the truth moves up in the fit, and as far."""
    camera = 1
    index = [time * 6 + camera for time in range(12)]
    path = views.cameras[torch.tensor(index)]
    alpha = render_views(fitted.gaussians, path, width=40, height=40).alpha[:, 0]
    truth = views.masks[index, 0]
    rows = torch.arange(40.0)

    def spread(maps: Tensor) -> Tensor:
        """Standard deviation of the rows that are covered: it grows as the balls part."""
        share = maps.sum(2) / maps.sum((1, 2))[:, None]
        middle = (share * rows).sum(1, keepdim=True)
        return (share * (rows - middle) ** 2).sum(1).sqrt()

    assert (spread(alpha) - spread(truth)).abs().max() < 1.5
    assert spread(truth).max() - spread(truth).min() > 3


def test_a_scene_at_one_time_is_the_same_for_every_camera(views, fitted):
    frozen = views.cameras[torch.arange(6)]
    cameras = Cameras(frozen.c2w, frozen.Ks_norm, torch.full((6,), 0.4))
    moving = render_views(fitted.gaussians, cameras, width=40, height=40)
    still = render_views(fitted.gaussians.at(0.4), frozen, width=40, height=40)
    assert torch.equal(moving.rgb, still.rgb)


def test_the_same_seed_gives_the_same(views):
    first, again, other = short(views), short(views), short(views, seed=1)
    assert torch.equal(first.gaussians.at(0.7).means, again.gaussians.at(0.7).means)
    assert not torch.equal(first.gaussians.at(0.7).means, other.gaussians.at(0.7).means)


def test_static_views_of_their_own_begin_the_fit(views):
    first = torch.arange(6)
    result = short(
        views,
        static_images=views.images[first],
        static_cameras=views.cameras[first],
        static_masks=views.masks[first],
    )
    assert result.static.metrics["iterations"] == 12
    assert result.metrics["iterations"] == 24
    assert [step.iteration for step in result.history] == [*range(1, 13), *range(13, 25)]


def test_one_bar_runs_over_both_stages_and_stopping_keeps_the_best(views):
    seen: list[tuple[int, int]] = []

    def all_of_it(step: int, total: int, preview: Tensor | None = None) -> None:
        seen.append((step, total))

    short(views, progress=all_of_it)
    assert seen == [(step, 24) for step in range(1, 25)]
    for last in (5, 15):
        stopped = short(views, progress=lambda step, total, preview=None, last=last: step < last)
        assert stopped.cancelled
        assert stopped.metrics["iterations"] == last
        assert stopped.gaussians.at(1.0).means.isfinite().all()


def test_a_fit_goes_on_from_a_file(views, begun, tmp_path):
    first = begun
    file = save_gaussians_4d(first.gaussians, tmp_path / "scene.safetensors")
    longer = short(views, resume=load_gaussians_4d(file))
    assert longer.start == "resume"
    assert longer.metrics["iterations"] == 12
    assert longer.metrics["psnr"] > first.metrics["psnr"]


def test_a_turned_scene_is_fitted_on_in_the_world_it_was_turned_to(views, begun):
    """The same pictures, cameras and scene, all turned: the same fit, turned."""
    first = begun.gaussians
    turn = upright_rotation(views.cameras, up="+Z")
    plain = short(views, resume=first)
    turned = short(views, resume=first.turned(turn), cameras=turn_cameras(views.cameras, turn))
    expected = plain.gaussians.at(0.6).means @ turn.float().T
    assert torch.allclose(turned.gaussians.at(0.6).means, expected, atol=1e-3)
    assert turned.metrics["held_out_psnr"] == pytest.approx(
        plain.metrics["held_out_psnr"], abs=0.05
    )
    assert turned.static is None


def test_going_on_does_not_undo_what_was_fitted(views, fitted):
    """The first steps of a fit that goes on are as good as the end of the first one."""
    again = short(views, resume=fitted.gaussians)
    assert again.metrics["held_out_psnr"] > fitted.metrics["held_out_psnr"] - 0.5


def test_a_field_moves_nothing_at_first_and_is_made_from_its_config():
    means = torch.rand(50, 3, generator=seeded(0))
    field = HexPlaneField.around(means, cells=(8, 16), channels=4, width=8, moves_opacity=True)
    from genxd_core.lifting.gaussians_4d import FreeValues

    values = FreeValues(
        means, torch.tensor([[1.0, 0, 0, 0]]).repeat(50, 1), torch.zeros(50, 3), torch.zeros(50)
    )
    moved = field(values, 0.3)
    assert (moved.means - means).abs().max() < 0.02
    copy = HexPlaneField(**field.config())
    copy.load_state_dict(field.state_dict())
    for ours, theirs in zip(moved[:4], copy(values, 0.3)[:4], strict=True):
        assert torch.equal(ours, theirs)
    space, time, still = field.roughness()
    assert space > 0
    assert time.item() == still.item() == 0


def test_colours_that_change_over_time_are_learnt_where_that_is_asked_for(views, tmp_path):
    """The same balls, at rest in the dark after half of the time."""
    first = torch.arange(6)
    late = torch.cat([first, first])
    times = torch.tensor([0.0] * 6 + [1.0] * 6)
    cameras = Cameras(views.cameras.c2w[late], views.cameras.Ks_norm[late], times)
    masks = views.masks[late]
    dark = 1 - 0.6 * masks * times[:, None, None, None]
    given = {"images": views.images[late] * dark, "cameras": cameras, "masks": masks}
    found = {}
    for moves in (False, True):
        recipe = replace(
            SHORT,
            static=replace(SHORT.static, iterations=40),
            moving=replace(SHORT.moving, iterations=60, sh_degree=1),
            field=replace(SHORT.field, moves_colours=moves),
        )
        found[moves] = short(views, **given, recipe=recipe, held_out=())
    assert found[True].metrics["psnr"] > found[False].metrics["psnr"] + 1
    scene = found[True].gaussians
    assert float(scene.at(1.0).rgb.mean()) < 0.7 * float(scene.at(0.0).rgb.mean())
    again = load_gaussians_4d(save_gaussians_4d(scene, tmp_path / "dark.safetensors"))
    assert torch.equal(again.at(1.0).sh, scene.at(1.0).sh)


def test_a_far_sky_leaves_the_field_its_cells(views):
    """The box is around what the cameras look at, whatever stands behind."""
    first = torch.arange(6)
    near = views.cameras[first]
    far = 200.0 * torch.nn.functional.normalize(torch.randn(300, 3, generator=seeded(0)), dim=-1)
    middle = 0.3 * torch.randn(200, 3, generator=seeded(1))
    means = torch.cat([middle, far])
    kept = around_what_is_looked_at(means, Cameras(near.c2w, near.Ks_norm))
    assert torch.equal(kept, middle)


def test_files_keep_scene_turn_and_motion(fitted, tmp_path):
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    turned = fitted.gaussians.turned(turn)
    file = save_gaussians_4d(turned, tmp_path / "in" / "scene.safetensors")
    again = load_gaussians_4d(file)
    assert [path.name for path in file.parent.iterdir()] == ["scene.safetensors"]
    for time in (0.0, 0.35, 1.0):
        ours, theirs = turned.at(time), again.at(time)
        for name in ("means", "quats", "scales", "opacities", "sh"):
            assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6), name
    there = fitted.gaussians.at(0.5).means
    assert torch.allclose(turned.at(0.5).means, there @ turn.T, atol=1e-5)


def test_a_sequence_has_the_same_gaussians_in_every_frame(views, fitted, tmp_path):
    folder = export_sequence(
        fitted.gaussians, tmp_path / "frames", num_frames=3, fps=8, cameras=views.cameras[:6]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [frame["time"] for frame in manifest["frames"]] == [0, 0.5, 1]
    assert manifest["num_gaussians"] == len(fitted.gaussians)
    for frame in manifest["frames"]:
        loaded = load_ply(folder / frame["file"])
        assert torch.allclose(loaded.means, fitted.gaussians.at(frame["time"]).means, atol=1e-5)
    assert len(load_cameras(folder / manifest["cameras"])) == 6
    with pytest.raises(InvalidInputError, match="exists already"):
        export_sequence(fitted.gaussians, folder, num_frames=3, fps=8)


def test_a_sequence_that_is_stopped_leaves_nothing(fitted, tmp_path):
    from genxd_core import Cancelled

    with pytest.raises(Cancelled):
        export_sequence(
            fitted.gaussians,
            tmp_path / "frames",
            num_frames=3,
            fps=8,
            progress=lambda step, total, preview=None: step < 2,
        )
    assert not list(tmp_path.iterdir())


def _without_times(views: MovingObjectViews) -> dict[str, Any]:
    return {"cameras": Cameras(views.cameras.c2w, views.cameras.Ks_norm)}


def _one_time(views: MovingObjectViews) -> dict[str, Any]:
    cameras = views.cameras[:6]
    return {
        "cameras": cameras,
        "images": views.images[:6],
        "masks": views.masks[:6],
        "held_out": (),
    }


def _unmasked_time(views: MovingObjectViews) -> dict[str, Any]:
    masks = views.masks.clone()
    masks[6:12] = 0
    return {"masks": masks}


REFUSED: dict[str, tuple[Any, str]] = {
    "no times": (_without_times, "cameras have no times"),
    "one frame": (_one_time, "at least two different times"),
    "a time without object": (_unmasked_time, "masks are empty in all pictures of the time"),
    "static images alone": (lambda v: {"static_images": v.images[:6]}, "without static_cameras"),
    "static masks missing": (
        lambda v: {"static_images": v.images[:6], "static_cameras": v.cameras[:6]},
        "masks and static_masks belong together",
    ),
    "static images of a fit that goes on": (
        lambda v: {
            "static_images": v.images[:6],
            "static_cameras": v.cameras[:6],
            "resume": Gaussians4D(random_scene(5), HexPlaneField([0.0] * 3, [1.0] * 3)),
        },
        "static_images came with resume",
    ),
    "recipe": (lambda v: {"recipe": "quick"}, "recipe is 'quick'"),
    "count": (lambda v: {"images": v.images[:5]}, "5 pictures for 72 cameras"),
    "lpips": (lambda v: {"recipe": "object_4d"}, "perceptual is missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(views, name):
    change, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message):
        short(views, **change(views))


@pytest.mark.parametrize("time", [-0.1, 1.01, float("nan")])
def test_times_outside_are_refused(fitted, time):
    with pytest.raises(InvalidInputError, match="expected 0"):
        fitted.gaussians.at(time)


def test_moving_scenes_need_cameras_with_times(views, fitted):
    with pytest.raises(InvalidInputError, match="cameras have no times"):
        _drawn(fitted.gaussians, _without_times(views)["cameras"])


def test_files_of_other_kinds_are_refused(fitted, tmp_path):
    file = save_gaussians_4d(fitted.gaussians, tmp_path / "scene.safetensors")
    tensors = load_file(file)
    about = {"version": 2, "kind": "hexplane", "config": {}, "rotation": []}

    def written(metadata: dict[str, str], name: str = "other.safetensors") -> Any:
        save_file(tensors, tmp_path / name, metadata)
        return tmp_path / name

    cases = {
        "version 2": written({"genxd_splat4d": json.dumps(about)}, "version.safetensors"),
        "no moving Gaussians": written({}, "none.safetensors"),
        "motion of the kind 'swirl'": written(
            {"genxd_splat4d": json.dumps(about | {"version": 1, "kind": "swirl"})},
            "kind.safetensors",
        ),
        "is damaged": written(
            {"genxd_splat4d": json.dumps(about | {"version": 1})}, "config.safetensors"
        ),
        "do not belong together": written(
            {
                "genxd_splat4d": json.dumps(
                    about
                    | {
                        "version": 1,
                        "config": {"low": [0] * 3, "high": [1] * 3, "cells": [10**7]},
                        "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
                    }
                )
            },
            "huge.safetensors",
        ),
        "its rotation is none": written(
            {
                "genxd_splat4d": json.dumps(
                    about
                    | {
                        "version": 1,
                        "config": fitted.gaussians.motion.config(),
                        "rotation": [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
                    }
                )
            },
            "rotation.safetensors",
        ),
        "cannot be read": written({"genxd_splat4d": "{"}, "json.safetensors"),
        "does not exist": tmp_path / "missing.safetensors",
    }
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    cases["cut off"] = cut
    for message, path in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            load_gaussians_4d(path)
    with pytest.raises(InvalidInputError, match=r"ends in \.safetensors"):
        save_gaussians_4d(fitted.gaussians, tmp_path / "scene.pt")


def test_a_gaussians4d_says_what_it_is(fitted):
    assert isinstance(fitted.gaussians, Gaussians4D)
    assert "hexplane" in repr(fitted.gaussians)
    assert len(fitted.gaussians) == len(fitted.gaussians.at(0.2))

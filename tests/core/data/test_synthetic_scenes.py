"""Procedural scenes as a dataset: geometry, masks, depth and strength against the generator's."""

import numpy as np
import pytest
import torch

from genxd_core.data.datasets.synthetic import SyntheticScenes
from genxd_core.data.scene import SceneDataset
from genxd_core.errors import InvalidInputError
from genxd_core.synthetic import HELD_OUT, make_clips
from tests.core.data import known_points as known

SMALL = {"num_frames": 4, "size": 32, "supersample": 1}


def centre_pixels(sample, clip):
    """Pixels of the objects' centres by plain products (V, P, 2), and which are seen (V, P)."""
    side = sample.images.shape[-1]
    frames = list(sample.provenance.frames)
    centre = clip.object_center[0, frames].double().numpy()
    w2c = np.linalg.inv(sample.cameras.c2w.double().numpy())
    K = sample.cameras.Ks_norm.double().numpy()
    seen = np.einsum("vij,vpj->vpi", w2c[:, :3, :3], centre) + w2c[:, None, :3, 3]
    flat = np.einsum("vij,vpj->vpi", K, seen)
    pixels = flat[..., :2] / flat[..., 2:] * side
    inside = (pixels > 1).all(-1) & (pixels < side - 1).all(-1) & (seen[..., 2] > 0)
    return pixels, inside & (clip.scenes.present[0].numpy() > 0.5)


@pytest.mark.parametrize("family", ["nano_3d", "nano_4d"])
def test_every_object_covers_the_pixel_that_its_centre_projects_to(family):
    dataset = SyntheticScenes(family=family, scenes=12, num_frames=3, size=48)
    checked = 0
    for seed in range(12):
        sample = known.sample_of(dataset, f"{seed:08d}", seed=seed)
        clip = make_clips([seed], family, num_frames=3, size=48)
        pixels, seen = centre_pixels(sample, clip)
        assert sample.masks is not None
        for frame, slot in zip(*np.nonzero(seen), strict=True):
            x, y = pixels[frame, slot].astype(int)
            assert float(sample.masks[frame, 0, y, x]) > 0.5
            checked += 1
    assert checked > 40


def test_pictures_are_the_clips_of_the_seed():
    scene = SyntheticScenes(family="nano_3d", scenes=3, first_seed=7, **SMALL).scene("00000008")
    clip = make_clips([8], "nano_3d", num_frames=4, size=32, supersample=1)
    for frame, picture in enumerate(scene.pictures):
        levels = picture().image * 255
        assert float((levels - clip.images[0, frame] * 255).abs().max()) <= 0.5 + 1e-4
        assert float((levels - levels.round()).abs().max()) < 1e-4
        assert picture().alpha is None
    assert bool((scene.cameras.c2w == clip.c2w[0]).all())
    assert list(scene.names) == ["00000.png", "00001.png", "00002.png", "00003.png"]


def test_depth_of_a_view_is_the_median_of_all_but_the_sky():
    scene = SyntheticScenes(family="textured_3d", scenes=1, **SMALL).scene("0")
    clip = make_clips([0], "textured_3d", num_frames=4, size=32, supersample=1)
    for frame in range(4):
        depths = sorted(d for d in clip.depth[0, frame].flatten().tolist() if d > 0)
        assert scene.view_depths is not None
        assert float(scene.view_depths[frame]) == depths[(len(depths) - 1) // 2]


def test_kind_follows_the_family_and_time_passes_only_where_things_may_move():
    still, moving = (SyntheticScenes(family=f, scenes=1, **SMALL) for f in ("nano_3d", "nano_4d"))
    assert isinstance(still, SceneDataset)
    assert (still.kind, moving.kind) == ("3d", "4d")
    assert still.scene("0").cameras.times is None
    assert still.scene("0").motion is None
    times = moving.scene("0").cameras.times
    np.testing.assert_allclose(times, [0, 1 / 3, 2 / 3, 1], atol=1e-6)


@pytest.mark.parametrize("family", ["nano_video", "nano_4d", "sliding_4d", "spinning_4d"])
def test_strength_is_the_generators_and_zero_when_nothing_moves(family):
    dataset = SyntheticScenes(family=family, scenes=16, num_frames=4, size=32)
    gammas = []
    for scene_id in dataset.scene_ids:
        motion = dataset.scene(scene_id).motion
        clip = make_clips([int(scene_id)], family, num_frames=4, size=32)
        assert motion is not None
        assert motion.gamma == pytest.approx(float(clip.motion_strength), abs=1e-6)
        gammas.append(motion.gamma)
    assert 0.0 in gammas
    assert max(gammas) > 0.005


def test_strength_at_a_stride_is_that_of_the_clip_with_half_the_frames():
    # Of a camera that stands still, every second of 11 frames are the 6 of a shorter clip.
    dataset = SyntheticScenes(family="nano_video", scenes=8, num_frames=11, size=48)
    shorter = make_clips(range(8), "nano_video", num_frames=6, size=48)
    for seed, expected in enumerate(shorter.motion_strength.tolist()):
        motion = dataset.scene(str(seed)).motion
        assert motion is not None
        assert motion.gamma_at(2) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_single_frame_has_no_motion():
    dataset = SyntheticScenes(family="nano_4d", scenes=1, num_frames=1, size=32)
    motion = dataset.scene("0").motion
    assert motion is not None
    assert motion.gamma == 0.0


def test_scale_by_depth_brings_the_first_frame_to_two():
    dataset = SyntheticScenes(family="nano_3d", scenes=1, **SMALL)
    plain, scaled = (known.sample_of(dataset, "0", scale=scale) for scale in ("none", "depth"))
    depths = dataset.scene("0").view_depths
    assert depths is not None
    factor = 2 / float(depths[plain.provenance.frames[0]])
    torch.testing.assert_close(scaled.cameras.centres, plain.cameras.centres * factor)


def test_same_seed_gives_the_same_sample():
    samples = [
        known.sample_of(SyntheticScenes(family="nano_4d", scenes=2, **SMALL), "1", seed=3)
        for _ in range(2)
    ]
    known.assert_same_sample(*samples)


def test_scene_ids_are_the_seeds_sorted():
    dataset = SyntheticScenes(family="nano_3d", scenes=3, first_seed=9, **SMALL)
    assert dataset.scene_ids == ("00000009", "00000010", "00000011")
    assert dataset.scene("10").scene_id == "00000010"


@pytest.mark.parametrize("scene_id", ["8", "12", "-9", "ten", "", "9.0"])
def test_seed_of_no_scene_is_refused(scene_id):
    dataset = SyntheticScenes(family="nano_3d", scenes=3, first_seed=9, **SMALL)
    with pytest.raises(InvalidInputError, match=r"does not have; scenes are the seeds 00000009 to"):
        dataset.scene(scene_id)


def test_held_out_seeds_need_to_be_asked_for():
    with pytest.raises(InvalidInputError, match=rf"seeds from {HELD_OUT} on are for evaluation"):
        SyntheticScenes(family="nano_3d", scenes=2, first_seed=HELD_OUT - 1, **SMALL)
    kept = SyntheticScenes(family="nano_3d", scenes=1, first_seed=HELD_OUT, held_out=True, **SMALL)
    assert len(kept.scene(str(HELD_OUT)).pictures) == 4


@pytest.mark.parametrize(
    ("option", "value"),
    [("scenes", 0), ("num_frames", 0), ("size", 0), ("supersample", 0), ("first_seed", -1)],
)
def test_impossible_numbers_are_refused(option, value):
    options = {"family": "nano_3d", "scenes": 1, **SMALL, option: value}
    with pytest.raises(InvalidInputError, match=rf"{option} \({value}\)"):
        SyntheticScenes(**options)


def test_unknown_family_is_refused():
    with pytest.raises(InvalidInputError, match=r"family is 'nano', expected one of \['nano_3d'"):
        SyntheticScenes(family="nano", scenes=1)

import json

import pytest
import torch

from genxd_core.assets import PERSON_SEGMENTER
from genxd_core.capture_masks import load_capture_masks
from genxd_core.curation.motion_masks import MotionSegmenter
from genxd_core.curation.movable_masks import MovableSegmenter, Union
from genxd_core.curation.segmenters import (
    CARRIED_CLASSES,
    MOVABLE_CLASSES,
    MOVING_STUFF,
    Mask2FormerSegmenter,
    PersonSegmenter,
    chosen,
    default_segmenters,
)
from genxd_core.curation.tflite_network import TfliteNetwork
from genxd_core.errors import InvalidInputError, MissingDependencyError, WeightsError
from genxd_core.media import load_image
from tests.support import ROOT, seeded

DOG = ROOT / "workflows" / "inputs" / "genxd_dog"


# ---- the person segmenter -----------------------------------------------------------------------


def test_segmenter_that_comes_along_is_small_and_says_whose_it_is():
    assert PERSON_SEGMENTER.stat().st_size <= 300_000
    text = PERSON_SEGMENTER.with_name("selfie-segmentation.LICENSE.txt").read_text("utf-8")
    for words in ("MediaPipe Authors", "Apache License, Version 2.0", "unchanged", "AS IS"):
        assert words in text, words


def test_person_segmenter_finds_the_dog_as_another_runtime_of_the_network_does():
    """The masks beside the frames were made with OpenCV, of larger pictures."""
    files = sorted((DOG / "images").glob("*.jpg"))[::8]
    images = torch.stack([load_image(file).image for file in files])
    provider = PersonSegmenter()
    assert isinstance(provider, MovableSegmenter)
    found = provider.segment(images)
    height, width = images.shape[2:]
    names = [file.name for file in files]
    truth = load_capture_masks(
        DOG / "masks", DOG / "sparse" / "0", names, width=width, height=height
    )
    for mine, theirs in zip(found.masks > 0.5, truth > 0.5, strict=True):
        assert float((mine & theirs).sum() / (mine | theirs).sum()) > 0.9
    assert found.low_confidence
    assert torch.equal(found.labels, found.masks[:, 0].long())
    assert found.classes == ({1: "person"},) * len(files)


def test_person_segmenter_sees_nobody_in_an_empty_picture():
    found = PersonSegmenter().segment(torch.full((1, 3, 64, 96), 0.5))
    assert float(found.shares[0]) == 0.0
    assert found.classes == ({},)


def test_tiles_find_small_persons_at_the_side():
    file = sorted((DOG / "images").glob("*.jpg"))[0]
    dog = load_image(file).image[:, :, 120:210]
    wide = torch.nn.functional.pad(dog, (0, 700, 0, 0), value=0.5)[None]
    with_tiles = PersonSegmenter(tiles=7).segment(wide)
    without = PersonSegmenter(tiles=0).segment(wide)
    assert float(with_tiles.shares[0]) > float(without.shares[0])


@pytest.mark.parametrize(
    ("options", "told"), [({"threshold": 1.0}, "threshold is 1.0"), ({"tiles": -1}, "tiles is -1")]
)
def test_options_that_cannot_be_are_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        PersonSegmenter(**options)


def test_missing_and_damaged_network_are_told(tmp_path):
    missing = PersonSegmenter(network=tmp_path / "none.tflite")
    assert "is missing" in missing.available()
    with pytest.raises(MissingDependencyError, match="person-segmenter cannot be used"):
        missing.segment(torch.zeros(1, 3, 8, 8))
    for content in (b"", b"no network at all", PERSON_SEGMENTER.read_bytes()[:5000]):
        file = tmp_path / "cut.tflite"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="missing, damaged, or of a kind"):
            TfliteNetwork(file)


# ---- motion -------------------------------------------------------------------------------------


def sliding(frames, *, camera=2.0, thing=0.0):
    """A noise picture slides to the left by ``camera`` px a frame, a square down by ``thing``."""
    noise = torch.rand(1, 3, 40, 80, generator=seeded(1))
    wall = torch.nn.functional.interpolate(noise, (160, 320), mode="bicubic").clamp(0, 1)[0]
    noise = torch.rand(1, 3, 12, 12, generator=seeded(2))
    square = torch.nn.functional.interpolate(noise, (36, 36), mode="bicubic").clamp(0, 1)[0]
    images, masks = [], torch.zeros(frames, 1, 96, 160)
    for t in range(frames):
        left, top = round(20 + camera * t), round(20 + thing * t)
        at = round(100 - camera * t)
        image = wall[:, 30:126, left : left + 160].clone()
        image[:, top : top + 36, at : at + 36] = square
        masks[t, 0, top : top + 36, at : at + 36] = 1
        images.append(image)
    return torch.stack(images), masks


def test_what_moves_otherwise_than_the_camera_is_found():
    images, masks = sliding(4, camera=2.0, thing=2.0)
    found = MotionSegmenter().segment(images)
    inner = -torch.nn.functional.max_pool2d(-masks, 9, 1, 4)
    around = torch.nn.functional.max_pool2d(masks, 17, 1, 8)
    assert float((found.masks * inner).sum() / inner.sum()) > 0.8
    assert float((found.masks * (1 - around)).sum() / (1 - around).sum()) < 0.02
    assert found.low_confidence


def test_nothing_is_found_where_all_moves_with_the_camera():
    images, _ = sliding(3, camera=2.0, thing=0.0)
    assert float(MotionSegmenter().segment(images).shares.max()) < 0.02


def test_one_frame_has_nothing_that_moves():
    images, _ = sliding(1)
    assert MotionSegmenter().segment(images).shares.tolist() == [0.0]


def test_motion_is_the_same_in_every_run():
    images, _ = sliding(3, thing=3.0)
    assert torch.equal(
        MotionSegmenter().segment(images).masks, MotionSegmenter().segment(images).masks
    )


@pytest.mark.parametrize(
    ("options", "told"), [({"gap": 0}, "gap is 0"), ({"threshold_at_400": 0}, "threshold_at_400")]
)
def test_settings_of_motion_that_cannot_be_are_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        MotionSegmenter(**options)


# ---- Mask2Former --------------------------------------------------------------------------------


def place(*columns):
    mask = torch.zeros(4, 40, dtype=torch.bool)
    mask[:, slice(*columns)] = True
    return mask


def chosen_of(*segments):
    return chosen(segments, (4, 40), MOVABLE_CLASSES, CARRIED_CLASSES, MOVING_STUFF)


def test_classes_that_move_are_labelled_and_others_are_not():
    mask, labels, classes = chosen_of(
        ("dog", place(0, 5)), ("tree-merged", place(5, 10)), ("car", place(10, 20))
    )
    assert torch.equal(mask, place(0, 5) | place(10, 20))
    assert torch.equal(labels, place(0, 5).long() + 2 * place(10, 20))
    assert classes == {1: "dog", 2: "car"}


def test_sky_and_water_are_masked_without_being_objects():
    mask, labels, classes = chosen_of(("sky-other-merged", place(0, 5)), ("sea", place(5, 9)))
    assert torch.equal(mask, place(0, 9))
    assert int(labels.sum()) == 0
    assert classes == {}


def test_things_are_carried_only_where_they_touch_a_person():
    far, near = ("cup", place(30, 34)), ("cup", place(9, 12))
    mask, _, classes = chosen_of(far, near, ("person", place(2, 6)))
    assert torch.equal(mask, place(2, 6) | place(9, 12))
    assert sorted(classes.values()) == ["cup", "person"]


def test_mask2former_is_never_downloaded(tmp_path):
    provider = Mask2FormerSegmenter(tmp_path)
    assert isinstance(provider, MovableSegmenter)
    assert "There is no config.json" in provider.available()
    with pytest.raises(MissingDependencyError, match="put the files of a model"):
        provider.segment(torch.zeros(1, 3, 8, 8))


@pytest.mark.slow
def test_folder_with_another_model_is_refused(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mask2former"}), "utf-8")
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        Mask2FormerSegmenter(tmp_path).segment(torch.zeros(1, 3, 8, 8))


def test_preference_is_mask2former_and_then_what_is_here(tmp_path):
    (only,) = default_segmenters()
    assert isinstance(only, Union)
    assert only.name == "person-segmenter+motion"
    assert only.available() is None
    first, second = default_segmenters(tmp_path)
    assert (first.name, second.name) == ("mask2former", "person-segmenter+motion")


@pytest.mark.slow
def test_mask2former_of_random_weights_gives_masks_of_the_pictures_size(tmp_path):
    transformers = pytest.importorskip("transformers")
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, num_queries=10, id2label={0: "person", 1: "wall"},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(
        tmp_path
    )
    images = torch.rand(2, 3, 48, 80, generator=seeded())
    found = Mask2FormerSegmenter(tmp_path, threshold=0.05).segment(images)
    assert found.masks.shape == (2, 1, 48, 80)
    assert torch.equal(found.masks[:, 0] > 0, found.labels > 0)
    assert set().union(*(named.values() for named in found.classes)) <= {"person"}
    assert not found.low_confidence

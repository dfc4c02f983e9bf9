"""Depth maps of captures: found by name, kept as they are, brought to the pictures' size."""

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from tests.support import DATA, seeded

NAMES = ("sub/a.jpg", "b.png")


@pytest.fixture
def depth():
    return torch.rand(16, 24, generator=seeded()) + 1


@pytest.fixture
def place(tmp_path, depth):
    gx.save_cameras(gx.orbit(2, aspect=1.5), tmp_path / "cameras.json")
    (tmp_path / "depths").mkdir()
    np.save(tmp_path / "depths" / "a.jpg.npy", depth.numpy())
    np.save(tmp_path / "depths" / "b.npy", (1000 * depth).numpy().astype(np.uint16))
    return tmp_path


def load(place, *, cameras="cameras.json", names=NAMES, width=24, height=16):
    return gx.load_capture_depths(
        place / "depths", place / cameras, names, width=width, height=height
    )


def test_depths_are_found_by_the_names_of_the_pictures_and_stay_as_they_are(place, depth):
    depths = load(place)
    assert torch.equal(depths[0, 0], depth)
    assert torch.equal(depths[1, 0], (1000 * depth).floor())


def test_no_depth_is_made_up_at_an_edge(place):
    step = np.zeros((32, 48), dtype=np.float64)
    step[:, 25:] = 5
    np.save(place / "depths" / "b.npy", step)
    depths = load(place)
    assert set(depths[1].unique().tolist()) == {0.0, 5.0}
    assert depths.shape == (2, 1, 16, 24)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones((16, 25), dtype=np.float32), "has 25 x 16 pixels, another shape than its picture"),
        (np.ones((16, 24, 1), dtype=np.float32), r"of shape \(16, 24, 1\); expected numbers"),
        (np.ones((0, 24), dtype=np.float32), r"of shape \(0, 24\)"),
        (np.full((16, 24), "far"), "expected numbers of shape"),
        (np.full((16, 24), -1.0), "holds negative, infinite or NaN"),
        (np.full((16, 24), np.nan), "holds negative, infinite or NaN"),
        (np.array([None]), "cannot be read as .npy"),
    ],
)
def test_what_is_no_depth_is_refused(place, wrong, message):
    np.save(place / "depths" / "b.npy", wrong)
    with pytest.raises(InvalidInputError, match=message):
        load(place)


@pytest.mark.parametrize("length", [0, 40, 200])
def test_files_that_are_cut_off_are_refused(place, length):
    file = place / "depths" / "b.npy"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InvalidInputError, match=r"depth map .*b\.npy cannot be read as \.npy"):
        load(place)


def test_a_missing_map_or_folder_is_told(place):
    with pytest.raises(InvalidInputError, match=r"c\.png of 1 pictures have no depth map of the"):
        load(place, names=("c.png",))
    with pytest.raises(InvalidInputError, match=r"depths .* is no folder"):
        gx.load_capture_depths(place / "none", place / "cameras.json", NAMES, width=24, height=16)


def test_lens_distortion_is_refused(place):
    lens = gx.load_capture(DATA / "lund")
    with pytest.raises(InvalidInputError, match="has lens distortion, which is undone in the"):
        load(place, cameras=DATA / "lund", names=lens.names[:0])

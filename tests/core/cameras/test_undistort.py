import pytest
import torch

from genxd_core.cameras.undistort import (
    Undistorter,
    distort,
    pinhole_of_lens,
    undistort_images,
)
from genxd_core.errors import InvalidInputError
from tests.support import assert_same_up_to, seeded

LENSES = {
    "barrel": {"k1": -0.2},
    "cushion": {"k1": 0.15},
    "RADIAL": {"k1": -0.2, "k2": 0.06},
    "OPENCV": {"k1": -0.12, "k2": 0.03, "p1": 0.004, "p2": -0.006},
    "FULL_OPENCV": {
        **{"k1": -0.1, "k2": 0.03, "p1": 0.004, "p2": -0.006},
        **{"k3": 0.01, "k4": 0.05, "k5": -0.02, "k6": 0.008},
    },
}
WIDTH, HEIGHT = 200, 140
K_NORM = torch.tensor([[0.8, 0.0, 0.52], [0.0, 0.8 * WIDTH / HEIGHT, 0.47], [0.0, 0.0, 1.0]])


def to_pixels(points, K_norm):
    K = K_norm.double() * torch.tensor([WIDTH, HEIGHT, 1.0])[:, None]
    return points @ K[:2, :2].T + K[:2, 2]


def pixel_centres():
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).double()


def rays_of_pixels(K_norm):
    K = K_norm.double() * torch.tensor([WIDTH, HEIGHT, 1.0])[:, None]
    return (pixel_centres() - K[:2, 2]) / K[[0, 1], [0, 1]]


def undistorted(shown, lens):
    """The points that a lens shows there, by iteration."""
    points = shown.clone()
    for _ in range(200):
        points = points - (distort(points, lens) - shown)
    assert_same_up_to(distort(points, lens), shown, 1e-9)
    return points


def spots(rays, places):
    """A scene of soft spots, seen along rays: a picture (1, 3, h, w)."""
    away = (rays[None] - places[:, None, None]).square().sum(-1)
    return (-away / (2 * 0.015**2)).exp().sum(0).float().expand(1, 3, -1, -1)


def centre_of_spot(picture, near, reach=9):
    """Of the brightness around a place, to a fraction of a pixel."""
    weights = picture[0, 0].double() * ((pixel_centres() - near).abs().amax(-1) < reach)
    return (weights[..., None] * pixel_centres()).sum((0, 1)) / weights.sum()


@pytest.mark.parametrize(
    ("lens", "first", "second"),
    [
        ({"k1": -0.1}, (468.05, 141.3), (57.71875, 430.75)),
        ({"k1": -0.1, "k2": 0.03}, (468.12605, 141.2493), (55.9540234, 432.0334375)),
    ],
)
def test_a_radial_lens_shows_points_where_pycolmap_says(lens, first, second):
    shown = distort(torch.tensor([[0.3, -0.2], [-0.55, 0.4]]).double(), lens)
    expected = torch.tensor([first, second]).double()
    assert_same_up_to(shown * 500 + torch.tensor([320.0, 240.0]), expected, 1e-4)


def test_the_full_lens_shows_points_where_pycolmap_says():
    points = torch.tensor([[0.3, -0.2], [-0.55, 0.4]]).double()
    shown = distort(points, LENSES["FULL_OPENCV"]) * torch.tensor([500.0, 480.0])
    expected = torch.tensor([[466.04959085, 146.528261856], [56.690251197, 423.757351892]])
    assert_same_up_to(shown + torch.tensor([320.0, 240.0]), expected.double(), 1e-4)


@pytest.mark.parametrize("name", LENSES)
def test_spots_come_to_where_a_pinhole_camera_sees_them(name):
    y, x = torch.meshgrid(torch.linspace(-0.3, 0.3, 3), torch.linspace(-0.4, 0.4, 4), indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2).double()
    lens = LENSES[name]
    seen = spots(undistorted(rays_of_pixels(K_NORM), lens), points)
    pictures, Ks_norm = undistort_images(seen, K_NORM[None], [lens])
    expected = spots(rays_of_pixels(Ks_norm[0]), points)
    for place in to_pixels(points, Ks_norm[0]):
        off = centre_of_spot(pictures, place) - centre_of_spot(expected, place)
        assert float(off.norm()) < 0.03
    assert_same_up_to(pictures, expected, 0.05)
    # What is not undone would be far off.
    raw = [float((centre_of_spot(seen, p) - p).norm()) for p in to_pixels(points, K_NORM)]
    assert max(raw) > 0.5


@pytest.mark.parametrize("name", LENSES)
def test_every_pixel_has_a_source_and_no_more_is_cut_off_than_needed(name):
    _, Ks_norm = undistort_images(torch.rand(1, 3, HEIGHT, WIDTH), K_NORM[None], [LENSES[name]])

    def outermost(K_norm):
        """How far inside of the outermost pixels' centres the sources stay, at least."""
        at = to_pixels(distort(rays_of_pixels(K_norm), LENSES[name]), K_NORM).reshape(-1, 2)
        limit = torch.tensor([WIDTH - 0.5, HEIGHT - 0.5])
        return float(torch.minimum(at - 0.5, limit - at).min())

    assert outermost(Ks_norm[0]) > -1e-3
    wider = Ks_norm[0].clone()
    wider[:2, :2] *= 0.99
    assert outermost(wider) < -0.1
    assert torch.equal(Ks_norm[0, :2, 2], K_NORM[:2, 2])


@pytest.mark.parametrize("zoom", [0.9, 1.0, 1.3])
def test_spots_come_to_where_the_pinhole_camera_that_is_wanted_sees_them(zoom):
    points = torch.tensor([[0.2, -0.1], [-0.25, 0.15]]).double()
    lens = LENSES["OPENCV"]
    seen = spots(undistorted(rays_of_pixels(K_NORM), lens), points)[0]
    wanted = K_NORM.clone()
    wanted[:2, :2] *= zoom
    picture, used = Undistorter()(seen, K_NORM, lens, "view", pinhole=wanted)
    assert_same_up_to(used, wanted, 1e-6)
    expected = spots(rays_of_pixels(wanted), points)
    for place in to_pixels(points, wanted):
        off = centre_of_spot(picture[None], place) - centre_of_spot(expected, place)
        assert float(off.norm()) < 0.03


def test_pinhole_of_a_lens_is_the_one_that_pictures_are_turned_into():
    images = torch.rand(1, 3, HEIGHT, WIDTH, generator=seeded())
    for lens in (*LENSES.values(), {}):
        _, Ks_norm = undistort_images(images, K_NORM[None], [lens])
        pinhole = pinhole_of_lens(K_NORM, lens, width=WIDTH, height=HEIGHT, where="view")
        assert torch.equal(pinhole, Ks_norm[0])
    with pytest.raises(InvalidInputError, match="distortion of view names 'k9'"):
        pinhole_of_lens(K_NORM, {"k9": 0.1}, width=WIDTH, height=HEIGHT, where="view")


def test_views_without_distortion_are_unchanged():
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=seeded())
    pictures, Ks_norm = undistort_images(images, K_NORM.expand(2, 3, 3), [{}, {"k1": 0.0}])
    assert torch.equal(pictures, images)
    assert torch.equal(Ks_norm, K_NORM.expand(2, 3, 3))


def test_every_view_has_its_own_lens():
    images = torch.rand(3, 3, HEIGHT, WIDTH, generator=seeded())
    lenses = [{"k1": -0.2}, {}, {"k1": 0.1}]
    together, Ks_norm = undistort_images(images, K_NORM.expand(3, 3, 3), lenses)
    for view, lens in enumerate(lenses):
        alone, K = undistort_images(images[view : view + 1], K_NORM[None], [lens])
        assert torch.equal(together[view], alone[0])
        assert torch.equal(Ks_norm[view], K[0])


def test_a_lens_that_folds_the_picture_is_zoomed_into_until_it_does_not():
    """Beyond r = 1 / sqrt(3 |k1|) a barrel shows nearer things again."""
    strong = {"k1": -1.2}
    _, Ks_norm = undistort_images(torch.rand(1, 3, HEIGHT, WIDTH), K_NORM[None], [strong])
    corner = (torch.tensor([WIDTH, HEIGHT]) - to_pixels(torch.zeros(2).double(), Ks_norm[0])).max()
    reach = float(corner) / float(Ks_norm[0, 0, 0] * WIDTH)
    assert reach < (3 * 1.2) ** -0.5


@pytest.mark.parametrize(
    ("lens", "told"),
    [
        ({"k1": float("nan")}, "k1 = nan; expected a finite number"),
        ({"k7": 0.1}, "names 'k7'; expected some of k1, k2"),
        ({"k1": -1e4}, "cannot be undone"),
    ],
)
def test_impossible_lenses_are_refused(lens, told):
    with pytest.raises(InvalidInputError, match=told):
        undistort_images(torch.rand(1, 3, HEIGHT, WIDTH), K_NORM[None], [lens])


def test_counts_must_agree():
    with pytest.raises(InvalidInputError, match="1 pictures for 1 Ks_norm and 2 entries"):
        undistort_images(torch.rand(1, 3, HEIGHT, WIDTH), K_NORM[None], [{}, {}])

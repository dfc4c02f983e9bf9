"""Own captures: COLMAP models and transforms.json with pictures, read as scenes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core.data.datasets.captures import Captures
from genxd_core.data.sample import SamplePolicy, draw_sample
from genxd_core.data.sampling import FrameSampling
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.comparison import held_out_views
from tests.core.data.known_scene import (
    POINTS,
    colmap_cameras,
    colmap_points,
    paint,
    pixels_of,
    projected,
    seen_spots,
    views_around,
)
from tests.core.data.layouts_colmap import (
    FOCAL_PX,
    HEIGHT,
    PRINCIPAL_PX,
    WIDTH,
    write_capture,
)
from tests.support import DATA, assert_same_up_to, seeded

LUND = DATA / "lund"
IN_ORDER = FrameSampling(reverse=0.0, start="first")


def write_transforms(folder, **changes):
    """The known scene as nerfstudio has it: poses with the axes right, up, backward."""
    (folder / "pictures").mkdir(parents=True)
    frames = []
    for number, view in enumerate(views_around(6)):
        paint(pixels_of(view, FOCAL_PX, PRINCIPAL_PX), WIDTH, HEIGHT).save(
            folder / "pictures" / f"{number}.png"
        )
        c2w = np.eye(4)
        c2w[:3] = np.stack([view.right, -view.down, -view.forward, view.centre], 1)
        frames.append({"file_path": f"pictures/{number}.png", "transform_matrix": c2w.tolist()})
    content = {"fl_x": FOCAL_PX, "fl_y": FOCAL_PX, "cx": PRINCIPAL_PX[0], "cy": PRINCIPAL_PX[1]}
    content |= {"w": WIDTH, "h": HEIGHT, "frames": frames, **changes}
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf-8")


# ---- geometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [".", "sparse", "sparse/0", "0"])
def test_colmap_cameras_show_the_points_where_the_pictures_do(tmp_path, model):
    views = write_capture(tmp_path / "one", model)
    scene = Captures(tmp_path / "one").scene("one")
    expected = np.stack([pixels_of(view, FOCAL_PX, PRINCIPAL_PX) for view in views])
    assert_same_up_to(projected(scene.cameras, WIDTH, HEIGHT), torch.from_numpy(expected), 1e-6)
    for place, picture in zip(expected, scene.pictures, strict=True):
        assert_same_up_to(seen_spots(picture().image), torch.from_numpy(place), 0.05)


def test_transforms_cameras_show_the_points_where_the_pictures_do(tmp_path):
    write_transforms(tmp_path / "one")
    scene = Captures(tmp_path / "one").scene("one")
    expected = np.stack([pixels_of(v, FOCAL_PX, PRINCIPAL_PX) for v in views_around(6)])
    assert_same_up_to(projected(scene.cameras, WIDTH, HEIGHT), torch.from_numpy(expected), 1e-6)
    assert_same_up_to(seen_spots(scene.pictures[4]().image), torch.from_numpy(expected[4]), 0.05)
    assert scene.names[4] == "pictures/4.png"
    assert scene.view_depths is None


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("k1", [0.0, -0.3])
def test_spots_of_a_drawn_sample_lie_where_its_cameras_see_the_points(tmp_path, fit, k1):
    write_capture(tmp_path / "one", k1=k1)
    scene = Captures(tmp_path / "one").scene("one")
    sample = draw_sample(scene, "captures", 6, SamplePolicy(size=48, fit=fit), seeded())
    expected = projected(sample.cameras, 48, 48)
    for image, places in zip(sample.images, expected, strict=True):
        assert_same_up_to(seen_spots(image), places, 0.15)


def test_smaller_pictures_than_the_model_was_made_of_have_the_same_cameras(tmp_path):
    write_capture(tmp_path / "one", k1=-0.3)
    full = Captures(tmp_path / "one").scene("one")
    for file in (tmp_path / "one" / "images").iterdir():
        with Image.open(file) as picture:
            small = picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
        small.save(file)
    scene = Captures(tmp_path / "one").scene("one")
    assert torch.equal(scene.cameras.Ks_norm, full.cameras.Ks_norm)
    places = projected(scene.cameras, WIDTH // 2, HEIGHT // 2)
    assert_same_up_to(seen_spots(scene.pictures[1]().image), places[1], 0.1)


def test_larger_pictures_than_the_model_was_made_of_become_those_of_its_pinhole_camera(tmp_path):
    write_capture(tmp_path / "one", k1=-0.3)
    params = [FOCAL_PX / 8, PRINCIPAL_PX[0] / 8, PRINCIPAL_PX[1] / 8, -0.3]
    model = colmap_cameras(2, WIDTH // 8, HEIGHT // 8, params)
    (tmp_path / "one" / "sparse" / "0" / "cameras.bin").write_bytes(model)
    scene = Captures(tmp_path / "one").scene("one")
    places = projected(scene.cameras, WIDTH, HEIGHT)
    assert_same_up_to(seen_spots(scene.pictures[1]().image), places[1], 0.1)


@pytest.mark.parametrize("k1", [0.0, -0.3])
def test_pictures_that_are_decoded_smaller_show_the_points_in_the_same_places(tmp_path, k1):
    write_capture(tmp_path / "one", names=[f"{n}.jpg" for n in range(6)], k1=k1)
    scene = Captures(tmp_path / "one", decode_side=36).scene("one")
    places = projected(scene.cameras, WIDTH // 2, HEIGHT // 2)
    for picture, expected in zip(scene.pictures, places, strict=True):
        image = picture().image
        assert image.shape == (3, HEIGHT // 2, WIDTH // 2)
        assert_same_up_to(seen_spots(image), expected, 0.1)
    with pytest.raises(InvalidInputError, match="decode_side is 0, expected at least 1"):
        Captures(tmp_path / "one", decode_side=0)


def test_masks_fit_pictures_that_are_decoded_smaller(tmp_path):
    write_capture(tmp_path / "one", names=[f"{n}.jpg" for n in range(6)])
    (tmp_path / "one" / "masks").mkdir()
    for number in range(6):
        Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "one" / "masks" / f"{number}.png")
    scene = Captures(tmp_path / "one", decode_side=36).scene("one")
    sample = draw_sample(scene, "captures", 6, SamplePolicy(size=32, fit="pad"), seeded())
    # The whole picture is object, the bars above and below it are not; the edge between is soft.
    assert float(sample.masks[:, :, 8:-8].min()) == 1.0
    assert float(sample.masks[:, :, [0, -1]].max()) == 0.0


def test_transparent_pictures_of_a_lens_are_put_on_white(tmp_path):
    views = write_capture(tmp_path / "one", k1=-0.3)
    for number, view in enumerate(views):
        spots = pixels_of(view, FOCAL_PX, PRINCIPAL_PX, -0.3)
        picture = paint(spots, WIDTH, HEIGHT, transparent=True)
        picture.save(tmp_path / "one" / "images" / f"{number:03d}.png")
    scene = Captures(tmp_path / "one").scene("one")
    read = scene.pictures[2]()
    assert read.alpha is None
    places = projected(scene.cameras, WIDTH, HEIGHT)[2]
    assert_same_up_to(seen_spots(read.image, on_white=True), places, 0.1)


# ---- Lund ---------------------------------------------------------------------------------------


def test_lund_is_one_scene_as_load_capture_reads_it():
    dataset = Captures(LUND)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("lund",)
    scene = dataset.scene("lund")
    whole = gx.load_capture(LUND)
    assert tuple(scene.names) == whole.names
    assert_same_up_to(scene.cameras.c2w.float(), whole.cameras.c2w, 1e-6)
    # Its model is of larger pictures: half a pixel of theirs less is cut off at the border.
    assert_same_up_to(scene.cameras.Ks_norm.float(), whole.cameras.Ks_norm, 2e-3)
    difference = (scene.pictures[3]().image - whole.images[3]).abs()
    assert float(difference.mean()) < 0.01


def test_lund_is_drawn_from_as_a_sample():
    scene = Captures(LUND).scene("lund")
    policy = SamplePolicy(size=(48, 64), scale="depth", frames=IN_ORDER)
    sample = draw_sample(scene, "captures", 12, policy, seeded())
    assert sample.images.shape == (12, 3, 48, 64)
    assert sample.provenance.names == tuple(f"{number:02d}.jpg" for number in range(1, 13))
    again = draw_sample(Captures(LUND).scene("lund"), "captures", 12, policy, seeded())
    assert torch.equal(sample.images, again.images)
    assert torch.equal(sample.cameras.c2w, again.cameras.c2w)


# ---- depths, masks ------------------------------------------------------------------------------


def test_view_depths_are_of_the_points_that_each_picture_shows(tmp_path):
    views = write_capture(tmp_path / "one")
    scene = Captures(tmp_path / "one").scene("one")
    # The third point has no track; of two, the median is the nearer one.
    nearer = [view.seen(POINTS[:2])[:, 2].min() for view in views]
    assert_same_up_to(scene.view_depths, torch.tensor(nearer), 1e-5)
    assert Captures(tmp_path / "one", depths=False).scene("one").view_depths is None
    assert not Captures(tmp_path / "one", depths=False).has_depth


def test_view_depths_without_tracks_are_of_all_points(tmp_path):
    views = write_capture(tmp_path / "one", points=False)
    place = tmp_path / "one" / "sparse" / "0" / "points3D.bin"
    place.write_bytes(colmap_points(POINTS, [(), (), ()]))
    middle = [np.median(view.seen()[:, 2]) for view in views]
    scene = Captures(tmp_path / "one").scene("one")
    assert_same_up_to(scene.view_depths, torch.tensor(middle).float(), 1e-5)


def test_masks_follow_their_pictures(tmp_path):
    views = write_capture(tmp_path / "one", k1=-0.3)
    (tmp_path / "one" / "masks").mkdir()
    for number, view in enumerate(views):
        spots = pixels_of(view, FOCAL_PX, PRINCIPAL_PX, -0.3)
        # White where the red spot is; at half the picture's size.
        red = paint(spots, WIDTH, HEIGHT).getchannel(0).resize((WIDTH // 2, HEIGHT // 2))
        red.save(tmp_path / "one" / "masks" / f"{number:03d}.png.png")
    scene = Captures(tmp_path / "one").scene("one")
    sample = draw_sample(scene, "captures", 6, SamplePolicy(size=48), seeded())
    expected = projected(sample.cameras, 48, 48)[:, :1]
    for mask, place in zip(sample.masks, expected, strict=True):
        spot = seen_spots(mask.expand(3, -1, -1))[:1]
        assert_same_up_to(spot, place, 0.2)
    assert Captures(tmp_path / "one", masks=False).scene("one").masks is None


def test_pictures_held_out_are_those_that_lift_holds_out():
    whole = Captures(LUND).scene("lund")
    kept = Captures(LUND, hold_out_every=4).scene("lund")
    assert set(whole.names) - set(kept.names) == {"03.jpg", "07.jpg", "11.jpg", "15.jpg"}
    assert held_out_views(15, 4) == [2, 6, 10, 14]
    views = [view for view in range(15) if view not in (2, 6, 10, 14)]
    assert torch.equal(kept.cameras.c2w, whole.cameras.c2w[views])
    assert torch.equal(kept.view_depths, whole.view_depths[views])
    assert torch.equal(kept.pictures[2]().image, whole.pictures[3]().image)


@pytest.mark.parametrize("every", [-1, 1])
def test_share_held_out_that_cannot_be_is_refused(every):
    with pytest.raises(InvalidInputError, match=f"hold_out_every is {every}, expected 0 for none"):
        Captures(LUND, hold_out_every=every)


def test_missing_mask_breaks_the_scene(tmp_path):
    write_capture(tmp_path / "one")
    (tmp_path / "one" / "masks").mkdir()
    with pytest.raises(BrokenSceneError, match=r"scene one: masks: 000\.png, .* have no mask"):
        Captures(tmp_path / "one").scene("one")


# ---- roots --------------------------------------------------------------------------------------


def test_folder_of_captures_has_a_scene_for_each(tmp_path):
    write_capture(tmp_path / "street", "0")
    write_transforms(tmp_path / "room")
    (tmp_path / "notes").mkdir()
    dataset = Captures(tmp_path)
    assert dataset.scene_ids == ("room", "street")
    assert len(dataset.scene("street").cameras) == 6
    with pytest.raises(InvalidInputError, match="scene_id is 'notes'; expected one of the 2 scene"):
        dataset.scene("notes")


def test_roots_of_another_layout_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="which does not exist; expected a capture or"):
        Captures(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="which is empty"):
        Captures(tmp_path)
    for name in "abcdef":
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidInputError, match=r"holds a, b, c, d, \.\.\.; expected a capture"):
        Captures(tmp_path)


# ---- broken scenes ------------------------------------------------------------------------------


@pytest.fixture
def lund(tmp_path):
    return shutil.copytree(LUND, tmp_path / "lund")


def test_missing_picture_breaks_the_scene(lund):
    (lund / "images" / "07.jpg").unlink()
    with pytest.raises(BrokenSceneError, match=r"scene lund: .*07\.jpg of 15 pictures are not in"):
        Captures(lund).scene("lund")


def test_truncated_picture_breaks_the_sample(lund):
    picture = lund / "images" / "07.jpg"
    picture.write_bytes(picture.read_bytes()[:500])
    scene = Captures(lund).scene("lund")
    with pytest.raises(BrokenSceneError, match=r"scene lund: image .*07\.jpg is damaged"):
        draw_sample(scene, "captures", 12, SamplePolicy(size=32, frames=IN_ORDER), seeded())


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_damaged_binary_breaks_the_scene(lund, name):
    file = lund / "sparse" / "0" / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(BrokenSceneError, match=r"scene lund: path .* damaged or cut off"):
        Captures(lund).scene("lund")


def test_pose_that_is_no_rotation_breaks_the_scene(tmp_path):
    write_transforms(tmp_path / "one")
    file = tmp_path / "one" / "transforms.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["frames"][2]["transform_matrix"][0][0] = 3.0
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BrokenSceneError, match=r"scene one: .*camera 2 has a rotation part"):
        Captures(tmp_path / "one").scene("one")


def test_pictures_that_lead_out_of_the_capture_break_the_scene(tmp_path):
    write_transforms(tmp_path / "one")
    file = tmp_path / "one" / "transforms.json"
    text = file.read_text(encoding="utf-8").replace("pictures/2.png", "../2.png")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BrokenSceneError, match="which leads out of"):
        Captures(tmp_path / "one").scene("one")


def test_capture_in_which_time_passes_is_no_still_scene(tmp_path):
    write_transforms(tmp_path / "one")
    file = tmp_path / "one" / "transforms.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for number, frame in enumerate(content["frames"]):
        frame["time"] = number / 5
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BrokenSceneError, match="scene one: its pictures have different times"):
        Captures(tmp_path / "one").scene("one")

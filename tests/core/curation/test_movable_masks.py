import pytest
import torch

from genxd_core.curation.movable_masks import (
    MaskFiles,
    MovableSegmenter,
    Union,
    dilated,
    find_movable,
    of_one_object,
)
from genxd_core.errors import Cancelled, InvalidInputError, MissingDependencyError
from genxd_core.media import save_image
from tests.support import seeded

IMAGES = torch.rand(3, 3, 20, 40, generator=seeded())


class Fixed:
    """Says that one rectangle may move."""

    version, licence, needs = "2", "CC0-1.0", ("nothing",)

    def __init__(self, name, rows, columns, *, reason=None, low_confidence=False):
        self.name, self.reason, self.low_confidence = name, reason, low_confidence
        self.rows, self.columns = rows, columns

    def available(self):
        return self.reason

    def segment(self, images, *, progress=None):
        masks = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
        masks[:, :, self.rows, self.columns] = True
        return of_one_object(
            masks, name="thing", low_confidence=self.low_confidence, provider=self.name
        )


TOP = Fixed("top", slice(0, 5), slice(0, 40))
LEFT = Fixed("left", slice(0, 20), slice(0, 10), low_confidence=True)
GONE = Fixed("gone", slice(0, 1), slice(0, 1), reason="Its file is missing.")


def write_masks(folder, masks):
    folder.mkdir()
    for index, mask in enumerate(masks):
        save_image(mask.expand(3, -1, -1), folder / f"{index:02d}.png")
    return [f"clip/{index:02d}.jpg" for index in range(len(masks))]


def test_first_available_provider_is_asked_and_named():
    assert isinstance(TOP, MovableSegmenter)
    found = find_movable(IMAGES, [GONE, TOP, LEFT], dilation_at_400=0)
    assert found.provider == "top"
    assert not found.low_confidence
    assert found.shares.tolist() == pytest.approx([0.25] * 3)
    assert found.classes == ({1: "thing"},) * 3


def test_masks_grow_and_labels_do_not():
    found = find_movable(IMAGES, [TOP], dilation_at_400=30)  # 3 pixels of 40
    assert torch.equal(found.masks[0, 0], (torch.arange(20) < 8).float()[:, None].expand(20, 40))
    assert torch.equal(found.labels[0], (torch.arange(20) < 5).long()[:, None].expand(20, 40))


def test_without_any_provider_all_reasons_are_told():
    with pytest.raises(MissingDependencyError, match=r"gone: Its file is missing\."):
        find_movable(IMAGES, [GONE])
    with pytest.raises(InvalidInputError, match="providers is empty"):
        find_movable(IMAGES, [])


@pytest.mark.parametrize(("width", "radius"), [(400, 5), (800, 10), (40, 0), (200, 2)])
def test_dilation_is_five_pixels_at_400_and_scales(width, radius):
    mask = torch.zeros(1, 1, 41, width)
    mask[0, 0, 20, width // 2] = 1
    rows, columns = dilated(mask, 5.0)[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (20 - radius, 20 + radius)
    assert (columns.min(), columns.max()) == (width // 2 - radius, width // 2 + radius)
    assert len(rows) == (2 * radius + 1) ** 2


def test_negative_dilation_is_refused():
    with pytest.raises(InvalidInputError, match="dilation_at_400 is -1"):
        find_movable(IMAGES, [TOP], dilation_at_400=-1)


def test_union_is_all_that_any_of_those_available_finds():
    found = Union(TOP, GONE, LEFT).segment(IMAGES)
    row, column = torch.arange(20)[:, None], torch.arange(40)[None]
    assert torch.equal(found.masks[1, 0], ((row < 5) | (column < 10)).float())
    assert torch.equal(found.labels[1], (row < 5).expand(20, 40).long())
    assert found.low_confidence
    assert found.provider == "top + left"
    assert Union(TOP, LEFT).name == "top+left"
    assert Union(TOP, LEFT).licence == "CC0-1.0"


def test_union_of_none_available_is_refused():
    assert Union(GONE).available() == "Its file is missing."
    with pytest.raises(MissingDependencyError, match=r"gone cannot be used\. Its file is missing"):
        Union(GONE).segment(IMAGES)


# ---- files --------------------------------------------------------------------------------------


def test_files_are_read_by_the_pictures_names(tmp_path):
    masks = torch.zeros(3, 1, 20, 40)
    masks[0, 0, 2:5, 7:9], masks[2, 0, 19, 39] = 1.0, 1.0
    names = write_masks(tmp_path / "masks", masks)
    provider = MaskFiles(tmp_path / "masks", names)
    assert isinstance(provider, MovableSegmenter)
    found = provider.segment(IMAGES)
    assert torch.equal(found.masks, masks)
    assert (found.low_confidence, found.provider) == (False, "files 1")
    assert found.classes == ({},) * 3


def test_files_of_another_size_keep_thin_parts(tmp_path):
    masks = torch.zeros(3, 1, 80, 160)
    masks[:, :, :, 101] = 1.0  # a quarter of the pixel 25
    names = write_masks(tmp_path / "masks", masks)
    found = MaskFiles(tmp_path / "masks", names).segment(IMAGES)
    expected = torch.zeros(3, 1, 20, 40)
    expected[..., 25] = 1.0
    assert torch.equal(found.masks, expected)


def test_files_that_do_not_belong_to_the_pictures_are_refused(tmp_path):
    names = write_masks(tmp_path / "masks", torch.zeros(2, 1, 20, 20))
    with pytest.raises(InvalidInputError, match="3 pictures for 2 names"):
        MaskFiles(tmp_path / "masks", names).segment(IMAGES)
    with pytest.raises(InvalidInputError, match="another shape than its picture"):
        MaskFiles(tmp_path / "masks", names).segment(IMAGES[:2])
    with pytest.raises(InvalidInputError, match="have no mask of the same name"):
        MaskFiles(tmp_path / "masks", [*names, "02.jpg"]).segment(IMAGES)


def test_folder_of_files_that_is_not_there_is_told(tmp_path):
    provider = MaskFiles(tmp_path / "none", ["a", "b", "c"])
    assert "There is no folder" in provider.available()
    with pytest.raises(MissingDependencyError, match="files cannot be used"):
        provider.segment(IMAGES)


def test_files_can_be_stopped(tmp_path):
    names = write_masks(tmp_path / "masks", torch.zeros(3, 1, 20, 40))
    with pytest.raises(Cancelled):
        MaskFiles(tmp_path / "masks", names).segment(IMAGES, progress=lambda s, t, p=None: False)

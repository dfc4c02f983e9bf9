"""Ids that last: linking by overlap, gaps, and connected regions."""

import pytest
import torch

from genxd_core import InvalidInputError
from genxd_core.curation.object_ids import connected_regions, link_labels, link_masks


def box(frame: torch.Tensor, left: int, value: int, *, top=4, size=8) -> None:
    """Fill a square in a label map, as far as it lies inside."""
    frame[top : top + size, max(left, 0) : max(left + size, 0)] = value


def paths(labels: torch.Tensor, tops) -> list[list[int]]:
    """For each row of squares, the id seen there in each frame; 0 where none is."""
    return [[int(frame[top + 2].max()) for frame in labels] for top in tops]


def test_objects_keep_their_ids_however_frames_number_them():
    labels = torch.zeros(4, 40, 60, dtype=int)
    for frame in range(4):
        box(labels[frame], 5 + 2 * frame, 9 if frame % 2 else 3)
        box(labels[frame], 40 - 3 * frame, 3 if frame % 2 else 9, top=20, size=12)
    linked = link_labels(labels)
    # The larger one is first.
    assert paths(linked, (4, 20)) == [[2] * 4, [1] * 4]
    assert torch.equal(linked > 0, labels > 0)


def test_object_that_is_gone_for_two_frames_comes_back_and_for_three_is_new():
    for gap, expected in ((2, 1), (3, 2)):
        labels = torch.zeros(gap + 2, 20, 40, dtype=int)
        box(labels[0], 10, 1)
        box(labels[-1], 10, 1)
        assert int(link_labels(labels)[-1].max()) == expected
    assert int(link_labels(labels, longest_gap=3)[-1].max()) == 1


def test_object_that_comes_back_is_looked_for_where_its_motion_leads():
    even = torch.zeros(4, 20, 90, dtype=int)
    for frame, left in enumerate((0, 4, 8, 24)):
        box(even[frame], left, 1)
    # A frame is missing at 12, 16 and 20: three gaps of 4 pixels lead to 24.
    with_gap = torch.cat([even[:3], torch.zeros(3, 20, 90, dtype=int), even[3:]])
    assert paths(link_labels(with_gap, longest_gap=3), (4,)) == [[1, 1, 1, 0, 0, 0, 1]]


def test_what_overlaps_too_little_is_another_object():
    labels = torch.zeros(2, 20, 40, dtype=int)
    box(labels[0], 5, 1)
    box(labels[1], 10, 1)  # 3 of 13 columns are common: 0.23
    assert paths(link_labels(labels), (4,)) == [[1, 2]]
    assert paths(link_labels(labels, least_overlap=0.2), (4,)) == [[1, 1]]


def test_better_overlap_is_matched_first():
    labels = torch.zeros(2, 20, 60, dtype=int)
    box(labels[0], 10, 1)
    box(labels[1], 11, 1, size=8)
    labels[1, 4:12, 22:26] = 2
    labels[0, 4:12, 22:25] = 2
    assert link_labels(labels)[1, 5, 12] == 1
    assert link_labels(labels)[1, 5, 23] == 2


def test_regions_connect_at_sides_and_corners_whatever_their_form():
    mask = torch.tensor(
        [
            [1, 0, 0, 0, 1, 0, 1],
            [0, 1, 0, 0, 1, 0, 1],
            [0, 0, 0, 0, 1, 1, 1],
            [1, 1, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 1],
        ],
        dtype=torch.bool,
    )
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 2, 0, 2],
            [0, 1, 0, 0, 2, 0, 2],
            [0, 0, 0, 0, 2, 2, 2],
            [3, 3, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 4],
        ]
    )
    found = connected_regions(mask)
    # The numbers may be given in any order.
    pairs = {(int(a), int(b)) for a, b in zip(found.flatten(), expected.flatten(), strict=True)}
    assert len(pairs) == 5
    assert (0, 0) in pairs
    assert len({a for a, _ in pairs}) == 5


def test_specks_are_no_regions():
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[3:13, 3:13] = True
    mask[30, 30] = True
    assert connected_regions(mask).max() == 2
    assert torch.equal(
        connected_regions(mask, least_share=0.001) > 0, mask & (mask.sum(1) > 1)[:, None]
    )
    assert int(connected_regions(torch.zeros(4, 4, dtype=torch.bool)).max()) == 0


def test_masks_without_ids_become_objects_over_time():
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    for frame in range(3):
        box(masks[frame], 5 + 2 * frame, True)
        box(masks[frame], 40 - 3 * frame, True, top=20, size=12)
        masks[frame, 38, frame] = True
    assert paths(link_masks(masks), (4, 20)) == [[2] * 3, [1] * 3]
    assert int(link_masks(masks).max()) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: link_labels(torch.zeros(2, 4, 4, dtype=int), least_overlap=0.0), "least_overlap"),
        (
            lambda: link_labels(torch.zeros(2, 4, 4, dtype=int), longest_gap=-1),
            "longest_gap -1; expected",
        ),
        (lambda: link_labels(torch.full((2, 4, 4), -1)), "labels holds negative numbers"),
        (lambda: link_labels(torch.zeros(0, 4, 4, dtype=int)), r"labels has shape \(0, 4, 4\)"),
        (
            lambda: link_masks(torch.zeros(2, 4, 4, dtype=torch.bool), least_share=1.0),
            "least_share is 1.0",
        ),
    ],
)
def test_what_cannot_be_linked_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()

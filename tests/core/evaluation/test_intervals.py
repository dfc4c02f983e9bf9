"""Bootstrap intervals on numbers whose answer is known."""

import math

import pytest
import torch

from genxd_core.errors import InvalidInputError
from genxd_core.evaluation.intervals import Interval, mean_interval, paired_interval
from tests.support import seeded


def test_interval_of_many_values_is_that_of_their_mean():
    values = torch.randn(400, generator=seeded()).double()
    found = mean_interval(values.tolist())
    error = float(values.std()) / math.sqrt(400)
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)


def test_equal_values_leave_no_doubt():
    assert mean_interval([2.0] * 5) == Interval(2.0, 2.0, 2.0)


def test_pairs_are_surer_than_their_sides():
    scenes = 10 * torch.randn(40, generator=seeded()).double()
    better = scenes + 1 + 0.1 * torch.randn(40, generator=seeded(1)).double()
    paired = paired_interval(better.tolist(), scenes.tolist())
    assert paired.mean == pytest.approx(float((better - scenes).mean()))
    assert 0.9 < paired.low < paired.mean < paired.high < 1.1
    assert mean_interval(scenes.tolist()).high - mean_interval(scenes.tolist()).low > 3


def test_exchanged_sides_change_the_sign():
    a, b = [1.0, 4.0, 2.0, 5.0], [0.5, 3.0, 2.5, 3.0]
    ab, ba = paired_interval(a, b), paired_interval(b, a)
    assert (ab.mean, ab.low, ab.high) == pytest.approx((-ba.mean, -ba.high, -ba.low))


def test_seeds_that_differ_widen_the_interval():
    scenes = torch.randn(30, generator=seeded()).double()
    a = [(scenes + shift).tolist() for shift in (0.5, 1.0, 1.5)]
    b = [scenes.tolist()] * 3
    found = paired_interval(a, b)
    assert found.mean == pytest.approx(1.0)
    # Each draw takes three of the shifts; all at 0.5, or all at 1.5, in one draw of 27.
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(1.5)
    assert paired_interval([a[1]], b[:1]).high == pytest.approx(1.0)


def test_numbers_of_seeds_may_differ():
    one, three = [[1.0, 2.0, 3.0]], [[0.0, 1.0, 2.0]] * 3
    assert paired_interval(one, three) == paired_interval(one[0], three[0])


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.3, 1), (-0.3, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.2, 0)]
)
def test_sign_is_that_of_the_whole_interval(low, high, sign):
    assert Interval((low + high) / 2, low, high).sign == sign


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ([1.0, 2.0], [1.0], "a has 2 scenes and b 1"),
        ([], [1.0], r"a has rows of \[\] values"),
        ([[1.0, 2.0], [1.0]], [1.0, 2.0], r"a has rows of \[1, 2\] values"),
        ([1.0], [math.nan], "b holds values that are not finite"),
    ],
)
def test_values_that_cannot_be_compared_are_refused(a, b, match):
    with pytest.raises(InvalidInputError, match=match):
        paired_interval(a, b)

"""Where things are in a photo that was decoded at a fraction of its size."""

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.orientation import turn_upright
from multigrain_jax.data.reduction import part_of_reduced, reduced_box

ORIENTATIONS = range(1, 9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("fraction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(161, 120), (160, 121), (163, 127), (160, 128)])
def test_what_is_behind_the_stored_ends_is_left_out(size, fraction, orientation):
    stored = [-(-side // fraction) for side in size]
    # How much of each pixel there is, along rows and along columns.
    along = [np.ones(side) for side in stored]
    for there, side in zip(along, size, strict=True):
        there[-1] -= len(there) - side / fraction
    there = Image.fromarray(np.outer(along[1], along[0]).astype(np.float32))
    upright = turn_upright(there, orientation)
    whole = turn_upright(Image.new("L", size), orientation).size
    left, top, right, bottom = part_of_reduced(whole, upright.size, orientation)
    columns, rows = (
        np.clip(np.minimum(last, np.arange(side) + 1) - np.arange(side), 0, 1)
        - np.clip(first - np.arange(side), 0, 1)
        for first, last, side in (
            (left, right, upright.width),
            (top, bottom, upright.height),
        )
    )
    np.testing.assert_allclose(np.outer(rows, columns), np.asarray(upright))


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        *((number, (2, 3, 10, 11)) for number in (1, 5)),
        *((number, (3, 3, 11, 11)) for number in (2, 6)),
        *((number, (3, 4, 11, 12)) for number in (3, 7)),
        *((number, (2, 4, 10, 12)) for number in (4, 8)),
    ],
)
def test_a_box_is_moved_by_what_is_left_out(orientation, expected):
    whole, reduced = (161, 121), (21, 16)
    part = part_of_reduced(whole, reduced, orientation)
    assert reduced_box((16, 24, 80, 88), whole, part) == expected
    left, top, right, bottom = reduced_box((0, 0, *whole), whole, part)
    assert (right - left, bottom - top) == (20, 15)
    assert 0 <= left < right <= 21 and 0 <= top < bottom <= 16


def test_a_box_of_what_was_not_reduced_is_itself():
    whole = (161, 121)
    part = part_of_reduced(whole, whole, 3)
    assert part == (0, 0, *whole)
    assert reduced_box((17, 23, 80, 121), whole, part) == (17, 23, 80, 121)

"""How a benchmark's images are turned and cut."""

import numpy as np
import pytest

from multigrain_jax.data.benchmarks import TurnAndCrop
from multigrain_jax.data.benchmarks.images import turn_and_crop
from multigrain_jax.data.decoding import UndecodableImageError


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_images_are_turned_clockwise(picture, degrees):
    turned = np.asarray(turn_and_crop(picture, TurnAndCrop(clockwise=degrees)))
    np.testing.assert_array_equal(turned, np.rot90(picture, -degrees // 90))


def test_boxes_are_rounded_and_cut(picture):
    cut = np.asarray(turn_and_crop(picture, TurnAndCrop(box=(2.4, 0.6, 9.6, 7.0))))
    np.testing.assert_array_equal(cut, np.asarray(picture)[1:7, 2:10])
    for box in ((12.0, 0.0, 14.0, 8.0), (3.0, 2.0, 3.4, 8.0), (0.0, -5.0, 9.0, 0.0)):
        with pytest.raises(UndecodableImageError, match="no pixel of an image"):
            turn_and_crop(picture, TurnAndCrop(box=box))

"""How much of the true neighbours a search through an index has found."""

import pytest

from multigrain_jax.tasks.approximate import recall
from multigrain_jax.tasks.neighbours import Neighbour


def photos(*similarities):
    return [Neighbour(n, f"{n}.png", s) for n, s in enumerate(similarities)]


@pytest.mark.parametrize(
    ("found", "expected", "share"),
    [
        ([photos(0.9, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.9, 0.7)], [photos(0.9, 0.8)], 1 / 2),
        # As similar as the last of the true ones, and another photo.
        ([photos(0.8, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.8, 0.8, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.8 - 1e-7)], [photos(0.8)], 1),
        ([[], photos(0.5)], [photos(0.9, 0.8, 0.7), photos(0.5)], 1 / 4),
        ([[]], [[]], 1),
    ],
)
def test_recall(found, expected, share):
    assert recall(found, expected) == pytest.approx(share)

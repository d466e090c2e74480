import itertools

import numpy as np
import pytest

from multigrain_jax.data.canvases import (
    choose_canvases,
    group_by_canvas,
    smallest_canvases,
)


def random_sizes(seed, count, side=40):
    rng = np.random.default_rng(seed)
    short = rng.integers(1, side + 1, count)
    turn = rng.random(count) < 0.4
    return np.where(
        turn[:, None],
        np.stack([np.full(count, side), short], 1),
        np.stack([short, np.full(count, side)], 1),
    )


def wasted(sizes, canvases):
    areas = np.prod(canvases, axis=1)[smallest_canvases(sizes, canvases)]
    return areas.sum() - np.prod(sizes, axis=1).sum(), areas.sum()


def least_waste(sizes, count):
    """By trying every choice of shapes that exist among the sizes."""
    candidates = np.unique(sizes, axis=0)
    return min(
        wasted(sizes, np.array(chosen))[0]
        for chosen in itertools.combinations(candidates, count)
        if all(np.any(np.all(size <= chosen, axis=1)) for size in sizes)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_choice_of_as_many_canvases_wastes_less(seed, count):
    sizes = random_sizes(seed, 9)
    canvases = choose_canvases(sizes, max_canvases=count, max_waste=0.0)
    assert len(canvases) == count
    assert wasted(sizes, canvases)[0] == least_waste(sizes, count)


def test_no_more_canvases_than_the_waste_asks_for():
    sizes = random_sizes(5, 300)
    canvases = choose_canvases(sizes, max_waste=0.3)
    lost, total = wasted(sizes, canvases)
    assert lost <= 0.3 * total
    fewer = choose_canvases(sizes, max_canvases=len(canvases) - 1, max_waste=0.0)
    lost, total = wasted(sizes, fewer)
    assert lost > 0.3 * total


def test_sizes_like_imagenets_need_few_canvases():
    # Mostly 500 x 375 and its neighbours, some upright, some square, some panoramas.
    rng = np.random.default_rng(0)
    short = np.concatenate(
        [np.full(5000, 375), np.full(2000, 333), rng.integers(150, 501, 3000)]
    )
    turn = rng.random(len(short)) < 0.25
    sizes = np.stack([np.where(turn, 500, short), np.where(turn, short, 500)], 1)
    canvases = choose_canvases(sizes)
    lost, total = wasted(sizes, canvases)
    assert len(canvases) <= 8
    assert lost <= 0.15 * total


def test_one_orientation_one_size_and_many_images():
    np.testing.assert_array_equal(
        choose_canvases(np.array([[30, 40], [20, 40]]), max_waste=1.0), [[30, 40]]
    )
    np.testing.assert_array_equal(choose_canvases(np.array([[40, 7]])), [[40, 7]])
    np.testing.assert_array_equal(choose_canvases(np.array([[9, 9]] * 5)), [[9, 9]])
    many = choose_canvases(random_sizes(1, 200_000, side=800), max_waste=0.0)
    assert len(many) == 8


def test_different_longer_sides_are_refused():
    with pytest.raises(ValueError, match="from 30 to 40"):
        choose_canvases(np.array([[20, 40], [30, 20]]))


def test_an_image_larger_than_every_canvas_is_refused():
    with pytest.raises(ValueError, match="30 x 40"):
        smallest_canvases(np.array([[30, 40]]), np.array([[20, 40]]))


def test_groups_hold_every_image_once_on_a_canvas_that_fits():
    sizes = random_sizes(2, 103)
    canvases = choose_canvases(sizes, max_canvases=5, max_waste=0.0)
    batches = group_by_canvas(smallest_canvases(sizes, canvases), canvases, 8)
    members = np.concatenate([m for _, m in batches])
    np.testing.assert_array_equal(np.sort(members), np.arange(103))
    for canvas, positions in batches:
        assert np.all(sizes[positions] <= canvases[canvas])
    # One incomplete batch for each orientation, no more.
    assert sum(len(positions) < 8 for _, positions in batches) <= 2

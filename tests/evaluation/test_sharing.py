"""What each host does of an evaluation."""

import jax
import numpy as np
import pytest
from helpers.photos import MIXED_SIZES, write_noise_photos
from helpers.sources import open_photos

from multigrain_jax.data.eval_batches import measured_sizes, plan_batches
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation import sharing
from multigrain_jax.evaluation.sharing import (
    measure_together,
    own_rows,
    plan_together,
    require_same_images,
    widened,
)

SIZES = {"test_size": 24, "smallest_side": 1, "timeout_s": 60.0}
PLAN = {**SIZES, "test_mode": "rect", "batch_size": 4}


@pytest.fixture
def source(tmp_path):
    write_noise_photos(tmp_path / "train", count=3, sizes=MIXED_SIZES[:3])
    return open_photos(tmp_path, "train")


@pytest.fixture
def host(monkeypatch):
    """Let this process pass for one of two hosts."""

    def become(index):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: index)

    return become


def test_all_hosts_rows_are_the_plan(source, host):
    plan = plan_batches(source, **PLAN)
    assert own_rows(plan) is not plan
    np.testing.assert_array_equal(own_rows(plan).rows, plan.rows)
    halves = []
    for index in range(2):
        host(index)
        halves.append(own_rows(plan))
    np.testing.assert_array_equal(np.hstack([h.rows for h in halves]), plan.rows)
    for half in halves:
        np.testing.assert_array_equal(half.shapes, plan.shapes)


def test_batches_are_widened_by_padding(source):
    plan = plan_batches(source, **PLAN)
    found = widened(plan, multiple=3)
    assert found.rows.shape == (len(plan), 6)
    np.testing.assert_array_equal(found.rows[:, :4], plan.rows)
    assert (found.rows[:, 4:] == -1).all()
    assert widened(plan, multiple=2).rows.shape == plan.rows.shape


def test_each_host_reads_its_headers_and_plans_the_same(source, host, monkeypatch):
    expected = plan_batches(source, **PLAN)
    order = np.arange(len(source))[::-1]
    both = measured_sizes(source, order, **SIZES)
    read = []

    def measured(source, indices, **named):
        read.append(list(indices))
        return measured_sizes(source, indices, **named)

    def gathered(own, *, count):
        start = [5, 4].index(len(own)) * 5
        np.testing.assert_array_equal(own, both[start : start + 5])
        return both

    monkeypatch.setattr(sharing, "measured_sizes", measured)
    monkeypatch.setattr(sharing, "gather_rows", gathered)
    for index in range(2):
        host(index)
        np.testing.assert_array_equal(measure_together(source, order, **SIZES), both)
    assert np.concatenate(read).tolist() == order.tolist()

    monkeypatch.setattr(sharing, "require_same_images", lambda source: None)
    monkeypatch.setattr(sharing, "measure_together", lambda *a, **k: both[::-1])
    monkeypatch.setattr(source, "open", None)
    found = plan_together(source, **PLAN)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.shapes, expected.shapes)


@pytest.mark.parametrize("other", ["fewer", "renamed", "same"])
def test_hosts_that_see_different_images_all_say_so(source, host, monkeypatch, other):
    require_same_images(source)  # alone, nothing is asked

    def gathered(own):
        seen = own.copy()
        if other != "same":
            seen[0 if other == "fewer" else 1] -= 1
        return np.stack([own, seen])

    monkeypatch.setattr(sharing, "gather_shares", gathered)
    host(1)
    if other == "same":
        require_same_images(source)
        return
    with pytest.raises(InputError, match="different images: process 0 9") as raised:
        require_same_images(source)
    assert ("other names" in str(raised.value)) == (other == "renamed")

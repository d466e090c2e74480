"""Programs of an evaluation: in order, several at once, none lost, none left behind."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.photos import noise_photo

import multigrain_jax.evaluation.running as running
from multigrain_jax.evaluation.running import run_in_order, run_in_parts
from multigrain_jax.inference import load_model

WAIT_S = 30


def numbers(count):
    return [np.full(3, n, np.float32) for n in range(count)]


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_results_come_in_the_order_of_the_batches(at_once):
    found = list(run_in_order(jax.jit(lambda x: x + 1), numbers(9), at_once=at_once))
    assert all(isinstance(each, np.ndarray) for each in found)
    np.testing.assert_array_equal(np.stack(found)[:, 0], np.arange(9) + 1)
    assert not list(run_in_order(lambda x: x, [], at_once=at_once))


def test_so_many_steps_are_at_work_at_the_same_time():
    meet = threading.Barrier(3, timeout=WAIT_S)
    threads = set()

    def step(batch):
        # The first of its shape is alone: it compiles.
        if batch[0]:
            meet.wait()
        threads.add(threading.get_ident())
        return batch

    assert len(list(run_in_order(step, numbers(7), at_once=3))) == 7
    assert threading.get_ident() not in threads
    assert len(threads) == 3


def test_each_shape_is_compiled_once():
    traced = []

    def step(batch):
        traced.append(batch.shape)
        return batch.sum()

    batches = [np.zeros(size, np.float32) for size in (2, 3, 2, 3, 3, 2, 4)]
    list(run_in_order(jax.jit(step), batches, at_once=4))
    assert sorted(traced) == [(2,), (3,), (4,)]


def test_no_more_batches_are_taken_than_are_at_work():
    taken = []

    def batches():
        for batch in numbers(20):
            taken.append(batch)
            yield batch

    results = run_in_order(lambda batch: batch, batches(), at_once=2)
    for count in range(20):
        next(results)
        assert len(taken) <= count + 4


def test_a_setting_of_the_caller_holds_in_the_threads():
    def step(batch):
        return jnp.asarray(batch) + 1

    with jax.enable_x64(True):
        batches = [np.zeros(2), np.zeros(2)]
        assert {each.dtype for each in run_in_order(step, batches, at_once=2)} == {
            np.dtype(np.float64)
        }


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_comes_in_its_place_and_nothing_is_left_at_work(at_once):
    def step(batch):
        if batch[0] == 3:
            raise RuntimeError("out of memory")
        return batch

    before = threading.active_count()
    found = []
    with pytest.raises(RuntimeError, match="out of memory"):
        for each in run_in_order(step, numbers(9), at_once=at_once):
            found.append(each[0])
    # Before the error those that it cannot change; on a device it comes two steps late.
    assert found == ([0, 1, 2] if at_once == 2 else [0])
    assert threading.active_count() == before


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_of_the_reader_and_an_early_end_leave_nothing_at_work(at_once):
    def broken():
        yield from numbers(4)
        raise OSError("no such file")

    before = threading.active_count()
    with pytest.raises(OSError, match="no such file"):
        list(run_in_order(lambda batch: batch, broken(), at_once=at_once))
    results = run_in_order(lambda batch: batch, numbers(9), at_once=at_once)
    next(results)
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("rows", "at_once", "parts"),
    [(4, 2, [2, 2]), (5, 2, [5]), (6, 4, [2, 2, 2]), (1, 8, [1]), (3, 8, [1, 1, 1])],
)
def test_a_batch_is_parted_into_equal_shares(rows, at_once, parts):
    seen = []

    def step(images):
        seen.append(len(images))
        return {"sum": images.sum(axis=1), "none": None}

    images = jnp.arange(rows * 2, dtype=jnp.float32).reshape(rows, 2)
    found = run_in_parts(step, images, compiled=set(), at_once=at_once)
    assert seen == parts
    assert isinstance(found["sum"], jax.Array) and found["none"] is None
    np.testing.assert_array_equal(found["sum"], images.sum(axis=1))


def test_shares_are_at_work_at_the_same_time_once_they_are_compiled():
    meet, compiled = threading.Barrier(2, timeout=WAIT_S), set()
    images = jnp.zeros((4, 3))
    run_in_parts(lambda x: x, images, compiled=compiled, at_once=2)

    def step(images):
        meet.wait()
        return images

    run_in_parts(step, images, compiled=compiled, at_once=2)


def test_a_batch_without_rows_is_one_part():
    assert run_in_parts(
        lambda x: x, jnp.zeros((0, 3)), compiled=set(), at_once=2
    ).shape == (0, 3)


@pytest.mark.parametrize("form", ["batch", "list", "files"])
def test_a_model_gives_the_same_in_threads(
    form, tiny_checkpoint, tmp_path, monkeypatch
):
    model = load_model(tiny_checkpoint)
    if form == "files":
        for n in range(5):
            noise_photo(n, (60 - 4 * n, 40)).save(tmp_path / f"{n}.png")
        paths = sorted(tmp_path.iterdir())

        def found():
            return model.embed(paths, test_size=48, mode="rect", batch_size=8)
    else:
        images = np.random.default_rng(0).standard_normal((6, 32, 32, 3), np.float32)

        def found():
            given = images if form == "batch" else list(images)
            return np.asarray(model(given).normalized_embedding)

    alone, at_work = found(), []
    monkeypatch.setattr(running, "programs_at_once", lambda: at_work.append(1) or 3)
    np.testing.assert_allclose(found(), alone, atol=1e-6)
    assert at_work

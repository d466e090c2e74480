"""Photos in batches of a few compiled shapes."""

from collections import deque
from concurrent.futures import Future

import numpy as np
import pytest
from helpers.photos import noise_photo

import multigrain_jax.browse.embedder as embedder_module
from multigrain_jax.browse.embedder import (
    Embedder,
    _Waiting,
    batch_sizes,
    canvases,
    take_batch,
)
from multigrain_jax.data.crops import eval_transform
from multigrain_jax.engines import sessions
from multigrain_jax.inference import load_model, preprocess
from multigrain_jax.opened_model import open_model


@pytest.mark.parametrize(
    ("largest", "devices", "expected"),
    [
        (1, 1, [1]),
        (4, 1, [1, 4]),
        (32, 1, [1, 4, 16, 32]),
        (8, 8, [8]),
        (3, 2, [2]),
        (40, 8, [8, 32, 40]),
        (1, 8, [8]),
    ],
)
def test_sizes_of_batches_are_multiples_of_the_devices(largest, devices, expected):
    assert batch_sizes(largest, devices) == expected


def test_canvases_hold_every_photo():
    assert canvases(224, "square", 32) == [(224, 224)]
    assert canvases(500, "rect", 32) == [(375, 500), (500, 375), (500, 500)]
    assert canvases(32, "rect", 40) == [(40, 40)]


def waiting(canvas, number):
    return _Waiting(np.full((1, 1, 3), number, np.uint8), canvas, Future())


def test_a_batch_is_the_first_that_waits_and_those_of_its_canvas():
    order = [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b")]
    queue = deque(waiting((ord(c), 9), n) for n, c in order)
    taken = [[int(w.image[0, 0, 0]) for w in take_batch(queue, 2)] for _ in range(3)]
    assert taken == [[1, 3], [2, 5], [4]]
    assert not queue


@pytest.mark.parametrize("at_once", [1, 3])
def test_photos_of_all_proportions_are_embedded_as_alone(
    tiny_checkpoint, monkeypatch, at_once
):
    batches = []
    monkeypatch.setattr(embedder_module, "programs_at_once", lambda: at_once)
    embedder = Embedder(
        open_model(tiny_checkpoint),
        test_size=48,
        test_mode="rect",
        batch_size=8,
        on_batch=lambda count, seconds: batches.append(count),
    )
    embedder.start()
    model = load_model(tiny_checkpoint)
    photos = [noise_photo(n, size) for n, size in enumerate([(60, 40), (50, 50)])]
    futures = [
        embedder.submit(np.asarray(eval_transform(p, 48, "rect", smallest_side=1)))
        for p in photos
    ]
    for photo, future in zip(photos, futures, strict=True):
        alone = model(preprocess(photo, 48, "rect", backbone="tiny")[None])
        found = future.result(60)
        expected = np.asarray(alone.normalized_embedding[0])
        np.testing.assert_allclose(found.descriptor, expected, atol=1e-5)
        assert found.logits is not None and found.logits.shape == (3,)
    embedder.close()
    assert sum(batches) == 2


def test_another_engine_stays_ready_for_every_shape(tiny_checkpoint, monkeypatch):
    pytest.importorskip("onnxruntime")
    made, open_session = [], sessions.open_session

    def counted(model):
        made.append(model)
        return open_session(model)

    monkeypatch.setattr(sessions, "open_session", counted)
    embedder = Embedder(
        open_model(tiny_checkpoint).for_inference("onnxruntime"),
        test_size=48,
        test_mode="rect",
        batch_size=200,
    )
    shapes = [(c, n) for c in embedder.canvases for n in embedder.batch_sizes]
    assert len(shapes) > sessions.MOST_SESSIONS
    embedder.start()
    assert len(made) == len(shapes)
    for canvas, size in shapes:
        embedder._run([np.zeros((*canvas, 3), np.uint8)], size)
    for canvas in embedder.canvases:
        embedder.submit(np.zeros((*canvas, 3), np.uint8)).result(60)
    embedder.close()
    assert len(made) == len(shapes)


def test_an_error_of_the_device_is_told_to_those_of_its_batch(
    tiny_checkpoint, monkeypatch
):
    embedder = Embedder(
        open_model(tiny_checkpoint), test_size=48, test_mode="square", batch_size=8
    )

    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(embedder, "canvases", [(48, 48)])
    monkeypatch.setattr(embedder, "_step", fail)
    embedder._thread.start()
    for _ in range(2):
        future = embedder.submit(np.zeros((48, 48, 3), np.uint8))
        with pytest.raises(RuntimeError, match="out of memory"):
            future.result(20)
    embedder.close()


def test_who_goes_away_costs_nobody_else_the_answer(tiny_checkpoint):
    embedder = Embedder(
        open_model(tiny_checkpoint), test_size=48, test_mode="square", batch_size=8
    )
    photo = np.zeros((48, 48, 3), np.uint8)
    gone, stays = embedder.submit(photo), embedder.submit(photo)
    assert gone.cancel()
    embedder._thread.start()
    assert stays.result(60).descriptor.shape == (8,)
    embedder.close()

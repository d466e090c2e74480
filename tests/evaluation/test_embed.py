"""Batches of embeddings are put together in the order of their source."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.evaluation.embed import FACTS, embed_all
from multigrain_jax.mesh import make_mesh
from multigrain_jax.models.multigrain import Output


def batches_of(indices, batch_size):
    """Batches whose every seventh photo is unreadable; the last one is padded."""
    for start in range(0, len(indices), batch_size):
        index = np.full(batch_size, -1, np.int32)
        part = indices[start : start + batch_size]
        index[: len(part)] = part
        yield {
            "image": np.zeros((batch_size, 1, 1, 3), np.uint8),
            "index": index,
            "label": index // 2,
            "mask": index >= 0,
            "bad": index % 7 == 0,
        }


def number_step(dim, num_classes):
    """A step whose outputs tell the photos' numbers."""

    @jax.jit
    def step(variables, batch):
        numbers = batch["index"].astype(jnp.float32)[:, None]
        output = Output(
            jnp.tile(numbers, (1, dim)),
            jnp.tile(numbers + 0.5, (1, dim)),
            numbers + jnp.arange(num_classes, dtype=jnp.float32)[None],
        )
        return output, {name: batch[name] for name in FACTS}

    return step


def test_photos_are_in_the_order_of_their_source():
    indices = np.random.default_rng(0).permutation(2 * np.arange(21))
    found = embed_all(
        number_step(3, 5), None, batches_of(indices, 8), mesh=make_mesh(1)
    )
    numbers = 2 * np.arange(21, dtype=np.float32)[:, None]
    bad = numbers % 7 == 0
    expected = np.where(bad, 0, numbers + np.float32(0.5))
    np.testing.assert_array_equal(found.descriptors, np.tile(expected, (1, 3)))
    np.testing.assert_array_equal(found.logits, numbers + np.arange(5))
    np.testing.assert_array_equal(found.labels, np.arange(21))
    np.testing.assert_array_equal(found.bad, bad[:, 0])
    assert [part.dtype.name for part in found] == [
        *("float32", "float32", "int32", "bool")
    ]


def test_logits_are_held_no_more_than_twice():
    tracemalloc.start()
    try:
        found = embed_all(
            number_step(4, 2000),
            None,
            batches_of(np.arange(2048)[::-1], 64),
            mesh=make_mesh(1),
        )
        assert tracemalloc.get_traced_memory()[1] < 2.5 * found.logits.nbytes
    finally:
        tracemalloc.stop()

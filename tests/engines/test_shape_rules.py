"""Elements go where JAX puts them, whatever the order in which axes are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.engines import assert_same
from jax import lax

pytest.importorskip("onnxruntime")

MAP = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
CASES = {
    "a map becomes rows": lambda x: x.reshape(2, -1),
    "rows become a map": lambda x: x.reshape(2, -1).reshape(2, 5, 4, 3),
    "a map of one channel": lambda x: x[..., :1].reshape(2, 3, 4) * 2,
    "a map of one place": lambda x: x[:, :1, :1, :].reshape(2, 5) * 2,
    "channels of a map": lambda x: x + x.sum((1, 2))[:, None, None, :],
    "places of a map": lambda x: x + x.sum(3)[..., None],
    "rows of a map": lambda x: x + x.sum((0, 2, 3))[None, :, None, None],
    "axes swapped": lambda x: x.transpose(0, 2, 1, 3),
    "axes swapped without a batch": lambda x: x[0].transpose(2, 0, 1),
    "the batch summed": lambda x: x.sum(0),
    "every second place": lambda x: x[:, 1::2, ::3, 1:],
    "joined places": lambda x: jnp.concatenate([x, x * 2], axis=2),
    "joined channels": lambda x: jnp.concatenate([x, x[..., :2]], axis=3),
    "a new axis of a map": lambda x: jnp.stack([x[0], x[1] * 2], axis=3),
    "channels times a matrix": lambda x: x @ np.ones((5, 2), np.float32),
    "the sum of what is broadcast": lambda x: (x[:1] + x[:, :1]).sum((0, 1)),
    "a part of what is broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape)[
        :, 1:2
    ],
    "padding of what is broadcast": lambda x: lax.pad(
        jnp.broadcast_to(x[..., :1], x.shape), 9.0, [(0, 0, 0)] * 2 + [(1, 0, 0)] * 2
    ),
    "cut by more than there was": lambda x: lax.pad(
        x, 7.0, [(0, 0, 0), (-5, 3, 0), (3, -6, 0), (0, 0, 0)]
    ),
    "nothing left": lambda x: x[:, :0].reshape(2, 0, 20).sum(1),
    "the sum of five axes": lambda x: jnp.stack([x, 2 * x]).sum(0),
    "the sum of no axes": lambda x: jnp.sum(x, axis=()),
    "the largest of five axes": lambda x: jnp.stack([x, x], 3).max(1),
    "cut on all sides": lambda x: lax.pad(x, 0.0, [(0, 0, 0)] + [(-1, -1, 0)] * 3),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_elements_are_where_jax_has_them(case):
    assert_same(lambda inputs: {"y": CASES[case](inputs["x"])}, {"x": MAP})


def test_what_is_known_is_no_part_of_the_model():
    from helpers.engines import as_onnx

    large = np.ones((100, 100), np.float32)

    def function(inputs):
        known = jnp.concatenate([large, large]).sum(0).reshape(10, 10).T[:, :3]
        return {"y": inputs["x"] + known + jnp.pad(known, ((0, 0), (1, 1)))[:, 1:4]}

    inputs = {"x": np.ones((10, 3), np.float32)}
    assert_same(function, inputs)
    assert len(as_onnx(function, inputs)) < 2_000
    assert jax.jit(function)(inputs)["y"].shape == (10, 3)

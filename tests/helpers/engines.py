"""Functions of JAX computed by ONNX Runtime."""

import jax
import numpy as np

from multigrain_jax.engines.sessions import open_session
from multigrain_jax.engines.tracing import to_onnx


def as_onnx(function, inputs):
    """The model of a function of a dictionary of arrays."""
    shapes = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in inputs.items()}
    return to_onnx(function, shapes)


def assert_same(function, inputs, *, rtol=1e-6, atol=1e-6):
    """What ONNX Runtime makes of a function is what JAX makes of it."""
    import onnx

    expected = jax.jit(function)(inputs)
    model = as_onnx(function, inputs)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    found = open_session(model)(inputs)
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(
            found[name].astype(np.float64), array, rtol=rtol, atol=atol, err_msg=name
        )

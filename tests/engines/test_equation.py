"""Every rule is given an equation of JAX, whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.engines import tracing
from multigrain_jax.engines.equation import Equation


def test_a_rule_is_given_shapes_dtype_and_parameters(monkeypatch):
    pytest.importorskip("onnx")
    given: list[Equation] = []
    shapes_given = []

    def rule(graph, operands, equation):
        given.append(equation)
        shapes_given.append(tuple(operand.shape for operand in operands))
        return operands[0]

    monkeypatch.setitem(tracing.RULES, "cumsum", rule)
    shapes = {"x": jax.ShapeDtypeStruct((2, 3), np.float32)}
    tracing.to_onnx(lambda inputs: {"y": jnp.cumsum(inputs["x"], axis=1)}, shapes)
    (found,) = given
    assert shapes_given == [((2, 3),)] and found.shape == (2, 3)
    assert found.dtype == np.float32 and found.params["axis"] == 1

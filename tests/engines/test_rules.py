"""Each rule is tried on arrays of two, three and four axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.engines import assert_same
from jax import lax

from multigrain_jax.engines.equation import Unsupported
from multigrain_jax.engines.rules import LAZY, RULES
from multigrain_jax.engines.tracing import SAME, to_onnx

pytest.importorskip("onnxruntime")

SHAPES = [(3, 5), (2, 3, 4), (2, 3, 4, 5)]
ONE = {
    "abs": jnp.abs,
    "copy": lax.copy_p.bind,
    "exp": jnp.exp,
    "is_finite": lambda x: jnp.isfinite(x * jnp.inf),
    "log": lambda x: jnp.log(jnp.abs(x) + 1),
    "logistic": jax.nn.sigmoid,
    "neg": lambda x: -x,
    "not": lambda x: ~(x > 0),
    "sign": jnp.sign,
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda x: lax.rsqrt(jnp.abs(x) + 1),
    "square": jnp.square,
    "tanh": jnp.tanh,
    "integer_pow": lambda x: x**3,
    "pow": lambda x: jnp.abs(x) ** 1.5,
    "max": lambda x: lax.max(x, 0.0) + lax.max(-0.5, x),
    "optimization_barrier": lambda x: lax.optimization_barrier(x),
    "stop_gradient": lax.stop_gradient,
    "select_n": lambda x: jnp.where(x > 0, x, -2.0),
    "convert_element_type": lambda x: (x * 3).astype(jnp.int32),
    "add": lambda x: (x + 1.5)[:, :1] + x,
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * 2,
    "div": lambda x: x / 3 + ((x * 9).astype(jnp.int32) // 2).astype(x.dtype),
    "rem": lambda x: (
        lax.rem(x * 5, 1.5) + lax.rem(x.astype(jnp.int32), 2).astype(x.dtype)
    ),
    "min": lambda x: jnp.minimum(x, 0.25),
    "and": lambda x: (x > 0) & (x < 1),
    "or": lambda x: (x > 0) | (x < -1),
    "eq": lambda x: x == x,
    "ne": lambda x: x.astype(jnp.int32) != 0,
    "ge": lambda x: x >= 0.1,
    "gt": lambda x: x > 0.1,
    "le": lambda x: x <= 0.1,
    "lt": lambda x: x < 0.1,
    "reduce_sum": lambda x: jnp.sum(x, axis=(0, -1)) + jnp.sum(x[:1] + x, axis=(0, -1)),
    "reduce_max": lambda x: jnp.max(x, axis=-1),
    "reduce_min": lambda x: jnp.min(x, axis=0),
    "reduce_prod": lambda x: jnp.prod(x, axis=1),
    "broadcast_in_dim": lambda x: jnp.broadcast_to(x[0], x.shape),
    "concatenate": lambda x: jnp.concatenate([x, x[:, :1] + 1], axis=1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "slice": lambda x: x[1:, ::2],
    "squeeze": lambda x: x[0],
    "stack": lambda x: jnp.stack([x.sum(0), x.max(0)], axis=1),
    "transpose": lambda x: jnp.swapaxes(x, 0, x.ndim - 1),
    "pad": lambda x: lax.pad(
        x, 0.5, [(0, 0, 0), (2, -1, 0)] + [(1, 1, 0)] * (x.ndim - 2)
    ),
    "dot_general": lambda x: x @ jnp.ones((x.shape[-1], 7)),
}
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 2, 6)).astype(np.float32)
CONVOLUTIONS = {
    "padded": {"window_strides": (1, 1), "padding": [(1, 1), (0, 2)]},
    "strided": {"window_strides": (2, 2), "padding": [(1, 1), (1, 1)]},
    "dilated": {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 1)},
}


def numbers(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("primitive", sorted(ONE))
def test_an_operation_gives_what_jax_gives(primitive):
    def function(inputs):
        return {f"{name}_out": ONE[primitive](x) for name, x in inputs.items()}

    inputs = {f"x{len(shape)}": numbers(shape) for shape in SHAPES}
    traced = str(jax.make_jaxpr(function)(inputs))
    assert primitive in traced.replace("[", " ").split()
    assert_same(function, inputs)


@pytest.mark.parametrize("form", sorted(CONVOLUTIONS))
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_gives_what_jax_gives(form, groups):
    kernel = KERNEL if groups == 2 else np.concatenate([KERNEL, KERNEL * 2], axis=2)

    def function(inputs):
        return {
            "y": lax.conv_general_dilated(
                inputs["x"],
                jnp.asarray(kernel),
                **CONVOLUTIONS[form],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
        }

    assert_same(function, {"x": numbers((2, 7, 9, 4))}, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_kernel_that_is_broadcast_is_whole(groups):
    def function(inputs):
        kernel = (
            jnp.ones((3, 3, 4 // groups, 4)) * jnp.arange(1.0, 5.0)[None, None, None]
        )
        return {
            "y": lax.conv_general_dilated(
                inputs["x"],
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            ),
            "z": inputs["x"] @ jnp.ones((4, 3)),
        }

    assert_same(function, {"x": numbers((2, 7, 9, 4))}, rtol=1e-5, atol=1e-5)


def test_every_rule_is_tried():
    assert {*RULES, *SAME} == {*ONE, "conv_general_dilated"}


def test_who_may_be_lazy_has_a_rule():
    assert RULES.keys() > LAZY


UNSUPPORTED = {
    "the operation sort": lambda x: jnp.sort(x, axis=1),
    "between elements": lambda x: lax.pad(x, 0.0, [(0, 0, 1), (0, 0, 0)]),
    "not between two": lambda x: lax.select_n((x * 2).astype(jnp.int32), x, x, x),
    r"\[\.\.\., K\] and \[K, N\]": lambda x: lax.dot_general(
        x, x, (((1,), (1,)), ((), ()))
    ),
    "the operation scan": lambda x: lax.fori_loop(0, 3, lambda _, c: c * 2, x),
    "the operation split": lambda x: jnp.split(x, 3)[0],
    "a bitwise and": lambda x: x.astype(jnp.int32) & 3,
    "an output that no input decides: y": lambda x: jnp.ones(3),
}


@pytest.mark.parametrize("message", sorted(UNSUPPORTED))
def test_what_has_no_rule_is_refused_by_name(message):
    shapes = {"x": jax.ShapeDtypeStruct((3, 3), np.float32)}
    with pytest.raises(Unsupported, match=message):
        to_onnx(lambda inputs: {"y": UNSUPPORTED[message](inputs["x"])}, shapes)


@pytest.mark.parametrize(
    ("order", "padding", "message"),
    [
        (("NCHW", "OIHW", "NCHW"), [(0, 0), (0, 0)], "not of NHWC with a known HWIO"),
        (("NHWC", "HWIO", "NHWC"), [(-1, 2), (0, 0)], "with a negative padding"),
    ],
)
def test_another_convolution_is_refused(order, padding, message):
    shapes = {"x": jax.ShapeDtypeStruct((1, 4, 4, 4), np.float32)}

    def function(inputs):
        return {
            "y": lax.conv_general_dilated(
                inputs["x"],
                jnp.ones((4, 4, 4, 4)),
                (1, 1),
                padding,
                dimension_numbers=order,
            )
        }

    with pytest.raises(Unsupported, match=message):
        to_onnx(function, shapes)

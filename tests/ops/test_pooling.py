"""Generalised-mean pooling and normalisation, against the original and plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.ops.pooling import gem, l2_normalize, to_unit_length

EXPONENTS = ("1", "1.0001", "1.7", "2.5", "3", "4", "10")
DTYPES = {"float32": (np.float32, 1e-5), "float64": (np.float64, 1e-12)}


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "functional" / "gem.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_l2n(golden_dir):
    with np.load(golden_dir / "functional" / "l2n.npz") as arrays:
        return dict(arrays)


def close(got, want, tolerance):
    assert got.shape == want.shape
    error = np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()
    assert error < tolerance


def golden_input(golden, case, dtype):
    x = golden[f"{case}/x"].transpose(0, 2, 3, 1).astype(dtype)
    return jnp.asarray(x), jnp.asarray(golden[f"{case}/upstream"].astype(dtype))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("exponent", (*EXPONENTS, "inf"))
@pytest.mark.parametrize("case", ("normal", "relu"))
def test_gem_with_a_constant_exponent(golden, case, exponent, precision):
    dtype, tolerance = DTYPES[precision]
    with jax.enable_x64(dtype == np.float64):
        x, upstream = golden_input(golden, case, dtype)
        # The original holds p as float32, also in its float64 run.
        p = float(np.float32(exponent))
        y, pullback = jax.vjp(lambda x: gem(x, p), x)
        (dx,) = pullback(upstream)
        assert y.dtype == dtype
    name = f"{case}/p{exponent}/fixed"
    close(y, golden[f"{name}/y_f64"], tolerance)
    got, want = np.asarray(dx).transpose(0, 3, 1, 2), golden[f"{name}/dx_f64"]
    if exponent == "inf":
        # The original's first maximum takes all, here equal maxima share; they are
        # zeros behind a ReLU, which stops the gradient.
        source = golden[f"{case}/x"]
        ties = (source == source.max(axis=(2, 3), keepdims=True)).sum(axis=(2, 3)) > 1
        close(got.sum(axis=(2, 3)), want.sum(axis=(2, 3)), tolerance)
        got, want = got[~ties], want[~ties]
    close(got, want, tolerance)


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("case", ("normal", "relu"))
def test_gem_with_a_learned_exponent(golden, case, exponent, precision):
    dtype, tolerance = DTYPES[precision]
    with jax.enable_x64(dtype == np.float64):
        x, upstream = golden_input(golden, case, dtype)
        p = jnp.asarray(np.float32(exponent).astype(dtype))
        y, pullback = jax.vjp(gem, x, p)
        dx, dp = pullback(upstream)
        assert dp.dtype == dtype
    name = f"{case}/p{exponent}/learn"
    close(y, golden[f"{name}/y_f64"], tolerance)
    close(dx.transpose(0, 3, 1, 2), golden[f"{name}/dx_f64"], tolerance)
    # The original's own float32 run is NaN at relu, p = 10.
    close(dp, golden[f"{name}/dp_f64"], 10 * tolerance)


def test_a_learned_exponent_of_one_is_not_the_plain_mean(golden):
    x, _ = golden_input(golden, "normal", np.float32)
    clamped, plain = gem(x, jnp.float32(1)), gem(x, 1.0)
    np.testing.assert_allclose(plain, np.mean(x, axis=(1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        clamped, np.mean(np.maximum(x, 1e-6), axis=(1, 2)), rtol=1e-5
    )


@pytest.mark.parametrize("exponent", (1.0, 3.0, 50.0))
def test_a_dead_channel_has_finite_gradients(exponent):
    x = jnp.zeros((2, 3, 3, 4)).at[..., 1].set(2.0)
    dx, dp = jax.grad(lambda x, p: gem(x, p).sum(), argnums=(0, 1))(
        x, jnp.float32(exponent)
    )
    assert np.isfinite(dx).all()
    assert np.isfinite(dp)


def test_gem_tends_to_the_maximum():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 4, 5, 3)), jnp.float32)
    np.testing.assert_allclose(gem(x, 1000.0), gem(x, math.inf), rtol=5e-3)
    np.testing.assert_array_equal(gem(x, math.inf), np.max(x, axis=(1, 2)))


@pytest.mark.parametrize("exponent", (1.0, 3.0, math.inf, "learned"))
def test_gem_of_valid_areas_is_that_of_each_alone(exponent):
    # Negative values, so that zeros outside would win the maximum.
    x = np.random.default_rng(0).standard_normal((3, 6, 7, 5)).astype(np.float32)
    x = x - 4 if exponent == math.inf else x
    p = jnp.float32(2.2) if exponent == "learned" else exponent
    sizes = np.array([[6, 7], [3, 5], [1, 1]], np.int32)

    def loss(x):
        return jnp.square(gem(x, p, sizes=jnp.asarray(sizes))).sum()

    together = gem(jnp.asarray(x), p, sizes=jnp.asarray(sizes))
    gradient = jax.grad(loss)(jnp.asarray(x))
    for row, (height, width) in enumerate(sizes):
        alone = jnp.asarray(x[row : row + 1, :height, :width])
        np.testing.assert_allclose(together[row], gem(alone, p)[0], rtol=2e-6)
        want = np.zeros_like(x[row])
        want[:height, :width] = jax.grad(lambda x: jnp.square(gem(x, p)).sum())(alone)
        np.testing.assert_allclose(gradient[row], want, rtol=1e-5, atol=1e-6)


def test_pooling_is_at_least_float32():
    x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    assert gem(x, 3.0).dtype == jnp.float32
    assert l2_normalize(x).dtype == jnp.float32


@pytest.mark.parametrize("precision", DTYPES)
def test_l2_normalize(golden_l2n, precision):
    dtype, _ = DTYPES[precision]
    rtol = 1e-5 if precision == "float32" else 1e-12
    with jax.enable_x64(dtype == np.float64):
        x = jnp.asarray(golden_l2n["x"].astype(dtype))
        y, pullback = jax.vjp(l2_normalize, x)
        (dx,) = pullback(jnp.asarray(golden_l2n["upstream"].astype(dtype)))
    for name, got in (("y_f64", np.asarray(y)), ("dx_f64", np.asarray(dx))):
        want = golden_l2n[name]
        assert np.isfinite(got).all()
        # Row by row: the rows are of very different size.
        scale = np.abs(want).max(axis=1, keepdims=True) + 1e-30
        np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=rtol)


def test_to_unit_length_is_pytorchs_normalize():
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    x *= np.array([[1e-13], [1e-9], [1e-3], [1.0], [1e4]], np.float32)
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    want = x / np.maximum(lengths, 1e-12)
    np.testing.assert_allclose(to_unit_length(x), want, rtol=2e-6)
    gradient = jax.grad(lambda x: to_unit_length(x).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(gradient).all()
    assert to_unit_length(jnp.ones((1, 3), jnp.bfloat16)).dtype == jnp.float32

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.ops.pooling import whitening_input
from multigrain_jax.ops.whitening import (
    add_to_moments,
    empty_moments,
    fit_pca_whitening,
    fold_into_classifier,
    pass_channel_through,
    scatter_around,
)


@pytest.fixture(scope="module")
def golden(golden_dir):
    arrays = np.load(golden_dir / "functional" / "whitening.npz")
    return {name.removeprefix("d32/"): arrays[name] for name in arrays}


def moments_of(vectors, block=7):
    moments = empty_moments(vectors.shape[1])
    for start in range(0, len(vectors), block):
        moments = add_to_moments(moments, vectors[start : start + block])
    return moments


def vectors(count=60, dim=6, mean=3.0):
    rng = np.random.default_rng(0)
    return mean + rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim))


def test_the_input_is_the_originals(golden):
    got = whitening_input(jnp.asarray(golden["features"]))
    np.testing.assert_allclose(got, golden["whiten_input"], atol=1e-7)


def test_projection_and_mean_are_the_originals(golden):
    fitted = fit_pca_whitening(moments_of(golden["whiten_input"]))
    np.testing.assert_allclose(fitted.mean, golden["m"], atol=1e-6)
    product = fitted.projection @ fitted.projection.T
    want = golden["inv_cov_f64"]
    np.testing.assert_allclose(product, want, atol=1e-8 * np.abs(want).max())
    # The original's own P is of float32.
    want = golden["PPt"]
    np.testing.assert_allclose(product, want, atol=1e-3 * np.abs(want).max())
    np.testing.assert_allclose(
        fitted.eigenvalues, golden["explained_variance_f64"], rtol=1e-8
    )


def test_folding_gives_the_originals_logits(golden):
    fitted = fit_pca_whitening(moments_of(golden["whiten_input"]))
    kernel, bias = fold_into_classifier(
        golden["classifier_weight"].T, golden["classifier_bias"], fitted
    )
    whitened = (golden["whiten_input"] - fitted.mean) @ fitted.projection
    got = whitened @ kernel + bias
    scale = np.abs(golden["logits_after"]).max()
    np.testing.assert_allclose(got, golden["logits_before"], atol=1e-5 * scale)
    np.testing.assert_allclose(got, golden["logits_after"], atol=1e-3 * scale)
    raw = golden["logits_raw"]
    np.testing.assert_array_equal(np.argsort(got), np.argsort(raw))


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("block", [1, 7, 100])
def test_moments_in_a_stream_are_those_of_all_at_once(block, mean):
    x = vectors(mean=mean)
    moments = moments_of(x, block)
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12)
    want = np.cov(x.T) * (len(x) - 1)
    np.testing.assert_allclose(moments.scatter, want, atol=1e-9 * np.abs(want).max())


def test_it_is_the_pca_of_scikit_learn():
    decomposition = pytest.importorskip(
        "sklearn.decomposition", reason="scikit-learn is not installed"
    )
    x = vectors(count=500, dim=24)
    fitted = fit_pca_whitening(moments_of(x))
    pca = decomposition.PCA(whiten=True, svd_solver="full").fit(x)
    np.testing.assert_allclose(fitted.mean, pca.mean_, rtol=1e-5)
    np.testing.assert_allclose(fitted.eigenvalues, pca.explained_variance_, rtol=1e-5)
    ours, theirs = (x - fitted.mean) @ fitted.projection, pca.transform(x)
    # The sign of a component is free.
    signs = np.sign(np.sum(ours * theirs, axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("components", [6, 3])
def test_whitened_vectors_are_uncorrelated_and_of_variance_one(components):
    x = vectors()
    fitted = fit_pca_whitening(moments_of(x), num_components=components)
    assert fitted.projection.shape == (6, components)
    whitened = (x - fitted.mean) @ fitted.projection
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(components), atol=1e-9)


def test_a_floor_raises_small_eigenvalues_and_keeps_an_exact_inverse():
    x = vectors(count=4)  # three directions of six
    fitted = fit_pca_whitening(moments_of(x), eigenvalue_floor=1e-3)
    floor = 1e-3 * fitted.eigenvalues.mean()
    variances = 1 / np.sum(fitted.projection**2, axis=0)
    np.testing.assert_allclose(variances, np.maximum(fitted.eigenvalues, floor))
    np.testing.assert_allclose(fitted.projection @ fitted.inverse, np.eye(6), atol=1e-9)


def test_the_last_channel_can_be_passed_through():
    x = np.concatenate([vectors(), np.full((60, 1), 0.7)], axis=1)
    inner = fit_pca_whitening(moments_of(x[:, :-1]))
    fitted = pass_channel_through(inner)
    whitened = (x - fitted.mean) @ fitted.projection
    np.testing.assert_allclose(
        whitened[:, :-1], (x[:, :-1] - inner.mean) @ inner.projection, atol=1e-12
    )
    np.testing.assert_array_equal(whitened[:, -1], x[:, -1])
    np.testing.assert_allclose(fitted.projection @ fitted.inverse, np.eye(7), atol=1e-9)


def test_too_few_vectors_are_refused_with_the_numbers():
    with pytest.raises(InputError, match="5 images found, at least 6 expected"):
        fit_pca_whitening(moments_of(vectors(count=5)))
    with pytest.raises(InputError, match="1 images found, at least 2 expected"):
        fit_pca_whitening(moments_of(vectors(count=1)), eigenvalue_floor=0.1)


def test_directions_without_variance_are_refused_with_the_numbers():
    x = vectors()
    x[:, 2] = 0
    with pytest.raises(InputError, match=r"1 of 6 directions.*over 60 images"):
        fit_pca_whitening(moments_of(x))
    fit_pca_whitening(moments_of(x), num_components=5)


@pytest.mark.parametrize("components", [0, 7])
def test_impossible_numbers_of_components_are_refused(components):
    with pytest.raises(InputError, match="expected 1 to 6"):
        fit_pca_whitening(moments_of(vectors()), num_components=components)


def test_scatters_of_several_sets_around_the_mean_of_all_add_up():
    parts = vectors(40), vectors(25, mean=-1.0), vectors(0)
    whole = moments_of(np.concatenate(parts))
    scatters = [scatter_around(moments_of(part), whole.mean) for part in parts]
    np.testing.assert_allclose(sum(scatters), whole.scatter, rtol=1e-12, atol=1e-9)

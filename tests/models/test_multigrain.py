"""The whole network: its outputs, its split into arrays, its canvases and dtypes."""

import math
import re
import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multigrain_jax.models.heads import PLAIN_HEAD, whitening_head
from multigrain_jax.models.multigrain import (
    BACKBONES,
    MultiGrain,
    abstract_model,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.ops.pooling import gem, l2_normalize


def random_images(batch=3, height=40, width=52, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, height, width, 3)).astype(np.float32)


def evaluation_model(name="tiny", **settings):
    model = create_model(name, **settings)
    model.eval()
    return model


def compiled(model):
    """The model as a compiled function of its variables and images."""
    graphdef, variables = split_model(model)
    return jax.jit(
        lambda variables, images, **sizes: merge_model(graphdef, variables)(
            images, **sizes
        )
    ), variables


def test_outputs():
    model = evaluation_model("tiny", num_classes=5)
    images = jnp.asarray(random_images())
    out = model(images)
    assert out.embedding.shape == out.normalized_embedding.shape == (3, 8)
    assert out.logits.shape == (3, 5)
    pooled = gem(model.features(images).values, jnp.float32(3))
    np.testing.assert_allclose(out.embedding, pooled, rtol=1e-6)
    np.testing.assert_allclose(
        out.normalized_embedding, l2_normalize(out.embedding), rtol=1e-6
    )
    # The classifier reads the embedding as it is, not normalised.
    linear = model.classifier
    want = np.asarray(pooled) @ np.asarray(linear.kernel[...]) + np.asarray(
        linear.bias[...]
    )
    np.testing.assert_allclose(out.logits, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exponent", (1.0, 2.5, math.inf))
def test_the_pooling_exponent_of_a_model(exponent):
    model = evaluation_model("tiny", pooling_exponent=exponent)
    images = jnp.asarray(random_images())
    features = model.features(images)
    values = np.asarray(features.values, np.float64)
    want = {
        1.0: values.mean(axis=(1, 2)),
        2.5: np.mean(np.maximum(values, 1e-6) ** 2.5, axis=(1, 2)) ** 0.4,
        math.inf: values.max(axis=(1, 2)),
    }[exponent]
    np.testing.assert_allclose(model(images).embedding, want, rtol=1e-5)
    assert model.pooling_exponent[...] == exponent
    # Other exponents on the same map, given to the head.
    third = model.head(features, exponent=3.0).embedding
    np.testing.assert_allclose(third, gem(features.values, 3.0), rtol=1e-6)
    assert np.abs(third - want).max() > 1e-3


def test_the_exponent_is_a_variable_of_its_own():
    model = evaluation_model("tiny", pooling_exponent=3.0)
    graphdef, variables = split_model(model)
    images = jnp.asarray(random_images())

    def loss(exponent):
        used = variables._replace(pooling_exponent=exponent)
        return merge_model(graphdef, used)(images).embedding.sum()

    value, gradient = jax.value_and_grad(loss)(jnp.float32(3.0))
    step = 1e-2
    difference = (loss(jnp.float32(3 + step)) - loss(jnp.float32(3 - step))) / (
        2 * step
    )
    np.testing.assert_allclose(gradient, difference, rtol=1e-2)
    assert value != loss(jnp.float32(4.0))
    assert set(variables.params) == {"trunk", "classifier"}


def test_splitting_and_merging():
    model = create_model("tiny", num_classes=5)
    train_graphdef, variables = split_model(model)
    model.eval()
    eval_graphdef, same = split_model(model)
    model.train()
    assert split_model(model)[0] == train_graphdef
    model.eval()
    assert train_graphdef != eval_graphdef
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    assert len(leaves) == len(jax.tree.leaves(nnx.state(model)))
    for path, _ in leaves[:-1]:
        assert all(isinstance(key.key, str) for key in path[1:])
    merged = merge_model(eval_graphdef, variables)
    _, again = split_model(merged)
    assert jax.tree.structure(again) == jax.tree.structure(same)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    images = jnp.asarray(random_images())
    jax.tree.map(np.testing.assert_array_equal, merged(images), model(images))


def test_training_returns_new_statistics_and_leaves_the_old_alone():
    model = create_model("tiny", batch_norm_group_size=2)
    graphdef, variables = split_model(model)
    images = random_images(4)

    @jax.jit
    def step(variables, images):
        merged = merge_model(graphdef, variables)
        out = merged(images)
        return out, split_model(merged)[1].batch_stats

    out, stats = step(variables, images)
    assert jax.tree.structure(stats) == jax.tree.structure(variables.batch_stats)
    for old, new in zip(
        jax.tree.leaves(variables.batch_stats), jax.tree.leaves(stats), strict=True
    ):
        assert (np.asarray(old) != np.asarray(new)).any()
    # Samples of one group do not see the other group.
    other = images.copy()
    other[2:] += 1
    again, _ = step(variables, other)
    np.testing.assert_array_equal(out.logits[:2], again.logits[:2])
    assert np.abs(out.logits[2:] - again.logits[2:]).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "exponent"),
    [("tiny", 1.0), ("tiny", 3.0), ("tiny", math.inf), ("resnet18", math.inf)],
)
def test_an_image_in_a_canvas_gives_what_it_gives_alone(name, exponent):
    run, variables = compiled(
        evaluation_model(name, num_classes=7, pooling_exponent=exponent)
    )
    # A batch norm's bias turns the zeros outside into something else.
    rng = np.random.default_rng(0)
    trunk = jax.tree.map(
        lambda x: (
            x + 0.2 * rng.standard_normal(x.shape, np.float32) if x.ndim == 1 else x
        ),
        variables.params["trunk"],
    )
    variables = variables._replace(params={**variables.params, "trunk": trunk})
    sizes = np.array([[33, 70], [64, 47], [70, 70], [51, 34]], np.int32)
    canvas = random_images(4, 70, 70)  # noise outside the valid areas
    together = run(variables, canvas, sizes=sizes)
    for row, (height, width) in enumerate(sizes):
        alone = run(variables, canvas[row : row + 1, :height, :width])
        for got, want in zip(together, alone, strict=True):
            assert np.ptp(want[0]) > 1e-3
            error = np.abs(got[row] - want[0]).max() / np.abs(want).max()
            assert error < 2e-5


def test_a_float64_model_is_float64_throughout():
    with jax.enable_x64(True):
        model = create_model("tiny", dtype=jnp.float64)
        graphdef, variables = split_model(model)
        assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float64)}

        def loss(variables, images):
            merged = merge_model(graphdef, variables)
            out = merged(images)
            stats = split_model(merged)[1].batch_stats
            return out.logits.sum() + out.normalized_embedding.sum(), stats

        program = jax.make_jaxpr(jax.grad(loss, has_aux=True))(
            variables, random_images().astype(np.float64)
        )
    assert not re.search(r"\b(f32|bf16|f16)\[", str(program))


def test_a_bfloat16_model_keeps_what_matters_in_float32():
    images = jnp.asarray(random_images())
    models = {
        dtype: evaluation_model("tiny", dtype=dtype)
        for dtype in (jnp.bfloat16, jnp.float32)
    }
    coarse = models[jnp.bfloat16]
    _, variables = split_model(coarse)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    assert coarse.features(images).values.dtype == jnp.bfloat16
    out, want = coarse(images), models[jnp.float32](images)
    assert {x.dtype for x in out} == {np.dtype(np.float32)}
    error = np.abs(out.embedding - want.embedding).max() / np.abs(want.embedding).max()
    assert 1e-4 < error < 3e-2


def make_dropping(*, whitened):
    return MultiGrain(
        replace(BACKBONES["tiny"], dropout_rate=0.5),
        num_classes=9 if whitened else 8,
        pooling_exponent=3.0,
        dtype=jnp.float32,
        batch_norm_group_size=64,
        head=whitening_head() if whitened else PLAIN_HEAD,
        rng=np.random.default_rng(0),
    )


@pytest.mark.parametrize("whitened", (False, True))
def test_dropout_is_of_the_classifier_alone(whitened):
    model = make_dropping(whitened=whitened)
    model.eval()
    features = model.features(jnp.asarray(random_images(64, 16, 16)))
    plain = model.head(features)
    model.train()
    out = model.head(features, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(out.embedding, plain.embedding)
    with pytest.raises(ValueError, match="dropout_key is missing"):
        model.head(features)
    # A classifier that copies its input shows what was kept.
    dim = out.embedding.shape[1]
    model.classifier.kernel[...] = jnp.eye(dim)
    model.classifier.bias[...] = jnp.zeros(dim)
    seen = np.asarray(model.head(features, dropout_key=jax.random.key(0)).logits)
    want = np.array(plain.embedding)
    if whitened:
        np.testing.assert_array_equal(seen[:, -1], want[:, -1])
        seen, want = seen[:, :-1], want[:, :-1]
    kept = seen != 0
    np.testing.assert_allclose(seen[kept], 2 * want[kept], rtol=1e-6)
    assert 0.4 < kept[want != 0].mean() < 0.6


def test_a_whitened_model_projects_the_normalised_pooling():
    model = evaluation_model("tiny", whitened=True)
    rng = np.random.default_rng(0)
    mean, projection = rng.standard_normal(9), rng.standard_normal((9, 9))
    (layer,) = model.projections
    layer.mean[...] = jnp.asarray(mean, jnp.float32)
    layer.projection[...] = jnp.asarray(projection, jnp.float32)
    images = jnp.asarray(random_images())
    pooled = gem(model.features(images).values, 3.0)
    joined = np.concatenate([pooled, np.ones((3, 1))], axis=1)
    unit = joined / (np.linalg.norm(joined, axis=1, keepdims=True) + 1e-6)
    want = (unit - mean) @ projection
    np.testing.assert_allclose(model(images).embedding, want, rtol=1e-4, atol=1e-5)
    _, variables = split_model(model)
    assert variables.params["classifier"]["kernel"].shape == (9, 1000)
    assert {k: v.shape for k, v in variables.whitening.items()} == {
        "mean": (9,),
        "projection": (9, 9),
    }


def test_the_seed_decides_the_weights():
    first, same, other = (
        split_model(create_model("tiny", seed=seed))[1].params for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, same)
    kernels = [tree["trunk"]["conv1"]["kernel"] for tree in (first, other)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).all()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling_exponent": math.inf, "dtype": jnp.bfloat16},
        {"num_classes": 5, "whitened": True, "batch_norm_group_size": 2},
        {"whitened": True, "num_components": 4},
    ],
)
def test_an_abstract_model_has_the_structure_and_shapes_of_a_real_one(settings):
    abstract, real = (
        make("tiny", **settings) for make in (abstract_model, create_model)
    )
    for model in (abstract, real):
        model.eval()
    graphdef, shapes = split_model(abstract)
    real_graphdef, variables = split_model(real)
    assert graphdef == real_graphdef and hash(graphdef) == hash(real_graphdef)
    assert shapes == jax.eval_shape(lambda: variables)
    abstract.train()
    assert split_model(abstract)[0] != graphdef


def test_an_abstract_model_takes_no_memory():
    # Held, so that none that another test has lost is collected in between.
    before = jax.live_arrays()
    tracemalloc.start()
    try:
        model = abstract_model("resnet18")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kernel = split_model(model)[1].params["trunk"]["stages"]["3"]["1"]["conv2"][
        "kernel"
    ]
    assert peak < 4 * math.prod(kernel.shape)  # bytes of the largest layer alone
    assert len(jax.live_arrays()) == len(before)


@pytest.mark.parametrize("make", (create_model, abstract_model))
def test_what_cannot_be_built_is_refused(make):
    with pytest.raises(ValueError, match=r"'resnet51', expected one of resnet18, "):
        make("resnet51")
    with pytest.raises(ValueError, match=r"found 0\.0, expected a number above 0"):
        make("tiny", pooling_exponent=0.0)

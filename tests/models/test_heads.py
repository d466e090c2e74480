"""Descriptor heads as rows: the plainest NumPy of each, checkpoints with them."""

import json
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import multigrain_jax
from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.descriptors.describe import settings_of_model
from multigrain_jax.errors import InputError
from multigrain_jax.models.heads import (
    HEAD_KEY,
    PLAIN_HEAD,
    DescriptorHead,
    Projection,
    ProjectionLayer,
    describe_head,
    head_from_json,
    head_to_json,
    whitening_head,
)
from multigrain_jax.models.multigrain import (
    abstract_model,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.opened_model import open_model
from multigrain_jax.ops.pooling import gem

NORMALIZATIONS = ("plus_epsilon", "at_least_epsilon")
CHAIN = DescriptorHead(
    "deep-image-retrieval",
    (
        Projection(5, normalize="at_least_epsilon", offset="bias"),
        Projection(3, normalize="at_least_epsilon"),
    ),
    "at_least_epsilon",
)


def normalized(x, how):
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if how == "plus_epsilon":
        return x / (lengths + 1e-6)
    return x / np.maximum(lengths, 1e-12)


def projected(x, row, arrays):
    """One step of a head in float64."""
    x = np.asarray(x, np.float64)
    if row.constant_channel:
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    if row.normalize is not None:
        x = normalized(x, row.normalize)
    x = x - arrays.get("mean", 0)
    return x @ arrays["projection"] + arrays.get("bias", 0)


def randomly(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), tree)


@pytest.mark.parametrize(
    ("constant", "before", "offset", "components"),
    list(product((False, True), (None, *NORMALIZATIONS), ("mean", "bias"), (None, 3))),
)
def test_a_projection_is_its_formula(constant, before, offset, components):
    row = Projection(components, constant, before, offset)
    layer = ProjectionLayer(row, inputs=6, dtype=jnp.float32)
    assert layer.num_components == (components or 6 + constant)
    assert layer.is_complete == (components is None)
    shapes = {"projection": layer.projection, offset: getattr(layer, offset)}
    arrays = randomly({name: value[...] for name, value in shapes.items()})
    for name, value in arrays.items():
        getattr(layer, name)[...] = jnp.asarray(value)
    # Lengths far from 1, and one next to nothing, where the two differ.
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    x *= np.array([[1e-6], [1.0], [30.0], [0.1]], np.float32)
    want = projected(x, row, arrays)
    np.testing.assert_allclose(layer(jnp.asarray(x)), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "head",
    [CHAIN, whitening_head(4), PLAIN_HEAD._replace(normalize="at_least_epsilon")],
)
def test_a_model_with_a_head_gives_the_formulas_numbers(head):
    model = create_model("tiny", num_classes=3, head=head, seed=1)
    model.eval()
    graphdef, variables = split_model(model)
    variables = variables._replace(
        head=randomly(variables.head), whitening=randomly(variables.whitening)
    )
    images = np.random.default_rng(0).standard_normal((2, 40, 40, 3), np.float32)
    model = merge_model(graphdef, variables)
    pooled = want = np.asarray(gem(model.features(jnp.asarray(images)).values, 3.0))
    arrays = {"0": variables.whitening} if head.is_whitening else variables.head
    for number, row in enumerate(head.projections):
        want = projected(want, row, arrays[str(number)])
    out = model(jnp.asarray(images))
    np.testing.assert_allclose(out.embedding, want, rtol=1e-4, atol=1e-5)
    unit = normalized(want, head.normalize)
    np.testing.assert_allclose(out.normalized_embedding, unit, atol=1e-5)
    # The classifier goes on reading what comes before a head.
    linear = variables.params["classifier"]
    logits = pooled @ np.asarray(linear["kernel"]) + np.asarray(linear["bias"])
    np.testing.assert_allclose(out.logits, logits, rtol=1e-4, atol=1e-5)


def test_splitting_and_merging_keep_the_arrays_of_a_head():
    model = create_model("tiny", num_classes=0, head=CHAIN)
    graphdef, variables = split_model(model)
    assert {k: set(v) for k, v in variables.head.items()} == {
        "0": {"projection", "bias"},
        "1": {"projection", "mean"},
    }
    assert variables.head["0"]["projection"].shape == (8, 5)
    assert variables.head["1"]["projection"].shape == (5, 3)
    assert variables.whitening == {}
    again_graphdef, again = split_model(merge_model(graphdef, variables))
    assert again_graphdef == graphdef
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    shapes = split_model(abstract_model("tiny", num_classes=0, head=CHAIN))[1]
    assert shapes == jax.eval_shape(lambda: variables)
    with pytest.raises(InputError, match="that of deep-image-retrieval with whitened"):
        create_model("tiny", head=CHAIN, whitened=True)


def test_a_head_in_words():
    assert describe_head(CHAIN, 8) == (
        "deep-image-retrieval: unit length, linear 8 -> 5, unit length, "
        "whitening 5 -> 3, unit length"
    )
    assert describe_head(whitening_head(), 8) == (
        "multigrain: a channel of ones, unit length, whitening 9 -> 9, unit length"
    )


@pytest.mark.parametrize("head", [PLAIN_HEAD, whitening_head(4), CHAIN])
def test_a_head_survives_json(head):
    assert head_from_json(json.loads(json.dumps(head_to_json(head)))) == head


@pytest.mark.parametrize(
    "changes",
    [
        {"normalize": "twice"},
        {"projections": [{"num_components": 3, "normalize": "twice"}]},
        {"projections": [{"num_components": 3, "offset": "median"}]},
        {"projections": [{"components": 3}]},
        {"projections": None},
        {"later": 1},
    ],
)
def test_another_object_is_no_head(changes):
    with pytest.raises(InputError, match=r"descriptor head: found .* convert the"):
        head_from_json({**head_to_json(CHAIN), **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A workdir of a model with a chain of projections."""
    folder = tmp_path_factory.mktemp("head")
    _, variables = split_model(create_model("tiny", num_classes=0, head=CHAIN))
    variables = variables._replace(head=randomly(variables.head))
    meta = {"backbone": "tiny", "num_classes": 0, "class_names": [], "config": None}
    meta[HEAD_KEY] = head_to_json(CHAIN)
    store = CheckpointStore(folder)
    store.save(0, model=variables, meta=meta)
    store.close()
    return folder, variables


def test_a_checkpoint_keeps_the_head(checkpoint):
    folder, variables = checkpoint
    opened = open_model(folder)
    assert opened.descriptor_dim == 3
    jax.tree.map(np.testing.assert_array_equal, opened.variables.head, variables.head)
    settings = settings_of_model(
        opened, dtype="float32", test_size=64, test_mode="rect"
    )
    assert (settings.dim, settings.whitened) == (3, False)
    model = multigrain_jax.load_model(folder)
    out = model(np.ones((1, 40, 40, 3), np.float32))
    assert out.embedding.shape == (1, 3) and out.logits is None
    np.testing.assert_allclose(np.linalg.norm(out.normalized_embedding), 1, rtol=1e-6)


def test_a_whitened_checkpoint_stays_as_it_was(tmp_path):
    model = create_model("tiny", num_classes=3, whitened=True, num_components=4)
    _, variables = split_model(model)
    meta = {"backbone": "tiny", "num_classes": 3, "class_names": [], "config": None}
    store = CheckpointStore(tmp_path)
    store.save(0, model=variables, meta=meta)
    store.close()
    saved = load_checkpoint(tmp_path)
    assert set(saved.model["whitening"]) == {"mean", "projection"}
    assert "head" not in saved.model and HEAD_KEY not in saved.meta
    opened = open_model(tmp_path)
    assert opened.descriptor_dim == 4
    assert opened.variables.whitening["projection"].shape == (9, 4)

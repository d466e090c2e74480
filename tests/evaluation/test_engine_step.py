"""Batches embedded by ONNX Runtime have the descriptors that JAX gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import FACTS
from multigrain_jax.evaluation.engine_step import (
    as_output,
    by_name,
    embed_step_of,
    eval_step_of,
)
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.multigrain import Output, create_model, split_model

# Rounding: the orders of the sums differ.
TOLERANCE = 2e-6


def made(name, *, num_classes=3, folded=True, dtype=jnp.float32):
    model = create_model(name, num_classes=num_classes, seed=1, dtype=dtype)
    model.eval()
    parts = split_model(model)
    return fold_batch_norms(*parts) if folded else parts


def batch_of(size, batch_size, *, whole):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (batch_size, size, size, 3), np.uint8),
        "label": np.arange(batch_size, dtype=np.int32),
        "index": np.arange(batch_size, dtype=np.int32),
        "mask": np.ones(batch_size, bool),
        "bad": np.zeros(batch_size, bool),
    }
    if not whole:
        sizes = rng.integers(size * 3 // 4, size + 1, (batch_size, 2))
        batch["size"] = sizes.astype(np.int32)
    return batch


def outputs(engine, name, graphdef, variables, batch):
    mesh = make_mesh(1)
    variables = put_replicated(mesh, variables)
    step = embed_step_of(engine, graphdef, backbone=BACKBONES[name], mesh=mesh)
    output, facts = jax.device_get(step(variables, put_batch(mesh, batch)))
    assert sorted(facts) == sorted(FACTS)
    np.testing.assert_array_equal(facts["index"], batch["index"])
    return output


def largest(difference_of, to):
    """The largest difference of each array, of what its largest element is."""
    return [
        float(np.abs(np.subtract(one, other, dtype=np.float64)).max())
        / max(1.0, float(np.abs(other).max()))
        for one, other in zip(difference_of, to, strict=True)
        if one is not None
    ]


def compare(name, *, size, batch_size, whole, num_classes=3, folded=True):
    parts = made(name, num_classes=num_classes, folded=folded)
    batch = batch_of(size, batch_size, whole=whole)
    ours, theirs = (
        outputs(engine, name, *parts, batch) for engine in ("jax", "onnxruntime")
    )
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None:
            assert other is None
        else:
            assert other.dtype == mine.dtype and other.shape == mine.shape
    assert max(largest(theirs, ours)) < TOLERANCE
    assert np.std(ours.normalized_embedding, axis=0).max() > 1e-4


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("folded", [True, False])
def test_descriptors_are_those_of_jax(whole, folded):
    pytest.importorskip("onnxruntime")
    compare("tiny", size=40, batch_size=3, whole=whole, folded=folded)


def test_a_model_without_a_classifier_has_no_logits():
    pytest.importorskip("onnxruntime")
    compare("tiny", size=40, batch_size=2, whole=False, num_classes=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "nasnetamobile"])
def test_descriptors_of_residual_and_searched_networks_are_those_of_jax(name):
    pytest.importorskip("onnxruntime")
    compare(name, size=72, batch_size=2, whole=False)


@pytest.mark.parametrize("exponents", [(None,), (1.0, 2.5, float("inf"))])
@pytest.mark.parametrize("whole", [True, False])
def test_sums_of_scores_are_those_of_jax(whole, exponents):
    pytest.importorskip("onnxruntime")
    graphdef, variables = made("tiny", num_classes=7)
    batch = batch_of(40, 6, whole=whole) | {
        "label": np.array([3, 0, -1, 6, 2, 1], np.int32),
        "bad": np.arange(6) == 1,
        "mask": np.arange(6) < 5,
    }
    del batch["index"]
    mesh, found = make_mesh(1), []
    for engine in ("jax", "onnxruntime"):
        step = eval_step_of(
            engine,
            graphdef,
            backbone=BACKBONES["tiny"],
            mesh=mesh,
            exponents=exponents,
        )
        arrays = put_replicated(mesh, variables)
        found.append(jax.device_get(step(arrays, put_batch(mesh, batch))))
    for sums in found:
        assert (sums["count"], sums["readable"]) == (5, 4)
        assert sums["top5"].shape == (len(exponents),)
    assert found[0].keys() == found[1].keys()
    for name, sums in found[0].items():
        np.testing.assert_allclose(found[1][name], sums, rtol=1e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_is_as_near_to_float64_as_by_jax(name, whole):
    pytest.importorskip("onnxruntime")
    graphdef, variables = made(name)
    batch = batch_of(BACKBONES[name].default_size, 2, whole=whole)
    ours, theirs = (
        outputs(engine, name, graphdef, variables, batch)
        for engine in ("jax", "onnxruntime")
    )
    with jax.enable_x64(True):
        in_double = made(name, dtype=jnp.float64)[0]
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        exact = outputs("jax", name, in_double, wide, batch)
    assert exact.embedding.dtype == np.float64
    # How far float32 is from that grows with the number of layers. Of thousands of
    # numbers, in the mean: the six logits are linear in them, and scatter. What float32
    # rounds 1 by is granted: sums of thousands of squares differ by their order.
    rounding = np.finfo(np.float32).eps
    for head in ("embedding", "normalized_embedding"):
        errors = [getattr(each, head) - getattr(exact, head) for each in (ours, theirs)]
        by_jax, by_engine = (np.sqrt(np.mean(np.square(error))) for error in errors)
        assert by_engine < 2 * by_jax + rounding, (by_jax, by_engine)
    # Of images that are all alike it would say nothing.
    assert np.std(ours.normalized_embedding, axis=0).max() > 100 * by_engine


def test_an_output_goes_by_name_and_back():
    output = Output(jnp.ones((1, 2)), jnp.zeros((1, 2)), None)
    names = by_name(output)
    assert sorted(names) == ["embedding", "normalized_embedding"]
    back = as_output(jax.device_get(names))
    assert back.logits is None
    np.testing.assert_array_equal(back.embedding, output.embedding)


@pytest.mark.parametrize("step_of", [embed_step_of, eval_step_of])
def test_another_engine_is_refused(step_of):
    graphdef, _ = split_model(create_model("tiny"))
    with pytest.raises(InputError, match="engine: found 'tensorrt'"):
        step_of("tensorrt", graphdef, backbone=BACKBONES["tiny"], mesh=make_mesh())

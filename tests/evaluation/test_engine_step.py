"""Batches embedded by ONNX Runtime have the descriptors that JAX gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import FACTS
from multigrain_jax.evaluation.engine_step import as_output, by_name, embed_step_of
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.multigrain import Output, create_model, split_model

# Rounding: the orders of the sums differ.
TOLERANCE = 2e-6


def compare(name, *, size, batch_size, whole, num_classes=3, folded=True):
    model = create_model(name, num_classes=num_classes, seed=1)
    model.eval()
    graphdef, variables = split_model(model)
    if folded:
        graphdef, variables = fold_batch_norms(graphdef, variables)
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
    mesh = make_mesh(1)
    variables = put_replicated(mesh, variables)
    found = {}
    for engine in ("jax", "onnxruntime"):
        step = embed_step_of(engine, graphdef, backbone=BACKBONES[name], mesh=mesh)
        output, facts = jax.device_get(step(variables, put_batch(mesh, batch)))
        assert sorted(facts) == sorted(FACTS)
        np.testing.assert_array_equal(facts["index"], batch["index"])
        found[engine] = output
    ours, theirs = found["jax"], found["onnxruntime"]
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None:
            assert other is None
            continue
        assert other.dtype == mine.dtype and other.shape == mine.shape
        scale = max(1.0, float(np.abs(mine).max()))
        np.testing.assert_allclose(other / scale, mine / scale, rtol=0, atol=TOLERANCE)
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


@pytest.mark.long
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_descriptors_of_every_backbone_are_those_of_jax(name, whole):
    pytest.importorskip("onnxruntime")
    compare(name, size=BACKBONES[name].default_size, batch_size=2, whole=whole)


def test_an_output_goes_by_name_and_back():
    output = Output(jnp.ones((1, 2)), jnp.zeros((1, 2)), None)
    names = by_name(output)
    assert sorted(names) == ["embedding", "normalized_embedding"]
    back = as_output(jax.device_get(names))
    assert back.logits is None
    np.testing.assert_array_equal(back.embedding, output.embedding)


def test_another_engine_is_refused():
    graphdef, _ = split_model(create_model("tiny"))
    with pytest.raises(InputError, match="engine: found 'tensorrt'"):
        embed_step_of(
            "tensorrt", graphdef, backbone=BACKBONES["tiny"], mesh=make_mesh()
        )

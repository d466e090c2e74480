"""What ResNets promise besides the numbers of the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.convert.state_dict import import_state_dict
from multigrain_jax.models.multigrain import (
    abstract_model,
    create_model,
    merge_model,
    split_model,
)


@pytest.mark.parametrize("name", ("resnet18", "resnet50", "resnet101", "resnet152"))
def test_initial_values(name):
    _, fresh = split_model(create_model(name))
    flat = jax.tree_util.tree_leaves_with_path(fresh.params["trunk"])
    for path, value in flat:
        value = np.asarray(value)
        leaf = path[-1].key
        if leaf == "kernel":
            height, width, _, out_channels = value.shape
            deviation = np.sqrt(2 / (height * width * out_channels))
            # Five standard errors of the deviation of n normal draws.
            slack = 5 / np.sqrt(2 * value.size)
            assert abs(value.std() / deviation - 1) < slack
            assert abs(value.mean()) < 5 * deviation / np.sqrt(value.size)
        else:
            np.testing.assert_array_equal(value, 1 if leaf == "scale" else 0)
    for path, value in jax.tree_util.tree_leaves_with_path(fresh.batch_stats):
        expected = 1 if path[-1].key == "var" else 0
        np.testing.assert_array_equal(value, expected)
    classifier = fresh.params["classifier"]
    bound = 1 / np.sqrt(classifier["kernel"].shape[0])
    for value in classifier.values():
        assert 0.99 * bound < jnp.abs(value).max() <= bound


def test_in_float64_the_outputs_equal_the_original_to_1e_12(
    golden_manifest, golden_arrays, golden_weights
):
    entries = golden_manifest("resnet18")["entries"]
    state_dict = golden_weights.state_dict(entries, 0)
    stored, _ = import_state_dict(state_dict, backbone="resnet18")
    with jax.enable_x64(True):
        model = abstract_model("resnet18", dtype=jnp.float64)
        model.eval()
        graphdef, _ = split_model(model)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), stored)
        images = golden_weights.images(0, 193, 257).astype(np.float64)
        out = jax.jit(lambda v, x: merge_model(graphdef, v)(x))(variables, images)
        out = jax.device_get(out)
    arrays = golden_arrays("resnet18")
    for found, name in (
        (out.embedding, "embedding"),
        (out.logits, "classifier_output"),
    ):
        want = arrays[f"193x257/p3/{name}_f64"]
        assert np.abs(found - want).max() < 1e-12 * np.abs(want).max()

"""What a training step reports beside the new state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import make_train_step

BATCH, SIZE, RATE = 8, 33, 0.25


def one_step(microbatches=1):
    """State before, state after and metrics of a step of plain gradient descent."""
    with jax.enable_x64(True):
        model = create_model("tiny", num_classes=3, dtype=jnp.float64)
        graphdef, _, variables = split_for_training(model)
        tx = make_optimizer(RATE, momentum=0.0, weight_decay=0.0)
        step = make_train_step(
            graphdef,
            tx,
            mesh=make_mesh(1),
            seed=0,
            prepare_images=lambda key, images: augment(
                key, images, augmentation="torch", mean=(0.5,) * 3, std=(0.5,) * 3
            ).astype(jnp.float64),
            select_pairs=lambda key, normalized, instance_ids: None,
            classification_weight=1.0,
            gradient_accumulation_steps=microbatches,
        )
        rng = np.random.default_rng(0)
        lead = (BATCH,) if microbatches == 1 else (microbatches, BATCH)
        batch = {
            "image": rng.integers(0, 256, (*lead, SIZE, SIZE, 3), np.uint8),
            "label": rng.integers(0, 3, lead).astype(np.int32),
            "instance_id": np.broadcast_to(np.arange(BATCH, dtype=np.int32), lead),
        }
        axis = 0 if microbatches == 1 else 1
        before = create_state(variables, tx)
        params = jax.device_get(before.params)
        state, metrics = step(
            put_replicated(make_mesh(1), before),
            put_batch(make_mesh(1), batch, axis=axis),
        )
        return params, *jax.device_get((state.params, metrics))


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


# The sum over microbatches in place of the mean would be twice the gradient.
@pytest.mark.parametrize("microbatches", [1, 2])
def test_norms_of_gradient_parameters_and_update(microbatches):
    before, after, metrics = one_step(microbatches)
    change = jax.tree.map(np.subtract, after, before)
    assert metrics["parameter_norm"] == pytest.approx(norm(after), rel=1e-12)
    assert metrics["update_norm"] == pytest.approx(norm(change), rel=1e-9)
    # Plain descent moves by the rate times the gradient.
    expected = norm(change) / RATE
    assert metrics["gradient_norm"] == pytest.approx(expected, rel=1e-6)
    assert expected > 0

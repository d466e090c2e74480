"""The same numbers on one, two and eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import make_train_step

BATCH, SIZE, REPEATS = 48, 33, 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fixed_pairs(key, normalized, instance_ids):
    """Neighbours in a triple are positives, the triple eight places on is negative."""
    del key, normalized, instance_ids
    anchor = jnp.arange(BATCH, dtype=jnp.int32)[:, None]
    first = anchor // REPEATS * REPEATS
    within = jnp.arange(2, dtype=jnp.int32)[None, :]
    positive = first + jnp.where(within < anchor - first, within, within + 1)
    return Pairs(positive, (positive + 24) % BATCH, jnp.ones((BATCH, 2), bool))


def make_run(num_devices, *, group_size, dtype, select_pairs):
    model = create_model(
        "tiny",
        num_classes=5,
        pooling_exponent=3.0,
        dtype=dtype,
        batch_norm_group_size=group_size,
    )
    graphdef, _, variables = split_for_training(model)
    tx = make_optimizer(0.05, momentum=0.9, weight_decay=1e-4)
    mesh = make_mesh(num_devices)
    step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=3,
        prepare_images=lambda key, images: augment(
            key, images, augmentation="full", mean=MEAN, std=STD
        ).astype(dtype),
        select_pairs=select_pairs,
        classification_weight=0.5,
    )
    return mesh, step, put_replicated(mesh, create_state(variables, tx))


def batch(step):
    rng = np.random.default_rng(step)
    instances = np.arange(BATCH, dtype=np.int32) // REPEATS
    images = rng.integers(0, 256, (BATCH // REPEATS, SIZE, SIZE, 3), np.uint8)
    return {
        "image": np.repeat(images, REPEATS, 0),
        "label": instances % 5,
        "instance_id": instances,
    }


def five_steps(num_devices, **arguments):
    mesh, train_step, state = make_run(num_devices, **arguments)
    losses = []
    for step in range(5):
        state, metrics = train_step(state, put_batch(mesh, batch(step)))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state)


# 8 nests in the shards of 2 devices (24) and not of 8 (6); 16 nests in neither.
@pytest.mark.parametrize("group_size", [8, 16])
def test_float64_is_the_same_on_any_number_of_devices(group_size):
    with jax.enable_x64(True):
        settings = {
            "group_size": group_size,
            "dtype": jnp.float64,
            "select_pairs": fixed_pairs,
        }
        losses, alone = five_steps(1, **settings)
        for num_devices in (2, 8):
            other_losses, other = five_steps(num_devices, **settings)
            np.testing.assert_allclose(other_losses, losses, rtol=1e-9)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(
                    b, a, rtol=0, atol=1e-9 * max(1e-30, np.max(np.abs(a)))
                ),
                alone,
                other,
            )


def test_float32_losses_are_the_same_within_rounding():
    settings = {
        "group_size": 16,
        "dtype": jnp.float32,
        "select_pairs": fixed_pairs,
    }
    losses, _ = five_steps(1, **settings)
    for num_devices in (2, 8):
        other, _ = five_steps(num_devices, **settings)
        np.testing.assert_allclose(other, losses, rtol=1e-4)


@pytest.mark.parametrize("group_size", [8, 16])
def test_no_activation_travels_between_devices(group_size):
    def select_pairs(key, normalized, instance_ids):
        return sample_pairs(
            key,
            normalized,
            instance_ids,
            negative_sampling="reference",
            group_size=group_size,
            max_positives=2,
        )

    mesh, train_step, state = make_run(
        8, group_size=group_size, dtype=jnp.float32, select_pairs=select_pairs
    )
    compiled = train_step.lower(state, put_batch(mesh, batch(0))).compile()
    gathered = gathered_sizes(compiled.as_text())
    # Embeddings and moments ([batch, channels]) may travel, feature maps may not: the
    # smallest one of this model is [48, 9, 9, 8].
    assert gathered, "no all-gather found: is the pattern still right?"
    assert max(gathered) < BATCH * 9 * 9 * 8


def gathered_sizes(text):
    """Elements of every all-gather's result in a compiled program's text."""
    sizes = []
    for line in text.splitlines():
        if re.search(r"= \S.* all-gather(-start)?\(", line):
            result = line.split(" all-gather")[0].split("=", 1)[1]
            for shape in re.findall(r"\[([\d,]*)\]", result):
                sizes.append(int(np.prod([int(d) for d in shape.split(",") if d])))
    return sizes


def test_the_pattern_finds_a_gathered_feature_map():
    mesh = make_mesh(8)
    images = put_batch(mesh, batch(0))["image"]

    @jax.jit
    def reversed_batch(x):
        return jnp.flip(x.astype(jnp.float32), axis=0).reshape(6, -1).sum(0)

    text = reversed_batch.lower(images).compile().as_text()
    collectives = gathered_sizes(text)
    assert "all-" in text or "collective" in text
    assert all(size > 0 for size in collectives)

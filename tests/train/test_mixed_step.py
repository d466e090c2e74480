"""Mixtures in the training step: of the cross-entropy alone, on any devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.infonce import infonce_loss
from multigrain_jax.losses.koleo import koleo_loss
from multigrain_jax.losses.sampling import sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.ops.mixing import mix_views
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import make_train_step

BATCH, SIZE = 12, 33
INSTANCES = np.arange(BATCH, dtype=np.int32) // 3
# The last view of each instance is mixed, with that of the instance two further on.
MIXED = np.arange(BATCH) % 3 == 2
QUICK_COMPILE = {"xla_backend_optimization_level": "0"}


def metrics_of(*image_seeds, num_devices):
    """Of a step from the same state, on images that differ in the mixed views alone."""
    mesh = make_mesh(num_devices)
    # Statistics of each sample for itself: none hears of another by them.
    model = create_model(
        "tiny", num_classes=4, dtype=jnp.float64, batch_norm_group_size=1
    )
    graphdef, _, variables = split_for_training(model)
    tx = make_optimizer(0.1, momentum=0.0, weight_decay=0.0)
    step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=0,
        prepare_images=lambda key, images: images.astype(jnp.float64) / 64 - 2,
        mix_views=partial(
            mix_views,
            mixup_alpha=1.0,
            cutmix_alpha=1.0,
            group_size=BATCH,
            instance_group_size=BATCH,
        ),
        select_pairs=partial(
            sample_pairs,
            negative_sampling="distance_weighted",
            group_size=BATCH,
            max_positives=2,
        ),
        classification_weight=0.5,
        label_smoothing=0.1,
        infonce=partial(infonce_loss, temperature=0.05, group_size=BATCH),
        koleo=partial(koleo_loss, group_size=BATCH),
        koleo_weight=0.1,
        compiler_options=QUICK_COMPILE,
    )
    start = jax.device_get(create_state(variables, tx))
    found = []
    for seed in image_seeds:
        shape = (BATCH, SIZE, SIZE, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        other = np.random.default_rng(seed).integers(0, 128, shape, np.uint8)
        batch = {
            "image": np.where(MIXED[:, None, None, None], other, images),
            "label": INSTANCES,
            "instance_id": INSTANCES,
        }
        _, metrics = step(put_replicated(mesh, start), put_batch(mesh, batch))
        found.append(jax.tree.map(float, jax.device_get(metrics)))
    return found


def test_instance_losses_see_unmixed_views_alone_whatever_the_devices():
    with jax.enable_x64(True):
        one, other = metrics_of(1, 2, num_devices=1)
        (four,) = metrics_of(1, num_devices=4)
    for name in ("margin", "infonce", "koleo"):
        assert one[name] == pytest.approx(other[name], rel=1e-12)
        assert one[name] > 0
    assert abs(one["cross_entropy"] - other["cross_entropy"]) > 1e-4
    assert four == pytest.approx(one, rel=1e-9)

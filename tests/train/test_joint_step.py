"""The backbones under the joint training step."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax.losses.sampling import sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models import nasnet, pnasnet
from multigrain_jax.models.cell_plans import CellSpec
from multigrain_jax.models.multigrain import BACKBONES, MultiGrain, create_model
from multigrain_jax.models.nasnet import NASNET_A_MOBILE_STEM_WIDTH
from multigrain_jax.models.nasnet_cells import CellNetwork
from multigrain_jax.models.pnasnet import PNASNET_5_LARGE_STEM_WIDTH
from multigrain_jax.models.resnet import ResNet
from multigrain_jax.models.senet import SENet
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import make_train_step

# Each kind of block or cell, and of transition between cells, at the width of the last
# stages, but not as often: a whole network's gradient takes half a minute to compile.
SHALLOW = {
    "resnet50": partial(ResNet, block="bottleneck", stages=(1, 2, 1, 1)),
    "resnext50_32x4d": partial(
        ResNet,
        block="bottleneck",
        stages=(1, 2, 1, 1),
        groups=32,
        width_per_group=4,
    ),
    "senet154": partial(SENet, stages=(1, 2, 1, 1)),
    "nasnetamobile": partial(
        CellNetwork,
        stem_width=NASNET_A_MOBILE_STEM_WIDTH,
        cells=(
            CellSpec(nasnet.REDUCTION, 44, "even"),
            CellSpec(nasnet.REDUCTION, 88, "odd"),
            CellSpec(nasnet.NORMAL, 176, "dense"),
            CellSpec(nasnet.NORMAL, 176, "dense"),
        ),
    ),
    "pnasnet5large": partial(
        CellNetwork,
        stem_width=PNASNET_5_LARGE_STEM_WIDTH,
        cells=(
            CellSpec(pnasnet.CELL, 216, "even"),
            CellSpec(pnasnet.CELL, 432, "odd"),
            CellSpec(pnasnet.CELL, 864, "dense"),
            CellSpec(pnasnet.CELL, 864, "dense"),
        ),
    ),
}
# More of the blocks that others have, or the same ones wider.
NO_OTHER_BLOCKS = ("tiny", "resnet34", "resnext101_32x4d", "resnext101_32x8d")
NO_OTHER_BLOCKS += ("wide_resnet50_2", "wide_resnet101_2")
# The others run in the long tests.
RUN_WHOLE = ("resnet18",)
MESH = make_mesh(1)
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


def make_step(model):
    """The step of four images of two instances, and the state it starts from."""
    graphdef, _, variables = split_for_training(model)
    tx = optax.trace(decay=0.0)  # keeps the gradients as its state
    select_pairs = partial(
        sample_pairs, negative_sampling="reference", group_size=4, max_positives=1
    )
    step = make_train_step(
        graphdef,
        tx,
        mesh=MESH,
        seed=0,
        prepare_images=lambda key, images: images,
        select_pairs=select_pairs,
        classification_weight=0.5,
    )
    return step, create_state(variables, tx)


def make_batch(side):
    images = np.random.default_rng(0).standard_normal((4, side, side, 3))
    batch = {
        "image": images.astype(np.float32),
        "label": np.arange(4, dtype=np.int32),
        "instance_id": np.arange(4, dtype=np.int32) // 2,
    }
    return put_batch(MESH, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_every_parameter_has_a_gradient_and_dropout_changes_by_the_step(name):
    row = replace(BACKBONES[name], make_trunk=SHALLOW[name])
    model = MultiGrain(
        row,
        num_classes=5,
        pooling_exponent=3.0,
        dtype=jnp.float32,
        batch_norm_group_size=4,
        rng=np.random.default_rng(0),
    )
    step, state = make_step(model)
    batch = make_batch(33)
    compiled = step.lower(state, batch).compile(compiler_options=QUICK_COMPILE)
    start = jax.device_get(state)  # the step takes its argument's memory
    state, metrics = compiled(put_replicated(MESH, start), batch)
    assert np.isfinite(metrics["loss"])
    gradients = jax.device_get(state.opt_state.trace)
    # With one positive and one negative pair active, those of beta cancel.
    assert np.isfinite(gradients.pop("margin")["beta"])
    for path, gradient in jax.tree.leaves_with_path(gradients):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(gradient).all(), f"{where} has a gradient not finite"
        assert gradient.any(), f"{where} has no gradient"
    # The same weights and images: only the dropout can change the cross-entropy.
    later = replace(start, step=np.int32(1))
    _, again = compiled(put_replicated(MESH, later), batch)
    same = again["cross_entropy"] == metrics["cross_entropy"]
    assert same == (row.dropout_rate == 0)


def shapes_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in BACKBONES if n not in NO_OTHER_BLOCKS])
def test_the_step_of_the_whole_backbone_keeps_the_state_as_it_is(name):
    """Traced alone: compiling deep ones takes minutes, and their blocks ran above."""
    step, state = make_step(create_model(name, num_classes=5))
    new_state, metrics = jax.eval_shape(step, state, make_batch(33))
    assert metrics["loss"].shape == ()
    assert shapes_of(new_state) == shapes_of(state)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in RUN_WHOLE else pytest.mark.long)
        for n in BACKBONES
        if n not in NO_OTHER_BLOCKS
    ],
)
def test_the_step_of_the_whole_backbone_runs(name):
    step, state = make_step(create_model(name, num_classes=5))
    described = shapes_of(state)
    batch = make_batch(33)
    compiled = step.lower(state, batch).compile(compiler_options=QUICK_COMPILE)
    new_state, metrics = compiled(put_replicated(MESH, state), batch)
    assert np.isfinite(metrics["loss"])
    assert new_state.step == 1
    assert shapes_of(new_state) == described

"""Folding batch norms changes how a network computes, not what."""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multigrain_jax.models.backbones import BACKBONES, Backbone
from multigrain_jax.models.cell_plans import CellSpec
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.layers import BatchNorm, Conv, relu
from multigrain_jax.models.multigrain import MultiGrain, merge_model, split_model
from multigrain_jax.models.nasnet import NORMAL, REDUCTION
from multigrain_jax.models.nasnet_cells import CellNetwork
from multigrain_jax.models.resnet import ResNet
from multigrain_jax.models.senet import SENet

TOLERANCE = 2e-5


class Unlike(nnx.Module):
    """A convolution with a bias of its own before a norm, and a norm that stays."""

    FOLDS: ClassVar = {"norm": ("conv",)}

    def __init__(self, *, group_size, dtype, rng):
        norm = partial(BatchNorm, eps=1e-5, group_size=group_size, dtype=dtype)
        self.conv = Conv(3, 6, 3, padding=1, use_bias=True, dtype=dtype, rng=rng)
        self.norm, self.after_relu = norm(6), norm(6)

    def __call__(self, x):
        return relu(self.after_relu(relu(self.norm(self.conv(x)))))


# Every way in which a norm follows its convolutions, as small as it goes.
SMALL = {
    "basic": BACKBONES["tiny"],
    "bottleneck": Backbone(
        partial(ResNet, block="bottleneck", stages=(1, 1), width=8, width_per_group=64),
        64,
    ),
    "senet": Backbone(partial(SENet, stages=(1, 1), width=16, groups=4), 128),
    "nasnet": Backbone(
        partial(
            CellNetwork,
            stem_width=8,
            cells=(CellSpec(REDUCTION, 4, "odd"), CellSpec(NORMAL, 8, "dense")),
        ),
        48,
    ),
    "unlike": Backbone(Unlike, 6),
}


def make(name, dtype=jnp.float32):
    """A model with scales and statistics as training leaves them."""
    rng = np.random.default_rng(0)
    model = MultiGrain(
        SMALL[name],
        num_classes=5,
        pooling_exponent=3.0,
        dtype=dtype,
        batch_norm_group_size=4,
        rng=rng,
    )
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            for value, lowest, highest in (
                (module.scale, -0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.mean, -1, 1),
                (module.var, 1e-3, 2),
            ):
                drawn = rng.uniform(lowest, highest, value.shape)
                value.set_value(jnp.asarray(drawn, value.dtype))
    model.eval()
    return model


@pytest.fixture
def errors(compile_quickly):
    """(a model, the same folded) -> the largest errors of its outputs, relative."""

    def run(structure, variables):
        rng = np.random.default_rng(1)
        dtype = variables.pooling_exponent.dtype
        images = rng.standard_normal((2, 31, 37, 3)).astype(dtype)
        # Of different sizes in one canvas, whose outside a bias must not enter.
        sizes = np.array([[31, 25], [28, 37]], np.int32)

        def forward(variables, images, sizes):
            return merge_model(structure, variables)(images, sizes=sizes)

        arguments = variables, images, sizes
        return jax.device_get(compile_quickly(forward, *arguments)(*arguments))

    def error(found, want):
        return np.abs(found - want).max() / np.abs(want).max()

    def compare(model, folded):
        return [error(*pair) for pair in zip(run(*folded), run(*model), strict=True)]

    return compare


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_the_same(name, errors):
    model = split_model(make(name))
    folded = fold_batch_norms(*model)
    kept = folded[1].batch_stats
    assert list(kept.get("trunk", {})) == (["after_relu"] if name == "unlike" else [])
    assert max(errors(model, folded)) < TOLERANCE


def test_few_bits_lose_about_as_much_as_unfolded(errors):
    exact = split_model(make("bottleneck"))
    rounded = split_model(make("bottleneck", jnp.bfloat16))
    before = max(errors(exact, rounded))
    assert before > 1e-4
    assert max(errors(exact, fold_batch_norms(*rounded))) < 3 * before


def test_the_algebra_is_exact(errors):
    with jax.enable_x64(True):
        model = split_model(make("unlike", jnp.float64))
        assert max(errors(model, fold_batch_norms(*model))) < 1e-14


def test_what_is_folded_stays_as_it_is():
    structure, variables = split_model(make("basic"))
    before = jax.tree.map(np.array, variables)
    once = fold_batch_norms(structure, variables)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    again = fold_batch_norms(*once)
    assert again[0] == once[0]
    jax.tree.map(np.testing.assert_array_equal, again[1], once[1])


def test_a_model_in_training_is_refused():
    model = make("basic")
    model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        fold_batch_norms(*split_model(model))

"""The table of backbones: what it says against the networks, and against the papers."""

import re

import jax
import pytest

from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.models.multigrain import abstract_model, merge_model, split_model

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module", params=BACKBONES)
def trunk(request):
    """A row of the table, and its trunk's program for the smallest image."""
    name = request.param
    model = abstract_model(name)
    model.eval()
    graphdef, variables = split_model(model)
    side = BACKBONES[name].smallest_side
    images = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    program = jax.jit(lambda v, x: merge_model(graphdef, v).features(x).values)
    return BACKBONES[name], program.lower(variables, images)


def test_the_smallest_image_gives_features_of_the_stated_channels(trunk):
    row, lowered = trunk
    batch, height, width, channels = lowered.out_info.shape
    assert (batch, channels) == (1, row.embedding_dim)
    assert min(height, width) >= 1


def test_the_table_knows_which_convolutions_are_depthwise(trunk):
    row, lowered = trunk
    one_channel = re.search(
        r"stablehlo.convolution.*, tensor<\dx\dx1x\d+xf32>\)", lowered.as_text()
    )
    assert bool(one_channel) == row.depthwise


@pytest.mark.parametrize(
    ("name", "embedding_dim", "dropout_rate", "default_size", "statistics"),
    [
        ("resnet18", 512, 0.0, 224, IMAGENET),
        ("resnet34", 512, 0.0, 224, IMAGENET),
        ("resnet50", 2048, 0.0, 224, IMAGENET),
        ("resnet101", 2048, 0.0, 224, IMAGENET),
        ("resnet152", 2048, 0.0, 224, IMAGENET),
        ("resnext50_32x4d", 2048, 0.0, 224, IMAGENET),
        ("resnext101_32x4d", 2048, 0.0, 224, IMAGENET),
        ("resnext101_32x8d", 2048, 0.0, 224, IMAGENET),
        ("wide_resnet50_2", 2048, 0.0, 224, IMAGENET),
        ("wide_resnet101_2", 2048, 0.0, 224, IMAGENET),
        ("senet154", 2048, 0.2, 224, IMAGENET),
        ("pnasnet5large", 4320, 0.5, 331, HALVES),
        ("nasnetamobile", 1056, 0.5, 224, HALVES),
    ],
)
def test_published_networks_are_used_as_they_were_trained(
    name, embedding_dim, dropout_rate, default_size, statistics
):
    row = BACKBONES[name]
    assert row.embedding_dim == embedding_dim
    assert row.dropout_rate == dropout_rate
    assert row.default_size == default_size
    assert (row.mean, row.std) == statistics

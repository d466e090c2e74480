"""ResNets that the original has not, against the same networks in plain PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.torch_resnet import arrays_of, gem_of, make_torch_resnet

from multigrain_jax.convert.state_dict import import_state_dict, recognise_backbone
from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import abstract_model, merge_model, split_model
from multigrain_jax.models.resnet import ResNet

TOLERANCE = 2e-5  # of the largest value
CASES = {
    "resnet34": {"block": "basic", "stages": (3, 4, 6, 3)},
    "resnext50_32x4d": {"stages": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
    "wide_resnet50_2": {"stages": (3, 4, 6, 3), "width_per_group": 128},
    "resnext101_32x4d": {"stages": (3, 4, 23, 3), "groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"stages": (3, 4, 23, 3), "groups": 32, "width_per_group": 8},
    "wide_resnet101_2": {"stages": (3, 4, 23, 3), "width_per_group": 128},
}
# The counts of torchvision's documentation, with a classifier of 1000 classes.
NUM_PARAMETERS = {
    "resnet34": 21_797_672,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet101_2": 126_886_696,
}
FAST = ("resnet34", "resnext50_32x4d")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
)
def test_maps_and_outputs_equal_pytorch(name, torch, compile_quickly):
    network = make_torch_resnet(torch, **{"block": "bottleneck", **CASES[name]})
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 3, 64, 49)).astype(np.float32)
    with torch.no_grad():
        features = network.features(torch.from_numpy(images))
        pooled = {p: gem_of(torch, features, p) for p in (1, 3)}
        logits = network.fc(pooled[3]).numpy()
    state_dict = arrays_of(network)
    assert recognise_backbone(state_dict) == name
    variables, _ = import_state_dict(state_dict, backbone=name)
    model = abstract_model(name, num_classes=5)
    model.eval()
    graphdef, _ = split_model(model)

    def forward(variables, images):
        model = merge_model(graphdef, variables)
        found = model.features(images)
        heads = {p: model.head(found, exponent=float(p)) for p in pooled}
        return found.values, heads

    arguments = variables, jnp.asarray(images.transpose(0, 2, 3, 1))
    values, heads = compile_quickly(forward, *arguments)(*arguments)

    def error(found, want):
        return np.abs(np.asarray(found) - want).max() / np.abs(want).max()

    assert error(values, features.numpy().transpose(0, 2, 3, 1)) < TOLERANCE
    for exponent, want in pooled.items():
        assert error(heads[exponent].embedding, want.numpy()) < TOLERANCE
    assert error(heads[3].logits, logits) < TOLERANCE


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(name):
    _, shapes = split_model(abstract_model(name))
    counted = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    assert counted == NUM_PARAMETERS[name]


def test_small_trunk_with_groups_has_an_exact_canvas(assert_canvas_is_exact):
    trunk = ResNet(
        block="bottleneck",
        stages=(1, 1, 1, 1),
        width=16,
        groups=4,
        width_per_group=32,
        group_size=4,
        rng=np.random.default_rng(0),
    )
    assert trunk.stages[0][0].conv2.kernel.shape == (3, 3, 8, 32)
    assert_canvas_is_exact(trunk, [(33, 47), (41, 35)])
    out = jax.eval_shape(trunk, FeatureMap(jnp.zeros((2, 33, 33, 3))))
    assert out.values.shape == (2, 2, 2, 512)

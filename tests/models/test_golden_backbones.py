"""Every backbone with the golden weights against the original, map by map."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.convert.state_dict import import_state_dict
from multigrain_jax.models.layers import FeatureMap, max_pool, relu
from multigrain_jax.models.multigrain import (
    abstract_model,
    merge_model,
    split_model,
)
from multigrain_jax.ops.whitening import PcaWhitening, fold_into_classifier

EXPONENTS = {"p1": 1.0, "p3": 3.0, "p1.7": 1.7}
TOLERANCE = 2e-5  # of the largest value


def resnet_maps(trunk, x):
    x = trunk.conv1(x)
    maps = {"features.conv1": x}
    x = max_pool(relu(trunk.bn1(x)), 3, stride=2, padding=1)
    maps["features.maxpool"] = x
    return maps | stage_maps(trunk.stages, x)


def senet_maps(trunk, x):
    x = trunk.stem(x)
    return {"features.layer0": x} | stage_maps(trunk.stages, x)


def stage_maps(stages, x):
    maps = {}
    for number, stage in enumerate(stages, start=1):
        for position, block in enumerate(stage):
            x = maps[f"features.layer{number}.{position}"] = block(x)
        maps[f"features.layer{number}"] = x
    return maps


def nasnet_maps(trunk, x):
    names = (
        "conv0",
        *("cell_stem_0", "cell_stem_1", "cell_0", "cell_1", "cell_2", "cell_3"),
        *("reduction_cell_0", "cell_6", "cell_7", "cell_8", "cell_9"),
        *("reduction_cell_1", "cell_12", "cell_13", "cell_14", "cell_15"),
    )
    return cell_maps(trunk, x, names)


def pnasnet_maps(trunk, x):
    cells = (f"cell_{number}" for number in range(12))
    return cell_maps(trunk, x, ("conv_0", "cell_stem_0", "cell_stem_1", *cells))


def cell_maps(trunk, x, names):
    outputs = trunk.stages(x)
    names = [f"features.0.base_net.{name}" for name in names]
    return dict(zip(names, outputs, strict=True)) | {"features": relu(outputs[-1])}


class Case(NamedTuple):
    """What is recorded of a backbone: maps at some of the sizes, outputs at all."""

    maps: Callable  # (trunk, images) -> torch's names -> maps; the last is its output
    sizes: tuple[str, ...] = ("224x224", "193x257")
    mapped_sizes: tuple[str, ...] = ("224x224",)
    num_maps: int = 8


RESNET = Case(resnet_maps, mapped_sizes=("224x224", "193x257"))
NASNET = Case(
    nasnet_maps,
    sizes=("224x224", "193x257", "201x249"),
    mapped_sizes=("224x224", "201x249"),
    num_maps=18,
)
CASES = {
    "resnet18": RESNET,
    "resnet50": RESNET,
    "senet154": Case(senet_maps, num_maps=7),
    "nasnetamobile": NASNET,
    "pnasnet5large": NASNET._replace(maps=pnasnet_maps, num_maps=16),
    "resnet101": RESNET,
    "resnet152": RESNET,
}
NAMES = [
    name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
]
DIFFERENT = NAMES[:4]  # the others have more of the same blocks


def max_error(found, want):
    return np.abs(np.asarray(found, np.float64) - want).max() / np.abs(want).max()


def probe(values, count=256):
    """`count` of the values, evenly spread over them."""
    flat = np.asarray(values).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, count).astype(int)]


class Golden:
    """A backbone with the golden weights, and what the original made of them."""

    def __init__(self, name, manifest, arrays, golden_weights, compile_quickly):
        self.case = CASES[name]
        self.manifest = manifest
        self.arrays = arrays
        self.draw_images = golden_weights.images
        self.compile_quickly = compile_quickly
        state_dict = golden_weights.state_dict(manifest["entries"], 0)
        self.variables, _ = import_state_dict(state_dict, backbone=name)
        model = abstract_model(name)
        model.eval()
        self.graphdef, _ = split_model(model)

    def images(self, size):
        images = self.draw_images(0, *map(int, size.split("x")))
        want = self.arrays[f"{size}/input_probe"]
        np.testing.assert_array_equal(probe(images), want)
        return images

    def run(self, images, sizes=None):
        """The recorded maps, and the outputs at every exponent."""

        def forward(variables, images, sizes):
            model = merge_model(self.graphdef, variables)
            maps = self.case.maps(model.trunk, FeatureMap(images, sizes))
            *_, features = maps.values()
            heads = {
                name: model.head(features, exponent=1.0 if p == 1 else jnp.float32(p))
                for name, p in EXPONENTS.items()
            }
            recorded = {name: x.values for name, x in maps.items() if self.has(name)}
            return recorded, heads

        arguments = self.variables, images, sizes
        return jax.device_get(self.compile_quickly(forward, *arguments)(*arguments))

    def has(self, name):
        return f"224x224/tap/{name}/values" in self.arrays

    def output_errors(self, output, key, rows=slice(None)):
        embedding = self.arrays[f"{key}/embedding_f64"]
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        normalized = embedding / (length + 1e-6)
        normalized = self.arrays.get(f"{key}/normalized_embedding", normalized)
        logits = self.arrays[f"{key}/classifier_output_f64"]
        wants = (embedding, normalized, logits)
        return {
            f"{key}/{field}": max_error(found, want[rows])
            for field, found, want in zip(output._fields, output, wants, strict=True)
        }


@pytest.fixture(scope="module")
def golden(request, golden_manifest, golden_arrays, golden_weights, compile_quickly):
    name = request.param
    recorded = golden_manifest(name), golden_arrays(name)
    return Golden(name, *recorded, golden_weights, compile_quickly)


def assert_small(errors):
    """All of them at once: a failure shows where the two networks part."""
    wrong = {name: f"{e:.1e}" for name, e in errors.items() if not e < TOLERANCE}
    assert not wrong


@pytest.mark.parametrize("golden", NAMES, indirect=True)
def test_maps_and_outputs_equal_the_original(golden):
    errors = {}
    for size in golden.case.sizes:
        maps, heads = golden.run(golden.images(size))
        assert len(maps) == golden.case.num_maps
        for name, values in maps.items() if size in golden.case.mapped_sizes else ():
            want = golden.arrays[f"{size}/tap/{name}/values"]
            found = probe(values.transpose(0, 3, 1, 2))
            errors[f"{size}/{name}"] = max_error(found, want)
        for exponent, output in heads.items():
            errors |= golden.output_errors(output, f"{size}/{exponent}")
    assert_small(errors)


@pytest.mark.parametrize("golden", DIFFERENT, indirect=True)
def test_images_of_all_sizes_in_one_canvas(golden):
    images = [golden.images(size) for size in golden.case.sizes]
    sizes = np.array([image.shape[1:3] for image in images], np.int32)
    canvas = np.full((len(sizes), *sizes.max(axis=0), 3), 9, np.float32)
    for row, (height, width) in enumerate(sizes):
        canvas[row, :height, :width] = images[row][row % 2]
    _, heads = golden.run(canvas, sizes)
    errors = {}
    for row, size in enumerate(golden.case.sizes):
        for exponent, output in heads.items():
            alone = type(output)(*(array[row : row + 1] for array in output))
            rows = slice(row % 2, row % 2 + 1)
            errors |= golden.output_errors(alone, f"{size}/{exponent}", rows)
    if "list/p3/embedding_f64" in golden.arrays:
        errors |= golden.output_errors(heads["p3"], "list/p3")
    assert_small(errors)


@pytest.mark.parametrize("golden", NAMES, indirect=True)
def test_the_number_of_parameters_is_that_of_the_manifest(golden):
    counted = sum(leaf.size for leaf in jax.tree.leaves(golden.variables.params))
    assert counted == golden.manifest["num_params_learn_p_false"]


@pytest.mark.slow
def test_a_whitened_model_and_one_folded_here_equal_the_original(
    golden_manifest, golden_arrays, golden_weights, compile_quickly
):
    entries = golden_manifest("resnet50_whitened")["entries"]
    state_dict = golden_weights.state_dict(entries, 0)
    model = abstract_model("resnet50", whitened=True)
    model.eval()
    graphdef, _ = split_model(model)
    variables, _ = import_state_dict(state_dict, backbone="resnet50")
    images = golden_weights.images(0, 193, 257)

    def forward(variables, images):
        return merge_model(graphdef, variables)(images)

    run = compile_quickly(forward, variables, images)
    arrays = golden_arrays("resnet50_whitened")

    def errors(output, prefix):
        names = ("embedding", "normalized_embedding", "classifier_output")
        return [
            max_error(found, arrays[f"{prefix}/{name}_f64"])
            for found, name in zip(output, names, strict=True)
        ]

    assert max(errors(run(variables, images), "direct/193x257")) < TOLERANCE

    # The plain model's classifier, folded with the same mean and projection.
    entries = golden_manifest("resnet50")["entries"]
    classifier = golden_weights.state_dict([e for e in entries if "classif" in e[0]], 0)
    mean = variables.whitening["mean"].astype(np.float64)
    projection = variables.whitening["projection"].astype(np.float64)
    kernel, bias = fold_into_classifier(
        classifier["classifier.weight"].T,
        classifier["classifier.bias"],
        PcaWhitening(mean, projection, np.linalg.inv(projection), np.ones(2049)),
    )
    folded = {"kernel": np.float32(kernel), "bias": np.float32(bias)}
    variables = variables._replace(params={**variables.params, "classifier": folded})
    found = errors(run(variables, images), "integrated/193x257/integrated")
    assert max(found) < 1e-3  # the random projection is badly conditioned

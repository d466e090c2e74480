"""ResNets against numbers recorded from the original, tap by tap."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.convert.torch_import import import_state_dict
from multigrain_jax.models.layers import FeatureMap, max_pool, relu
from multigrain_jax.models.multigrain import create_model, merge_model, split_model

SIZES = ((224, 224), (193, 257))
EXPONENTS = {"p1": 1.0, "p3": 3.0, "p1.7": float(np.float32(1.7))}
TOLERANCE = 2e-5  # of the largest value, in float32
BACKBONES = (
    "resnet18",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet50", "resnet101", "resnet152")
    ),
)


def run_with_taps(model, images):
    """{module of the original: its output}, and the outputs at every exponent."""
    trunk = model.trunk
    x = trunk.conv1(FeatureMap(images))
    taps = {"conv1": x.values}
    x = max_pool(relu(trunk.bn1(x)), 3, stride=2, padding=1)
    taps["maxpool"] = x.values
    for number, stage in enumerate(trunk.stages):
        for position, block in enumerate(stage):
            x = block(x)
            taps[f"layer{number + 1}.{position}"] = x.values
        taps[f"layer{number + 1}"] = x.values
    heads = {name: model.head(x, exponent=p) for name, p in EXPONENTS.items()}
    return taps, heads


class Case:
    """A manifest's model with the golden weights."""

    def __init__(self, name, golden_dir, golden_weights):
        backbone, _, whitened = name.partition("_")
        manifest = golden_dir / "manifests" / f"{name}.json.gz"
        self.manifest = json.loads(gzip.decompress(manifest.read_bytes()))
        with np.load(golden_dir / "models" / f"{name}.npz") as arrays:
            self.golden = dict(arrays)
        state_dict = golden_weights.state_dict(self.manifest["entries"], 0, p=3.0)
        self.variables, _ = import_state_dict(state_dict, backbone=backbone)
        model = create_model(backbone, whitened=bool(whitened))
        model.eval()
        self.graphdef, self.fresh = split_model(model)


@pytest.fixture(scope="module", params=BACKBONES)
def case(request, golden_dir, golden_weights):
    return Case(request.param, golden_dir, golden_weights)


def error(got, want):
    return np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()


def probe(values, count=256):
    """`count` of the values, evenly spread over them."""
    flat = np.asarray(values).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, count).astype(int)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parity(case, golden_weights, height, width):
    images = golden_weights.images(0, height, width)
    prefix = f"{height}x{width}"
    np.testing.assert_array_equal(probe(images), case.golden[f"{prefix}/input_probe"])

    @jax.jit
    def run(variables, images):
        return run_with_taps(merge_model(case.graphdef, variables), images)

    taps, heads = run(case.variables, images)
    errors = {}
    for key, want in case.golden.items():
        found_at, _, rest = key.partition("/tap/features.")
        if found_at != prefix or not rest.endswith("/values"):
            continue
        values = np.asarray(taps[rest.removesuffix("/values")]).transpose(0, 3, 1, 2)
        shape = case.golden[key.replace("/values", "/shape")]
        assert values.shape == tuple(shape), rest
        errors[rest] = error(probe(values), want)
    assert len(errors) == 8
    for name, out in heads.items():
        at = f"{prefix}/{name}"
        errors[f"{name}/embedding"] = error(
            out.embedding, case.golden[f"{at}/embedding_f64"]
        )
        errors[f"{name}/logits"] = error(
            out.logits, case.golden[f"{at}/classifier_output_f64"]
        )
        normalized = case.golden.get(f"{at}/normalized_embedding")
        if normalized is not None:
            errors[f"{name}/normalized"] = error(out.normalized_embedding, normalized)
    # All of them, so that a failure shows where the two networks part.
    wrong = {
        name: f"{value:.1e}" for name, value in errors.items() if value > TOLERANCE
    }
    assert not wrong


@pytest.mark.parametrize("case", BACKBONES[:2], indirect=True)  # those recorded
def test_images_of_two_sizes_in_one_canvas(case, golden_weights):
    canvas = np.zeros((2, 224, 257, 3), np.float32)
    for row, (height, width) in enumerate(SIZES):
        canvas[row, :height, :width] = golden_weights.images(0, height, width)[row]

    @jax.jit
    def run(variables, images, sizes):
        return merge_model(case.graphdef, variables)(images, sizes=sizes)

    out = run(case.variables, canvas, np.array(SIZES, np.int32))
    want = case.golden["list/p3/embedding_f64"]
    assert error(out.embedding, want) < TOLERANCE
    want = case.golden["list/p3/classifier_output_f64"]
    assert error(out.logits, want) < TOLERANCE


def test_parameters_and_their_initial_values(case):
    num_params = sum(x.size for x in jax.tree.leaves(case.fresh.params))
    assert num_params == case.manifest["num_params_learn_p_false"]
    flat = jax.tree_util.tree_leaves_with_path(case.fresh.params["trunk"])
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
    for path, value in jax.tree_util.tree_leaves_with_path(case.fresh.batch_stats):
        expected = 1 if path[-1].key == "var" else 0
        np.testing.assert_array_equal(value, expected)
    classifier = case.fresh.params["classifier"]
    bound = 1 / np.sqrt(classifier["kernel"].shape[0])
    for value in classifier.values():
        assert 0.99 * bound < jnp.abs(value).max() <= bound


def test_float64_parity(golden_dir, golden_weights):
    case = Case("resnet18", golden_dir, golden_weights)
    with jax.enable_x64(True):
        model = create_model("resnet18", dtype=jnp.float64)
        model.eval()
        graphdef, _ = split_model(model)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), case.variables)
        images = golden_weights.images(0, *SIZES[1]).astype(np.float64)
        out = jax.jit(lambda v, x: merge_model(graphdef, v)(x))(variables, images)
        out = jax.device_get(out)
    at = "193x257/p3"
    assert error(out.embedding, case.golden[f"{at}/embedding_f64"]) < 1e-12
    assert error(out.logits, case.golden[f"{at}/classifier_output_f64"]) < 1e-12


@pytest.mark.slow
def test_parity_of_a_whitened_model(golden_dir, golden_weights):
    case = Case("resnet50_whitened", golden_dir, golden_weights)
    images = golden_weights.images(0, *SIZES[1])
    run = jax.jit(lambda v, x: merge_model(case.graphdef, v)(x))
    out = run(case.variables, images)
    at = "direct/193x257"
    for name, got in (
        ("embedding", out.embedding),
        ("normalized_embedding", out.normalized_embedding),
        ("classifier_output", out.logits),
    ):
        assert error(got, case.golden[f"{at}/{name}_f64"]) < TOLERANCE, name

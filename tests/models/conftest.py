"""The golden numbers of a backbone, and checks that every large backbone shares."""

import gzip
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multigrain_jax.convert.convert import drop_background
from multigrain_jax.convert.torch_import import import_state_dict
from multigrain_jax.losses.sampling import sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import create_model, merge_model, split_model
from multigrain_jax.ops.pooling import gem
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import make_train_step

EXPONENTS = {"p3": 3.0, "p1": 1.0, "p1.7": 1.7}
TOLERANCE = 2e-5


def max_error(found, golden):
    return np.abs(np.asarray(found) - golden).max() / np.abs(golden).max()


def probe(values):
    """256 of the values, evenly spread over them in NCHW order."""
    flat = values.transpose(0, 3, 1, 2).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, 256).astype(int)]


@pytest.fixture(scope="session")
def golden_manifest(golden_dir):
    """name -> the keys, shapes and dtypes of a state dict (`entries`), and more."""

    def read(name):
        path = golden_dir / "manifests" / f"{name}.json.gz"
        return json.loads(gzip.decompress(path.read_bytes()))

    return read


class GoldenBackbone:
    """A backbone with the golden weights, compiled once for each shape of images.

    `taps` says which maps inside the trunk have golden numbers:
    (trunk, images) -> (torch's names -> maps, the trunk's output).
    """

    def __init__(self, name, manifest, state_dict, arrays, images, taps):
        self.name = name
        self.manifest = manifest
        self.state_dict = state_dict
        self.arrays = arrays
        self.images = images
        self.variables, self.report = import_state_dict(state_dict, backbone=name)
        model = create_model(name)
        model.eval()
        self.graphdef, _ = split_model(model)
        self.forward = jax.jit(partial(self._forward, taps=taps))
        self.runs = {}

    def _forward(self, variables, images, sizes, *, taps):
        model = merge_model(self.graphdef, variables)
        maps, features = taps(model.trunk, FeatureMap(images, sizes))
        heads = {
            name: model.head(features, exponent=1.0 if p == 1 else jnp.float32(p))
            for name, p in EXPONENTS.items()
        }
        return heads, {name: probe(tap.values) for name, tap in maps.items()}

    def golden_images(self, size):
        height, width = map(int, size.split("x"))
        images = self.images(0, height, width)
        flat = images.reshape(-1)
        spots = np.linspace(0, flat.size - 1, 256).astype(int)
        np.testing.assert_array_equal(flat[spots], self.arrays[f"{size}/input_probe"])
        return images

    def run(self, size):
        if size not in self.runs:
            images = self.golden_images(size)
            outputs = self.forward(self.variables, images, None)
            self.runs[size] = jax.device_get(outputs)
        return self.runs[size]

    def assert_outputs(self, output, key):
        embedding = self.arrays[f"{key}/embedding_f64"]
        normalized = embedding / (
            np.linalg.norm(embedding, axis=1, keepdims=True) + 1e-6
        )
        golden = self.arrays.get(f"{key}/normalized_embedding", normalized)
        logits = self.arrays[f"{key}/classifier_output_f64"]
        assert max_error(output.embedding, embedding) < TOLERANCE
        assert max_error(output.normalized_embedding, golden) < TOLERANCE
        assert max_error(output.logits, logits) < TOLERANCE

    def assert_taps(self, size, names):
        """In the order of the network, so that the first failure says where."""
        probes = self.run(size)[1]
        for name in names:
            golden = self.arrays[f"{size}/tap/{name}/values"]
            error = max_error(probes[name], golden)
            assert error < TOLERANCE, f"{name} is the first map to differ: {error}"

    def assert_canvas(self, sizes):
        """Images of several sizes in one canvas give what they give alone."""
        images = [self.golden_images(size) for size in sizes]
        shapes = np.array([image.shape[1:3] for image in images])
        canvas = np.full((2 * len(sizes), *shapes.max(axis=0), 3), 9, np.float32)
        for number, (height, width) in enumerate(shapes):
            canvas[2 * number : 2 * number + 2, :height, :width] = images[number]
        valid = np.repeat(shapes, 2, axis=0).astype(np.int32)
        heads, _ = jax.device_get(self.forward(self.variables, canvas, valid))
        for number, size in enumerate(sizes):
            for exponent, output in heads.items():
                rows = slice(2 * number, 2 * number + 2)
                part = type(output)(*(array[rows] for array in output))
                self.assert_outputs(part, f"{size}/{exponent}")

    def assert_complete(self):
        """Every source key was used or ignored for a known reason; none is left."""
        kept = sum(self.report.ignored.values()) + self.report.num_used
        assert kept == len(self.manifest["entries"])
        counted = sum(leaf.size for leaf in jax.tree.leaves(self.variables.params))
        assert counted == self.manifest["num_params_learn_p_false"]

    def assert_zoo_file(self, manifest, *, prefix):
        """A zoo's file of the same weights gives the same variables, and p = 1."""
        zoo = {}
        for key, shape, _ in manifest["entries"]:
            if key.startswith("last_linear."):
                value = self.state_dict[key.replace("last_linear", "classifier")]
                background = np.full((shape[0] - len(value), *shape[1:]), 7, np.float32)
                value = np.concatenate([background, value])
            else:
                value = self.state_dict[prefix + key]
            assert list(value.shape) == shape
            zoo[key] = value
        zoo, notes = drop_background(zoo)
        assert len(notes) == (manifest["entries"][-1][1][0] == 1001)
        variables, report = import_state_dict(zoo, backbone=self.name)
        assert report.num_used + sum(report.ignored.values()) == len(zoo)
        assert variables.pooling_exponent == 1
        variables = variables._replace(pooling_exponent=self.variables.pooling_exponent)
        jax.tree.map(np.testing.assert_array_equal, variables, self.variables)


@pytest.fixture(scope="session")
def make_golden_backbone(golden_dir, golden_manifest, golden_weights):
    """(name, taps) -> the `GoldenBackbone`."""

    def make(name, taps):
        with np.load(golden_dir / "models" / f"{name}.npz") as file:
            arrays = dict(file)
        manifest = golden_manifest(name)
        state_dict = golden_weights.state_dict(manifest["entries"], 0)
        return GoldenBackbone(
            name, manifest, state_dict, arrays, golden_weights.images, taps
        )

    return make


@pytest.fixture(scope="session")
def assert_canvas_is_exact():
    """A trunk gives images in one canvas what it gives each alone."""

    def check(trunk, sizes):
        rng = np.random.default_rng(0)

        def moved(leaf):
            # Biases that are not zero show where a mask after a norm is missing.
            shift = rng.uniform(0, 0.5, leaf.shape).astype(leaf.dtype)
            return leaf + shift if leaf.ndim == 1 else leaf

        trunk.eval()
        graphdef, params, stats = nnx.split(trunk, nnx.Param, nnx.BatchStat)
        params, stats = (
            jax.tree.map(moved, nnx.to_pure_dict(s)) for s in (params, stats)
        )
        run = jax.jit(lambda x, *arrays: nnx.merge(graphdef, *arrays)(x))
        images = [rng.standard_normal((*s, 3)).astype(np.float32) for s in sizes]
        canvas = np.full((len(sizes), *np.max(sizes, axis=0), 3), 9, np.float32)
        for row, image in zip(canvas, images, strict=True):
            row[: image.shape[0], : image.shape[1]] = image
        together = run(FeatureMap(canvas, jnp.asarray(sizes, jnp.int32)), params, stats)
        for number, image in enumerate(images):
            alone = run(FeatureMap(image[None]), params, stats)
            assert tuple(together.sizes[number]) == alone.values.shape[1:3]
            for exponent in (1.0, jnp.float32(3)):
                one = slice(number, number + 1)
                found = gem(together.values[one], exponent, sizes=together.sizes[one])
                golden = np.asarray(gem(alone.values, exponent))
                assert max_error(found, golden) < TOLERANCE

    return check


@pytest.fixture(scope="session")
def assert_joint_step_trains():
    """One joint step (four 33-pixel images, two instances) reaches every parameter."""

    def check(name):
        model = create_model(name, num_classes=5)
        graphdef, _, variables = split_for_training(model)
        mesh = make_mesh(1)
        tx = optax.trace(decay=0.0)  # keeps the gradients as its state
        step = make_train_step(
            graphdef,
            tx,
            mesh=mesh,
            seed=0,
            prepare_images=lambda key, images: images,
            select_pairs=partial(
                sample_pairs,
                negative_sampling="reference",
                group_size=4,
                max_positives=1,
            ),
            classification_weight=0.5,
        )
        state = put_replicated(mesh, create_state(variables, tx))
        images = np.random.default_rng(0).standard_normal((4, 33, 33, 3))
        batch = {
            "image": images.astype(np.float32),
            "label": np.arange(4, dtype=np.int32),
            "instance_id": np.arange(4, dtype=np.int32) // 2,
        }
        batch = put_batch(mesh, batch)
        # Compiling is nearly all of the time; unoptimised code takes a third less.
        options = {"xla_backend_optimization_level": 0}
        compiled = step.lower(state, batch).compile(compiler_options=options)
        state, metrics = compiled(state, batch)
        assert np.isfinite(metrics["loss"])
        gradients = jax.device_get(state.opt_state.trace)
        # With one positive and one negative pair active, those of beta cancel.
        assert np.isfinite(gradients.pop("margin")["beta"])
        for path, gradient in jax.tree.leaves_with_path(gradients):
            where = jax.tree_util.keystr(path)
            assert np.isfinite(gradient).all(), f"{where} has a gradient not finite"
            assert gradient.any(), f"{where} has no gradient"

    return check

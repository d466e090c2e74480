"""What the tests of several backbones share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.ops.pooling import gem

TOLERANCE = 2e-5


@pytest.fixture(scope="session")
def golden_arrays(golden_dir):
    """name -> the recorded arrays of a model."""

    def read(name):
        with np.load(golden_dir / "models" / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture(scope="session")
def compile_quickly():
    """(function, arguments) -> the compiled function, hardly optimised.

    Compiling is most of the time that large backbones take. Optimised code of them runs
    where converted weights are tested.
    """

    def compiled(function, *arguments):
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(function).lower(*arguments).compile(compiler_options=options)

    return compiled


@pytest.fixture(scope="session")
def assert_canvas_is_exact(compile_quickly):
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

        def forward(x, *arrays):
            return nnx.merge(graphdef, *arrays)(x)

        def run(*arguments):
            return compile_quickly(forward, *arguments)(*arguments)

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
                want = np.asarray(gem(alone.values, exponent))
                assert np.abs(found - want).max() < TOLERANCE * np.abs(want).max()

    return check

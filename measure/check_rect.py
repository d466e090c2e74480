"""Exactness of masked batches: every backbone at random sizes against one by one.

Twenty random images of 33 to 301 pixels a side lie on one canvas; each is also run
alone. Printed: the largest difference of embeddings and logits, relative to the
largest value, for p = 1 and p = 3. The limit is 2e-5. Weights are random, the batch
norms' means and biases too: what they make of zero must be masked. The one-by-one runs
compile once per size: minutes for the large backbones.

    python measure/check_rect.py
    python measure/check_rect.py --backbones resnet18,senet154 --num-sizes 5
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.terminal import outlive_readers

EXPONENTS = (1.0, 3.0)
LIMIT = 2e-5
SIDES = (33, 302)
# Compilation is most of the work.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def randomise(name: str, leaf: jax.Array, rng: np.random.Generator) -> jax.Array:
    """A leaf, or random values where the initial ones are all the same."""
    if name in ("bias", "mean"):
        return jnp.asarray(rng.normal(0.0, 0.2, leaf.shape), leaf.dtype)
    if name == "var":
        return jnp.asarray(rng.uniform(0.8, 1.2, leaf.shape), leaf.dtype)
    return leaf


def largest_differences(name: str, num_sizes: int) -> dict[str, float]:
    """The largest relative difference of each output, over all images."""
    model = create_model(name, num_classes=100, seed=0)
    model.eval()
    graphdef, variables = split_model(model)
    rng = np.random.default_rng(0)
    variables = jax.tree.map_with_path(
        lambda path, leaf: randomise(getattr(path[-1], "key", ""), leaf, rng), variables
    )
    sizes = rng.integers(*SIDES, (num_sizes, 2))
    height, width = (int(side) for side in sizes.max(axis=0))
    # What lies outside the image must not matter.
    canvas = rng.normal(size=(num_sizes, height, width, 3)).astype(np.float32)

    def outputs(variables, images, sizes=None):
        model = merge_model(graphdef, variables)
        features = model.features(images, sizes)
        heads = [model.head(features, exponent=exponent) for exponent in EXPONENTS]
        return {
            f"{what}, p = {exponent:g}": getattr(head, what)
            for exponent, head in zip(EXPONENTS, heads, strict=True)
            for what in ("embedding", "logits")
        }

    together = jax.jit(outputs)(variables, canvas, jnp.asarray(sizes, jnp.int32))
    alone = jax.jit(outputs, compiler_options=FAST_COMPILE)
    found: dict[str, float] = {}
    for row, (image_height, image_width) in enumerate(sizes):
        single = alone(variables, canvas[row : row + 1, :image_height, :image_width])
        for what, value in single.items():
            want = np.asarray(value[0])
            error = np.abs(np.asarray(together[what][row]) - want).max()
            found[what] = max(found.get(what, 0.0), float(error / np.abs(want).max()))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 if a difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    real = [name for name in BACKBONES if name != "tiny"]
    parser.add_argument("--backbones", default=",".join(real))
    parser.add_argument("--num-sizes", type=at_least(1), default=20)
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax"])
    worst = 0.0
    for number, name in enumerate(options.backbones.split(",")):
        started = time.perf_counter()
        found = largest_differences(name, options.num_sizes)
        if number == 0:
            print(f"{'backbone':<15}" + "".join(f"{what:>18}" for what in found))
        seconds = time.perf_counter() - started
        values = "".join(f"{value:18.1e}" for value in found.values())
        print(f"{name:<15}{values}   ({seconds:.0f} s)", flush=True)
        worst = max(worst, *found.values())
    print(f"largest {worst:.1e}, limit {LIMIT:.0e}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())

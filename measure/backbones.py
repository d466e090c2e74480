"""Time to compile and to run one batch of every backbone, forward only.

Once as it is trained and once as inference opens it, batch norms folded into the
convolutions; the rounds alternate. Seconds are the processor's, so that others' work on
a shared machine counts little; on one core (`taskset -c 0`) they are a run's.

python measure/backbones.py
python measure/backbones.py --size 64 --batch 1 resnet18 senet154
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from flax import nnx

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.multigrain import (
    BACKBONES,
    MultiGrain,
    Variables,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.runtime import compiler_options
from multigrain_jax.terminal import outlive_readers

# Descriptors that scatter less, of random images, tell no network from another one.
ALIKE = 1e-4
SMALLEST_VARIANCE = 1e-3


def with_statistics(model: MultiGrain) -> tuple[nnx.GraphDef, Variables]:
    """Fresh weights in evaluation mode, with the statistics that random images have.

    With fresh ones, 0 and 1, maps fade from layer to layer, and a deep network ends
    with the same descriptor for every image.
    """
    before = split_model(model)[1].batch_stats
    images = np.random.default_rng(1).standard_normal((4, 96, 96, 3), np.float32)
    model.train()
    nnx.jit(lambda model, images: model(images))(model, images)
    model.eval()
    graphdef, variables = split_model(model)

    def of_images(path: Any, old: jax.Array, new: jax.Array) -> np.ndarray:
        # A pass moves them by a tenth.
        found = np.asarray(old + 10 * (new - old), np.float32)
        # A dead channel has no variance.
        return np.maximum(found, SMALLEST_VARIANCE) if "var" in str(path) else found

    stats = jax.tree_util.tree_map_with_path(of_images, before, variables.batch_stats)
    return graphdef, variables._replace(batch_stats=stats)


def are_alike(descriptors: np.ndarray) -> bool:
    """Whether images [N, D] have all the same descriptor, to what `ALIKE` is."""
    return len(descriptors) > 1 and descriptors.std(axis=0).max() < ALIKE


class Measured(NamedTuple):
    """What is measured of one network; lists have a value as trained and one folded.

    Attributes:
        parameters: how many it has.
        difference: of unit-length embeddings, the largest; NaN where all images have
            one embedding, of which it would say nothing.
        compiling: seconds on the wall.
        running: the best round, in seconds of the processor.
    """

    parameters: int
    difference: float
    compiling: list[float]
    running: list[float]


def measure(name: str, *, size: int, batch: int, rounds: int) -> Measured:
    """Compile both, and run them in turn; the first round does not count."""
    trained = with_statistics(create_model(name))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3), np.float32)
    programs, compiling, embeddings = [], [], []
    for graphdef, variables in (trained, fold_batch_norms(*trained)):

        def forward(variables, images, graphdef=graphdef):
            return merge_model(graphdef, variables)(images)

        started = time.perf_counter()
        program = jax.jit(forward, compiler_options=compiler_options(BACKBONES[name]))
        compiled = program.lower(variables, images).compile()
        compiling.append(time.perf_counter() - started)
        programs.append(partial(compiled, jax.device_put(variables), images))
        embeddings.append(np.asarray(programs[-1]().normalized_embedding))
    runs = np.empty((rounds, 2))
    for times in runs:
        for number, run in enumerate(programs):
            started = time.process_time()
            jax.block_until_ready(run())
            times[number] = time.process_time() - started
    difference = float(np.abs(embeddings[0] - embeddings[1]).max())
    return Measured(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained[1].params)),
        difference=float("nan") if are_alike(embeddings[0]) else difference,
        compiling=compiling,
        running=runs.min(axis=0).tolist(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the machine, the versions and one row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--size", type=at_least(1), default=224)
    parser.add_argument("--batch", type=at_least(1), default=2)
    parser.add_argument("--rounds", type=at_least(1), default=3)
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax", "numpy"])
    print(
        f"batch {options.batch} at {options.size} x {options.size}, float32; as it is "
        "trained, and folded"
    )
    print(
        f"{'backbone':<17}{'parameters':>13}{'compile s':>13}{'CPU s':>16}{'ratio':>7}"
        f"{'images/CPU s':>14}{'difference':>12}"
    )
    for name in options.backbones:
        found = measure(
            name, size=options.size, batch=options.batch, rounds=options.rounds
        )
        compiling = "{:.1f} {:.1f}".format(*found.compiling)
        running = "{:.3f} {:.3f}".format(*found.running)
        ratio = found.running[0] / found.running[1]
        rates = "{:.1f} {:.1f}".format(*(options.batch / s for s in found.running))
        print(
            f"{name:<17}{found.parameters:>13,}{compiling:>13}{running:>16}"
            f"{ratio:>7.2f}{rates:>14}{found.difference:>12.1e}"
        )
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())

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
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from measure.machine import print_machine
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.runtime import compiler_options
from multigrain_jax.terminal import outlive_readers


class Measured(NamedTuple):
    """What is measured of one network; lists have a value as trained and one folded.

    Attributes:
        parameters: how many it has.
        difference: of unit-length embeddings, the largest.
        compiling: seconds on the wall.
        running: the best round, in seconds of the processor.
    """

    parameters: int
    difference: float
    compiling: list[float]
    running: list[float]


def measure(name: str, *, size: int, batch: int, rounds: int) -> Measured:
    """Compile both, and run them in turn; the first round does not count."""
    model = create_model(name)
    model.eval()
    trained = split_model(model)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        # Means near 0 and variances near 1, as maps of fresh weights have them.
        lambda leaf: leaf + rng.uniform(-0.1, 0.1, leaf.shape).astype(np.float32),
        trained[1].batch_stats,
    )
    trained = trained[0], trained[1]._replace(batch_stats=stats)
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
    return Measured(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained[1].params)),
        difference=float(np.abs(embeddings[0] - embeddings[1]).max()),
        compiling=compiling,
        running=runs.min(axis=0).tolist(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the machine, the versions and one row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
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

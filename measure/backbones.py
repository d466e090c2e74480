"""Time to compile and to run one batch of every backbone, forward only.

python measure/backbones.py
python measure/backbones.py --size 64 --batch 1 resnet18 senet154
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from measure.machine import print_machine
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.runtime import compiler_options
from multigrain_jax.terminal import outlive_readers


def measure(name: str, *, size: int, batch: int) -> tuple[int, float, float]:
    """Parameters, seconds to compile, and the best of three runs in seconds."""
    model = create_model(name)
    model.eval()
    graphdef, variables = split_model(model)
    images = np.zeros((batch, size, size, 3), np.float32)

    def forward(variables, images):
        return merge_model(graphdef, variables)(images)

    started = time.perf_counter()
    program = jax.jit(forward, compiler_options=compiler_options(BACKBONES[name]))
    compiled = program.lower(variables, images).compile()
    compile_seconds = time.perf_counter() - started
    runs = []
    for _ in range(4):
        started = time.perf_counter()
        jax.block_until_ready(compiled(variables, images))
        runs.append(time.perf_counter() - started)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
    return count, compile_seconds, min(runs[1:])


def main(arguments: list[str] | None = None) -> int:
    """Print the machine, the versions and one row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax", "numpy"])
    print(f"batch {options.batch} at {options.size} x {options.size}, float32")
    print(f"{'backbone':<15}{'parameters':>13}{'compile s':>11}{'run s':>9}")
    for name in options.backbones:
        count, compile_seconds, run_seconds = measure(
            name, size=options.size, batch=options.batch
        )
        print(f"{name:<15}{count:>13,}{compile_seconds:>11.1f}{run_seconds:>9.3f}")
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())

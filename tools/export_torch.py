"""Write a checkpoint in the original's PyTorch format.

python tools/export_torch.py workdirs/quickstart quickstart.pth
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Export; returns the exit code: 0 done, 2 bad input (nothing is written)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="workdir or step folder")
    parser.add_argument("destination", help="file to write, .pth")
    parser.add_argument("--step", type=int, help="step of a workdir (default: newest)")
    options = parser.parse_args(arguments)
    try:
        num_keys = export_checkpoint(
            options.checkpoint, options.destination, step=options.step
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{num_keys} keys written to {options.destination}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

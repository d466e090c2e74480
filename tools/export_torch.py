"""Write a checkpoint as a weight file of PyTorch's users.

python tools/export_torch.py workdirs/quickstart quickstart.pth
python tools/export_torch.py workdirs/folder folder.safetensors --layout timm
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.convert.layouts import LAYOUTS, ORIGINAL
from multigrain_jax.errors import InputError
from multigrain_jax.terminal import outlive_readers


def main(arguments: list[str] | None = None) -> int:
    """Export; returns the exit code: 0 done, 2 bad input (nothing is written)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="workdir or step folder")
    parser.add_argument("destination", help="file to write, .pth or .safetensors")
    parser.add_argument("--step", type=int, help="step of a workdir (default: newest)")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="the last weights, also where their running average is kept",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=ORIGINAL,
        help="whose keys: the original MultiGrain's (default), or a package's",
    )
    options = parser.parse_args(arguments)
    try:
        exported = export_checkpoint(
            options.checkpoint,
            options.destination,
            step=options.step,
            raw=options.raw,
            layout=options.layout,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in exported.left_out:
        print(f"left out: {line}")
    print(f"{exported.num_keys} keys written to {options.destination}")
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())

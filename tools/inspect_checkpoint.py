"""Print what a checkpoint holds, after verifying the digest of every leaf.

python tools/inspect_checkpoint.py workdirs/quickstart
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.checkpoint import describe_checkpoint
from multigrain_jax.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Verify and print; returns the exit code: 0 intact, 2 damaged or missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="workdir or step folder")
    parser.add_argument("--step", type=int, help="step of a workdir (default: newest)")
    options = parser.parse_args(arguments)
    try:
        description = describe_checkpoint(options.checkpoint, step=options.step)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    width = max(len(leaf.path) for leaf in description.leaves)
    for leaf in description.leaves:
        shape = f"{leaf.dtype}{list(leaf.shape)}"
        print(f"{leaf.path:<{width}}  {shape:<26}  {leaf.digest[:16]}")
    total = sum(leaf.num_bytes for leaf in description.leaves)
    print(f"\n{description.path}: {len(description.leaves)} leaves, {total:,} bytes")
    print(f"every digest verified; digest of all {description.digest}")
    print(json.dumps(description.meta, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

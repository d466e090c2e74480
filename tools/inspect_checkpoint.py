"""Print what a checkpoint holds, after verifying the digest of every leaf.

python tools/inspect_checkpoint.py workdirs/quickstart [--verify]
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.checkpoint import Description, describe_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.models.heads import HEAD_KEY, describe_head, head_from_json
from multigrain_jax.terminal import outlive_readers


def main(arguments: list[str] | None = None) -> int:
    """Verify and print; returns the exit code: 0 intact, 2 damaged or missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="workdir or step folder")
    parser.add_argument("--step", type=int, help="step of a workdir (default: newest)")
    parser.add_argument(
        "--verify", action="store_true", help="only verify, and say so in one line"
    )
    options = parser.parse_args(arguments)
    try:
        description = describe_checkpoint(options.checkpoint, step=options.step)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.verify:
        print(format_tree(description))
    print(f"every digest verified; digest of all {description.digest}")
    return 0


def format_tree(description: Description) -> str:
    """A line for each leaf, the sum of their sizes, and the meta with the config."""
    width = max(len(leaf.path) for leaf in description.leaves)
    lines = []
    for leaf in description.leaves:
        shape = f"{leaf.dtype}{list(leaf.shape)}"
        lines.append(f"{leaf.path:<{width}}  {shape:<26}  {leaf.digest[:16]}")
    total = sum(leaf.num_bytes for leaf in description.leaves)
    lines.append(f"\n{description.path}: {len(lines)} leaves, {total:,} bytes")
    if HEAD_KEY in description.meta:
        head = head_from_json(description.meta[HEAD_KEY])
        inputs = BACKBONES[description.meta["backbone"]].embedding_dim
        lines.append(f"descriptor head  {describe_head(head, inputs)}")
    lines.append(json.dumps(description.meta, indent=2))
    return "\n".join(lines)


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())

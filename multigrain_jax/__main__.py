"""`python -m multigrain_jax`: the command `multigrain`."""

import sys

from multigrain_jax import commands
from multigrain_jax.terminal import outlive_readers


def main() -> int:
    """Run the command of this process' arguments; returns the exit code."""
    outlive_readers()
    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

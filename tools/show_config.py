"""Print every key of a recipe as the command line resolves it, with what it means.

python tools/show_config.py --config configs/folder.py --config.seed=1

The arguments are those of `python -m multigrain_jax.main`. Comments are those of
configs/; a value that the command line sets is marked.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from absl import app, flags
from ml_collections import config_flags

from multigrain_jax import main as command_line
from multigrain_jax.recipe_text import format_config, read_comments
from multigrain_jax.terminal import outlive_readers


def main(argv: list[str]) -> int:
    """Print the resolved configuration; returns the exit code 0."""
    del argv
    config = command_line.CONFIG.value
    flag = flags.FLAGS["config"]
    overridden = set(config_flags.get_override_values(flag))
    file = Path(config_flags.get_config_filename(flag).partition(":")[0])
    print(format_config(config.to_dict(), read_comments(file), overridden))
    return 0


if __name__ == "__main__":
    outlive_readers()
    app.run(main, flags_parser=command_line.parse_flags)

"""The command line: `python -m multigrain_jax.main --config configs/NAME.py`.

The config's `task` says which entry runs. Exit codes: 0 done, 2 bad input or config,
3 stopped early and resumable, 1 anything else.
"""

import importlib
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from multigrain_jax.errors import InputError, StoppedEarly

# task -> module with run(config, workdir); imported only when it is asked for.
TASKS = {
    "train": "multigrain_jax.train.run",
    "finetune_pooling": "multigrain_jax.train.run_finetune_pooling",
    "sweep_pooling": "multigrain_jax.evaluation.run_sweep_pooling",
    "whiten": "multigrain_jax.evaluation.run_whiten",
    "eval_classification": "multigrain_jax.evaluation.run_classification",
    "eval_retrieval": "multigrain_jax.evaluation.run_retrieval",
    "embed": "multigrain_jax.evaluation.run_embed",
    "search": "multigrain_jax.evaluation.run_search",
    "near_duplicates": "multigrain_jax.evaluation.run_near_duplicates",
}

EXIT_BAD_INPUT = 2
EXIT_STOPPED_EARLY = 3

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe: a file of configs/; --config.key=value changes it."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where results go; workdirs/<name of the config> by default."
)


def default_workdir(config_file: str) -> Path:
    """`workdirs/<name>` for a config file given as `path/<name>.py[:argument]`."""
    return Path("workdirs") / Path(config_file.split(":")[0]).stem


def main(argv: list[str]) -> int:
    """Run the config's task; returns the exit code."""
    if len(argv) > 1:
        print(f"error: unexpected arguments {argv[1:]}", file=sys.stderr)
        return EXIT_BAD_INPUT
    config_file = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = Path(_WORKDIR.value or default_workdir(config_file)).absolute()
    config = _CONFIG.value
    # The libraries below report every step of a save as "info".
    logging.set_verbosity(logging.WARNING)
    try:
        if config.task not in TASKS:
            raise InputError(
                f"task: found {config.task!r}, expected one of {', '.join(TASKS)}"
            )
        importlib.import_module(TASKS[config.task]).run(config, workdir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except StoppedEarly as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return EXIT_STOPPED_EARLY
    return 0


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them ends the run with one line and code 2."""
    for argument in argv[1:]:
        # The recipes import each other as `configs.NAME`: make that work from anywhere.
        if argument.startswith("--config="):
            file = Path(argument.removeprefix("--config=").split(":")[0])
            sys.path.insert(0, str(file.absolute().parent.parent))
    try:
        arguments = flags.FLAGS(argv)
        if _CONFIG.value is None:
            raise InputError(
                "--config is missing: give a recipe, for example "
                "--config configs/quickstart.py"
            )
        # A file that cannot be loaded is only reported when the config is first used.
        _CONFIG.value.to_dict()
    except (flags.Error, InputError, OSError, AttributeError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    return arguments


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)

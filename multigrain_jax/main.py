"""The command line: `python -m multigrain_jax.main --config configs/NAME.py`.

The config's `task` says which entry runs. Exit codes: 0 done, 2 bad input or config,
3 stopped early and resumable, 1 anything else.
"""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, FieldReference, config_flags

from multigrain_jax.announce import run_announced
from multigrain_jax.buckets import local_or_bucket
from multigrain_jax.errors import (
    CheckpointNotSavedError,
    CheckpointUnreadableError,
    DataStalledError,
    InputError,
    StoppedEarly,
    TakenOver,
)
from multigrain_jax.growing_file import PASSING_ERRORS, free_space
from multigrain_jax.recipe_files import (
    find_recipe,
    first_line,
    load_recipe,
    nearest,
    recipes,
    summary,
)
from multigrain_jax.remedies import worded
from multigrain_jax.terminal import (
    changing,
    leave_now,
    leave_others,
    lets_others_fail,
    outlive_readers,
    print_any_name,
    quiet_libraries,
    renaming,
)

# task -> module with run(config, workdir); imported only when it is asked for.
TASKS = {
    "train": "multigrain_jax.tasks.train",
    "finetune_pooling": "multigrain_jax.tasks.finetune_pooling",
    "sweep_pooling": "multigrain_jax.tasks.sweep_pooling",
    "whiten": "multigrain_jax.tasks.whiten",
    "eval_classification": "multigrain_jax.tasks.eval_classification",
    "predict": "multigrain_jax.tasks.predict",
    "eval_retrieval": "multigrain_jax.tasks.eval_retrieval",
    "embed": "multigrain_jax.tasks.embed",
    "index": "multigrain_jax.tasks.index",
    "search": "multigrain_jax.tasks.search",
    "near_duplicates": "multigrain_jax.tasks.near_duplicates",
    "browse": "multigrain_jax.tasks.browse",
    "health": "multigrain_jax.tasks.health",
}

# Tasks that keep what they have done when they end early.
RESUMED = ("train", "embed", "index")
AGAIN = "; the same command goes on from what is complete"

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED_EARLY = 3

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe: a file of configs/; --config.key=value changes it."
)
_CONFIG_FLAGS = ("--config", "-config")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where results go, also gs:// or s3://; workdirs/<config> if unset.",
)
_QUIET = flags.DEFINE_bool("quiet", False, "Print warnings and errors alone.")
_JSON = flags.DEFINE_bool(
    "json", False, "Print the results as one object of JSON; the rest to stderr."
)


def default_workdir(config_file: str) -> Path:
    """`workdirs/<name>` for a config file given as `path/<name>.py[:argument]`."""
    return Path("workdirs") / Path(config_file.split(":")[0]).stem


@lets_others_fail(failures=(EXIT_FAILED, EXIT_BAD_INPUT))
def main(argv: list[str]) -> int:
    """Run the config's task; returns the exit code."""
    if len(argv) > 1:
        print(f"error: unexpected arguments {argv[1:]}", file=sys.stderr)
        return EXIT_BAD_INPUT
    config_file = config_flags.get_config_filename(flags.FLAGS["config"])
    print_any_name(sys.stdout)
    quiet_libraries()
    try:
        workdir = local_or_bucket(_WORKDIR.value or default_workdir(config_file))
    except InputError as error:
        print(f"error: --workdir: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    with renaming() if isinstance(workdir, str) else contextlib.nullcontext():
        return _run(CONFIG.value, workdir)


def _run(config: ConfigDict, workdir: Path | str) -> int:
    """Run the config's task in a folder or a bucket; returns the exit code."""
    try:
        if config.task not in TASKS:
            raise InputError(
                f"task: found {config.task!r}, expected one of {', '.join(TASKS)}"
            )
        # Not needed for --help, and importing JAX takes its time.
        from multigrain_jax.runtime import (
            import_for_good,
            keep_compiled_programs,
            raise_open_files,
        )

        raise_open_files()
        keep_compiled_programs()
        module = import_for_good(TASKS[config.task])
        run = module.run
        if isinstance(workdir, str):
            from multigrain_jax.tasks.on_bucket import run_on_bucket

            run = partial(run_on_bucket, run)
        run_announced(
            run,
            config,
            workdir,
            what=first_line(module.__doc__),
            quiet=_QUIET.value,
            as_json=_JSON.value,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        passing = isinstance(error, CheckpointUnreadableError)
        return EXIT_FAILED if passing else EXIT_BAD_INPUT
    except StoppedEarly as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        _leave_if_reading_hangs(EXIT_STOPPED_EARLY)
        if isinstance(stop, TakenOver):
            leave_others(EXIT_STOPPED_EARLY)
        return EXIT_STOPPED_EARLY
    except KeyboardInterrupt:
        resumed = config.task in RESUMED
        then = AGAIN if resumed else "; nothing that is incomplete was kept"
        print(f"stopped: by SIGINT (Ctrl-C){then}", file=sys.stderr)
        # Python would wait for threads, of which some may hang in the file system.
        leave_now(EXIT_STOPPED_EARLY if resumed else EXIT_FAILED)
    except DataStalledError as error:
        print(f"error: {error}", file=sys.stderr)
        leave_now(EXIT_FAILED)  # Python would wait for the thread that hangs
    except OSError as error:
        remedy = _remedy(error, workdir, task=config.task)
        if remedy is None:
            raise
        print(f"error: {error}{remedy}", file=sys.stderr)
        _leave_if_reading_hangs(EXIT_FAILED)
        return EXIT_FAILED
    return 0


def _remedy(error: OSError, workdir: Path | str, *, task: str) -> str | None:
    """What a user is told beside an error of the system; None: it has to be looked at.

    Args:
        error: what ended the run.
        workdir: where the run writes.
        task: the config's.
    """
    if isinstance(error, CheckpointNotSavedError):
        return ""
    if error.errno in PASSING_ERRORS:
        again = AGAIN if task in RESUMED else ""
        in_bucket = str(error.filename).startswith(("gs://", "s3://"))
        if in_bucket or isinstance(workdir, str):  # or this disk's: it says which
            return again
        return f"; {workdir}: {free_space(workdir)}{again}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "; raise the limit (ulimit -n) or set num_workers to 0"
    if error.errno is not None and error.filename is not None:
        return "; mend that place (its kind, its permissions), or name another"
    return None


def _leave_if_reading_hangs(code: int) -> None:
    from multigrain_jax.data.watchdog import end_if_reading_hangs

    end_if_reading_hangs(code)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them ends the run with one line and code 2."""
    if {"-h", "-help", "--help", "--helpshort"} & set(argv[1:]):
        print(_help())
        sys.exit(0)
    try:
        argv = with_found_recipe(argv)
        config = check_config_flags(argv)
        argv, unset = without_nones(argv, config)
        rest = flags.FLAGS(argv)
        for key in unset:
            *outer, name = key.split(".")
            part = CONFIG.value
            for inner in outer:
                part = part[inner]
            part[name] = None
        return rest
    except (flags.Error, InputError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def without_nones(argv: list[str], config: ConfigDict) -> tuple[list[str], set[str]]:
    """The arguments without those that set a key to None, and these keys.

    Only keys that may be None: the flags' parsers take the word for a name, or for a
    number that is none. Of several values of a key the last one counts.
    """
    optional = set(_optional_keys(config))
    kept, unset = argv[:1], set()
    words = iter(argv[1:])
    for word in words:
        name, given, value = word.partition("=")
        key = re.sub(r"^--?config\.", "", name) if name.startswith("-") else ""
        if key not in optional:
            kept.append(word)
            continue
        value = value if given else next(words, "")
        unset.discard(key)
        if value == "None":
            unset.add(key)
        else:
            kept.append(f"{name}={value}")
    return kept, unset


def _optional_keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """The dotted keys that a recipe states as placeholders: they may be None."""
    for name, value in config.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            yield from _optional_keys(value, f"{prefix}{name}.")
        elif isinstance(value, FieldReference):
            yield prefix + name


def check_config_flags(argv: list[str]) -> ConfigDict:
    """Load the recipe and look up the keys that the command line sets; the recipe.

    Raises:
        InputError: no recipe, one that cannot be loaded, or a key that it lacks.
    """
    given = _config_argument(argv)
    if not given:
        flags.FLAGS(argv)  # which reports a flag that is not known
        raise InputError(
            "--config is missing: give a recipe, for example --config "
            "configs/quickstart.py; --help lists them"
        )
    config = load_recipe(given)
    for text in argv[1:]:
        name = text.lstrip("-").partition("=")[0]
        if text.startswith("-") and name.startswith("config."):
            _check_key(config, name.removeprefix("config."))
    return config


def with_found_recipe(argv: list[str]) -> list[str]:
    """The arguments, with the file that --config means in place of its name.

    Raises:
        InputError: there is no such recipe.
    """
    words = list(argv)
    for place, word in enumerate(argv[1:], start=1):
        name, given, value = word.partition("=")
        if name in _CONFIG_FLAGS and given:
            words[place] = f"{name}={find_recipe(value)}"
        elif name in _CONFIG_FLAGS and place + 1 < len(argv):
            words[place + 1] = find_recipe(argv[place + 1])
    return words


def _config_argument(argv: list[str]) -> str | None:
    """What follows --config, as a word of its own or behind an equals sign."""
    for text, following in zip(argv[1:], [*argv[2:], None], strict=False):
        name, given, value = text.partition("=")
        if name in _CONFIG_FLAGS:
            return value if given else following
    return None


def _check_key(config: Mapping[str, Any], key: str) -> None:
    """Raise an InputError that suggests the nearest, if the config lacks the key."""
    value: Any = config
    parts = [part.partition("[")[0] for part in key.split(".")]
    for depth, part in enumerate(parts):
        outer = ".".join(["config", *parts[:depth]])
        if not hasattr(value, "keys"):
            raise InputError(f"--config.{key}: {outer} is one value, without parts")
        if part not in value:
            raise InputError(
                f"--config.{key}: {outer} has no key {part!r}{nearest(part, value)}; "
                f"its keys are {', '.join(value)}"
            )
        value = value[part]


def _help() -> str:
    """The tasks and the recipes, each with the first line of its file."""
    package = Path(__file__).parent
    tasks = {
        name: package / f"{module.partition('.')[2].replace('.', '/')}.py"
        for name, module in TASKS.items()
    }
    listed = [f"  {path.name:<22}{summary(path)}" for path in recipes()]
    return "\n".join(
        [
            "python -m multigrain_jax.main --config configs/NAME.py[:ARGUMENT]",
            "    [--workdir DIR] [--config.KEY=VALUE ...] [--quiet] [--json]",
            "",
            "Runs the recipe's task. Results go to workdirs/NAME, or to --workdir.",
            "--quiet prints warnings and errors alone, --json the results as JSON.",
            "multigrain recipes NAME prints every key of one, with what it means.",
            "",
            "recipes:",
            *listed,
            "",
            "tasks (config.task):",
            *(f"  {name:<22}{summary(path)}" for name, path in tasks.items()),
            "",
            "exit codes: 0 done, 2 bad input or config, 3 stopped early and resumable,",
            "1 anything else.",
        ]
    )


if __name__ == "__main__":
    outlive_readers()
    with changing(worded):
        app.run(main, flags_parser=parse_flags)

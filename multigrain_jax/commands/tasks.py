"""Commands over recipes: their words become flags of `multigrain_jax.main`."""

import shlex
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import find_recipe, load_recipe, nearest, summary
from multigrain_jax.recipe_text import read_comments
from multigrain_jax.remedies import flag_of
from multigrain_jax.tasks.bounds import leaves


class Command(NamedTuple):
    """An everyday task.

    Attributes:
        recipe: what it runs, unless --recipe names another.
        summary: what it does, for who does not know the words of the field.
        takes: the keys that its words without a name are given to, in this order.
        needs: so many of them must be there.
        keys: those that matter most; its help explains them.
        example: arguments.
        presets: keys it sets where nothing else does.
        of_photos: its workdir where `database` is a folder of photos; "": as always.
    """

    recipe: str
    summary: str
    takes: tuple[str, ...]
    needs: int
    keys: tuple[str, ...]
    example: str
    presets: Mapping[str, str] = {}
    of_photos: str = ""


ANY_RECIPE = "run"
COLLECTION = {"database": "workdirs/embed"}
COMMANDS: Mapping[str, Command] = {
    "embed": Command(
        "embed",
        "make a descriptor of every photo in a folder",
        takes=("data.root",),
        needs=1,
        keys=("init_from", "test_size", "batch_size", "num_workers", "data.exclude"),
        example="~/photos --init-from weights/joint_3B_0.5",
    ),
    "search": Command(
        "search",
        "find the photos most similar to one, or to each of a folder",
        takes=("queries", "database"),
        needs=1,
        keys=(
            "database",
            "num_neighbours",
            "init_from",
            "data.root",
            "query_expansion.num_neighbours",
        ),
        example="holiday.jpg --num-neighbours 20",
        presets=COLLECTION,
    ),
    "duplicates": Command(
        "near_duplicates",
        "group photos that are nearly the same, also without a network",
        takes=("database",),
        needs=0,
        keys=("database", "threshold", "hashes", "hash_distance", "linkage"),
        example="~/photos --hash-distance 20",
        presets=COLLECTION,
        of_photos="workdirs/duplicates",
    ),
    "browse": Command(
        "browse",
        "serve a page: drop a photo, look through, review duplicates",
        takes=("database",),
        needs=0,
        keys=("port", "host", "allow_moves", "restore", "open_browser"),
        example="workdirs/embed --port 8000",
        presets=COLLECTION,
    ),
    "health": Command(
        "health",
        "list likely mislabels, outliers, dark, blurred and tiny photos",
        takes=("database",),
        needs=0,
        keys=(
            "num_neighbours",
            "look_at_photos",
            "dark_below",
            "blurred_above",
            "data.root",
        ),
        example="workdirs/embed --look-at-photos False",
        presets=COLLECTION,
    ),
    "train": Command(
        "folder",
        "train a network on a folder of photos, a subfolder for each class",
        takes=("data.root",),
        needs=1,
        keys=(
            "pretrained_backbone",
            "train_size",
            "num_epochs",
            "batch_size",
            "learning_rate",
        ),
        example="~/photos --num-epochs 30",
    ),
    "predict": Command(
        "predict",
        "say which classes a trained network sees in a photo or a folder",
        takes=("data.root",),
        needs=1,
        keys=("init_from", "test_size", "test_mode", "batch_size", "data.exclude"),
        example="one.jpg --init-from workdirs/folder",
    ),
    "evaluate": Command(
        "eval_imagenet",
        "accuracy of a checkpoint on a folder of photos with classes",
        takes=("init_from", "data.root"),
        needs=2,
        keys=(
            "test_size",
            "test_mode",
            "pooling_exponent",
            "data.split",
            "data.val_fraction",
        ),
        example="workdirs/folder ~/photos",
        # What a training of that folder has held out, where it has no "val".
        presets={"data.source": "folder", "data.val_fraction": "0.15"}
        | dict.fromkeys(("test_size", "test_mode", "pooling_exponent"), "auto"),
    ),
}
_NO_VALUE = {"--dry-run"}
# Flags of the command line itself, which are no keys of a recipe.
_TOLD_AS_THEY_ARE = {"--quiet", "--json"}
# What may follow a switch, which alone is True.
_TRUTHS = {"True", "False", "true", "false"}


def main(name: str, words: list[str]) -> int:
    """Run a command; returns the exit code of `multigrain_jax.main`.

    Args:
        name: of `COMMANDS`, or `ANY_RECIPE`, whose first word is a recipe.
        words: what follows it on the command line.

    Raises:
        InputError: words that it does not know.
    """
    asks_help = bool({"-h", "--help"} & set(words))
    if name == ANY_RECIPE:
        if not words or words[0].startswith("-"):
            print("multigrain run RECIPE[:ARGUMENT] [--KEY VALUE …]")
            print("\nmultigrain recipes: which there are; with a name: its keys")
            return 0 if asks_help else 2
        command = Command(words[0], "", takes=(), needs=0, keys=(), example="")
        words = words[1:]
    else:
        command = COMMANDS[name]
    if asks_help:
        print(_help(name, command))
        return 0
    arguments = translate(name, command, words)
    if "--dry-run" in words:
        print(shlex.join(["python", "-m", "multigrain_jax.main", *arguments]))
        return 0
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    """As `python -m multigrain_jax.main` does with these arguments."""
    from absl import app

    from multigrain_jax import main as command_line

    # The flags of a config are looked for there, whatever `run` is given.
    sys.argv = ["multigrain", *arguments]
    try:
        app.run(
            command_line.main,
            argv=sys.argv,
            flags_parser=command_line.parse_flags,
        )
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def translate(name: str, command: Command, words: list[str]) -> list[str]:
    """The arguments of `multigrain_jax.main` that a command's words mean.

    Raises:
        InputError: a key that the recipe lacks, a word too many, or one missing.
    """
    recipe, words = _recipe(command, words)
    keys = dict(leaves(load_recipe(find_recipe(recipe)).to_dict()))
    plain, flags, given = [], [], {}
    for key, text in _pairs(words, keys):
        if key is None:
            plain.append(text)
        elif key in _TOLD_AS_THEY_ARE:
            flags.append(key)
        elif key == "workdir":
            given[key] = text
            flags.append(f"--workdir={text}")
        else:
            given[key] = text
            flags.append(f"--config.{key}={text}")
    if len(plain) > len(command.takes):
        extra = plain[len(command.takes)]
        raise InputError(
            f"{name}: {extra!r} is one word too many; {_usage(name, command)}"
        )
    # What a word names is named once.
    for key, text in zip(command.takes, plain, strict=False):
        if key in given:
            raise InputError(
                f"{name}: {text!r} and --{flag_of(key)} say the same; leave one out"
            )
        given[key] = text
        flags.append(f"--config.{key}={text}")
    missing = [key for key in command.takes[: command.needs] if key not in given]
    if missing:
        raise InputError(
            f"{name}: {_word(missing[0])} is missing; {_usage(name, command)}"
        )
    if command.of_photos and "workdir" not in given:
        from multigrain_jax.tasks.photo_duplicates import names_photos

        if names_photos(given.get("database", "")):
            flags.append(f"--workdir={command.of_photos}")
    preset = [f"--config.{k}={v}" for k, v in command.presets.items() if k not in given]
    return ["--config", recipe, *preset, *flags]


def _recipe(command: Command, words: list[str]) -> tuple[str, list[str]]:
    """The recipe that --recipe names, or the command's, and the other words."""
    recipe, rest, following = command.recipe, [], iter(words)
    for word in following:
        name, given, value = word.partition("=")
        if name == "--recipe":
            recipe = value if given else next(following, "")
        else:
            rest.append(word)
    if not recipe:
        raise InputError("--recipe: found nothing behind it, expected a recipe's name")
    return recipe, rest


def _pairs(
    words: list[str], keys: Mapping[str, Any]
) -> Iterator[tuple[str | None, str]]:
    """Of each flag its key and value; of a word without a name None and itself."""
    following = deque(words)
    while following:
        word = following.popleft()
        if word in _NO_VALUE:
            continue
        if word in _TOLD_AS_THEY_ARE:
            yield word, ""
            continue
        if not word.startswith("--"):
            yield None, word
            continue
        flag, given, value = word.removeprefix("--").partition("=")
        key, negated = _key(flag, keys)
        is_switch = isinstance(keys.get(key), bool)
        if negated and given:
            raise InputError(f"{word}: --no-… takes no value")
        if is_switch and not given:
            told = following and following[0] in _TRUTHS and not negated
            value = following.popleft() if told else str(not negated)
        elif not given:
            if not following:
                raise InputError(f"{word}: found nothing behind it, expected a value")
            value = following.popleft()
        yield key, value


def _key(flag: str, keys: Mapping[str, Any]) -> tuple[str, bool]:
    """The key that a flag means, and whether it is negated: `--no-verify`."""
    wanted = flag.removeprefix("config.").replace("-", "_")
    if wanted == "workdir":
        return wanted, False
    names = {key.replace(".", "_"): key for key in keys}
    for name, negated in ((wanted, False), (wanted.removeprefix("no_"), True)):
        key = names.get(name.replace(".", "_"))
        if key is not None and (not negated or isinstance(keys[key], bool)):
            return key, negated
    flags = [flag_of(key) for key in keys]
    raise InputError(
        f"--{flag}: the recipe has no such key{nearest(flag, flags)}; "
        "multigrain recipes NAME lists them"
    )


def _word(key: str) -> str:
    return {"data.root": "PHOTOS", "init_from": "CHECKPOINT"}.get(
        key, key.rpartition(".")[2].upper()
    )


def _usage(name: str, command: Command) -> str:
    words = [
        _word(key) if place < command.needs else f"[{_word(key)}]"
        for place, key in enumerate(command.takes)
    ]
    return " ".join(["multigrain", name, *words, "[--KEY VALUE …]"])


def _help(name: str, command: Command) -> str:
    """What a command takes, the keys that matter with their defaults, an example."""
    found = find_recipe(command.recipe)
    file = Path(found.partition(":")[0])
    values = dict(leaves(load_recipe(found).to_dict()))
    comments = read_comments(file)
    if name == ANY_RECIPE:
        return f"multigrain run {command.recipe} [--KEY VALUE …]\n\n{summary(file)}"
    of_photos = command.of_photos and f"; of photos {command.of_photos}"
    lines = [_usage(name, command), "", f"{command.summary.capitalize()}.", ""]
    for key in command.keys:
        value = command.presets.get(key, values[key])
        lines.append(f"  --{flag_of(key)} ({value})")
        comment = comments.get(key)
        said = [] if comment is None else [*comment.above, comment.behind]
        lines += [f"      {line}" for line in said if line]
    return "\n".join(
        [
            *lines,
            "  --workdir DIR",
            f"      where results go (workdirs/{file.stem}{of_photos})",
            "  --quiet, --json",
            "      print warnings and errors alone; the results as one object of JSON",
            "",
            f"multigrain {name} {command.example}",
            "",
            f"multigrain recipes {file.stem} lists every key, each of which is a flag;",
            f"multigrain {name} … --dry-run prints the command that it stands for.",
        ]
    )

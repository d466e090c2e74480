"""Commands over recipes: what their words become, and what is wrong with them."""

import shlex
import sys

import pytest
from absl import app

from multigrain_jax import commands, main
from multigrain_jax.commands.tasks import COMMANDS, translate
from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import find_recipe
from multigrain_jax.tasks.bounds import leaves


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_of_commands_are_of_their_recipes(name):
    command = COMMANDS[name]
    keys = dict(leaves(main.load_recipe(find_recipe(command.recipe)).to_dict()))
    assert {*command.takes, *command.keys, *command.presets} <= set(keys)
    assert len(set(command.keys)) == 5
    # Its example is one, and sets what the recipe knows.
    words = translate(name, command, shlex.split(command.example))
    assert main.check_config_flags(["multigrain", "--config", find_recipe(words[1])])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_each_key_in_the_words_of_the_recipe(name, capsys):
    assert commands.main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for key in COMMANDS[name].keys:
        flag = f"  --{key.replace('_', '-').replace('.', '-')} ("
        assert any(line.startswith(flag) for line in lines)
    assert f"multigrain {name} {COMMANDS[name].example}" in lines


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("embed ~/p", ["data.root=~/p"]),
        ("embed p --test-size 224", ["test_size=224", "data.root=p"]),
        ("embed p --test_size=224", ["test_size=224", "data.root=p"]),
        ("embed --config.test_size=224 p", ["test_size=224", "data.root=p"]),
        ("embed p --test-size (352,500)", ["test_size=(352,500)", "data.root=p"]),
        ("embed --data-root p", ["data.root=p"]),
        ("embed --data.root=p --verify", ["data.root=p", "verify=True"]),
        ("embed --no-verify p", ["verify=False", "data.root=p"]),
        ("embed --verify False p", ["verify=False", "data.root=p"]),
        ("embed --verify p", ["verify=True", "data.root=p"]),
        ("embed p --verify=False", ["verify=False", "data.root=p"]),
        ("search q", ["database=workdirs/embed", "queries=q"]),
        ("search q other", ["queries=q", "database=other"]),
        ("search q --database other", ["database=other", "queries=q"]),
        ("browse", ["database=workdirs/embed"]),
        (
            "evaluate w p --data-val-fraction 0",
            [
                "data.source=folder",
                "test_size=auto",
                "test_mode=auto",
                "pooling_exponent=auto",
                "data.val_fraction=0",
                "init_from=w",
                "data.root=p",
            ],
        ),
    ],
)
def test_words_become_flags(line, flags):
    name, *words = line.split()
    expected = ["--config", COMMANDS[name].recipe]
    expected += [f"--config.{flag}" for flag in flags]
    assert translate(name, COMMANDS[name], words) == expected


def test_duplicates_of_photos_and_of_a_collection_do_not_share_a_workdir(tmp_path):
    (tmp_path / "1.png").touch()

    def workdir(*words):
        found = translate("duplicates", COMMANDS["duplicates"], list(words))
        return [flag for flag in found if flag.startswith("--workdir")]

    assert workdir(str(tmp_path)) == ["--workdir=workdirs/duplicates"]
    assert workdir("--database", str(tmp_path)) == ["--workdir=workdirs/duplicates"]
    assert workdir(str(tmp_path), "--workdir", "own") == ["--workdir=own"]
    (tmp_path / "config.json").write_text('{"task": "embed"}')
    for words in ([], [str(tmp_path)], [str(tmp_path / "nowhere")], ["gs:"]):
        assert workdir(*words) == []


def test_what_is_evaluated_is_what_training_has_held_out():
    keys = dict(leaves(main.load_recipe(find_recipe("folder")).to_dict()))
    held_out = COMMANDS["evaluate"].presets["data.val_fraction"]
    assert float(held_out) == keys["data.val_fraction"]


def test_how_much_is_printed_is_no_key_of_a_recipe():
    words = ["p", "--quiet", "--json", "--test-size", "96"]
    found = translate("embed", COMMANDS["embed"], words)
    expected = ["--quiet", "--json", "--config.test_size=96", "--config.data.root=p"]
    assert found == ["--config", "embed", *expected]


def test_another_recipe_and_workdir_can_be_named():
    words = ["p", "--recipe", "folder:0", "--workdir", "out", "--lambda-x", "1"]
    with pytest.raises(InputError, match="--lambda-x: the recipe has no such key"):
        translate("train", COMMANDS["train"], words)
    found = translate("train", COMMANDS["train"], words[:-2])
    assert found == ["--config", "folder:0", "--workdir=out", "--config.data.root=p"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("embd p", "there is no command 'embd' (did you mean 'embed'?)"),
        ("embed", "PHOTOS is missing; multigrain embed PHOTOS [--KEY VALUE …]"),
        ("evaluate w", "PHOTOS is missing; multigrain evaluate CHECKPOINT PHOTOS"),
        ("search a b c", "'c' is one word too many; multigrain search QUERIES [DATA"),
        ("search a --queries b", "'a' and --queries say the same"),
        ("embed p --tst-size 3", "no such key (did you mean 'test-size'?)"),
        ("embed p --test-size", "--test-size: found nothing behind it"),
        ("embed p --no-test-size", "--no-test-size: the recipe has no such key"),
        ("embed p --no-verify=True", "--no-verify=True: --no-… takes no value"),
        ("embed p --recipe", "--recipe: found nothing behind it"),
        ("embed p --recipe emed", "there is no file emed; the recipes are base, "),
        ("run emed", "(did you mean 'embed'?)"),
        ("recipes a b", "recipes: ['a', 'b'] is more than it takes"),
    ],
)
def test_mistakes_are_one_line(line, said, capsys):
    assert commands.main(line.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and said in printed
    assert printed.count("\n") == 1


def test_flags_are_where_those_of_a_config_are_looked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["multigrain", "embed", "p"])
    monkeypatch.setattr(app, "run", lambda main, *, argv, **_: seen.append(argv))
    assert commands.main(["embed", "p", "--init-from", "w"]) == 0
    flags = ["--config", "embed", "--config.init_from=w", "--config.data.root=p"]
    assert seen == [["multigrain", *flags]] == [sys.argv]


def test_a_dry_run_prints_the_command(capsys):
    assert commands.main(["search", "a b.jpg", "--dry-run"]) == 0
    assert capsys.readouterr().out == (
        "python -m multigrain_jax.main --config search "
        "--config.database=workdirs/embed '--config.queries=a b.jpg'\n"
    )

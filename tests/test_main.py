"""The command line: help, and mistakes that end in one line with a suggestion."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from helpers.photos import write_plain_photos
from ml_collections import ConfigDict

from multigrain_jax import main, runtime
from multigrain_jax.errors import (
    CheckpointUnreadableError,
    InputError,
    StoppedEarly,
    TakenOver,
)
from multigrain_jax.tasks.bounds import leaves

ROOT = Path(__file__).parents[1]


def parse(monkeypatch, *arguments, folder=ROOT):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main.parse_flags(["main", *arguments])
    return ended.value.code


def test_help_lists_every_task_and_recipe(monkeypatch, capsys):
    assert parse(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for name in main.TASKS:
        assert f"\n  {name} " in printed
    for path in (ROOT / "configs").glob("[a-z]*.py"):
        assert f"\n  {path.name} " in printed
    assert "\n  embed.py              Descriptors of one's own photos" in printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_can_be_printed(encoding):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    main.print_any_name(stream)
    print("/photos/\udcff é", file=stream, flush=True)
    assert written.getvalue().decode(encoding).startswith("/photos/\\udcff ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "multigrain_jax.main", "--help"],
        ["tools/show_config.py", "--config", "configs/quickstart.py"],
    ],
)
def test_a_reader_that_leaves_early_is_no_error(arguments, unbuffered):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/quickstrat.py"], "(did you mean 'quickstart'?)"),
        (["--config=configs/xyz.py"], "no file configs/xyz.py; the recipes are base, "),
        (["--config=nowhere/a.py"], "no file nowhere/a.py; the recipes are base, "),
        (["--config=configs/joint_3B.py:x"], "ValueError: could not convert string"),
        (
            ["--config=configs/eval_retrieval.py:holiday"],
            "for the argument 'holiday': benchmark: found 'holiday', expected one",
        ),
        (
            ["--config", "configs/folder.py", "--config.data.rooot=x"],
            "config.data has no key 'rooot' (did you mean 'root'?); its keys are ",
        ),
        (
            ["--config=configs/search.py", "--config.score_normalization.wait=x"],
            "config.score_normalization has no key 'wait'",
        ),
        (["--config=configs/base.py", "--config.seed.x=1"], "config.seed is one value"),
        (["--confg=configs/base.py"], "Did you mean: config ?"),
        ([], "--config is missing"),
    ],
)
def test_mistakes_are_one_line_with_a_suggestion(
    monkeypatch, capsys, arguments, message
):
    assert parse(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed
    assert "Traceback" not in printed and printed.count("\n") == 1


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("[a-z]*.py")))
def test_none_is_none_for_every_key_that_can_be(recipe):
    config = main.load_recipe(str(recipe))
    # Whatever a recipe leaves empty can be empty, and its text says what else can.
    empty = {key for key, value in leaves(config.to_dict()) if value is None}
    optional = set(main._optional_keys(config))
    assert optional >= empty
    given = [f"--config.{key}=None" for key in sorted(optional)]
    kept, unset = main.without_nones(["main", *given, "--config.task=None"], config)
    assert (kept, unset) == (["main", "--config.task=None"], optional)


def test_of_several_values_of_a_key_the_last_one_counts():
    config = main.load_recipe(str(ROOT / "configs" / "folder.py"))
    key = "--config.data.val_split"
    kept, unset = main.without_nones(["main", f"{key}=None", key, "test"], config)
    assert (kept, unset) == (["main", f"{key}=test"], set())
    kept, unset = main.without_nones(["main", f"{key}=test", key, "None"], config)
    assert (kept, unset) == (["main", f"{key}=test"], {"data.val_split"})


def test_the_command_line_can_unset_keys_and_knows_the_home(tmp_path):
    """In a process of its own: flags are read once."""
    arguments = ["--config", "configs/folder.py", "--workdir", "~/out"]
    arguments += ["--config.data.val_split=None", "--config.data.num_images", "None"]
    arguments += ["--config.report_split=None", "--config.data.root=~/photos"]
    for name in ("ant", "bee"):
        write_plain_photos(tmp_path / "photos" / name, ["0.png"])
    code = (
        "import sys\n"
        "from absl import app\n"
        "from multigrain_jax import main\n"
        "from multigrain_jax.tasks import train\n"
        "train.run = lambda config, workdir: print(workdir, config.data.val_split, "
        "config.data.num_images, config.report_split)\n"
        "app.run(main.main, flags_parser=main.parse_flags)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{tmp_path / 'out'} None None None" in done.stdout.splitlines()


def test_a_recipe_elsewhere_finds_the_ones_it_builds_on(monkeypatch, tmp_path, capsys):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    away = tmp_path / "away"
    away.mkdir()
    arguments = ["--config", f"{tmp_path}/configs/joint_1B.py", "--config.nothing=1"]
    assert parse(monkeypatch, *arguments, folder=away) == 2
    assert "config has no key 'nothing'" in capsys.readouterr().err
    assert str(tmp_path) in sys.path


@pytest.fixture
def command(tmp_path, monkeypatch):
    """What `main` makes of an error that ends a task."""

    def main_of(task, error):
        def run(config, workdir):
            raise error

        monkeypatch.setitem(sys.modules, "failing_task", SimpleNamespace(run=run))
        monkeypatch.setitem(main.TASKS, task, "failing_task")
        config = SimpleNamespace(value=ConfigDict({"task": task}))
        monkeypatch.setattr(main, "CONFIG", config)
        for flag in ("_QUIET", "_JSON"):
            monkeypatch.setattr(main, flag, SimpleNamespace(value=False))
        monkeypatch.setattr(main, "_WORKDIR", SimpleNamespace(value=str(tmp_path)))
        monkeypatch.setattr(
            main.config_flags, "get_config_filename", lambda flag: "configs/folder.py"
        )
        monkeypatch.setattr(runtime, "keep_compiled_programs", lambda: None)
        return main.main(["main"])

    return main_of


@pytest.mark.parametrize(
    ("error", "code"), [(InputError, 2), (CheckpointUnreadableError, 1)]
)
def test_a_storage_that_fails_is_no_bad_input(command, capsys, error, code):
    assert command("train", error("what is wrong")) == code
    assert capsys.readouterr().err == "error: what is wrong\n"


@pytest.mark.parametrize(
    "error", [FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError]
)
def test_a_place_that_is_not_what_it_should_be_is_one_line(command, capsys, error):
    """Such as a file in the checkpoints' place; what names no place is looked at."""
    number = {FileExistsError: errno.EEXIST, NotADirectoryError: errno.ENOTDIR}
    number |= {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}
    reason = os.strerror(number[error])
    assert command("train", error(number[error], reason, "/run/checkpoints")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: [Errno ") and "'/run/checkpoints'; mend" in line
    with pytest.raises(error):
        command("train", error("of a library"))


@pytest.mark.parametrize("error", [StoppedEarly, TakenOver])
@pytest.mark.parametrize("hosts", [1, 2])
def test_what_one_host_notices_ends_the_others(
    command, monkeypatch, capsys, error, hosts
):
    """Which would wait for it for minutes; what all agree on, each of them does."""
    left = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: hosts > 1)
    monkeypatch.setattr(os, "_exit", left.append)
    assert command("embed", error("taken")) == 3
    assert left == ([3] if error is TakenOver and hosts == 2 else [])
    assert capsys.readouterr().err == "stopped: taken\n"


@pytest.mark.parametrize(("task", "code"), [("embed", 3), ("whiten", 1)])
def test_ctrl_c_is_one_line(command, monkeypatch, capsys, task, code):
    """And the process ends without waiting for threads."""
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        command(task, KeyboardInterrupt())
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stopped: by SIGINT (Ctrl-C); ")
    assert ("the same command goes on" in line) == (code == 3)


def test_a_bucket_that_does_not_answer_is_told_without_the_room_on_the_disk(tmp_path):
    def told(place: str, task: str) -> str | None:
        error = OSError(errno.ETIMEDOUT, "no answer of the storage for 60 s", place)
        return main._remedy(error, tmp_path, task=task)

    assert told("gs://b/photos", "search") == ""
    assert told("s3://b/photos", "embed") == main.AGAIN
    assert "free" in (told(str(tmp_path), "search") or "")

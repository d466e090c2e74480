"""What every task does first: paths without ~, and a workdir of its own."""

import importlib
import inspect
import json
import os
import re
import socket
from pathlib import Path

import jax
import pytest
from helpers.photos import write_plain_photos

from configs import (
    base,
    embed,
    eval_base,
    eval_retrieval,
    finetune_p,
    health,
    index,
    near_duplicates,
    predict,
    search,
    sweep_p,
    whiten,
)
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.lock import LOCK_FILE, lock_workdir
from multigrain_jax.main import TASKS
from multigrain_jax.tasks import prepare as prepare_module
from multigrain_jax.tasks.bounds import leaves
from multigrain_jax.tasks.prepare import (
    MARKS,
    PATH_KEYS,
    leave_if_taken,
    one_writer,
    prepare,
    save_model,
)

RECIPES = (
    base,
    embed,
    eval_base,
    eval_retrieval,
    finetune_p,
    health,
    index,
    near_duplicates,
    predict,
    search,
    sweep_p,
    whiten,
)


def keys_of(config):
    return {key for key, _ in leaves(config.to_dict())}


def put(config, key, value):
    *outer, name = key.split(".")
    for inner in outer:
        config = config[inner]
    config[name] = value


def value_of(config, key):
    return dict(leaves(config.to_dict()))[key]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_path_begins_at_home(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ant")
    config = recipe.get_config()
    paths = keys_of(config) & set(PATH_KEYS)
    assert paths
    for key in paths:
        put(config, key, "~/x")
    prepared = prepare(config, tmp_path / "workdir")
    assert {value_of(prepared, key) for key in paths} == {"/home/ant/x"}
    assert {value_of(config, key) for key in paths} == {"~/x"}


def test_every_key_that_may_hold_a_path_is_known():
    benchmarks = ("copydays", "disc21", "holidays", "roxford5k", "ukbench")
    configs = [recipe.get_config() for recipe in RECIPES]
    configs += [eval_retrieval.get_config(name) for name in benchmarks]
    texts = {key for config in configs for key, value in leaves(config.to_dict())}
    assert set(PATH_KEYS) <= texts
    # What else a key can be left out of: numbers, splits, and other hosts.
    none = {k for c in configs for k, v in leaves(c.to_dict()) if v is None}
    numbers = {"num_", "_step", "_exponent", "max_train", "distributed.", "split"}
    numbers |= {"local_cache_gb", "ema_decay", "data.instances", "test_size"}
    numbers |= {"test_mode"}  # a word
    others = {key for key in none if any(word in key for word in numbers)}
    assert none - others == set(PATH_KEYS)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_workdir_that_is_read_from_is_refused_before_anything_is_written(
    recipe, tmp_path
):
    config = recipe.get_config()
    for key in keys_of(config) & set(PATH_KEYS):
        taken = tmp_path / key
        taken.mkdir()
        put(config, key, str(taken))
        with pytest.raises(InputError, match=rf"--workdir: .* is {key} itself"):
            importlib.import_module(TASKS[config.task]).run(config, taken)
        assert list(taken.iterdir()) == []
        put(config, key, None)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
@pytest.mark.parametrize("task", [*TASKS, None])
def test_another_tasks_workdir_is_refused(recipe, task, tmp_path):
    config = recipe.get_config()
    (tmp_path / "config.json").write_text(json.dumps({"task": task} if task else {}))
    if task == config.task:
        prepare(config, tmp_path)
        return
    with pytest.raises(InputError, match=f"of '{task or 'none of these tasks'}'"):
        importlib.import_module(TASKS[config.task]).run(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("mark", MARKS)
def test_without_its_config_a_workdir_is_known_by_what_is_in_it(mark, tmp_path):
    (tmp_path / "config.json").write_text('{"task": "tr')
    (tmp_path / mark).mkdir(parents=True)
    for recipe in RECIPES:
        config = recipe.get_config()
        if config.task in MARKS[mark]:
            prepare(config, tmp_path)
        else:
            with pytest.raises(InputError, match=rf"another task \({mark}\)"):
                prepare(config, tmp_path)


def test_a_workdir_among_the_photos_is_refused(tmp_path):
    root = write_plain_photos(tmp_path / "photos", ["ant/0.png", "bee/0.png"])
    config = base.get_config()
    config.data.root = str(root)
    for inside in ("out", "ant", "ant/out"):
        with pytest.raises(InputError, match=r"is inside of data\.root"):
            prepare(config, root / inside)
    # Of a folder of parts those are looked at alone, each as a whole.
    parts = write_plain_photos(tmp_path / "parts", ["train/a/0.png", "val/a/0.png"])
    config.data.root = str(parts)
    prepare(config, parts / "out")
    for inside in ("val", "val/out"):
        with pytest.raises(InputError, match=r"is inside of data\.root"):
            prepare(config, parts / inside)
    config.data.root = str(root)
    (tmp_path / "link").symlink_to(root / "ant")
    with pytest.raises(InputError, match=r"is inside of data\.root"):
        prepare(config, tmp_path / "link" / "out")
    # There nobody looks for photos.
    config.data.source = "tfds"
    prepare(config, root / "out")
    config.data.source = "folder"
    prepare(config, root / ".runs" / "one")
    prepare(config, tmp_path)
    write_plain_photos(root, ["train/ant/0.png", "val/ant/0.png"])
    prepare(config, root / "out")
    with pytest.raises(InputError, match=r"is inside of data\.root"):
        prepare(config, root / "train" / "out")


def test_a_workdir_of_descriptors_is_theirs(tmp_path):
    descriptors = tmp_path / "embed" / "descriptors"
    descriptors.mkdir(parents=True)
    config = search.get_config()
    config.database = str(descriptors)
    for place in (tmp_path / "embed", descriptors):
        with pytest.raises(InputError, match="is database itself"):
            prepare(config, place)
    config.database = str(tmp_path / "embed")
    with pytest.raises(InputError, match="is inside of database"):
        prepare(config, descriptors / "out")
    prepare(config, tmp_path / "embed" / "search")


@pytest.mark.parametrize("inner", [".", "deep/er"])
def test_a_file_is_no_workdir(inner, tmp_path):
    (tmp_path / "file").write_text("")
    message = r"file was expected to be a folder, found a file"
    with pytest.raises(InputError, match=message):
        prepare(base.get_config(), tmp_path / "file" / inner)
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="lost was expected to be a folder"):
        prepare(base.get_config(), tmp_path / "lost" / inner)


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(InputError, match="without the permission"):
        prepare(base.get_config(), tmp_path / "new" / "er")
    assert asked == [Path(tmp_path)]


def test_a_task_holds_the_lock_while_it_runs(tmp_path):
    @one_writer
    def run(config, workdir):
        with pytest.raises(InputError, match="in use"), lock_workdir(workdir):
            pass
        return {"threshold": config.threshold}

    config = near_duplicates.get_config()
    for _ in range(2):
        assert run(config, tmp_path / "run") == {"threshold": config.threshold}


@pytest.mark.parametrize("recipe", [near_duplicates, whiten], ids=lambda r: r.__name__)
def test_a_task_whose_lock_is_taken_does_not_mix_its_results(
    recipe, tmp_path, monkeypatch
):
    """Before anything is written: results are not, a model is, beside the others."""
    workdir, saved = tmp_path / "run", []
    monkeypatch.setattr(prepare_module, "save_derived", saved_to(saved))

    def task(config, workdir):
        leave_if_taken(workdir)
        save_model(workdir, None, model={}, record={})
        assert saved.pop() == (workdir, "checkpoints")
        (workdir / LOCK_FILE).unlink()
        leave_if_taken(workdir)  # nobody has come in: the lock file is made anew
        (workdir / LOCK_FILE).unlink()
        (workdir / LOCK_FILE).write_text("process 1 on elsewhere")
        if recipe is whiten:
            save_model(workdir, None, model={}, record={})
        leave_if_taken(workdir)

    with pytest.raises(StoppedEarly, match="in use by process 1 on elsewhere, whose"):
        one_writer(task)(recipe.get_config(), workdir)
    names = [name for _, name in saved]
    apart = f"checkpoints.{socket.gethostname()}-{os.getpid()}"
    assert names == ([apart] if recipe is whiten else [])
    leave_if_taken(workdir)  # which no task of this process has any more


def saved_to(calls):
    def save(workdir, source, *, model, record, folder_name="checkpoints"):
        calls.append((workdir, folder_name))

    return save


WRITES = re.compile(r"write_results|write_table|save_plot|save_derived|save_model")


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"train", "embed", "browse"}))
def test_every_task_looks_at_its_lock_before_it_writes(task):
    """Training does so at every save, `embed` at every shard; `browse` has none."""
    module = importlib.import_module(TASKS[task])
    source = inspect.getsource(module.run)
    first = WRITES.search(source)
    assert first is not None
    looked = re.search(r"leave_if_taken|save_model", source)
    assert looked is not None and looked.start() <= first.start()


@pytest.mark.parametrize("recipe", [health, index, predict], ids=lambda r: r.__name__)
def test_a_task_of_one_host_is_refused_on_several(recipe, tmp_path, monkeypatch):
    """Before it writes anything."""

    @one_writer
    def run(config, workdir):
        raise AssertionError("not reached")

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(InputError, match="found 3 hosts, expected one"):
        run(recipe.get_config(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_tasks_of_one_host_are_those_without_keys_for_others():
    configs = [recipe.get_config() for recipe in RECIPES]
    alone = {config.task for config in configs if "distributed" not in config}
    assert alone == {"health", "index", "near_duplicates", "predict"}


def test_a_workdir_that_is_refused_gets_no_lock_file(tmp_path):
    @one_writer
    def run(config, workdir):
        raise AssertionError("not reached")

    config = near_duplicates.get_config()
    config.database = str(tmp_path)
    with pytest.raises(InputError, match="is database itself"):
        run(config, tmp_path)
    assert not (tmp_path / LOCK_FILE).exists()

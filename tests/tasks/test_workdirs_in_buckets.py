"""Each task by the command with its workdir in a bucket: all is as in a folder."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.configs import small_eval_config

from configs import (
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
from multigrain_jax import buckets, main, runtime
from multigrain_jax.checkpoint import describe_checkpoint, load_checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")

RATES = ("second", "fraction")
# What is made up for each run: names of FAISS' files, of Orbax', and of events.
MADE_UP = (
    (re.compile(r"-[0-9a-f]{16}\.faiss"), "-N.faiss"),
    (re.compile(r"/d/[0-9a-f]{32}"), "/d/N"),
    (re.compile(r"events\.out\.tfevents\..*"), "events"),
)


class World:
    """What the tasks read, on this machine."""

    def __init__(self, photos: Path, checkpoint: Path, database: Path):
        self.photos, self.checkpoint, self.database = photos, checkpoint, database

    def evaluation(self, get_config: Callable[[], Any], **changes: Any) -> Any:
        return small_eval_config(get_config, self.photos, self.checkpoint, **changes)

    def collection(self, get_config: Callable[[], Any], **changes: Any) -> Any:
        config = get_config()
        config.update({"database": str(self.database), **changes})
        return config


TRAIN = {"split": "train"}
# name -> its configuration, and how the same command ends when it is given again (None:
# it is not).
TASKS: dict[str, tuple[Callable[[World], Any], int | None]] = {
    "eval_classification": (
        lambda world: world.evaluation(eval_base.get_config, data=TRAIN),
        0,
    ),
    "eval_retrieval": (
        lambda world: small_eval_config(
            partial(eval_retrieval.get_config, "folder"),
            world.photos / "train",
            world.checkpoint,
        ),
        None,
    ),
    "whiten": (lambda world: world.evaluation(whiten.get_config, data=TRAIN), 2),
    "sweep_pooling": (
        lambda world: world.evaluation(
            sweep_p.get_config,
            data=TRAIN,
            test_sizes=(48,),
            pooling_exponent=(1.0, 3.0),
        ),
        None,
    ),
    "finetune_pooling": (
        lambda world: world.evaluation(
            finetune_p.get_config,
            data={"val_split": "train"},
            log_every_steps=1,
        ),
        2,
    ),
    "predict": (lambda world: world.evaluation(predict.get_config), None),
    "near_duplicates": (
        lambda world: world.collection(near_duplicates.get_config, threshold=0.9),
        0,
    ),
    "health": (lambda world: world.collection(health.get_config), None),
    "search": (
        lambda world: world.collection(
            search.get_config, queries=str(world.database), num_neighbours=2
        ),
        None,
    ),
    "index": (lambda world: world.collection(index.get_config), 0),
}


@pytest.fixture
def world(photo_folder, tiny_checkpoint, database):
    return World(photo_folder, tiny_checkpoint, database)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """The command for a configuration and a workdir: how it ends, and what it says."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # They change this whole process.
    monkeypatch.setattr(runtime, "keep_compiled_programs", lambda: None)
    monkeypatch.setattr(runtime, "raise_open_files", lambda: None)
    monkeypatch.setattr(main, "quiet_libraries", lambda: None)
    for flag in ("_QUIET", "_JSON"):
        monkeypatch.setattr(main, flag, SimpleNamespace(value=False))
    monkeypatch.setattr(
        main.config_flags, "get_config_filename", lambda flag: "configs/some.py"
    )

    def call(config: Any, workdir: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(main, "CONFIG", SimpleNamespace(value=config))
        monkeypatch.setattr(main, "_WORKDIR", SimpleNamespace(value=workdir))
        code = main.main(["main"])
        told = capsys.readouterr()
        return code, told.out.replace(workdir, "RUN"), told.err.replace(workdir, "RUN")

    return call


def plain(name: str) -> str:
    for pattern, instead in MADE_UP:
        name = pattern.sub(instead, name)
    return name


def contents(workdir: Path) -> dict[str, Any]:
    """The files of a workdir by name, as far as two runs have the same."""
    found: dict[str, Any] = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{name}/.empty"] = b""
        elif path.name != ".lock":
            found[plain(name)] = content(plain(name), path)
    return found


def content(name: str, path: Path) -> Any:
    if path.is_dir() or path.name == ".empty":
        return b""
    data = path.read_bytes()
    if name == "results.json":
        return without_rates(json.loads(data))
    if name == "metrics.jsonl":
        return [without_rates(json.loads(line)) for line in data.splitlines()]
    if name == "index/index.json":
        return re.sub(r'"digest": "\w+"', "", plain(data.decode()))
    if name.startswith(("checkpoints/", "events")):
        return None  # made of times and names
    return data


def without_rates(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not any(part in k for part in RATES)}


def downloaded(url: str, folder: Path) -> Path:
    folder.mkdir()
    for found in buckets.list_objects(url):
        buckets.download(found.path, folder / found.path.removeprefix(f"{url}/"))
    return folder


def assert_equal_workdirs(there: Path, here: Path) -> None:
    found, expected = contents(there), contents(here)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name
    if (here / "checkpoints").exists():
        assert describe_checkpoint(there).digest == describe_checkpoint(here).digest
        load_checkpoint(there)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [*((name, "gs") for name in TASKS), ("near_duplicates", "s3"), ("index", "s3")],
)
def test_a_workdir_in_a_bucket_is_that_of_a_folder(
    name, scheme, world, command, request, tmp_path, monkeypatch
):
    if name == "index":
        pytest.importorskip("faiss", reason="faiss is not installed")
    make, again = TASKS[name]
    bucket = request.getfixturevalue({"gs": "gcs", "s3": "s3"}[scheme])
    here, url = str(tmp_path / "runs" / name), bucket.url(f"runs/{name}")
    for number, code in enumerate([0] if again is None else [0, again]):
        expected = command(make(world), here)
        # Each time on another machine.
        cache = tmp_path / f"cache{number}"
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(cache))
        found = command(make(world), url)
        assert (found[0], expected[0]) == (code, code)
        assert found[2] == expected[2]
        there = downloaded(url, tmp_path / f"there{number}")
        assert_equal_workdirs(there, Path(here))
        assert all(each.startswith(f"runs/{name}/") for each in bucket.names())
        assert list((tmp_path / "here").iterdir()) == []
        assert [path.name for path in cache.iterdir()] == ["workdirs"]
        for path in there.rglob("*"):
            # Orbax tells its own folder.
            if path.is_file() and path.name != "commit_success.txt":
                assert str(cache).encode() not in path.read_bytes(), path

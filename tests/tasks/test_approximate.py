"""Searches through an index: how much they find, and what they are told without it."""

import sys

import pytest
from helpers.approximate import photos as stamps
from helpers.approximate import random_rows, write_folder

from configs import index, search
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import index as run_index
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks.approximate import recall
from multigrain_jax.tasks.neighbours import Neighbour


def photos(*similarities):
    return [Neighbour(n, f"{n}.png", s) for n, s in enumerate(similarities)]


@pytest.mark.parametrize(
    ("found", "expected", "share"),
    [
        ([photos(0.9, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.9, 0.7)], [photos(0.9, 0.8)], 1 / 2),
        # As similar as the last of the true ones, and another photo.
        ([photos(0.8, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.8, 0.8, 0.8)], [photos(0.9, 0.8)], 1),
        ([photos(0.8 - 1e-7)], [photos(0.8)], 1),
        ([[], photos(0.5)], [photos(0.9, 0.8, 0.7), photos(0.5)], 1 / 4),
        ([[]], [[]], 1),
    ],
)
def test_recall(found, expected, share):
    assert recall(found, expected) == pytest.approx(share)


def build(database, workdir, **changes):
    config = index.get_config()
    config.database = str(database)
    config.update(changes)
    return run_index.run(config, workdir)


def look(database, workdir, folder):
    config = search.get_config()
    config.database = config.queries = str(database)
    config.index = str(folder)
    return run_search.run(config, workdir)


@pytest.mark.parametrize(
    ("engine", "hidden", "instead"),
    [
        ("faiss", "faiss", "milvus"),
        ("milvus", "pymilvus", "faiss"),
        ("milvus", "milvus_lite", "faiss"),
    ],
)
def test_a_package_that_is_missing_is_told_with_what_helps_there(
    tmp_path, monkeypatch, engine, hidden, instead
):
    for name in ("faiss", "pymilvus", "milvus_lite"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    database, folder = tmp_path / "database", tmp_path / "index" / "index"
    write_folder(database / "descriptors", stamps(30), random_rows(30))
    build(database, tmp_path / "index", engine=engine)
    needed = f"expected {hidden} to be installed for it: pip install "
    anew = (
        "or make the index anew with --config configs/index.py "
        f"--config.engine={instead} --config.rebuild=True"
    )
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, hidden, None)
        with pytest.raises(InputError) as searched:
            look(database, tmp_path / "w", folder)
        with pytest.raises(InputError) as updated:
            build(database, tmp_path / "index", engine=engine)
        with pytest.raises(InputError) as begun:
            build(database, tmp_path / "another", engine=engine)
    for told in (str(searched.value), str(updated.value)):
        assert told.startswith(f"{folder}: made by the engine {engine!r}, {needed}")
        assert told.endswith(anew)
    told = str(begun.value)
    assert told.startswith(f"engine: found {engine!r}, {needed}")
    assert told.endswith(f", or choose --config.engine={instead}")
    # What a search advises is what helps.
    build(database, tmp_path / "index", engine=instead, rebuild=True)
    results = look(database, tmp_path / "w", folder)
    assert results["recall_at_10"] == 1

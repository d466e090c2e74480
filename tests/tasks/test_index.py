"""The task `index`, and searches through what it builds."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers.approximate import photos, random_rows, write_folder
from helpers.damages import DAMAGES, what_is_wrong
from helpers.descriptors import read_table

from configs import index, search
from multigrain_jax.descriptors.approximate.record import read_record
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import index as run_index
from multigrain_jax.tasks import search as run_search

faiss = pytest.importorskip("faiss", reason="faiss is not installed")
faiss.omp_set_num_threads(1)
ROOT = Path(__file__).parents[2]


# All rows are candidates: the search is exact.
EVERYTHING = {"approximate.num_candidates": 310, "approximate.num_probes": 999}


def build(database, workdir, **changes):
    config = index.get_config()
    config.database = str(database)
    config.update_from_flattened_dict(changes)
    results = run_index.run(config, workdir)
    assert json.loads((workdir / "results.json").read_text()) == results
    return results


def look(database, workdir, queries, **changes):
    config = search.get_config()
    config.database, config.queries = str(database), str(queries)
    config.num_neighbours = 4
    config.update_from_flattened_dict(changes)
    return run_search.run(config, workdir), read_table(workdir / "results.csv")


@pytest.fixture
def made_up(tmp_path):
    """Workdirs as of `embed`: 300 photos, and 20 queries near some of them."""
    rows = random_rows(300)
    write_folder(tmp_path / "database" / "descriptors", photos(300), rows)
    near = rows[::15] + 0.02 * random_rows(20, seed=1)
    names = [image._replace(path=f"/q{image.path}") for image in photos(20)]
    write_folder(tmp_path / "queries" / "descriptors", names, near)
    return tmp_path / "database", tmp_path / "queries"


def check_same(found, expected):
    assert [(row["query"], row["path"]) for row in found] == [
        (row["query"], row["path"]) for row in expected
    ]
    np.testing.assert_allclose(
        [float(row["similarity"]) for row in found],
        [float(row["similarity"]) for row in expected],
        atol=2e-6,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"query_expansion.num_neighbours": 2},
        {"score_normalization.training": "database"},
    ],
    ids=["plain", "expanded", "normalised"],
)
def test_photos_find_through_an_index_what_they_find_without(
    database, tmp_path, changes
):
    if "score_normalization.training" in changes:
        changes = {"score_normalization.training": str(database)}
    built = build(database, tmp_path / "index")
    assert built["num_rows"] == built["num_database"] == built["num_added"] == 21
    _, expected = look(database, tmp_path / "exact", database, **changes)
    results, found = look(
        database, tmp_path / "found", database, index=str(tmp_path / "index"), **changes
    )
    check_same(found, expected)
    assert (results["recall_at_10"], results["num_recall_queries"]) == (1, 21)
    assert results["num_not_in_index"] == 0
    page = (tmp_path / "found" / "report.html").read_text()
    assert "Shown are 21 of 21 queries." in page


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_pq"])
def test_the_folder_grows_and_photos_go(made_up, tmp_path, kind, capsys):
    database, queries = made_up
    sizes = {"rows_per_commit": 50, "rows_per_part": 100}
    built = build(database, tmp_path / "index", kind=kind, **sizes)
    assert built["num_rows"] == 300
    assert f"faiss: {kind}" in capsys.readouterr().out
    write_folder(database / "descriptors", photos(340)[30:], random_rows(340))
    through = {"index": str(tmp_path / "index"), "approximate.num_candidates": 150}
    results, found = look(database, tmp_path / "w", queries, **through)
    assert results["num_not_in_index"] == 40
    assert "40 of 310 photos are not in the index yet" in capsys.readouterr().out
    _, expected = look(database, tmp_path / "exact", queries)
    check_same(found, expected)
    built = build(database, tmp_path / "index", kind=kind, **sizes)
    assert built["num_added"] == 40
    # The 30 were all of a third of a graph: more than a fifth.
    assert built["num_removed"] == 30
    results, found = look(
        database, tmp_path / "w", queries, **{**through, "index": through["index"]}
    )
    assert results["num_not_in_index"] == 0
    check_same(found, expected)


def test_an_index_says_how_little_it_finds(made_up, tmp_path, capsys):
    database, queries = made_up
    build(database, tmp_path / "index", kind="ivf_pq", num_lists=16, num_code_bytes=4)
    hasty = {"approximate.num_candidates": 4, "approximate.num_probes": 1}
    results, _ = look(
        database,
        tmp_path / "w",
        queries,
        index=str(tmp_path / "index" / "index"),
        **hasty,
        **{"approximate.num_recall_queries": 10},
    )
    assert 0.05 < results["recall_at_10"] < 0.9
    assert results["num_recall_queries"] == 10
    assert f"recall@10: {results['recall_at_10']:.1%}" in capsys.readouterr().out
    results, _ = look(
        database,
        tmp_path / "w",
        queries,
        index=str(tmp_path / "index"),
        **{"approximate.num_recall_queries": 0},
    )
    assert "recall_at_10" not in results and results["num_not_in_index"] == 0


def test_an_index_of_another_collection_is_refused(made_up, tmp_path):
    database, queries = made_up
    build(database, tmp_path / "index")
    other = tmp_path / "other" / "descriptors"
    write_folder(other, photos(50), random_rows(50, seed=3))
    before = sorted(path.name for path in (tmp_path / "index" / "index").iterdir())
    with pytest.raises(InputError, match="shard 0 has another digest"):
        build(tmp_path / "other", tmp_path / "index")
    with pytest.raises(InputError, match="shard 0 has another digest"):
        look(tmp_path / "other", tmp_path / "w", queries, index=str(tmp_path / "index"))
    with pytest.raises(InputError, match="an approximate index was expected"):
        look(database, tmp_path / "w", queries, index=str(database))
    after = sorted(path.name for path in (tmp_path / "index" / "index").iterdir())
    assert before == after and not (tmp_path / "w" / "config.json").exists()
    assert build(tmp_path / "other", tmp_path / "index", rebuild=True)["num_rows"] == 50


def test_other_settings_are_refused_unless_it_is_made_anew(made_up, tmp_path):
    database, _ = made_up
    build(database, tmp_path / "index")
    with pytest.raises(InputError, match=r"kind: the index has auto, .* hnsw"):
        build(database, tmp_path / "index", kind="hnsw")
    build(database, tmp_path / "index", kind="hnsw", rebuild=True)
    record = read_record(tmp_path / "index" / "index")
    assert record.made["kind"] == "hnsw"
    named = {record.made["file"], record.parts[0].stored.file}
    left = {path.name for path in (tmp_path / "index" / "index").glob("*.faiss")}
    assert left == named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "annoy"}, "engine: found 'annoy', expected one of faiss, milvus"),
        ({"kind": "ivf_flat"}, "kind: found 'ivf_flat', expected one of auto, flat, "),
        ({"engine": "milvus", "kind": "ivf_pq"}, "kind: found 'ivf_pq', expected one"),
        ({"milvus.uri": "http://me:secret@host"}, "variable MILVUS_TOKEN"),
        ({"num_links": 1}, "num_links: found 1, expected at least 2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    made_up, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        build(made_up[0], tmp_path / "index", **changes)
    assert not (tmp_path / "index").exists()


def test_a_collection_in_a_bucket_is_indexed_as_one_of_a_folder(
    made_up, tmp_path, gcs, own_cache, monkeypatch
):
    database, queries = made_up
    for number, count in enumerate((300, 310)):
        write_folder(database / "descriptors", photos(count), random_rows(count))
        gcs.put_folder(database, "collection")
        built = build(gcs.url("collection"), tmp_path / "index")
        assert built["num_added"] == (300, 10)[number]
        _, expected = look(database, tmp_path / "exact", queries)
        for cache in ("cache", "another machine"):
            monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / cache))
            through = {"index": str(tmp_path / "index")}
            place = gcs.url("collection")
            results, found = look(place, tmp_path / "found", queries, **through)
            assert results["num_not_in_index"] == 0
            check_same(found, expected)
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))


def test_more_candidates_than_an_engine_gives_are_refused(made_up, tmp_path):
    database, queries = made_up
    with pytest.raises(InputError, match="num_candidates: found 20000, expected at "):
        look(database, tmp_path / "w", queries, **{"approximate.num_candidates": 20000})


def test_the_same_two_commands_with_milvus(made_up, tmp_path, monkeypatch):
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    database, queries = made_up
    built = build(database, tmp_path / "index", engine="milvus")
    assert built["num_rows"] == built["num_added"] == 300
    _, expected = look(database, tmp_path / "exact", queries)
    results, found = look(
        database, tmp_path / "found", queries, index=str(tmp_path / "index")
    )
    check_same(found, expected)
    assert results["recall_at_10"] == 1
    # Killed once the old rows are dropped, it is made anew by the next run.
    with monkeypatch.context() as patched:
        patched.setattr(run_index, "update_index", mock.Mock(side_effect=RuntimeError))
        patched.setattr(run_index, "begin_record", mock.Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            build(database, tmp_path / "index", engine="milvus", rebuild=True)
    with pytest.raises(InputError, match="only begun found"):
        look(database, tmp_path / "found", queries, index=str(tmp_path / "index"))
    built = build(database, tmp_path / "index", engine="milvus")
    assert built["num_rows"] == built["num_added"] == 300


FILES = ("index/index.json", "index/rows-*", "index/part-*", "index/trained-*")


@pytest.mark.parametrize("file", [*FILES, "config.json", "results.json"])
def test_a_broken_file_is_one_line_or_none(made_up, tmp_path, file):
    """Every damage in turn: a task does its work, or names the file in one line."""
    database, queries = made_up
    build(database, tmp_path / "whole", kind="ivf_pq")
    # There are photos to add, for which what was learnt is read.
    write_folder(database / "descriptors", photos(310), random_rows(310))
    _, expected = look(database, tmp_path / "exact", queries)
    wrong = []
    for damage, break_it in DAMAGES.items():
        base = tmp_path / damage
        shutil.copytree(tmp_path / "whole", base / "index")
        (path,) = (base / "index").glob(file)
        break_it(path)

        def search_through(base=base):
            through = {"index": str(base / "index"), **EVERYTHING}
            check_same(look(database, base / "w", queries, **through)[1], expected)

        def build_on(base=base):
            build(database, base / "index", kind="ivf_pq", rows_per_part=1)

        for task in (search_through, build_on):
            if problem := what_is_wrong(task, base):
                wrong.append((damage, task.__name__, problem))
    assert wrong == []


KILLED = """
import os, signal, sys
from multigrain_jax import files
from configs import index
from multigrain_jax.tasks import index as task
from pathlib import Path

replace, left = os.replace, int(sys.argv[3])

def replace_or_die(*names):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)

os.replace = replace_or_die
config = index.get_config()
config.database = sys.argv[1]
config.kind, config.rows_per_commit = "ivf_pq", 100
task.run(config, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("move", [3, 8])
def test_killed_with_sigkill_it_goes_on(made_up, tmp_path, move, capsys):
    database, queries = made_up
    workdir = tmp_path / "index"
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, database, workdir, str(move)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    _, expected = look(database, tmp_path / "exact", queries)
    through = {"index": str(workdir), "approximate.num_candidates": 300}
    if move > 3:
        results, found = look(database, tmp_path / "w", queries, **through)
        assert 0 < results["num_not_in_index"] < 300
        check_same(found, expected)
    build(database, workdir, kind="ivf_pq", rows_per_commit=100)
    results, found = look(database, tmp_path / "w", queries, **through)
    assert results["num_not_in_index"] == 0
    check_same(found, expected)
    names = {path.name.split("-")[0] for path in (workdir / "index").iterdir()}
    assert names == {"index.json", "part", "rows", "trained"}
    assert len(list((workdir / "index").iterdir())) == 4

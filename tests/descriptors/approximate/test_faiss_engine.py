"""The engine FAISS: what it builds, finds, writes and refuses."""

import errno
import os

import numpy as np
import pytest
from helpers.approximate import (
    ALL,
    DIM,
    bring_up,
    check_exact,
    opened,
    photos,
    random_rows,
    unit,
    write_folder,
)

from multigrain_jax.descriptors.approximate import faiss_engine as module
from multigrain_jax.descriptors.approximate.engine import Part, Stored, row_numbers
from multigrain_jax.descriptors.approximate.faiss_engine import (
    FaissEngine,
    FaissOptions,
)
from multigrain_jax.descriptors.approximate.record import read_record
from multigrain_jax.errors import InputError

faiss = pytest.importorskip("faiss", reason="faiss is not installed")
# Its threads wait for each other busily, which is slow on a loaded machine.
faiss.omp_set_num_threads(1)

OPTIONS = FaissOptions("auto", None, None, 16, 40, 0)


def make(folder, kind="auto", made=None, **changes):
    folder.mkdir(exist_ok=True)
    options = OPTIONS._replace(kind=kind, **changes)
    return FaissEngine(folder, options, dim=DIM, made=dict(made or {}))


@pytest.mark.parametrize("kind", module.KINDS)
def test_found_is_what_an_exact_search_finds(tmp_path, kind):
    folder, database = tmp_path / "index", tmp_path / "database"
    rows = random_rows(400)
    write_folder(database, photos(400), rows, rows_per_shard=100)
    engine = make(folder, kind)
    sizes = {"rows_per_commit": 100, "rows_per_part": 200}
    record, change = bring_up(folder, database, engine, **sizes)
    assert change == (400, 0) and record.made["kind"] == kind
    assert len(record.parts) == 2
    # Codes are coarse: candidates enough to have the true ones among them.
    effort = ALL._replace(num_candidates=200)
    index, exact = opened(folder, database, engine, effort=effort)
    queries = random_rows(20, seed=4).astype(np.float32)
    similarities, found = index.search(queries, 5)
    expected, true = exact.search(queries, 5)
    np.testing.assert_array_equal(found, true)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    assert engine.size(record.parts)[0] == 400
    # Some vanish, some come; read by another process than the one that wrote.
    write_folder(database, photos(450)[20:], random_rows(450), rows_per_shard=100)
    again = make(folder, kind, record.made)
    record, change = bring_up(folder, database, again, **sizes)
    assert change == (50, 0 if kind == "hnsw" else 20)
    index, exact = opened(folder, database, again, effort=effort)
    np.testing.assert_array_equal(
        index.search(queries, 5)[1], exact.search(queries, 5)[1]
    )
    assert again.size(record.parts)[0] == (450 if kind == "hnsw" else 430)
    again.close()


def test_the_kind_is_by_the_number_of_rows(tmp_path, monkeypatch):
    sample = random_rows(300).astype(np.float32)
    kinds = [
        make(tmp_path / str(rows)).create(sample, num_rows=rows)["kind"]
        for rows in (50_000, 50_001, 500_000, 500_001)
    ]
    assert kinds == ["flat", "hnsw", "hnsw", "ivf_pq"]
    made = make(tmp_path / "a").create(sample, num_rows=10**6)
    assert (made["num_lists"], made["num_code_bytes"]) == (300 // 40, DIM // 2)
    engine = make(tmp_path / "b", "ivf_pq", num_lists=3, num_code_bytes=4)
    made = engine.create(sample, num_rows=300)
    assert (made["num_lists"], made["num_code_bytes"]) == (3, 4)
    trained = faiss.read_index(str(tmp_path / "b" / made["file"]))
    assert (trained.nlist, trained.pq.M, trained.ntotal) == (3, 4, 0)


def test_learnt_is_the_same_for_the_same_seed(tmp_path):
    sample = random_rows(400).astype(np.float32)

    def learnt(name, seed):
        made = make(tmp_path / name, "ivf_pq", seed=seed).create(sample, num_rows=400)
        return (tmp_path / name / made["file"]).read_bytes()

    assert learnt("a", 0) == learnt("b", 0) != learnt("c", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_code_bytes": 5},
            "num_code_bytes: found 5, expected a divisor of",
        ),
        ({"num_lists": 301}, "num_lists: found 301, expected at most 300"),
    ],
)
def test_what_cannot_be_built_is_refused(tmp_path, changes, message):
    sample = random_rows(300).astype(np.float32)
    with pytest.raises(InputError, match=message):
        make(tmp_path, "ivf_pq", **changes).create(sample, num_rows=300)
    with pytest.raises(InputError, match="a sample of 255 rows, expected at least 256"):
        make(tmp_path, "ivf_pq").create(sample[:255], num_rows=300)
    assert list(tmp_path.iterdir()) == []


def test_odd_widths_have_codes_of_a_divisor():
    widths = (256, 2048, 1280, 3, 7, 10)
    assert [module._code_bytes(d) for d in widths] == [128, 1024, 640, 1, 1, 5]


@pytest.mark.parametrize("name", ["with space ü # ?.faiss", os.fsdecode(b"\xff")])
def test_folders_of_any_name(tmp_path, name):
    folder, database = tmp_path / name, tmp_path / "database"
    write_folder(database, photos(50), random_rows(50))
    engine = make(folder, "flat")
    bring_up(folder, database, engine)
    assert check_exact(folder, database, engine) == 0


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
@pytest.mark.parametrize("kind", module.KINDS)
def test_damage_is_one_line(tmp_path, kind, damage):
    folder, database = tmp_path / "index", tmp_path / "database"
    write_folder(database, photos(300), random_rows(300), rows_per_shard=100)
    bring_up(folder, database, make(folder, kind), rows_per_part=300)
    record = read_record(folder)
    path = folder / record.parts[0].stored.file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = len(data) // 2
        path.write_bytes(data[:half] + (b"" if damage == "cut" else b"!" * half))
    index, _ = opened(folder, database, make(folder, kind, record.made))
    with pytest.raises(InputError, match=r"part-0.*make the index anew"):
        index.search(random_rows(2).astype(np.float32), 3)
    # The next run does not build on it either.
    write_folder(database, photos(310), random_rows(310), rows_per_shard=100)
    with pytest.raises(InputError, match=r"part-0.*make the index anew"):
        bring_up(folder, database, make(folder, kind, record.made), rows_per_part=900)


def test_a_search_without_parts_or_queries_finds_nothing(tmp_path):
    engine = make(tmp_path, "flat")
    engine.create(random_rows(9).astype(np.float32), num_rows=9)
    queries = random_rows(2).astype(np.float32)
    assert (engine.search([], queries, k=3, effort=ALL) == -1).all()
    assert engine.search([], queries[:0], k=3, effort=ALL).shape == (0, 3)
    rows = unit(np.ones((2, DIM))).astype(np.float32)
    part = Part(0, 1, 0, "", "", Stored("", 0, ""))
    add = [(row_numbers(0, np.arange(2)), rows)]
    stored = engine.update(part, remove=np.zeros(0, np.int64), add=add, anew=False)
    part = part._replace(num_rows=2, stored=stored)
    # Fewer than are asked for.
    found = engine.search([part], queries, k=3, effort=ALL)
    assert sorted(found[0].tolist()) == [-1, 0, 1]


def test_of_an_update_one_part_is_in_memory_and_no_old_file_mapped(
    tmp_path, monkeypatch
):
    folder, database = tmp_path / "index", tmp_path / "database"
    write_folder(database, photos(60), random_rows(60))
    record, _ = bring_up(folder, database, make(folder, "flat"))
    assert len(record.parts) == 2
    write_folder(database, photos(75)[1:], random_rows(75))
    engine = make(folder, "flat", record.made)
    engine.size(record.parts)  # which maps all parts, as the task does first
    read, kept = engine._read, []

    def read_watched(name, digest, *, mapped):
        kept.append(engine._last)
        return read(name, digest, mapped=mapped)

    monkeypatch.setattr(engine, "_read", read_watched)
    found, _ = bring_up(folder, database, engine)
    assert kept == [None] * 2  # the first part, without a photo, and the second
    assert engine._open == {}
    assert engine.size(found.parts)[0] == 74


def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing(
    tmp_path, monkeypatch
):
    engine = make(tmp_path, "flat")

    def write(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.HashingFile, "write", write)
    with pytest.raises(OSError, match="No space left") as error:
        engine.create(random_rows(9).astype(np.float32), num_rows=9)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_without_faiss_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[faiss\]'"):
        make(tmp_path)

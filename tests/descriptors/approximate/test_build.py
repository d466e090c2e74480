"""An index is brought up to its folder, whatever became of the folder or of the run."""

import os

import numpy as np
import pytest
from helpers.approximate import (
    DIM,
    Killed,
    PlainEngine,
    bring_up,
    check_exact,
    photos,
    random_rows,
    write_folder,
)

from multigrain_jax.descriptors.approximate import build
from multigrain_jax.descriptors.approximate.build import draw_sample
from multigrain_jax.descriptors.approximate.record import read_record
from multigrain_jax.descriptors.folder import shard_path
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.files import settling

# As FAISS' lists, FAISS' graphs, and Milvus.
WAYS = {
    "files": {"in_place": False, "can_remove": True},
    "graphs": {"in_place": False, "can_remove": False},
    "server": {"in_place": True, "can_remove": True},
}


@pytest.fixture(params=WAYS)
def engine(request, tmp_path):
    (tmp_path / "index").mkdir()
    return PlainEngine(tmp_path / "index", **WAYS[request.param])


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "index", tmp_path / "database"


def held(engine, folder):
    return len(engine.rows(read_record(folder).parts))


def test_a_new_index_holds_every_row(engine, paths):
    folder, database = paths
    write_folder(database, photos(95), random_rows(95))
    record, change = bring_up(folder, database, engine)
    assert change == (95, 0)
    assert record.made == {"kind": "plain", "sample": 95, "num_rows": 95}
    assert sum(part.num_rows for part in record.parts) == held(engine, folder) == 95
    assert record.parts[0].first_shard == 0 and record.parts[-1].end_shard == 10
    assert check_exact(folder, database, engine) == 0
    # Nothing to do: nothing is written again.
    calls = engine.calls
    assert bring_up(folder, database, engine)[1] == (0, 0)
    assert engine.calls == calls


def test_parts_are_files_of_so_many_rows(paths):
    folder, database = paths
    folder.mkdir()
    engine = PlainEngine(folder, **WAYS["files"])
    write_folder(database, photos(95), random_rows(95))
    record, _ = bring_up(folder, database, engine, rows_per_commit=10)
    ends = [(part.first_shard, part.end_shard) for part in record.parts]
    assert ends == [(0, 4), (4, 8), (8, 10)]
    # Every shard was a step, and each step wrote its part anew.
    assert engine.calls == 10


def test_new_replaced_and_gone_photos(engine, paths):
    folder, database = paths
    rows = random_rows(130)
    write_folder(database, photos(60), rows)
    bring_up(folder, database, engine)
    # One is gone, three have changed and get new rows at the end, ten are new.
    now = photos(70)[1:]
    now[5:8] = [image._replace(mtime_ns=2) for image in now[5:8]]
    write_folder(database, now, rows[60:])
    assert check_exact(folder, database, engine) == 13
    _, change = bring_up(folder, database, engine)
    assert change.num_added == 13
    assert check_exact(folder, database, engine) == 0
    if engine.can_remove:
        assert change.num_removed == 4 and held(engine, folder) == 69
    else:
        assert change.num_removed == 0 and held(engine, folder) == 73


def test_a_graph_with_many_dead_rows_is_made_anew(paths):
    folder, database = paths
    folder.mkdir()
    engine = PlainEngine(folder, **WAYS["graphs"])
    write_folder(database, photos(60), random_rows(60))
    bring_up(folder, database, engine)
    gone = photos(60)[:35]
    write_folder(database, gone, random_rows(60))
    _, change = bring_up(folder, database, engine)
    assert change == (0, 25 - 5)  # of the first part five are dead: less than a fifth
    assert held(engine, folder) == 40
    assert check_exact(folder, database, engine) == 0


@pytest.mark.parametrize("call", range(1, 6))
def test_killed_at_any_step_the_next_run_goes_on(engine, paths, call):
    folder, database = paths
    rows = random_rows(100)
    write_folder(database, photos(50), rows)
    engine.kill_at = call
    with pytest.raises(Killed):
        bring_up(folder, database, engine, rows_per_commit=10)
    engine.kill_at = None
    # Searched now, all is found: what is not in the index is searched exactly.
    before = held(engine, folder)
    new = check_exact(folder, database, engine)
    assert new == 50 - 10 * (call - 1)
    if engine.in_place:
        assert before == 10 * call  # half done, and known to be so
    # The folder may change before the next run.
    write_folder(database, photos(60)[3:], rows[3:])
    check_exact(folder, database, engine)
    record, _ = bring_up(folder, database, engine, rows_per_commit=10)
    assert record.pending is None
    assert check_exact(folder, database, engine) == 0
    # Of the graph of the first shard a third is dead, of larger ones less.
    stay = 3 if not engine.can_remove and call > 2 else 0
    assert held(engine, folder) == 57 + stay


def test_what_is_kept_elsewhere_is_told_first_what_changes_in_its_place(paths):
    """A bucket knows of each update that may be half done before it begins."""
    folder, database = paths
    folder.mkdir()
    engine = PlainEngine(folder, **WAYS["server"])
    write_folder(database, photos(40), random_rows(40))
    seen = []
    with settling(
        folder, lambda: seen.append((engine.calls, read_record(folder).pending))
    ):
        bring_up(folder, database, engine)
    assert seen == [(0, 0), (1, 1)]


def test_before_every_step_it_may_be_ended(engine, paths):
    """As where another run has come in: index.json stays as it was."""
    folder, database = paths
    write_folder(database, photos(60), random_rows(60))
    record, _ = bring_up(folder, database, engine)
    write_folder(database, photos(90), random_rows(90, seed=5))

    def end():
        raise Killed

    with pytest.raises(Killed):
        bring_up(folder, database, engine, before_step=end)
    assert read_record(folder) == record
    assert check_exact(folder, database, engine) == 30


def test_killed_while_rows_leave(paths, monkeypatch):
    folder, database = paths
    folder.mkdir()
    engine = PlainEngine(folder, **WAYS["server"])
    rows = random_rows(40)
    write_folder(database, photos(40), rows)
    bring_up(folder, database, engine)
    write_folder(database, photos(40)[2:], rows[2:])
    save = engine._save

    def save_and_die(name, kept):
        save(name, kept)
        raise Killed

    monkeypatch.setattr(engine, "_save", save_and_die)
    with pytest.raises(Killed):
        bring_up(folder, database, engine)
    monkeypatch.undo()
    assert read_record(folder).pending == 0
    check_exact(folder, database, engine)
    bring_up(folder, database, engine)
    assert held(engine, folder) == 38
    assert check_exact(folder, database, engine) == 0


def test_killed_at_any_move_of_a_file_no_state_is_wrong(paths, monkeypatch):
    folder, database = paths
    folder.mkdir()
    engine = PlainEngine(folder, **WAYS["server"])
    write_folder(database, photos(30), random_rows(30))
    replace, moves = os.replace, 0

    def move_or_die(*names):
        nonlocal moves
        moves += 1
        if moves == last:
            raise Killed
        replace(*names)

    for last in range(2, 20):
        monkeypatch.setattr(os, "replace", move_or_die)
        moves, done = 0, False
        try:
            bring_up(folder, database, engine, rows_per_commit=10)
            done = moves < last
        except Killed:
            pass
        monkeypatch.undo()
        if (folder / "index.json").exists():
            check_exact(folder, database, engine)
        if done:
            break
    assert done and last > 3
    assert held(engine, folder) == 30


def test_a_lost_shard_leaves_the_index(engine, paths):
    folder, database = paths
    rows = random_rows(70)
    write_folder(database, photos(50), rows)
    bring_up(folder, database, engine)
    shard_path(database, 1).write_bytes(b"damaged")
    write_folder(database, photos(50), rows)  # embedded anew, as shard 5
    assert check_exact(folder, database, engine) == 10
    _, change = bring_up(folder, database, engine)
    assert change.num_added == 10
    assert check_exact(folder, database, engine) == 0
    assert len(DescriptorIndex.open(database)) == 50


def test_rows_that_live_again_come_in(engine, paths):
    folder, database = paths
    write_folder(database, photos(30), random_rows(30))
    whole = {path: path.read_bytes() for path in database.iterdir()}
    write_folder(database, photos(30)[12:], random_rows(30))
    bring_up(folder, database, engine)
    for path, data in whole.items():  # an older copy of the folder
        path.write_bytes(data)
    assert check_exact(folder, database, engine) == 12
    assert bring_up(folder, database, engine)[1] == (12, 0)
    assert check_exact(folder, database, engine) == 0


def test_rows_that_are_no_numbers_are_refused(paths):
    folder, database = paths
    folder.mkdir()
    rows = random_rows(20)
    rows[13, 2] = np.nan
    write_folder(database, photos(20), rows)
    with pytest.raises(InputError, match=r"shard-00001\.npy: found NaN"):
        bring_up(folder, database, PlainEngine(folder, **WAYS["files"]))


def test_the_sample_is_of_live_rows_and_read_in_blocks(tmp_path, monkeypatch):
    rows = random_rows(100)
    write_folder(tmp_path, photos(100), rows)
    write_folder(tmp_path, photos(100)[50:], rows[50:])
    monkeypatch.setattr(build, "BLOCK_BYTES", 4 * DIM * 7)
    index = DescriptorIndex.open(tmp_path)
    stored = rows.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(draw_sample(index, 1000, seed=0), stored[50:])
    sample = draw_sample(index, 20, seed=0)
    places = [np.flatnonzero((stored == row).all(axis=1)).item() for row in sample]
    assert sorted(set(places)) == places and len(places) == 20 and places[0] >= 50
    np.testing.assert_array_equal(draw_sample(index, 20, seed=0), sample)
    assert (draw_sample(index, 20, seed=1) != sample).any()


def test_blocks_are_no_larger_than_they_say(paths, monkeypatch):
    folder, database = paths
    folder.mkdir()
    write_folder(database, photos(20), random_rows(20))
    monkeypatch.setattr(build, "BLOCK_BYTES", 4 * DIM * 3)
    sizes = []

    class Watching(PlainEngine):
        def update(self, part, *, remove, add, anew):
            blocks = list(add)
            sizes.extend(len(numbers) for numbers, _ in blocks)
            return super().update(part, remove=remove, add=blocks, anew=anew)

    bring_up(folder, database, Watching(folder, **WAYS["files"]))
    assert sizes == 2 * [3, 3, 3, 1]

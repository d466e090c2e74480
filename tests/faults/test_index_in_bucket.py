"""An approximate index in a bucket: killed at any request, it is whole and goes on."""

from pathlib import Path

import pytest
from helpers.approximate import check_exact, photos, random_rows, write_folder

from configs import index
from multigrain_jax.descriptors.approximate import build
from multigrain_jax.descriptors.approximate.opening import open_engine
from multigrain_jax.descriptors.approximate.record import RECORD_FILE, read_record
from multigrain_jax.files import settle
from multigrain_jax.tasks.index import run
from multigrain_jax.tasks.on_bucket import run_on_bucket


@pytest.fixture
def database(tmp_path):
    """50 photos in shards of ten."""
    folder = tmp_path / "database" / "descriptors"
    write_folder(folder, photos(50), random_rows(50))
    return folder


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch):
    """As if each step took longer than the pause between two passes."""
    real = build.write_record

    def write_and_upload(folder, record):
        real(folder, record)
        settle(folder)

    monkeypatch.setattr(build, "write_record", write_and_upload)


def make_config(database: Path, **changes):
    config = index.get_config()
    config.update({"database": str(database), "rows_per_commit": 10, **changes})
    return config


def written(state: dict[str, bytes], prefix: str, folder: Path) -> Path:
    """The folder of an index as a state of the bucket has it."""
    folder.mkdir(parents=True)
    for name, data in state.items():
        if name.startswith(f"{prefix}/index/"):
            (folder / name.rpartition("/")[2]).write_bytes(data)
    return folder


def num_new(folder: Path, database: Path) -> int:
    """How many rows it lacks; it finds what the exact search finds, and is whole."""
    engine = open_engine(read_record(folder), folder)
    try:
        engine.size(read_record(folder).parts)
        return check_exact(folder, database, engine)
    finally:
        engine.close()


def test_after_any_request_an_index_is_whole_and_goes_on(
    gcs, states, database, tmp_path, monkeypatch
):
    pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "first"))
    run_on_bucket(run, make_config(database), gcs.url("run"))
    # Some photos go, others come: parts are written anew, and the old ones deleted.
    write_folder(database, photos(70)[7:], random_rows(70))
    run_on_bucket(run, make_config(database), gcs.url("run"))
    lacking = []
    for number, state in enumerate(states):
        if f"run/index/{RECORD_FILE}" in state:
            folder = written(state, "run", tmp_path / "states" / str(number))
            lacking.append(num_new(folder, database))
    assert lacking[-1] == 0 and len(set(lacking)) > 5

    half = next(s for s in states if f"run/index/{RECORD_FILE}" in s)
    for name, data in half.items():
        if not name.endswith("/.lock"):
            gcs.put(name.replace("run/", "killed/"), data)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "second"))
    results = run_on_bucket(run, make_config(database), gcs.url("killed"))
    assert results["num_rows"] == 63
    folder = written(states[-1], "killed", tmp_path / "killed")
    assert num_new(folder, database) == 0

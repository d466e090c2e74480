"""A task whose workdir is in a bucket: hosts, dry runs, and what is said."""

import json

import pytest
from helpers.buckets import BUSY
from ml_collections import ConfigDict

from multigrain_jax import buckets, mirror
from multigrain_jax.buckets import retry
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.on_bucket import run_on_bucket
from multigrain_jax.tasks.prepare import one_writer
from multigrain_jax.workdir import write_config, write_results


@pytest.fixture(autouse=True)
def fast(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "PASS_S", 0.02)
    yield
    buckets.disconnect()


@one_writer
def task(config, workdir):
    write_config(workdir, config.to_dict())
    write_results(workdir, {"score": 1.0})
    print(f"see {workdir / 'results.json'}")
    return {"score": 1.0}


def config(**changes) -> ConfigDict:
    return ConfigDict({"task": "search", **changes})


def test_what_a_task_writes_is_in_the_bucket(gcs):
    results = run_on_bucket(task, config(), gcs.url("runs/a"))
    assert results == {"score": 1.0}
    assert gcs.names() == ["runs/a/config.json", "runs/a/results.json"]


def test_the_workdir_of_another_task_is_refused_and_stays(gcs):
    gcs.put("runs/a/config.json", b'{"task": "train"}')
    with pytest.raises(InputError, match="found the results of 'train'"):
        run_on_bucket(task, config(), gcs.url("runs/a"))
    assert gcs.names() == ["runs/a/config.json"]


def test_a_dry_run_writes_nothing(gcs):
    run_on_bucket(task, config(dry_run=True), gcs.url("run"))
    assert gcs.names() == []


def test_hosts_that_cannot_be_are_refused_before_the_bucket_is_asked(gcs):
    hosts = {"coordinator": None, "num_processes": -2, "process_index": None}
    with pytest.raises(InputError, match=r"num_processes"):
        run_on_bucket(task, config(distributed=hosts), gcs.url("run"))
    assert gcs.requests.total() == 0


@pytest.mark.parametrize(
    ("workdir", "keys", "words"),
    [
        ("run", {"database": "gs://BUCKET/run"}, "is database itself"),
        ("run", {"database": "gs://BUCKET/run/descriptors/"}, "is database itself"),
        ("photos/run", {"data": {"root": "gs://BUCKET/photos"}}, "inside of data.root"),
    ],
)
def test_a_workdir_in_what_is_read_is_refused(gcs, workdir, keys, words):
    text = json.dumps(keys).replace("BUCKET", gcs.bucket)
    with pytest.raises(InputError, match=words):
        run_on_bucket(task, config(**json.loads(text)), gcs.url(workdir))
    assert gcs.requests.total() == 0


def test_a_workdir_beside_what_is_read_is_not(gcs):
    other = gcs.url("runs")
    run_on_bucket(task, config(database=other), gcs.url("run"))
    assert gcs.names("run/") != []


def test_a_bucket_that_does_not_answer_ends_in_bounds(gcs, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    gcs.faults.order(BUSY, every=1)
    with pytest.raises(TimeoutError, match="HTTP 503"):
        run_on_bucket(task, config(), gcs.url("run"))

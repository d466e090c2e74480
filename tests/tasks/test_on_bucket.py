"""A task whose workdir is in a bucket: hosts, dry runs, and what is said."""

import json
import sys
from types import SimpleNamespace

import pytest
from helpers.buckets import BUSY
from ml_collections import ConfigDict

from multigrain_jax import buckets, main, mirror, runtime
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


def test_milvus_lite_is_refused_and_a_cluster_is_not(gcs):
    def of(uri):
        return config(engine="milvus", milvus={"uri": uri})

    with pytest.raises(InputError, match=r"for Milvus Lite.*engine=faiss"):
        run_on_bucket(task, of("lite"), gcs.url("run"))
    assert gcs.requests.total() == 0
    assert run_on_bucket(task, of("http://host:19530"), gcs.url("run"))


def test_an_engine_of_networks_is_left_to_its_task(gcs):
    assert run_on_bucket(task, config(engine="milvus"), gcs.url("run"))


def test_a_workdir_beside_what_is_read_is_not(gcs):
    other = gcs.url("runs")
    run_on_bucket(task, config(database=other), gcs.url("run"))
    assert gcs.names("run/") != []


@pytest.fixture
def command(gcs, monkeypatch):
    """The command with a workdir in the bucket, and a task of some function."""

    def call(run, workdir=None):
        settings = ConfigDict({"task": "search", "database": None})
        monkeypatch.setitem(sys.modules, "some_task", SimpleNamespace(run=run))
        monkeypatch.setitem(main.TASKS, "search", "some_task")
        monkeypatch.setattr(main, "CONFIG", SimpleNamespace(value=settings))
        given = SimpleNamespace(value=workdir or gcs.url("run"))
        monkeypatch.setattr(main, "_WORKDIR", given)
        for flag in ("_QUIET", "_JSON"):
            monkeypatch.setattr(main, flag, SimpleNamespace(value=False))
        monkeypatch.setattr(
            main.config_flags, "get_config_filename", lambda flag: "configs/folder.py"
        )
        monkeypatch.setattr(runtime, "keep_compiled_programs", lambda: None)
        return main.main(["main"])

    return call


def test_the_command_names_the_bucket_alone(gcs, command, capsys, tmp_path):
    def run(config, workdir):
        (workdir / "table.csv").write_text("1")
        print(f"see {workdir / 'table.csv'} in {workdir}")
        raise InputError(f"{workdir.parent}/{workdir.name}/x: of no use")

    assert command(run) == 2
    told = capsys.readouterr()
    url = gcs.url("run")
    first, second = told.out.splitlines()
    assert first.endswith(f" Results go to {url}")
    assert second == f"see {url}/table.csv in {url}"
    assert told.err == f"error: {url}/x: of no use\n"
    assert str(tmp_path) not in told.out + told.err
    assert gcs.data("run/table.csv") == b"1"


def test_the_command_that_could_not_upload_says_so(gcs, command, capsys, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.02)
    monkeypatch.setattr(mirror, "LAST_PATIENCE_S", 0.05)
    monkeypatch.setattr(mirror, "PASS_S", 100.0)

    def run(config, workdir):
        (workdir / "table.csv").write_text("1")
        gcs.faults.order(BUSY, every=1)

    assert command(run) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: not all files could be uploaded to {gcs.url('run')}"
    )


def test_the_command_without_its_bucket_is_one_line(command, capsys):
    assert command(None, workdir="gs://no-such-bucket/run") == 2
    assert "there is no bucket 'no-such-bucket'" in capsys.readouterr().err
    assert command(None, workdir="gcs://bucket/run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --workdir: gcs://bucket/run: found an address that")


def test_a_bucket_that_does_not_answer_ends_in_bounds(gcs, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    gcs.faults.order(BUSY, every=1)
    with pytest.raises(TimeoutError, match="HTTP 503"):
        run_on_bucket(task, config(), gcs.url("run"))

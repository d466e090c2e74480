"""The engine Milvus, on its embedded Lite: the same calls go to a cluster."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    write_folder,
)

from multigrain_jax.descriptors.approximate import milvus_engine as module
from multigrain_jax.descriptors.approximate.engine import row_numbers
from multigrain_jax.descriptors.approximate.milvus_engine import (
    MilvusEngine,
    MilvusOptions,
)
from multigrain_jax.descriptors.approximate.record import read_record
from multigrain_jax.errors import InputError

pytest.importorskip("pymilvus", reason="pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")

ROOT = Path(__file__).parents[3]
OPTIONS = MilvusOptions("auto", None, 16, 40, module.LITE, "photos", 30)


def make(folder, made=None, **changes):
    folder.mkdir(exist_ok=True)
    options = OPTIONS._replace(**changes)
    return MilvusEngine(folder, options, dim=DIM, made=dict(made or {}))


@pytest.fixture
def paths(tmp_path):
    folder, database = tmp_path / "index", tmp_path / "database"
    write_folder(database, photos(100), random_rows(100), rows_per_shard=25)
    return folder, database


@pytest.mark.parametrize("kind", module.KINDS)
def test_found_is_what_an_exact_search_finds(paths, kind):
    folder, database = paths
    engine = make(folder, kind=kind, num_lists=4)
    try:
        record, change = bring_up(folder, database, engine, rows_per_commit=50)
        assert change == (100, 0) and record.made["kind"] == kind
        assert check_exact(folder, database, engine) == 0
        assert engine.size(record.parts)[0] == 100
    finally:
        engine.close()
    # Another run: photos have gone, others have come.
    write_folder(database, photos(120)[5:], random_rows(120), rows_per_shard=25)
    engine = make(folder, record.made, kind=kind, num_lists=4)
    try:
        assert check_exact(folder, database, engine) == 20
        record, change = bring_up(folder, database, engine, rows_per_commit=50)
        assert change == (20, 5)
        assert check_exact(folder, database, engine) == 0
        rows, num_bytes = engine.size(record.parts)
        assert rows == 115 and num_bytes > 115 * DIM * 4
        again, exact = opened(folder, database, engine)
        queries = random_rows(101, seed=8).astype(np.float32)  # in two requests
        np.testing.assert_array_equal(
            again.search(queries, 5)[1], exact.search(queries, 5)[1]
        )
    finally:
        engine.close()


def test_the_kind_is_by_the_number_of_rows(tmp_path):
    engine = make(tmp_path)
    sample = np.zeros((0, DIM), np.float32)
    try:
        assert engine.create(sample, num_rows=50_000)["kind"] == "flat"
        assert engine.create(sample, num_rows=50_001)["kind"] == "hnsw"
        lists = make(tmp_path, kind="ivf_flat").create(sample, num_rows=10_000)
        assert lists == {"kind": "ivf_flat", "num_lists": 400}
    finally:
        engine.close()


def test_a_folder_whose_name_lite_cannot_open_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff") / "index"
    folder.mkdir(parents=True)
    message = r"^--workdir: .* no UTF-8.* or --config.engine=faiss$"
    with pytest.raises(InputError, match=message):
        make(folder)
    # One that was moved there.
    (folder / "milvus.db").mkdir()
    message = r"index: found .* no UTF-8.*; rename .* anew with .*engine=faiss.*rebuild"
    with pytest.raises(InputError, match=message):
        make(folder, made={"kind": "flat"})


def test_a_folder_of_an_odd_name(paths):
    folder = paths[0].with_name("with space ü # ?%20")
    engine = make(folder)
    try:
        bring_up(folder, paths[1], engine)
        assert check_exact(folder, paths[1], engine) == 0
    finally:
        engine.close()


def test_its_file_is_for_one_at_a_time_and_free_once_it_is_closed(paths, capfd):
    folder, database = paths
    threads = threading.active_count()
    engine = make(folder)
    bring_up(folder, database, engine)
    code = (
        "import sys; from multigrain_jax.descriptors.approximate import milvus_engine\n"
        "from pathlib import Path\n"
        "options = milvus_engine.MilvusOptions("
        "'auto', None, 16, 40, 'lite', 'photos', 30)\n"
        "try: milvus_engine.MilvusEngine(Path(sys.argv[1]), options, dim=16, "
        "made={'kind': 'flat'}).close()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    other = [sys.executable, "-c", code, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(other, capture_output=True, text=True, env=environment)
    assert told.stdout.startswith("InputError"), told
    assert "Lite is for one process at a time" in told.stdout
    assert "Traceback" not in told.stderr
    engine.close()
    engine.close()
    told = subprocess.run(other, capture_output=True, text=True, env=environment)
    assert (told.stdout, told.returncode) == ("", 0), told
    assert threading.active_count() <= threads + 2  # gRPC keeps a few idle
    assert capfd.readouterr().err == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers.approximate import bring_up, DIM
from multigrain_jax.descriptors.approximate.milvus_engine import (
    MilvusEngine, MilvusOptions
)
from pymilvus import MilvusClient

insert, left = MilvusClient.insert, 4

def insert_or_die(self, *arguments):
    global left
    insert(self, *arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

MilvusClient.insert = insert_or_die
folder = Path(sys.argv[1])
folder.mkdir()
options = MilvusOptions("auto", None, 16, 40, "lite", "photos", 10)
engine = MilvusEngine(folder, options, dim=DIM, made={})
bring_up(folder, Path(sys.argv[2]), engine, rows_per_commit=25)
"""


@pytest.mark.slow
def test_killed_with_sigkill_it_goes_on(paths):
    folder, database = paths
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, folder, database],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == -9, ran.stderr
    record = read_record(folder)
    assert record.pending == 1
    engine = make(folder, record.made)
    try:
        assert check_exact(folder, database, engine) == 75
        bring_up(folder, database, engine, rows_per_commit=25)
        assert check_exact(folder, database, engine) == 0
        assert engine.size(())[0] == 100
    finally:
        engine.close()


def test_without_its_rows_the_index_is_refused(paths):
    folder, database = paths
    engine = make(folder)
    record, _ = bring_up(folder, database, engine)
    engine.close()
    with pytest.raises(InputError, match=r"no 'others' at lite.*rebuild=True"):
        make(folder, record.made, collection="others")
    # It was let go of, and opens again.
    make(folder, record.made).close()
    (folder / "milvus.db").rename(folder / "elsewhere")
    with pytest.raises(InputError, match=r"milvus\.db: missing.*rebuild=True"):
        make(folder, record.made)
    assert not (folder / "milvus.db").exists()


def test_an_error_of_the_server_is_one_line(paths):
    engine = make(paths[0])
    try:
        engine._made = {"kind": "flat"}
        with pytest.raises(InputError, match=r"lite: Milvus failed .*one process"):
            engine.search([], np.zeros((1, DIM), np.float32), k=1, effort=ALL)
    finally:
        engine.close()


@pytest.fixture
def cluster():
    """The address of a server that lets everybody in, and does nothing else."""
    grpc = pytest.importorskip("grpc", reason="grpc is not installed")

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            def call(request, context):
                if not details.method.endswith("/Connect"):
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not\nyou")
                return b""

            return grpc.unary_unary_rpc_method_handler(call)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("made", [{}, {"kind": "hnsw"}])
def test_what_a_cluster_refuses_is_one_line(cluster, tmp_path, made):
    message = (
        rf"^{cluster}: Milvus failed \(PERMISSION_DENIED: not you\), an answer was "
        r"expected; look at the server, at milvus\.uri and at MILVUS_TOKEN$"
    )
    with pytest.raises(InputError, match=message):
        engine = make(tmp_path, made, uri=cluster)
        try:
            engine.create(np.zeros((0, DIM), np.float32), num_rows=10)
        finally:
            engine.close()


def test_an_address_that_is_none_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^milvus\.uri: found http://host:port \("):
        make(tmp_path, uri="http://host:port")


def test_a_cluster_is_the_same_code_at_another_address(tmp_path, monkeypatch):
    calls = []

    class Client:
        def __init__(self, uri, token):
            calls.append((uri, token))

        def __getattr__(self, name):
            def call(*arguments, **named):
                calls.append((name, arguments, named))
                return True

            return call

    monkeypatch.setattr(module, "_client_class", lambda *, lite: Client)
    monkeypatch.setenv(module.TOKEN_VARIABLE, "me:secret")
    make(tmp_path, {"kind": "hnsw"}, uri="http://milvus:19530").close()
    assert calls[0] == ("http://milvus:19530", "me:secret")
    names = [call[0] for call in calls[1:]]
    assert names == ["has_collection", "load_collection", "close"]
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    for name in ("pymilvus", "milvus_lite"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            with pytest.raises(InputError, match=r"pip install -e '\.\[milvus\]'"):
                make(tmp_path)


def test_rows_go_in_requests_of_so_many():
    rows = random_rows(5).astype(np.float32)
    blocks = [(row_numbers(1, np.arange(n)), rows[:n]) for n in (5, 2)]
    requests = list(module._in_requests(blocks, 3))
    assert [len(request) for request in requests] == [3, 2, 2]
    assert requests[1][0]["row"] == (1 << 32) + 3
    np.testing.assert_array_equal(requests[1][0]["descriptor"], rows[3])

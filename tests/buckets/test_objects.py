"""Objects: read, listed and written under conditions, through faults of all kinds."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.buckets import BUSY, CUT, DROPPED, LOST

from multigrain_jax import buckets
from multigrain_jax.buckets import objects, retry
from multigrain_jax.errors import InputError

LARGE = bytes(range(256)) * 40_000  # more than one request holds


@pytest.fixture(params=["gcs", "s3"])
def bucket(request):
    yield request.getfixturevalue(request.param)
    buckets.disconnect()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.02)


@pytest.mark.parametrize("data", [b"", b"a\r\n", LARGE], ids=["empty", "line", "large"])
def test_what_is_written_is_read(bucket, tmp_path, data):
    url, copy = bucket.url("a/b c%41ä.bin"), tmp_path / "new" / "copy"
    (tmp_path / "file").write_bytes(data + b"what came later")
    assert buckets.upload(tmp_path / "file", url, size=len(data))
    assert buckets.read_bytes(url) == data
    assert buckets.stat(url).size == len(data)
    buckets.download(url, copy)
    assert copy.read_bytes() == data
    assert [found.path for found in buckets.list_objects(bucket.url("a"))] == [url]


def test_a_part_is_read(bucket):
    url = bucket.url("name")
    buckets.write_bytes(url, b"0123456789")
    parts = [(0, 3), (4, 2), (8, 10), (10, 1), (50, 1), (3, 0)]
    found = [buckets.read_range(url, start, length) for start, length in parts]
    assert found == [b"012", b"45", b"89", b"", b"", b""]


def test_a_condition_is_kept(bucket):
    url = bucket.url("name")
    first = buckets.write_bytes(url, b"1", if_generation=buckets.ABSENT)
    with pytest.raises(buckets.ObjectChangedError, match=r"expected no object.*name"):
        buckets.write_bytes(url, b"2", if_generation=buckets.ABSENT)
    second = buckets.write_bytes(url, b"2", if_generation=first)
    assert buckets.stat(url).generation == second != first
    for call in (
        lambda: buckets.write_bytes(url, b"3", if_generation=first),
        lambda: buckets.delete(url, if_generation=first),
        lambda: buckets.read_bytes(url, generation=first),
    ):
        with pytest.raises(buckets.ObjectChangedError):
            call()
    assert buckets.read_bytes(url, generation=second) == b"2"
    buckets.delete(url, if_generation=second)
    assert not buckets.exists(url)
    with pytest.raises(buckets.ObjectChangedError):
        buckets.write_bytes(url, b"3", if_generation=second)
    buckets.delete(url)


def test_of_many_that_write_at_once_one_is_first(gcs):
    def write(number: int) -> bool:
        try:
            buckets.write_bytes(gcs.url("x"), b"%d" % number, if_generation="0")
        except buckets.ObjectChangedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    buckets.disconnect()


def test_more_than_a_page_is_listed(bucket):
    for number in range(1001 if bucket.scheme == "gs" else 3):
        bucket.put(f"run/{number:04}", b"")
    bucket.put("run2/other", b"")
    bucket.put("run/folder/", b"")
    names = [found.path for found in buckets.list_objects(bucket.url("run"))]
    count = 1001 if bucket.scheme == "gs" else 3
    assert names == [bucket.url(f"run/{number:04}") for number in range(count)]
    assert list(buckets.list_objects(bucket.url("none"))) == []


@pytest.mark.parametrize("how", [BUSY, DROPPED, LOST, CUT])
def test_faults_that_pass_are_waited_for(gcs, impatient, tmp_path, how):
    url = gcs.url("name")

    def failing(call):
        gcs.faults.order(how, next_n=2)
        result = call()
        assert gcs.requests.total() > 2
        return result

    first = failing(lambda: buckets.write_bytes(url, LARGE, if_generation="0"))
    assert gcs.data("name") == LARGE
    failing(lambda: buckets.write_bytes(url, b"short", if_generation=first))
    assert failing(lambda: buckets.read_bytes(url)) == b"short"
    assert failing(lambda: buckets.read_range(url, 1, 2)) == b"ho"
    assert failing(lambda: list(buckets.list_objects(gcs.url())))[0].size == 5
    failing(lambda: buckets.download(url, tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"short"
    now = failing(lambda: buckets.stat(url).generation)
    failing(lambda: buckets.delete(url, if_generation=now))
    assert gcs.names() == []
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    buckets.disconnect()


def test_a_fault_for_good_ends_in_one_error(gcs, impatient, monkeypatch, capsys):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setattr(retry, "TOLD_AFTER_S", 0.05)
    gcs.faults.order(BUSY, every=1)
    with pytest.raises(TimeoutError, match=r"no answer .*HTTP 503.*gs://") as caught:
        buckets.read_bytes(gcs.url("name"))
    assert caught.value.filename == gcs.url("name")
    assert capsys.readouterr().out.count("HTTP 503; tried again for up to") == 1
    buckets.disconnect()


def test_nobody_who_listens_is_waited_for_in_bounds(gcs, impatient, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(TimeoutError, match="Connection"):
        buckets.read_bytes(gcs.url("name"))
    buckets.disconnect()


def test_what_is_not_there_is_told(bucket):
    for call in (buckets.read_bytes, buckets.stat):
        with pytest.raises(FileNotFoundError, match="no such object"):
            call(bucket.url("name"))
    nowhere = f"{bucket.scheme}://no-such-bucket/name"
    for call in (
        lambda: buckets.write_bytes(nowhere, b""),
        lambda: list(buckets.list_objects(nowhere)),
    ):
        with pytest.raises(InputError, match="there is no bucket 'no-such-bucket'"):
            call()
    with pytest.raises(InputError, match=r"found a bucket, expected something in it"):
        buckets.read_bytes(bucket.url())


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("No such object: my-bucket/name", FileNotFoundError),
        ("The specified bucket does not exist.", InputError),
    ],
)
def test_the_services_words_tell_an_object_from_a_bucket(gcs, monkeypatch, words, kind):
    def refuse(*_: object, **__: object) -> None:
        from google.api_core.exceptions import NotFound

        raise NotFound(f"GET https://storage/b/my-bucket/o/name: {words}")

    monkeypatch.setattr("google.cloud.storage.Blob.reload", refuse)
    with pytest.raises(kind):
        buckets.stat("gs://my-bucket/name")
    buckets.disconnect()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (401, PermissionError, "gcloud auth application-default login"),
        (403, PermissionError, "not allowed .*storage.objects.get"),
        (400, OSError, "HTTP 400: .*storage.objects.get"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(gcs, monkeypatch, code, kind, words):
    def refuse(*_: object, **__: object) -> None:
        from google.api_core.exceptions import from_http_status

        raise from_http_status(code, "user x lacks storage.objects.get")

    monkeypatch.setattr("google.cloud.storage.Blob.download_as_bytes", refuse)
    with pytest.raises(kind, match=words):
        buckets.read_bytes(gcs.url("name"))
    buckets.disconnect()


@pytest.mark.parametrize("code", [400, 403])
def test_an_address_that_lets_anybody_write_is_not_shown(gcs, monkeypatch, code):
    def refuse(*_: object, **__: object) -> None:
        from google.api_core.exceptions import from_http_status

        address = "PUT https://storage/upload/b/x/o?uploadType=resumable&upload_id=key"
        raise from_http_status(code, f"{address}: too late")

    monkeypatch.setattr("google.cloud.storage.Blob.upload_from_file", refuse)
    with pytest.raises(OSError, match=r"b/x/o\?….*too late") as caught:
        buckets.write_bytes(gcs.url("name"), b"1")
    assert "upload_id" not in str(caught.value)
    lost = retry.in_short(TimeoutError("url: /o?upload_id=key (Caused by x?)"))
    assert lost == "TimeoutError: url: /o?… (Caused by x?)"
    buckets.disconnect()


@pytest.mark.parametrize("library", ["google.cloud.storage", "botocore"])
def test_a_missing_library_is_named_by_its_extra(gcs, monkeypatch, library):
    scheme = "gs" if "google" in library else "s3"
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.exceptions", None)
    extra = "gcs" if scheme == "gs" else "s3"
    with pytest.raises(InputError, match=rf"pip install 'multigrain_jax\[{extra}\]'"):
        buckets.read_bytes(f"{scheme}://bucket/name")


def test_a_process_that_was_forked_reads_as_well(gcs):
    """In a process of its own: others here may have threads, and warn of a fork."""
    gcs.put("name", b"data")
    code = (
        "import os, sys\n"
        "from multigrain_jax import buckets\n"
        "def reads(): return buckets.read_bytes(sys.argv[1]) == b'data'\n"
        "assert reads()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if reads() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0 and reads()\n"
    )
    subprocess.run([sys.executable, "-c", code, gcs.url("name")], check=True)


def test_importing_it_needs_no_library():
    code = (
        "import sys; import multigrain_jax.buckets; "
        "print([n for n in ('google.cloud', 'botocore', 'fsspec') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_first_bytes_of_a_file_are_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        first = objects._First(file, 4)
        assert (first.read(3), first.read(3), first.read()) == (b"012", b"3", b"")
        assert first.seek(0, os.SEEK_END) == 4


def test_an_upload_whose_client_is_killed_in_the_middle_was_never_there(gcs):
    host, port = gcs.address.removeprefix("http://").split(":")
    path = f"/upload/storage/v1/b/{gcs.bucket}/o?uploadType=multipart"
    for sent in (b"", b'--==1==\r\n\r\n{"name": "half"}\r\n--==1==\r\n\r\nsome'):
        with socket.create_connection((host, int(port))) as wire:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 999\r\n\r\n"
            )
            wire.sendall(head.encode() + sent)
            wire.shutdown(socket.SHUT_WR)
            assert wire.recv(1) == b""
    assert gcs.names() == []

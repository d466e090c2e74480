"""Buckets for tests: `gs://` and `s3://` on loopback, in memory, with faults to order.

`gcs` and `s3` are fixtures (tests/conftest.py knows them): a new bucket for each test,
on a server that is started when the first test asks for it.
"""

import itertools
import logging
import threading
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.bucket_requests import (
    BUSY,
    CUT,
    DROPPED,
    HANGING,
    LOST,
    Faults,
    Handler,
    Server,
)

from multigrain_jax import bucket_copies, mirror
from multigrain_jax.buckets import retry

__all__ = ["BUSY", "CUT", "DROPPED", "HANGING", "LOST", "S3", "Faults", "Gcs"]

# What the libraries look for before they believe that nobody has to be asked.
ANONYMOUS = {
    "NO_GCE_CHECK": "true",
    "GOOGLE_CLOUD_PROJECT": "test",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Gcs:
    """The emulator of Google Cloud Storage behind what it lacks.

    Generation preconditions are kept, listings come in pages, and requests fail as
    `faults` says.

    Attributes:
        bucket: the bucket of this test.
        faults: what is to go wrong.
        requests: how many there were of each kind: "list", "read", "stat", "write",
            "delete", "copy", "bucket".
        errors: what went wrong in the emulator itself.
    """

    scheme = "gs"

    def __init__(self):
        from gcp_storage_emulator.storage import Storage

        self.faults, self.requests = Faults(), Counter()
        self.errors: list[str] = []
        self.lock = threading.RLock()
        self.storage = Storage(use_memory_fs=True)
        # It would write down everything there is at every write.
        self.storage._write_config_to_file = lambda: None
        handler = type("Handler", (Handler,), {"emulator": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.emulator = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        self._numbers = itertools.count()
        self.bucket = ""

    @property
    def environment(self) -> dict[str, str]:
        """What processes must be told."""
        return {
            **ANONYMOUS,
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
        }

    def renew(self) -> None:
        """A new, empty bucket; nothing fails, nothing is counted yet."""
        from gcp_storage_emulator.handlers.buckets import create_bucket

        with self.lock:
            self.faults.clear()
            self.storage.objects.clear()
            self.bucket = f"bucket{next(self._numbers)}"
            create_bucket(self.bucket, self.storage)
            self.requests.clear()

    def close(self) -> None:
        """End the server."""
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str = "") -> str:
        """The URL of an object, or of the bucket."""
        return f"gs://{self.bucket}/{name}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, past the server."""
        self.write(self.bucket, name, data, {})

    def write(self, bucket: str, name: str, data: bytes, given: dict) -> dict:
        """Write an object with what is told of it; what there is to tell then."""
        from gcp_storage_emulator.handlers import objects

        with self.lock:
            row = objects._make_object_resource(
                self.address,
                bucket,
                name,
                "application/octet-stream",
                str(len(data)),
                given,
            )
            objects._checksums(data, row)
            self.storage.create_file(bucket, name, data, row)
        return row

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        """Write every file of a folder, past the server."""
        put_folder(self, folder, prefix)

    def data(self, name: str) -> bytes:
        """What an object holds; an exception of the emulator's where there is none."""
        with self.lock:
            return self.storage.get_file(self.bucket, name)

    def generation(self, name: str) -> int:
        """Which writing of an object is there now; 0: none."""
        with self.lock:
            row = self.storage.objects.get(self.bucket, {}).get(name)
        return 0 if row is None else int(row["generation"])

    def delete(self, name: str) -> None:
        """Remove an object, past the server."""
        with self.lock:
            self.storage.delete_file(self.bucket, name)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all objects, sorted."""
        with self.lock:
            found = self.storage.objects.get(self.bucket, {})
            return sorted(name for name in found if name.startswith(prefix))


def put_folder(bucket: "Gcs | S3", folder: Path, prefix: str = "") -> None:
    """Write every file of a folder as an object of the same name below `prefix`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            bucket.put(f"{prefix}/{name}".lstrip("/"), path.read_bytes())


class S3:
    """Moto's server of S3.

    Attributes:
        bucket: the bucket of this test.
    """

    scheme = "s3"

    def __init__(self):
        from moto.server import ThreadedMotoServer

        # It tells of each request.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.address = "http://{}:{}".format(*self._server.get_host_and_port())
        self._numbers = itertools.count()
        self.bucket = ""

    @property
    def environment(self) -> dict[str, str]:
        """What processes must be told."""
        return {**ANONYMOUS, "AWS_ENDPOINT_URL": self.address}

    def renew(self) -> None:
        """A new, empty bucket."""
        self.bucket = f"bucket{next(self._numbers)}"
        url = f"{self.address}/{self.bucket}"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT")):
            pass

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def url(self, name: str = "") -> str:
        """The URL of an object, or of the bucket."""
        return f"s3://{self.bucket}/{name}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, past the server."""
        self._backend().put_object(self.bucket, name, value=data)

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        """Write every file of a folder."""
        put_folder(self, folder, prefix)

    def data(self, name: str) -> bytes:
        """What an object holds."""
        return self._backend().buckets[self.bucket].keys[name].value

    def delete(self, name: str) -> None:
        """Remove an object, past the server."""
        self._backend().delete_object(self.bucket, name)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all objects, sorted."""
        found = self._backend().buckets[self.bucket].keys
        return sorted(name for name in found if name.startswith(prefix))

    def _backend(self):
        from moto.s3.models import s3_backends

        (own,) = (b for b in s3_backends.values() if self.bucket in b["aws"].buckets)
        return own["aws"]


@contextmanager
def told(bucket: Gcs | S3) -> Generator[None]:
    """Within it this process and those that it starts find the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test alone, and short waits for buckets."""
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "PAUSE_S", 0.0)
    monkeypatch.setattr(mirror, "PASS_S", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="session")
def gcs_server() -> Generator[Gcs]:
    """One server for all tests of a process; `gcs` is a bucket of it."""
    server = Gcs()
    yield server
    server.close()


@pytest.fixture
def gcs(gcs_server: Gcs) -> Generator[Gcs]:
    """An empty bucket of `gs://`, which this process and its children find."""
    gcs_server.renew()
    with told(gcs_server):
        yield gcs_server
    gcs_server.faults.clear()
    errors, gcs_server.errors = gcs_server.errors, []
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="session")
def s3_server() -> Generator[S3]:
    """One server for all tests of a process; `s3` is a bucket of it."""
    server = S3()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3) -> Generator[S3]:
    """An empty bucket of `s3://`, which this process and its children find."""
    s3_server.renew()
    with told(s3_server):
        yield s3_server

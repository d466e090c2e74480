"""The photos that the fault tests train on, and all that a bucket has held."""

from pathlib import Path

import pytest
from helpers.photos import write_noise_photos

from multigrain_jax import buckets, mirror

CLASSES = ("disc", "stripes", "dots")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """`train` with 33 and `val` with 6 photos of three classes."""
    root = tmp_path_factory.mktemp("photos")
    write_noise_photos(root / "train", CLASSES, count=11)
    write_noise_photos(root / "val", CLASSES, count=2, seed=1)
    return root


@pytest.fixture
def states(gcs, monkeypatch) -> list[dict[str, bytes]]:
    """What the bucket holds after each request: where a kill leaves it."""
    found: list[dict[str, bytes]] = []
    for name in ("upload", "write_bytes", "delete"):
        real = getattr(buckets, name)

        def call(*arguments, real=real, **options):
            result = real(*arguments, **options)
            found.append({key: gcs.data(key) for key in gcs.names()})
            return result

        monkeypatch.setattr(buckets, name, call)
    monkeypatch.setattr(mirror, "UPLOADS_AT_ONCE", 1)
    monkeypatch.setattr(mirror, "PASS_S", 1000.0)
    return found

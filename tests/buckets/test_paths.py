"""Addresses of buckets, told from paths and made plain."""

from pathlib import Path

import pytest

from multigrain_jax import buckets
from multigrain_jax.errors import InputError


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("gs://bucket/run", "gs://bucket/run"),
        ("gs://bucket/run/", "gs://bucket/run"),
        ("s3://bucket", "s3://bucket"),
        (Path("gs://bucket/run"), "gs://bucket/run"),
        ("gs://bucket/a//b", "gs://bucket/a//b"),
    ],
)
def test_an_address_keeps_its_slashes(path, plain):
    assert buckets.is_bucket(path)
    assert buckets.normalize(path) == plain == str(buckets.split(path))


@pytest.mark.parametrize("path", ["run", "/data/gs/run", "c:/run", "gs:", "./gs:/x"])
def test_a_path_is_none(path):
    assert not buckets.is_bucket(path)


@pytest.mark.parametrize("path", ["gcs://bucket/x", "https://host/x", "hdfs://x"])
def test_an_address_of_another_kind_is_refused(path):
    with pytest.raises(InputError, match=r"expected a path of this machine, gs://"):
        buckets.is_bucket(path)


@pytest.mark.parametrize("path", ["gs://", "s3:///", "gs://bucket/../x", "run"])
def test_an_address_without_a_bucket_is_refused(path):
    with pytest.raises(InputError, match=r"expected gs://BUCKET/NAME"):
        buckets.normalize(path)


def test_what_is_below_an_address_is_joined():
    assert buckets.join("gs://bucket/run/", "a", "b/c") == "gs://bucket/run/a/b/c"
    assert buckets.join("gs://bucket", "a") == "gs://bucket/a"


def test_a_path_or_an_address_is_made_plain(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert buckets.local_or_bucket("~/run") == Path("/home/somebody/run")
    assert buckets.local_or_bucket("gs://bucket/run/") == "gs://bucket/run"

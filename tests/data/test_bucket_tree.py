"""What lies in a bucket is listed by pages, once for each task, and not kept."""

import pytest
from helpers.buckets import BUSY, DROPPED

from multigrain_jax.data import bucket_tree
from multigrain_jax.data.bucket_tree import Stamp, Tree, listed_stamp, stamp_url
from multigrain_jax.errors import InputError


def test_a_listing_of_2500_objects_comes_by_pages_and_faults_lose_none(gcs):
    for number in range(2500):
        gcs.put(f"photos/{number % 3}/{number}.jpg", b"x" * (number % 7))
    gcs.requests.clear()
    gcs.faults.order(BUSY, every=2, kinds=("list",))
    tree = Tree(gcs.url("photos"))
    assert len(list(tree.files())) == 2500
    assert gcs.requests["list"] == 5  # three pages, of which two were asked for twice
    assert tree.folders[""].folders == ["0", "1", "2"]
    folder = tree.folders["1"]
    assert folder.names == sorted(folder.names)
    for name in folder.names[::100]:
        found = folder.find(name)
        assert found is not None and found.size == int(name[:-4]) % 7
    assert folder.find("nothing.jpg") is None


def test_what_was_listed_is_known_until_it_is_forgotten(gcs):
    gcs.put("photos/a/one.jpg", b"1")
    url = gcs.url("photos/a/one.jpg")
    assert listed_stamp(url) is None
    asked = stamp_url(url)
    bucket_tree.listed(gcs.url("photos"))
    gcs.requests.clear()
    assert listed_stamp(url) == asked == stamp_url(url)
    with pytest.raises(FileNotFoundError):
        stamp_url(gcs.url("photos/a/two.jpg"))
    assert not gcs.requests
    gcs.put("photos/a/two.jpg", b"22")
    bucket_tree.forget()
    assert stamp_url(gcs.url("photos/a/two.jpg")).size == 2
    gcs.put("photos/a/two.jpg", b"33")
    first = stamp_url(gcs.url("photos/a/two.jpg"))
    gcs.put("photos/a/two.jpg", b"44")
    assert stamp_url(gcs.url("photos/a/two.jpg")) != first


def test_names_that_no_folder_can_hold_are_counted(s3):
    for name in ("a/b.jpg", "a//c.jpg", "a/../d.jpg", "a/e.jpg/f.jpg", "a/e.jpg"):
        s3.put(name, b"x")
    tree = Tree(s3.url())
    assert sorted(tree.files()) == ["a/b.jpg", "a/e.jpg", "a/e.jpg/f.jpg"]
    assert tree.num_strange == 2


def test_a_bucket_that_is_not_there_and_one_that_is_empty(gcs, monkeypatch):
    with pytest.raises(InputError, match=r"gs://nowhere/x.*no bucket 'nowhere'"):
        Tree("gs://nowhere/x")
    assert not Tree(gcs.url("x")).has("")
    monkeypatch.setattr("multigrain_jax.buckets.retry.PATIENCE_S", 0.3)
    gcs.faults.order(DROPPED, every=1)
    with pytest.raises(OSError, match="no answer of the storage"):
        Tree(gcs.url("x"))


def test_two_writings_have_two_stamps(gcs, s3):
    for bucket in (gcs, s3):
        bucket.put("a", b"1")
        before = bucket_tree.stamp_url(bucket.url("a"))
        bucket.put("a", b"2")
        after = bucket_tree.stamp_url(bucket.url("a"))
        assert before.size == after.size == 1 and before.version != after.version
        assert isinstance(after, Stamp) and 0 <= after.version < 2**63

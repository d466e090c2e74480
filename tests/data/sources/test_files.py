"""The same photos in a folder and in buckets are the same set, read the same."""

import pickle

import numpy as np
import pytest
from helpers.buckets import BUSY, CUT, DROPPED
from helpers.photos import plain_photo, write_noise_photos, write_plain_photos
from helpers.sources import described, open_photos

from multigrain_jax.data import bucket_tree
from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.digest import data_digest
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading, why_unreadable
from multigrain_jax.data.sources.files import FileSource
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.errors import InputError

SIZES = ((40, 30), (30, 44), (64, 64))


@pytest.fixture
def photos(tmp_path):
    """Two parts with classes, and what is passed over."""
    for part, seed in (("train", 1), ("val", 2)):
        root = tmp_path / "photos" / part
        write_noise_photos(root, ("b", "a/x", "a.b", "ü"), count=2, sizes=SIZES)
        (root / "a" / "notes.txt").write_text("no photo")
        (root / "a" / ".hidden.png").write_bytes(plain_photo(seed, kind="PNG"))
        (root / "__MACOSX").mkdir()
        (root / "__MACOSX" / "1.png").write_bytes(plain_photo(seed, kind="PNG"))
        (root / "empty.JPG").write_bytes(b"")
    return tmp_path / "photos"


@pytest.fixture(params=["gcs", "s3"])
def remote(request, photos):
    bucket = request.getfixturevalue(request.param)
    bucket.put_folder(photos, "photos")
    return bucket


def batches(source, *, num_workers=0):
    plan = plan_batches(
        source,
        test_size=16,
        test_mode="rect",
        batch_size=4,
        smallest_side=1,
        timeout_s=60.0,
    )
    reading = Reading(num_workers=num_workers, prefetch=4, timeout_s=60.0)
    return list(make_eval_batches(source, plan, reading=reading))


@pytest.mark.parametrize(
    "options",
    [
        {"split": "train"},
        {"split": "val"},
        {"split": None, "instances": "2"},
        {"split": None, "num_images": 5, "exclude": ("b",)},
    ],
    ids=str,
)
def test_order_labels_names_and_digests_are_those_of_the_folder(
    photos, remote, options
):
    here = open_photos(photos, **options)
    there = open_photos(remote.url("photos"), **options)
    names = described(here, photos)
    assert described(there, as_path(remote.url("photos"))) == names and names
    assert there.class_names == here.class_names
    np.testing.assert_array_equal(there.labels, here.labels)
    assert (there.instances is None) == (here.instances is None)
    if here.instances is not None:
        np.testing.assert_array_equal(there.instances, here.instances)
    assert [r.replace(str(photos), remote.url("photos")) for r in here.remarks] == list(
        there.remarks
    )
    assert data_digest(here, root=str(photos)) == data_digest(
        there, root=remote.url("photos") + "/"
    )
    copy = pickle.loads(pickle.dumps(there))
    bucket_tree.forget()  # as in a reading process, which has listed nothing
    for index in range(len(here)):
        assert copy.read(index) == here.read(index)
        assert copy.stamp(index) == there.stamp(index)
        with here.open(index) as one, copy.open(index) as other:
            assert one.read(50) == other.read(50)


def test_batches_are_equal_and_no_photo_is_asked_for_twice(photos, gcs):
    gcs.put_folder(photos, "photos")
    here = batches(open_photos(photos, "train"))
    source = open_photos(gcs.url("photos"), "train")
    gcs.requests.clear()
    there = batches(source)
    for one, other in zip(here, there, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    # Each a header and the whole; of the empty file neither; sizes were listed.
    assert gcs.requests["stat"] == gcs.requests["list"] == 0
    assert gcs.requests["read"] <= 2 * len(source) + 4


def test_lists_name_photos_by_paths_and_by_addresses(photos, remote):
    root = remote.url("photos")
    text = f"train/b/1.png\tx\n{root}/train/a/x/0.png\ty\nval/b/0.png\tx\n"
    remote.put("lists/train.txt", text.encode())
    for place in ("lists/train.txt", "lists"):
        source = open_photos(root, "train", list_file=remote.url(place))
        assert described(source, as_path(root)) == [
            "train/b/1.png",
            "train/a/x/0.png",
            "val/b/0.png",
        ]
        assert source.labels.tolist() == [0, 1, 0]
        assert source.read(0) == (photos / "train/b/1.png").read_bytes()
    (photos / "list.txt").write_text("train/b/1.png\n")
    assert len(open_photos(root, None, list_file=photos / "list.txt")) == 1
    remote.put("outside.txt", f"{remote.url('other')}/a.png\n".encode())
    with pytest.raises(InputError, match=r"is absolute, and leads outside of"):
        open_photos(root, None, list_file=remote.url("outside.txt"))
    with pytest.raises(InputError, match=r"list_file .*/none.txt.*no such file"):
        open_photos(root, None, list_file=remote.url("none.txt"))


def test_a_bucket_is_a_folder_too(gcs):
    gcs.put("b/1.png", plain_photo(kind="PNG"))
    gcs.put("a/1.png", plain_photo(kind="PNG"))
    source = open_photos(gcs.url())
    assert described(source, as_path(gcs.url())) == ["a/1.png", "b/1.png"]
    assert source.read(0) == gcs.data("a/1.png")


def test_what_is_held_out_is_the_same(photos, gcs):
    gcs.put_folder(photos / "train", "flat")
    for split in ("train", "val"):
        here = open_photos(photos / "train", split, val_fraction=0.4)
        there = open_photos(gcs.url("flat"), split, val_fraction=0.4)
        assert described(here, photos / "train") == described(
            there, as_path(gcs.url("flat"))
        )


def test_imagenet_as_it_is_unpacked(tmp_path, gcs):
    names = ["train/n01440764/1.JPEG", "val/n01440764/1.JPEG", "train/n01443537/2.JPEG"]
    gcs.put_folder(write_plain_photos(tmp_path, names), "imagenet")
    source = open_photos(gcs.url("imagenet"), "train", source="imagenet")
    assert source.class_names == ["n01440764", "n01443537"] and len(source) == 2
    with pytest.raises(InputError, match=r"expected one of test .*found .*train"):
        open_photos(gcs.url("imagenet"), "test", source="imagenet")


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nothing", r"data.root: gs://.*/nothing was expected.*found nothing below it"),
        ("photo.png", r"data.root: gs://.*/photo.png was expected .*found an object"),
        ("texts", r"gs://.*/texts: no images .*found a/b.txt"),
    ],
)
def test_what_is_no_folder_of_photos_is_named(gcs, root, message):
    gcs.put("photo.png", plain_photo(kind="PNG"))
    gcs.put("texts/a/b.txt", b"text")
    with pytest.raises(InputError, match=message):
        open_photos(gcs.url(root))
    with pytest.raises(InputError, match=r"data.source = 'tfds', which is read from a"):
        open_photos(gcs.url(root), source="tfds")


def test_photos_that_vanish_grow_or_are_no_photos_are_unreadable(gcs, monkeypatch):
    monkeypatch.setattr("multigrain_jax.data.patience.PAUSES", (0.01,))
    for name in ("1.png", "2.png", "3.png"):
        gcs.put(f"photos/{name}", plain_photo(kind="PNG"))
    gcs.put("photos/4.png", b"no photo")
    source = open_photos(gcs.url("photos"))
    gcs.delete("photos/2.png")
    assert why_unreadable(source, 0) is None
    assert "no such object" in (why_unreadable(source, 1) or "")
    assert "not an image file" in (why_unreadable(source, 3) or "")
    small = VIEWER.__class__(**{**vars(VIEWER), "max_megapixels": 1e-5})
    source = open_photos(gcs.url("photos"), decoding=small)
    assert "more than the limit" in (why_unreadable(source, 0) or "")


def test_copies_on_the_local_disk_spare_requests_until_the_photo_changes(gcs, tmp_path):
    gcs.put("photos/1.png", b"one")
    cache = tmp_path / "cache"

    def read() -> bytes:
        bucket_tree.forget()
        source = open_photos(gcs.url("photos"), local_cache_dir=cache)
        gcs.requests.clear()
        return source.read(0)

    assert read() == b"one" and gcs.requests["read"] == 1
    assert read() == b"one" and not gcs.requests
    gcs.put("photos/1.png", b"two")
    assert read() == b"two" and gcs.requests["read"] == 1
    assert read() == b"two" and not gcs.requests


@pytest.mark.parametrize("how", [BUSY, DROPPED, CUT])
def test_faults_of_the_storage_are_waited_out(gcs, photos, how, monkeypatch):
    monkeypatch.setattr("multigrain_jax.buckets.retry.FIRST_PAUSE_S", 0.01)
    gcs.put_folder(photos, "photos")
    here = batches(open_photos(photos, "train"))
    gcs.faults.order(how, every=4)
    there = batches(open_photos(gcs.url("photos"), "train"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["bad"], other["bad"])


def test_a_storage_that_does_not_answer_is_an_unreadable_photo(gcs, monkeypatch):
    monkeypatch.setattr("multigrain_jax.buckets.retry.PATIENCE_S", 0.2)
    monkeypatch.setattr("multigrain_jax.data.patience.PAUSES", ())
    gcs.put("photos/1.png", plain_photo(kind="PNG"))
    source = open_photos(gcs.url("photos"))
    gcs.faults.order(DROPPED, every=1)
    assert "no answer of the storage" in (why_unreadable(source, 0) or "")


def test_files_and_objects_in_one_source(gcs, tmp_path):
    write_plain_photos(tmp_path, ["1.png"])
    gcs.put("2.png", plain_photo(3, kind="PNG"))
    paths = [str(tmp_path / "1.png"), gcs.url("2.png")]
    source = FileSource(
        [ImageFile(path, -1) for path in paths],
        class_names=[],
        decoding=VIEWER,
        local_cache_dir=None,
    )
    assert source.read(0) == (tmp_path / "1.png").read_bytes()
    assert source.read(1) == gcs.data("2.png")
    stamp = source.stamp(1)
    assert stamp is not None and stamp.size == len(gcs.data("2.png"))


@pytest.mark.slow
def test_processes_read_buckets(photos, gcs):
    gcs.put_folder(photos, "photos")
    here = batches(open_photos(photos, "train"))
    there = batches(open_photos(gcs.url("photos"), "train"), num_workers=1)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])

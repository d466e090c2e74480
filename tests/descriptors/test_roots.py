"""Folders of images, and images that were moved from one to another."""

import os

import pytest

from multigrain_jax.descriptors.folder import OK, VANISHED, ImageStamp, IndexRow
from multigrain_jax.descriptors.roots import (
    identity_of,
    is_below,
    moved_rows,
    old_root,
    rebased,
    with_root,
)


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/a/b.jpg", "/a", True),
        ("/a/b.jpg", "/a/", True),
        ("/a b/c.jpg", "/a", False),
        ("/ab.jpg", "/a", False),
        ("/a.jpg", "/", True),
    ],
)
def test_a_folder_holds_what_is_below_it(path, root, below):
    assert is_below(path, root) == below


def test_a_path_moves_with_its_folder():
    assert rebased("/a/b/c.jpg", "/a", "/d") == "/d/b/c.jpg"
    assert rebased("/a/b/c.jpg", "/a/", "/d/") == "/d/b/c.jpg"
    assert rebased("/e/c.jpg", "/a", "/d") == "/e/c.jpg"


def test_a_folder_takes_the_place_of_those_in_it():
    assert with_root(("/a/b", "/c"), "/a") == ("/c", "/a")
    assert with_root(("/a",), "/a/b") == ("/a",)
    assert with_root(("/a",), "/a") == ("/a",)
    assert with_root(("/a b",), "/a") == ("/a b", "/a")


def stamped(root, names, *, mtime_ns=5):
    return [ImageStamp(f"{root}/{name}", 1, mtime_ns) for name in names]


def test_rows_follow_images_that_were_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    rows = [IndexRow(image, 0, n, OK) for n, image in enumerate(stamped(old, "abcde"))]
    rows[4] = rows[4]._replace(status=VANISHED)
    moved = moved_rows(rows, [str(old)], stamped(new, "abcz"), str(new))
    assert [row.image.path for row in moved or []] == [f"{new}/{n}" for n in "abcde"]
    # Too few of them, of another time, or still where they were.
    assert moved_rows(rows, [str(old)], stamped(new, "ab"), str(new)) is None
    other = stamped(new, "abcd", mtime_ns=6)
    assert moved_rows(rows, [str(old)], other, str(new)) is None
    old.mkdir()
    (old / "d").touch()
    assert moved_rows(rows, [str(old)], stamped(new, "abcd"), str(new)) is None
    assert moved_rows(rows, [str(new)], stamped(new, "abcd"), str(new)) is None


def test_the_old_folder_is_known_by_what_is_in_the_new_one(tmp_path):
    (tmp_path / "b").touch()
    paths = ["/x/0", "/y/a", "/y/b", "/x/1"]
    assert old_root(["/x", "/y"], paths, str(tmp_path)) == "/y"
    assert old_root(["/x"], paths, str(tmp_path)) is None
    assert old_root([], paths, str(tmp_path)) is None


@pytest.mark.parametrize("names", [["a.parquet#0", "a.parquet#1"], ["a.tar/1.jpg"]])
def test_packed_photos_are_where_their_file_is(tmp_path, names):
    old, new = tmp_path / "old.tar", tmp_path / "new"
    file = names[0].split("#")[0].split("/")[0]
    rows = [IndexRow(image, 0, n, OK) for n, image in enumerate(stamped(old, names))]
    paths = [row.image.path for row in rows]
    for folder in (old, new):
        folder.mkdir()
    (old / file).touch()
    assert old_root([str(old)], paths, str(new)) is None
    # A copy of the file is no move.
    (new / file).touch()
    images = stamped(new, names)
    assert moved_rows(rows, [str(old)], images, str(new)) is None
    (old / file).unlink()
    moved = moved_rows(rows, [str(old)], images, str(new))
    assert [row.image.path for row in moved or []] == [f"{new}/{n}" for n in names]
    assert old_root([str(old)], paths, str(new)) == str(old)


def test_links_to_one_file_are_the_same(tmp_path):
    photo = tmp_path / "a" / "photo"
    photo.parent.mkdir()
    photo.write_bytes(b"1")
    os.link(photo, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(photo)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "copy").write_bytes(b"1")
    names = [photo, tmp_path / "hard", tmp_path / "soft", tmp_path / "b" / "photo"]
    assert len({identity_of(str(name)) for name in names}) == 1
    assert identity_of(str(tmp_path / "copy")) != identity_of(str(photo))
    # What is gone is known by its real path; what is no file by its name.
    gone = [str(tmp_path / "b" / "gone"), str(tmp_path / "a" / "gone")]
    assert identity_of(gone[0]) == identity_of(gone[1])
    assert identity_of("/d/1.0.0 test [3]") != identity_of("/d/1.0.0 test [4]")
    assert identity_of("a\0b") == "a\0b"


def test_images_of_a_bucket_are_looked_for_there(gcs, tmp_path):
    gcs.put("new/a/1.jpg", b"")
    paths = ["/x/a/1.jpg", gcs.url("old/a/1.jpg")]
    assert old_root(["/x"], paths, gcs.url("new")) == "/x"
    assert old_root([gcs.url("old")], paths, gcs.url("new")) == gcs.url("old")
    assert old_root([gcs.url("old")], paths, gcs.url("other")) is None

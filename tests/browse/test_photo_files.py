"""Files of a collection: those that were embedded, and no others."""

import os
from types import SimpleNamespace

import pytest

from multigrain_jax.browse.photo_files import (
    PhotoFiles,
    PhotoGoneError,
    PhotoRefusedError,
)
from multigrain_jax.descriptors.folder import ImageStamp


def make_files(root, paths, *, source=None):
    """Files as they are now, as if they had just been embedded."""
    stamps = []
    for path in paths:
        known = os.stat(path) if os.path.exists(path) else os.stat(root)
        stamps.append(ImageStamp(str(path), known.st_size, known.st_mtime_ns))
    collection = SimpleNamespace(
        roots=(str(root),),
        has=lambda row: 0 <= row < len(paths),
        path=lambda row: str(paths[row]),
        stamp=lambda row: stamps[row],
    )
    return PhotoFiles(collection, open_source=lambda: source, max_bytes=1000)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"a photo")
    return folder


def test_a_photo_is_read(root):
    files = make_files(root, [root / "a.jpg"])
    assert files.read(0) == b"a photo"
    found = os.stat(root / "a.jpg")
    assert files.stamp(0)[1:] == (found.st_size, found.st_mtime_ns)
    assert files.is_unchanged(0)
    for row in (-1, 1):
        with pytest.raises(PhotoGoneError):
            files.read(row)


def test_a_photo_that_vanished_is_told(root):
    files = make_files(root, [root / "a.jpg"])
    (root / "a.jpg").unlink()
    with pytest.raises(PhotoGoneError, match="No such file"):
        files.read(0)
    with pytest.raises(PhotoGoneError):
        files.stamp(0)
    assert not files.is_unchanged(0)


def test_a_photo_that_changed_is_shown_and_not_unchanged(root):
    files = make_files(root, [root / "a.jpg"])
    (root / "a.jpg").write_bytes(b"another")
    os.utime(root / "a.jpg", ns=(5, 5))
    assert files.read(0) == b"another"
    assert not files.is_unchanged(0)


def test_files_outside_of_the_roots_are_refused(root, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    paths = [tmp_path / "secret.jpg", f"{root}/../secret.jpg", f"{root}/./a.jpg"]
    files = make_files(root, paths)
    for row in range(len(paths)):
        with pytest.raises(PhotoRefusedError, match="outside"):
            files.read(row)


def test_a_link_out_is_followed_only_to_what_was_embedded(root, tmp_path):
    for name in ("outside.jpg", "secret.jpg"):
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, ns=(7, 7))
    link = root / "link.jpg"
    link.symlink_to(tmp_path / "outside.jpg")
    files = make_files(root, [link])
    assert files.read(0) == b"12345"
    assert not files.is_unchanged(0)  # a link is never moved
    link.unlink()
    link.symlink_to(tmp_path / "secret.jpg")  # even of the same size and time
    with pytest.raises(PhotoRefusedError, match="link out"):
        files.read(0)


def test_a_link_that_leads_out_since_is_refused(root, tmp_path):
    files = make_files(root, [root / "a.jpg"])
    (tmp_path / "secret.jpg").write_bytes(b"a secret")
    (root / "a.jpg").unlink()
    (root / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(PhotoRefusedError, match="link out"):
        files.read(0)


def test_a_folder_that_became_a_link_out_is_refused(root, tmp_path):
    (root / "sub").mkdir()
    (root / "sub" / "b.jpg").write_bytes(b"b")
    files = make_files(root, [root / "sub" / "b.jpg"])
    (root / "sub").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"other")
    (root / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PhotoRefusedError):
        files.read(0)


def test_what_is_no_file_or_too_large_is_refused_at_once(root):
    os.mkfifo(root / "pipe.jpg")
    (root / "folder.jpg").mkdir()
    (root / "large.jpg").write_bytes(bytes(1001))
    names = ("pipe.jpg", "folder.jpg", "large.jpg")
    files = make_files(root, [root / name for name in names])
    for row in range(3):
        with pytest.raises(PhotoRefusedError):
            files.read(row)


def test_a_photo_of_a_data_set_is_read_from_it(root):
    class Source:
        def __len__(self):
            return 2

        def describe(self, index):
            return f"set {index}"

        def read(self, index):
            return b"photo %d" % index

    files = make_files(root, ["set 1", "set 7"], source=Source())
    assert files.read(0) == b"photo 1"
    with pytest.raises(PhotoGoneError, match="data set"):
        files.read(1)
    assert not files.is_unchanged(0)
    with pytest.raises(PhotoGoneError):
        make_files(root, ["set 1"]).read(0)

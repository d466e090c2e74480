"""Files that are the same to the byte, within their groups."""

import os

import numpy as np

from multigrain_jax.data import same_bytes as module
from multigrain_jax.data.same_bytes import same_bytes


def test_files_of_equal_bytes_are_found_within_their_group(tmp_path):
    contents = [b"aa", b"bb", b"aa", b"a", b"bb", b"aa", b"aa"]
    paths = {}
    for row, content in enumerate(contents):
        paths[row] = str(tmp_path / f"{row}.jpg")
        (tmp_path / f"{row}.jpg").write_bytes(content)
    (tmp_path / "7.jpg").mkdir()
    paths |= {7: str(tmp_path / "7.jpg"), 8: "a name of TFDS", 9: "\0", 10: paths[6]}
    groups = [np.array([0, 1, 2, 3, 4, 7, 8, 9]), np.array([5, 6])]
    assert same_bytes(groups, paths) == {2: 0, 4: 1, 6: 5}


def test_a_file_that_cannot_be_read_is_like_no_other(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_bytes(b"same")
    paths = {number: str(tmp_path / name) for number, name in enumerate("abc")}
    real = module._digest

    def digest(path):
        if path == paths[0]:
            raise PermissionError(path)
        return real(path)

    monkeypatch.setattr(module, "_digest", digest)
    assert same_bytes([np.arange(3)], paths) == {2: 1}
    os.remove(paths[2])
    assert same_bytes([np.arange(3)], paths) == {}


def test_objects_of_a_bucket_are_compared_likewise(gcs):
    for name, data in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"three")):
        gcs.put(name, data)
    paths = {row: gcs.url(name) for row, name in enumerate("abcd")} | {4: gcs.url("x")}
    assert same_bytes([np.arange(5)], paths) == {2: 0}

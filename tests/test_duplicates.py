"""Duplicates in a folder, by one call."""

import shutil
import sys

import pytest
from helpers.chat import scene

import multigrain_jax


def test_groups_are_of_paths(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        scene(0 if name == "a" else 1).save(tmp_path / name / "1.png")
    shutil.copy(tmp_path / "b" / "1.png", tmp_path / "b" / "2.png")
    scene(0).resize((48, 36)).save(tmp_path / "b" / "small.jpg")
    a, b, c, d = (
        tmp_path / n for n in ("a/1.png", "b/1.png", "b/2.png", "b/small.jpg")
    )
    found = multigrain_jax.find_duplicates(tmp_path)
    assert found == [[str(a), str(d)], [str(b), str(c)]]
    assert multigrain_jax.find_duplicates(tmp_path, hash_distance=None) == [
        [str(b), str(c)]
    ]
    assert multigrain_jax.find_duplicates(tmp_path, exclude=("small*", "2*")) == []
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(multigrain_jax.InputError, match="imagehash"):
        multigrain_jax.find_duplicates(tmp_path)
    assert len(multigrain_jax.find_duplicates(tmp_path, hash_distance=None)) == 1


def test_a_folder_is_needed(tmp_path):
    with pytest.raises(multigrain_jax.InputError, match=r"^folder: .* expected to be"):
        multigrain_jax.find_duplicates(tmp_path / "nowhere")

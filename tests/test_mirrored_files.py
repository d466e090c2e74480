"""Which files of a folder go to a bucket, and how they are held still."""

import os

import pytest

from multigrain_jax import mirrored_files
from multigrain_jax.mirrored_files import (
    file_state,
    found_files,
    is_head,
    is_of_a_mirror,
    stage,
    unfinished,
)


def test_what_is_unfinished_stays_here(tmp_path):
    for name in (
        ".lock",
        "hosts/1/.lock",
        "hosts/1/skipped.txt",
        "config.json.0123456789abcdef.partial",
        "checkpoints/3/meta/metadata",
        "checkpoints/4.orbax-checkpoint-tmp/meta/metadata",
        "metrics.jsonl",
        "thumbnails/1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [name for name, _ in found_files(tmp_path)]
    assert names == [
        "checkpoints/3/meta/metadata",
        "hosts/1/skipped.txt",
        "metrics.jsonl",
    ]


def test_an_empty_folder_is_a_file(tmp_path):
    assert found_files(tmp_path) == []
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    assert found_files(tmp_path) == [("checkpoints/.empty", tmp_path / "checkpoints")]


def test_a_name_that_is_no_text_becomes_one(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff")).touch()
    assert [name for name, _ in found_files(tmp_path)] == [r"a\xff"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("descriptors/descriptors.json", True),
        ("tiny-48-0123/descriptors/descriptors.json", True),
        ("checkpoints/30/meta/metadata", True),
        ("checkpoints.host-3/30/meta/metadata", True),
        ("checkpoints/30/data/metadata", False),
        ("checkpoints/30/_CHECKPOINT_METADATA", False),
        ("descriptors/index.csv", False),
    ],
)
def test_what_says_which_files_count_comes_last(name, expected):
    assert is_head(name) == expected


def test_a_checkpoint_without_its_last_file_is_unfinished():
    whole = ["checkpoints/5/meta/metadata", "checkpoints/5/model/d/1"]
    cut = ["checkpoints/50/model/d/1", "checkpoints/50/data/metadata"]
    others = ["metrics.jsonl", "checkpoints/7.damaged/model/d/1", "checkpoints/.empty"]
    assert unfinished([*whole, *cut, *others]) == set(cut)


@pytest.mark.parametrize("links", [True, False])
def test_a_staged_file_outlives_its_name(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError("no links")

        monkeypatch.setattr(mirrored_files.os, "link", refuse)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    staged = stage("file", path, tmp_path / "link")
    assert staged.file == file_state(path)
    (tmp_path / "new").write_bytes(b"newer")
    os.replace(tmp_path / "new", path)
    assert staged.link is not None
    assert staged.link.read_bytes() == b"old"
    assert staged.file != file_state(path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/../b",
        "a/./b",
        "thumbnails/1.jpg",
        "hosts/1/.lock",
        "a.partial",
        "4.orbax-checkpoint-tmp/x",
        r"a\x5cx41",
        "a\0b",
    ],
)
def test_what_no_mirror_writes_is_known_by_its_name(name):
    assert not is_of_a_mirror(name)


@pytest.mark.parametrize(
    "name", [r"a\xff", r"a\x5cxff", r"a\x41", "ä b/.empty", "..a/b..", "lock"]
)
def test_what_a_mirror_writes_is_known_by_its_name(name):
    assert is_of_a_mirror(name)

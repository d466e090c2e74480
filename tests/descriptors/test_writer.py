"""Writing descriptor folders: what a kill, a grown folder and another model do."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.descriptor_folders import (
    SETTINGS,
    all_found,
    contents,
    descriptor,
    embed,
    stamps,
    status,
)

from multigrain_jax.descriptors.folder import (
    HEAD_FILE,
    OK,
    READ_LATER,
    REPLACED,
    VANISHED,
    ImageStamp,
    read_head,
    shard_path,
)
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError

TESTS = str(Path(__file__).parents[1])


def found(folder):
    """Every line of the index with its descriptor."""
    rows = list(read_index(folder, read_head(folder).num_rows))
    return [
        (
            row.image,
            row.status,
            None
            if row.shard is None
            else np.load(shard_path(folder, row.shard))[row.row].tolist(),
        )
        for row in rows
    ]


def expected(image):
    good = status(image) == OK
    return image, status(image), descriptor(image).tolist() if good else None


def test_what_was_written_is_read(tmp_path):
    images = stamps(20)
    embed(tmp_path, images)
    assert found(tmp_path) == [expected(image) for image in images[::-1]]
    assert read_head(tmp_path).settings == SETTINGS
    assert np.load(shard_path(tmp_path, 0)).dtype == np.float16


def test_a_shard_without_a_readable_image_is_not_written(tmp_path):
    images = [ImageStamp(f"{i}.jpg", 5 * i, 0) for i in range(9)]
    embed(tmp_path, images)
    assert not list(tmp_path.glob("shard-*"))
    assert [row[1] for row in found(tmp_path)] == ["truncated, at byte 5"] * 9


def test_a_second_run_adds_only_new_and_changed_files(tmp_path):
    old = stamps(12)
    embed(tmp_path, old)
    now = [image for image in stamps(16) if image not in (old[2], old[3])]
    now[0] = now[0]._replace(mtime_ns=6)
    added = embed(tmp_path, now)
    assert sorted(added) == sorted([now[0], *now[10:]])
    lines = found(tmp_path)
    assert [(line[0], line[1]) for line in lines[:12]] == [
        (
            image,
            VANISHED
            if image in (old[2], old[3])
            else REPLACED
            if image == old[0]
            else status(image),
        )
        for image in old[::-1]
    ]
    assert lines[12:] == [expected(image) for image in added]
    before = contents(tmp_path)
    assert embed(tmp_path, now) == []
    assert contents(tmp_path) == before


def test_a_file_that_comes_back_is_embedded_anew(tmp_path):
    images = stamps(4)
    embed(tmp_path, images)
    embed(tmp_path, images[1:])
    assert embed(tmp_path, images) == images[:1]
    assert [line[1] for line in found(tmp_path)].count(VANISHED) == 1


def test_a_file_that_is_named_twice_is_embedded_once(tmp_path):
    images = stamps(3)
    embed(tmp_path, [*images, images[1], images[1]._replace(size=9)])
    assert embed(tmp_path, images) == []
    assert found(tmp_path) == [expected(image) for image in images[::-1]]


def test_a_folder_of_another_model_is_refused_with_the_differences(tmp_path):
    embed(tmp_path, stamps(4))
    other = SETTINGS._replace(test_size=96, model_digest="e")
    before = contents(tmp_path)
    with pytest.raises(InputError) as error:
        embed(tmp_path, stamps(6), settings=other)
    message = str(error.value)
    assert "test_size: the folder has 64, this run 96" in message
    assert "model_digest: the folder has d, this run e" in message
    assert message.count("the folder has") == 2
    assert contents(tmp_path) == before


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"found photo\.jpg"):
        DescriptorWriter(tmp_path, SETTINGS, rows_per_shard=4)


def test_a_file_that_an_earlier_run_could_not_read_is_asked_for(tmp_path):
    images = stamps(12)
    embed(tmp_path, images)
    bad = [number for number in range(12) if status(images[number]) != OK]
    writer = DescriptorWriter(tmp_path, SETTINGS, rows_per_shard=4)
    asked = []
    order, done = writer.begin(
        images,
        lambda indices: indices,
        is_readable=lambda index: not asked.append(index) and index == bad[0],
    )
    assert sorted(asked) == bad
    assert (order.tolist(), done) == (bad[:1], 0)
    writer.add([images[bad[0]]], np.ones((1, 3), np.float32), [OK])
    writer.finish()
    assert [row[1] for row in found(tmp_path)].count(READ_LATER) == 1
    assert all_found(tmp_path)[images[bad[0]].path] == [1, 1, 1]


def test_only_what_was_looked_for_can_be_gone(tmp_path):
    here, there = stamps(6), [ImageStamp(f"/q/{n}.jpg", 1, 1) for n in range(3)]
    embed(tmp_path, here)
    writer = DescriptorWriter(tmp_path, SETTINGS, rows_per_shard=4)
    order, _ = writer.begin(
        there, lambda indices: indices, is_scanned=lambda path: path.startswith("/q/")
    )
    assert len(order) == 3
    assert not [row for row in found(tmp_path) if row[1] == VANISHED]


def test_a_reader_keeps_the_state_that_it_has_opened(tmp_path):
    images = stamps(20)
    embed(tmp_path, images[:12])
    index = DescriptorIndex.open(tmp_path)
    before = index.paths(range(len(index)))
    embed(tmp_path, [images[0]._replace(mtime_ns=6), *images[2:]])
    assert index.paths(range(len(index))) == before
    assert len(DescriptorIndex.open(tmp_path)) > len(index)


def test_a_reader_at_any_moment_finds_a_complete_state(tmp_path, monkeypatch):
    """Between any two system calls of a writer that adds, marks and completes."""
    images = stamps(20)
    embed(tmp_path, images[:12])
    states = []

    def looking(function):
        def wrapped(*arguments):
            states.append(all_found(tmp_path))
            function(*arguments)
            states.append(all_found(tmp_path))

        return wrapped

    monkeypatch.setattr(os, "replace", looking(os.replace))
    embed(tmp_path, [images[0]._replace(mtime_ns=6), *images[2:]])
    assert len(states) > 10
    known = {image.path for image in images}
    for state in states:
        assert state.keys() <= known
        for image in images:
            if image.path in state and image != images[0]:
                assert state[image.path] == descriptor(image).tolist()


def test_a_second_writer_in_the_folder_is_noticed(tmp_path):
    """Where the file system has no locks."""
    first = DescriptorWriter(tmp_path, SETTINGS, rows_per_shard=1)
    first.begin(stamps(9), lambda indices: indices)
    embed(tmp_path, stamps(9))
    with pytest.raises(InputError, match="changed under this run"):
        first.add(stamps(1), np.ones((1, 3)), [OK])
    assert len(all_found(tmp_path)) == 7


class Killed(BaseException):
    pass


def end_at(monkeypatch, call, function):
    """Call it, and end it at the `call`-th flush or rename, before it or after it."""
    calls = 0

    def ending(original):
        def wrapped(*arguments):
            nonlocal calls
            calls += 1
            if calls == call // 2 + 1:
                if call % 2:
                    original(*arguments)
                raise Killed
            return original(*arguments)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", ending(os.replace))
        patched.setattr(os, "fsync", ending(os.fsync))
        # A process that is killed cleans nothing up.
        patched.setattr(os, "unlink", lambda path: None)
        with pytest.raises(Killed):
            function()


@pytest.mark.parametrize("call", range(40))
def test_an_end_at_any_system_call_leaves_no_trace(tmp_path, monkeypatch, call):
    images, whole, cut = stamps(20), tmp_path / "whole", tmp_path / "cut"
    embed(whole, images)
    end_at(monkeypatch, call, lambda: embed(cut, images))
    embed(cut, images)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("call", range(36))
def test_an_end_while_lines_are_marked_leaves_no_trace(tmp_path, monkeypatch, call):
    """And what a reader finds in between is a complete state."""
    old, whole, cut = stamps(12), tmp_path / "whole", tmp_path / "cut"
    new = [old[0]._replace(mtime_ns=6), *stamps(20)[2:]]
    for folder in (whole, cut):
        embed(folder, old)
    embed(whole, new)
    end_at(monkeypatch, call, lambda: embed(cut, new))
    between = all_found(cut)
    for image in old[2:]:
        if status(image) == OK:
            assert between[image.path] == descriptor(image).tolist()
    embed(cut, new)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("call", range(24))
@pytest.mark.parametrize("kind", ["version 1", "damaged shard", "cut index"])
def test_an_end_while_a_folder_is_mended_loses_nothing(
    tmp_path, monkeypatch, call, kind
):
    images, folder = stamps(20), tmp_path / "folder"
    embed(folder, images)
    expected = all_found(folder)
    if kind == "version 1":
        head = json.loads((folder / HEAD_FILE).read_text())
        for key in ("shards", "blocks", "blocks_before", "roots", "digest"):
            del head[key]
        (folder / HEAD_FILE).write_text(json.dumps({**head, "format_version": 1}))
    elif kind == "damaged shard":
        shard_path(folder, 1).write_bytes(b"")
    else:
        index = folder / "index.csv"
        index.write_bytes(index.read_bytes()[:-60])
    more = [*images, *stamps(32)[20:]]
    end_at(monkeypatch, call, lambda: embed(folder, more))
    embed(folder, images)
    assert all_found(folder) == expected


def test_images_that_change_after_a_kill_are_neither_lost_nor_doubled(
    tmp_path, monkeypatch
):
    images = stamps(20)
    replace, heads = os.replace, 0

    def second_shard(source, target):
        nonlocal heads
        replace(source, target)
        heads += Path(target).name == "descriptors.json"
        if heads == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", second_shard)
        with pytest.raises(Killed):
            embed(tmp_path, images)
    stored = found(tmp_path)
    assert len(stored) == 12
    now = [*stamps(24)[1:19], images[19]._replace(mtime_ns=7), *stamps(24)[20:]]
    embed(tmp_path, now)
    counted = [line for line in found(tmp_path) if line[1] not in (VANISHED, REPLACED)]
    assert sorted(counted, key=str) == sorted(map(expected, now), key=str)
    assert found(tmp_path)[1:12] == stored[1:]


def test_a_writer_killed_ten_times_equals_an_uninterrupted_one(tmp_path):
    images = stamps(300)
    embed(tmp_path / "whole", images, rows_per_shard=6)
    cut = tmp_path / "cut"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from helpers import descriptor_folders as t\n"
        "print('ready', flush=True)\n"
        "t.embed(Path(sys.argv[2]), t.stamps(300), rows_per_shard=6, pause=0.002)\n"
    )
    rng, kills = random.Random(0), 0
    command = [sys.executable, "-c", code, TESTS, str(cut)]
    for _ in range(10):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills == 10
    assert 0 < len(found(cut)) < 300
    embed(cut, images, rows_per_shard=6)
    assert contents(cut) == contents(tmp_path / "whole")

"""Writing descriptor folders: what a kill, a grown folder and another model do."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.descriptors.folder import (
    OK,
    REPLACED,
    VANISHED,
    DescriptorSettings,
    ImageStamp,
    read_head,
    read_index,
    shard_path,
)
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError

SETTINGS = DescriptorSettings(
    dim=3,
    dtype="float16",
    model_digest="d",
    backbone="tiny",
    pooling_exponent=float("inf"),
    test_size=64,
    test_mode="rect",
    whitened=False,
)
BATCH = 3


def stamps(count, *, mtime_ns=5):
    # Names as hostile as file systems allow.
    hostile = ['a,b\n"c"\r\'', "ü\udcff", "=1+1", ""]
    return [
        ImageStamp(f"/p/{hostile[i % 4]}{i}.jpg", 100 + i, mtime_ns)
        for i in range(count)
    ]


def plan(indices):
    """An order that depends on all images: the last first."""
    return indices[::-1]


def descriptor(image):
    value = sum(image.path.encode("utf-8", "surrogateescape")) + image.mtime_ns
    return np.array([value % 7, value % 11, value % 13], np.float32)


def status(image):
    return "truncated, at byte 5" if image.size % 5 == 0 else OK


def embed(folder, images, *, settings=SETTINGS, rows_per_shard=4, pause=0.0):
    """What the task does, with made-up descriptors; returns those it added."""
    writer = DescriptorWriter(folder, settings, rows_per_shard=rows_per_shard)
    order, done = writer.begin(images, plan)
    for start in range(done, len(order), BATCH):
        batch = [images[index] for index in order[start : start + BATCH]]
        writer.add(
            batch,
            np.stack([descriptor(image) for image in batch]),
            [status(image) for image in batch],
        )
        time.sleep(pause)
    writer.finish()
    return [images[index] for index in order[done:]]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", range(40))
def test_an_end_at_any_system_call_leaves_no_trace(tmp_path, monkeypatch, call):
    """The run ends at the `call`-th flush or rename, before it or after it."""
    images, whole, cut = stamps(20), tmp_path / "whole", tmp_path / "cut"
    embed(whole, images)
    calls = 0

    def ending(function):
        def wrapped(*arguments):
            nonlocal calls
            calls += 1
            if calls == call // 2 + 1:
                if call % 2:
                    function(*arguments)
                raise Killed
            return function(*arguments)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", ending(os.replace))
        patched.setattr(os, "fsync", ending(os.fsync))
        # A process that is killed cleans nothing up.
        patched.setattr(os, "unlink", lambda path: None)
        with pytest.raises(Killed):
            embed(cut, images)
    embed(cut, images)
    assert contents(cut) == contents(whole)


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
        "import importlib.util, sys\n"
        "from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "t = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(t)\n"
        "print('ready', flush=True)\n"
        "t.embed(Path(sys.argv[2]), t.stamps(300), rows_per_shard=6, pause=0.002)\n"
    )
    rng, kills = random.Random(0), 0
    command = [sys.executable, "-c", code, __file__, str(cut)]
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

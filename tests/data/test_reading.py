"""How batches are read ahead: by how many threads, and with how much memory."""

import os
import sys

import grain
import numpy as np
import pytest
from helpers.photos import plain_photo

from multigrain_jax.data import reading, workers
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.reading import Reading, iterate, read_image, why_unreadable
from multigrain_jax.data.sources.source import ImageSource


def numbered(number):
    return {"image": np.array([number])}


def read(count=3, *, num_workers=0, prefetch=8, batch_bytes=1):
    """The numbers of as many batches, as they are read."""
    batches = iterate(
        numbered,
        range(count),
        batch_bytes=batch_bytes,
        photo_bytes=1 << 20,
        reading=Reading(num_workers, prefetch, timeout_s=600.0),
    )
    return [int(batch["image"][0]) for batch in batches]


@pytest.mark.parametrize(
    ("cores", "prefetch", "threads"),
    [(1, 8, 2), (2, 8, 2), (3, 8, 3), (64, 8, 4), (64, 1, 1)],
)
def test_no_more_threads_read_than_there_are_cores(
    monkeypatch, cores, prefetch, threads
):
    found = []
    make = grain.ReadOptions

    def recorded(**options):
        found.append(options["num_threads"])
        return make(**options)

    monkeypatch.setattr(reading.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(grain, "ReadOptions", recorded)
    assert read(prefetch=prefetch) == [0, 1, 2]
    assert found == [threads]


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_read_ahead_of_a_single_batch(monkeypatch, count):
    monkeypatch.setitem(sys.modules, "grain", None)
    assert read(count) == list(range(count))


def test_threads_read_where_there_is_too_little_shared_memory(monkeypatch, capsys):
    monkeypatch.setattr(workers, "free_shared_memory", lambda: 1 << 20)
    assert read(num_workers=2, batch_bytes=1 << 20) == [0, 1, 2]
    said = capsys.readouterr().out
    assert said.count("images are read with threads instead") == 1


def test_too_few_open_files_are_told_and_threads_read(capsys):
    resource = pytest.importorskip("resource")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(reading.OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 63, most))
    try:
        assert read(num_workers=2) == [0, 1, 2]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    said = capsys.readouterr().out
    assert "num_workers = 2 takes about " in said and "with threads instead" in said


def test_a_photo_for_which_there_is_no_memory_is_unreadable(monkeypatch):
    def full(data, decoding, *, side):
        raise MemoryError

    monkeypatch.setattr(reading, "decode_noted", full)
    assert why_unreadable(Photos(), 0) == "reading it takes more memory than may"


class Photos(ImageSource):
    """A photo, an empty file, and one that is gone."""

    decoding = PLAIN

    def read(self, index):
        if index == 2:
            raise OSError("no such file")
        return b"" if index else plain_photo(90, (8, 6), kind="PNG")


def test_a_photo_is_read_or_the_reason_is_told():
    assert read_image(Photos(), 0).size == (8, 6)
    found = [why_unreadable(Photos(), index) for index in range(3)]
    assert found == [None, "an empty file (0 bytes)", "no such file"]

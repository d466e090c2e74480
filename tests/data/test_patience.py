"""Passing faults of the storage are waited out, lasting ones cost little."""

import errno
import os
import time

import pytest
from helpers.photos import write_plain_photos
from helpers.sources import open_photos
from PIL import UnidentifiedImageError

from multigrain_jax.data.patience import PAUSES, Patience, patiently
from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources.open import FileSource

ERRNOS = ["EIO", "ESTALE", "EACCES", "ENOENT", "ETIMEDOUT", "EMFILE", "ENOTCONN"]


@pytest.fixture
def pauses(monkeypatch):
    """What is slept, without sleeping."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def failing(times, error):
    calls = []

    def read():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return len(calls)

    return read


@pytest.mark.parametrize("name", ERRNOS)
def test_any_error_of_the_system_is_tried_again(pauses, name):
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number))
    assert patiently(failing(3, error), patience=Patience()) == 4
    assert pauses == list(PAUSES)
    with pytest.raises(OSError, match=os.strerror(number)):
        patiently(failing(4, error), patience=Patience())


def test_what_is_no_image_is_not_read_again(pauses):
    with pytest.raises(UnidentifiedImageError):
        patiently(failing(1, UnidentifiedImageError("none")), patience=Patience())
    assert pauses == []


def test_files_that_are_gone_for_good_cost_seconds_in_all(pauses):
    patience = Patience(seconds=2.0)
    for _ in range(1000):
        with pytest.raises(FileNotFoundError):
            patiently(failing(9, FileNotFoundError(2, "gone")), patience=patience)
    assert 1.5 < sum(pauses) < 2.2


def test_a_share_of_the_time_comes_to_it(pauses, monkeypatch):
    patience, now = Patience(seconds=1.0, share=0.1), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert patience.wait(1.0) and not patience.wait(0.5)
    now[0] = 5.0
    assert patience.wait(0.5) and not patience.wait(0.5)


def test_an_image_whose_folder_was_away_for_a_moment_is_read(tmp_path, monkeypatch):
    write_plain_photos(tmp_path / "photos", ["0.png"])
    source, real = open_photos(tmp_path / "photos"), FileSource.read
    since = time.monotonic()

    def read(self, index):
        if time.monotonic() - since < 0.15:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(self, index)

    monkeypatch.setattr(FileSource, "read", read)
    assert why_unreadable(source, 0) is None

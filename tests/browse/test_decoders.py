"""Decoding in processes of its own, within a time limit."""

import io

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image

from multigrain_jax.browse import decoders
from multigrain_jax.browse.decoders import (
    Decoders,
    DecodingTimeoutError,
    NetworkJob,
    PictureJob,
    work,
)
from multigrain_jax.data.crops import eval_transform
from multigrain_jax.data.decoding import VIEWER, UndecodableImageError

PHOTO = noise_photo(0, (90, 60))


def test_a_job_makes_what_the_network_takes():
    kind, found = work(NetworkJob(encode(PHOTO), VIEWER, 48, "rect", 32))
    assert kind == "done"
    expected = np.asarray(eval_transform(PHOTO, 48, "rect", smallest_side=32))
    np.testing.assert_array_equal(found, expected)


def test_a_job_makes_a_small_picture():
    kind, found = work(PictureJob(encode(PHOTO), VIEWER, 30))
    assert kind == "done"
    small = Image.open(io.BytesIO(found))
    assert (small.format, small.size) == ("JPEG", (30, 20))


def test_what_is_no_photo_is_told():
    assert work(PictureJob(b"<svg></svg>", VIEWER, 30))[0] == "undecodable"


class Slow(bytes):
    """Keeps the process that reads it busy."""

    def __reduce__(self):
        import time

        return time.sleep, (60,)


class Fatal(bytes):
    """Ends the process that reads it."""

    def __reduce__(self):
        import os

        return os._exit, (3,)


def test_a_photo_that_takes_too_long_or_its_process_down_costs_no_other(monkeypatch):
    pool = Decoders(1, timeout_s=0.5)
    good = PictureJob(encode(PHOTO), VIEWER, 30)
    try:
        slow = pool.submit(good._replace(data=Slow()))
        between = pool.submit(good)
        fatal = pool.submit(good._replace(data=Fatal()))
        broken = pool.submit(good._replace(data=b"x"))
        after = pool.submit(good)
        with pytest.raises(DecodingTimeoutError, match=r"longer than 0\.5 seconds"):
            slow.result()
        with pytest.raises(UndecodableImageError, match="has ended"):
            fatal.result()
        with pytest.raises(UndecodableImageError, match="not an image"):
            broken.result()
        assert between.result() == after.result() == decoders.work(good)[1]
    finally:
        pool.close()

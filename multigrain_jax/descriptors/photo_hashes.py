"""Perceptual hashes of photos: 128 bits that change little where a photo does."""

import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from multigrain_jax.data.bucket_paths import file_path
from multigrain_jax.data.decoding import Decoding, UndecodableImageError, decode
from multigrain_jax.data.sources.files import require_readable
from multigrain_jax.errors import InputError
from multigrain_jax.remedies import install

INSTALL = f"{install('duplicates')} (or pip install imagehash)"
# Of the difference hash and of the perceptual hash, one after the other.
BITS = 128
# A photo is decoded at a fraction of its size where that leaves so many pixels.
DECODED_SIDE = 320
# What the two hashes are made of; both resize to it themselves otherwise.
DIFFERENCE_SIZE, PERCEPTUAL_SIZE = (9, 8), (32, 32)
# Pages that vary by less grey are all alike to a hash, and have none.
PLAIN_RANGE = 8
# The borders of a screenshot are as plain as that, and leave at least half of a side.
BORDER_RANGE, LEAST_LEFT = 12, 0.5
# Handed to the threads at once.
PHOTOS_WAITING = 1024
READY, PLAIN, UNREADABLE = 0, 1, 2


class PhotoHashes(NamedTuple):
    """Hashes of N photos.

    Attributes:
        codes: uint64 [N, 2], 64 bits each of the two hashes.
        mirrored: uint64 [N, 2], of the mirror images.
        states: uint8 [N], `READY`, or `PLAIN` or `UNREADABLE`, whose codes are zeros.
    """

    codes: np.ndarray
    mirrored: np.ndarray
    states: np.ndarray


def can_hash() -> bool:
    """Whether the library that makes the hashes is installed."""
    try:
        import imagehash  # noqa: F401 - whether it is there
    except ImportError:
        return False
    return True


def require_hashes() -> None:
    """Refuse to go on without the library.

    Raises:
        InputError: it is not installed.
    """
    if not can_hash():
        raise InputError(
            "perceptual hashes need the package imagehash, which is not installed: "
            f"{INSTALL}; files that are the same to the byte are found without it"
        )


def hash_photo(image: Image.Image) -> tuple[np.ndarray, np.ndarray] | None:
    """The hash of a photo and that of its mirror image, uint64 [2] each.

    None for a photo without anything on it, which would be like any other such one.

    Args:
        image: RGB, of any size.
    """
    grey = _without_borders(image.convert("L"))
    kind = Image.Resampling.LANCZOS
    parts = [grey.resize(size, kind) for size in (DIFFERENCE_SIZE, PERCEPTUAL_SIZE)]
    if np.ptp(np.asarray(parts[1])) < PLAIN_RANGE:
        return None
    return _codes(*parts), _codes(*(ImageOps.mirror(part) for part in parts))


def _codes(difference: Image.Image, perceptual: Image.Image) -> np.ndarray:
    import imagehash

    hashes = imagehash.dhash(difference), imagehash.phash(perceptual)
    bits = np.packbits([each.hash.ravel() for each in hashes], axis=1)
    return np.ascontiguousarray(bits).view(np.uint64)[:, 0]


def _without_borders(grey: Image.Image) -> Image.Image:
    """A photo without the plain bars around it, as screenshots have them."""
    pixels = np.asarray(grey)
    rows = _inner(np.ptp(pixels, axis=1) >= BORDER_RANGE)
    columns = _inner(np.ptp(pixels[rows], axis=0) >= BORDER_RANGE)
    return grey.crop((columns.start, rows.start, columns.stop, rows.stop))


def _inner(varied: np.ndarray) -> slice:
    """From the first to the last line that is not plain; all where little is left."""
    found = np.flatnonzero(varied)
    if len(found) and found[-1] + 1 - found[0] >= LEAST_LEFT * len(varied):
        return slice(int(found[0]), int(found[-1]) + 1)
    return slice(0, len(varied))


def hash_files(
    paths: Sequence[str], *, decoding: Decoding, watched: bool = False
) -> PhotoHashes:
    """The hashes of photo files; each is decoded once, some at a time.

    Args:
        paths: of N files.
        decoding: how they become pixels.
        watched: whether a terminal shows the progress.
    """
    found = PhotoHashes(
        np.zeros((len(paths), 2), np.uint64),
        np.zeros((len(paths), 2), np.uint64),
        np.zeros(len(paths), np.uint8),
    )

    def read(path: str) -> tuple[np.ndarray, np.ndarray] | None:
        file = file_path(path)
        require_readable(file, max_bytes=decoding.max_bytes)
        image = decode(file.read_bytes(), decoding, side=DECODED_SIDE)
        return hash_photo(image)

    def put(row: int) -> None:
        try:
            codes = read(paths[row])
        except (OSError, UndecodableImageError, MemoryError):
            found.states[row] = UNREADABLE
            return
        if codes is None:
            found.states[row] = PLAIN
        else:
            found.codes[row], found.mirrored[row] = codes

    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1))
    try:
        starts = range(0, len(paths), PHOTOS_WAITING)
        parts = (range(len(paths))[start : start + PHOTOS_WAITING] for start in starts)
        done = itertools.chain.from_iterable(pool.map(put, part) for part in parts)
        for _ in _shown(done, len(paths), watched=watched):
            pass
    finally:
        # Ctrl-C does not wait for what has not begun.
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def _shown(items: Iterable[None], count: int, *, watched: bool) -> Iterable[None]:
    if not watched:
        return items
    from tqdm import tqdm

    # disable=None: no bar where nobody watches.
    return tqdm(items, total=count, unit="photo", disable=None, leave=False)

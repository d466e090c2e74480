"""Duplicates in a folder of photos, in one call and without a network."""

from collections.abc import Sequence
from pathlib import Path

from multigrain_jax.data.bucket_paths import absolute_path, as_path
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve
from multigrain_jax.descriptors.photo_duplicates import photo_duplicates
from multigrain_jax.descriptors.photo_hashes import require_hashes


def find_duplicates(
    folder: str | Path,
    *,
    hash_distance: int | None = 24,
    exclude: Sequence[str] = DEFAULT_EXCLUDE,
) -> list[list[str]]:
    """Photos of a folder that are the same or nearly so; no network is needed.

    Found are files that are the same to the byte, and photos whose perceptual hashes
    differ in few bits (the package imagehash, extra `duplicates`): saved anew, smaller,
    brighter, with a line of text, mirrored, a little cropped, as a screenshot. Where
    much was cropped or turned, a network finds more. Links to one file are one photo.
    What cannot be read is in no group by its hash.

    Args:
        folder: with all its subfolders.
        hash_distance: in how many of 128 bits hashes may differ, from 0 to 48; None:
            only files that are the same to the byte are found.
        exclude: patterns of names and paths that are passed over.

    Returns:
        Groups of at least two paths, the largest groups first, each in the order of the
        folder. Nothing is deleted.

    Raises:
        InputError: no such folder, no photos in it, or imagehash is not installed.
    """
    if hash_distance is not None:
        require_hashes()
    root = as_path(absolute_path(folder))
    sieve = Sieve(exclude, "skip")
    files, _ = index_folder(root, split=None, sieve=sieve, instances=None, key="folder")
    paths = [file.path for file in files]
    found = photo_duplicates(
        paths, hash_distance=hash_distance, linkage="single", decoding=VIEWER
    )
    return [[paths[row] for row in group.tolist()] for group in found.groups]

"""Files that are the same to the byte."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax import buckets
from multigrain_jax.data.bucket_paths import ADDRESSES
from multigrain_jax.data.bucket_tree import stamp_url
from multigrain_jax.files import file_digest


def same_bytes(
    groups: Sequence[np.ndarray], paths: Mapping[int, str]
) -> dict[int, int]:
    """Photos of a group whose files are equal, by size and then SHA-256.

    Only files are read that are as large as another one of their group.

    Args:
        groups: of each, ascending rows.
        paths: of all their photos.

    Returns:
        Rows whose file equals that of a smaller row, with the smallest such row. What
        cannot be read, or is no file, is not among them.
    """
    found: dict[int, int] = {}
    for group in groups:
        by_size: dict[int, list[int]] = {}
        for row in group.tolist():
            size = _file_size(paths[row])
            if size is not None:
                by_size.setdefault(size, []).append(row)
        for rows in by_size.values():
            first: dict[str, int] = {}
            for row in rows if len(rows) > 1 else ():
                try:
                    digest = _digest(paths[row])
                except OSError:
                    continue
                if first.setdefault(digest, row) != row:
                    found[row] = first[digest]
    return found


def _file_size(path: str) -> int | None:
    try:
        if path.startswith(ADDRESSES):
            return stamp_url(path).size
        return os.path.getsize(path) if os.path.isfile(path) else None
    except (OSError, ValueError):
        return None


def _digest(path: str) -> str:
    if path.startswith(ADDRESSES):
        return hashlib.sha256(buckets.read_bytes(path)).hexdigest()
    return file_digest(Path(path))

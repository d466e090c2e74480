"""What `near_duplicates` writes of photos for validation that are nearly in train."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.descriptors.joined import JoinedIndex
from multigrain_jax.descriptors.near_duplicates import NearDuplicates
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import MAX_PHOTOS_PER_GROUP, Found
from multigrain_jax.tasks.embed_record import photo_reader, print_missing, workdir_of
from multigrain_jax.workdir import write_table


def write_leaks(
    workdir: Path,
    joined: JoinedIndex,
    found: NearDuplicates,
    *,
    paths: Mapping[int, str],
    in_val: np.ndarray,
    threshold: float,
) -> dict[str, float]:
    """leaks.csv and the page: photos of val, each with those of train.

    Args:
        workdir: where they go.
        joined: the collection.
        found: pairs of a photo of each.
        paths: of all rows in a pair.
        in_val: bool [N], which rows are of val.
        threshold: the least similarity of a pair, for the page.

    Returns:
        `num_leaks`.
    """
    leaks, counts = _of_val(found, in_val, MAX_PHOTOS_PER_GROUP - 1)
    most_similar = {
        val: [(paths[train], similarity) for train, similarity in others]
        for val, others in leaks.items()
    }
    order = sorted(most_similar, key=lambda val: -most_similar[val][0][1])
    write_table(
        workdir / "leaks.csv",
        ("val_path", "train_path", "similarity"),
        ((paths[val], *most_similar[val][0]) for val in order),
    )
    photos = photo_reader(workdir_of(joined.parts[0]))
    said = f"{len(most_similar)} photos of val have a near duplicate in train"
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Leaks: photos of val that training has seen",
            subtitle=said,
            results=[],
            rows=_leaking(most_similar, counts, order, paths, photos),
            heading="Photos of val, each with those of train",
            note=f"Similarities are at least {threshold:g}, the most similar first.",
            rows_are="photos",
        )
    print_missing(photos)
    print(f"{said}: see leaks.csv")
    return {"num_leaks": len(most_similar)}


def _of_val(
    found: NearDuplicates, in_val: np.ndarray, most: int
) -> tuple[dict[int, list[tuple[int, float]]], dict[int, int]]:
    """Rows of val, each with those of train and similarities, the largest first.

    Beside it, how many of train there are for each.

    Args:
        found: pairs of a row of each.
        in_val: bool [N].
        most: of train, for each of val: there may be millions of pairs.
    """
    is_val = in_val[found.pairs]
    val = np.where(is_val[:, 0], found.pairs[:, 0], found.pairs[:, 1])
    train = np.where(is_val[:, 0], found.pairs[:, 1], found.pairs[:, 0])
    order = np.lexsort((-found.similarities, val))
    rows, starts, counts = np.unique(val[order], return_index=True, return_counts=True)
    leaks: dict[int, list[tuple[int, float]]] = {}
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        own = order[start : start + min(count, most)]
        leaks[int(val[own[0]])] = list(
            zip(train[own].tolist(), found.similarities[own].tolist(), strict=True)
        )
    return leaks, dict(zip(rows.tolist(), counts.tolist(), strict=True))


def _leaking(
    most_similar: Mapping[int, Sequence[tuple[str, float]]],
    counts: Mapping[int, int],
    order: Sequence[int],
    paths: Mapping[int, str],
    photos: Any,
) -> Found:
    def note(val: int) -> str:
        shown, count = len(most_similar[val]), counts[val]
        some = "" if shown == count else f"; shown are the {shown} most similar"
        return f"nearly the same in train: {count}{some}"

    return Found(
        [paths[val] for val in order],
        [most_similar[val] for val in order],
        load_query=photos,
        load_found=photos,
        notes=[note(val) for val in order],
    )

"""The rows of pages about a collection: what queries found, and groups of photos."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from multigrain_jax.errors import printable
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow, LazyRows, load_photo

# From a photo's path or name to the photo, None where it cannot be read.
LoadPhoto = Callable[[str], Image.Image | None]

# Of a larger group so many photos are shown.
MAX_PHOTOS_PER_GROUP = 12
# What a search says without its page.
MAX_QUERIES_TOLD = 3
MAX_FOUND_TOLD = 3


class Found(LazyRows):
    """The neighbours of all queries; as a sequence, the rows of the page.

    Attributes:
        queries: their paths.
        neighbours: (path, similarity) of each query, the most similar first.
    """

    def __init__(
        self,
        queries: Sequence[str],
        neighbours: Sequence[Sequence[tuple[str, float]]],
        *,
        load_query: LoadPhoto = load_photo,
        load_found: LoadPhoto = load_photo,
        notes: Sequence[str] | None = None,
    ):
        """Keep both, of equal lengths, and what reads their photos for the page.

        Args:
            queries: their paths.
            neighbours: (path, similarity) of each query, the most similar first.
            load_query: reads a query.
            load_found: reads what was found.
            notes: a line for each query.
        """
        self.queries = queries
        self.neighbours = neighbours

        def make_row(number: int) -> GalleryRow:
            query = queries[number]
            return GalleryRow(
                GalleryItem(
                    partial(load_query, query), short_name(query), None, "query", query
                ),
                [_found(load_found, *pair) for pair in neighbours[number]],
                note=notes[number] if notes else "",
            )

        super().__init__(len(queries), make_row)

    def table(self) -> Iterator[tuple[str, int, str, float]]:
        """The rows of results.csv."""
        for query, neighbours in zip(self.queries, self.neighbours, strict=True):
            for rank, (path, similarity) in enumerate(neighbours, start=1):
                yield query, rank, path, similarity

    def best(self) -> Iterator[str]:
        """Lines with the best of what few queries found; of many there are none."""
        if len(self.queries) > MAX_QUERIES_TOLD:
            return
        for query, neighbours in zip(self.queries, self.neighbours, strict=True):
            yield printable(f"most similar to {query}:")
            for path, similarity in neighbours[:MAX_FOUND_TOLD]:
                yield printable(f"  {similarity:.3f}  {path}")


def group_rows(
    groups: Sequence[np.ndarray],
    *,
    read_descriptor: Callable[[int], np.ndarray],
    paths: Mapping[int, str],
    load: LoadPhoto,
    lowest: Sequence[float] | np.ndarray | None = None,
    notes: Mapping[int, str] | None = None,
) -> LazyRows:
    """A row for each group: its first photo, and how similar to it the others are.

    Args:
        groups: of each, int [n] numbers of its photos in the collection.
        read_descriptor: the descriptor [D] of a number.
        paths: of all photos of the groups, by their numbers.
        load: reads a photo for the page.
        lowest: of each group, the least similarity of any two of its photos.
        notes: a few words about some photos, by their numbers.
    """
    said = notes or {}

    def make_row(number: int) -> GalleryRow:
        first, *others = groups[number].tolist()[:MAX_PHOTOS_PER_GROUP]
        query = read_descriptor(first).astype(np.float32)
        similar = [
            (float(query @ read_descriptor(other).astype(np.float32)), other)
            for other in others
        ]
        count, least = len(groups[number]), None
        note = f"Group {number + 1}: {count} photos"
        if lowest is not None:
            least = float(lowest[number])
            note += f", any two at least {least:.3f} similar"
        if count > MAX_PHOTOS_PER_GROUP:
            note += f"; shown are the first {MAX_PHOTOS_PER_GROUP}"
        return GalleryRow(
            _found(load, paths[first], None, said.get(first, "")),
            [
                _found(load, paths[other], min(1.0, similarity), said.get(other, ""))
                for similarity, other in sorted(similar, key=lambda pair: -pair[0])
            ],
            similarity=least,
            note=note,
        )

    return LazyRows(len(groups), make_row)


def noted_group_rows(
    groups: Sequence[np.ndarray],
    *,
    paths: Sequence[str],
    load: LoadPhoto,
    lowest: Sequence[float] | np.ndarray,
    note: Callable[[int, int], str],
    about: Callable[[int], str],
) -> LazyRows:
    """A row for each group, in words: of photos that have no descriptors.

    Args:
        groups: of each, int [n] numbers of its photos.
        paths: of all photos.
        load: reads a photo for the page.
        lowest: of each group, the least similarity of any two of its photos.
        note: a few words about a photo, by the numbers of the first and of itself.
        about: a line about a group, by its number.
    """

    def make_row(number: int) -> GalleryRow:
        shown = groups[number].tolist()[:MAX_PHOTOS_PER_GROUP]
        first, *others = (
            _found(load, str(paths[row]), None, note(shown[0], row)) for row in shown
        )
        said = about(number)
        if len(groups[number]) > len(shown):
            said += f"; shown are {len(shown)}"
        least = float(lowest[number])
        return GalleryRow(first, others, similarity=least, note=said)

    return LazyRows(len(groups), make_row)


def short_name(path: str) -> str:
    """The file with its folder: what a page shows of a path."""
    return "/".join(Path(path).parts[-2:])


def _found(
    load: LoadPhoto, path: str, similarity: float | None, note: str = ""
) -> GalleryItem:
    return GalleryItem(
        partial(load, path), short_name(path), similarity, "found", path, note
    )

"""The rows of pages about a collection: what queries found, and groups of photos."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.near_duplicates import NearDuplicates
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow, load_photo
from multigrain_jax.pages.stored_photos import (
    PhotoReader,
)

# From a photo's path or name to the photo, None where it cannot be read.
LoadPhoto = Callable[[str], Image.Image | None]


class Found(Sequence[GalleryRow]):
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
    ):
        """Keep both, of equal lengths, and what reads their photos for the page."""
        self.queries = queries
        self.neighbours = neighbours
        self._load_query = load_query
        self._load_found = load_found

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.queries)

    def __getitem__(self, number: Any) -> Any:
        """One row of the page."""
        query = self.queries[int(number)]
        return GalleryRow(
            GalleryItem(
                partial(self._load_query, query), short_name(query), None, "query"
            ),
            [
                GalleryItem(
                    partial(self._load_found, path),
                    short_name(path),
                    similarity,
                    "found",
                )
                for path, similarity in self.neighbours[number]
            ],
        )

    def table(self) -> Iterator[tuple[str, int, str, float]]:
        """The rows of results.csv."""
        for query, neighbours in zip(self.queries, self.neighbours, strict=True):
            for rank, (path, similarity) in enumerate(neighbours, start=1):
                yield query, rank, path, similarity


def short_name(path: str) -> str:
    """The file with its folder: what a page shows of a path."""
    return "/".join(Path(path).parts[-2:])


# Of a larger group so many photos are shown.
MAX_SHOWN = 12


class _Groups(Sequence[GalleryRow]):
    """The rows of the page, made when they are asked for."""

    def __init__(
        self,
        index: DescriptorIndex,
        found: NearDuplicates,
        paths: dict[int, str],
        load: PhotoReader,
    ):
        self._index = index
        self._groups = found.groups
        self._paths = paths
        self._load = load

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: Any) -> Any:
        first, *others = self._groups[number].tolist()[:MAX_SHOWN]
        query = self._descriptor(first)
        similar = [(float(query @ self._descriptor(row)), row) for row in others]
        return GalleryRow(
            self._item(first, None),
            [
                self._item(row, similarity)
                for similarity, row in sorted(similar, key=lambda pair: -pair[0])
            ],
        )

    def _descriptor(self, row: int) -> np.ndarray:
        return self._index.read(row, 1)[0].astype(np.float32)

    def _item(self, row: int, similarity: float | None) -> GalleryItem:
        path = self._paths[row]
        return GalleryItem(
            partial(self._load, path), short_name(path), similarity, "found"
        )

"""Task `near_duplicates`: photos of a collection that are nearly the same."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.evaluation.check import path_problems, refuse
from multigrain_jax.evaluation.near_duplicates import NearDuplicates, near_duplicates
from multigrain_jax.evaluation.run_search import short_name
from multigrain_jax.evaluation.search import DescriptorIndex
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.stored_photos import PhotoReader
from multigrain_jax.workdir import write_config, write_results, write_table

# Of a larger group so many photos are shown.
MAX_SHOWN = 12


def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Find near duplicates as the config says; returns what results.json holds.

    Raises:
        InputError: no such collection, or a threshold that nearly all pairs reach.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(path_problems(settings, ("database",)))
    index = DescriptorIndex.open(Path(config.database).expanduser())
    write_config(workdir, settings)
    found = near_duplicates(index, config.threshold)
    rows = np.unique(found.pairs)
    paths = dict(zip(rows.tolist(), index.paths(rows), strict=True))
    write_table(
        workdir / "groups.csv",
        ("group", "path"),
        (
            (number, paths[row])
            for number, group in enumerate(found.groups, start=1)
            for row in group.tolist()
        ),
    )
    write_table(
        workdir / "pairs.csv",
        ("path", "other_path", "similarity"),
        (
            (paths[a], paths[b], float(similarity))
            for (a, b), similarity in zip(
                found.pairs.tolist(), found.similarities, strict=True
            )
        ),
    )
    num_images = int(index.live.sum())
    write_retrieval_page(
        workdir / "report.html",
        title="Near duplicates",
        subtitle=f"{len(found.groups)} groups of {len(rows)} among {num_images} photos",
        results=[],
        rows=_Groups(index, found, paths, PhotoReader(config.database)),
        heading="Groups",
        rows_are="groups",
        note=f"Photos that pairs of a similarity of at least {config.threshold:g} "
        "connect, the largest groups first, of each up to "
        f"{MAX_SHOWN} photos; similarities are to the first one.",
    )
    results = {
        "num_images": num_images,
        "num_pairs": len(found.pairs),
        "num_groups": len(found.groups),
        "num_images_in_groups": len(rows),
        "seconds": time.perf_counter() - started,
    }
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


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

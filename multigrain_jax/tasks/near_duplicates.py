"""Task `near_duplicates`: photos of a collection that are nearly the same."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.descriptors.near_duplicates import (
    NearDuplicates,
    near_duplicates,
    without_links,
)
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import MAX_PHOTOS_PER_GROUP, group_rows
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import path_problems, refuse, require_photos
from multigrain_jax.tasks.embed_record import (
    open_database,
    photo_reader,
    print_missing,
    workdir_of,
)
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.workdir import write_config, write_results, write_table


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Find near duplicates as the config says; returns what results.json holds.

    Raises:
        InputError: no such collection, or a threshold that nearly all pairs reach.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse([*path_problems(settings, ("database",)), *number_problems(settings)])
    index = open_database(config.database, verify=config.verify, root=config.data.root)
    require_photos(int(index.live.sum()), "database", config.database)
    write_config(workdir, settings)
    found = near_duplicates(index, config.threshold)
    rows = np.unique(found.pairs)
    paths = dict(zip(rows.tolist(), index.paths(rows), strict=True))
    found, links = without_links(found, {r: identity_of(p) for r, p in paths.items()})
    rows = np.unique(found.pairs)
    photos = photo_reader(workdir_of(index))
    leave_if_taken(workdir)
    _write_tables(workdir, found, links, paths)
    num_images = int(index.live.sum())
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Near duplicates",
            subtitle=f"{len(found.groups)} groups of {len(rows)} among {num_images} "
            "photos",
            results=[],
            rows=group_rows(
                found.groups,
                read_descriptor=lambda row: index.read(row, 1)[0],
                paths=paths,
                load=photos,
            ),
            heading="Groups",
            rows_are="groups",
            note=f"Photos that pairs of a similarity of at least {config.threshold:g} "
            "connect, the largest groups first, of each up to "
            f"{MAX_PHOTOS_PER_GROUP} photos; similarities are to the first one.",
        )
    print_missing(photos)
    results = {
        "num_images": num_images,
        "num_pairs": len(found.pairs),
        "num_groups": len(found.groups),
        "num_images_in_groups": len(rows),
        "num_links": len(links),
        "seconds": time.perf_counter() - started,
    }
    if not len(found.pairs):
        print(f"no two photos reach threshold = {config.threshold:g}: try a lower one")
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


def _write_tables(
    workdir: Path,
    found: NearDuplicates,
    links: Mapping[int, int],
    paths: Mapping[int, str],
) -> None:
    write_table(
        workdir / "links.csv",
        ("path", "link_to"),
        ((paths[link], paths[photo]) for link, photo in links.items()),
    )
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

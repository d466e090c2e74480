"""Task `near_duplicates`: photos of a collection that are nearly the same."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.descriptors.folder import require_same_settings
from multigrain_jax.descriptors.grouping import LINKAGES
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.joined import JoinedIndex, lowest_similarities
from multigrain_jax.descriptors.near_duplicates import (
    NearDuplicates,
    near_duplicates,
    without_links,
)
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.descriptors.same_content import same_bytes
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import (
    MAX_PHOTOS_PER_GROUP,
    Found,
    group_rows,
    short_name,
)
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    choice_problems,
    path_problems,
    refuse,
    require_photos,
)
from multigrain_jax.tasks.embed_record import (
    open_database,
    photo_reader,
    print_missing,
    workdir_of,
)
from multigrain_jax.tasks.pair_rules import IN_VAL, RULES, labels_of_rule
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.workdir import write_config, write_results, write_table


class Report(NamedTuple):
    """What is written about near duplicates.

    Attributes:
        found: among photos.
        links: rows that are a photo of another row, with that row.
        paths: of all rows that were in a pair.
        lowest: float32 [G], the least similarity of any two photos of each group.
        same_bytes: rows whose file equals that of an earlier one, with that one.
    """

    found: NearDuplicates
    links: Mapping[int, int]
    paths: Mapping[int, str]
    lowest: np.ndarray
    same_bytes: Mapping[int, int]


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Find near duplicates as the config says; returns what results.json holds.

    Raises:
        InputError: no such collection, or two that cannot be compared.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    index = open_database(config.database, verify=config.verify, root=config.data.root)
    require_photos(int(index.live.sum()), "database", config.database)
    reference = _open_reference(settings, index)
    write_config(workdir, settings)
    joined = JoinedIndex(*[index] if reference is None else [index, reference])
    labels = labels_of_rule(joined, config.pairs, settings["data"])
    found = near_duplicates(
        index,
        config.threshold,
        linkage=config.linkage,
        reference=reference,
        rule=RULES[config.pairs],
        labels=labels,
    )
    if found.lowest_kept is not None:
        print(
            f"more than {len(found.pairs)} pairs reach threshold = "
            f"{config.threshold:g}: the most similar {len(found.pairs)} are kept, "
            f"those of at least {found.lowest_kept:g}; a higher threshold keeps all"
        )
    report = _report(joined, found, settings)
    leave_if_taken(workdir)
    _write_tables(workdir, report)
    results: dict[str, float] = {
        "num_images": int(joined.live.sum()),
        "num_pairs": len(report.found.pairs) + len(report.found.copies),
        "num_groups": len(report.found.groups),
        "num_images_in_groups": sum(len(group) for group in report.found.groups),
        "num_same_bytes": len(report.same_bytes),
        "num_links": len(report.links),
    }
    if config.pairs == "train_val":
        assert labels is not None  # the rule has them
        results |= _write_leaks(workdir, joined, report, labels == IN_VAL, settings)
    else:
        _write_page(workdir, joined, report, settings)
    if not results["num_pairs"]:
        print(f"no two photos reach threshold = {config.threshold:g}: try a lower one")
    results["seconds"] = time.perf_counter() - started
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = [
        *path_problems(settings, ("database",)),
        *choice_problems(settings, {"linkage": LINKAGES, "pairs": tuple(RULES)}),
        *number_problems(settings),
    ]
    if settings["reference"] and settings["pairs"] == "train_val":
        problems.append(
            "reference: found a second collection with pairs = 'train_val', which are "
            "two splits of one; expected pairs = 'any' with it, or no reference"
        )
    return problems


def _open_reference(
    settings: Mapping[str, Any], index: DescriptorIndex
) -> DescriptorIndex | None:
    path = settings["reference"]
    if not path:
        return None
    reference = open_database(path, verify=settings["verify"], root=None)
    require_photos(int(reference.live.sum()), "reference", path)
    own, other = index.settings, reference.settings
    assert own is not None and other is not None  # they were opened from folders
    # Only how they are stored may differ.
    require_same_settings(other, own._replace(dtype=other.dtype), folder=as_path(path))
    return reference


def _report(
    joined: JoinedIndex, found: NearDuplicates, settings: Mapping[str, Any]
) -> Report:
    rows = found.rows()
    paths = dict(zip(rows.tolist(), joined.paths(rows), strict=True))
    identities = {row: identity_of(path) for row, path in paths.items()}
    found, links = without_links(found, identities, linkage=settings["linkage"])
    # A copy is as similar to the others as what it is a copy of.
    apart = [np.setdiff1d(group, found.copies[:, 0]) for group in found.groups]
    lowest = lowest_similarities(joined, apart)
    # Of groups of one size, mostly pairs, the most similar comes first.
    sizes = np.array([-len(group) for group in found.groups])
    order = np.lexsort((-lowest, sizes))
    found = found._replace(groups=[found.groups[place] for place in order])
    return Report(
        found,
        links,
        paths,
        lowest[order],
        same_bytes(found.groups, paths) if settings["compare_files"] else {},
    )


def _write_tables(workdir: Path, report: Report) -> None:
    found, links, paths, lowest, same = report
    write_table(
        workdir / "links.csv",
        ("path", "link_to"),
        ((paths[link], paths[photo]) for link, photo in links.items()),
    )
    write_table(
        workdir / "groups.csv",
        ("group", "path", "lowest_similarity", "same_bytes_as"),
        (
            (
                number,
                paths[row],
                float(similarity),
                paths[same[row]] if row in same else "",
            )
            for number, (group, similarity) in enumerate(
                zip(found.groups, lowest, strict=True), start=1
            )
            for row in group.tolist()
        ),
    )
    order = np.argsort(-found.similarities, kind="stable")
    write_table(
        workdir / "pairs.csv",
        ("path", "other_path", "similarity"),
        itertools.chain(
            ((paths[first], paths[copy], 1.0) for copy, first in found.copies.tolist()),
            (
                (paths[a], paths[b], float(similarity))
                for (a, b), similarity in zip(
                    found.pairs[order].tolist(), found.similarities[order], strict=True
                )
            ),
        ),
    )


def _write_page(
    workdir: Path, joined: JoinedIndex, report: Report, settings: Mapping[str, Any]
) -> None:
    groups, threshold = report.found.groups, settings["threshold"]
    num_photos = sum(len(group) for group in groups)
    photos = photo_reader(workdir_of(joined.parts[0]))
    how = "that pairs of a similarity of at least {} connect"
    if settings["linkage"] == "complete":
        how = "of which each two have a similarity of at least {}"
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Near duplicates",
            subtitle=f"{len(groups)} groups of {num_photos} among "
            f"{int(joined.live.sum())} photos",
            results=[],
            rows=group_rows(
                groups,
                read_descriptor=lambda row: joined.read_rows(np.array([row]))[0],
                paths=report.paths,
                load=photos,
                lowest=report.lowest,
                notes={
                    row: f"the same bytes as {short_name(report.paths[other])}"
                    for row, other in report.same_bytes.items()
                },
            ),
            heading="Groups",
            rows_are="groups",
            note=f"Photos {how.format(f'{threshold:g}')}. The largest groups come "
            "first, of equally large ones the most similar. Of each there are up to "
            f"{MAX_PHOTOS_PER_GROUP} photos; similarities are to the first one.",
        )
    print_missing(photos)


def _write_leaks(
    workdir: Path,
    joined: JoinedIndex,
    report: Report,
    in_val: np.ndarray,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """leaks.csv and the page: photos of val, each with those of train."""
    found, paths = report.found, report.paths
    most_similar = {
        val: [(paths[train], similarity) for train, similarity in others]
        for val, others in _of_val(found, in_val, MAX_PHOTOS_PER_GROUP - 1).items()
    }
    order = sorted(most_similar, key=lambda val: -most_similar[val][0][1])
    write_table(
        workdir / "leaks.csv",
        ("val_path", "train_path", "similarity"),
        ((paths[val], *most_similar[val][0]) for val in order),
    )
    photos = photo_reader(workdir_of(joined.parts[0]))
    threshold = settings["threshold"]
    said = f"{len(most_similar)} photos of val have a near duplicate in train"
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Leaks: photos of val that training has seen",
            subtitle=said,
            results=[],
            rows=_leaking(most_similar, order, paths, photos),
            heading="Photos of val, each with those of train",
            note=f"Similarities are at least {threshold:g}, the most similar first.",
            rows_are="photos",
        )
    print_missing(photos)
    print(f"{said}: see leaks.csv")
    return {"num_leaks": len(most_similar)}


def _of_val(
    found: NearDuplicates, in_val: np.ndarray, most: int
) -> dict[int, list[tuple[int, float]]]:
    """Rows of val, each with those of train and similarities, the largest first.

    Args:
        found: pairs of a row of each.
        in_val: bool [N].
        most: of train, for each of val: there may be millions of pairs.
    """
    is_val = in_val[found.pairs]
    val = np.where(is_val[:, 0], found.pairs[:, 0], found.pairs[:, 1])
    train = np.where(is_val[:, 0], found.pairs[:, 1], found.pairs[:, 0])
    order = np.lexsort((-found.similarities, val))
    _, starts, counts = np.unique(val[order], return_index=True, return_counts=True)
    leaks: dict[int, list[tuple[int, float]]] = {}
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        own = order[start : start + min(count, most)]
        leaks[int(val[own[0]])] = list(
            zip(train[own].tolist(), found.similarities[own].tolist(), strict=True)
        )
    return leaks


def _leaking(
    most_similar: Mapping[int, Sequence[tuple[str, float]]],
    order: Sequence[int],
    paths: Mapping[int, str],
    photos: Any,
) -> Found:
    return Found(
        [paths[val] for val in order],
        [most_similar[val] for val in order],
        load_query=photos,
        load_found=photos,
    )

"""Task `near_duplicates`: photos of a collection that are nearly the same."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.same_bytes import same_bytes
from multigrain_jax.descriptors.folder import require_same_settings
from multigrain_jax.descriptors.grouping import LINKAGES
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.joined import JoinedIndex, lowest_similarities
from multigrain_jax.descriptors.near_duplicates import (
    NearDuplicates,
    near_duplicates,
    without_links,
)
from multigrain_jax.descriptors.photo_hashes import BITS, READY, require_hashes
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.errors import InputError
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import (
    MAX_PHOTOS_PER_GROUP,
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
from multigrain_jax.tasks.copy_threshold import threshold_of_collection
from multigrain_jax.tasks.duplicate_tables import (
    begin_results,
    write_duplicate_tables,
)
from multigrain_jax.tasks.embed_record import (
    comparable,
    open_collection,
    open_database,
    photo_reader,
    print_missing,
    workdir_of,
)
from multigrain_jax.tasks.hash_votes import Votes, hashes_of_rows, with_hash_pairs
from multigrain_jax.tasks.large_groups import warn_of_large_group
from multigrain_jax.tasks.near_duplicate_leaks import write_leaks
from multigrain_jax.tasks.pair_rules import IN_VAL, RULES, labels_of_rule
from multigrain_jax.tasks.photo_duplicates import (
    HASHES,
    is_photo_folder,
    run_on_photos,
)
from multigrain_jax.tasks.photos import photo_problems
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.workdir import write_results

AUTO = "auto"
# Of groups that are too large.
REMEDY = (
    "a higher --config.threshold, or --config.linkage=complete, where each two photos "
    "of a group are a pair"
)


class Report(NamedTuple):
    """What is written about near duplicates.

    Attributes:
        found: among photos.
        links: rows that are a photo of another row, with that row.
        paths: of all rows that were in a pair.
        lowest: float32 [G], the least similarity of any two photos of each group.
        same_bytes: rows whose file equals that of an earlier one, with that one.
        votes: who found which pair.
    """

    found: NearDuplicates
    links: Mapping[int, int]
    paths: Mapping[int, str]
    lowest: np.ndarray
    same_bytes: Mapping[int, int]
    votes: Votes


def _needs_devices(config: ConfigDict) -> bool:
    return not (config.database and is_photo_folder(config.database))


@functools.partial(one_writer, needs_devices=_needs_devices)
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Find near duplicates as the config says; returns what results.json holds.

    Raises:
        InputError: no such collection, or two that cannot be compared.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    if not _needs_devices(config):
        return run_on_photos(settings, workdir, started)
    index = _open_database(settings)
    require_photos(int(index.live.sum()), "database", config.database)
    reference = _open_reference(settings, index)
    threshold = settings["threshold"] = _threshold(settings, workdir_of(index))
    joined = JoinedIndex(*[index] if reference is None else [index, reference])
    labels = labels_of_rule(joined, config.pairs, settings["data"])
    _require_hashes(settings)
    begin_results(workdir, settings)
    found = near_duplicates(
        index,
        threshold,
        linkage=config.linkage,
        reference=reference,
        rule=RULES[config.pairs],
        labels=labels,
    )
    if found.lowest_kept is not None:
        print(
            f"more than {len(found.pairs)} pairs reach threshold = "
            f"{threshold:g}: the most similar {len(found.pairs)} are kept, "
            f"those of at least {found.lowest_kept:g}; a higher threshold keeps all"
        )
    votes = _votes(settings, joined)
    found = with_hash_pairs(
        found,
        joined,
        votes,
        linkage=config.linkage,
        rule=RULES[config.pairs],
        labels=labels,
    )
    report = _report(joined, found, votes, settings)
    leave_if_taken(workdir)
    _write_tables(workdir, report)
    results = _results(joined, report)
    if config.pairs == "train_val":
        assert labels is not None  # the rule has them
        results |= write_leaks(
            workdir,
            joined,
            report.found,
            paths=report.paths,
            in_val=labels == IN_VAL,
            threshold=threshold,
        )
    else:
        _write_page(workdir, joined, report, settings)
    if not results["num_pairs"]:
        print(f"no two photos reach threshold = {threshold:g}: try a lower one")
    warn_of_large_group(report.found.groups, results["num_images"], REMEDY)
    results["seconds"] = time.perf_counter() - started
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


def _threshold(settings: Mapping[str, Any], collection: Path) -> float:
    """The one that is given; of "auto" that of the network, and a line that says so."""
    given = settings["threshold"]
    return threshold_of_collection(collection) if given == AUTO else given


def _results(joined: JoinedIndex, report: Report) -> dict[str, float]:
    found = report.found
    return {
        "num_images": int(joined.live.sum()),
        "num_pairs": len(found.pairs) + len(found.copies),
        "num_groups": len(found.groups),
        "num_images_in_groups": sum(len(group) for group in found.groups),
        "num_same_bytes": len(report.same_bytes),
        "num_links": len(report.links),
        **report.votes.count(found.pairs, found.similarities),
    }


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = [
        *path_problems(settings, ("database",)),
        *choice_problems(
            settings, {"linkage": LINKAGES, "pairs": tuple(RULES), "hashes": HASHES}
        ),
        *photo_problems(settings["data"]),
        *number_problems(settings),
    ]
    if settings["reference"] and settings["pairs"] == "train_val":
        problems.append(
            "reference: found a second collection with pairs = 'train_val', which are "
            "two splits of one; expected pairs = 'any' with it, or no reference"
        )
    return problems


def _open_database(settings: Mapping[str, Any]) -> DescriptorIndex:
    path = settings["database"]
    try:
        return open_collection(settings)
    except InputError as error:
        if as_path(path).exists():
            raise
        raise InputError(
            f"{error}; or give a folder of photos, of which duplicates are found "
            "without a network"
        ) from error


def _require_hashes(settings: Mapping[str, Any]) -> None:
    if settings["hashes"] == "yes":
        require_hashes()


def _votes(settings: Mapping[str, Any], joined: JoinedIndex) -> Votes:
    """What the hashes say, where they are wanted; each photo is decoded for it."""
    hashes = None
    if settings["hashes"] == "yes":
        print(
            "pairs are found by the network, and by hashes that differ in at most "
            f"{settings['hash_distance']} of {BITS} bits"
        )
        limit = settings["data"]["max_megapixels"]
        decoding = dataclasses.replace(VIEWER, max_megapixels=limit)
        hashes = hashes_of_rows(joined, decoding=decoding)
        unread = int(np.sum(joined.live & (hashes.states != READY)))
        if unread:
            print(f"{unread} photos have no hash: too plain, or not readable as files")
    elif settings["hashes"] == "auto":
        print(
            "pairs are found by the network alone; --config.hashes=yes compares "
            "perceptual hashes too, for which each photo is decoded once"
        )
    return Votes(hashes, settings["hash_distance"], settings["threshold"])


def _open_reference(
    settings: Mapping[str, Any], index: DescriptorIndex
) -> DescriptorIndex | None:
    path = settings["reference"]
    if not path:
        return None
    own = index.settings
    assert own is not None  # it was opened from a folder
    reference = open_database(
        path, verify=settings["verify"], root=None, fits=comparable(own)
    )
    require_photos(int(reference.live.sum()), "reference", path)
    other = reference.settings
    assert other is not None  # likewise
    # Only how they are stored may differ.
    require_same_settings(other, own._replace(dtype=other.dtype), folder=as_path(path))
    return reference


def _report(
    joined: JoinedIndex,
    found: NearDuplicates,
    votes: Votes,
    settings: Mapping[str, Any],
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
        votes,
    )


def _write_tables(workdir: Path, report: Report) -> None:
    found = report.found
    order = np.argsort(-found.similarities, kind="stable")
    write_duplicate_tables(
        workdir,
        paths=report.paths,
        groups=found.groups,
        lowest=report.lowest,
        pairs=itertools.chain(
            report.votes(found.copies[:, ::-1], np.ones(len(found.copies))),
            report.votes(found.pairs[order], found.similarities[order]),
        ),
        same_bytes=report.same_bytes,
        links=report.links,
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
    if report.votes.hashes is not None:
        how += f", or whose hashes differ in at most {report.votes.most} of {BITS} bits"
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
                notes=_notes(report),
            ),
            heading="Groups",
            rows_are="groups",
            note=f"Photos {how.format(f'{threshold:g}')}. The largest groups come "
            "first, of equally large ones the most similar. Of each there are up to "
            f"{MAX_PHOTOS_PER_GROUP} photos; similarities are to the first one.",
        )
    print_missing(photos)


def _notes(report: Report) -> dict[int, str]:
    """A few words about some photos of groups, by their rows."""
    found = report.found
    alone = report.votes.by_hash_alone(found.pairs, found.similarities)
    notes = dict.fromkeys(alone, "found by its hash alone")
    for row, other in report.same_bytes.items():
        notes[row] = f"the same bytes as {short_name(report.paths[other])}"
    return notes

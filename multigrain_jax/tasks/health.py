"""Task `health`: photos of a collection that something may be wrong with."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import file_path
from multigrain_jax.data.picture_faults import PictureFacts, look_at, look_at_file
from multigrain_jax.data.skips import SKIPPED_FILE
from multigrain_jax.descriptors.oddities import (
    Neighbours,
    likely_mislabels,
    nearest_others,
    outlier_deviations,
)
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow, LazyRows
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import short_name
from multigrain_jax.pages.stored_photos import PhotoReader
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import path_problems, refuse, require_photos
from multigrain_jax.tasks.embed_record import (
    open_collection,
    photo_reader,
    print_missing,
    workdir_of,
)
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.workdir import write_config, write_results, write_table

SHOWN_NEIGHBOURS = 5
# Each with its count in results.json.
REASONS = {
    "mislabel": "num_mislabels",
    "outlier": "num_outliers",
    "dark": "num_dark",
    "blurred": "num_blurred",
    "tiny": "num_tiny",
    "empty": "num_empty",
    "unreadable": "num_unreadable",
}


class Finding(NamedTuple):
    """Something that may be wrong with a photo.

    Attributes:
        place: of the photo, among all.
        reason: one of `REASONS`.
        severity: from 0, hardly, to 1.
        words: what was found.
    """

    place: int
    reason: str
    severity: float
    words: str


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Look through a collection as the config says; returns what results.json holds.

    Raises:
        InputError: no such collection.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse([*path_problems(settings, ("database",)), *number_problems(settings)])
    index = open_collection(settings)
    num_photos = int(index.live.sum())
    require_photos(num_photos, "database", config.database)
    write_config(workdir, settings)
    neighbours = nearest_others(index, config.num_neighbours)
    paths = index.paths(neighbours.rows)
    photos = photo_reader(workdir_of(index))
    findings = [
        *_mislabels(neighbours, paths, least_agreement=config.classes_agree),
        *_outliers(neighbours, least=config.outlier_deviations),
    ]
    if config.look_at_photos:
        findings += _faults_of_pictures(paths, photos, settings)
    by_photo = _worst_first(findings)
    leave_if_taken(workdir)
    write_table(
        workdir / "health.csv",
        ("path", "severity", "reasons", "details"),
        (
            (
                paths[place],
                round(own[0].severity, 4),
                " ".join(finding.reason for finding in own),
                _details(own),
            )
            for place, own in by_photo
        ),
    )
    with dispensable(workdir / "report.html"):
        _write_page(workdir, by_photo, neighbours, paths, photos)
    print_missing(photos)
    skipped = workdir_of(index) / SKIPPED_FILE
    if skipped.is_file():
        print(f"photos without a descriptor are not looked at; see {skipped}")
    results: dict[str, float] = {"num_images": num_photos, "num_found": len(by_photo)}
    for reason, name in REASONS.items():
        results[name] = sum(finding.reason == reason for finding in findings)
    results["seconds"] = time.perf_counter() - started
    print("\n".join(f"{name:<14}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


def _mislabels(
    neighbours: Neighbours, paths: Sequence[str], *, least_agreement: float
) -> list[Finding]:
    """Photos that are among those of another folder; folders of one name are one."""
    folders = [os.path.basename(os.path.dirname(path)) for path in paths]
    names = sorted(set(folders))
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[name] for name in folders], np.int64)
    if len(names) < 2 or not neighbours.nearest.shape[1]:
        return []
    nearest = neighbours.nearest[:, 0]
    agreement = float(np.mean(labels[nearest][nearest >= 0] == labels[nearest >= 0]))
    if agreement < least_agreement:
        print(
            f"of {agreement:.0%} of the photos the nearest other one is in a folder of "
            "the same name: folders are taken for no classes, and no photo for "
            "mislabelled (classes_agree)"
        )
        return []
    return [
        Finding(
            found.place,
            "mislabel",
            (found.of_other - found.of_own) / found.looked_at,
            f"{found.of_other} of its {found.looked_at} nearest photos are of "
            f"“{names[found.other]}”, {found.of_own} of “{folders[found.place]}”",
        )
        for found in likely_mislabels(neighbours.nearest, labels)
    ]


def _outliers(neighbours: Neighbours, *, least: float) -> list[Finding]:
    deviations, means = outlier_deviations(neighbours.similarities)
    usual = float(np.nanmedian(means)) if np.isfinite(means).any() else 0.0
    return [
        Finding(
            place,
            "outlier",
            1 - least / float(deviations[place]),
            f"like no other: {means[place]:.3f} similar to its nearest photos, half of "
            f"the photos {usual:.3f} or more",
        )
        for place in np.flatnonzero(deviations > least).tolist()
    ]


def _faults_of_pictures(
    paths: Sequence[str], photos: PhotoReader, settings: Mapping[str, Any]
) -> list[Finding]:
    """What is wrong with the pictures themselves; each is read once."""

    def look(path: str) -> PictureFacts | None:
        if file_path(path).is_file():
            return look_at_file(path)
        image = photos(path)
        return None if image is None else look_at(image)

    findings = []
    look(paths[0])  # the data set is opened once, by one thread
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for place, facts in enumerate(pool.map(look, paths)):
            if facts is None:
                words = "it cannot be read any more"
                findings.append(Finding(place, "unreadable", 1.0, words))
            else:
                findings += faults_of(place, facts, settings)
    return findings


def faults_of(
    place: int, facts: PictureFacts, settings: Mapping[str, Any]
) -> list[Finding]:
    """What is wrong with one picture, by the limits of a configuration."""
    findings = []

    def add(reason: str, how_far: float, words: str) -> None:
        findings.append(Finding(place, reason, min(1.0, max(0.0, how_far)), words))

    limit = settings["dark_below"]
    if facts.brightness < limit:
        add(
            "dark",
            1 - facts.brightness / limit,
            f"dark: 19 of 20 pixels are below {facts.brightness:.0%} of white",
        )
    limit = settings["blurred_above"]
    if facts.blur is not None and facts.blur > limit:
        how_far = (facts.blur - limit) / (1 - limit)
        add("blurred", how_far, f"blurred: {facts.blur:.2f} of 1")
    limit = settings["tiny_below"]
    if facts.width is not None and facts.height is not None:
        side = max(facts.width, facts.height)
        if side < limit:
            add("tiny", 1 - side / limit, f"tiny: {facts.width} × {facts.height}")
    limit = settings["empty_above"]
    if facts.one_shade > limit:
        how_far = (facts.one_shade - limit) / (1 - limit)
        add("empty", how_far, f"nearly empty: {facts.one_shade:.1%} of one shade")
    return findings


def _worst_first(findings: Sequence[Finding]) -> list[tuple[int, list[Finding]]]:
    """Of each photo all findings, the worst of them first; the worst photo first."""
    by_photo: dict[int, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: (-f.severity, f.place)):
        by_photo.setdefault(finding.place, []).append(finding)
    return list(by_photo.items())


def _details(findings: Sequence[Finding]) -> str:
    return "; ".join(finding.words for finding in findings)


def _is_unreadable(findings: Sequence[Finding]) -> bool:
    return any(finding.reason == "unreadable" for finding in findings)


def _write_page(
    workdir: Path,
    by_photo: Sequence[tuple[int, list[Finding]]],
    neighbours: Neighbours,
    paths: Sequence[str],
    load: Callable[[str], Any],
) -> None:
    # There is nothing to see of what cannot be read: it comes last.
    shown = sorted(by_photo, key=lambda found: _is_unreadable(found[1]))

    def item(place: int, similarity: float | None) -> GalleryItem:
        path = paths[place]
        return GalleryItem(
            partial(load, path), short_name(path), similarity, "found", path
        )

    def make_row(number: int) -> GalleryRow:
        place, own = shown[number]
        near = zip(
            neighbours.nearest[place, :SHOWN_NEIGHBOURS].tolist(),
            neighbours.similarities[place].tolist(),
            strict=False,
        )
        others = [item(other, min(1.0, value)) for other, value in near if other >= 0]
        return GalleryRow(item(place, None), others, note=_details(own))

    write_retrieval_page(
        workdir / "report.html",
        title="Health of a collection",
        subtitle=f"{len(by_photo)} of {len(paths)} photos should be looked at",
        results=[],
        rows=LazyRows(len(by_photo), make_row),
        heading="What may be wrong, the worst first",
        note="Each photo with its reason and the photos that are most similar to it; "
        "those that cannot be read come last. All are in health.csv. The filter knows "
        "the words of reasons too: "
        "mislabelled photos by “nearest”, others by dark, blurred, tiny, empty.",
        rows_are="photos",
    )

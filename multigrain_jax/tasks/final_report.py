"""What a trained model can do on a labelled split: scores, a table and a page.

Classification (top-1, top-5), retrieval of the class (every photo a query among the
others) and detection of copies (a centre crop of half the area finds its original).
"""

import math
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.skips import SKIPPED_FILE, SkipLog
from multigrain_jax.data.sources.copies import CopySource
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import folders_of_others
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.classification import (
    alone_in_class,
    class_map,
    classification_scores,
    knn_top1,
)
from multigrain_jax.evaluation.copy_detection import copy_scores
from multigrain_jax.evaluation.embed import (
    Embedded,
    embed_source,
    embed_source_batches,
    make_embed_step,
)
from multigrain_jax.evaluation.leaks import Leaks, find_leaks
from multigrain_jax.growing_file import dispensable
from multigrain_jax.models.multigrain import Backbone, Variables
from multigrain_jax.pages.training_page import WORDS, write_final_page
from multigrain_jax.workdir import print_table, write_table

NUM_COPY_QUERIES = 200
COPY_EDIT = "crop 50 %"
# Less similar photos are no near duplicates, whatever finds crops of half the area.
LEAST_OF_LEAKS = 0.9
LEAKS_FILE = "leaks.csv"


def evaluate_and_report(
    graphdef: nnx.GraphDef,
    variables: Variables,
    source: ImageSource,
    *,
    split: str,
    prefix: str = "",
    backbone: Backbone,
    test_size: int,
    test_mode: str,
    batch_size: int,
    reading: Reading,
    mesh: Mesh,
    workdir: Path,
    train: ImageSource | None = None,
) -> dict[str, float]:
    """Evaluate on every photo of `source`, print a table and write report.html.

    Of several hosts each reads its share of the photos; process 0 alone scores and
    writes, and has results.

    Args:
        graphdef: the model's evaluation structure.
        variables: its arrays.
        source: the photos.
        split: their name, the first part of the scores' names.
        prefix: what their second part begins with.
        backbone: the model's row of `BACKBONES`.
        test_size: S, in pixels.
        test_mode: "square" or "rect", as `plan_batches` has them.
        batch_size: photos per step.
        reading: how batches are read ahead.
        mesh: the devices.
        workdir: where this process keeps its records, and report.html goes.
        train: the photos of training, in which near duplicates are looked for; None:
            they are not.

    Returns:
        `<split>/copy_recall_at_1`, `/copy_map`, mostly `/copy_threshold_at_p90`, and of
        labelled photos `/top1`, `/top5` (of a model with a classifier), `/class_map`,
        `/knn_top1` (if there are two of any class), as fractions; with `train`,
        `/leaks`, the share of photos with a near duplicate there.

    Raises:
        InputError: no photo can be read.
    """
    embed = partial(
        embed_source,
        embed_step=make_embed_step(graphdef, backbone=backbone, mesh=mesh),
        variables=variables,
        backbone=backbone,
        test_size=test_size,
        test_mode=test_mode,
        batch_size=batch_size,
        reading=reading,
        mesh=mesh,
    )
    photos = embed(source)
    _list_unreadable(source, photos.bad, workdir)
    if photos.bad.all():
        raise InputError(
            f"none of the {len(source)} photos of {split!r} could be read, and there "
            "is nothing to report; skipped.txt says why"
        )
    originals = copy_query_indices(len(source))
    if jax.process_index():
        _read_share(embed, CopySource(source, originals, EDITS[COPY_EDIT]), train)
        return {}
    found = copy_scores(
        embed, source, photos, originals, edit=EDITS[COPY_EDIT], background=None
    )
    scores = {f"copy_{name}": value for name, value in found.items()}
    scores = _class_scores(photos, split=split) | scores
    if train is not None:
        batches = embed_source_batches(train, **embed.keywords)
        threshold = max(LEAST_OF_LEAKS, scores.get("copy_threshold_at_p90", 0.0))
        leaks = find_leaks(photos, batches, threshold=threshold)
        _tell_leaks(leaks, source, train, split=split, workdir=workdir)
        scores["leaks"] = len(leaks.photos) / int(np.sum(~photos.bad))
    with dispensable(workdir / "report.html"):
        write_final_page(workdir, source, photos, split=split, scores=scores)
    named = {f"{split}/{prefix}{name}": value for name, value in scores.items()}
    print(f"scores of the {int(np.sum(~photos.bad))} photos of {split}:")
    titles = [WORDS[name][0].lower() for name in scores]
    print_table(named, dict(zip(named, titles, strict=True)))
    return named


def _class_scores(photos: Embedded, *, split: str) -> dict[str, float]:
    """How well classes are told and found; nothing of photos without labels."""
    if not np.any(photos.labels >= 0):
        return {}
    scores = {} if photos.logits is None else classification_scores(photos)
    if can_be_found(photos.labels, split=split):
        scores |= {"class_map": class_map(photos), "knn_top1": knn_top1(photos)}
    return scores


def _read_share(
    embed: partial[Embedded], copies: ImageSource, train: ImageSource | None
) -> None:
    """What a host without scores does of them: its share of the photos."""
    embed(copies)
    if train is not None:
        for _ in embed_source_batches(train, **embed.keywords):
            pass


def _list_unreadable(source: ImageSource, bad: np.ndarray, workdir: Path) -> None:
    """skipped.txt of the photos that no host could read, which process 0 writes."""
    if jax.process_index():
        return
    others = folders_of_others(workdir)
    skips = SkipLog(
        source,
        workdir=workdir,
        max_fraction=math.inf,
        other_lists=[folder / SKIPPED_FILE for folder in others],
    )
    skips.record(np.flatnonzero(bad))


def _tell_leaks(
    leaks: Leaks,
    source: ImageSource,
    train: ImageSource,
    *,
    split: str,
    workdir: Path,
) -> None:
    """leaks.csv, and the line that says how many there are."""
    write_table(
        workdir / LEAKS_FILE,
        ("path", "train_path", "similarity"),
        (
            (source.describe(int(photo)), train.describe(int(other)), float(similarity))
            for photo, other, similarity in zip(*leaks, strict=True)
        ),
    )
    count = len(leaks.photos)
    some = f", which makes scores too good: see {workdir / LEAKS_FILE}" if count else ""
    print(f"{count} photos of {split} have a near duplicate in train{some}")


def can_be_found(labels: np.ndarray, *, split: str) -> bool:
    """Whether two photos are of one class; says how many are alone in theirs."""
    alone, labelled = int(alone_in_class(labels).sum()), int(np.sum(labels >= 0))
    if alone:
        print(
            f"{split}: {alone} of {labelled} photos are alone in their class: scores "
            "of finding the class among the others leave them out"
        )
    return alone < labelled


def copy_query_indices(num_images: int) -> np.ndarray:
    """Up to `NUM_COPY_QUERIES` photos, evenly spread over the set."""
    count = min(NUM_COPY_QUERIES, num_images)
    return np.linspace(0, num_images - 1, count).astype(int)

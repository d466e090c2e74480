"""report.html at the end of a training run: curves, scores, mistakes, neighbours."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.metric_writer import read_metrics
from multigrain_jax.pages.confusion import (
    confused_pairs_section,
    confusion_section,
    count_confusions,
)
from multigrain_jax.pages.gallery import (
    GalleryItem,
    GalleryRow,
    Verdict,
    photos_of,
)
from multigrain_jax.pages.gallery_page import gallery_script, gallery_section
from multigrain_jax.pages.page import (
    Result,
    Section,
    figures_section,
    results_section,
    save_report,
)
from multigrain_jax.pages.plots import draw_plots
from multigrain_jax.workdir import METRICS_FILE

NUM_GALLERY_QUERIES = 12
NUM_GALLERY_NEIGHBOURS = 5
# Of more classes, the mistakes that are made most often are listed.
MAX_MATRIX_CLASSES = 300

# score -> its name in words, and what it means.
WORDS: Mapping[str, tuple[str, str]] = {
    "top1": (
        "Right class",
        "share of photos whose most probable class is the right one",
    ),
    "top5": (
        "Right class among five",
        "share of photos whose right class is among the five most probable",
    ),
    "class_map": (
        "Same class found",
        "each photo looks for its class among the others: mean average precision, "
        "which is 1 if all of its class come before the others",
    ),
    "knn_top1": (
        "Nearest photo of the same class",
        "share of photos whose nearest other photo is of their class: no classifier",
    ),
    "copy_recall_at_1": (
        "Original found",
        "share of centre crops of half the area whose nearest photo is their original",
    ),
    "copy_map": (
        "Originals near the top",
        "mean average precision of finding each crop's original",
    ),
    "copy_threshold_at_p90": (
        "Threshold for copies",
        "the similarity from which on 90 % of such pairs are a crop and its original; "
        "no score",
    ),
    "leaks": (
        "Photos that training has seen",
        "share of photos with a near duplicate among those of training (leaks.csv): "
        "they make the other scores too good; the lower, the better",
    ),
}
# Not the higher, the better.
NO_SCORES = ("copy_threshold_at_p90", "leaks")


def write_final_page(
    workdir: Path,
    source: ImageSource,
    photos: Embedded,
    *,
    split: str,
    scores: Mapping[str, float],
) -> Path:
    """Write `workdir/report.html`; returns its path.

    Args:
        workdir: the run's folder, with its metrics.jsonl.
        source: the photos that were evaluated.
        photos: what the model made of them.
        split: their name.
        scores: by name, without the split.
    """
    results = [_result(name, value) for name, value in scores.items()]
    confusions = []
    if source.class_names and photos.logits is not None:
        confusions = [_confusions(source, photos, photos.logits)]
    path = workdir / "report.html"
    save_report(
        path,
        title="MultiGrain: what this run learned",
        subtitle=f"{len(source)} photos of the split “{split}”, "
        + (f"{len(source.class_names)} classes" if source.class_names else "no labels"),
        sections=[
            results_section(results),
            gallery_section(
                sorted(gallery_rows(source, photos), key=_num_right),
                heading="Nearest photos",
                note="A dozen photos from all over the split, the worst first. Each "
                "one looks for the five most similar among the others, by the inner "
                "product of the embeddings.",
                rows_are="examples",
                folder=workdir,
            ),
            *confusions,
            figures_section(draw_plots(read_metrics(workdir / METRICS_FILE))),
        ],
        script=gallery_script(),
    )
    return path


def _result(name: str, value: float) -> Result:
    title, explanation = WORDS.get(name, ("", ""))
    best = None if name in NO_SCORES else 1.0
    return Result(name, value, explanation, best=best, title=title)


def _confusions(source: ImageSource, photos: Embedded, logits: np.ndarray) -> Section:
    readable = ~photos.bad & (photos.labels >= 0)
    predictions = logits.argmax(axis=1)
    confusions = count_confusions(
        photos.labels[readable],
        predictions[readable],
        num_classes=logits.shape[1],
    )
    # A network may have been given more classes than its data have.
    unnamed = range(len(source.class_names), logits.shape[1])
    names = [*source.class_names, *(f"class {number}, unnamed" for number in unnamed)]
    if len(names) > MAX_MATRIX_CLASSES:
        return confused_pairs_section(confusions, names)
    return confusion_section(confusions, names)


def gallery_rows(source: ImageSource, photos: Embedded) -> list[GalleryRow]:
    """A dozen queries, evenly spread over the set, with their nearest photos."""
    candidates = np.flatnonzero(~photos.bad)
    if len(candidates) < 2:
        return []
    picks = np.linspace(0, len(candidates) - 1, NUM_GALLERY_QUERIES)
    rows, load = [], photos_of(source)
    for query in np.unique(candidates[picks.astype(int)]):
        similarity = photos.descriptors @ photos.descriptors[query]
        similarity[photos.bad] = -np.inf
        similarity[query] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")
        nearest = nearest[np.isfinite(similarity[nearest])][:NUM_GALLERY_NEIGHBOURS]
        label = int(photos.labels[query])
        neighbours = [
            GalleryItem(
                partial(load, int(index)),
                _class_name(source, int(photos.labels[index])),
                float(similarity[index]),
                _verdict(label, int(photos.labels[index])),
                source.describe(int(index)),
            )
            for index in nearest
        ]
        image = partial(load, int(query))
        name = _class_name(source, label)
        path = source.describe(int(query))
        shown = GalleryItem(image, name, None, "query", path)
        rows.append(GalleryRow(shown, neighbours, note=_counted(name, neighbours)))
    return rows


def _counted(name: str, neighbours: list[GalleryItem]) -> str:
    """How many of the neighbours are right, of those where it is known."""
    known = [item for item in neighbours if item.verdict in ("right", "wrong")]
    right = sum(item.verdict == "right" for item in known)
    return f"{right} of {len(known)} are of “{name}” too" if known else ""


def _num_right(row: GalleryRow) -> int:
    return sum(item.verdict == "right" for item in row.neighbours)


def _verdict(wanted: int, found: int) -> Verdict:
    if min(wanted, found) < 0:
        return "found"  # nobody knows
    return "right" if found == wanted else "wrong"


def _class_name(source: ImageSource, label: int) -> str:
    return source.class_names[label] if label >= 0 else "no label"

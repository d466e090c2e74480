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
    gallery_section,
    photos_of,
    viewer_script,
)
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

EXPLANATIONS = {
    "top1": "photos whose most probable class is the right one",
    "top5": "photos whose right class is among the five most probable",
    "class_map": "each photo looks for its class among the others: mean average "
    "precision",
    "knn_top1": "photos whose nearest other photo is of their class: no classifier",
    "copy_recall_at_1": "centre crops of half the area whose nearest photo is their "
    "original",
    "copy_map": "mean average precision of finding each crop's original",
    "copy_threshold_at_p90": "similarity from which on 90 % of such pairs are a crop "
    "and its original: a threshold for copies",
    "leaks": "photos with a near duplicate among those of training (leaks.csv): the "
    "other scores are too good by them",
}


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
    results = [
        Result(name, value, EXPLANATIONS.get(name, ""))
        for name, value in scores.items()
    ]
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
                gallery_rows(source, photos),
                note="Each photo on the left looks for its five nearest among the "
                "others, by the inner product of the embeddings.",
                folder=workdir,
            ),
            *confusions,
            figures_section(draw_plots(read_metrics(workdir / METRICS_FILE))),
        ],
        script=viewer_script(),
    )
    return path


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
        rows.append(GalleryRow(shown, neighbours))
    return rows


def _verdict(wanted: int, found: int) -> Verdict:
    if min(wanted, found) < 0:
        return "found"  # nobody knows
    return "right" if found == wanted else "wrong"


def _class_name(source: ImageSource, label: int) -> str:
    return source.class_names[label] if label >= 0 else "no label"

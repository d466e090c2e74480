"""report.html of predictions: photos by class, the most doubtful first, and mix-ups."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.predictions import Predictions, accuracies
from multigrain_jax.pages.confusion import (
    MAX_CONFUSION_CLASSES,
    confused_pairs_section,
    confusion_section,
    count_confusions,
)
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow, LazyRows, photos_of
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.page import Result, Section
from multigrain_jax.pages.search_page import short_name

# Of a row so many photos are shown.
MAX_PHOTOS_PER_ROW = 12
MAX_MIX_UPS = 20
SHOWN_CLASSES = 2

EXPLANATIONS = {
    "accuracy": "share of photos whose folder has the name of the class predicted",
    "accuracy_of_best": "share of photos whose folder is among the best {} classes",
}


def write_prediction_page(
    path: Path,
    predictions: Predictions,
    *,
    source: ImageSource,
    class_names: Sequence[str],
    labels: np.ndarray,
    made_by: str,
) -> None:
    """Write a page that needs nothing but itself, of about 5 MB at most.

    Args:
        path: the file, replaced if it exists.
        predictions: of N photos.
        source: the photos, by their `predictions.indices`.
        class_names: of all classes.
        labels: int [N], the class that each photo's folder names; -1: none.
        made_by: the checkpoint.
    """
    num_photos = len(predictions.indices)
    known = labels >= 0
    rows = _Rows(predictions, source, class_names, labels)
    said = f"{num_photos} photos, {rows.num_classes_seen} classes, by {made_by}"
    if predictions.num_unreadable:
        said += f"; {predictions.num_unreadable} photos could not be read (skipped.txt)"
    note = "A row for each class that was predicted, the most doubtful photos first."
    if rows.mix_ups:
        note = (
            "First the photos whose folder has the name of another class, the surest "
            "first: the network is wrong, or the photo lies in the wrong folder. Then "
            "a row for each class, the most doubtful photos first."
        )
    write_retrieval_page(
        path,
        title="Predictions",
        subtitle=said,
        results=_results(accuracies(predictions, labels)),
        before=_confusions(predictions, labels, class_names) if known.any() else [],
        rows=rows,
        heading="Photos by class and by doubt",
        rows_are="rows",
        note=f"{note} Percentages are the network's own, from 0 to 100: it may be sure "
        "and wrong.",
    )


class _Rows(LazyRows):
    """Rows of the gallery: mix-ups of two classes, then each class.

    Attributes:
        mix_ups: (folder's class, predicted class), those with most photos first.
        num_classes_seen: how many classes were predicted at least once.
    """

    def __init__(
        self,
        predictions: Predictions,
        source: ImageSource,
        class_names: Sequence[str],
        labels: np.ndarray,
    ):
        """Sort the photos into rows; none is read before its row is asked for."""
        self._predictions, self._names, self._labels = predictions, class_names, labels
        self._source, self._load = source, photos_of(source)
        first = predictions.classes[:, 0]
        doubt = np.lexsort((-predictions.entropies, predictions.margins))
        self._by_class: dict[int, list[int]] = {}
        pairs: dict[tuple[int, int], list[int]] = {}
        for place in doubt.tolist():
            own, label = int(first[place]), int(labels[place])
            self._by_class.setdefault(own, []).append(place)
            if label not in (-1, own):
                pairs.setdefault((label, own), []).append(place)
        # The surest mistake is the likeliest photo in a wrong folder.
        self.mix_ups = {
            pair: places[::-1]
            for pair, places in sorted(pairs.items(), key=lambda item: -len(item[1]))
        }
        self.num_classes_seen = len(self._by_class)
        pairs_shown = list(self.mix_ups)[:MAX_MIX_UPS]
        classes = sorted(self._by_class, key=lambda number: class_names[number])

        def make_row(number: int) -> GalleryRow:
            if number < len(pairs_shown):
                pair = pairs_shown[number]
                return self._row(self.mix_ups[pair], self._about_pair(pair))
            own = classes[number - len(pairs_shown)]
            places = self._by_class[own]
            return self._row(places, self._about_class(own, places))

        super().__init__(len(pairs_shown) + len(classes), make_row)

    def _about_pair(self, pair: tuple[int, int]) -> str:
        folder, predicted = (self._names[number] for number in pair)
        count = len(self.mix_ups[pair])
        return f"{_photos(count)} of the folder {folder} look like {predicted}"

    def _about_class(self, number: int, places: Sequence[int]) -> str:
        labels = self._labels[list(places)]
        said = f"{self._names[number]}: {_photos(len(places))}"
        if np.any(labels >= 0):
            right = int(np.sum(labels == number))
            said += f", {right} of them in a folder of this name"
        return said

    def _row(self, places: Sequence[int], note: str) -> GalleryRow:
        count = len(places)
        if count > MAX_PHOTOS_PER_ROW:
            note += f"; shown are {MAX_PHOTOS_PER_ROW}"
        first, *others = (self._item(place) for place in places[:MAX_PHOTOS_PER_ROW])
        margins = self._predictions.margins[list(places)]
        return GalleryRow(first, others, similarity=float(margins.mean()), note=note)

    def _item(self, place: int) -> GalleryItem:
        index = int(self._predictions.indices[place])
        classes = self._predictions.classes[place].tolist()[:SHOWN_CLASSES]
        shares = self._predictions.probabilities[place].tolist()
        seen = ", ".join(
            f"{self._names[number]} {share:.0%}"
            for number, share in zip(classes, shares, strict=False)
        )
        label = int(self._labels[place])
        verdict = "found"
        if label >= 0:
            verdict = "right" if label == classes[0] else "wrong"
        name = self._source.describe(index)
        load = partial(self._load, index)
        return GalleryItem(load, short_name(name), None, verdict, name, seen)


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"


def _results(scores: dict[str, float]) -> list[Result]:
    found = []
    for name, value in scores.items():
        kind, _, count = name.rpartition("_")
        explanation = EXPLANATIONS.get(kind, EXPLANATIONS["accuracy"]).format(count)
        found.append(Result(name.replace("_", " "), value, explanation))
    return found


def _confusions(
    predictions: Predictions, labels: np.ndarray, class_names: Sequence[str]
) -> list[Section]:
    """Which folder's photos look like which class: of the classes that occur."""
    known = labels >= 0
    own, seen = labels[known], predictions.classes[known, 0]
    numbers = np.unique(np.concatenate([own, seen]))
    confusions = count_confusions(
        np.searchsorted(numbers, own),
        np.searchsorted(numbers, seen),
        num_classes=len(numbers),
    )
    names = [str(class_names[number]) for number in numbers.tolist()]
    if len(numbers) <= MAX_CONFUSION_CLASSES:
        return [
            confusion_section(
                confusions,
                names,
                heading="Folders and predicted classes",
                note="Rows: the folder. Columns: the predicted class. Numbers: photos.",
            )
        ]
    return [confused_pairs_section(confusions, names)]

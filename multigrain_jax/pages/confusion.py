"""Which class a classifier takes for which: counted, and as parts of a page.

Only pairs of classes that occur are kept, so that memory grows with the images and the
classes, and not with the square of these.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from multigrain_jax.errors import InputError
from multigrain_jax.pages.page import Section

MAX_CONFUSION_CLASSES = 40
MAX_CONFUSED_PAIRS = 40


class Confusions(NamedTuple):
    """How often which class was predicted as which; pairs that never were are left out.

    Attributes:
        labels: int64 [M], true classes, ascending.
        predictions: int64 [M], among equal labels ascending.
        counts: int64 [M], images of that label with that prediction; at least 1.
        num_classes: C.
    """

    labels: np.ndarray
    predictions: np.ndarray
    counts: np.ndarray
    num_classes: int


def count_confusions(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> Confusions:
    """Count the pairs of true and predicted class; memory grows with N alone.

    Args:
        labels: int [N], 0 to C - 1.
        predictions: int [N], 0 to C - 1.
        num_classes: C.
    """
    cells = np.asarray(labels, np.int64) * num_classes + predictions
    cells, counts = np.unique(cells, return_counts=True)
    rows, columns = np.divmod(cells, num_classes)
    return Confusions(rows, columns, counts, num_classes)


def confusion_section(
    confusions: Confusions,
    class_names: Sequence[str],
    *,
    heading: str = "Confusion matrix",
    note: str = "Rows: the true class. Columns: the predicted one. Numbers: images.",
) -> Section:
    """A heat map of which class is taken for which.

    Of more than `MAX_CONFUSION_CLASSES` classes, those with the most mistakes are
    shown, and the note says so.

    Args:
        confusions: from `count_confusions`.
        class_names: C names.
        heading: of the section.
        note: below the heading.

    Raises:
        InputError: there are not as many names as classes.
    """
    _require_names(confusions, class_names)
    num_classes = len(class_names)
    shown = np.arange(num_classes)
    if num_classes > MAX_CONFUSION_CLASSES:
        most = np.argsort(-_mistakes(confusions), kind="stable")
        shown = np.sort(most[:MAX_CONFUSION_CLASSES])
        note = f"{note} The {len(shown)} of {num_classes} classes with most mistakes."
    names = [class_names[number] for number in shown.tolist()]
    columns = "".join(
        f'<th scope="col"><span>{escape(name)}</span></th>' for name in names
    )
    totals = _sum_by(confusions.labels, confusions.counts, num_classes)[shown]
    matrix = _dense_counts(confusions, shown)
    rows = "\n".join(
        _render_confusion_row(matrix[row], row, int(totals[row]), names)
        for row in range(len(shown))
    )
    body = (
        f'<div class="scroll"><table class="confusion"><thead><tr><th></th>'
        f"{columns}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )
    return Section(heading, note, body)


def confused_pairs_section(
    confusions: Confusions,
    class_names: Sequence[str],
    *,
    heading: str = "Most confused classes",
    note: str = "How many images of a class were predicted as which other one.",
) -> Section:
    """A table of the mistakes made most often, for more classes than a matrix shows.

    Of equally many images, those that are more of their class come first. The note says
    how many of the pairs are shown. Arguments and errors as of `confusion_section`.
    """
    _require_names(confusions, class_names)
    labels, predictions, counts, num_classes = confusions
    wrong = np.flatnonzero(labels != predictions)
    if not len(wrong):
        body = '<p class="note">No image was predicted as another class.</p>'
        return Section(heading, note, body)
    totals = _sum_by(labels, counts, num_classes)[labels]
    order = wrong[np.lexsort((totals[wrong], -counts[wrong]))][:MAX_CONFUSED_PAIRS]
    rows = "\n".join(
        _render_confused_pair(
            class_names[int(labels[pair])],
            class_names[int(predictions[pair])],
            int(counts[pair]),
            int(totals[pair]),
        )
        for pair in order
    )
    body = (
        '<table class="results pairs"><thead><tr><th scope="col">True class</th>'
        '<th scope="col">Predicted class</th><th scope="col">Images</th>'
        f'<th class="bar"></th></tr></thead><tbody>\n{rows}\n</tbody></table>'
    )
    note = f"{note} The {len(order)} most frequent of {len(wrong)} such pairs."
    return Section(heading, note, body)


def _require_names(confusions: Confusions, class_names: Sequence[str]) -> None:
    if confusions.num_classes != len(class_names):
        raise InputError(
            f"confusion counts: found {confusions.num_classes} classes, expected "
            f"{len(class_names)} for {len(class_names)} class names"
        )


def _sum_by(classes: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
    """The counts added up for each class: int64 [C]."""
    sums = np.zeros(num_classes, np.int64)
    np.add.at(sums, classes, counts)
    return sums


def _mistakes(confusions: Confusions) -> np.ndarray:
    """Images of a class taken for another, and of others taken for it: int64 [C]."""
    labels, predictions, counts, num_classes = confusions
    counts = np.where(labels == predictions, 0, counts)
    return _sum_by(labels, counts, num_classes) + _sum_by(
        predictions, counts, num_classes
    )


def _dense_counts(confusions: Confusions, shown: np.ndarray) -> np.ndarray:
    """The counts among S ascending classes, int64 [S, S]: rows are the true ones."""
    labels, predictions, counts, _ = confusions
    kept = np.isin(labels, shown) & np.isin(predictions, shown)
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    rows, columns = (
        np.searchsorted(shown, classes[kept]) for classes in (labels, predictions)
    )
    matrix[rows, columns] = counts[kept]
    return matrix


def _render_confusion_row(
    counts: np.ndarray, row: int, total: int, names: Sequence[str]
) -> str:
    cells = []
    for column, count in enumerate(counts.tolist()):
        if count == 0:
            cells.append('<td class="none"></td>')
            continue
        says = f"{count} of {total} {names[row]}: {names[column]}"
        css_class = ' class="diagonal"' if column == row else ""
        # Half the strength at most: the numbers stay readable on it.
        cells.append(
            f'<td{css_class} style="--share:{0.08 + 0.47 * count / total:.3f}" '
            f'title="{escape(says)}">{count}</td>'
        )
    return f'<tr><th scope="row">{escape(names[row])}</th>{"".join(cells)}</tr>'


def _render_confused_pair(label: str, prediction: str, count: int, total: int) -> str:
    return (
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(prediction)}</td>'
        f'<td class="value">{count} of {total}</td><td class="bar"><div class="track">'
        f'<div class="fill" style="width:{count / total:.2%}"></div></div></td></tr>'
    )

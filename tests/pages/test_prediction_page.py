"""The page of predictions: mix-ups first, then classes, the most doubtful first."""

import html
import re

import numpy as np
from helpers.photos import plain_photo

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.predictions import Predictions
from multigrain_jax.pages.prediction_page import write_prediction_page

NAMES = ["ant", "<b>ee", "cow"]


class Photos(ImageSource):
    decoding = VIEWER
    class_names: list[str] = []  # noqa: RUF012 - the source's own way

    def __init__(self, count):
        self.labels = np.full(count, -1, np.int32)

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        return plain_photo(index % 256)

    def describe(self, index):
        return f"/photos/of/{index}.jpg"


def predictions_of(first, shares):
    count = len(first)
    classes = np.stack([first, (np.array(first) + 1) % 3], axis=1)
    probabilities = np.stack([shares, 1 - np.array(shares)], axis=1)
    margins = (probabilities[:, 0] - probabilities[:, 1]).astype(np.float32)
    return Predictions(
        np.arange(count), classes, probabilities, margins, -margins, num_unreadable=2
    )


def write(path, first, shares, labels):
    write_prediction_page(
        path,
        predictions_of(first, shares),
        source=Photos(len(first)),
        class_names=NAMES,
        labels=np.array(labels),
        made_by="weights",
    )
    page = path.read_text()
    rows = page.split('<div class="gallery-row"')[1:]
    found = []
    for row in rows:
        titles = re.findall(r'<span class="title">of/<wbr>(\d+)\.jpg', row)
        note = html.unescape(re.findall(r'<p class="row-score">(.*?)</p>', row)[-1])
        found.append((note, [int(number) for number in titles]))
    return page, found


def test_doubt_and_mix_ups_order_the_page(tmp_path):
    first, shares = [0, 0, 0, 1, 1, 2], [0.9, 0.6, 0.7, 0.55, 0.99, 0.8]
    labels = [0, 1, 1, 1, -1, -1]
    page, rows = write(tmp_path / "report.html", first, shares, labels)
    assert rows == [
        # The surest mix-up is the first.
        ("2 photos of the folder <b>ee look like ant", [2, 1]),
        ("<b>ee: 2 photos, 1 of them in a folder of this name", [3, 4]),
        ("ant: 3 photos, 1 of them in a folder of this name", [1, 2, 0]),
        ("cow: 1 photo", [5]),
    ]
    assert "6 photos, 3 classes, by weights; 2 photos could not be read" in page
    assert "ant 60%, &lt;b&gt;ee 40%" in page and "<b>ee" not in page
    assert '<figure class="item wrong"' in page and '<figure class="item right"' in page
    assert "most doubtful first</option>" in page
    assert "Folders and predicted classes" in page


def test_without_folders_there_is_nothing_to_agree_with(tmp_path):
    page, rows = write(tmp_path / "report.html", [2, 2], [0.6, 0.7], [-1, -1])
    assert rows == [("cow: 2 photos", [0, 1])]
    assert "accuracy" not in page and "Folders and predicted" not in page


def test_of_many_photos_of_a_class_some_are_shown(tmp_path):
    shares = np.linspace(0.5, 1, 40)[::-1]
    _, rows = write(tmp_path / "report.html", [1] * 40, shares, [-1] * 40)
    assert rows == [("<b>ee: 40 photos; shown are 12", list(range(39, 27, -1)))]

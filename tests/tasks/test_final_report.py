"""The report at the end of a training, of photos that a fake model has embedded."""

import numpy as np
import pytest
from helpers.photos import plain_photo

from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.mesh import make_mesh
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.tasks import final_report
from multigrain_jax.tasks.final_report import copy_query_indices, evaluate_and_report


class Greys(ImageSource):
    """A photo of each grey, the last one broken; of two classes, or of none."""

    class_names = ("dark", "light")
    apply_exif_orientation = False

    def __init__(self, labels):
        self.labels = np.array(labels, np.int32)

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        return b"" if index == len(self) - 1 else plain_photo(40 * index, kind="PNG")

    def describe(self, index):
        return f"{index}.png"


def embed_greys(source, *, batch_size, **options):
    """Each photo is like no other, and taken for a dark one."""
    del options
    assert batch_size == 4  # as the caller says
    count = len(source)
    return Embedded(
        np.eye(count, 8, dtype=np.float32),
        np.tile(np.float32([1, 0]), (count, 1)),
        source.labels,
        np.arange(count) == 4,
    )


def report(source, workdir, monkeypatch):
    monkeypatch.setattr(final_report, "make_embed_step", lambda *_, **__: None)
    monkeypatch.setattr(final_report, "embed_source", embed_greys)
    return evaluate_and_report(
        None,
        None,
        source,
        split="val",
        backbone=BACKBONES["tiny"],
        test_size=32,
        test_mode="square",
        batch_size=4,
        reading=Reading(0, 2, 60.0),
        mesh=make_mesh(1),
        workdir=workdir,
    )


def test_scores_are_printed_and_the_page_and_bad_files_written(
    tmp_path, monkeypatch, capsys
):
    found = report(Greys([0, 0, 1, 1, 0]), tmp_path, monkeypatch)
    assert list(found)[:4] == ["val/top1", "val/top5", "val/class_map", "val/knn_top1"]
    assert found["val/top1"] == 2 / 5  # the broken one is wrong
    assert found["val/copy_recall_at_1"] == found["val/copy_map"] == 1
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in found)
    assert "light" in (tmp_path / "report.html").read_text()
    (line,) = (tmp_path / "skipped.txt").read_text().splitlines()
    assert line.startswith("4.png: ")


def test_photos_without_labels_are_asked_for_their_copies_alone(tmp_path, monkeypatch):
    found = report(Greys([-1] * 5), tmp_path, monkeypatch)
    assert {name.split("_")[0] for name in found} == {"val/copy"}


@pytest.mark.parametrize(("count", "queries"), [(1, 1), (200, 200), (1000, 200)])
def test_copies_are_made_of_photos_from_all_over_the_set(count, queries):
    indices = copy_query_indices(count)
    assert len(set(indices.tolist())) == queries
    assert (indices[0], indices[-1]) == (0, count - 1)
    assert np.ptp(np.diff(indices)) <= 1 if queries > 1 else True

"""The report at the end of a training, of photos that a fake model has embedded."""

import numpy as np
import pytest
from helpers.descriptors import read_table
from helpers.photos import plain_photo

from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import Embedded, EmbeddedBatch
from multigrain_jax.mesh import make_mesh
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.tasks import final_report
from multigrain_jax.tasks.final_report import copy_query_indices, evaluate_and_report


class Greys(ImageSource):
    """A photo of each grey, the last one broken; of two classes, or of none."""

    class_names = ("dark", "light")
    decoding = PLAIN

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


def report(source, workdir, monkeypatch, *, embed=embed_greys, train=None):
    monkeypatch.setattr(final_report, "make_embed_step", lambda *_, **__: None)
    monkeypatch.setattr(final_report, "embed_source", embed)
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
        train=train,
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
    assert "val/top1                    0.400  right class\n" in printed
    assert "light" in (tmp_path / "report.html").read_text()
    (line,) = (tmp_path / "skipped.txt").read_text().splitlines()
    assert line.startswith("4.png: ")


def test_photos_alone_in_their_class_are_left_out_and_counted(
    tmp_path, monkeypatch, capsys
):
    found = report(Greys([0, 0, 1, 0, 0]), tmp_path, monkeypatch)
    assert {"val/class_map", "val/knn_top1"} <= found.keys()
    assert "val: 1 of 5 photos are alone in their class" in capsys.readouterr().out
    found = report(Greys([0, 1, -1, -1, -1]), tmp_path, monkeypatch)
    assert not {"val/class_map", "val/knn_top1"} & found.keys()
    assert found["val/top1"] == 1 / 2
    assert "val: 2 of 2 photos are alone" in capsys.readouterr().out


def test_a_network_may_have_more_classes_than_the_photos(tmp_path, monkeypatch):
    def embed_among_five(source, **options):
        embedded = embed_greys(source, **options)
        return embedded._replace(logits=np.eye(5, dtype=np.float32)[[0, 4, 1, 2, 0]])

    found = report(
        Greys([0, 0, 1, 1, 0]), tmp_path, monkeypatch, embed=embed_among_five
    )
    assert found["val/top1"] == 2 / 5
    assert "class 4, unnamed" in (tmp_path / "report.html").read_text()


def test_where_no_photo_can_be_read_there_is_no_report(tmp_path, monkeypatch):
    def all_bad(source, **options):
        embedded = embed_greys(source, **options)
        return embedded._replace(bad=np.ones(len(source), bool))

    with pytest.raises(InputError, match=r"none of the 3 photos of 'val' could be"):
        report(Greys([0, 0, 1]), tmp_path, monkeypatch, embed=all_bad)
    assert not (tmp_path / "report.html").exists()


def test_photos_without_labels_are_asked_for_their_copies_alone(tmp_path, monkeypatch):
    found = report(Greys([-1] * 5), tmp_path, monkeypatch)
    assert {name.split("_")[0] for name in found} == {"val/copy"}


def test_photos_with_a_near_duplicate_in_training_are_counted(
    tmp_path, monkeypatch, capsys
):
    def embed_train(source, *, batch_size, **options):
        """Of the second photo a copy, of the third one what is less similar."""
        del options
        assert (len(source), batch_size) == (3, 4)
        descriptors = np.zeros((3, 8), np.float32)
        descriptors[[0, 1, 2], [7, 2, 1]] = 1, 0.99, 1
        for numbers in ([2], [0, 1]):
            yield EmbeddedBatch(
                np.array(numbers),
                descriptors[numbers],
                descriptors[numbers],
                None,
                source.labels[numbers],
                np.zeros(len(numbers), bool),
            )

    monkeypatch.setattr(final_report, "embed_source_batches", embed_train)
    val = Greys([0, 0, 1, 1, 0])
    found = report(val, tmp_path, monkeypatch, train=Greys([0, 0, 1]))
    # Of four that can be read; the threshold is that of copies.
    assert found["val/copy_threshold_at_p90"] == 1
    assert found["val/leaks"] == 1 / 4
    said = capsys.readouterr().out
    assert "1 photos of val have a near duplicate in train" in said
    (row,) = read_table(tmp_path / "leaks.csv")
    assert (row["path"], row["train_path"]) == ("1.png", "2.png")
    assert float(row["similarity"]) == 1
    assert "(leaks.csv)" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("count", "queries"), [(1, 1), (200, 200), (1000, 200)])
def test_copies_are_made_of_photos_from_all_over_the_set(count, queries):
    indices = copy_query_indices(count)
    assert len(set(indices.tolist())) == queries
    assert (indices[0], indices[-1]) == (0, count - 1)
    assert np.ptp(np.diff(indices)) <= 1 if queries > 1 else True

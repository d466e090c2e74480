"""All benchmarks alike: what their loaders refuse, and scores by plain loops."""

import dataclasses

import numpy as np
import pytest
from helpers.rankings import loop_ap, loop_in_four, rankings, scores_of

from multigrain_jax.data.benchmarks import (
    BENCHMARKS,
    BenchmarkFiles,
    load_benchmark,
)
from multigrain_jax.errors import InputError

# Made of one's own photos.
OWN = {"copies", "folder"}


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - OWN))
def test_an_absent_benchmark_says_where_it_comes_from(name, tmp_path):
    with pytest.raises(InputError, match=r"nothing is downloaded, .* page"):
        load_benchmark(name, BenchmarkFiles(tmp_path / "nowhere"), expected_counts={})


# benchmark, the removed file, what the message says
MISSING = [
    ("holidays", "jpg/100001.jpg", r"found 6 .* expected 7 \(missing: 1: 100001.jpg\)"),
    ("holidays", "jpg/100100.jpg", r"groups: found 2 .* expected 3 .*100100.jpg"),
    ("holidays", "jpg/100002.jpg", r"images: found 6 .* expected 7; nothing"),
    ("ukbench", "full/ukbench00006.jpg", r"1 of 8 files .*: ukbench00006.jpg"),
    ("copydays", "crops/30/200100.jpg", r"crop: 1 of 27 .*/crops: 30/200100.jpg"),
    ("copydays", "strong/200002.jpg", r"strong: found 2 .* expected 3"),
    ("copydays", "original/200000.jpg", r"originals: found 2 .*: 200000.jpg"),
    ("roxford5k", "jpg/b_2.jpg", r"1 of 9 files .*: b_2.jpg"),
    ("roxford5k", "gnd_roxford5k.pkl", r"no ground truth .* revisitop"),
    ("disc21", "queries/Q00000.jpg", r"queries: 1 files .*: Q00000.jpg"),
    ("disc21", "references/R000003.jpg", r"references: 1 files .*: R000003.jpg"),
    ("disc21", "references/R000004.jpg", r"found 4 .* \(missing: 1: R000004.jpg\)"),
    ("disc21", "train/T000001.jpg", r"training: found 2 .*: T000001.jpg"),
    ("disc21", "public_ground_truth.csv", r"no ground truth in .* Challenge 2021"),
]


@pytest.mark.parametrize(("name", "file", "message"), MISSING)
def test_missing_files_are_named(makers, tmp_path, name, file, message):
    files, counts = makers[name](tmp_path)
    load_benchmark(name, files, expected_counts=counts)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=message):
        load_benchmark(name, files, expected_counts=counts)


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - OWN))
def test_a_smaller_copy_is_refused_unless_its_counts_are_given(makers, tmp_path, name):
    files, counts = makers["roxford5k" if name == "rparis6k" else name](tmp_path)
    if name == "rparis6k":
        (tmp_path / "gnd_roxford5k.pkl").rename(tmp_path / "gnd_rparis6k.pkl")
    load_benchmark(name, files, expected_counts=counts)
    with pytest.raises(InputError, match=r"expected [\d]{3}|of 10200 files"):
        load_benchmark(name, files, expected_counts={})
    for what in counts:
        one_less = {**counts, what: counts[what] - (4 if name == "ukbench" else 1)}
        if name == "ukbench":
            # More photos than it has: the others are no part of it.
            assert len(load_benchmark(name, files, expected_counts=one_less).paths) == 4
            continue
        with pytest.raises(InputError, match="expected"):
            load_benchmark(name, files, expected_counts=one_less)


def test_unknown_names_are_refused(makers, tmp_path):
    files, counts = makers["holidays"](tmp_path)
    with pytest.raises(InputError, match="found 'holiday', expected one of holidays"):
        load_benchmark("holiday", files, expected_counts=counts)
    with pytest.raises(InputError, match="expected_counts has photos"):
        load_benchmark("holidays", files, expected_counts={"photos": 7})
    training = dataclasses.replace(files, training=tmp_path)
    with pytest.raises(InputError, match=r"files has training, .* expected rotations"):
        load_benchmark("holidays", training, expected_counts=counts)


def test_folder_photos_are_turned_as_exif_says_and_no_other(makers, tmp_path):
    for name, maker in makers.items():
        files, counts = maker(tmp_path / name)
        benchmark = load_benchmark(name, files, expected_counts=counts)
        upright = benchmark.apply_exif_orientation
        assert upright == (name == "folder")


def by_number(query, image):
    return query.split("/")[-1][:4] == image.split("/")[-1][:4]


def by_object(query, image):
    return query.split("/")[0] == image.split("/")[0]


def by_four(query, image):
    return int(query[-9:-4]) // 4 == int(image[-9:-4]) // 4


# benchmark, protocol, which queries, what is right, is the query itself junk
GROUPED = [
    ("holidays", "all", lambda q: q.endswith("00.jpg"), by_number, True),
    ("ukbench", "", lambda q: True, by_four, False),
    ("copydays", "crop", lambda q: q.startswith("crops"), by_number, False),
    ("copydays", "jpeg", lambda q: q.startswith("jpegqual"), by_number, False),
    ("copydays", "strong", lambda q: q.startswith("strong"), by_number, False),
    ("copydays", "all", lambda q: not q.startswith("original"), by_number, False),
    ("folder", "all", lambda q: q[:3] in ("cup", "dog"), by_object, True),
]


@pytest.mark.parametrize(("name", "protocol", "asks", "right", "itself"), GROUPED)
def test_groups_score_as_plain_loops_do(load, name, protocol, asks, right, itself):
    benchmark = load(name)
    queries = [benchmark.image_name(int(i)) for i in benchmark.queries]
    images = [benchmark.image_name(int(i)) for i in benchmark.database]
    relevant = np.array([[right(q, i) for i in images] for q in queries])
    junk = np.array([[itself and q == i for i in images] for q in queries])
    taking_part = [n for n, query in enumerate(queries) if asks(query)]
    assert taking_part
    plain = loop_in_four if name == "ukbench" else loop_ap
    metric = "score" if name == "ukbench" else f"{protocol}/map"
    found = {}
    for kind, similarity in rankings(relevant.astype(float)).items():
        similarity = similarity.astype(np.float32)
        expected = [plain(similarity[n], relevant[n], junk[n]) for n in taking_part]
        scores = scores_of(benchmark, similarity)
        found[kind] = scores[f"{name}/{metric}"]
        assert found[kind] == pytest.approx(np.mean(expected), abs=1e-6)
        if kind == "perfect" and name in ("copydays", "folder"):
            right = similarity[taking_part][(relevant & ~junk)[taking_part]]
            assert scores[f"{name}/{protocol}/recall_at_p90"] == 1
            assert scores[f"{name}/{protocol}/threshold_at_p90"] == right.min()
    assert found["perfect"] == (4 if name == "ukbench" else 1)
    assert found["reversed"] < found["random"] < found["perfect"]

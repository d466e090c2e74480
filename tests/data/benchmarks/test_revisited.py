"""Revisited Oxford and Paris: what is cut, what is refused, and its protocols."""

import pickle

import numpy as np
import pytest
from helpers.rankings import loop_ap, rankings, scores_of

from multigrain_jax.data.benchmarks import BenchmarkSource, load_benchmark
from multigrain_jax.data.decoding import PLAIN, encoded_size
from multigrain_jax.data.reading import read_image
from multigrain_jax.errors import InputError


def test_roxford_queries_are_cut_and_database_images_are_not(makers, tmp_path, picture):
    files, counts = makers["roxford5k"](tmp_path)
    for file in (tmp_path / "jpg").iterdir():
        picture.save(file, "JPEG", quality=95)
    benchmark = load_benchmark("roxford5k", files, expected_counts=counts)
    source = BenchmarkSource(benchmark, PLAIN)
    whole = np.asarray(read_image(source, 0))
    assert whole.shape == (8, 12, 3)
    query = int(benchmark.queries[0])
    np.testing.assert_array_equal(read_image(source, query), whole[1:7, 2:10])
    with source.open(query) as file:
        assert encoded_size(file, PLAIN) == (8, 6)
    with source.open(0) as file:
        assert encoded_size(file, PLAIN) == (12, 8)


# A few hundred bytes, of which NumPy would make an array of 2^60 numbers.
SHARED_LISTS = [1.0]
for _ in range(60):
    SHARED_LISTS = [SHARED_LISTS, SHARED_LISTS]
ENTRY = {"bbx": [0, 0, 5, 5], "easy": [], "hard": [], "junk": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"easy": [6]}, r"easy names the images \[6.0\], .* from 0 to 5; take the"),
        ({"junk": [-1]}, r"junk names the images \[-1.0\]"),
        ({"hard": [1, 0.5]}, r"hard names the images \[0.5\]"),
        ({"bbx": [5, 0, 1, 5]}, "expected left, top, right and bottom"),
        ({"bbx": "abcd"}, "without the numbers 'bbx'"),
        ({"easy": {"a": 1}}, "without the numbers 'easy'"),
        ({"easy": [[0], [1]]}, "without the numbers 'easy'"),
        ({"easy": SHARED_LISTS}, "without the numbers 'easy'"),
        ({"junk": [10**400]}, "without the numbers 'junk' .*too large"),
    ],
)
def test_a_strange_ground_truth_is_refused(makers, tmp_path, change, message):
    truth = [ENTRY, ENTRY, {**ENTRY, **change}]
    files, counts = makers["roxford5k"](tmp_path)
    content = pickle.loads((tmp_path / "gnd_roxford5k.pkl").read_bytes())
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(
        pickle.dumps({**content, "gnd": truth})
    )
    with pytest.raises(InputError, match=message):
        load_benchmark("roxford5k", files, expected_counts=counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gnd": [ENTRY]}, "1 entries of gnd for 3 queries"),
        ({"qimlist": ["../q0", "q1", "q2"]}, "1 image names with a folder"),
        ({"imlist": None}, "imlist is no list of str"),
    ],
)
def test_strange_lists_are_refused(makers, tmp_path, change, message):
    files, counts = makers["roxford5k"](tmp_path)
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), **change}))
    with pytest.raises(InputError, match=message):
        load_benchmark("roxford5k", files, expected_counts=counts)


def roxford_lists(row, protocol):
    easy, hard, junk = (set(row[key]) for key in ("easy", "hard", "junk"))
    return {
        "easy": (easy, junk | hard),
        "medium": (easy | hard, junk),
        "hard": (hard, junk | easy),
    }[protocol]


def loop_precision(row, positive, junk, k):
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    order = [image for image in order if not junk[image]]
    last = max(rank for rank, image in enumerate(order) if positive[image]) + 1
    k = min(k, last)
    return sum(positive[image] for image in order[:k]) / k


@pytest.mark.parametrize("protocol", ["easy", "medium", "hard"])
def test_roxford_scores_as_plain_loops_do(load, roxford_truth, protocol):
    benchmark = load("roxford5k")
    positive, junk = np.zeros((2, 3, 6), bool)
    for query, row in enumerate(roxford_truth):
        lists = roxford_lists(row, protocol)
        positive[query, list(lists[0])], junk[query, list(lists[1])] = True, True
    counted = [n for n in range(3) if positive[n].any()]
    # The third query has nothing to find; the second nothing hard.
    assert len(counted) == (1 if protocol == "hard" else 2)
    for kind, similarity in rankings(positive.astype(float)).items():
        similarity = similarity.astype(np.float32)
        found = scores_of(benchmark, similarity)
        rows = [(similarity[n], positive[n], junk[n]) for n in counted]
        expected = {"map": np.mean([loop_ap(*row) for row in rows])}
        for k in (1, 5, 10):
            precisions = [loop_precision(*row, k) for row in rows]
            expected[f"mp_at_{k}"] = np.mean(precisions)
        for metric, value in expected.items():
            name = f"roxford5k/{protocol}/{metric}"
            assert found[name] == pytest.approx(value, abs=1e-6), (kind, name)
        if kind == "perfect":
            assert set(expected.values()) == {1}

"""Each protocol on a tiny copy of its folders, with scores worked by plain loops."""

import numpy as np
import pytest

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.retrieval import evaluate_retrieval


@pytest.fixture
def load(makers, tmp_path):
    def load_one(name, **how):
        files, counts = makers[name](tmp_path / name, **how)
        return load_benchmark(name, files, expected_counts=counts)

    return load_one


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


def loop_ap(row, positive, junk):
    """Trapezoid average precision, walking down one ranking."""
    total = int(np.sum(positive & ~junk))
    score, found, rank = 0.0, 0, 0
    for image in sorted(range(len(row)), key=lambda i: (-row[i], i)):
        if junk[image]:
            continue
        if positive[image]:
            before = found / rank if rank else 1.0
            found += 1
            score += (before + found / (rank + 1)) / 2 / total
        rank += 1
    return score


def loop_in_four(row, positive, junk):
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return float(sum(positive[image] for image in order[:4]))


def rankings(relevant):
    """Similarities that rank perfectly, in reverse, and at random with ties."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 0.5, relevant.shape[1])
    return {
        "perfect": relevant - slope,
        "reversed": -relevant - slope,
        "random": rng.integers(1, 4, relevant.shape) / 4,
    }


def scores_of(benchmark, similarity, **more):
    """The benchmark's scores where inner products give exactly these similarities."""
    images = np.eye(similarity.shape[1], dtype=np.float32)
    options = {
        "training": None,
        "normalization_weight": 2.0,
        "normalization_neighbours": 10,
    }
    return evaluate_retrieval(
        benchmark, similarity.astype(np.float32), images, **(options | more)
    ).results


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


def test_holidays_by_hand(load):
    # The first group's others at ranks 0 and 2 (behind one stranger), itself ahead.
    similarity = np.zeros((3, 7))
    similarity[0] = [9, 8, 6, 7, 0, 0, 0]
    similarity[1] = [0, 0, 0, 9, 8, 0, 0]
    similarity[2] = [0, 0, 0, 0, 0, 9, 8]
    first = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    found = scores_of(load("holidays"), similarity)
    assert found == {"holidays/all/map": pytest.approx((first + 2) / 3)}


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


def test_disc21_scores_as_plain_loops_do(load):
    benchmark = load("disc21")
    relevant = np.zeros((4, 5))
    relevant[1, 3] = relevant[2, 1] = 1
    training = np.eye(5, dtype=np.float32)[:3]
    for kind, similarity in rankings(relevant).items():
        similarity = similarity.astype(np.float32)
        found = scores_of(
            benchmark,
            similarity,
            training=training,
            normalization_neighbours=2,
            max_candidates=17,
        )
        for protocol in ("raw", "normalized"):
            scores = similarity.copy()
            if protocol == "normalized":
                for query in range(4):
                    two = sorted(similarity[query, :3])[-2:]
                    scores[query] -= np.float32(2) * np.float32(sum(two) / 2)
            pairs = [(scores[q, r], q, r) for q in range(4) for r in range(5)]
            pairs = sorted(pairs, key=lambda p: (-p[0], p[1], p[2]))[:17]
            pairs.sort(key=lambda p: (-p[0], relevant[p[1], p[2]]))
            hits, precision, recall, threshold = 0, 0.0, 0.0, None
            for rank, (score, query, reference) in enumerate(pairs):
                if relevant[query, reference]:
                    hits += 1
                    precision += hits / (rank + 1) / 2
                if hits / (rank + 1) >= 0.9:
                    recall = hits / 2
                    threshold = score if relevant[query, reference] else threshold
            name = f"disc21/{protocol}"
            assert found[f"{name}/micro_ap"] == pytest.approx(precision), kind
            assert found[f"{name}/recall_at_p90"] == pytest.approx(recall), kind
            assert found.get(f"{name}/threshold_at_p90") == threshold, kind
            assert kind != "perfect" or threshold is not None
    raw = load_benchmark(
        "disc21",
        BenchmarkFiles(benchmark.root),
        expected_counts={"queries": 4, "references": 5, "matches": 2},
    )
    assert list(scores_of(raw, relevant)) == [
        "disc21/raw/micro_ap",
        "disc21/raw/recall_at_p90",
        "disc21/raw/threshold_at_p90",
    ]


@pytest.mark.parametrize("originals", ["original", "."])
def test_copydays_has_two_spellings(load, originals):
    benchmark = load("copydays", crops="crop", jpegs="jpeg", originals=originals)
    assert len(benchmark.queries) == 18 * 3 + 3
    assert [len(p.queries) for p in benchmark.protocols] == [27, 27, 3, 57]


def test_copydays_distractors_join_the_database(makers, write_images, tmp_path):
    files, counts = makers["copydays"](tmp_path / "copydays")
    write_images(tmp_path / "flickr" / "a", ["1.jpg", "2.jpg"])
    write_images(tmp_path / "flickr" / "b", ["3.jpg"])
    (tmp_path / "list.txt").write_text("b/3.jpg\na/2.jpg\n")
    folder = BenchmarkFiles(files.root, distractors=tmp_path / "flickr")
    benchmark = load_benchmark(
        "copydays", folder, expected_counts={**counts, "distractors": 3}
    )
    assert len(benchmark.database) == 6
    listed = BenchmarkFiles(
        files.root,
        distractors=tmp_path / "flickr",
        distractor_list=tmp_path / "list.txt",
    )
    with pytest.raises(InputError, match=r"found 2 in .* expected 10000"):
        load_benchmark("copydays", listed, expected_counts=counts)
    two = {**counts, "distractors": 2}
    benchmark = load_benchmark("copydays", listed, expected_counts=two)
    names = [benchmark.paths[int(i)][-7:] for i in benchmark.database[3:]]
    assert names == ["b/3.jpg", "a/2.jpg"]
    (tmp_path / "flickr" / "b" / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 files .*: b/3.jpg"):
        load_benchmark("copydays", listed, expected_counts=two)

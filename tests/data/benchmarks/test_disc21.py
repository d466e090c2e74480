"""The Image Similarity Challenge: its lists, and its protocols by plain loops."""

import dataclasses

import numpy as np
import pytest
from helpers.rankings import rankings, scores_of

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.errors import InputError


def test_disc21_queries_are_those_of_the_ground_truth(makers, tmp_path):
    files, counts = makers["disc21"](tmp_path)
    truth = tmp_path / "only_matches.csv"
    truth.write_text("Q00002,R000001\nQ00001,R000003\n")
    chosen = dataclasses.replace(files, ground_truth=truth, training=None)
    benchmark = load_benchmark(
        "disc21", chosen, expected_counts={**counts, "queries": 2}
    )
    found = [benchmark.image_name(int(index)) for index in benchmark.queries]
    assert found == [f"queries/Q0000{n}.jpg" for n in (2, 1)]
    assert [list(p) for p in benchmark.protocols[0].positives] == [[1], [3]]
    assert list(benchmark.remarks) == []
    truth.write_text("Q00002,R000001,0.5\n")
    with pytest.raises(InputError, match=r"row 1: found .* take the file anew"):
        load_benchmark("disc21", chosen, expected_counts=counts)


def test_the_files_of_disc21_may_begin_with_a_byte_order_mark(makers, tmp_path):
    files, _ = makers["disc21"](tmp_path)
    contents = {
        "ground_truth": "query_id,reference_id\nQ00002,R000001\n",
        "query_list": "Q00002\n",
        "reference_list": "R000001\n",
    }
    for key, text in contents.items():
        (tmp_path / key).write_text(text, encoding="utf-8-sig")
    marked = dataclasses.replace(files, **{key: tmp_path / key for key in contents})
    benchmark = load_benchmark("disc21", marked, expected_counts={"training": 3})
    assert [list(p) for p in benchmark.protocols[0].positives] == [[0]]


def test_disc21_queries_are_those_of_a_list_alone_where_one_is_given(makers, tmp_path):
    files, counts = makers["disc21"](tmp_path)
    truth, names = tmp_path / "larger.csv", tmp_path / "queries.txt"
    # Q00009 has no photo, which nobody asks for.
    truth.write_text("Q00002,R000001\nQ00001,R000003\nQ00000,\nQ00009,R000002\n")
    names.write_text("Q00003.jpg\nQ00001\nQ00003\n")
    chosen = dataclasses.replace(files, ground_truth=truth, query_list=names)
    expected = {**counts, "queries": 2, "matches": 1}
    benchmark = load_benchmark("disc21", chosen, expected_counts=expected)
    found = [benchmark.image_name(int(index)) for index in benchmark.queries]
    assert found == ["queries/Q00003.jpg", "queries/Q00001.jpg"]
    for protocol in benchmark.protocols:
        assert [list(p) for p in protocol.positives] == [[], [3]]
    assert list(benchmark.remarks) == [
        f"{truth}: passed over 2 of 3 pairs, whose query is not in {names} "
        "(data.query_list)"
    ]
    with pytest.raises(InputError, match=r"queries: found 2 in .*queries.txt, expec"):
        load_benchmark("disc21", chosen, expected_counts=counts)
    names.write_text("Q00003\n")
    message = r"data.ground_truth: found none of the 3 pairs .* in data.query_list, ex"
    with pytest.raises(InputError, match=message):
        load_benchmark("disc21", chosen, expected_counts=expected)


def test_disc21_takes_a_subset_by_its_lists(makers, tmp_path):
    files, _ = makers["disc21"](tmp_path)
    truth, lists = tmp_path / "subset_ground_truth.csv", tmp_path / "lists"
    truth.write_text("Q00002,R000001\n")
    lists.mkdir()
    (lists / "queries").write_text("Q00002\nQ00003\n")
    (lists / "references").write_text("R000004\nR000001\n")
    chosen = dataclasses.replace(
        files,
        ground_truth=truth,
        query_list=lists / "queries",
        reference_list=lists / "references",
    )
    benchmark = load_benchmark("disc21", chosen, expected_counts={"training": 3})
    images = [benchmark.image_name(int(index)) for index in benchmark.database]
    assert images == ["references/R000001.jpg", "references/R000004.jpg"]
    found = [benchmark.image_name(int(index)) for index in benchmark.queries]
    assert found == ["queries/Q00002.jpg", "queries/Q00003.jpg"]
    assert [list(p) for p in benchmark.protocols[0].positives] == [[0], []]
    assert list(benchmark.remarks) == []
    # What a list names is there, and pairs with what it does not name are passed over.
    (lists / "references").write_text("R000001\nR000009\n")
    with pytest.raises(InputError, match=r"references: 1 files .*: R000009.jpg"):
        load_benchmark("disc21", chosen, expected_counts={"training": 3})
    (lists / "references").write_text("R000004\n")
    message = r"found none of the 1 pairs .* in data.query_list and data.reference_list"
    with pytest.raises(InputError, match=message):
        load_benchmark("disc21", chosen, expected_counts={"training": 3})
    # Of a larger ground truth the same is left as of the subset's own.
    (lists / "references").write_text("R000004\nR000001\n")
    truth.write_text("Q00001,R000001\nQ00002,R000001\nQ00003,R000003\nQ00000,\n")
    larger = load_benchmark("disc21", chosen, expected_counts={"training": 3})
    assert larger.paths == benchmark.paths
    for mine, whole in zip(benchmark.protocols, larger.protocols, strict=True):
        assert list(map(list, whole.positives)) == list(map(list, mine.positives))
    first, second = larger.remarks
    assert "passed over 1 of 3 pairs, whose query is not in" in first
    assert second.endswith(
        f"passed over 1 of 3 pairs, whose reference is not in {lists / 'references'} "
        "(data.reference_list)"
    )
    gone = dataclasses.replace(chosen, reference_list=tmp_path / "gone")
    with pytest.raises(InputError, match=r"reference_list .*gone: cannot be read"):
        load_benchmark("disc21", gone, expected_counts={"training": 3})


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
                    second = sorted(similarity[query, :3])[-2]
                    scores[query] -= np.float32(2) * second
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
            ranks = [
                sum(q == query and s >= score for s, q, _ in pairs) - 1
                for score, query, reference in pairs
                if relevant[query, reference]
            ]
            name = f"disc21/{protocol}"
            for k in (1, 10):
                share = sum(rank < k for rank in ranks) / 2
                assert found[f"{name}/recall_at_{k}"] == share, kind
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
        "disc21/raw/recall_at_1",
        "disc21/raw/recall_at_10",
    ]

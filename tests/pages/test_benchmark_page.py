"""The page of a benchmark shows its scores, and who found what."""

import re

import numpy as np
from PIL import Image

from multigrain_jax.data.benchmarks import Benchmark, Protocol
from multigrain_jax.evaluation.retrieval import (
    OVER_ALL,
    PER_QUERY,
    evaluate_retrieval,
)
from multigrain_jax.pages.benchmark_page import METRICS, write_benchmark_page


def tiny_benchmark(tmp_path):
    for number in range(5):
        Image.new("RGB", (30, 20), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    everything = np.arange(5)
    protocols = [
        Protocol(
            name,
            ("map", "mp_at_1"),
            np.array([0, 1]),
            [np.array(positives), np.array([0])],
            [np.array([0]), np.array([1])],
        )
        for name, positives in (("easy", [3]), ("hard", [1, 2]))
    ]
    return Benchmark(
        "tiny",
        tmp_path,
        [str(tmp_path / f"{number}.png") for number in range(5)],
        everything,
        everything,
        protocols,
    )


def test_the_page_shows_scores_and_verdicts(tmp_path):
    benchmark = tiny_benchmark(tmp_path)
    # Seen from 0: itself, 1, 2, 3; 4 could not be read.
    angles = np.array([0, 0.1, 0.2, 0.3, 0.4])
    descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    descriptors[4] = 0
    scores = evaluate_retrieval(
        benchmark,
        descriptors,
        descriptors,
        training=None,
        normalization_weight=2.0,
        normalization_neighbours=10,
    )
    write_benchmark_page(
        tmp_path / "report.html",
        benchmark,
        descriptors,
        descriptors,
        scores,
        subtitle="a model",
        circumstances=["they are lowered: by the <weather>"],
    )
    page = (tmp_path / "report.html").read_text()
    rows = page.split('<div class="gallery-row"')[1:]
    assert len(rows) == 4
    (row,) = [row for row in rows if 'aria-label="0.png (easy)"' in row]
    texts = re.findall(r'class="(?:title|badge)">([^<]+)<', row)
    assert texts == [
        *("0.png (easy)", "query"),
        *("0.png", "– ignored"),
        *("1.png", "✗ wrong"),
        *("2.png", "✗ wrong"),
        *("3.png", "✓ right"),
    ]
    for name, value in scores.results.items():
        assert f'<code class="identifier">{name}</code>' in page
        assert METRICS[name.split("/")[-1]].title in page
        assert f"{value:.3f}" in page
    assert "Shown are 4 of 4 queries." in page
    assert "They are lowered: by the &lt;weather&gt;." in page

    assert re.findall('class="rank">([^<]+)<', row) == ["1", "2", "3"]


def test_a_query_that_could_not_be_read_is_at_the_end(tmp_path):
    for number in range(3):
        Image.new("RGB", (30, 20), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    everything = np.arange(3)
    protocol = Protocol(
        "",
        ("map",),
        everything,
        [np.array([1]), np.array([2]), np.array([0])],
        [np.array([n]) for n in range(3)],
    )
    benchmark = Benchmark("tiny", tmp_path, paths, everything, everything, [protocol])
    descriptors = np.array([[0, 0], [1, 0], [1, 0.1]], np.float32)
    scores = evaluate_retrieval(
        benchmark,
        descriptors,
        descriptors,
        training=None,
        normalization_weight=2.0,
        normalization_neighbours=10,
    )
    path = tmp_path / "report.html"
    write_benchmark_page(
        path,
        benchmark,
        descriptors,
        descriptors,
        scores,
        subtitle="a model",
        circumstances=[],
    )
    rows = path.read_text().split('<div class="gallery-row"')[1:]
    assert [row.split('aria-label="')[1][0] for row in rows] == ["2", "1", "0"]
    assert [">not readable: it was compared with nothing<" in row for row in rows] == [
        *(False, False, True)
    ]
    assert rows[-1].count("<figure") == 1


def test_every_metric_is_explained():
    assert METRICS.keys() == PER_QUERY.keys() | OVER_ALL.keys()

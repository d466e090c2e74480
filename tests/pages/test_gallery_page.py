"""The retrieval page, as text and in a browser."""

import html
import re
import subprocess
import urllib.parse
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import OPTIONS, find_chromium
from PIL import Image

from multigrain_jax.pages import gallery_page as retrieval_page
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.page import Result

HOSTILE = "<script>document.title='hacked'</script>\"'><img src=x onerror=alert(1)>"


def photo(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (150, 200, 3), np.uint8)
    return Image.fromarray(pixels)


def make_rows(names, average_precisions, *, neighbours=3):
    verdicts = ("right", "wrong", "ignored")
    return [
        GalleryRow(
            GalleryItem(partial(photo, number), name, None, "query"),
            [
                GalleryItem(
                    partial(photo, 100 + n), f"{name} {n}", 1 - n / 10, verdicts[n % 3]
                )
                for n in range(neighbours)
            ],
            average_precision,
        )
        for number, (name, average_precision) in enumerate(
            zip(names, average_precisions, strict=True)
        )
    ]


def write(path, names, average_precisions):
    known = average_precisions[0] is not None
    write_retrieval_page(
        path,
        title=f"Found {HOSTILE}",
        subtitle=HOSTILE,
        results=[Result(HOSTILE, 0.5)],
        average_precisions=np.array(average_precisions) if known else None,
        rows=make_rows(names, average_precisions),
    )
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Every tag, and the rows of the gallery with their text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if dict(attributes).get("class") == "gallery-row":
            self.rows.append((dict(attributes), []))

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1][1].append(data.strip())

    def visible(self):
        return [row["aria-label"] for row, _ in self.rows if "hidden" not in row]


def queries(page):
    """Names of the queries on a page, in their order."""
    return [row["aria-label"] for row, _ in Page(page).rows]


def test_the_worst_queries_come_first(tmp_path):
    names = ["apple", "pear", "plum"]
    page = write(tmp_path / "r.html", names, [0.5, 0.9, 0.1])
    assert queries(page) == ["plum", "apple", "pear"]
    assert "Shown are 3 of 3 queries." in page
    assert "histogram of average precision" in page


def test_without_average_precision_the_order_stays(tmp_path):
    page = write(tmp_path / "r.html", ["b", "c", "a"], [None] * 3)
    assert queries(page) == ["b", "c", "a"]
    assert re.findall('option value="([a-z]+)"', page)[0] == "listed"
    assert "average_precision" not in page.split("<script>")[0]
    assert "histogram" not in page


def test_of_too_many_queries_the_worst_and_the_best_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_page, "MAX_ROWS", 4)
    names = [f"q{n}" for n in range(10)]
    page = write(tmp_path / "r.html", names, [n / 10 for n in range(10)])
    assert queries(page) == ["q0", "q1", "q8", "q9"]
    assert "Shown are 4 of 10 queries, the worst and the best." in page


def test_of_too_many_queries_without_scores_some_of_all_parts_are_shown(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(retrieval_page, "MAX_ROWS", 5)
    page = write(tmp_path / "r.html", [f"q{n}" for n in range(41)], [None] * 41)
    assert queries(page) == ["q0", "q10", "q20", "q30", "q40"]
    assert "Shown are 5 of 41 queries, evenly spread." in page


def test_of_too_many_groups_the_first_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_page, "MAX_ROWS", 2)
    path = tmp_path / "r.html"
    rows = make_rows(["a", "b", "c"], [None] * 3)
    write_retrieval_page(path, title="t", results=[], rows=rows, rows_are="groups")
    assert queries(path.read_text()) == ["a", "b"]
    assert "Shown are 2 of 3 groups, the first." in path.read_text()


def test_a_page_stays_small_and_reads_only_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_page, "MAX_GALLERY_BYTES", 200_000)
    read = []

    def load(number):
        read.append(number)
        return photo(number)

    rows = [
        GalleryRow(GalleryItem(partial(load, n), f"q{n}", None, "query"), [], n / 500)
        for n in range(500)
    ]
    path = tmp_path / "r.html"
    write_retrieval_page(path, title="t", results=[], rows=rows)
    shown = len(queries(path.read_text()))
    assert 4 < shown < 50
    assert len(read) == shown + 1
    assert 150_000 < path.stat().st_size < 230_000


def test_further_rows_show_their_files_and_those_without_are_left_out(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(retrieval_page, "MAX_GALLERY_BYTES", 100_000)
    rows = [
        GalleryRow(
            GalleryItem(
                partial(photo, n), f"q{n}", None, "query", f"{tmp_path}/{n}.{suffix}"
            ),
            [],
        )
        for n, suffix in enumerate(["jpg", "jpg", "jpg", "jpg", "heic", "png"])
    ]
    path = tmp_path / "r.html"
    write_retrieval_page(path, title="t", results=[], rows=rows, rows_are="groups")
    page = path.read_text()
    held = page.count('src="data:image/jpeg')
    assert 0 < held < 4
    assert queries(page) == ["q0", "q1", "q2", "q3", "q5"]
    linked = [f"./{n}.{'png' if n == 5 else 'jpg'}" for n in (*range(held, 4), 5)]
    assert re.findall('<img src="([^d][^"]*)"', page) == linked
    assert "Shown are 5 of 6 groups, the first." in page
    assert f"This page holds the photos of {held};" in page


def test_queries_that_could_not_be_read_are_neither_worst_nor_best(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(retrieval_page, "MAX_ROWS", 5)
    names, scores = ["a", "b", "c", "d", "e"], [0.5, 0.0, 0.7, 0.0, 0.1]
    rows = make_rows(names, scores)
    for lost in (1, 3):
        rows[lost] = rows[lost]._replace(is_readable=False)
    path = tmp_path / "r.html"
    write_retrieval_page(path, title="t", results=[], rows=rows)
    assert queries(path.read_text()) == ["e", "a", "c", "b", "d"]
    monkeypatch.setattr(retrieval_page, "MAX_ROWS", 3)
    write_retrieval_page(path, title="t", results=[], rows=rows)
    assert queries(path.read_text()) == ["e", "a", "c"]


@pytest.mark.parametrize("rows_are", list(retrieval_page.NOTHING))
def test_a_page_without_rows_says_so(tmp_path, rows_are):
    path = tmp_path / "r.html"
    write_retrieval_page(path, title="t", results=[], rows=[], rows_are=rows_are)
    assert f">{retrieval_page.NOTHING[rows_are]}<" in path.read_text()
    assert "Shown are" not in path.read_text()


def test_names_from_outside_stay_text(tmp_path):
    page = write(tmp_path / "r.html", [HOSTILE, "x"], [0.5, 0.6])
    assert queries(page) == [HOSTILE, "x"]
    tags = Page(page).tags
    # The page's own script is the only one.
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [name for _, row in tags for name in row if name.startswith("on")]
    addresses = [row[n] for _, row in tags for n in ("src", "href") if n in row]
    assert len(addresses) == 1 + 2 * 4
    assert all(address.startswith("data:image/") for address in addresses)


def test_the_script_cannot_end_its_element():
    for name in ("gallery_page.js", "gallery.js"):
        file = Path(retrieval_page.__file__).with_name(name)
        assert "</" not in file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium():
    """A browser; without one the test is skipped, or fails where it must be there."""
    return find_chromium()


@pytest.fixture
def open_in_browser(chromium, tmp_path):
    """(path, fragment) -> the page's DOM after its script ran."""

    def dump(path, fragment):
        command = [
            *(chromium, "--headless", *OPTIONS),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"{path.as_uri()}#{fragment}",
        ]
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=120, encoding="utf-8"
        )
        return done.stdout

    return dump


def test_a_browser_filters_orders_and_shows_a_row(tmp_path, open_in_browser):
    names = ["green apple", "red apple", "pear", HOSTILE]
    path = tmp_path / "r.html"
    write(path, names, [0.5, 0.25, 0.75, 0.6])
    page = Page(open_in_browser(path, "filter=APPLE"))
    assert page.visible() == ["red apple", "green apple"]
    row, texts = page.rows[0]
    assert row["tabindex"] == "0"
    assert texts == [
        *("average precision", "0.250", "red apple", "query"),
        *("1", "red apple 0", "similarity 1.000", "✓ right"),
        *("2", "red apple 1", "similarity 0.900", "✗ wrong"),
        *("red apple 2", "similarity 0.800", "– ignored"),
    ]
    dom = open_in_browser(path, "order=best&filter=p%20e")
    assert Page(dom).visible() == ["pear", HOSTILE, "green apple", "red apple"]
    assert "4 of 4 queries" in dom
    # The hostile names neither ran nor became elements.
    assert "<title>hacked" not in dom
    assert [tag for tag, _ in Page(dom).tags].count("script") == 1


VIEWER = """
<script>
const all = [...document.querySelectorAll(".item")];
const viewer = document.querySelector("dialog.viewer");
const text = (selector) => viewer.querySelector(selector).textContent;
const press = (target, key) => target.dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const seen = [viewer.open];
all[1].querySelector("img").click();
seen.push(viewer.open, text(".title"), text(".path"),
  viewer.querySelector("a.file").getAttribute("href").split("/").pop());
press(viewer, "ArrowRight");
seen.push(text(".title"), viewer.querySelector("a.file").hidden);
viewer.querySelector("[name=previous]").click();
viewer.querySelector("[name=previous]").click();
seen.push(text(".title"), viewer.querySelector("[name=previous]").disabled);
viewer.querySelector("[name=close]").click();
seen.push(viewer.open);
all[2].focus();
press(all[2], "Enter");
seen.push(viewer.open, text(".said"));
document.title = seen.join("|");
</script></body>
"""


def test_a_click_or_enter_shows_a_photo_large(tmp_path, open_in_browser):
    file = tmp_path / "photos" / HOSTILE.replace("/", "")
    file.parent.mkdir()
    photo(0).save(file, format="PNG")
    rows = [
        GalleryRow(
            GalleryItem(partial(photo, 0), "first", None, "query"),
            [
                GalleryItem(partial(photo, 1), "near", 0.5, "found", str(file)),
                GalleryItem(lambda: None, "gone", 0.25, "found", "/gone.jpg"),
            ],
        )
    ]
    path = tmp_path / "w" / "r.html"
    path.parent.mkdir()
    write_retrieval_page(path, title="t", results=[], rows=rows)
    page = path.read_text()
    assert 'href="./../photos/' in page
    page = re.sub("; script-src '[^']+'", "; script-src 'unsafe-inline'", page)
    path.write_text(page.replace("</body>", VIEWER), encoding="utf-8")
    title = re.findall("<title>(.*)</title>", open_in_browser(path, ""))[0]
    expected = [
        *("false", "true", "near", str(file), urllib.parse.quote(file.name)),
        *("gone", "true", "first", "true", "false"),
        *("true", "This photo is not readable."),
    ]
    assert html.unescape(title) == "|".join(expected)


KEYS = """
<script>
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const where = () => document.activeElement.getAttribute("aria-label")
  ?? document.activeElement.getAttribute("name")
  ?? document.activeElement.querySelector(".title").textContent;
const seen = [];
for (const key of ["/", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight",
                   "ArrowLeft", "ArrowUp", "End", "Home", "ArrowUp"]) {
  press(key);
  seen.push(where());
}
document.title = seen.join("|");
</script></body>
"""


def test_the_keys_walk_through_the_gallery(tmp_path, open_in_browser):
    path = tmp_path / "r.html"
    page = write(path, ["a", "b", "c"], [0.1, 0.2, 0.3])
    # The test's own script needs the page's policy to be lifted.
    page = re.sub("; script-src '[^']+'", "; script-src 'unsafe-inline'", page)
    path.write_text(page.replace("</body>", KEYS), encoding="utf-8")
    dom = open_in_browser(path, "")
    title = re.findall("<title>(.*)</title>", dom)[0]
    assert title == "filter|a|b|b|b 0|b|a|c|a|filter"

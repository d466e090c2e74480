"""Reports are self-contained, escaped, and show the numbers that went in."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from multigrain_jax.pages.confusion import (
    Confusions,
    confused_pairs_section,
    confusion_section,
)
from multigrain_jax.pages.gallery import (
    GalleryItem,
    GalleryRow,
    gallery_body,
    render_row,
)
from multigrain_jax.pages.page import (
    Result,
    Section,
    figure_uri,
    figures_section,
    render_page,
    results_section,
    save_report,
)

HOSTILE = "<script>alert('1')</script> & \"quoted\""
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and visible text; checks that tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        # Where a title may be broken, its text goes on.
        self.feed(html.replace("<wbr>", ""))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


def picture():
    return Image.new("RGB", (40, 30), (200, 100, 50))


def figure():
    drawn = Figure(figsize=(2, 1))
    drawn.add_subplot().plot([0, 1], [1, 2])
    return drawn


def all_sections(text):
    confusions = Confusions(
        np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([3, 1, 2]), 2
    )
    query = GalleryItem(picture, text, None, "query")
    found = GalleryItem(lambda: None, text, 0.5, "wrong")
    return [
        results_section([Result(text, 0.5, text)], heading=text, note=text),
        figures_section({text: figure()}, heading=text, note=text),
        confusion_section(confusions, [text, text + "2"], heading=text, note=text),
        confused_pairs_section(confusions, [text, text + "2"], heading=text, note=text),
        Section(text, text, gallery_body([render_row(GalleryRow(query, [found]))])),
    ]


def test_everything_from_outside_is_escaped():
    sections = all_sections(HOSTILE)
    page = Page(render_page(title=HOSTILE, subtitle=HOSTILE, sections=sections))
    assert "script" not in page.tags
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    # 2 titles, subtitle, 5 headings, 5 notes, 2 in the table, 2 + 2 + 2 class names,
    # and 2 photos; all arrive as they were.
    assert sum(text.startswith(HOSTILE) for text in page.texts) == 23
    assert f"{HOSTILE} (query)" in page.values("alt")


def test_a_page_loads_nothing_from_elsewhere():
    html = render_page(title="t", subtitle="", sections=all_sections("a"))
    page = Page(html)
    sources = page.values("src") + page.values("href")
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", html)
    assert not re.search(r"url\(|@import", html)


def test_a_saved_report_is_the_rendered_page(tmp_path):
    sections = all_sections("β ✓")
    path = tmp_path / "report.html"
    path.write_text("an older one")
    with path.open() as reader:
        save_report(path, title="t", subtitle="s", sections=sections)
        assert reader.read() == "an older one"
    page = render_page(title="t", subtitle="s", sections=sections)
    assert path.read_text(encoding="utf-8") == page


def test_names_that_are_not_utf8_are_written(tmp_path):
    save_report(tmp_path / "r.html", title="a\udcffb", subtitle="", sections=[])
    assert "<h1>a?b</h1>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_script_is_allowed_by_its_digest_alone():
    page = render_page(title="t", subtitle="", sections=[], script="let a = 1 < 2;")
    assert "<script>let a = 1 < 2;</script>" in page
    digest = base64.b64encode(hashlib.sha256(b"let a = 1 < 2;").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "script" not in render_page(title="t", subtitle="", sections=[])


def test_results_show_value_floor_and_bar():
    results = [
        Result("top-1", 0.62349, "share of photos", floor=0.6),
        Result("score", 3.0, best=4.0),
    ]
    body = results_section(results).body
    texts = Page(body).texts
    assert texts == [
        *("Measure", "Score", "Floor"),
        *("top-1", "share of photos", "0.623", "0.600"),
        *("score", "3.000"),
    ]
    assert Page(body).values("style") == ["width:62.35%", "left:60.00%", "width:75.00%"]


def test_a_threshold_has_no_bar_and_an_identifier_words_before_it():
    body = results_section(
        [Result("at_p90", 0.8, best=None, title="A <threshold>")]
    ).body
    assert Page(body).texts == ["Measure", "Score", "A <threshold>", "at_p90", "0.800"]
    assert "track" not in body and Page(body).values("style") == []


def test_without_floors_there_is_no_column_of_floors():
    assert Page(results_section([Result("a", 0.5)]).body).texts == [
        *("Measure", "Score", "a", "0.500")
    ]


@pytest.mark.parametrize(
    ("value", "width"), [(-0.5, "0.00%"), (1.5, "100.00%"), (1.0, "100.00%")]
)
def test_a_bar_stays_within_its_track(value, width):
    (style,) = Page(results_section([Result("a", value)]).body).values("style")
    assert style == f"width:{width}"


def decode_uri(uri, media_type):
    prefix = f"data:{media_type};base64,"
    assert uri.startswith(prefix)
    return base64.b64decode(uri.removeprefix(prefix), validate=True)


def test_figures_are_reproducible_svg():
    assert 'width="200" height="100"' in figures_section({"a": figure()}).body
    svg = decode_uri(figure_uri(figure()), "image/svg+xml")
    assert svg.rstrip().endswith(b"</svg>")
    assert figure_uri(figure()) == figure_uri(figure())

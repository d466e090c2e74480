"""Pages in a browser: what can be found, what fits, what is not there any more."""

import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.pages import gallery_page
from multigrain_jax.pages.confusion import Confusions, confused_pairs_section
from multigrain_jax.pages.gallery import GalleryItem, GalleryRow
from multigrain_jax.pages.gallery_page import (
    gallery_script,
    gallery_section,
    write_retrieval_page,
)
from multigrain_jax.pages.page import (
    Result,
    figures_section,
    results_section,
    save_report,
)
from multigrain_jax.pages.plots import draw_distribution

LONG = "a_name_without_any_place_to_break_it_of_seventy_characters_or_even_more"
NUM_ROWS, NUM_HELD = 60, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of sixty queries, the photos of two of which it holds; and the photos."""
    base = tmp_path_factory.mktemp("base")
    folder = base / "photos" / "Été à Orléans"
    folder.mkdir(parents=True)
    photo = Image.new("RGB", (40, 30), (200, 100, 50))
    for number in range(NUM_ROWS):
        photo.save(folder / f"{LONG}{number}.png")

    def item(number, verdict):
        path = str(folder / f"{LONG}{number}.png")
        return GalleryItem(lambda: photo, f"IMG {number}", 0.5, verdict, path)

    rows = [
        GalleryRow(item(number, "query"), [item(n, "found") for n in range(5)])
        for number in range(NUM_ROWS)
    ]
    size = len(gallery_page.render_row(rows[0]))
    path = base / "w" / "report.html"
    path.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_page, "MAX_GALLERY_BYTES", size * (NUM_HELD + 0.5))
        write_retrieval_page(path, title=LONG, results=[], rows=rows, rows_are="groups")
    return SimpleNamespace(base=base, path=path)


@pytest.fixture
def open_page(browser):
    """(path, width, fragment) -> the page."""
    contexts = []

    def open_one(path, *, width=1400, fragment=""):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{path.as_uri()}#{fragment}")
        return page

    yield open_one
    for context in contexts:
        context.close()


def size_of(page):
    return page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )


def num_shown(page):
    return page.locator(".gallery-row:not([hidden])").count()


@pytest.mark.parametrize("width", [1400, 400])
def test_a_page_has_an_end_and_fits_the_screen(made, open_page, width):
    page = open_page(made.path, width=width)
    wide, high = size_of(page)
    assert wide == width
    assert 8000 < high <= 10_000
    before = num_shown(page)
    assert before < NUM_ROWS
    more = page.locator("button.more")
    assert more.inner_text() == (f"Show more groups: {before} of {NUM_ROWS} are shown")
    more.click()
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == f"IMG {before}"
    assert size_of(page)[1] <= 20_000
    while more.is_visible():
        more.click()
    assert num_shown(page) == NUM_ROWS
    # Another choice begins anew.
    page.locator("[name=order]").select_option("name")
    assert num_shown(page) == before
    page.set_viewport_size({"width": 1800 - width, "height": 900})
    page.wait_for_function(
        "shown => document.querySelectorAll('.gallery-row:not([hidden])').length"
        " !== shown",
        arg=before,
    )
    assert size_of(page)[0] == 1800 - width and size_of(page)[1] <= 10_000


def test_photos_have_one_size(made, open_page):
    page = open_page(made.path)
    sides = page.locator(".item img").evaluate_all(
        "all => all.filter(img => img.checkVisibility()).map(img => img.offsetWidth)"
    )
    assert len(sides) > 60 and max(sides) - min(sides) <= 1 and min(sides) > 160


def test_the_filter_knows_whole_paths_and_no_accents(made, open_page):
    page = open_page(made.path)
    nothing = page.locator(".nothing-found")
    for words, count in (
        ("ete a orleans", NUM_ROWS),
        ("ÉTÉ img 59", 1),
        (f"{LONG.upper()}41.PNG", 1),
        ("been nowhere", 0),
        ("e\u0301te\u0301", NUM_ROWS),
        ("nor there", 0),
    ):
        page.locator("[name=filter]").fill(words)
        assert page.locator("output").inner_text() == f"{count} of {NUM_ROWS} groups"
        assert nothing.is_visible() == (count == 0)
        assert page.locator("button.more").is_visible() == (count > 1)
    assert "Nothing found" in nothing.inner_text()
    nothing.locator("button").click()
    assert num_shown(page) > 1 and not nothing.is_visible()
    assert page.locator("[name=filter]").input_value() == ""


def test_further_photos_are_loaded_from_files_as_far_as_they_are_there(
    made, open_page, tmp_path
):
    last = f"IMG {NUM_ROWS - 1}"
    loaded = "img => img.complete && img.naturalWidth"
    page = open_page(made.path, fragment=f"filter={last}")
    query = page.locator(f'[aria-label="{last}"] .item').first
    query.locator("img").evaluate(f"async img => {{ await img.decode(); {loaded} }}")
    assert query.locator("img").evaluate(loaded) == 40
    # Moved without the photos, the page finds them where they were.
    moved = tmp_path / "else" / "where" / "report.html"
    moved.parent.mkdir(parents=True)
    shutil.copy(made.path, moved)
    page = open_page(moved, fragment=f"filter={last}")
    query = page.locator(f'[aria-label="{last}"] .item').first
    page.wait_for_function(
        'label => document.querySelector(`[aria-label="${label}"] img`)'
        ".naturalWidth === 40",
        arg=last,
    )
    assert query.locator("a.open").get_attribute("href").startswith("file:///")
    # And says so where they are gone.
    moved.write_text(made.path.read_text().replace(f"/{made.base.name}/", "/gone/"))
    page = open_page(moved, fragment=f"filter={last}")
    query = page.locator(f'[aria-label="{last}"] .item').first
    query.locator(".unreadable").wait_for()
    assert query.locator(".unreadable").inner_text() == "not where it was"
    held = page.locator('[aria-label="IMG 0"] .item').first
    assert held.locator("img").evaluate(loaded) == 40


@pytest.mark.parametrize("width", [1400, 400])
def test_tables_and_figures_fit_the_screen(open_page, tmp_path, width):
    names = [f"{LONG}_{number}" for number in range(3)]
    confusions = Confusions(np.arange(3), np.array([1, 2, 0]), np.array([3, 1, 2]), 3)
    photo = partial(Image.new, "RGB", (40, 30))
    row = GalleryRow(GalleryItem(photo, LONG, None, "query"), [], note=LONG)
    sections = [
        results_section([Result(LONG, 0.5, LONG, floor=0.25, title=LONG)]),
        gallery_section(
            [row], heading=LONG, note=LONG, rows_are="examples", folder=tmp_path
        ),
        confused_pairs_section(confusions, names),
        figures_section({"a": draw_distribution(np.array([0.5]))}, heading=LONG),
    ]
    path = tmp_path / "report.html"
    save_report(
        path, title=LONG, subtitle=LONG, sections=sections, script=gallery_script()
    )
    assert size_of(open_page(path, width=width))[0] == width


def test_groups_are_sorted(open_page, tmp_path):
    similarities = {"IMG 10": 0.1, "b": 0.5, "IMG 9": 0.5, "a": 0.9}
    rows = [
        GalleryRow(
            GalleryItem(lambda: None, name, None, "found"), [], similarity=similarity
        )
        for name, similarity in similarities.items()
    ]
    path = tmp_path / "r.html"
    write_retrieval_page(path, title="t", results=[], rows=rows, rows_are="groups")
    page = open_page(path, fragment="order=similar")
    for order, expected in (
        (None, ["a", "b", "IMG 9", "IMG 10"]),
        ("different", ["IMG 10", "b", "IMG 9", "a"]),
        ("name", ["a", "b", "IMG 9", "IMG 10"]),
        ("listed", ["IMG 10", "b", "IMG 9", "a"]),
    ):
        if order:
            page.locator("[name=order]").select_option(order)
        labels = page.locator(".gallery-row").evaluate_all(
            "all => all.map(row => row.getAttribute('aria-label'))"
        )
        assert labels == expected
    page = open_page(path, fragment="order=no order")
    assert page.locator("[name=order]").input_value() == "listed"

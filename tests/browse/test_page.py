"""The page in a real browser."""

import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.browsing import make_collection, opened_services
from helpers.served import serving
from playwright.sync_api import expect

from multigrain_jax.tasks.browse import open_review

SERIOUS = ("serious", "critical")


@pytest.fixture
def movable(tmp_path, tiny_checkpoint):
    """A server whose files may be moved: (client, made)."""
    made = make_collection(tmp_path / "own", tiny_checkpoint)
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    with opened_services(made, workdir) as services:
        review = open_review(services, workdir, lowest=0.5, allow_moves=True)
        with serving(services, review) as client:
            yield client, made


def require_accessible(page):
    found = Axe().run(page)
    bad = [v for v in found.response["violations"] if v["impact"] in SERIOUS]
    assert bad == [], [
        (v["id"], [node["html"][:200] for node in v["nodes"]]) for v in bad
    ]


def require_no_sideways_scroll(page):
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide == 0


def set_slider(page, selector, value):
    page.eval_on_selector(
        selector,
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }",
        value,
    )


def choose(page, path):
    page.set_input_files("#file", str(path))
    expect(page.locator("#search-status")).to_contain_text("searched in")


def review_duplicates(page, made):
    """Exact copies, one of them marked, listed, moved, and back."""
    expect(page.locator("#group-status")).to_have_text(re.compile(r"groups? of"))
    page.get_by_label("exact copies (same bytes)").check()
    expect(page.locator("#group-status")).to_have_text("1 group of 2 photos")
    page.get_by_role("button", name="away with copy.png").click()
    marked = page.locator('#groups li[data-mark="away"]')
    expect(marked).to_have_count(1)
    expect(page.locator("#mark-count")).to_have_text("0 to keep, 1 to go")
    require_accessible(page)
    with page.expect_download() as download:
        page.locator("#export-paths").click()
    listed = download.value.path().read_text()
    assert listed == f"{made.root}/copy.png\n"
    page.get_by_role("button", name="Move to trash").click()
    page.locator("#ask-yes").click()
    moved = "Moved to the trash: 1 file"
    expect(page.locator("#group-status")).to_have_text(moved)
    expect(page.locator("#groups .group")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("8 photos")
    assert not (made.root / "copy.png").exists()
    page.get_by_role("button", name="Restore 1 from trash").click()
    expect(page.locator("#group-status")).to_have_text("Brought back: 1 file")
    expect(page.locator("#groups li")).to_have_count(2)
    assert (made.root / "copy.png").exists()


@pytest.mark.slow
def test_from_a_photo_to_the_trash_and_back(movable, open_page, tmp_path):
    client, made = movable
    page = open_page(client)
    photo = tmp_path / "query.png"
    shutil.copy(made.root / "trip" / "sea" / "0.png", photo)

    # A photo in, its neighbours out, the most similar first.
    choose(page, photo)
    cards = page.locator("#same li, #similar li")
    expect(cards).to_have_count(9)
    first = page.locator("#same .photo").first
    expect(first).to_have_attribute(
        "aria-label", re.compile(r"^(copy|0)\.png, similarity 1\.000, enlarge$")
    )
    expect(page.locator("#classes li")).to_have_count(3)
    require_accessible(page)

    # The slider says which of them are the same photo.
    set_slider(page, "#search-threshold", "0")
    expect(page.locator("#same li")).to_have_count(9)
    set_slider(page, "#search-threshold", "1")
    found = client.post("/api/search", photo.read_bytes()).json()["neighbours"]
    copies = sum(each["similarity"] >= 0.9995 for each in found)
    assert 2 <= copies < 9
    expect(page.locator("#same li")).to_have_count(copies)

    # Enlarged beside the query, with the arrow keys and the difference.
    page.locator("#same .photo").first.click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    expect(page.locator("#viewer-photos figure")).to_have_count(2)
    expect(page.locator("#viewer-title")).to_contain_text("1 of 9")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-title")).to_contain_text("2 of 9")
    page.keyboard.press("d")
    expect(page.locator("#viewer-photos .difference img")).to_have_count(2)
    path = page.locator("#viewer-path").inner_text()
    assert path.startswith(str(made.root))
    require_accessible(page)
    page.locator("#viewer-similar").click()
    expect(viewer).to_be_hidden()
    expect(page.locator("#similar li, #same li")).to_have_count(8)
    page.get_by_role("link", name="Duplicates").click()
    review_duplicates(page, made)


@pytest.mark.slow
def test_the_slider_and_the_linkage_regroup(client, open_page):
    page = open_page(client, "#duplicates")
    status = page.locator("#group-status")
    expect(status).to_have_text(re.compile(r"groups? of"))
    set_slider(page, "#group-threshold", "1")
    highest = client.get("/api/groups?threshold=1").json()
    assert highest["num_photos"] < 9
    expect(page.locator("#groups .group")).to_have_count(highest["num_groups"])
    low = page.get_attribute("#group-threshold", "min")
    set_slider(page, "#group-threshold", low)
    expect(status).to_have_text(re.compile(r"groups? of"))
    assert page.locator("#groups .group").count() >= 1
    page.select_option("#linkage", "complete")
    expect(page.locator("#groups .group").first).to_be_visible()
    answer = client.get(f"/api/groups?threshold={low}&linkage=complete").json()
    expect(page.locator("#groups .group")).to_have_count(answer["num_groups"])


@pytest.mark.slow
def test_all_of_it_goes_by_keyboard(movable, open_page):
    client, _ = movable
    page = open_page(client, "#collection")
    tiles = page.locator("#wall .photo[data-row]")
    expect(tiles).to_have_count(9)

    def focused(what):
        return page.evaluate(f"document.activeElement.{what}")

    for _ in range(12):  # past the skip link, the pages and the two menus
        page.keyboard.press("Tab")
        if "photo" in focused("className"):
            break
    assert focused("dataset.index") == "0"
    page.keyboard.press("ArrowRight")
    assert focused("dataset.index") == "1"
    page.keyboard.press("End")
    assert focused("dataset.index") == "8"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#similar li, #same li")).to_have_count(8)
    page.locator("#same .photo, #similar .photo").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    assert "photo" in focused("className")  # where it was before

    page.get_by_role("link", name="Duplicates").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#groups .photo").first).to_be_visible()
    page.locator("#groups .photo").first.focus()
    page.keyboard.press("a")
    expect(page.locator('#groups li[data-mark="away"]')).to_have_count(1)
    page.keyboard.press("k")
    expect(page.locator('#groups li[data-mark="keep"]')).to_have_count(1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    expect(page.locator('#groups li[data-mark="away"]')).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(page.locator('#groups li[data-mark="away"]')).to_have_count(0)
    expect(page.locator('#groups li[data-mark="keep"]')).to_have_count(1)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_in_light_and_dark(client, open_page, scheme):
    small = {"viewport": {"width": 400, "height": 800}, "color_scheme": scheme}
    page = open_page(client, "#search=0", **small)
    expect(page.locator("#same li, #similar li")).to_have_count(8)
    for name in ("Search", "Collection", "Duplicates"):
        page.get_by_role("link", name=name).click()
        shown = page.locator("#same .photo, #similar .photo, #wall .photo, .group")
        expect(shown.locator("visible=true").first).to_be_visible()
        require_no_sideways_scroll(page)
        require_accessible(page)
    page.goto(f"{client.address}/docs")
    expect(page.get_by_role("heading", name="POST /api/search")).to_be_visible()
    require_no_sideways_scroll(page)
    require_accessible(page)


def test_names_from_outside_stay_text_and_filters_filter(client, made, open_page):
    row = client.services.collection.row_of(str(made.root / "copy.png"))
    page = open_page(client, f"#search={row}")
    expect(page.locator("#same li, #similar li")).to_have_count(8)
    assert page.locator("img[src='x']").count() == 0
    assert page.get_by_text("<img src=x onerror=").count() == 1
    page.select_option("#search-class", "sea")
    expect(page.locator("#search-status")).to_contain_text("of 3 photos")
    page.select_option("#search-class", "")
    page.select_option("#search-folder", "trip/hill")
    expect(page.locator("#same li, #similar li")).to_have_count(3)


def test_a_token_is_asked_for_once(services, review, browser):
    with serving(services, review, token="s3cret+/=#&") as client:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{client.address}/#collection")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-note")).to_have_text("That is not the token.")
        page.fill("#token", "s3cret+/=#&")
        page.keyboard.press("Enter")
        expect(page.locator("#wall .photo[data-row]")).to_have_count(9)
        context.close()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{client.address}/#token=s3cret%2B%2F%3D%23%26")
        expect(page.locator("#count")).to_have_text("9 photos")
        assert "s3cret" not in page.url
        context.close()


def test_what_is_no_photo_is_said(client, browser, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    context = browser.new_context()
    page = context.new_page()
    page.goto(client.address)
    page.set_input_files("#file", str(broken))
    expect(page.locator("#search-status")).to_contain_text("not an image file")
    context.close()


def test_a_photo_that_vanished_is_a_grey_tile(movable, browser):
    client, made = movable
    row = client.services.collection.row_of(str(made.root / "copy.png"))
    (made.root / "copy.png").unlink()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{client.address}/#search={row}")
    # The tile is shown, although the answer is 404.
    expect(page.locator("#query img")).to_have_js_property("naturalWidth", 320)
    context.close()

"""The page of a collection that is large."""

import re

import pytest
from playwright.sync_api import expect


def mock_large_collection(page, *, folders, count):
    """Answers in the server's place, of a collection that is not there."""
    listed = [{"name": f"folder {n:04d}", "count": count} for n in range(folders)]
    info = {
        "num_photos": folders * count,
        "folders": listed,
        "classes": [],
        "threshold": 0.9,
        "threshold_origin": "a guess",
        "predicts_classes": False,
    }
    page.route("**/api/info", lambda route: route.fulfill(json=info))

    def rows(route):
        first, number = (
            int(value)
            for value in re.findall(r"(?:first|count)=(\d+)", route.request.url)
        )
        photos = [
            {"row": n, "path": f"/p/{n}.jpg"} for n in range(first, first + number)
        ]
        route.fulfill(json={"num_photos": folders * count, "photos": photos})

    page.route("**/api/collection?*", rows)
    page.route(
        "**/api/thumbnail/*",
        lambda route: route.fulfill(
            body='<svg xmlns="http://www.w3.org/2000/svg"/>',
            content_type="image/svg+xml",
        ),
    )


@pytest.mark.slow
def test_a_hundred_thousand_photos_are_few_elements(client, browser):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    mock_large_collection(page, folders=200, count=500)
    page.goto(f"{client.address}/#collection")
    expect(page.locator("#wall .photo[data-row]").first).to_be_visible()
    frames = page.evaluate(
        """async () => {
          const times = [];
          const most = [];
          for (let step = 0; step < 60; step++) {
            scrollTo(0, (document.documentElement.scrollHeight * step) / 60);
            const started = performance.now();
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - started);
            most.push(document.querySelectorAll("#wall > *").length);
          }
          times.sort((a, b) => a - b);
          return [times[30], Math.max(...most)];
        }"""
    )
    assert frames[1] < 400
    # The last photo is reached, and walked to, by one key.
    page.locator("#wall .photo").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.index") == "99999"
    expect(page.locator('#wall .photo[data-row="99999"]')).to_be_visible()
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.dataset.index") == "0"
    print(f"median of a step of 1/60 of the collection: {frames[0]:.1f} ms")
    context.close()

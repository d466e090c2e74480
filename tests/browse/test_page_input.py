"""The page in a real browser: photos handed over, scrolling, marks by key."""

import base64
import re

from helpers.served import serving
from playwright.sync_api import expect

from multigrain_jax.tasks.browse import open_review

HAND_OVER = """([event, field, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], name, { type: "image/png" }));
  const kind = { drop: DragEvent, paste: ClipboardEvent }[event];
  document.body.dispatchEvent(new kind(event, { [field]: held, bubbles: true }));
}"""


def test_a_photo_is_dropped_or_pasted_and_a_path_copied(client, made, open_page):
    page = open_page(client, "#collection")
    data = base64.b64encode((made.root / "copy.png").read_bytes()).decode()
    events = {"drop": "dataTransfer", "paste": "clipboardData"}
    for event, field in events.items():
        page.evaluate(HAND_OVER, [event, field, f"{event}.png", data])
        expect(page.locator("#query-name")).to_have_text(f"{event}.png")
        expect(page.locator("#search-status")).to_contain_text("searched in")
        expect(page.locator("#same li, #similar li")).to_have_count(9)
        expect(page.locator("#same .photo").first).to_have_attribute(
            "aria-label", re.compile("similarity 1.000")
        )
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#same .photo").first.click()
    page.get_by_role("button", name="Copy the path").click()
    expect(page.locator("#viewer-copied")).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#viewer-path").inner_text()
    assert copied.startswith(f"{made.root}/")


def test_more_neighbours_come_by_scrolling(client, open_page):
    asked = []

    def answer(route):
        count = int(re.findall(r"num_neighbours=(\d+)", route.request.url)[0])
        asked.append(count)
        found = [
            {"row": n % 9, "path": f"/p/{n}.png", "similarity": 0.8 - n / 1000}
            for n in range(min(count, 200))
        ]
        body = {"neighbours": found, "num_photos": 200, "search_seconds": 0.001}
        route.fulfill(json=body)

    page = open_page(client)
    page.route("**/api/search?*", answer)
    page.evaluate("location.hash = '#search=0'")
    cards = page.locator("#same li, #similar li")
    expect(cards).to_have_count(60)
    for count in (180, 200):
        assert asked[-1] == {180: 60, 200: 180}[count]
        page.mouse.wheel(0, 1_000_000)
        expect(cards).to_have_count(count)
    expect(page.locator("#more")).to_be_hidden()
    assert asked == [60, 180, 540]


def test_a_mark_is_seen_where_the_photo_is_large(services, tmp_path, open_page):
    review = open_review(services, tmp_path, lowest=0.5, allow_moves=False)
    with serving(services, review) as client:
        page = open_page(client, "#duplicates")
        page.locator("#groups .photo").first.click()
        mark = page.locator("#viewer-mark")
        expect(mark).to_have_text("")
        for key, words in (("a", "✗ away"), ("k", "✓ keep"), ("u", "")):
            page.keyboard.press(key)
            expect(mark).to_have_text(words)

"""A small collection, and a server of it."""

import time

import pytest
from helpers.browser import launched_browser
from helpers.browsing import make_collection, opened_services
from helpers.served import serving

from multigrain_jax.tasks.browse import open_review


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_checkpoint):
    """A collection that no test changes."""
    return make_collection(tmp_path_factory.mktemp("browse"), tiny_checkpoint)


@pytest.fixture(scope="session")
def services(made, tmp_path_factory):
    """What a server of that collection answers from."""
    with opened_services(made, tmp_path_factory.mktemp("workdir")) as found:
        yield found


@pytest.fixture(scope="session")
def review(services, tmp_path_factory):
    """The review of its duplicates, in which no file may be moved."""
    workdir = tmp_path_factory.mktemp("review")
    return open_review(services, workdir, lowest=0.5, allow_moves=False)


@pytest.fixture(scope="session")
def client(services, review):
    """A server of that collection."""
    with serving(services, review) as found:
        yield found


@pytest.fixture
def wait():
    """Waits for the duplicates of a server."""

    def until_ready(client):
        assert client.post("/api/duplicates", b"").status == 200
        end = time.monotonic() + 60
        while (status := client.get("/api/duplicates").json())["state"] != "ready":
            assert status["state"] != "failed" and time.monotonic() < end, status
            time.sleep(0.02)
        return status

    return until_ready


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright."""
    with launched_browser() as launched:
        yield launched


@pytest.fixture
def open_page(browser):
    """(client, path, **options) -> a page whose console stays free of errors."""
    problems, contexts = [], []

    def open_one(client, path="", **options):
        context = browser.new_context(
            **{"viewport": {"width": 1400, "height": 900}, **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.goto(f"{client.address}/{path}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []

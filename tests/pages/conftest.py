"""A browser for the tests of pages."""

import pytest
from helpers.browser import launched_browser


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright."""
    with launched_browser() as launched:
        yield launched

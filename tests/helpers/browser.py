"""A browser for tests: Debian's Chromium, as CI installs it."""

import contextlib
import os
import shutil
import subprocess

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
)


def answers(program: str) -> bool:
    """Whether it runs: Ubuntu's package is a script that asks for a snap."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def find_chromium() -> str:
    """A browser; without one the test is skipped, or fails where it must be there."""
    for program in filter(None, map(shutil.which, PROGRAMS)):
        if answers(program):
            return program
    reason = f"none of {', '.join(PROGRAMS)} runs here (Debian: apt install chromium)"
    if os.environ.get("MULTIGRAIN_REQUIRE_CHROMIUM"):
        pytest.fail(reason)
    return pytest.skip(reason)


@contextlib.contextmanager
def launched_browser():
    """Chromium, driven by Playwright, which runs a loop of its own meanwhile."""
    from playwright.sync_api import expect, sync_playwright

    # A machine that others use too takes its time.
    expect.set_options(timeout=60_000)
    program = find_chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program, args=list(OPTIONS)
        )
        yield launched
        launched.close()

"""Debian's Chromium, driven by Playwright: the build without windows, which needs half the processor time."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright


def launch(playwright: Playwright) -> Browser:
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert found, "sudo make system-packages"
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Not for the whole run: a thread can have one, and other modules start theirs."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    launched = launch(playwright)
    yield launched
    launched.close()

"""Debian's Chromium, driven by Playwright: the build without windows, which needs half the processor time."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

SHOTS = Path(__file__).parents[1] / ".runs" / "screenshots"


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


def shoot(page: Page, name: str) -> None:
    """A screenshot that CI keeps, and from which docs/*.webp are made."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", animations="disabled")

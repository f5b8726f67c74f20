"""The web page as people have it: over the gateway of a whole stack, after signing in for real.

It writes screenshots to .runs/screenshots; docs/recounting.md shows some of them.
"""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from deployed.people import People
from local.stack import REPOSITORY, Local
from tests.browser import chromium, playwright, shoot  # noqa: F401

SITE = "PGE1"
PASSWORD = "a password of my own"
SAMPLES = sorted((REPOSITORY / "samples").rglob("*.jpg"))[-10:]


@pytest.fixture(scope="module")
def ten_bins(user: Any) -> list[str]:
    """Bins whose record is one that no photograph of the samples shows."""
    keys = [
        f"incoming/{SITE}/P-{4 + n // 4}-{'ABCD'[n % 4]}{117 + 31 * n}/{path.name}" for n, path in enumerate(SAMPLES)
    ]
    for key, path in zip(keys, SAMPLES, strict=True):
        user.upload(key, path.read_bytes(), expected_quantity="9")
    user.wait_counts(*keys)

    def reviews() -> list[Any]:
        return [each for each in user.items() if each["SK"] == "REVIEW" and each["site"] == SITE]

    user.wait_for("ten reviews", lambda: len(reviews()) == len(keys))
    return [key.split("/")[2] for key in keys]


def in_hand(page: Page) -> str:
    expect(page.locator(".frame img")).to_be_visible(timeout=30_000)
    return page.locator(".of .id").inner_text()


def sign_in(page: Page, password: str) -> None:
    page.get_by_label("Name").fill("Pia")
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_and_counts_ten_bins_by_keyboard(
    stack: Local,
    user: Any,
    ten_bins: list[str],
    chromium: Browser,  # noqa: F811
    playwright: Playwright,  # noqa: F811
) -> None:
    temporary = People(stack).add("Pia", "counter", [SITE])
    address = f"{user.outputs['ApiUrl']}/"
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    expect(page.get_by_label("Password")).to_be_visible()
    shoot(page, "sign-in")
    sign_in(page, temporary)
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    in_hand(page)
    shoot(page, "queue-light")
    page.emulate_media(color_scheme="dark")
    page.keyboard.type("4")
    shoot(page, "queue-dark")

    for kind in ("Pixel 7", "Galaxy Tab S4"):
        profile = playwright.devices[kind]
        options = {name: profile[name] for name in profile if name != "default_browser_type"}
        device = chromium.new_context(**options, color_scheme="dark" if kind == "Pixel 7" else "light")
        small = device.new_page()
        small.goto(address)
        sign_in(small, PASSWORD)
        in_hand(small)
        shoot(small, {"Pixel 7": "queue-phone", "Galaxy Tab S4": "queue-tablet"}[kind])
        device.close()

    counted = []
    for _ in ten_bins:
        counted.append(in_hand(page))
        page.keyboard.type("4")
        page.keyboard.press("Enter")
        expect(page.locator(".of .id", has_text=counted[-1])).to_have_count(0)
    expect(page.get_by_role("heading", name="Nothing left to recount")).to_be_visible(timeout=30_000)
    shoot(page, "queue-empty")
    assert sorted(counted) == sorted(ten_bins)
    assert not complaints

    def entries() -> int:
        return len([each for each in user.items() if each["SK"].startswith("RECOUNT#") and each["site"] == SITE])

    user.wait_for("ten entries", lambda: entries() == len(ten_bins))
    page.close()

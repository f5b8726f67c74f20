"""The shell of the page: signing in and out, and what it shows of names."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.page.conftest import Bins


def test_a_person_signs_in_and_sees_the_queue(signed_in: Callable[..., Page], bins: Bins) -> None:
    bins.add("P-1", 8)
    bins.add("P-2", 9)
    page = signed_in("ana")
    page.on("console", lambda m: print(m.text))
    expect(page.get_by_role("heading", name="Bin P-")).to_be_visible()
    expect(page.locator(".frame img")).to_be_visible()
    page.screenshot(path="/tmp/page-queue.png")

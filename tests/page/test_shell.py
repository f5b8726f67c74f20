"""The shell of the page: signing in and out, roles, sites, screen readers, and what reaches a counter's browser."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response, expect

from tests.page.conftest import PASSWORD, Bins, Opens, sign_in
from tests.page.desk import Server, problem
from tests.page.test_queue import KEPT, after, in_hand, until, while_the_second_photograph_is_coming

SignedIn = Callable[..., Page]


def test_who_may_not_enter_is_told_so_in_one_line(device: Opens, server: Server) -> None:
    page = device().new_page()
    sign_in(page, server.url, "ana", "guessed")
    expect(page.get_by_role("alert")).to_have_text("the name or the password is wrong")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Queue")).to_be_visible()


def test_a_first_password_is_replaced(device: Opens, server: Server) -> None:
    server.gate.fresh.add("ana")
    page = device().new_page()
    sign_in(page, server.url, "ana")
    expect(page.get_by_role("alert")).to_have_text("Choose a password of your own.")
    page.get_by_label("New password").fill("a longer one than that")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Queue")).to_be_visible()


def test_problems_of_ours_and_messages_of_the_gateway_are_shown_alike(
    signed_in: SignedIn, server: Server, bins: Bins
) -> None:
    """RFC 9457 problems have a `detail`, the gateway's own errors a `message` alone."""
    bins.add("P-1")
    server.gate.refuse = [(403, {"message": "Forbidden by the gateway"})]
    page = signed_in("vic")
    refused = page.get_by_role("main").get_by_role("alert")
    expect(refused).to_have_text("Forbidden by the gateway")
    server.gate.refuse = [(403, problem(403, "FORBIDDEN", "this is not your site"))]
    page.get_by_role("button", name="Try again").click()
    expect(refused).to_have_text("this is not your site")
    server.gate.refuse = [(503, {"message": "Service Unavailable"})]
    page.get_by_role("button", name="Try again").click()
    expect(refused).to_have_text("The stack is busy (503). Try again.")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Bins to recount", exact=True)).to_be_visible()


def sign_out(page: Page, name: str = "ana") -> None:
    until(page, KEPT + "(all => all.length === 0)")  # else the page asks first
    page.get_by_label(f"Account of {name}").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_reload_goes_on_and_signing_out_ends_it(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    page = signed_in()
    in_hand(page)
    page.reload()
    in_hand(page)
    sign_out(page)
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()


def test_signing_out_gives_bins_back_even_one_whose_photograph_is_still_coming(
    device: Opens, server: Server, bins: Bins
) -> None:
    for number in range(2):
        bins.add(f"P-{number}", number)
    page = device().new_page()
    while_the_second_photograph_is_coming(page, server)
    sign_out(page)
    for _ in range(400):
        if not any("claim" in bins.review(name) for name in ("P-0", "P-1")):
            return
        page.wait_for_timeout(50)
    raise AssertionError("a bin does not wait for somebody else")


def test_without_a_network_the_page_says_so_and_tries_again(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    page = signed_in()
    in_hand(page)
    page.route("**/session", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The stack cannot be reached. Check the network.")
    page.unroute("**/session")
    page.get_by_role("button", name="Try again").click()
    in_hand(page)


def test_a_person_chooses_a_site_which_is_kept(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1", site="SEA1")
    bins.add("Q-1", site="Lager 2/ä")
    page = signed_in()
    page.get_by_label("Site").select_option("Lager 2/ä")
    expect(page.locator(".of .id")).to_have_text("Q-1")
    page.reload()
    expect(page.locator(".of .id")).to_have_text("Q-1")


def serious(page: Page) -> list[str]:
    """axe-core's serious and critical findings; no colour is on its way to another meanwhile."""
    page.emulate_media(reduced_motion="reduce")
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]} {node['any'][:1]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious(device: Opens, server: Server, bins: Bins, scheme: str, width: int) -> None:
    bins.add("P-1", 8)
    bins.add("Q-1", site="ZZZ9")
    page = device(color_scheme=scheme, viewport={"width": width, "height": 800}).new_page()
    page.goto(server.url)
    expect(page.get_by_label("Password")).to_be_visible()
    assert not serious(page)
    sign_in(page, server.url)
    bin_ = in_hand(page)
    page.keyboard.press("Enter")  # shows a hint
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert not serious(page)
    page.reload()
    in_hand(page)
    page.keyboard.press("u")
    expect(page.get_by_text("nothing to undo")).to_be_visible()
    assert not serious(page)
    page.keyboard.press("c")
    after(page, bin_)
    expect(page.get_by_role("heading", name="Nothing left")).to_be_visible()
    assert not serious(page)
    server.gate.end_sessions()
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert not serious(page)


FORBIDDEN = (
    "priority",
    "p_record",
    "probab",
    "recorded",
    "expected",
    "secretmodel",
    "direction",
    "0.0123",
    "confidence",
)


def test_nothing_that_a_counter_must_not_know_reaches_the_browser(
    signed_in: SignedIn, device: Opens, server: Server, bins: Bins
) -> None:
    """Every address, header and body of every answer, photographs too, while two people count bins blind."""
    seen: list[bytes] = []
    for name in ("P-1", "P-2"):
        bins.add(name, recorded=918273)
    ben = signed_in("ben")
    first = in_hand(ben)
    ben.keyboard.type("645546", delay=60)
    ben.keyboard.press("Enter", delay=60)
    ben.keyboard.press("Enter")  # so many are asked about
    after(ben, first)
    sign_out(ben, "ben")

    ana = device().new_page()
    answers: list[Response] = []
    ana.on("response", lambda answer: answers.append(answer))
    sign_in(ana, server.url)
    for _ in range(2):
        bin_ = in_hand(ana)
        ana.keyboard.type("3")
        ana.keyboard.press("Enter")
        after(ana, bin_)
    expect(ana.get_by_role("heading", name="Nothing left")).to_be_visible()
    for answer in answers:
        if "/page/" in answer.url or answer.status == 304:
            continue
        seen += [answer.url.encode(), repr(answer.all_headers()).encode(), answer.body()]
    said = b"\n".join(seen)
    assert b"P-1" in said and b"\xff\xd8" in said
    for secret in (*FORBIDDEN, "918273", "645546", "user/ben", '"ben"'):
        assert secret.encode() not in said, secret

"""The queue in a real browser: by keyboard, by thumb, without a network, in two tabs, after a session has ended."""

import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from playwright.sync_api import Dialog, Page, Playwright, Route, expect

from tests.functions.conftest import BUCKET
from tests.page.conftest import PASSWORD, Bins, Opens, sign_in
from tests.page.desk import Server

SignedIn = Callable[..., Page]


def in_hand(page: Page) -> str:
    """The bin that is shown, once its photograph is."""
    expect(page.locator(".frame img")).to_be_visible()
    return page.locator(".of .id").inner_text()


def after(page: Page, bin_: str) -> None:
    """Waits until another bin than this is in hand, or none."""
    expect(page.locator(".of .id", has_text=re.compile(f"^{re.escape(bin_)}$"))).to_have_count(0)


def entered(page: Page, bins: Bins, number: int) -> list[dict[str, Any]]:
    """The table's entries once there are so many."""
    for _ in range(400):
        if len(found := bins.recounts()) >= number:
            break
        page.wait_for_timeout(50)
    assert len(found) == number
    return found


def until(page: Page, script: str) -> None:
    """Waits until a script is true. Playwright's own wait evaluates it in the page, whose policy refuses that."""
    for _ in range(400):
        if page.evaluate(script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {script}")


def test_ten_bins_by_keyboard_alone(signed_in: SignedIn, bins: Bins) -> None:
    for number in range(10):
        bins.add(f"P-{number}", number)
    page = signed_in()
    counted: dict[str, int] = {}
    for number in range(10):
        bin_ = in_hand(page)
        assert bin_ not in counted
        counted[bin_] = number + 7
        page.keyboard.type(str(number + 7))
        page.keyboard.press("Enter")
        after(page, bin_)
    expect(page.get_by_role("heading", name="Nothing left to recount")).to_be_visible()
    expect(page.get_by_text("10 counted")).to_be_visible()
    assert {item["bin"]: int(item["quantity"]) for item in entered(page, bins, 10)} == counted


@pytest.mark.parametrize(
    ("key", "outcome"),
    [("c", "CANNOT_COUNT"), ("t", "RETAKE")],
)
def test_what_cannot_be_counted_is_said_by_one_key(signed_in: SignedIn, bins: Bins, key: str, outcome: str) -> None:
    bins.add("P-1")
    page = signed_in()
    in_hand(page)
    page.keyboard.press(key)
    (item,) = entered(page, bins, 1)
    assert item["outcome"] == outcome and "quantity" not in item


def test_a_key_that_is_held_acts_once(signed_in: SignedIn, bins: Bins) -> None:
    for number in range(6):
        bins.add(f"P-{number}")
    page = signed_in()
    first = in_hand(page)
    for _ in range(8):
        page.keyboard.down("c")  # from the second time on, as a key repeats that is held
        page.wait_for_timeout(120)
    page.keyboard.up("c")
    (item,) = entered(page, bins, 1)
    assert item["bin"] == first
    after(page, first)
    second = in_hand(page)
    page.keyboard.type("4")
    for _ in range(8):
        page.keyboard.down("Enter")
        page.wait_for_timeout(60)
    page.keyboard.up("Enter")
    after(page, second)
    assert len(entered(page, bins, 2)) == 2
    expect(page.get_by_text("Type how many items you count")).to_have_count(0)


SCAN = """async ([keys, pause]) => {
    let at = performance.now();
    for (const key of keys) {
        const field = document.activeElement;
        const pressed = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
        Object.defineProperty(pressed, "timeStamp", { value: (at += pause) });
        const types = field.dispatchEvent(pressed) && key.length === 1 && field.matches("input");
        if (types) document.execCommand("insertText", false, key);
        await null;
    }
}"""
"""Keys with times of their own, since a busy machine presses real ones later than a scanner does."""


@pytest.mark.parametrize("pause", [0, 15])
@pytest.mark.parametrize("label", ["C-12-A7\n", "S12\n", "Trbu", "T1\n", "4006381333931\n", "00012345", "B+R+U127\n\n"])
def test_what_a_scanner_types_is_dropped_whole(signed_in: SignedIn, bins: Bins, label: str, pause: int) -> None:
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    page.keyboard.type("7")
    page.wait_for_timeout(100)
    page.evaluate(SCAN, [["Enter" if key == "\n" else key for key in label], pause])
    expect(page.get_by_text(f"A scanner typed {label.strip()}; nothing was entered.")).to_be_visible()
    page.wait_for_timeout(300)
    assert not bins.recounts()
    assert page.evaluate(KEPT + "(all => all)") == []
    assert in_hand(page) == first
    expect(page.get_by_label("Items in the bin")).to_have_value("7")
    style = page.locator(".frame img").get_attribute("style") or ""
    assert "translate(0px, 0px) rotate(0deg) scale(1)" in style and "brightness" not in style
    page.keyboard.press("Enter")
    (item,) = entered(page, bins, 1)
    assert (item["bin"], item["quantity"]) == (first, 7)


def test_single_keys_can_be_switched_off(signed_in: SignedIn, bins: Bins) -> None:
    """WCAG 2.1.4; who speaks to the device may say a word that it types."""
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    bin_ = in_hand(page)
    page.get_by_text("Keys", exact=True).click()
    switch = page.get_by_role("checkbox", name="Single keys")
    expect(switch).to_be_checked()
    switch.uncheck()
    page.reload()
    assert in_hand(page) == bin_
    field = page.get_by_label("Items in the bin")
    for focused in (True, False):
        if not focused:
            page.evaluate("document.activeElement.blur()")
        for key in ("c", "t", "s", "r", "b", "+"):
            page.keyboard.press(key, delay=80)
    page.keyboard.press("5", delay=80)
    expect(field).to_have_value("")
    assert "rotate(0deg) scale(1)" in (page.locator(".frame img").get_attribute("style") or "")
    assert in_hand(page) == bin_ and page.evaluate(KEPT + "(all => all)") == []
    field.focus()
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    after(page, bin_)
    (item,) = entered(page, bins, 1)
    assert item["quantity"] == 5
    page.get_by_text("Keys", exact=True).click()
    switch.check()
    page.keyboard.press("c", delay=80)  # the focus is on the box
    assert len(entered(page, bins, 2)) == 2


def test_five_digits_are_entered_by_a_second_enter(signed_in: SignedIn, bins: Bins) -> None:
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    question = page.get_by_text("Press Enter again to confirm.")
    page.keyboard.type("12345\n\n")  # a scanner that ends with two
    expect(question).to_have_text("Enter 12,345 items? Press Enter again to confirm.")
    page.wait_for_timeout(60)
    page.keyboard.press("Backspace")
    page.keyboard.press("6")
    expect(question).to_have_count(0)
    page.wait_for_timeout(60)
    page.keyboard.press("Enter")
    expect(question).to_have_text("Enter 12,346 items? Press Enter again to confirm.")
    page.wait_for_timeout(60)
    assert not bins.recounts()
    page.keyboard.press("Enter")
    (item,) = entered(page, bins, 1)
    assert (item["bin"], item["quantity"]) == (first, 12346)


def test_skipped_bins_come_back_when_asked(signed_in: SignedIn, bins: Bins) -> None:
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    page.keyboard.press("s")
    after(page, first)
    second = in_hand(page)
    page.keyboard.press("s")
    page.get_by_role("button", name="Show 2 skipped again").click()
    assert in_hand(page) in (first, second)
    assert not bins.recounts()


def test_nothing_but_a_number_is_typed_and_an_empty_entry_is_explained(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    page = signed_in()
    in_hand(page)
    field = page.get_by_label("Items in the bin")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Type how many items you count")).to_be_visible()
    for text, shown in (("12345678901", "123456789"), ("-3", "3"), ("2.5", "25"), ("1e5", "15")):
        field.fill("")
        page.keyboard.type(text, delay=60)  # as a person does; a scanner is faster
        expect(field).to_have_value(shown)
    field.fill("4")
    for pasted in ("-3", "2.5", "1e5", "٣", "９", "<b>", "99999999999"):
        field.fill(pasted)
        expect(field).to_have_value("4")
    page.keyboard.press("Backspace")
    expect(field).to_have_value("")
    assert not bins.recounts()


def test_undo_takes_the_last_entry_back_and_shows_its_bin(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    bins.add("P-2")
    page = signed_in()
    first = in_hand(page)
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    entered(page, bins, 1)
    page.keyboard.press("u")
    expect(page.locator(".of .id")).to_have_text(first)
    expect(page.get_by_text("0 counted")).to_be_visible()
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    entered(page, bins, 2)
    (entry,) = bins.review(first)["entries"]
    assert entry["quantity"] == 5
    expect(page.locator(".of .id")).not_to_have_text(first)


def test_a_reason_and_a_note_go_with_the_entry_and_not_with_the_next(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    bins.add("P-2")
    page = signed_in()
    first = in_hand(page)
    page.get_by_text("Reason or note").click()
    page.locator(".why select").select_option("Items hidden")
    page.get_by_label("Note").press_sequentially("=1+1 <b>crushed</b> 12s")  # no digit and no letter of it is a key
    expect(page.get_by_label("Items in the bin")).to_have_value("")
    page.get_by_label("Items in the bin").fill("3")
    page.keyboard.press("Enter")
    after(page, first)
    in_hand(page)
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    one, other = sorted(entered(page, bins, 2), key=lambda item: item["bin"] != first)
    assert (one["reason"], one["note"]) == ("HIDDEN", "=1+1 <b>crushed</b> 12s")
    assert not other.get("reason") and not other.get("note")


def test_a_photograph_that_was_deleted_is_said_and_skipped(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    s3 = boto3.client("s3")
    for version in s3.list_object_versions(Bucket=BUCKET)["Versions"]:
        s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    page = signed_in()
    expect(page.get_by_text("The photograph cannot be shown.")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Nothing left")).to_be_visible()


def test_names_are_text(signed_in: SignedIn, bins: Bins) -> None:
    name = "<img src=x onerror=document.title='broken'>"
    bins.add(name)
    page = signed_in()
    assert in_hand(page) == name
    expect(page).to_have_title("Queue · Bintally")


# A network that comes and goes


def test_an_entry_made_without_a_network_is_sent_once_when_it_returns(signed_in: SignedIn, bins: Bins) -> None:
    for name in ("P-1", "P-2", "P-3"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    expect(page.locator("body")).to_be_visible()
    until(page, "performance.getEntriesByType('resource').filter(e => /claims/.test(e.name)).length >= 2")
    page.wait_for_timeout(500)  # the second photograph is decoded
    page.context.set_offline(True)
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    second = in_hand(page)
    assert second != first, "the next photograph was there already"
    expect(page.get_by_text("1 entry kept on this device")).to_be_visible()
    assert not bins.recounts()
    page.context.set_offline(False)
    (item,) = entered(page, bins, 1)
    assert (item["bin"], item["quantity"]) == (first, 4)
    expect(page.get_by_text("kept on this device")).to_have_count(0)


def test_an_entry_outlives_its_tab_and_an_answer_that_never_came(device: Opens, server: Server, bins: Bins) -> None:
    """The stack stored the entry, the phone lost the answer, and its browser was closed: the next load sends it again,
    and it is one entry."""
    bins.add("P-1")
    bins.add("P-2")
    phone = device()
    page = phone.new_page()
    sign_in(page, server.url)
    first = in_hand(page)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/recounts", lose)
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    entered(page, bins, 1)
    page.close()
    again = phone.new_page()
    again.goto(server.url)
    assert in_hand(again) != first
    until(again, KEPT + "(all => all.length === 0)")
    assert len(entered(again, bins, 1)) == 1
    sent = [body for method, path, body in server.gate.asked if path.endswith("/recounts") and method == "POST"]
    assert len(sent) >= 2 and len({body["id"] for body in sent}) == 1


KEPT = """() => new Promise((resolve) => {
  const asked = indexedDB.open("bintally", 1);
  asked.onsuccess = () => {
    const all = asked.result.transaction("entries").objectStore("entries").getAll();
    all.onsuccess = () => { asked.result.close(); resolve(all.result); };
  };
}).then"""


def test_what_was_typed_outlives_a_reload(signed_in: SignedIn, bins: Bins) -> None:
    """Even one that comes before the page is drawn again: drawing is put off here."""
    bins.add("P-1")
    page = signed_in()
    in_hand(page)
    page.keyboard.type("1")
    page.evaluate("window.setTimeout = window.requestAnimationFrame = () => 0")
    page.keyboard.type("2")
    page.reload()
    in_hand(page)
    expect(page.get_by_label("Items in the bin")).to_have_value("12")


def test_an_entry_that_the_stack_refuses_is_shown_and_kept(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1", 1)
    page = signed_in()
    in_hand(page)
    bins.add("P-1", 2)  # a newer photograph, meanwhile
    page.keyboard.press("c")
    expect(page.get_by_text("1 entry not taken")).to_be_visible()
    expect(page.get_by_text("a newer photograph of this bin has arrived").first).to_be_visible()
    page.reload()
    in_hand(page)
    page.get_by_text("1 entry not taken").click()
    page.locator("li").get_by_role("button", name="Dismiss").click()
    expect(page.get_by_text("not taken")).to_have_count(0)
    assert not bins.recounts()


def test_an_entry_at_which_the_stack_fails_holds_up_no_other(signed_in: SignedIn, bins: Bins) -> None:
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)

    def failing(route: Route) -> None:
        if first in (route.request.post_data or ""):
            route.fulfill(status=500, json={"message": "Internal Server Error"})
        else:
            route.continue_()

    page.route("**/recounts", failing)
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    in_hand(page)
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    (item,) = entered(page, bins, 1)
    assert (item["bin"] != first, item["quantity"]) == (True, 5)
    page.unroute("**/recounts")
    assert {item["bin"]: item["quantity"] for item in entered(page, bins, 2)}[first] == 4


# Sessions


def test_a_session_that_ends_in_mid_work_loses_nothing(signed_in: SignedIn, server: Server, bins: Bins) -> None:
    for name in ("P-1", "P-2", "P-3"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    server.gate.end_sessions()
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sign in again")).to_be_visible()
    assert not bins.recounts()
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    (item,) = entered(page, bins, 1)
    assert item["bin"] == first
    assert in_hand(page) != first
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_password_that_is_typed_over_the_page_is_no_key(signed_in: SignedIn, server: Server, bins: Bins) -> None:
    """It contains c, u, s and t. Its field has the focus, and where that was lost no key acts either."""
    for name in ("P-1", "P-2", "P-3"):
        bins.add(name)
    page = signed_in()
    in_hand(page)
    page.wait_for_load_state("networkidle")  # the next bin is claimed, so that one is in hand under the dialog
    server.gate.end_sessions()
    page.keyboard.press("s")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("Password")).to_be_focused()
    bin_ = page.locator(".of .id").inner_text()
    page.evaluate("document.activeElement.blur()")
    for key in "tcs57":
        page.keyboard.press(key, delay=60)
    page.wait_for_timeout(300)
    assert page.evaluate(KEPT + "(all => all)") == []
    assert page.locator(".of .id").inner_text() == bin_
    expect(page.locator(".number input")).to_have_value("")
    page.get_by_label("Password").focus()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert not bins.recounts()
    expect(page.get_by_label("Items in the bin")).to_be_focused()


def test_a_token_that_ends_is_renewed_without_a_word(signed_in: SignedIn, server: Server, bins: Bins) -> None:
    for name in ("P-1", "P-2"):
        bins.add(name)
    page = signed_in()
    first = in_hand(page)
    server.gate.end_tokens()
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    entered(page, bins, 1)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_another_person_on_the_same_device_does_not_send_what_the_first_entered(
    signed_in: SignedIn, server: Server, bins: Bins
) -> None:
    for name in ("P-1", "P-2", "P-3"):
        bins.add(name)
    page = signed_in("ana")
    first = in_hand(page)
    page.route("**/recounts", lambda route: route.abort())
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Account of ana").click()
    page.get_by_role("button", name="Sign out").click()
    page.unroute("**/recounts")
    sign_in(page, server.url, "ben")
    in_hand(page)
    page.wait_for_timeout(300)
    assert not bins.recounts()
    page.get_by_label("Account of ben").click()
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, server.url, "ana")
    (item,) = entered(page, bins, 1)
    assert item["bin"] == first
    assert bins.review(first)["entries"][0]["person"] == "ana"


def sends_as_ana(page: Page, server: Server, bins: Bins, bin_: str, quantity: int) -> None:
    """Ben's page: nothing was sent as his; ana's entry is sent as hers once she signs in on this device."""
    expect(page.get_by_label("Account of ben")).to_be_visible()
    page.wait_for_timeout(300)
    assert not bins.recounts()
    assert [each["person"] for each in page.evaluate(KEPT + "(all => all)")] == ["ana"]
    page.get_by_label("Account of ben").click()
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, server.url, "ana")
    entered(page, bins, 1)
    (entry,) = bins.review(bin_)["entries"]
    assert (entry["person"], entry["quantity"]) == ("ana", quantity)


def test_a_renewal_for_another_person_sends_nothing_of_the_first(device: Opens, server: Server, bins: Bins) -> None:
    """Ana counts in one tab; in another she signed out and ben signed in, and the cookie renews his session."""
    for name in ("P-1", "P-2", "P-3", "P-4", "P-5"):
        bins.add(name)
    context = device()
    hers, his = context.new_page(), context.new_page()
    sign_in(hers, server.url, "ana")
    first = in_hand(hers)
    his.goto(server.url)
    in_hand(his)
    his.get_by_label("Account of ana").click()
    his.get_by_role("button", name="Sign out").click()
    sign_in(his, server.url, "ben")
    in_hand(his)
    for token in [token for token, name in server.gate.tokens.items() if name == "ana"]:
        del server.gate.tokens[token]
    hers.keyboard.type("5")
    hers.keyboard.press("Enter")
    sends_as_ana(hers, server, bins, first, 5)


def test_somebody_else_who_signs_in_over_the_page_sends_nothing_of_the_first(
    signed_in: SignedIn, server: Server, bins: Bins
) -> None:
    """Not even when the network returns after ben's token is there and before the page knows his name."""
    for name in ("P-1", "P-2", "P-3", "P-4"):
        bins.add(name)
    page = signed_in("ana")
    first = in_hand(page)
    server.gate.end_sessions()
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    questions: list[str] = []

    def confirm(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept()

    page.on("dialog", confirm)
    page.get_by_role("button", name="I am somebody else").click()
    assert [each for each in questions if each.startswith("1 entry not sent yet.")], "as at every other way out"
    asked: list[Route] = []
    page.route("**/api/me", lambda route: asked.append(route))
    page.get_by_label("Name").fill("ben")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    for _ in range(400):
        if asked:
            break
        page.wait_for_timeout(50)
    page.evaluate("dispatchEvent(new Event('online'))")
    page.wait_for_timeout(300)
    assert not bins.recounts()
    asked[0].continue_()
    page.unroute("**/api/me")
    sends_as_ana(page, server, bins, first, 5)


# Tabs and people


def test_two_tabs_hold_bins_of_their_own(device: Opens, server: Server, bins: Bins) -> None:
    for number in range(6):
        bins.add(f"P-{number}", number)
    context = device()
    one = context.new_page()
    sign_in(one, server.url)
    in_hand(one)
    other = context.new_page()
    other.goto(server.url)
    counted: list[str] = []
    for turn in range(12):
        page = (one, other)[turn % 2]
        nothing = page.get_by_role("heading", name="Nothing left to recount")
        expect(page.locator(".frame img").or_(nothing)).to_be_visible()
        if not nothing.is_visible():
            counted.append(in_hand(page))
            page.keyboard.type("4")
            page.keyboard.press("Enter")
            after(page, counted[-1])
    assert sorted(counted) == [f"P-{number}" for number in range(6)]
    entered(one, bins, 6)


def while_the_second_photograph_is_coming(page: Page, server: Server) -> tuple[str, Route]:
    """Signs in; the bin in hand, and the request for the photograph of the next one, which gets no answer yet."""
    asked: list[Route] = []

    def answer_the_first(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.fallback()

    page.route(lambda url: "artifacts.s3" in url, answer_the_first)
    sign_in(page, server.url)
    bin_ = in_hand(page)
    for _ in range(400):
        if len(asked) == 2:
            break
        page.wait_for_timeout(50)
    return bin_, asked[1]


def test_a_bin_whose_photograph_is_still_coming_is_not_given_to_another_tab(
    device: Opens, server: Server, bins: Bins
) -> None:
    for number in range(3):
        bins.add(f"P-{number}", number)
    context = device()
    one = context.new_page()
    first, coming = while_the_second_photograph_is_coming(one, server)
    one.keyboard.type("4")
    one.keyboard.press("Enter")
    after(one, first)
    entered(one, bins, 1)
    other = context.new_page()
    other.goto(server.url)
    second = in_hand(other)
    coming.fallback()
    assert len({first, in_hand(one), second}) == 3


def test_two_people_never_count_the_same_bin(signed_in: SignedIn, bins: Bins) -> None:
    for name in ("P-1", "P-2", "P-3", "P-4"):
        bins.add(name)
    ana, ben = signed_in("ana"), signed_in("ben")
    assert in_hand(ana) != in_hand(ben)


def test_a_bin_that_another_person_took_meanwhile_is_said(signed_in: SignedIn, server: Server, bins: Bins) -> None:
    bins.add("P-1")
    page = signed_in("ana")
    in_hand(page)
    review = bins.review("P-1")
    review["claim"]["person"] = "ben"
    bins.resource.put_item(Item=review)
    page.keyboard.press("c")
    expect(page.get_by_text("1 entry not taken")).to_be_visible()
    expect(page.get_by_text("another person took it").first).to_be_visible()


def test_a_claim_is_renewed_while_a_person_looks(device: Opens, server: Server, bins: Bins) -> None:
    bins.add("P-1")
    page = device().new_page()
    page.clock.install()
    sign_in(page, server.url)
    in_hand(page)
    first = bins.review("P-1")["claim"]["until"]
    page.clock.fast_forward("08:00")
    for _ in range(100):
        if bins.review("P-1")["claim"]["until"] != first:
            break
        page.wait_for_timeout(50)
    assert bins.review("P-1")["claim"]["until"] > first
    assert in_hand(page) == "P-1"


# Devices


@pytest.fixture(scope="module")
def profiles(playwright: Playwright) -> dict[str, Any]:
    """Playwright's, by what they are here."""
    names = {"phone": "Pixel 7", "tablet": "Galaxy Tab S4", "small": "iPhone SE"}
    return {kind: playwright.devices[name] for kind, name in names.items()}


@pytest.mark.parametrize("kind", ["phone", "tablet", "small"])
def test_one_thumb_counts(signed_in: SignedIn, bins: Bins, profiles: dict[str, Any], kind: str) -> None:
    bins.add("P-1", 8)
    bins.add("P-2", 9)
    profile = {name: value for name, value in profiles[kind].items() if name != "default_browser_type"}
    page = signed_in("ana", **profile)
    first = in_hand(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], "nothing is cut off at the side"  # type: ignore[index]
    photograph = page.locator(".frame").bounding_box()
    assert photograph and photograph["height"] >= 0.28 * page.viewport_size["height"]  # type: ignore[index]
    for button in page.locator(".keypad button, .acts button, .tools button").all():
        box = button.bounding_box()
        assert box and min(box["width"], box["height"]) >= 44, "WCAG 2.5.5"
    page.get_by_role("button", name="1", exact=True).tap()
    page.get_by_role("button", name="2", exact=True).tap()
    page.get_by_role("button", name="Enter").tap()
    after(page, first)
    (item,) = entered(page, bins, 1)
    assert item["quantity"] == 12


def test_the_photograph_is_zoomed_moved_turned_and_brightened(signed_in: SignedIn, bins: Bins) -> None:
    bins.add("P-1")
    bins.add("P-2")
    page = signed_in()
    first = in_hand(page)
    style = "document.querySelector('.frame img').style"
    page.keyboard.press("+")
    assert "scale(1.4)" in page.evaluate(f"{style}.transform")
    page.keyboard.press("ArrowLeft")
    assert "translate(80px, 0px)" in page.evaluate(f"{style}.transform")
    page.keyboard.press("r")
    assert "rotate(90deg)" in page.evaluate(f"{style}.transform")
    box = page.locator(".frame img").bounding_box()
    frame = page.locator(".frame").bounding_box()
    assert box and frame and box["height"] > 0
    page.keyboard.press("b")
    assert page.evaluate(f"{style}.filter") == "brightness(1.5)"
    page.mouse.move(frame["x"] + 200, frame["y"] + 200)
    page.mouse.wheel(0, -100)
    assert "scale(1.4" not in page.evaluate(f"{style}.transform"), "of what fits, turned"
    page.wait_for_timeout(60)
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    after(page, first)
    in_hand(page)
    assert page.evaluate(f"{style}.transform") == "translate(0px, 0px) rotate(0deg) scale(1)"
    assert page.evaluate(f"{style}.filter") == "brightness(1.5)"


def test_fingers_and_buttons_do_what_keys_do(signed_in: SignedIn, bins: Bins, profiles: dict[str, Any]) -> None:
    bins.add("P-1")
    profile = {name: value for name, value in profiles["phone"].items() if name != "default_browser_type"}
    page = signed_in("ana", **profile)
    in_hand(page)
    frame, hand = page.locator(".frame").bounding_box(), page.context.new_cdp_session(page)
    assert frame
    middle = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2

    def touch(kind: str, *across: float) -> None:
        points = [{"x": middle[0] + each, "y": middle[1], "id": place} for place, each in enumerate(across)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def shows(style: str) -> None:
        expect(page.locator(".frame img")).to_have_attribute("style", re.compile(style))

    for name, style in {
        "Rotate": r"rotate\(90deg\)",
        "Brightness": r"brightness\(1\.5\)",
        "Whole photograph": r"translate\(0px, 0px\) rotate\(0deg\) scale\(1\)",
        "Zoom in": r"scale\(1\.4\)",
        "Zoom out": r"scale\(1\)",
    }.items():
        page.get_by_role("button", name=name, exact=True).tap()
        shows(style)
    touch("touchStart", -30, 30)
    touch("touchMove", -60, 60)
    touch("touchEnd")
    shows(r"scale\(2\)")  # twice as far apart
    touch("touchStart", 0)
    touch("touchMove", 40)
    touch("touchEnd")
    shows(r"translate\([1-9]")  # less than 40 px: a drag begins after the first few

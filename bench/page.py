"""The web page's figures: from an entry to the next photograph, the page's weight, and its first view."""

import io
import shutil
import statistics
import time
from typing import Any

from PIL import Image
from rich.console import Console

from bench.common import Numbers, bare_table, number, own_stack, rank
from cli.errors import CliError
from deployed.people import People
from local.stack import REPOSITORY, Local

SITE = "SEA1"
ROUNDS = 50
VIEWS = 5
COUNTING = 1.0
"""Seconds that a person looks at a photograph before they press Enter; people take longer."""
SECONDS = 120
OWN = "the password of a benchmark"
SENT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter((each) => new URL(each.name).pathname === "/" || each.name.includes("/page/"))
  .reduce((sum, each) => sum + each.encodedBodySize, 0)"""
WAITED = 'performance.getEntriesByName("entered-to-ready").map((each) => each.duration)'


def measure_page(console: Console, rounds: int = ROUNDS) -> Numbers:
    """Starts a stack of its own with more than `rounds` bins to recount, and counts them in Chromium.

    `next_ms` are the times from Enter until the next photograph is on the screen, as the page itself takes them; the
    person has looked for COUNTING seconds each time. `view_ms` are those from the address until the sign-in form, in a
    browser that knows nothing of the page. `sent_bytes` is what is sent of the page, compressed. Raises CliError.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise CliError("this needs Playwright. Install it with: make .venv/test.installed") from error
    if (chromium := shutil.which("chromium-headless-shell") or shutil.which("chromium")) is None:
        raise CliError("this needs Chromium. Install it with: sudo make system-packages")
    with own_stack(console) as stack:
        add_bins(stack, rounds + 2)
        address = f"{stack.outputs()['ApiUrl']}/"
        password = People(stack).add("counter", "counter", [SITE])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            views = [first_view(browser, address) for _ in range(VIEWS + 1)][1:]  # the first finds no function warm
            page = browser.new_page()
            page.goto(address)
            sent = int(page.evaluate(SENT))
            sign_in(page, password)
            for done in range(rounds):
                page.locator(".frame img").wait_for(timeout=SECONDS * 1000)
                page.wait_for_timeout(COUNTING * 1000)
                page.keyboard.type("4")
                page.keyboard.press("Enter")
                deadline = time.monotonic() + SECONDS
                while len(page.evaluate(WAITED)) <= done:
                    if time.monotonic() > deadline:
                        raise CliError(f"no photograph followed the {done + 1}. entry within {SECONDS} s")
                    page.wait_for_timeout(50)
            waited = [float(each) for each in page.evaluate(WAITED)]
            browser.close()
    return {"rounds": rounds, "next_ms": waited, "view_ms": views, "sent_bytes": sent}


def add_bins(stack: Local, count: int) -> None:
    """Bins whose photographs differ from each other, and whose record is 9, which none of them shows."""
    s3, bucket = stack.client("s3"), stack.outputs()["ImagesBucket"]
    samples = sorted((REPOSITORY / "samples").rglob("*.jpg"))
    for place in range(count):
        image = Image.open(samples[place % len(samples)])
        image.putpixel((place % image.width, 0), (place % 256, 0, 255))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=95)
        key = f"incoming/{SITE}/B-{place:03}/2026-11-22T10:00:00Z.jpg"
        s3.put_object(Bucket=bucket, Key=key, Body=data.getvalue(), Metadata={"expected-quantity": "9"})
    table: Any = stack.session().resource("dynamodb", endpoint_url=stack.endpoint_url)
    table, deadline = table.Table(stack.outputs()["CountsTable"]), time.monotonic() + SECONDS
    while len([each for each in table.scan()["Items"] if each["SK"] == "REVIEW"]) < count:
        if time.monotonic() > deadline:
            raise CliError(f"the stack opened fewer than {count} reviews within {SECONDS} s")
        time.sleep(0.5)


def first_view(browser: Any, address: str) -> float:
    """Milliseconds."""
    context = browser.new_context()
    page = context.new_page()
    begun = time.monotonic()
    page.goto(address, wait_until="commit")
    page.get_by_label("Password").wait_for()
    taken = 1000 * (time.monotonic() - begun)
    context.close()
    return taken


def sign_in(page: Any, password: str) -> None:
    """For the first time, which asks for a new password."""
    page.get_by_label("Name").fill("counter")
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("New password").fill(OWN)
    page.get_by_role("button", name="Sign in").click()


def show_page(console: Console, report: Numbers) -> None:
    waited = sorted(report["next_ms"])
    table = bare_table("Web page", "", "p50", "p95", "wanted")
    middle, most = statistics.median(waited), rank(waited, 0.95)
    table.add_row(f"Enter to next photograph, ms ({len(waited)})", number(middle), number(most), "p95 < 100")
    views = report["view_ms"]
    table.add_row(f"First view, ms ({len(views)})", number(statistics.median(views)), number(max(views)), "< 1,000")
    table.add_row("Sent, kB", number(report["sent_bytes"] / 1000), "", "< 150")
    console.print(table)

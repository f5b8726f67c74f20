"""A desk with bins to recount, and a real browser before it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from bintally.aws import items
from bintally.aws.table import Table
from bintally.reviewing.desk import Desk
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser import chromium, playwright  # noqa: F401
from tests.functions.conftest import BUCKET, answering_account
from tests.page.desk import Server

expect.set_options(timeout=20_000)  # a busy machine fails no test by its time
SAMPLES = sorted((Path(__file__).parents[2] / "samples").rglob("*.jpg"))
SITE = "SEA1"
PEOPLE = {"ana": "counter", "ben": "counter", "max": "manager", "vic": "viewer"}
PASSWORD = "count what you see"


class Bins:
    """Puts bins into the queue."""

    def __init__(self) -> None:
        self.table = Table.named("counts")
        self.resource: Any = boto3.resource("dynamodb").Table("counts")

    def add(self, name: str, number: int = 0, *, site: str = SITE, recorded: int = 7, priority: float = 0.5) -> None:
        """A bin whose photograph is a rendered sample, and whose record differs from the model's count by much."""
        key, data = f"incoming/{site}/{name}/{number}.jpg", SAMPLES[number % len(SAMPLES)].read_bytes()
        metadata = {"expected-quantity": str(recorded)}
        put = boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=data, Metadata=metadata)
        item = {
            "PK": f"BIN#{site}#{name.replace('#', '%23')}",
            "SK": "LATEST",
            "site": site,
            "bin": name,
            "image": {"bucket": BUCKET, "key": key, "version_id": put["VersionId"], "digest": f"{number:064d}"},
            "captured_at": f"2026-11-22T10:{number % 60:02}:00.000000Z",
            "order": f"2026-11-22T10:{number % 60:02}:00.000000Z#{put['VersionId']}",
            "count": 2,
            "probabilities": [0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1],
            "model_version": "2026-11-01-secretmodel",
            "p_record": 0.012345,
            "priority": priority,
            "recorded_quantity": recorded,
            "recorded_as_of": "2026-11-21T00:00:00.000000Z",
        }
        self.table.put(item)
        self.table.put(items.site_item(site))
        Desk(self.table).follow(str(item["PK"]), datetime.now(UTC))

    def recounts(self) -> list[dict[str, Any]]:
        """The entries that the table holds, in the order of their ids."""
        return [each for each in self.resource.scan()["Items"] if each["SK"].startswith(("ANSWER#", "RECOUNT#"))]

    def review(self, name: str, site: str = SITE) -> dict[str, Any]:
        return dict(self.resource.get_item(Key={"PK": f"BIN#{site}#{name}", "SK": "REVIEW"})["Item"])


@pytest.fixture
def bins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bins]:
    with answering_account(monkeypatch):
        yield Bins()


@pytest.fixture
def server(bins: Bins) -> Iterator[Server]:
    with Server() as made:
        made.gate.passwords = dict.fromkeys(PEOPLE, PASSWORD)
        made.gate.groups = {name: [role, "site:*"] for name, role in PEOPLE.items()}
        Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


Opens = Callable[..., BrowserContext]


@pytest.fixture
def device(chromium: Browser, server: Server) -> Iterator[Opens]:  # noqa: F811
    """device(**options) is a browser of its own, without what another one stored. It says every error of a page."""
    made: list[BrowserContext] = []
    errors: list[str] = []

    def photographs(route: Route) -> None:
        """The bucket's host, played by moto."""
        key = route.request.url.partition("?")[0].partition("amazonaws.com/")[2]
        body = boto3.client("s3").get_object(Bucket="artifacts", Key=key)["Body"].read()
        route.fulfill(body=body, content_type="image/jpeg")

    def make(**options: Any) -> BrowserContext:
        context = chromium.new_context(**options)
        context.set_default_timeout(20_000)
        context.route("https://artifacts.s3*.amazonaws.com/**", photographs)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
    assert not errors


def sign_in(page: Page, url: str, name: str = "ana", password: str = PASSWORD) -> None:
    page.goto(url)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.keyboard.press("Enter")


@pytest.fixture
def signed_in(device: Opens, server: Server) -> Callable[..., Page]:
    """signed_in(name, **options of the device) is a page of this person."""

    def make(name: str = "ana", **options: Any) -> Page:
        page = device(**options).new_page()
        sign_in(page, server.url, name)
        return page

    return make

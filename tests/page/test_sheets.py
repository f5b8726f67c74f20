"""The pages that are read: overview, bins, records and models, in a real browser before the real functions.

It writes screenshots to .runs/screenshots; docs/recounting.md shows one of them.
"""

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally.answering import bulk
from bintally.answering.models import Models
from bintally.aws import clients, items
from bintally.aws.table import Table, adding
from bintally.common.arrivals import Arrival
from bintally.common.counts import RETAKE, Recorded
from bintally.common.keys import Place, utc
from bintally.common.zone import site_zone
from bintally.records.record_file import Services, record_file
from bintally.reviewing.desk import Desk, Person
from bintally.reviewing.rules import Entry
from bintally.reviewing.scores import score_key
from playwright.sync_api import Page, expect

from tests.browser import shoot
from tests.functions.conftest import BUCKET
from tests.functions.test_bins import pass_claim_length
from tests.functions.test_models import FIGURES, registered
from tests.page.conftest import SAMPLES, SITE, Bins
from tests.page.desk import Server
from tests.page.test_shell import serious

SignedIn = Callable[..., Page]
NOW = datetime.now(UTC)
SECRETS = (
    *("probabilit", "0.88", "recorded", "secretmodel", "discrepancy", "p_record", "FIRST", "SECOND"),
    *("direction", "likely_size", "blurred"),
)


def put_bin(bin_: str, *hours: int, count: int = 2, recorded: int = 3, **more: Any) -> str:
    """A bin photographed this many hours ago, the last time as LATEST; its PK."""
    table, s3, item = Table.named("counts"), boto3.client("s3"), dict[str, Any]()
    place = Place(SITE, bin_, "")
    for number, hour in enumerate(hours):
        key, taken = f"incoming/{SITE}/{bin_}/{hour}.jpg", utc(NOW - timedelta(hours=hour))
        data = SAMPLES[(len(bin_) * 7 + hash(bin_) + number) % len(SAMPLES)].read_bytes()
        version = s3.put_object(Bucket=BUCKET, Key=key, Body=data)["VersionId"]
        item = {
            "PK": items.bin_key(place),
            "site": SITE,
            "bin": bin_,
            "image": {"bucket": BUCKET, "key": key, "version_id": version, "digest": f"{abs(hash((bin_, hour))):064x}"},
            "captured_at": taken,
            "uploaded_at": taken,
            "order": f"{taken}#{version}",
            "status": "COUNTED",
            "count": count,
            "is_minimum": count == 6,
            "confidence": 0.88,
            "probabilities": [0.88 if n == count else 0.02 for n in range(7)],
            "model_version": "2026-11-27-secretmodel",
            **items.comparison(
                Recorded(recorded, "record", taken, f"{taken}#1"),
                count,
                [0.88 if n == count else 0.02 for n in range(7)],
                0.05,
            ),
            **more,
        }
        table.put(item | {"SK": f"COUNT#{taken}#{number:016}"})
    table.put(item | {"SK": "LATEST", "site_key": items.site_key(SITE)})
    record = {"site": SITE, "bin": bin_, "expected_quantity": recorded, "as_of": item["captured_at"], "order": "1"}
    table.put(items.site_item(SITE))
    source = {"bucket": BUCKET, "key": "records/stock.csv", "version_id": "v", "line": 7}
    table.put(items.record_key(place) | record | {"source": source})
    return items.bin_key(place)


def recounted(pk: str, *said: tuple[str, int]) -> None:
    desk, table = Desk(Table.named("counts")), Table.named("counts")
    desk.follow(pk, NOW)
    for name, quantity in said:
        person = Person(name)
        review = desk.claim(pk, person, NOW)
        entry = Entry(f"{pk}{name}", name, NOW, quantity, note="two behind the box" if quantity == 5 else "")
        desk.enter(pk, entry, person, review["image"]["version_id"], NOW)
    assert table.get({"PK": pk, "SK": "REVIEW"}, consistent=True)


def put_totals(site: str, days_ago: int, **numbers: int) -> None:
    """The numbers of a day, as counts and, in capitals, reviews add them."""
    day = {"PK": items.day_key(site, utc(NOW - timedelta(days=days_ago)))}
    of_reviews = {name: value for name, value in numbers.items() if name.isupper()}
    of_counts = {name: value for name, value in numbers.items() if name.islower()}
    Table.named("counts").together(
        adding(day | {"SK": "TOTALS#00"}, of_counts), adding(day | {"SK": "REVIEWS#00"}, of_reviews)
    )


def put_month() -> None:
    """Numbers of the last 30 days; nobody has recounted today."""
    for back in range(30):
        weekend = (NOW - timedelta(days=back)).weekday() > 4
        counted = 40 if weekend else 190 + 23 * (back * 7 % 5)
        put_totals(
            SITE,
            back,
            counted=counted,
            rejected=counted // 40,
            compared=counted - 9,
            agreed=(counted - 9) * (58 + back % 7) // 100,
            retake=counted // 30,
            OPENED=counted // 9,
            **({"RECORD_RIGHT": counted // 14, "RECORD_WRONG": counted // 25} if back else {}),
            **({"RETAKE": 3, "CANNOT_COUNT": 2} if back else {}),
        )


@pytest.fixture
def warehouse(bins: Bins) -> Bins:
    """A site with a month behind it: bins that wait, that two people have counted, and that need nothing."""
    put_month()
    for number in range(11):
        pk = put_bin(f"P-{number:02}", 60, 30, 5 + number, count=number % 6, recorded=(number * 5) % 7)
        if number % 3 != 1:
            Desk(Table.named("counts")).follow(pk, NOW)
    flags = ["end_mark_missing", "blurred"]
    recounted(put_bin("A-1", 100, 50, 2, count=2, recorded=3, flags=flags), ("ana", 5), ("ben", 5))
    return bins


@pytest.fixture
def records_are_read(bins: Bins, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The record function reads while the answer waits for it."""
    seen: set[str] = set()
    services = Services(clients.s3(), Table.named("counts"), clients.events(), "artifacts", site_zone())

    def read(_: float) -> None:
        for version in clients.s3().list_object_versions(Bucket=BUCKET, Prefix="records/").get("Versions", []):
            if version["VersionId"] not in seen:
                seen.add(version["VersionId"])
                names = (BUCKET, version["Key"], version["VersionId"])
                record_file(services, Arrival("", version["LastModified"], *names, "", "0"), lambda: True)

    monkeypatch.setattr(bulk, "time", SimpleNamespace(sleep=read, monotonic=time.monotonic))
    yield


@pytest.fixture
def registry(bins: Bins) -> Iterator[None]:
    """Two versions of the model and both state machines."""
    with registered(boto3.client("s3")):
        yield


@pytest.mark.usefixtures("warehouse", "registry")
def test_the_overview_shows_what_waits_and_leads_to_it(signed_in: SignedIn) -> None:
    Table.named("counts").put(items.site_item("AUS2"))
    audited = {"audited": 240, "audited_wrong": 10, "audited_expected": 11, "audited_model_right": 100}
    Table.named("counts").put(score_key(SITE, "any", f"{NOW:%Y-%m}") | audited)
    page = signed_in("max")
    page.locator(".site select").select_option(SITE)
    expect(page.get_by_role("heading", name=f"Site {SITE}")).to_be_visible()
    expect(page.locator(".tile", has_text="Bins to recount").locator(".value")).to_have_text("5")
    expect(page.locator(".tile", has_text="Expected wrong").locator(".value")).to_have_text(re.compile(r"[1-5](\.\d)?"))
    expect(page.locator(".tile", has_text="Recounted today")).to_contain_text("1 record wrong")
    expect(page.get_by_role("img", name="What recounts found")).to_be_visible()
    page.locator(".chart", has_text="What recounts found").get_by_text("Numbers").click()
    expect(page.get_by_role("region", name="What recounts found").get_by_role("row")).to_have_count(31)
    expect(page.get_by_text("Random audit")).to_have_text(
        "Random audit (240 bins in 12 months): 4.2 % of the records are wrong (95 % interval 2.3 % to 7.5 %),"
        " 41.7 % of the counts are right (35.6 % to 48.0 %)."
    )
    page.locator(".chart", has_text="What recounts found").get_by_text("Numbers").click()
    page.set_viewport_size({"width": 1280, "height": 742})
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    shoot(page, "overview")
    page.get_by_role("link", name="AUS2").click()
    expect(page.get_by_role("heading", name="Site AUS2")).to_be_visible()
    expect(page.get_by_text("Random audit")).to_contain_text("no bin that was drawn at random has been recounted yet")
    page.get_by_role("link", name=SITE, exact=True).click()
    page.get_by_role("link", name="Start recounting").click()
    expect(page.locator(".number input")).to_be_focused()


@pytest.mark.usefixtures("registry")
def test_each_tile_of_the_overview_has_its_number(signed_in: SignedIn) -> None:
    Table.named("counts").put(items.site_item(SITE))
    put_totals(SITE, 0, counted=117, rejected=3, compared=100, agreed=70, retake=4, OPENED=8, RECORD_WRONG=1)
    put_totals(SITE, 9, counted=79, rejected=1, compared=60, agreed=50, retake=2, RETAKE=2, CANNOT_COUNT=1)
    page = signed_in("max")
    for tile, value, more in (
        ("Bins to recount", "0", "8 new today"),
        ("Counted today", "117", "3 not readable"),
        ("Recounted today", "1", "1 record wrong"),
        ("Agree with the record", "75 %", "of 160 photographs with a record, 30 days"),
        ("Unclear photographs", "3.0 %", "2 retakes, 1 not countable by people"),
        ("Live model", "one", "Models"),
    ):
        found = page.locator(".tile", has=page.get_by_text(tile, exact=True))
        expect(found.locator(".value")).to_have_text(value)
        expect(found).to_contain_text(more)
    page.locator(".tile", has_text="Live model").get_by_role("link", name="Models").click()
    expect(page.get_by_role("row", name="one live")).to_be_visible()


@pytest.mark.usefixtures("warehouse")
def test_a_counter_starts_at_the_queue_and_reads_no_number_of_a_bin(signed_in: SignedIn, server: Server) -> None:
    page = signed_in("ana")
    expect(page.locator(".number input")).to_be_focused()
    page.get_by_role("link", name="Overview").click()
    expect(page.locator(".tile", has_text="Counted today")).to_be_visible()
    expect(page.locator(".tile", has_text="Recounted today")).to_have_count(0)
    expect(page.get_by_text("Expected wrong").or_(page.get_by_text("Random audit"))).to_have_count(0)
    assert not [path for _, path, _ in server.gate.asked if path.endswith("/audit")]
    page.get_by_role("link", name="Bins").click()
    expect(page.get_by_role("listitem")).to_have_count(12)
    expect(page.locator(".gallery img").first).to_be_visible()
    page.get_by_role("link", name="P-03").click()
    expect(page.get_by_text("once people have recounted this bin")).to_be_visible()
    expect(page.locator(".strip button")).to_have_count(3)
    told = [(path, headers + body.decode()) for path, headers, body in server.gate.answered if "/bins" in path]
    assert told and not [path for path, text in told for secret in SECRETS if secret in text]
    page.get_by_role("link", name="All bins").click()
    pass_claim_length(items.bin_key(Place(SITE, "A-1", "")))
    page.get_by_role("link", name="A-1").click()
    expect(page.get_by_text("The record was wrong")).to_be_visible()
    assert page.get_by_role("link", name="Records").count() == 0


@pytest.mark.usefixtures("warehouse")
def test_a_bin_shows_its_photographs_record_and_trail(signed_in: SignedIn) -> None:
    page = signed_in("max")
    page.get_by_role("link", name="Bins").click()
    page.get_by_placeholder("Find a bin").fill("a-")
    expect(page.locator(".gallery li")).to_have_count(1)
    expect(page.locator(".gallery").get_by_text("new photograph", exact=True)).to_be_visible()
    page.get_by_role("link", name="A-1").click()
    expect(page.get_by_role("heading", name="Bin A-1")).to_be_focused()
    expect(page.locator(".facts .note")).to_have_text("Take a new photograph. This one is too blurred.")
    reasons = page.evaluate(
        """async (flags) => {
            const { texts } = await import(document.querySelector('link[href$="/texts.js"]').href);
            return flags.map((flag) => texts.bins.retake([flag]));
        }""",
        [*RETAKE],
    )
    assert all(reasons), "each flag that asks for a new photograph has its reason"
    expect(page.get_by_text("Noted: the file lacks its end mark.")).to_be_visible()
    expect(page.get_by_text("If the record is wrong: probably fewer items, by about 1.")).to_be_visible()
    expect(page.get_by_text("The record was wrong")).to_be_visible()
    expect(page.get_by_role("img", name="Probability of each count")).to_be_visible()
    lines = page.locator(".trail li")
    expect(lines).to_have_count(5)
    expect(lines.first).to_contain_text("Counted by ben: 5")
    expect(lines.last).to_contain_text("Recount asked for")
    shoot(page, "bin")
    page.locator(".strip button").nth(2).click()
    expect(page.locator(".strip button").nth(2)).to_have_attribute("aria-pressed", "true")


def test_names_of_bins_are_text(signed_in: SignedIn, bins: Bins) -> None:
    name = "<img src=x onerror=alert(1)>/ä#%"
    put_bin(name, 3)
    page = signed_in("vic")
    page.get_by_role("link", name="Bins").click()
    page.locator(".gallery a").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator(".strip button")).to_have_count(1)


def drop(page: Page, name: str, content: bytes) -> None:
    """A file of the desktop is dragged over the page's field and let go."""
    dragged = page.evaluate_handle(
        """([name, bytes]) => {
            const dragged = new DataTransfer();
            dragged.items.add(new File([new Uint8Array(bytes)], name, { type: "text/csv" }));
            return dragged;
        }""",
        [name, list(content)],
    )
    field = page.locator(".drop")
    field.dispatch_event("dragover", {"dataTransfer": dragged})
    expect(field).to_have_class("drop over")
    field.dispatch_event("dragleave")
    expect(field).to_have_class("drop")
    field.dispatch_event("dragover", {"dataTransfer": dragged})
    field.dispatch_event("drop", {"dataTransfer": dragged})
    expect(field).to_have_class("drop")


def test_the_faults_that_a_page_saves_are_no_formulas(signed_in: SignedIn) -> None:
    texts = ["=2+3", "+2", "-2", "@SUM(A1)", "\t=2", "\r=2", "\n=2"]
    written = signed_in("max").evaluate(
        """async (texts) => {
            const { csvOf } = await import(document.querySelector('link[href$="/records.js"]').href);
            return csvOf(texts.flatMap((text) => [{ line: 3, reason: text }, { line: 4, reason: `"${text}"` }]));
        }""",
        texts,
    )
    rows = [*csv.reader(io.StringIO(written, newline=""))]
    assert rows == [["line", "reason"], *(row for text in texts for row in (["3", f"'{text}"], ["4", f'"{text}"']))]


@pytest.mark.usefixtures("records_are_read")
def test_a_file_is_dropped_and_its_faults_are_saved(signed_in: SignedIn, tmp_path: Path) -> None:
    Table.named("counts").put(items.site_item(SITE))
    page = signed_in("max")
    page.get_by_role("link", name="Records").click()
    rows = "Lagerplatz;bin;Menge;quantity\nä;P-1;;4\nx;P-2;;=2+3\nx;P-3;;zwölf\n".encode("cp1252")
    drop(page, "stock.csv", rows)
    expect(page.get_by_text("1 row stored for 1 bin")).to_be_visible()
    expect(page.get_by_role("row", name="3 – not stored")).to_be_visible()
    assert [item["bin"] for item in boto3.resource("dynamodb").Table("counts").scan()["Items"] if "bin" in item] == [
        "P-1"
    ]
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download the faults").click()
    assert waited.value.suggested_filename == "stock-faults.csv"
    waited.value.save_as(tmp_path / "faults.csv")
    shoot(page, "records")
    wanted = "a whole number from 0 to 999,999,999 is expected, such as 4"
    faults = (tmp_path / "faults.csv").read_text("utf-8-sig")
    assert [*csv.reader(faults.splitlines())] == [
        ["line", "reason"],
        ["3", f"expected_quantity is '=2+3'; {wanted}"],
        ["4", f"expected_quantity is 'zwölf'; {wanted}"],
    ]
    page.get_by_label("Choose CSV files").set_input_files({"name": "none.csv", "mimeType": "text/csv", "buffer": b""})
    expect(page.get_by_text("The file is empty.")).to_be_visible()


@pytest.mark.usefixtures("registry")
def test_a_manager_reads_a_model_and_approves_it(signed_in: SignedIn) -> None:
    page = signed_in("max")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("link", name="Models").first.click()
    expect(page.get_by_role("row", name="one live")).to_be_visible()
    page.get_by_role("link", name="two").click()
    expect(page.get_by_role("heading", name="two waits for approval")).to_be_visible()
    expect(page.get_by_role("img", name="How often the most probable answer is right")).to_be_visible()
    expect(page.get_by_text("Measured on 9 test photographs of 3 bins.")).to_be_visible()
    figures = page.locator("table.plain").locator("tr")
    expect(figures).to_have_text(["Ranked probability score (less is better)0.640", "Accuracy39.0 %", "RMSE1.170"])
    rows = page.locator(".confusion tbody tr").all()
    cells = [row.locator("td").all_inner_texts() for row in rows]
    assert cells == [[str(number) for number in row] for row in FIGURES["confusion"]], "rows: recorded"
    shoot(page, "models")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Model two is approved; its release starts.")).to_be_visible()
    expect(page.get_by_role("heading", name="two approved")).to_be_visible()
    page.get_by_role("button", name="Start a retraining").click()
    expect(page.get_by_text("The retraining has started.")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("Rolling back to model zero.")).to_be_visible()
    expect(page.get_by_text("A release is running")).to_be_visible()


@pytest.mark.usefixtures("registry")
def test_a_running_retraining_is_watched_to_its_end(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "_step", lambda *_: "TrainModel")  # moto runs no state
    table = Table.named("counts")
    run = {"PK": "RETRAIN", "SK": "RUN#a", "run": "261129-abcdef", "execution": "any", "trigger": "by hand"}
    run |= {"outcome": "running", "started_at": "2026-11-29T10:00:00.000000Z"}
    table.put(run)
    page = signed_in("max")
    page.get_by_role("link", name="Models").first.click()
    row = page.get_by_role("row", name="261129-abcdef")
    expect(row).to_contain_text("running at train model")
    expect(page.get_by_role("button", name="Start a retraining")).to_be_disabled()
    table.put(run | {"outcome": "not better", "model_version": "two", "reason": "RPS is worse by 0.01"})
    expect(row).to_contain_text("not better")
    expect(row.locator("td")).to_have_text([re.compile("29 Nov 2026"), "not better", "two", "RPS is worse by 0.01"])
    expect(page.get_by_role("button", name="Start a retraining")).to_be_enabled()
    row.get_by_role("button", name="two").click()
    expect(page.get_by_role("heading", name="two waits for approval")).to_be_visible()


@pytest.mark.usefixtures("registry")
def test_who_is_no_manager_sees_models_and_decides_nothing(signed_in: SignedIn) -> None:
    page = signed_in("vic")
    page.get_by_role("link", name="Models").first.click()
    expect(page.get_by_role("row", name="one live")).to_be_visible()
    assert page.get_by_role("button", name="Approve").or_(page.get_by_role("button", name="Roll back")).count() == 0


@pytest.mark.usefixtures("warehouse", "registry")
def test_axe_finds_nothing_serious_by_day_and_by_night(signed_in: SignedIn) -> None:
    page = signed_in("max")
    for address, shown in (
        (f"#/overview/{SITE}", ".chart"),
        (f"#/bins/{SITE}", ".gallery img"),
        (f"#/bins/{SITE}/A-1", ".trail"),
        (f"#/records/{SITE}", ".drop"),
        ("#/models//two", ".confusion"),
    ):
        page.evaluate("address => { location.hash = address; }", address)
        expect(page.locator(shown).first).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            if (address, scheme) == (f"#/bins/{SITE}", "light"):
                shoot(page, "bins")
            assert not serious(page), (address, scheme)

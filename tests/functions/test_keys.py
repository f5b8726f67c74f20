"""Object keys, table keys and captured_at."""

from datetime import UTC, datetime, timedelta

import pytest
from bintally.common.errors import Rejected
from bintally.common.keys import EXPECTED, LONGEST_ID, Place, captured_at, encode_id, parse_key, utc
from hypothesis import given
from hypothesis import strategies as st

UPLOADED = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=60)
keyish = st.text("#%aB25 3", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("key", "site", "bin_"),
    [
        ("incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg", "SEA1", "P-4-B217"),
        ("incoming/P-4.B217.jpg", "default", "P-4.B217"),
        ("incoming/a b+c/100%#/📦.jpg", "a b+c", "100%#"),
    ],
)
def test_parses(key: str, site: str, bin_: str) -> None:
    assert parse_key(key) == Place(site, bin_, key.rsplit("/", 1)[1])


@pytest.mark.parametrize(
    "key",
    [
        *("incoming/", "incoming/no-ending", "incoming/.jpg", "incoming/x.", "incoming//bin/name"),
        *("incoming/site//name", "incoming/site/bin/", "incoming/site/name", "incoming/a/b/c/d", "outgoing/b.jpg", ""),
    ],
)
def test_says_the_expected_pattern(key: str) -> None:
    with pytest.raises(Rejected, match="expected incoming/<site>/<bin>/<name>"):
        parse_key(key)
    assert "incoming/<bin>.<ext>" in EXPECTED


@given(ids, ids, ids)
def test_any_three_ids_come_back(site: str, bin_: str, name: str) -> None:
    assert parse_key(f"incoming/{site}/{bin_}/{name}") == Place(site, bin_, name)


@given(st.tuples(keyish, keyish), st.tuples(keyish, keyish))
def test_two_bins_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = ["#".join(map(encode_id, pair)) for pair in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert keys[0].count("#") == 1


@given(ids | st.sampled_from(["#" * 900, "📦" * 220, "a" * 401]))
def test_a_table_key_is_never_too_long(text: str) -> None:
    assert len(encode_id(text).encode()) <= LONGEST_ID


def test_long_ids_stay_apart() -> None:
    assert encode_id("a" * 500) != encode_id("a" * 501)
    assert encode_id(encode_id("a" * 500)) != encode_id("a" * 500)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T11:15:00+01:00", "2026-11-22T10:15:00.000000Z"),
        ("2026-11-22T10:15:00.25", "2026-11-22T10:15:00.250000Z"),
        ("2026-11-22", "2026-11-22T00:00:00.000000Z"),
        ("20261122T101500Z", "2026-11-22T10:15:00.000000Z"),
        ("2026-11-22T10:25:00Z", "2026-11-22T10:25:00.000000Z"),
    ],
)
def test_believes_metadata(text: str, expected: str) -> None:
    found, flags = captured_at({"captured-at": text}, Place("s", "b", "1999-01-01T00:00:00.jpg"), UPLOADED)
    assert (utc(found), flags) == (expected, ())


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("2099-01-01T00:00:00Z", "captured_at_after_upload"),
        ("2026-11-22T10:25:01Z", "captured_at_after_upload"),
        ("yesterday", "captured_at_unreadable"),
        ("", "captured_at_unreadable"),
        ("2026-13-45T00:00:00Z", "captured_at_unreadable"),
        ("0001-01-01T00:00:00+14:00", "captured_at_unreadable"),
    ],
)
def test_flags_what_cannot_be(text: str, flag: str) -> None:
    place = Place("s", "b", "2020-01-01T00:00:00Z.jpg")
    assert captured_at({"captured-at": text}, place, UPLOADED) == (UPLOADED, (flag,))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2026-11-22T10:15:00Z.jpg", "2026-11-22T10:15:00.000000Z"),
        ("2026-11-22T12:15:00+02:00.jpg", "2026-11-22T10:15:00.000000Z"),
        ("IMG_20261122_101500.jpg", "2026-11-22T10:15:00.000000Z"),
        ("cam3-2026-11-22 10.15.00.jpg", "2026-11-22T10:15:00.000000Z"),
        ("20261122T101500.jpg", "2026-11-22T10:15:00.000000Z"),
        ("20261122101500.5.jpg", "2026-11-22T10:15:00.500000Z"),
        ("0001.jpg", utc(UPLOADED)),
        ("99999999999999.jpg", utc(UPLOADED)),
        ("123456789012345678901234.jpg", utc(UPLOADED)),
    ],
)
def test_reads_a_timestamp_in_the_name(name: str, expected: str) -> None:
    found, flags = captured_at({}, Place("s", "b", name), UPLOADED)
    assert (utc(found), flags) == (expected, ())


def test_flags_a_name_of_the_future() -> None:
    found = captured_at({}, Place("s", "b", "2099-01-01T00:00:00Z.jpg"), UPLOADED)
    assert found == (UPLOADED, ("captured_at_after_upload",))


@given(st.text(max_size=40), st.text(max_size=40))
def test_is_never_later_than_the_upload_allows(text: str, name: str) -> None:
    found, _ = captured_at({"captured-at": text} if text else {}, Place("s", "b", name), UPLOADED)
    assert found <= UPLOADED + timedelta(minutes=5)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    assert (utc(one) < utc(other)) == (one < other)
    assert len(utc(one)) == 27

"""Object keys and table keys, and which ids are the same."""

import unicodedata
from datetime import UTC, datetime

import pytest
from bintally.common.errors import Rejected
from bintally.common.keys import (
    _SYSTEM_FILES,
    EXPECTED,
    LONGEST_ID,
    Place,
    encode_id,
    fold,
    is_folder_marker,
    parse_key,
    parse_records_key,
    utc,
)
from hypothesis import given
from hypothesis import strategies as st

ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), min_size=1, max_size=60).filter(
    lambda text: (
        fold(text) and text not in (".", "..") and not text.startswith("._") and text.lower() not in _SYSTEM_FILES
    )
)
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
    with pytest.raises(Rejected, match="; expected incoming/<site>/<bin>/<name>"):
        parse_key(key)
    assert "incoming/<bin>.<ext>" in EXPECTED


@given(ids, ids, ids)
def test_any_three_ids_come_back(site: str, bin_: str, name: str) -> None:
    assert parse_key(f"incoming/{site}/{bin_}/{name}") == Place(site, bin_, name)


@given(st.tuples(keyish, keyish), st.tuples(keyish, keyish))
def test_two_bins_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = ["#".join(map(encode_id, pair)) for pair in (one, other)]
    assert (keys[0] == keys[1]) == (tuple(map(fold, one)) == tuple(map(fold, other)))
    assert keys[0].count("#") == 1


@given(ids | st.sampled_from(["#" * 900, "📦" * 220, "a" * 401]))
def test_a_table_key_is_never_too_long(text: str) -> None:
    assert len(encode_id(text).encode()) <= LONGEST_ID


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_plain_ids_fold_as_any_others(text: str) -> None:
    """Without the shortcut: an invisible character is no difference."""
    assert fold(text) == fold(text + "\u200b")


def test_the_default_site_keeps_its_key() -> None:
    assert encode_id("default") == encode_id("Default") == "default"


def test_long_ids_stay_apart() -> None:
    assert encode_id("a" * 500) != encode_id("a" * 501)
    assert encode_id(encode_id("a" * 500)) != encode_id("a" * 500)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    assert (utc(one) < utc(other)) == (one < other)
    assert len(utc(one)) == 27


PLAIN = "SEA1 P-4-B217"
SAME = {
    "small letters": "sea1 p-4-b217",
    "full-width": "ＳＥＡ１　Ｐ－４－Ｂ２１７",
    "dashes of a word processor": "SEA1 P–4—B217",
    "minus and no-break hyphen": "SEA1 P−4‑B217",
    "no-break space": "SEA1\u00a0P-4-B217",
    "spaces around and doubled": "  SEA1 \t P-4-B217 \r\n",
    "zero width": "SEA1 \u200bP-4\u2060-B2\u200d17\ufeff",
    "copied from right-to-left text": "\u200eSEA1 P-4-B217\u202c",
    "soft hyphen": "SEA1 P-4-B2\u00ad17",
    "variation selector": "SEA1 P-4-B217\ufe0f",
    "control characters": "SEA1 P-4\x00-B217\x07",
    "Cyrillic": "ЅЕА1 Р-4-В217",
    "Greek": "SΕΑ1 Ρ-4-Β217",
}


@pytest.mark.parametrize("name", SAME)
def test_ids_that_look_the_same_are_one(name: str) -> None:
    assert fold(SAME[name]) == PLAIN
    assert encode_id(SAME[name]) == encode_id(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A1", "A 1"),
        ("A-1", "A_1"),
        ("A-1", "A1"),
        ("O1", "01"),
        ("I1", "11"),
        ("A.1", "A-1"),
        ("é1", "e1"),
        ("1", "١"),
    ],
)
def test_ids_that_look_different_are_two(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_composed_and_decomposed_letters_are_one() -> None:
    """macOS decomposes the names of files."""
    assert fold(unicodedata.normalize("NFD", "Über-Gang é")) == fold("über-gang É")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.from_regex(r"[A-Z0-9]([A-Z0-9.#%_-]| (?=[A-Z0-9])){0,20}", fullmatch=True))
def test_plain_ids_keep_their_keys(text: str) -> None:
    assert fold(text) == text.rstrip()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("incoming/SEA1\\P-1\\a.jpg", "the key contains a backslash"),
        ("incoming\\SEA1\\P-1\\a.jpg", "the key contains a backslash"),
        ("/incoming/SEA1/P-1/a.jpg", "the key begins with a slash"),
        ("Incoming/SEA1/P-1/a.jpg", "the key begins with Incoming/ instead of incoming/"),
        ("incoming/SEA1//a.jpg", "a part of the key is empty"),
        ("incoming//SEA1/P-1/a.jpg", "a part of the key is empty"),
        ("incoming///a.jpg", "a part of the key is empty"),
        ("incoming/SEA1/P-1/", "the key ends with a slash"),
        ("incoming/../P-1/a.jpg", "the key contains . or .."),
        ("incoming/SEA1/./a.jpg", "the key contains . or .."),
        ("incoming/SEA1/@eaDir/a.jpg", "@eaDir is a system's own"),
        ("incoming/SEA1/P-1/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir is a system's own"),
        ("incoming/#recycle/P-1/a.jpg", "#recycle is a system's own"),
        ("incoming/lost+found/P-1/a.jpg", "lost"),
        ("incoming/SEA1/P-1/._a.jpg", "._a.jpg is a system's own"),
        ("incoming/._a.jpg", "._a.jpg is a system's own"),
        ("incoming/Thumbs.db", "Thumbs.db is a system's own"),
        ("incoming/SEA1/P-1/.DS_Store", ".DS_Store is a system's own"),
        ("incoming/SEA1/\u200b/a.jpg", "the key fits no pattern"),
        ("incoming/ /P-1/a.jpg", "the key fits no pattern"),
        ("incoming/\u200b.jpg", "the key fits no pattern"),
    ],
)
def test_keys_that_name_no_bin_say_why(key: str, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_key(key)
    assert str(caught.value).startswith(reason) and str(caught.value).endswith(EXPECTED)


@pytest.mark.parametrize("key", ["Records/a.csv", "/records/a.csv", "records\\SEA1\\P-1.json", "records/../a.csv"])
def test_keys_of_records_say_why_too(key: str) -> None:
    with pytest.raises(Rejected, match=r"the key (begins|contains).*expected records/"):
        parse_records_key(key)


@pytest.mark.parametrize(
    ("key", "size", "is_one"),
    [
        ("incoming/SEA1/", 0, True),
        ("records/", 0, True),
        ("incoming/SEA1_$folder$", 0, True),
        ("incoming/SEA1/", 12, False),
        ("incoming/SEA1/", None, False),
        ("incoming/SEA1/P-1/a.jpg", 0, False),
    ],
)
def test_markers_of_folders(key: str, size: int | None, is_one: bool) -> None:
    assert is_folder_marker(key, size) is is_one

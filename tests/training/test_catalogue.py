"""What the catalogue of a dataset makes of labels that people took back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.dataset.catalogue import Catalogue, id_of
from training.dataset.layout import Line

NOON, LATER = "2026-11-22T12:00:00.000000Z", "2026-11-22T13:00:00.000000Z"
IMAGE = {"bucket": "images", "key": "incoming/S/B/a.jpg", "version_id": "v"}


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    found = Catalogue(tmp_path / "catalogue.db")
    known: dict[str, Any] = {
        **{"id": id_of(**IMAGE), "site": "S", "bin": "B", "quantity": 4, "source": "person", "as_of": NOON},
        **{"captured_at": NOON, "split": "train", "object": "o", "member": "m", "pixels": "p", "brightness": 0.5},
        **{"blur": 1.0, "width": 1, "height": 1, "count": 1, "confidence": 1.0, "p_record": None},
        **{"model_version": "v", "told": ""},
    }
    found.add_known([Line(**known)])
    yield found
    found.close()


def manifest(quantity: int, source: str, as_of: str, **more: Any) -> bytes:
    line = {"image": IMAGE, "site": "S", "bin": "B", "quantity": quantity, "source": source, "as_of": as_of}
    return json.dumps(line | more).encode()


def rows(catalogue: Catalogue) -> list[tuple[int, str, int]]:
    query = "SELECT json_extract(label, '$.quantity'), as_of, new FROM photographs"
    return list(catalogue._sql.execute(query))


def test_a_record_does_not_replace_a_persons_label_unless_that_was_withdrawn(catalogue: Catalogue) -> None:
    catalogue.add_labels([manifest(3, "record", LATER)])
    assert rows(catalogue) == [(4, NOON, 0)]
    catalogue.add_labels([manifest(3, "record", LATER, withdraws=[NOON])])
    assert rows(catalogue) == [(3, LATER, 1)]


def test_a_photograph_without_another_label_leaves(catalogue: Catalogue) -> None:
    catalogue.add_labels([manifest(4, "person", LATER, withdrawn=True, withdraws=[LATER])])
    assert rows(catalogue) == [(4, NOON, 0)], "another label of the person was withdrawn"
    catalogue.add_labels([manifest(4, "person", NOON, withdrawn=True, withdraws=[NOON])])
    assert rows(catalogue) == []


def test_a_label_of_the_random_audit_is_known_as_such(catalogue: Catalogue) -> None:
    audits = "SELECT json_extract(label, '$.audit') FROM photographs"
    assert list(catalogue._sql.execute(audits)) == [(0,)], "a line of an older index does not say it"
    catalogue.add_labels([manifest(5, "person", LATER, audit=True)])
    assert list(catalogue._sql.execute(audits)) == [(1,)]

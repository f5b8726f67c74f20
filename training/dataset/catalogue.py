"""The photographs of one processing job in an SQLite file: known ones, new ones, and the results.

It is a file and not a dictionary, since memory must not grow with the number of photographs. Each question about all
of them (which are duplicates, how many a split has) is one query.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from training.dataset.examine import Wanted
from training.dataset.layout import SPLITS, BadDataset, Line, split_of

SHARD = 256
"""Approximate number of photographs of a shard."""

LABEL = (
    "quantity",
    "source",
    "as_of",
    "told",
    "captured_at",
    "count",
    "confidence",
    "p_record",
    "model_version",
    "audit",
)
"""The fields of a known photograph's line that a new label changes."""
FACTS = ("object", "member", "pixels", "brightness", "blur", "width", "height")
"""The fields that are determined once, when a photograph is read."""

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE photographs (
    id TEXT PRIMARY KEY, site TEXT, bin TEXT, split TEXT, image TEXT, new INTEGER,
    person INTEGER, as_of TEXT, told TEXT, label TEXT,
    spread INTEGER, shard INTEGER,
    facts TEXT, pixels TEXT, fault TEXT, duplicate_of TEXT
) WITHOUT ROWID;
CREATE INDEX by_shard ON photographs (shard, id);
CREATE INDEX by_pixels ON photographs (pixels);
"""

ADD = """
INSERT INTO photographs (id, site, bin, split, image, new, person, as_of, told, label, spread, facts, pixels)
VALUES (:id, :site, :bin, :split, :image, :new, :person, :as_of, :told, :label, :spread, :facts, :pixels)
ON CONFLICT (id) DO UPDATE
SET person = excluded.person, as_of = excluded.as_of, told = excluded.told, label = excluded.label
WHERE (excluded.person, excluded.as_of, excluded.told) >= (person, as_of, told)
"""

RENEW = """
UPDATE photographs SET image = :image, spread = :spread, new = TRUE WHERE id = :id AND facts IS NULL
"""
"""A photograph that was left out is read again when it has a new label. Its old label stays if it outranks that one."""

WITHDRAW = "DELETE FROM photographs WHERE id = ? AND person AND as_of = ?"
"""Its photograph is read again if it has another label."""

# Of identical pictures one is kept: a test photograph before any other, so that training never sees it; then one that
# a person counted, then the one with the newest label.
DUPLICATES = """
UPDATE photographs SET duplicate_of = kept FROM (
    SELECT id AS other, first_value(id) OVER (
        PARTITION BY pixels
        ORDER BY split = 'test' DESC, split = 'validation' DESC, person DESC, as_of DESC, id
    ) AS kept FROM photographs WHERE facts IS NOT NULL
) WHERE id = other AND id != kept
"""

IN_DATASET = "facts IS NOT NULL AND duplicate_of IS NULL"


class Catalogue:
    def __init__(self, file: Path) -> None:
        self._sql = sqlite3.connect(file)
        self._sql.executescript(SCHEMA)

    def close(self) -> None:
        self._sql.close()

    def add_known(self, lines: Iterable[Line]) -> None:
        """The photographs of an earlier dataset."""
        self._sql.executemany(ADD, map(_known, lines))

    def keep_only(self, objects: Iterable[str]) -> int:
        """Leaves out the known photographs that are in none of these objects, unless they get a new label.

        Returns their number.
        """
        self._sql.execute("CREATE TEMP TABLE kept (object TEXT PRIMARY KEY) WITHOUT ROWID")
        self._sql.executemany("INSERT INTO kept VALUES (?)", ((name,) for name in objects))
        query = """
            UPDATE photographs SET facts = NULL, pixels = NULL
            WHERE json_extract(facts, '$.object') NOT IN (SELECT object FROM kept)
        """
        return self._sql.execute(query).rowcount

    def add_labels(self, lines: Iterable[bytes]) -> None:
        """Adds a manifest's labels: a known photograph gets the label if that outranks its own, or if its own was
        withdrawn. A photograph without another label leaves. Raises `BadDataset`."""
        for number, line in enumerate(lines, start=1):
            row, withdrawn = _labelled(number, line)
            self._sql.executemany(WITHDRAW, [(row["id"], as_of) for as_of in withdrawn])
            if not row.pop("gone"):
                self._sql.execute(RENEW, row)
                self._sql.execute(ADD, row)
        self._sql.execute("DELETE FROM photographs WHERE facts IS NULL AND image IS NULL")

    def share_out(self) -> None:
        """Assigns each new photograph to a shard by a hash of its bin: the result is the same on every instance."""
        first = 0
        for split in SPLITS:
            new = self._number("new AND split = ?", split)
            shards = -(-new // SHARD)
            if shards:
                query = "UPDATE photographs SET shard = ? + spread % ? WHERE new AND split = ?"
                self._sql.execute(query, (first, shards, split))
            first += shards

    def wanted(self, host: int, hosts: int) -> Iterator[Wanted]:
        """The photographs that one of several hosts reads, shard by shard."""
        query = "SELECT id, split, shard, image FROM photographs WHERE new AND shard % ? = ? ORDER BY shard, id"
        for id_, split, shard, image in self._sql.execute(query, (hosts, host)):
            yield Wanted(id_, split, shard, **json.loads(image))

    def take(self, outcomes: Iterable[dict[str, Any]]) -> None:
        """Stores the results of new photographs: {"id", "fault"} or {"id", then `FACTS`}."""

        def row(outcome: dict[str, Any]) -> tuple[Any, ...]:
            if "fault" in outcome:
                return None, None, outcome["fault"], outcome["id"]
            facts = {name: outcome[name] for name in FACTS}
            return json.dumps(facts), facts["pixels"], None, outcome["id"]

        query = "UPDATE photographs SET facts = ?, pixels = ?, fault = ? WHERE id = ?"
        self._sql.executemany(query, map(row, outcomes))

    def drop_duplicates(self) -> None:
        self._sql.execute(DUPLICATES)

    def lines(self, *, new: bool = False) -> Iterator[Line]:
        """The dataset in the order of ids, or only the photographs of this job."""
        query = f"SELECT id, site, bin, split, label, facts FROM photographs WHERE {IN_DATASET}"
        with closing(self._sql.execute(query + (" AND new" if new else "") + " ORDER BY id")) as rows:
            for id_, site, bin_, split, label, facts in rows:
                yield Line(id=id_, site=site, bin=bin_, split=split, **json.loads(label), **json.loads(facts))

    def objects(self, split: str) -> Iterator[str]:
        """The shards or photographs of a split, in order."""
        query = f"SELECT DISTINCT json_extract(facts, '$.object') FROM photographs WHERE {IN_DATASET} AND split = ?"
        for (name,) in self._sql.execute(query + " ORDER BY 1", (split,)):
            yield name

    def unreadable(self) -> Iterator[dict[str, Any]]:
        query = "SELECT id, site, bin, image, fault FROM photographs WHERE fault IS NOT NULL ORDER BY id"
        for id_, site, bin_, image, fault in self._sql.execute(query):
            yield {"id": id_, "site": site, "bin": bin_, "image": json.loads(image), "reason": fault}

    def duplicates(self) -> Iterator[dict[str, Any]]:
        """Their pictures are in the shards, so each says where."""
        query = """
            SELECT id, duplicate_of, site, bin, split, image, label, facts FROM photographs
            WHERE duplicate_of IS NOT NULL ORDER BY id
        """
        for id_, kept, site, bin_, split, image, label, facts in self._sql.execute(query):
            found = json.loads(label) | json.loads(facts)
            place = {"site": site, "bin": bin_, "split": split}
            place |= {name: found[name] for name in ("captured_at", "object", "member")}
            yield {"id": id_, "kept": kept, "image": json.loads(image) if image else None, **place}

    def missing(self) -> int:
        """The number of new photographs without a result."""
        return self._number("new AND facts IS NULL AND fault IS NULL")

    def numbers(self) -> dict[str, int]:
        return {
            "asked": self._number("new"),
            "new": self._number(f"new AND {IN_DATASET}"),
            "duplicates": self._number("duplicate_of IS NOT NULL"),
            "unreadable": self._number("fault IS NOT NULL"),
        }

    def bins(self, *, new: bool = False) -> dict[str, int]:
        """Distinct bins of each site."""
        query = f"SELECT site, count(DISTINCT bin) FROM photographs WHERE {IN_DATASET}"
        return dict(self._sql.execute(query + (" AND new" if new else "") + " GROUP BY site ORDER BY site"))

    def _number(self, condition: str, *values: str) -> int:
        return int(self._sql.execute(f"SELECT count(*) FROM photographs WHERE {condition}", values).fetchone()[0])


def id_of(bucket: str, key: str, version_id: str) -> str:
    return hashlib.sha256("\0".join((bucket, key, version_id)).encode()).hexdigest()[:16]


def _known(line: Line) -> dict[str, Any]:
    return {
        "id": line.id, "site": line.site, "bin": line.bin, "split": line.split, "image": None, "new": False,
        "person": line.source == "person", "as_of": line.as_of, "told": line.told, "spread": None,
        "label": json.dumps({name: getattr(line, name) for name in LABEL}),
        "facts": json.dumps({name: getattr(line, name) for name in FACTS}), "pixels": line.pixels,
    }  # fmt: skip


def _labelled(number: int, text: bytes) -> tuple[dict[str, Any], list[str]]:
    """The row of a label, `gone` if it is none any more, and the effective times of withdrawn ones."""
    try:
        given = json.loads(text)
        image = {name: str(given["image"][name]) for name in ("bucket", "key", "version_id")}
        site, bin_ = str(given["site"]), str(given["bin"])
        told = str(given.get("told", ""))
        label = {name: given.get(name) for name in LABEL} | {
            "quantity": int(given["quantity"]), "told": told, "audit": bool(given.get("audit")),
        }  # fmt: skip
        row = {
            "id": id_of(**image), "site": site, "bin": bin_, "split": split_of(site, bin_), "image": json.dumps(image),
            "gone": bool(given.get("withdrawn")), "new": True,
            "person": given["source"] == "person", "as_of": str(given["as_of"]), "told": told,
            "spread": int(hashlib.sha256(f"{site}/{bin_}".encode()).hexdigest()[8:16], 16),
            "label": json.dumps(label), "facts": None, "pixels": None,
        }  # fmt: skip
        return row, [str(each) for each in given.get("withdraws", [])]
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataset(f"line {number} of the manifest is no label: {type(error).__name__} {error}") from error

"""Deletes what a stack knows of bins: photographs in all versions, display copies, counts, recounts, labels.

What remains are sums (day totals, scores), datasets and models that learned from the photographs, and copies that
DynamoDB's point-in-time recovery and S3's logs keep on their own. A run that failed may be repeated: items are deleted
after all that they lead to.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bintally.common.keys import encode_id, fold, utc
from boto3.dynamodb.conditions import Attr, Key

from deployed.kept import empty
from deployed.stack import Deployed

Item = dict[str, Any]

TRAIL = "forgotten/"
"""Below it the artifacts bucket has a line for each time that something was forgotten."""
DATED = {
    **dict.fromkeys(("COUNT", "LATEST", "REVIEW"), "captured_at"),
    **dict.fromkeys(("RECOUNT", "ANSWER", "UNDONE", "TRAIL"), "at"),
}
"""The attribute that says how old an item is, by the first word of its sort key. A RECORD is of today."""


@dataclass(frozen=True)
class Scope:
    """What is forgotten: a bin, a site, or what is older than `before`, of one site or of all."""

    site: str = ""
    bin: str = ""
    before: str = ""
    """As `utc` spells it; empty when age does not matter."""

    @property
    def prefix(self) -> str:
        """Begins the keys of all its bins."""
        return f"BIN#{encode_id(self.site)}#" if self.site else "BIN#"

    def holds(self, about: Mapping[str, Any]) -> bool:
        """Whether a label or a line of a dataset belongs to it."""
        return (
            (not self.site or fold(str(about["site"])) == fold(self.site))
            and (not self.bin or fold(str(about["bin"])) == fold(self.bin))
            and (not self.before or str(about["captured_at"]) < self.before)
        )

    def chosen(self, item: Item) -> bool:
        """Whether an item of one of its bins is old enough."""
        kind = str(item["SK"]).partition("#")[0]
        return not self.before or (kind in DATED and str(item.get(DATED[kind], "~")) < self.before)


@dataclass
class Forgetting:
    """Forgets a scope, or with `dry_run` only counts what it would forget."""

    stack: Deployed
    scope: Scope
    dry_run: bool
    found: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        outputs = self.stack.outputs()
        self.images, self.artifacts = outputs["ImagesBucket"], outputs["ArtifactsBucket"]
        self.table, self.s3 = self.stack.counts_table(), self.stack.client("s3")

    def run(self) -> dict[str, Any]:
        """Numbers by kind, and the models that learned from the photographs. Raises DestroyFailed or ClientError."""
        models = self.models()
        self.labels()
        for bin_ in self.bins():
            self.bin(bin_)
        if not self.scope.before:
            self.uploads()
        if self.scope.site and not self.scope.bin and not self.scope.before and not self.dry_run:
            self.table.delete_item(Key={"PK": "SITES", "SK": f"SITE#{encode_id(self.scope.site)}"})
        said = {"scope": vars(self.scope), **self.found, "models": models}
        if not self.dry_run:
            at = utc(datetime.now(UTC))
            who = self.stack.client("sts").get_caller_identity()["Arn"]
            line = json.dumps({"at": at, "by": who, **said})
            self.s3.put_object(Bucket=self.artifacts, Key=f"{TRAIL}{at}.json", Body=line.encode())
        return said

    # Table

    def bins(self) -> Iterator[str]:
        """The partition keys of the bins. All but a single bin's take a scan of the table."""
        if self.scope.bin:
            yield self.scope.prefix + encode_id(self.scope.bin)
            return
        query: Any = {
            "FilterExpression": Attr("PK").begins_with(self.scope.prefix),
            "ProjectionExpression": "PK",
        }
        # The items of a partition come together.
        for bin_, _ in itertools.groupby(str(item["PK"]) for item in pages(self.table.scan, query)):
            yield bin_

    def bin(self, bin_: str) -> None:
        query: Any = {"KeyConditionExpression": Key("PK").eq(bin_), "ConsistentRead": True}
        items = [item for item in pages(self.table.query, query) if self.scope.chosen(item)]
        if not items:
            return
        self.found["bins"] += 1
        keys = [{"PK": item["PK"], "SK": item["SK"]} for item in items]
        for count in (item for item in items if str(item["SK"]).startswith("COUNT#")):
            image = count["image"]
            self.found["photographs"] += 1
            keys.append({"PK": f"IMAGE#{version_sha256(image)}", "SK": "IMAGE"})
            if not self.dry_run:
                self.s3.delete_object(Bucket=image["bucket"], Key=image["key"], VersionId=image["version_id"])
                if "digest" in image:
                    empty(self.s3, self.artifacts, f"display/{image['digest']}")
        keys += self.differences(items)
        self.found["items"] += len(keys)
        if self.dry_run:
            return
        for review in (item for item in items if item["SK"] == "REVIEW" and item.get("tallied")):
            self.no_longer_waits(review)
        with self.table.batch_writer() as batch:
            for key in keys:
                batch.delete_item(Key=key)

    def differences(self, items: Iterable[Item]) -> list[Item]:
        """The keys of the export's rows about a bin: its trail says on which days there may be some."""
        trail = [item for item in items if str(item["SK"]).startswith("TRAIL#")]
        days = {(item["site"], str(item["at"])[:10]) for item in trail if "site" in item}
        found = []
        for site, day in sorted(days):
            condition = Key("PK").eq(f"DAY#{encode_id(site)}#{day}") & Key("SK").begins_with("DIFFERENCE#")
            query: Any = {"KeyConditionExpression": condition, "ProjectionExpression": "PK, SK"}
            ours = hashlib.sha256(str(trail[0]["PK"]).encode()).hexdigest()[:16]
            found += [item for item in pages(self.table.query, query) if str(item["SK"]).endswith(f"#{ours}")]
        return found

    def no_longer_waits(self, review: Item) -> None:
        """Takes an open review out of the number of those that wait, once."""
        shard = int.from_bytes(hashlib.sha256(str(review["PK"]).encode()).digest()[:4], "big") % 16
        self.table.update_item(
            Key={"PK": f"WAITING#{encode_id(review['site'])}", "SK": f"WAITING#{shard:02d}"},
            UpdateExpression="ADD #stage :less",
            ExpressionAttributeNames={"#stage": review["tallied"]},
            ExpressionAttributeValues={":less": -1},
        )
        self.table.delete_item(Key={"PK": review["PK"], "SK": "REVIEW"})

    # Buckets

    def uploads(self) -> None:
        """Photographs without a count too, old versions, and the files of records of single bins."""
        for folder in ("incoming/", "records/"):
            for prefix in self.prefixes(folder):
                self.found["objects"] += self.count(prefix) if self.dry_run else empty(self.s3, self.images, prefix)

    def prefixes(self, folder: str) -> Iterator[str]:
        """Begin the keys of a site or bin: however they are spelled."""
        for site in self.folders(folder):
            if fold(site.rstrip("/")) != fold(self.scope.site):
                continue
            if not self.scope.bin:
                yield folder + site
            for name in self.folders(folder + site) if self.scope.bin else ():
                if fold(name.rstrip("/").removesuffix(".json")) == fold(self.scope.bin):
                    yield folder + site + name

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders, with a slash, and objects in a folder, without."""
        query: Any = {"Bucket": self.images, "Prefix": prefix, "Delimiter": "/"}
        for page in self.s3.get_paginator("list_object_versions").paginate(**query):
            names = {one["Key"] for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))}
            names |= {one["Prefix"] for one in page.get("CommonPrefixes", ())}
            yield from sorted(name.removeprefix(prefix) for name in names)

    def count(self, prefix: str) -> int:
        pages_ = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.images, Prefix=prefix)
        return sum(len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ())) for page in pages_)

    def labels(self) -> None:
        """Writes the objects of the label log that name the scope without these lines, and deletes what was there."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.artifacts, Prefix="labels/"):
            for one in page.get("Contents", ()):
                if one["Key"].endswith(".jsonl"):
                    self.without(one["Key"])

    def without(self, key: str) -> None:
        lines = self.s3.get_object(Bucket=self.artifacts, Key=key)["Body"].read().splitlines(keepends=True)
        left = [line for line in lines if not self.scope.holds(json.loads(line))]
        self.found["labels"] += len(lines) - len(left)
        if self.dry_run or len(left) == len(lines):
            return
        empty(self.s3, self.artifacts, key)
        if left:
            self.s3.put_object(Bucket=self.artifacts, Key=key, Body=b"".join(left))

    def models(self) -> list[str]:
        """The versions whose training or validation data had photographs of the scope, the oldest first."""
        query: Any = {"KeyConditionExpression": Key("PK").eq("RETRAIN") & Key("SK").begins_with("RUN#")}
        runs = [run for run in pages(self.table.query, query) if run.get("model_version")]
        runs.sort(key=lambda run: str(run.get("concluded_at", "")))
        return [str(run["model_version"]) for run in runs if any(map(self.scope.holds, self.learned(run["run"])))]

    def learned(self, run: str) -> Iterator[dict[str, Any]]:
        """The photographs of a retraining that its model was trained and chosen on. None once its files are gone."""
        try:
            answer = self.s3.get_object(Bucket=self.artifacts, Key=f"retrain/{run}/dataset/index.jsonl")
        except self.s3.exceptions.NoSuchKey:
            return
        lines: Iterator[dict[str, Any]] = map(json.loads, answer["Body"].iter_lines())
        yield from (line for line in lines if line["split"] != "test")


def pages(ask: Any, query: dict[str, Any]) -> Iterator[Item]:
    """All items of a query or a scan."""
    while True:
        answer = ask(**query)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def version_sha256(image: Mapping[str, Any]) -> str:
    """As `bintally.aws.items` names the marker of an image version."""
    return hashlib.sha256("\0".join((image["bucket"], image["key"], image["version_id"])).encode()).hexdigest()

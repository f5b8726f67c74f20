"""Deletes what a stack knows of bins: photographs in all versions, display copies, counts, recounts, labels, datasets.

Nothing is deleted before all that only it leads to, so a run that failed may be repeated. A line of the trail is
written before anything is deleted, and another in the end. docs/operations.md says what remains.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import unquote

from bintally.aws.items import marker_key_of, plain
from bintally.common.errors import Rejected
from bintally.common.keys import encode_id, fold, parse_key, parse_records_key, utc
from bintally.labels import log
from bintally.reviewing.stored import difference_key
from bintally.reviewing.tallies import waiting_key
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from deployed.errors import ForgetFailed
from deployed.forgetting_datasets import LEFTOVER, Datasets
from deployed.stack import Deployed, version_of

Item = dict[str, Any]
Version = dict[str, str]
"""Key and VersionId, as DeleteObjects takes them."""

DONE = "forgotten/"
"""Below it the artifacts bucket has two lines for each forgetting: that it began, and how it ended."""
DISCARDED = "aws/lambda/"
"""Below it Lambda stores what a function of a stream failed on for good."""
AT_ONCE = 1000
"""Object versions that one request deletes."""
TRIES = 5
"""For a review that people work on meanwhile."""
Shown = Literal["yes", "expired", "no"]
"""Of a version of an object: the newest, or the newest below the delete marker of a lifecycle rule, or an older one."""


@dataclass(frozen=True)
class Scope:
    """What is forgotten: a bin, a site, or what is older than `before`, of one site or of all."""

    site: str = ""
    bin: str = ""
    before: str = ""
    """As `utc` spells it; empty when age does not matter."""

    def covers(self, site: str, bin_: str) -> bool:
        """Whether a place is in it. Ids that look the same are one."""
        return (not self.site or fold(site) == fold(self.site)) and (not self.bin or fold(bin_) == fold(self.bin))

    def covers_line(self, line: Mapping[str, Any]) -> bool:
        """Whether a label, or a photograph of a dataset, is in it."""
        old = not self.before or str(line.get("captured_at", "~")) < self.before
        return old and self.covers(str(line["site"]), str(line["bin"]))

    def covers_key(self, pk: str) -> bool:
        """Whether a partition key is that of one of its bins; those of 0.1.0 were not folded."""
        kind, *ids = pk.split("#")
        if kind != "BIN" or len(ids) != 2:
            return False
        wanted = encode_id(self.site), encode_id(self.bin)
        return all(
            not given or encoded == id_ or fold(unquote(id_)) == fold(given)
            for given, encoded, id_ in zip((self.site, self.bin), wanted, ids, strict=True)
        )

    def covers_item(self, item: Item) -> bool:
        """Whether an item of one of its bins is old enough. A RECORD has no age, so only a whole bin loses it."""
        return not self.before or str(item.get("captured_at", item.get("at", "~"))) < self.before

    def covers_change(self, record: Any) -> bool:
        """Whether a record of the stream is of one of its items. One that names no key is of none."""
        try:
            change = record["dynamodb"]
            ours = self.covers_key(change["Keys"]["PK"]["S"])
            return ours and (not self.before or self.covers_item(plain(change["NewImage"])))
        except (KeyError, TypeError, AttributeError):
            return False

    def includes(self, earlier: Mapping[str, str]) -> bool:
        """Whether all that an earlier scope covers is in it."""
        old = not self.before or "" < earlier["before"] <= self.before
        return old and self.covers(earlier["site"], earlier["bin"])

    def covers_object(self, key: str) -> bool:
        """Whether an object below incoming/ or records/ is of one of its bins. Tables of records name many bins."""
        folder, *parts = key.split("/")
        if folder == "incoming" and len(parts) > 1:
            return self.covers(parts[0], parts[1] if len(parts) > 2 else "")
        try:
            place = parse_key(key) if folder == "incoming" else parse_records_key(key)
        except Rejected:
            return False
        return place is not None and self.covers(place.site, place.bin)


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
        self.retraining = outputs["RetrainStateMachine"]
        self.locked, self.parts = outputs.get("TrailBucket"), int(outputs.get("SiteParts", "1"))
        self.table, self.s3 = self.stack.counts_table(), self.stack.client("s3")
        self.datasets = Datasets(self.s3, self.artifacts, self.scope.covers_line)

    def run(self) -> dict[str, Any]:
        """Numbers by kind, and the models that learned from the photographs. Raises ForgetFailed or ClientError."""
        if not self.dry_run and (running := self.stack.under_way(self.retraining)):
            raise ForgetFailed(
                f"a retraining reads photographs. Wait until it has ended, then run this again: {running}"
            )
        self.datasets.survey()
        self.found["in_datasets"] = self.datasets.photographs
        report: dict[str, Any] = {"scope": asdict(self.scope), **self.models()}
        if self.locked:
            report["locked_trail"] = self.locked
        if self.dry_run:
            self.work()
            return {**report, **self.found}
        who = {"began": utc(datetime.now(UTC)), "by": self.stack.client("sts").get_caller_identity()["Arn"]}
        self.write(who["began"], "begun", who | report)
        outcome = "failed"
        try:
            self.work()
            outcome = "done"
        finally:
            ended = {"ended": utc(datetime.now(UTC)), "outcome": outcome}
            self.write(who["began"], "ended", {**who, **ended, **report, **self.found})
        return {**report, **self.found}

    def work(self) -> None:
        for pk in self.bins():
            self.forget_bin(pk)
        if not self.scope.before:
            self.delete(self.images, self.uploads())
        self.forget_dataset()
        self.forget_labels()  # last: a change that the stream still carries may add some
        self.forget_changes()

    def write(self, began: str, what: str, line: dict[str, Any]) -> None:
        self.s3.put_object(Bucket=self.artifacts, Key=f"{DONE}{began}-{what}.json", Body=json.dumps(line).encode())

    # Table

    def bins(self) -> Iterator[str]:
        """The partition keys of the bins. All but a single bin's take a scan of the table."""
        scope = self.scope
        if scope.bin:
            yield from sorted({f"BIN#{encode_id(scope.site)}#{encode_id(scope.bin)}", f"BIN#{scope.site}#{scope.bin}"})
            return
        query = {"FilterExpression": Attr("PK").begins_with("BIN#"), "ProjectionExpression": "PK"}
        seen = ""
        for item in pages(self.table.scan, query):
            if item["PK"] != seen and scope.covers_key(str(item["PK"])):  # the items of a partition come together
                yield str(item["PK"])
            seen = item["PK"]

    def forget_bin(self, pk: str) -> None:
        query = {"KeyConditionExpression": Key("PK").eq(pk), "ConsistentRead": True}
        items = [item for item in pages(self.table.query, query) if self.scope.covers_item(item)]
        if not items:
            return
        counts = [item["image"] for item in items if item["SK"].startswith("COUNT#")]
        trail = [item for item in items if item["SK"].startswith("TRAIL#")]
        # What only these items lead to comes first.
        keys = [marker_key_of(image["bucket"], image["key"], image["version_id"]) for image in counts]
        keys += [difference_key(line["site"], line["at"], pk) for line in trail if "site" in line]
        keys += [{"PK": item["PK"], "SK": item["SK"]} for item in items]
        self.found.update(bins=1, photographs=len(counts), items=len(items))
        copies = [f"display/{image['digest']}" for image in counts if "digest" in image]
        self.delete(self.artifacts, (version for copy in copies for version in self.versions(self.artifacts, copy)))
        if self.scope.before:  # else the folders are emptied
            old = ({"Key": image["key"], "VersionId": image["version_id"]} for image in counts)
            self.delete(self.images, old)
        if self.dry_run:
            return
        if any(item["SK"] == "REVIEW" for item in items):
            self.forget_review(pk)
        with self.table.batch_writer(overwrite_by_pkeys=["PK", "SK"]) as batch:
            for key in keys:
                batch.delete_item(Key=key)

    def forget_review(self, pk: str) -> None:
        """Deletes the bin's review, and takes it out of the number of those that wait, in one transaction."""
        key = {"PK": pk, "SK": "REVIEW"}
        for _ in range(TRIES):
            review = self.table.get_item(Key=key, ConsistentRead=True).get("Item")
            if review is None:
                return
            seen = {"ConditionExpression": "version = :seen", "ExpressionAttributeValues": {":seen": review["version"]}}
            writes: list[Any] = [{"Delete": {"TableName": self.table.name, "Key": key, **seen}}]
            if stage := review.get("tallied"):
                waiting = waiting_key(review["site"], pk, self.parts)
                less = {"UpdateExpression": "ADD #stage :less", "ExpressionAttributeNames": {"#stage": stage}}
                less |= {"ExpressionAttributeValues": {":less": -1}}
                writes.append({"Update": {"TableName": self.table.name, "Key": waiting, **less}})
            try:
                self.table.meta.client.transact_write_items(TransactItems=writes)
            except ClientError as error:
                if error.response["Error"]["Code"] != "TransactionCanceledException":
                    raise
            else:
                return
        raise ForgetFailed(f"people work on the review of {pk}. Stop recounts of it, then run it again")

    # Buckets

    def uploads(self) -> Iterator[Version]:
        """Photographs with and without a count, in all versions, and the files of records of single bins."""
        for folder in ("incoming/", "records/"):
            query = {"Bucket": self.images, "Prefix": folder, "Delimiter": "/"}
            for page in self.s3.get_paginator("list_object_versions").paginate(**query):
                yield from filter(lambda version: self.scope.covers_object(version["Key"]), versions_of(page))
                for site in (one["Prefix"] for one in page.get("CommonPrefixes", ())):
                    if fold(site.split("/")[1]) == fold(self.scope.site):
                        below = self.versions(self.images, site)
                        yield from filter(lambda version: self.scope.covers_object(version["Key"]), below)

    def versions(self, bucket: str, prefix: str) -> Iterator[Version]:
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
            yield from versions_of(page)

    def delete(self, bucket: str, versions: Iterable[Version]) -> None:
        """Deletes object versions, by key and version. Raises ForgetFailed for the first that S3 does not delete."""
        batch: list[Version] = []
        for version in versions:
            batch.append(version)
            if len(batch) == AT_ONCE:
                self._delete(bucket, batch)
                batch = []
        self._delete(bucket, batch)

    def _delete(self, bucket: str, versions: list[Version]) -> None:
        self.found["objects"] += len(versions)
        if versions and not self.dry_run:
            answer = self.s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise ForgetFailed(f"s3://{bucket}/{error.get('Key')} is not deleted: {error.get('Message')}")

    def forget_dataset(self) -> None:
        if not self.dry_run:
            self.datasets.rewrite()
        kept = self.datasets.kept
        self.delete(
            self.artifacts, (one for one in self.versions(self.artifacts, "datasets/") if one["Key"] not in kept)
        )
        self.delete(self.artifacts, self.versions(self.artifacts, "checkpoints/"))
        runs = self.versions(self.artifacts, "retrain/")
        self.delete(self.artifacts, (one for one in runs if LEFTOVER.match(one["Key"])))

    def forget_labels(self) -> None:
        """Objects of the label log that name the scope are written again without these lines."""
        for version, shown, body in self.objects(log.LOG):
            if version["Key"].endswith(".jsonl") and self.forget_lines(version["Key"], shown, body):
                self.delete(self.artifacts, [version])

    def forget_changes(self) -> None:
        """So are objects of changes that a function quarantined, or on which one failed for good."""
        for version, shown, body in (*self.objects(log.ASIDE), *self.objects(DISCARDED)):
            left = self.without_changes(body)
            if left != body:
                self.store(version["Key"], shown, left)
                self.delete(self.artifacts, [version])

    def without_changes(self, body: bytes) -> bytes:
        """What is left of such an object; nothing of one that is all of the scope."""
        try:
            found = json.loads(body)
            if "record" in found:  # of labels/aside/
                return b"" if self.scope.covers_change(found["record"]) else body
            event = found["payload"] if isinstance(found["payload"], dict) else json.loads(found["payload"])
            left = [record for record in event["Records"] if not self.scope.covers_change(record)]
        except (ValueError, KeyError, TypeError):
            return body
        if len(left) == len(event["Records"]):
            return body
        return json.dumps(found | {"payload": json.dumps(event | {"Records": left})}).encode() if left else b""

    def objects(self, prefix: str) -> Iterator[tuple[Version, Shown, bytes]]:
        """Each version of the objects there, how it is shown, and its content."""
        before = ""
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.artifacts, Prefix=prefix):
            for one in page.get("Versions", ()):  # of a key the newest first
                version = {"Key": one["Key"], "VersionId": one["VersionId"]}
                shown: Shown = "no" if one["Key"] == before else "yes" if one["IsLatest"] else "expired"
                before = one["Key"]
                yield version, shown, self.s3.get_object(Bucket=self.artifacts, **version)["Body"].read()

    def store(self, key: str, shown: Shown, left: bytes) -> None:
        """Stores what is left of an object's newest version; what had expired stays so."""
        if left and shown != "no" and not self.dry_run:
            self.s3.put_object(Bucket=self.artifacts, Key=key, Body=left)
            if shown == "expired":
                self.s3.delete_object(Bucket=self.artifacts, Key=key)

    def forget_lines(self, key: str, shown: Shown, body: bytes) -> bool:
        """Whether this version of an object is to be deleted. Of the newest one, the other lines are stored first."""
        lines = [line for line in body.splitlines(keepends=True) if line.strip()]
        try:
            left = [line for line in lines if not self.scope.covers_line(json.loads(line))]
        except (ValueError, KeyError, TypeError) as error:
            raise ForgetFailed(f"{key} in the label log contains a line that is no label: {error!r}") from error
        if shown != "no":
            self.found["labels"] += len(lines) - len(left)
        if len(left) < len(lines):
            self.store(key, shown, b"".join(left))
        return len(left) < len(lines)

    def models(self) -> dict[str, list[str]]:
        """ "models", whose training or validation data had photographs of the scope, or which come from such a model;
        "unknown", whose data's files are gone. The oldest first."""
        query = {"KeyConditionExpression": Key("PK").eq("RETRAIN") & Key("SK").begins_with("RUN#")}
        runs = [run for run in pages(self.table.query, query) if run.get("model_version")]
        runs.sort(key=lambda run: str(run.get("concluded_at", "")))
        packages = [*self.stack.packages()][::-1]
        found = {str(run["model_version"]) for run in runs if run["run"] in self.datasets.learned} | self.named_before()
        for package in packages:
            if package.get("CustomerMetadataProperties", {}).get("parent") in found:
                found.add(version_of(package))
        order = [*(str(run["model_version"]) for run in runs), *map(version_of, packages)]
        lost = {str(run["model_version"]) for run in runs if run["run"] not in self.datasets.runs}
        return {
            "models": [version for version in dict.fromkeys([*order, *sorted(found)]) if version in found],
            "unknown": [version for version in order if version in lost - found],
        }

    def named_before(self) -> set[str]:
        """The models that the trail names for what this scope includes: the datasets no longer show it."""
        lines = [json.loads(body) for _, _, body in self.objects(DONE)]
        return {model for line in lines if self.scope.includes(line["scope"]) for model in line["models"]}


def pages(ask: Any, query: dict[str, Any]) -> Iterator[Item]:
    """All items of a query or a scan."""
    after: dict[str, Any] = {}
    while True:
        answer = ask(**query, **after)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        after = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def versions_of(page: Mapping[str, Any]) -> Iterator[Version]:
    """The versions and delete markers of a page of ListObjectVersions."""
    for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
        yield {"Key": one["Key"], "VersionId": one["VersionId"]}

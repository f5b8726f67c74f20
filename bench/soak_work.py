"""What people and the warehouse's system do during a soak: they recount bins, send records, and repeat what fails.

Afterwards each acknowledged entry must be stored once, and each bin's record must be the last one sent."""

import json
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.keys import Place, utc
from bintally.reviewing import stored
from botocore.exceptions import BotoCoreError, ClientError

from deployed.api import Api
from deployed.errors import ApiRefused, StackError
from local.owner import OwnerKey
from local.stack import Local, session_of

BUSY = {"TRY_AGAIN"}
"""Codes of the API that mean: send it again."""
PAUSE_SECONDS = 0.5
ANSWERED_SECONDS = 600.0
"""A request is answered within this time, whatever breaks."""
FOLLOWED_SECONDS = 180.0
"""Reviews and records follow the table's stream within this time."""


@dataclass
class Counting(threading.Thread):
    """A person who claims bins and enters numbers until `ended`. `entries` are bin and quantity by acknowledged id."""

    api: Api
    rng: random.Random
    ended: threading.Event
    entries: dict[str, tuple[str, int]] = field(default_factory=dict)
    refused: int = 0
    repeated: int = 0
    failure: str = ""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            self.work()
        except Exception as error:  # noqa: BLE001 - a person who stops working is a fault of the soak
            self.failure = repr(error)

    def work(self) -> None:
        while not self.ended.is_set():
            claimed = self.ask("claims", {"skip": []})
            if claimed is not None:
                id_ = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
                entry = {"id": id_, "bin": claimed["bin"], "image_version": claimed["image_version"]}
                quantity = self.rng.randrange(7)
                if self.ask("recounts", entry | {"quantity": quantity}) is not None:
                    self.entries[id_] = claimed["bin"], quantity
            self.ended.wait(PAUSE_SECONDS)

    def ask(self, path: str, body: Any) -> dict[str, Any] | None:
        """Repeats it until it is answered; None where it is refused. Raises StackError after ANSWERED_SECONDS."""
        deadline = time.monotonic() + ANSWERED_SECONDS
        while True:
            try:
                return self.api.ask(path, body)
            except ApiRefused as refusal:
                if refusal.code not in BUSY:
                    self.refused += path == "recounts"
                    return None
            except (StackError, BotoCoreError):
                if time.monotonic() > deadline:
                    raise
            self.repeated += 1
            time.sleep(PAUSE_SECONDS)


@dataclass
class Work:
    """People at one site of a stack that runs, and files of records sent to it."""

    stack: Local
    site: str
    rng: random.Random
    people: list[Counting] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    """The quantity that was acknowledged last, by bin."""
    names: list[str] = field(default_factory=list)
    """IAM users of the people."""
    files: int = 0
    files_repeated: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self, people: int) -> None:
        """Lets so many people begin, each with keys of their own: two numbers about a bin are of two persons."""
        iam, outputs = self.stack.client("iam"), self.stack.outputs()
        for number in range(people):
            self.names.append(name := f"{self.site}-{number}")
            iam.create_user(UserName=name)
            allowed = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}
            policy = {"Version": "2012-10-17", "Statement": [allowed]}
            iam.put_user_policy(UserName=name, PolicyName="count", PolicyDocument=json.dumps(policy))
            key = iam.create_access_key(UserName=name)["AccessKey"]
            session = session_of(OwnerKey(key["AccessKeyId"], key["SecretAccessKey"]))
            caller: Any = SimpleNamespace(outputs=lambda: outputs, session=lambda session=session: session)
            api = Api(caller, "counter", self.site)
            self.people.append(Counting(api, random.Random(self.rng.getrandbits(64)), self.ended))
        for person in self.people:
            person.start()

    def send_records(self, s3: Any, bucket: str, bins: list[str]) -> None:
        """One file with a new record for each of these bins, repeated until it is acknowledged."""
        moment = utc(datetime.now(UTC))
        rows = {bin_: self.rng.randrange(10) for bin_ in bins}
        lines = ["site,bin,expected_quantity,as_of", *(f"{self.site},{b},{n},{moment}" for b, n in rows.items())]
        self.files += 1
        while not self.ended.is_set():
            try:
                s3.put_object(
                    Bucket=bucket, Key=f"records/{self.site}/{self.files}.csv", Body="\n".join(lines).encode()
                )
            except (ClientError, BotoCoreError):
                self.files_repeated += 1
                time.sleep(PAUSE_SECONDS)
                continue
            self.records |= rows
            return

    def end(self) -> None:
        """Waits until everybody has had their last answer, and removes their keys."""
        self.ended.set()
        for person in self.people:
            person.join()
        iam = self.stack.client("iam")
        for name in self.names:
            for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            iam.delete_user_policy(UserName=name, PolicyName="count")
            iam.delete_user(UserName=name)

    def account(self) -> "WorkDone":
        """What the table has of it, once nothing follows any more."""
        deadline = time.monotonic() + FOLLOWED_SECONDS
        while (found := self._account()).faults and time.monotonic() < deadline:
            time.sleep(5)
        return found

    def _account(self) -> "WorkDone":
        table = Table(self.stack.outputs()["CountsTable"], self.stack.client("dynamodb"))
        entries = {id_: told for person in self.people for id_, told in person.entries.items()}
        bins = {*self.records, *(bin_ for bin_, _ in entries.values())}
        seen: Counter[tuple[str, tuple[str, int]]] = Counter()
        wrong = differ = 0
        for bin_, pk in ((bin_, items.bin_key(Place(self.site, bin_, ""))) for bin_ in sorted(bins)):
            recounts = table.beginning(pk, "RECOUNT#")
            seen.update((str(found["id"]), (bin_, int(found.get("quantity", -1)))) for found in recounts)
            record = table.get({"PK": pk, "SK": "RECORD"}, consistent=True)
            if bin_ in self.records and (record is None or record["expected_quantity"] != self.records[bin_]):
                wrong += 1
            differ += self.trail_differs(table, pk)
        return WorkDone(
            entries=len(entries),
            entries_repeated=sum(person.repeated for person in self.people),
            entries_refused=sum(person.refused for person in self.people),
            entries_lost=len(entries.items() - seen.keys()),
            entries_double=seen.total() - len({id_ for id_, _ in seen}),
            trails_differ=differ,
            files=self.files,
            files_repeated=self.files_repeated,
            records=len(self.records),
            records_wrong=wrong,
            people_who_failed=sum(bool(person.failure) for person in self.people),
        )

    @staticmethod
    def trail_differs(table: Table, pk: str) -> bool:
        """Whether the review's trail replays to another state than the review's."""
        review = table.get(stored.review_key(pk), consistent=True)
        trail = list(table.beginning(pk, "TRAIL#"))
        return bool(trail or review) and (review is None or stored.replay(trail) != stored.review_of(review))


@dataclass(frozen=True)
class WorkDone:
    """What became of entries and records."""

    entries: int
    """Acknowledged."""
    entries_repeated: int
    """Requests of people that were not answered, each of which was sent again."""
    entries_refused: int
    """By the rules: the claim had ended, or a new photograph had come."""
    entries_lost: int
    """Acknowledged, and not stored with their quantity."""
    entries_double: int
    trails_differ: int
    """Reviews that their trail does not replay to."""
    files: int
    files_repeated: int
    records: int
    """Bins with a record."""
    records_wrong: int
    """Bins whose record is not the last one that was acknowledged."""
    people_who_failed: int

    @property
    def faults(self) -> list[str]:
        names = ("entries_lost", "entries_double", "trails_differ", "records_wrong", "people_who_failed")
        found = [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in names if getattr(self, name)]
        return found if self.entries else [*found, "no entry of a person"]

    def lines(self) -> list[str]:
        found = {name: f"{number:,}" for name, number in asdict(self).items()}
        return [
            f"{found['entries']} entries of people; {found['entries_repeated']} requests repeated, "
            f"{found['entries_refused']} refused by the rules",
            f"{found['entries_lost']} entries lost, {found['entries_double']} double, {found['trails_differ']} trails "
            "that replay to another state",
            f"{found['files']} files of records for {found['records']} bins, {found['files_repeated']} repeated; "
            f"{found['records_wrong']} bins with another record than the last one sent",
        ]

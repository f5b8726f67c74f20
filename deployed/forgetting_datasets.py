"""Takes photographs out of the datasets of retrainings: out of shards, indexes and lists of labels.

training/dataset/layout.py describes the files. A shard is stored again without the photographs, under its new name,
before an index names it; the old one goes last. So a run that failed may be repeated: whatever no index names is
deleted in the end.
"""

import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryFile
from typing import Any

from training.dataset.layout import Shard, manifest

INDEX = re.compile(r"retrain/([^/]+)/dataset/(index|duplicates)\.jsonl")
LINES = re.compile(r"retrain/[^/]+/(manifest|slices/[^/]+|dataset/(index|duplicates|unreadable))\.jsonl")
LEFTOVER = re.compile(r"retrain/[^/]+/(parts|trials)/")
"""Files that only a run itself reads: an older version stored them here, and they stay where its clean-up failed."""
LISTS = re.compile(r"retrain/[^/]+/dataset/(\w+)\.manifest")

Version = dict[str, str]


@dataclass
class Datasets:
    """The datasets of a stack. `survey` comes first, then `rewrite`, which deletes nothing of a shard; then all
    versions of what is not in `kept` may go."""

    s3: Any
    bucket: str
    covers: Callable[[Mapping[str, Any]], bool]
    """Whether a line is of a photograph to forget."""
    gone: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Members to forget, by object."""
    named: set[str] = field(default_factory=set)
    """Objects of other photographs."""
    runs: set[str] = field(default_factory=set)
    """Retrainings with an index."""
    learned: set[str] = field(default_factory=set)
    """Those whose models were trained or chosen on a photograph to forget."""
    renamed: dict[str, str | None] = field(default_factory=dict)
    """New names of objects; None where nothing is left."""

    def survey(self) -> None:
        """Reads all indexes. Lists of duplicates of older versions name no objects."""
        for version, newest in self._versions("retrain/"):
            if not newest or not (found := INDEX.fullmatch(version["Key"])):
                continue
            run, is_index = found[1], found[2] == "index"
            self.runs |= {run} if is_index else set()
            for line in map(json.loads, self._lines(version)):
                if self.covers(line):
                    self.learned |= {run} if is_index and line["split"] != "test" else set()
                    if "object" in line:
                        self.gone[line["object"]].add(line["member"])
                elif "object" in line:
                    self.named.add(line["object"])

    @property
    def photographs(self) -> int:
        return sum(map(len, self.gone.values()))

    @property
    def kept(self) -> set[str]:
        return (self.named - self.gone.keys()) | {name for name in self.renamed.values() if name}

    def rewrite(self) -> None:
        """Stores shards, indexes, labels and manifests without the photographs, and deletes the lists' old versions."""
        for name, members in self.gone.items():
            self.renamed[name] = self._without(name, members) if name.endswith(".tar") else None
        for version, newest in self._versions("retrain/"):
            if LINES.fullmatch(version["Key"]):
                self._replace(version, newest, self._lines(version), self._line)
            elif found := LISTS.fullmatch(version["Key"]):
                self._replace(version, newest, [self._body(version).read()], partial(self._list, found[1]))

    def _without(self, name: str, members: set[str]) -> str | None:
        """Stores a shard without these members. Returns its new name. One that has expired (DatasetDays) stays so, as
        versions that OldVersionDays keeps, unless a later run has stored the same photographs."""
        found = self._last_version(name)
        if not found:
            return None
        version, is_newest = found
        with TemporaryFile() as old, TemporaryFile(buffering=0) as new:
            self.s3.download_fileobj(self.bucket, name, old, {"VersionId": version["VersionId"]})
            old.seek(0)
            shard = Shard(new)
            with tarfile.open(fileobj=old) as tar:
                for member in tar:
                    if member.name not in members and (file := tar.extractfile(member)):
                        shard.add(member.name, file.read())
            if not new.tell():
                return None
            key = f"{name.rpartition('/')[0]}/{shard.close()}.tar"
            same = self._last_version(key)
            if is_newest or not (same and same[1]):
                new.seek(0)
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=new)
                if not is_newest:
                    self.s3.delete_object(Bucket=self.bucket, Key=key)
            return key

    def _last_version(self, key: str) -> tuple[Version, bool] | None:
        """The last version of one object that has bytes, and whether it is the newest, which may be a delete marker."""
        return next((one for one in self._versions(key) if one[0]["Key"] == key), None)

    def _line(self, text: bytes) -> bytes:
        """A line with its object's new name; empty for one of a photograph to forget."""
        line = json.loads(text)
        if self.covers(line):
            return b""
        if now := self.renamed.get(line.get("object")):
            return json.dumps(line | {"object": now}, separators=(",", ":")).encode() + b"\n"
        return text

    def _list(self, split: str, text: bytes) -> bytes:
        """A manifest with the objects' new names."""
        prefix, *names = json.loads(text)
        folder = f"datasets/{split}/"
        now = (self.renamed.get(folder + name, folder + name) for name in names)
        return manifest(prefix["prefix"], sorted(name.removeprefix(folder) for name in now if name)).encode()

    def _replace(
        self, version: Version, newest: bool, parts: Iterable[bytes], change: Callable[[bytes], bytes]
    ) -> None:
        """Stores an object again if a part changes, unless a newer version has been, and deletes this version."""
        changed = False
        with TemporaryFile() as left:
            for part in parts:
                now = change(part)
                changed |= now != part
                left.write(now)
            if changed and newest:
                left.seek(0)
                self.s3.put_object(Bucket=self.bucket, Key=version["Key"], Body=left)
        if changed:
            self.s3.delete_object(Bucket=self.bucket, **version)

    def _lines(self, version: Version) -> Iterator[bytes]:
        return filter(bytes.strip, self._body(version).iter_lines(keepends=True))

    def _body(self, version: Version) -> Any:
        return self.s3.get_object(Bucket=self.bucket, **version)["Body"]

    def _versions(self, prefix: str) -> Iterator[tuple[Version, bool]]:
        """Key and version of each object, and whether it is the newest."""
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix):
            for one in page.get("Versions", ()):
                yield {"Key": one["Key"], "VersionId": one["VersionId"]}, one["IsLatest"]

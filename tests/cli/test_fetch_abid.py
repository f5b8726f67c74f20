"""Fetching a slice of the public data set, against a bucket of its name and form."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner, Result
from moto import mock_aws

from cli import fetch_abid
from cli.main import main
from cli.photographs import find

IDS = ["00001", "00010", "10", "11"]
CONTENTS = {"00001": {"A": 2, "B": 1}, "00010": {"A": 2}, "10": {}}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # as after eval "$(bintally env)"
    with mock_aws():
        s3 = boto3.client("s3", "us-east-1", endpoint_url=fetch_abid.ADDRESS)
        s3.create_bucket(Bucket=fetch_abid.BUCKET)
        for identity in IDS:
            s3.put_object(Bucket=fetch_abid.BUCKET, Key=f"bin-images/{identity}.jpg", Body=identity.encode())
        for identity, products in CONTENTS.items():
            items = {asin: {"asin": asin, "quantity": quantity} for asin, quantity in products.items()}
            record = {"BIN_FCSKU_DATA": items, "EXPECTED_QUANTITY": sum(products.values())}
            body = json.dumps(record).encode()
            s3.put_object(Bucket=fetch_abid.BUCKET, Key=f"metadata/{identity}.json", Body=body)
        policy = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}
        s3.put_bucket_policy(
            Bucket=fetch_abid.BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]})
        )
        yield s3


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["fetch-abid", "--to", str(folder), *arguments])


def test_pictures_records_and_labels_come(bucket: Any, tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert f"3 photographs with their records in {tmp_path}, 1 without a usable record" in result.output
    assert (tmp_path / "images/10.jpg").read_bytes() == b"10"
    assert (tmp_path / "images/00010.jpg").read_bytes() == b"00010"
    with (tmp_path / "labels.csv").open() as sheet:
        rows = list(csv.reader(sheet))
    assert rows == [
        ["id", "quantity", "group"],
        ["00001", "3", "g00001"],
        ["00010", "2", "g00001"],
        ["10", "0", "g10"],
    ]


def test_what_it_fetched_can_be_uploaded_with_its_records(bucket: Any, tmp_path: Path) -> None:
    run(tmp_path)
    found = {photograph.bin: photograph.recorded for photograph in find([tmp_path / "images"], "ABID", None)}
    assert found == {"00001": 3, "00010": 2, "10": 0, "11": None}


def test_listed_ones_come_in_the_groups_that_the_files_say(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,split,group\n10,test,g9\n99,test,g99\n")
    (tmp_path / "training.csv").write_text("id\n00001\n00010\n")
    listed = ["--ids", str(tmp_path / "test.csv"), "--ids", str(tmp_path / "training.csv")]
    result = run(tmp_path, *listed)
    assert result.exit_code == 0, result.output
    assert f"3 photographs with their records in {tmp_path}, 1 of the ids are not in the data set" in result.output
    assert (tmp_path / "labels.csv").read_text().splitlines()[1:] == ["00001,3,g00001", "00010,2,g00001", "10,0,g9"]
    assert run(tmp_path / "one", *listed, "--count", "1").exit_code == 0
    assert [path.name for path in (tmp_path / "one/images").iterdir()] == ["10.jpg"]


def test_photographs_that_were_chosen_by_their_count_stay_named(bucket: Any, tmp_path: Path) -> None:
    """Otherwise training takes the counts of such photographs for as frequent as those of any bin."""
    (tmp_path / "training.csv").write_text("id,group,drawn\n00001,g00001,as it came\n10,g10,by class\n")
    (tmp_path / "predictions.csv").write_text("id,split,group\n00010,test,g00010\n")
    listed = ["--ids", str(tmp_path / "training.csv"), "--ids", str(tmp_path / "predictions.csv")]
    assert run(tmp_path, *listed).exit_code == 0
    assert (tmp_path / "labels.csv").read_text().splitlines() == [
        "id,quantity,group,drawn",
        "00001,3,g00001,as it came",
        "00010,2,g00010,",
        "10,0,g10,by class",
    ]


def test_a_list_without_ids_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("name,count\n1,2\n")
    result = run(tmp_path, "--ids", str(tmp_path / "other.csv"))
    assert (result.exit_code, result.output.strip()) == (1, f"Error: {tmp_path / 'other.csv'} has no column id")


def test_it_goes_on_where_it_was(bucket: Any, tmp_path: Path) -> None:
    assert run(tmp_path, "--count", "1").exit_code == 0
    bucket.put_object(Bucket=fetch_abid.BUCKET, Key="bin-images/00001.jpg", Body=b"changed since")
    (tmp_path / "images" / "00010.part").write_bytes(b"cut off")
    assert run(tmp_path, "--count", "2").exit_code == 0
    assert (tmp_path / "images/00001.jpg").read_bytes() == b"00001"
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"00001.jpg", "00010.jpg"}


def test_requests_are_not_signed(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = boto3.client

    def client(*arguments: Any, **named: Any) -> Any:
        made.append(real(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(boto3, "client", client)
    signed: list[str] = []
    run(tmp_path, "--count", "1")
    made[0].meta.events.register("before-send.s3", lambda request, **_: signed.extend(request.headers.keys()))
    made[0].get_object(Bucket=fetch_abid.BUCKET, Key="bin-images/10.jpg")
    assert "Authorization" not in signed
    assert made[0].meta.endpoint_url == fetch_abid.ADDRESS


def test_a_bucket_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> list[str]:
        raise EndpointConnectionError(endpoint_url=fetch_abid.ADDRESS)

    monkeypatch.setattr(fetch_abid, "identities", unreachable)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert result.output.strip() == (
        "Error: cannot read the public bucket aft-vbi-pds: "
        'Could not connect to the endpoint URL: "https://s3.us-east-1.amazonaws.com"'
    )


def test_groups_join_contents_that_overlap_by_half() -> None:
    contents = {"1": {"A": 4}, "2": {"A": 2}, "3": {"A": 1, "C": 1}, "4": {"C": 9}, "5": {}}
    assert fetch_abid.groups_of(contents) == {"1": "g1", "2": "g1", "3": "g1", "4": "g4", "5": "g5"}

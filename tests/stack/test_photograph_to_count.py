"""The main job, and the clients a person would use for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.stack import Local

NAMES = {
    "site", "bin", "image", "status", "count", "is_minimum", "expected_capped", "confidence", "probabilities",
    "model_version", "captured_at", "counted_at", "latency_ms",
}  # fmt: skip


def cli(stack: Local, *words: str) -> str:
    """What `bintally` prints."""
    environment = os.environ | {"BINTALLY_HOME": str(stack.home), "BINTALLY_PORT": str(stack.port)}
    command = [str(Path(sys.executable).with_name("bintally")), *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_photograph_is_counted(user: Any, photograph: Callable[..., bytes]) -> None:
    key = "incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg"
    version = user.upload(key, photograph(1), expected_quantity="4")
    (item,) = user.wait_counts(key)
    assert item.keys() >= NAMES
    assert (item["PK"], item["site"], item["bin"]) == ("BIN#SEA1#P-4-B217", "SEA1", "P-4-B217")
    assert item["SK"].startswith("COUNT#2026-11-22T10:15:00")
    assert item["status"] == "COUNTED"
    assert item["image"]["bucket"] == user.bucket
    assert item["image"]["version_id"] == version
    assert item["recorded_quantity"] == 4
    probabilities = [float(p) for p in item["probabilities"]]
    assert len(probabilities) == 7
    assert abs(sum(probabilities) - 1) < 1e-3
    assert 0 <= item["count"] <= 6
    assert abs(float(item["confidence"]) - probabilities[int(item["count"])]) < 1e-3
    user.wait_drained()
    latest = user.latest("SEA1", "P-4-B217")
    assert latest["image"] == item["image"]
    assert latest["count"] == item["count"]
    assert user.depth(user.dead) == 0


def test_the_endpoint_answers_the_same_when_asked_directly(user: Any, photograph: Callable[..., bytes]) -> None:
    key = "incoming/SEA1/P-4-B218/2026-11-22T10:15:00Z.jpg"
    user.upload(key, photograph(2))
    (item,) = user.wait_counts(key)
    answer = user.stack.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=user.outputs["EndpointName"], ContentType="image/jpeg", Body=photograph(2)
    )
    direct = json.load(answer["Body"])
    assert direct["model_version"] == item["model_version"]
    # The function sends the photograph on as it is when it is small enough.
    assert all(abs(a - float(b)) < 0.02 for a, b in zip(direct["probabilities"], item["probabilities"], strict=True))


def test_plain_aws_cli(user: Any, photograph: Callable[..., bytes], tmp_path: Any) -> None:
    """As the README says: eval "$(bintally env)", then the AWS CLI alone."""
    (tmp_path / "bin.jpg").write_bytes(photograph(3))
    (tmp_path / "env").write_text(cli(user.stack, "env"))
    script = f"""
        set -eu
        . {tmp_path}/env
        aws s3 cp --quiet {tmp_path}/bin.jpg "s3://$IMAGES_BUCKET/incoming/SEA1/P-4-B219/2026-11-22T10:15:00Z.jpg"
        for try in $(seq 60); do
          aws dynamodb get-item --table-name "$COUNTS_TABLE" \
            --key '{{"PK": {{"S": "BIN#SEA1#P-4-B219"}}, "SK": {{"S": "LATEST"}}}}' > {tmp_path}/item.json
          if [ -s {tmp_path}/item.json ]; then break; fi
          sleep 1
        done
        aws sqs get-queue-attributes --endpoint-url "$AWS_ENDPOINT_URL" \
          --queue-url "$COUNT_DEAD_LETTER_QUEUE_URL" --attribute-names ApproximateNumberOfMessages
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    found = subprocess.run(["bash", "-c", script], env=plain, check=True, capture_output=True, text=True)
    item = json.loads((tmp_path / "item.json").read_text())["Item"]
    assert item["bin"]["S"] == "P-4-B219"
    assert item["status"]["S"] == "COUNTED"
    assert json.loads(found.stdout)["Attributes"] == {"ApproximateNumberOfMessages": "0"}


def test_day_totals_add_up(user: Any, photograph: Callable[..., bytes]) -> None:
    keys = [f"incoming/TOT1/T-{number % 4}/{number}.jpg" for number in range(12)]
    for number, key in enumerate(keys):
        user.upload(key, photograph(10 + number))
    items = user.wait_counts(*keys)
    user.wait_drained()
    assert len(items) == 12
    assert user.totals("TOT1")["counted"] == 12

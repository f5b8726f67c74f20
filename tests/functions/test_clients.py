"""Every client of the functions has time limits, and the sums of them fit the functions' own."""

import re
from pathlib import Path
from typing import Any

import pytest
from bintally import conclude
from bintally.aws import clients
from bintally.aws.clients import Limits
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
MAKERS = [made for made in vars(clients).values() if hasattr(made, "cache_clear")]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: str(make.__name__))
def test_a_client_gives_up_in_time(make: Any) -> None:
    config = make().meta.config
    limits = [each for each in vars(clients).values() if isinstance(each, Limits)]
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) in {
        (each.connect, each.read, each.tries) for each in limits
    }


def test_no_client_is_made_elsewhere() -> None:
    made = [path.name for path in (ROOT / "functions").rglob("*.py") if re.search(r"boto3\.\w+\(", path.read_text())]
    assert made == ["clients.py"]


def test_the_worst_case_of_a_request_is_what_the_comment_says() -> None:
    told = re.findall(r"^([A-Z0-9_]+) = Limits\(.*?# .*?(\d+) s\b", Path(clients.__file__).read_text(), re.MULTILINE)
    assert {name for name, _ in told} >= {"DYNAMODB", "S3", "S3_BULK", "SAGEMAKER", "SQS", "ENDPOINT"}
    assert [(name, getattr(clients, name).worst) for name, _ in told] == [
        (name, int(seconds)) for name, seconds in told
    ]


def test_conclude_has_time_for_its_worst_case() -> None:
    near = 4 * clients.DYNAMODB.worst + clients.EVENTS.worst + clients.SNS.worst
    worst = clients.STATES.worst + 8 * clients.SAGEMAKER.worst + 6 * clients.S3.worst + near
    assert worst <= conclude.WORST_SECONDS
    template = yaml_parse((ROOT / "template.yaml").read_text())
    limit = template["Resources"]["ConcludeFunction"]["Properties"]["Timeout"]
    machine = (ROOT / "machines" / "retrain.asl.json").read_text()
    waits = re.search(r'"\$\{ConcludeFunction\}".*?"TimeoutSeconds": (\d+)', machine, re.DOTALL)
    assert waits is not None
    assert conclude.WORST_SECONDS < limit < int(waits[1])

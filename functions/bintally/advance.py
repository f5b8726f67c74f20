"""The advance function: takes a release one step further and answers what comes next.

The state machine `release` calls it at each of its steps, waits, and asks golden images in between. An exception is a
fault that may pass; docs/decisions/release.md gives the reasons.
"""

from functools import cache
from typing import Any

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.events import check_fields
from bintally.releasing.advance_release import Services, Step, advance
from bintally.releasing.endpoints import Endpoints
from bintally.releasing.release import Release
from bintally.releasing.settings import release_settings

# At worst about 10 requests of 21 s each (clients.SAGEMAKER, STATES, LAMBDA, ECR), the table's of 9 s, and a package of
# at most 60 MB, read within seconds. What takes longer ends at the time limit of 300 s, and is tried again.


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`event`: step, execution (the ARN of the calling one), input (the execution's), release (release.Release), and
    verdict: verify's answer, or empty. Returns {"next", "seconds", "release"}. Raises WrongEvent."""
    wanted = ("step", "execution", "input", "release", "verdict")
    check_fields(event, "advance", "a step of a release", *wanted)
    release = Release.of(event["release"])
    request = event["input"] if isinstance(event["input"], dict) else {}
    step = Step(services(), release_settings(), event["execution"], request, release, event["verdict"])
    answer = advance(step, event["step"])
    said = {"step": event["step"], "next": answer.next, "release": answer.release.name, "why": answer.release.why}
    logger.info("advanced", extra=said)
    return {"next": answer.next, "seconds": answer.seconds, "release": answer.release.state()}


@cache
def services() -> Services:
    return Services(
        table=Table.named(release_settings().counts_table),
        s3=clients.s3(),
        endpoints=Endpoints(clients.sagemaker(), release_settings().stack_name),
        states=clients.states(),
        lambda_=clients.lambda_(),
        ecr=clients.ecr(),
    )

"""The judge function: decides whether a challenger replaces the champion, from training/evaluate.py's figures.

The state machine `retrain` branches on the answer; an exception is a failed run, not a verdict.
"""

import json
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bintally.aws import clients
from bintally.aws.objects import located
from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError
from bintally.common.events import check_fields
from bintally.common.keys import utc
from bintally.retraining.judging import judge
from bintally.retraining.settings import margins

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORMAT = 1  # of evaluation.json
PLACE_OF_VERDICT = b"<!-- verdict -->"  # in training/verdict/report.html.jinja


class NoEvaluation(BintallyError):
    """The evaluation is missing; the message says where."""


class BadEvaluation(BintallyError):
    """The evaluation cannot be used; the message says why."""


def handler(event: dict[str, str], context: object) -> dict[str, Any]:
    """`event`: run, model_version, evaluation and verdict (s3 addresses). Answers {"promote": bool, "reason": one line,
    "reasons": [...], "figures": {...}} and stores it as the verdict. Raises NoEvaluation, BadEvaluation, WrongEvent."""
    check_fields(event, "judge", "an evaluation to judge", "run", "model_version", "evaluation", "verdict")
    logger.info("asked to judge", extra=event)
    evaluation, asked = fetch(clients.s3(), event["evaluation"]), margins()
    try:
        judged = evaluation["challenger"]["model_version"]
        if judged != event["model_version"]:
            raise BadEvaluation(f"{event['evaluation']} is about {judged}, not {event['model_version']}")
        answer = judge(evaluation, asked)
        champion = evaluation["champion"]["model_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadEvaluation(f"{event['evaluation']} lacks or garbles {error}") from error
    verdict = {
        "format": 1,
        "run": event["run"],
        "model_version": event["model_version"],
        "champion": champion,
        **answer,
        "margins": vars(asked),
        "evaluation": event["evaluation"],
        "judged_at": utc(datetime.now(UTC)),
    }
    bucket, key = located(event["verdict"])
    body = json.dumps(verdict, indent=1).encode()
    clients.s3().put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
    write_into_page(clients.s3(), event["evaluation"], answer)
    logger.info("judged", extra={"promote": answer["promote"], "reason": answer["reason"]})
    return answer


def write_into_page(client: "S3Client", evaluation: str, answer: dict[str, Any]) -> None:
    """Writes the verdict into report.html beside the evaluation, which was made before there was one."""
    bucket, key = located(evaluation)
    key = f"{key.rpartition('/')[0]}/report.html"
    try:
        page = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        logger.warning("no report to write the verdict into", extra={"key": key})
        return
    said = "The challenger replaces the champion" if answer["promote"] else "The champion stays"
    verdict = f'<p class="card"><b>Verdict: {said}.</b> {escape(answer["reason"])}</p>'
    written = page.replace(PLACE_OF_VERDICT, verdict.encode())
    if written != page:
        client.put_object(Bucket=bucket, Key=key, Body=written, ContentType="text/html; charset=utf-8")


def fetch(client: "S3Client", address: str) -> dict[str, Any]:
    """evaluation.json. Raises NoEvaluation, BadEvaluation."""
    bucket, key = located(address)
    try:
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
            raise NoEvaluation(f"there is no {address}") from error
        raise
    try:
        found = json.loads(body)
    except ValueError as error:
        raise BadEvaluation(f"{address} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BadEvaluation(f"{address} is not an evaluation of format {FORMAT}")
    return found

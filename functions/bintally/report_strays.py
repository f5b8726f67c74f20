"""The report_strays function: reports objects of the images bucket that are outside incoming/ and records/.

A schedule calls it once a day. Rules send only what is below the two folders to be read, so whoever uploads elsewhere,
to `Incoming/` or to the top of the bucket, would wait for counts that never come.
"""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.telemetry import logger, metrics
from bintally.common.events import check_fields
from bintally.strays.find_strays import MOST_FOLDERS, MOST_PAGES, Stray, find_strays
from bintally.strays.settings import strays_settings

# At worst: MOST_PAGES and MOST_FOLDERS requests of 11 s (clients.S3), the alert 9 s (clients.SNS): 30 x 11 + 9 = 339 s.
WORST_SECONDS = (MOST_PAGES + MOST_FOLDERS) * clients.S3.worst + clients.SNS.worst
NAMED = 10
"""Places in a report."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Returns {"strays": how many objects at least, "places": where}, and sends an alert if there are any.

    Raises WrongEvent, Transient.
    """
    check_fields(event, "report_strays", "an event of its schedule", "reason")
    bucket = strays_settings().images_bucket
    found = find_strays(clients.s3(), bucket)
    number = sum(stray.objects for stray in found)
    metrics.add_metric("Strays", MetricUnit.Count, number)
    logger.info("looked for strays", strays=number, places=list(map(str, found[:NAMED])))
    if found:
        subject = "Bintally: objects that nobody reads"
        clients.sns().publish(TopicArn=strays_settings().alerts_topic, Subject=subject, Message=message(bucket, found))
    return {"strays": number, "places": list(map(str, found))}


def message(bucket: str, found: list[Stray]) -> str:
    named = ", ".join(map(str, found[:NAMED])) + (", …" if len(found) > NAMED else "")
    return (
        f"s3://{bucket} contains objects outside incoming/ and records/, which are neither counted nor read: {named}. "
        "Copy photographs to incoming/<site>/<bin>/<name> and records to records/, and delete what is left: this "
        "report comes every day until then."
    )

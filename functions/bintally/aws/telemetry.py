"""One logger and one set of metrics, named by POWERTOOLS_SERVICE_NAME in the template.

The name contains the stack's name where alarms use the metrics: two stacks in one account must not share them.
"""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

REPEATED = {"function_name", "function_arn", "function_memory_size"}


class Formatter(LambdaPowertoolsFormatter):
    """Without what each line of a function's log group would repeat: CloudWatch charges by the byte."""

    def serialize(self, log: Mapping[str, Any]) -> str:
        return super().serialize({name: value for name, value in log.items() if name not in REPEATED})


logger = Logger(logger_formatter=Formatter())
metrics = Metrics(namespace="Bintally")

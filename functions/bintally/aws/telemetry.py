"""One logger and one set of metrics, named by POWERTOOLS_SERVICE_NAME in the template.

The name contains the stack's name where alarms use the metrics: two stacks in one account must not share them.
"""

from aws_lambda_powertools import Logger, Metrics

logger = Logger()
metrics = Metrics(namespace="Bintally")

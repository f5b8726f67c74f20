"""One logger and one set of metrics; POWERTOOLS_SERVICE_NAME in the template says whose.

The stack's name is part of it where metrics are counted: alarms of two stacks in one account must not share them.
"""

from aws_lambda_powertools import Logger, Metrics

logger = Logger()
metrics = Metrics(namespace="Bintally")

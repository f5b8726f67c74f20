"""One logger and one set of metrics; POWERTOOLS_SERVICE_NAME in the template says whose."""

from aws_lambda_powertools import Logger, Metrics

logger = Logger()
metrics = Metrics(namespace="Bintally")

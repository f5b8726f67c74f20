"""One logger and one set of metrics for a function; POWERTOOLS_* variables in the template name them."""

from aws_lambda_powertools import Logger, Metrics

logger = Logger()
metrics = Metrics()

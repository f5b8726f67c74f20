"""The functions' AWS clients, each created on first use, and the longest time that a request of each takes.

A request is tried at most `tries` times. Each try connects within `connect` seconds and then waits at most `read`
seconds for the next bytes; between two tries botocore's standard mode waits at most 1, 2, 4, … seconds.

Two things that botocore does for each request take an eighth of its time: it composes what it tells of itself, which is
left out, and it checks the request, which `count` leaves to the service.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient


CHECKS_REQUESTS = True
"""Of clients that are made from then on. An empty key is refused by botocore alone: S3 takes it for the bucket."""
USER_AGENT = "bintally"
"""By which CloudTrail and S3's access logs tell these requests from others of the role."""


@dataclass(frozen=True)
class Limits:
    """Time limits of a client's requests, in seconds."""

    read: int
    tries: int
    connect: int = 1

    @property
    def worst(self) -> int:
        """Seconds until a request has succeeded or failed finally."""
        waits: int = 2 ** (self.tries - 1) - 1  # 1 + 2 + 4 + …
        return self.tries * (self.connect + self.read) + waits

    def config(self) -> Config:
        return Config(
            connect_timeout=self.connect,
            read_timeout=self.read,
            retries={"mode": "standard", "total_max_attempts": self.tries},
            parameter_validation=CHECKS_REQUESTS,
            user_agent=USER_AGENT,
        )


COGNITO = Limits(read=4, tries=2)  # 2 x (1 + 4) + 1 = 11 s
DYNAMODB = Limits(read=3, tries=2)  # 2 x (1 + 3) + 1 = 9 s
ECR = Limits(read=5, tries=3)  # 21 s
EVENTS = Limits(read=3, tries=2)  # 9 s
SNS = Limits(read=3, tries=2)  # 9 s
SQS = Limits(read=3, tries=1)  # 1 + 3 = 4 s: without it the message also returns, only later
S3 = Limits(read=4, tries=2)  # 2 x (1 + 4) + 1 = 11 s until the first bytes; a download takes longer
S3_BULK = Limits(read=10, tries=4)  # 4 x (1 + 10) + 7 = 51 s: among thousands of requests one is throttled
SAGEMAKER = Limits(read=5, tries=3)  # 3 x (1 + 5) + 3 = 21 s
STATES = Limits(read=5, tries=3)  # 21 s
LAMBDA = Limits(read=5, tries=3)  # 21 s
LOGS = Limits(read=5, tries=3)  # 21 s
ENDPOINT = Limits(read=15, tries=1)  # 1 + 15 = 16 s: endpoint.ask has its own retries
# A serverless endpoint's cold start takes up to a minute, and it may be throttled. An endpoint that never answers would
# take longer than verify's time limit of 300 s, which then ends it.
GOLDEN = Limits(read=65, tries=6)  # 6 x (1 + 65) + 31 = 427 s


@cache
def cognito() -> "CognitoIdentityProviderClient":
    return boto3.client("cognito-idp", config=COGNITO.config())


@cache
def dynamodb() -> "DynamoDBClient":
    return boto3.client("dynamodb", config=DYNAMODB.config())


@cache
def events() -> "EventBridgeClient":
    return boto3.client("events", config=EVENTS.config())


@cache
def sns() -> "SNSClient":
    return boto3.client("sns", config=SNS.config())


@cache
def sqs() -> "SQSClient":
    return boto3.client("sqs", config=SQS.config())


@cache
def s3() -> "S3Client":
    return boto3.client("s3", config=S3.config())


@cache
def s3_links() -> "S3Client":
    """Signs links. Signature version 2, a default in some places, would accept a link that someone has changed."""
    return boto3.client("s3", config=S3.config().merge(Config(signature_version="s3v4")))


@cache
def s3_bulk() -> "S3Client":
    """For the label log: one object per batch, for every day since the last run."""
    return boto3.client("s3", config=S3_BULK.config())


@cache
def ecr() -> "ECRClient":
    return boto3.client("ecr", config=ECR.config())


@cache
def sagemaker() -> "SageMakerClient":
    return boto3.client("sagemaker", config=SAGEMAKER.config())


@cache
def states() -> "SFNClient":
    return boto3.client("stepfunctions", config=STATES.config())


@cache
def lambda_() -> "LambdaClient":
    return boto3.client("lambda", config=LAMBDA.config())


@cache
def logs() -> "CloudWatchLogsClient":
    return boto3.client("logs", config=LOGS.config())


@cache
def endpoint() -> "SageMakerRuntimeClient":
    """For photographs."""
    return boto3.client("sagemaker-runtime", config=ENDPOINT.config())


@cache
def endpoint_for_golden_images() -> "SageMakerRuntimeClient":
    return boto3.client("sagemaker-runtime", config=GOLDEN.config())

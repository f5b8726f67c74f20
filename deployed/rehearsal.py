"""A dry run: botocore prints each call that would change something, with its parameters, and does not send it.

The call is stopped when it is about to be sent, so botocore has checked its parameters by the service's model. Calls
that only read are printed and made. Without credentials, or about a stack that does not exist yet, they are answered as
in a new account.
"""

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from botocore.model import OperationModel

from deployed.errors import NoAccess
from deployed.shipping import Say

READS = re.compile("(BatchCheck|BatchGet|Describe|Get|Head|List|Query|Scan)")
ACCOUNT = "123456789012"
"""The account's number where there are no credentials."""

Answer = dict[str, Any]


def missing(code: str) -> Answer:
    return {"Error": {"Code": code, "Message": "there is none in a new account"}}


NEW_ACCOUNT: dict[str, Answer] = {
    "sts:GetCallerIdentity": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/nobody"},
    "cloudformation:DescribeStacks": missing("ValidationError"),
    "ecr:DescribeRepositories": missing("RepositoryNotFoundException"),
    "ecr:DescribeImages": missing("ImageNotFoundException"),
    "ecr:GetAuthorizationToken": {"authorizationData": [{"authorizationToken": "QVdTOnBhc3N3b3Jk"}]},  # AWS:password
    "lambda:GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 1000}},
    "service-quotas:ListAWSDefaultServiceQuotas": {"Quotas": []},
    "service-quotas:ListServiceQuotas": {"Quotas": []},
    "sagemaker:DescribeEndpoint": missing("ValidationException"),
    "sagemaker:ListModelPackages": {"ModelPackageSummaryList": []},
    "sns:ListSubscriptionsByTopic": {"Subscriptions": []},
    "dynamodb:Query": {"Items": []},
}
OF_THE_STACK = {"sagemaker:DescribeEndpoint", "sagemaker:ListModelPackages", "sns:ListSubscriptionsByTopic"}
OF_THE_STACK |= {"dynamodb:Query"}


def changed(model: OperationModel, parameters: Answer) -> Answer:
    """The part of a changing call's answer that later steps need."""
    if model.name == "CreateModelPackage":
        return {"ModelPackageArn": f"<the new version of {parameters['ModelPackageGroupName']}>"}
    if model.name == "StartExecution":
        return {"executionArn": "<the execution>"}
    return {"VersionId": "<version>"} if model.name == "PutObject" else {}


@dataclass
class Rehearsal:
    """`calls` are all calls so far, as `service:Operation` and parameters. Where `offline` is set, none is made; where
    `new` is set, none that asks about the stack. `answers` are those of a new account."""

    say: Say
    offline: bool = False
    new: bool = False
    answers: Mapping[str, Answer] = field(default_factory=lambda: NEW_ACCOUNT)
    calls: list[tuple[str, Answer]] = field(default_factory=list)

    def watch(self, session: Any) -> None:
        """Hooks the clients that the session makes from now on."""
        session.events.register("before-parameter-build", self._remember)
        session.events.register("before-call", self._answer)

    def _remember(self, params: Answer, context: Answer, **_: object) -> None:
        context["rehearsed"] = params

    def _answer(self, model: OperationModel, context: Answer, **_: object) -> tuple[SimpleNamespace, Answer] | None:
        name = f"{model.service_model.service_name}:{model.name}"
        parameters = context.get("rehearsed", {})
        self.calls.append((name, parameters))
        self.say(f"  {model.service_model.service_name} {model.name} {json.dumps(parameters, default=shown)}")
        if not READS.match(model.name):
            return self._of(changed(model, parameters))
        if self.offline or (self.new and name in OF_THE_STACK):
            if name not in self.answers:
                raise NoAccess("without AWS credentials nobody knows what the account has. Give --profile")
            return self._of(self.answers[name])
        return None

    @staticmethod
    def _of(answer: Answer) -> tuple[SimpleNamespace, Answer]:
        return SimpleNamespace(status_code=400 if "Error" in answer else 200, headers={}), dict(answer)


def shown(value: object) -> str:
    """What JSON cannot show: a file by its name, a condition of a query as words."""
    name = getattr(value, "name", None)
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, io.IOBase) or hasattr(value, "read"):
        return f"<{name}>" if isinstance(name, str) else "<file>"
    expression: Callable[[], Answer] | None = getattr(value, "get_expression", None)
    return str(expression()) if expression else str(value)

"""Lists what the template grants and no test uses.

    BINTALLY_GRANTS=grants.txt python -m pytest tests/stack    # the emulator notes what roles use, and in which test
    python -m local.grants grants.txt

A granted action that nothing uses gets a test, or goes. Of one that is used, tests/removals.py shows that a test breaks
without it. Ends with 1 if there is one that nothing uses, but for those of UNSEEN.

This module touches ministack's internals, as local/emulator.py does.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"
UNSEEN = {
    "* logs:CreateLogStream": "services write logs here without asking",
    "* logs:PutLogEvents": "the same",
    "* logs:*LogDeliver*": "Step Functions sets up its logs by these",
    "* logs:*ResourcePolic*": "the same",
    "* logs:DescribeLogGroups": "the same",
    "ModelRole logs:*": "SageMaker writes an endpoint's logs",
    "JobRole logs:DescribeLogStreams": "and those of jobs",
    "* ecr:*": "SageMaker takes images from a registry; here they are this machine's",
    "* xray:*": "there is no X-Ray",
    "* ec2:*": "there is no VPC",
    "* application-autoscaling:*": "nothing scales",
    "* sqs:ReceiveMessage": "Lambda's poller asks nobody",
    "* sqs:DeleteMessage": "the same",
    "* sqs:GetQueueAttributes": "the same",
    "* dynamodb:DescribeStream": "the same, for streams",
    "* dynamodb:GetRecords": "the same",
    "* dynamodb:GetShardIterator": "the same",
    "* dynamodb:ListStreams": "the same",
    "*StartRole *": "rules and schedules reach their targets without asking",
    "*TimerRole *": "the same",
    "ReleaseRuleRole *": "the same",
    "ConcludeRole sqs:SendMessage": "Lambda's destination of what failed",
    "ExpireLogsRole sqs:SendMessage": "the same",
    "ReportStraysRole sqs:SendMessage": "the same",
    "ReviewRole s3:PutObject": "the same, for a stream",
    "* s3:ListBucket*": "most do not list: with it S3 answers 404 for what is missing, and not 403",
    "* dynamodb:DeleteItem": "a deletion in a transaction is not checked",
    "ModelRole cloudwatch:*": "SageMaker puts an endpoint's metrics",
    "AdvanceRole cloudwatch:DescribeAlarms": "SageMaker looks at the alarms of a canary in the caller's name",
    "AdvanceRole iam:PassRole": "SageMaker takes a model's role in the caller's name",
    "*Role lambda:UpdateEventSourceMapping": "the emulator knows no permission for it",
    "ModelRole s3:PutObject": "data capture, which the local stack refuses",
    "RetrainRole s3:GetObject": "of a copy in S3 only the writing is checked",
    "RetrainRole sagemaker:ListTags": "Step Functions' own integration asks for it",
}
"""Actions, as `<role> <action>` with wildcards, that the emulator never checks, and why."""


def watch_permissions(without: str = "", file: Path | None = None) -> None:
    """Makes the emulator deny the action `without` (`<logical id of a role> <action as the template writes it>`), and
    append to `file` `<role> <action> <test>`, once each, for what a role's own policies allowed. Emulators may share a
    file. The file that BINTALLY_GRANTS_TEST names contains the name of the running test; the one that BINTALLY_DENIED
    names is made once the action is denied."""
    from ministack.core import iam_evaluator

    evaluate = iam_evaluator.evaluate
    noted: set[str] = set()
    denied, _, pattern = without.partition(" ")
    told, proof = os.environ.get("BINTALLY_GRANTS_TEST"), os.environ.get("BINTALLY_DENIED")

    def watched(context: Any, *policies: Any) -> Any:
        found = evaluate(context, *policies)
        if found.decision != "Allow" or context.principal_type != "AssumedRole":
            return found
        role = context.principal_arn.split("/")[1]
        if denied and f"-{denied}-" in role and fnmatchcase(context.action.lower(), pattern.lower()):
            if proof:
                Path(proof).touch()
            return replace(found, decision="ImplicitDeny")
        line = f"{role} {context.action} {Path(told).read_text() if told else ''}\n"
        if file and line not in noted:
            noted.add(line)
            with file.open("a") as lines:
                lines.write(line)
        return found

    iam_evaluator.evaluate = watched


def granted(resources: Mapping[str, Any]) -> dict[str, set[str]]:
    """The actions that the template's policies allow, by the logical id of their role."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::IAM::Role":
            for policy in properties.get("Policies", ()):
                policy = policy["Fn::If"][1] if "Fn::If" in policy else policy
                found[name] |= set(actions(policy["PolicyDocument"]))
        elif resource["Type"] == "AWS::IAM::Policy":
            for role in properties["Roles"]:
                found[role["Ref"]] |= set(actions(properties["PolicyDocument"]))
    return found


def actions(document: Mapping[str, Any]) -> Iterator[str]:
    for statement in document["Statement"]:
        statement = statement["Fn::If"][1] if "Fn::If" in statement else statement
        if statement["Effect"] == "Allow":
            named = statement["Action"]
            yield from [named] if isinstance(named, str) else named


def used(lines: str, roles: Mapping[str, Any]) -> dict[str, dict[str, set[str]]]:
    """The tests of each action that `watch_permissions` noted, by the logical id in the role's name."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in lines.splitlines():
        name, action, test = line.split(" ", 2)
        for role in roles:
            if f"-{role}-" in name:
                found[role][action].add(test)
    return found


def unused(allowed: Mapping[str, set[str]], needed: Mapping[str, Iterable[str]]) -> list[str]:
    """`<role> <action>` of each that nothing used."""
    return sorted(
        f"{role} {action}"
        for role, mine in allowed.items()
        for action in mine
        if not any(fnmatchcase(one, action) for one in needed.get(role, ()))
        and not any(fnmatchcase(f"{role} {action}", pattern) for pattern in UNSEEN)
    )


def main(file: str) -> int:
    from samtranslator.yaml_helper import yaml_parse  # the emulator does without it

    allowed = granted(yaml_parse(TEMPLATE.read_text())["Resources"])
    left = unused(allowed, used(Path(file).read_text(), allowed))
    print(*left, sep="\n")
    print(f"{sum(map(len, allowed.values()))} granted actions of {len(allowed)} roles; {len(left)} that nothing used")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

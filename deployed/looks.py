"""The looks that `deployed.doctor` takes at a stack: a function for each thing, which yields what is wrong with it.

A healthy stack yields nothing. Each function may raise ClientError, BotoCoreError, Denied or another StackError when it
cannot tell.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any

from botocore.exceptions import ClientError

from deployed.errors import StackError
from deployed.patient import Finding, Patient
from deployed.quotas import SERVICES
from deployed.stack import how_it_failed, version_of

WELL = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
DRIFT_SECONDS = 300
DRIFTING = {
    "AWS::CloudWatch::Alarm",
    "AWS::Events::Rule",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::SQS::Queue",
}
"""Types that people change by hand and whose drift CloudFormation detects."""
UNKNOWN_AFTER = timedelta(hours=1)
"""An alarm has data, or knows that none is good news, after its first minutes."""
ECR = re.compile(r"(\d{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/([^:@]+)(?::([^:@]+))?(?:@(sha256:\w+))?")
NO_IMAGE = {"ImageNotFoundException", "RepositoryNotFoundException"}
UNITS = {"minute": "minutes", "hour": "hours", "day": "days"}


def deployment(patient: Patient) -> Iterator[Finding]:
    """The last deployment ended, and well."""
    status, reason = patient.description["StackStatus"], patient.description.get("StackStatusReason", "")
    if status.endswith("_IN_PROGRESS"):
        yield Finding("stack", f"a deployment is running ({status})", "Wait for its end, then look again", "deployment")
    elif status not in WELL:
        why = f": {reason}" if reason else ""
        yield Finding("stack", f"the last deployment failed ({status}){why}", "Deploy again", "deployment")


def drift(patient: Patient) -> Iterator[Finding]:
    """Functions, mappings, queues, rules and alarms are as the template made them. Raises StackError when
    CloudFormation cannot tell; its detection reads every resource and takes a minute or two."""
    cloudformation, name = patient.client("cloudformation"), patient.stack.name
    wanted = [each["LogicalResourceId"] for each in patient.resources if each["ResourceType"] in DRIFTING]
    begun = cloudformation.detect_stack_drift(StackName=name, LogicalResourceIds=wanted)["StackDriftDetectionId"]
    deadline = time.monotonic() + DRIFT_SECONDS
    while True:
        state = cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=begun)
        if state["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        if time.monotonic() > deadline:
            raise StackError(f"CloudFormation's drift detection takes over {DRIFT_SECONDS} s")
        time.sleep(1)
    if state["DetectionStatus"] == "DETECTION_FAILED":
        raise StackError(f"drift detection failed: {state.get('DetectionStatusReason', 'no reason given')}")
    found = cloudformation.describe_stack_resource_drifts(  # 100 at most; a stack has 61 resources of DRIFTING
        StackName=name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"], MaxResults=100
    )["StackResourceDrifts"]
    for changed in found:
        about = changed["LogicalResourceId"]
        if changed["StackResourceDriftStatus"] == "DELETED":
            yield Finding(about, "it was deleted by hand", "Deploy without it, then with it", "drift")
        for difference in changed.get("PropertyDifferences", []):
            setting = difference["PropertyPath"].removeprefix("/")
            actual, expected = difference.get("ActualValue", "nothing"), difference.get("ExpectedValue", "nothing")
            wrong = f"{setting} was changed by hand: it is {actual}, and the template says {expected}"
            yield Finding(about, wrong, "Change it back, or put it into the template or a parameter", "drift")


def mappings(patient: Patient) -> Iterator[Finding]:
    """Queues and streams feed their functions."""
    pages = patient.client("lambda").get_paginator("list_event_source_mappings").paginate()
    states = {each["UUID"]: each for page in pages for each in page["EventSourceMappings"]}
    for name, uuid in patient.of_type("AWS::Lambda::EventSourceMapping").items():
        if not (found := states.get(uuid)):
            continue  # deleted: `drift` says so
        result = found.get("LastProcessingResult", "")
        if found["State"] in ("Disabled", "Disabling"):
            if name == "CountMapping" and patient.live_model is None:
                continue  # as it should be until the first release: `endpoint` says so
            cure = f"Enable it: aws lambda update-event-source-mapping --uuid {uuid} --enabled"
            yield Finding(name, f"it is {found['State'].lower()}, so nothing reaches its function", cure, "mappings")
        elif result.startswith("PROBLEM"):
            yield Finding(name, f"its last call failed: {result}", "Read the function's log", "mappings")


def queues(patient: Patient) -> Iterator[Finding]:
    """No dead letters, and no message that waits for longer than its queue's alarm allows."""
    for name, url in patient.of_type("AWS::SQS::Queue").items():
        waiting = messages(patient, url)
        if not waiting:
            continue
        if name.endswith("DeadLetterQueue"):
            redriven = name.startswith(("Count", "Record"))
            cure = "bintally stack redrive" if redriven else "do what failed by hand, then empty the queue"
            section = name.removesuffix("Queue") + "Alarm"
            yield Finding(name, f"dead letters: {waiting:,}", f"Find the reason, then {cure}", section.lower())
            continue
        alarm = patient.alarms.get(f"{name}AgeAlarm")
        seconds = oldest(patient, url.rpartition("/")[2])
        if alarm and seconds > alarm["Threshold"]:
            wrong = f"{waiting:,} messages wait, the oldest for {seconds / 60:.0f} minutes"
            yield Finding(name, wrong, "Look at mapping, endpoint and concurrency", f"{name}AgeAlarm".lower())


def messages(patient: Patient, url: str) -> int:
    attribute = "ApproximateNumberOfMessages"
    found = patient.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[attribute])
    return int(found["Attributes"][attribute])


def oldest(patient: Patient, queue: str) -> float:
    """The age of a queue's oldest message in seconds, by its newest metric of the last quarter of an hour; else 0."""
    points = patient.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        StartTime=patient.now - timedelta(minutes=15),
        EndTime=patient.now,
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    return float(max(points, key=lambda point: point["Timestamp"])["Maximum"]) if points else 0.0


def endpoint(patient: Patient) -> Iterator[Finding]:
    """The endpoint is in service, with the capacity that the stack's parameters say."""
    name, parameters, sagemaker = patient.outputs["EndpointName"], patient.parameters, patient.client("sagemaker")
    yield from of_the_other_mode(patient)
    status = patient.stack.endpoint_status(patient.outputs)
    if status != "InService":
        if status == "not released":
            wrong = "no model was released, so photographs wait in the count queue"
            yield Finding(name, wrong, "Release one: bintally model release VERSION", "endpoint")
            return
        reason = sagemaker.describe_endpoint(EndpointName=name).get("FailureReason", "no reason given")
        wrong, cure = f"it is {status}: {reason}", "Read its log, or go back: bintally model rollback"
        if status in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
            wrong, cure = f"it is {status}", "Wait for its end, then look again"
        yield Finding(name, wrong, cure, "endpoint")
        return
    variant = patient.stack.live_variant(patient.outputs) or {}
    if "ServerlessConfig" in variant:
        runs = variant["ServerlessConfig"]
        concurrency, provisioned = int(parameters["CountConcurrency"]), int(parameters["ProvisionedConcurrency"])
        wanted: dict[str, Any] = {"MaxConcurrency": concurrency, "MemorySizeInMB": int(parameters["ServerlessMemory"])}
        wanted |= {"ProvisionedConcurrency": min(concurrency, provisioned)} if provisioned else {}
    else:
        runs, wanted = variant, {"InstanceType": parameters["InstanceType"]}
        yield from instances(patient, name)
    for setting, value in wanted.items():
        if runs.get(setting) != value:
            wrong = f"{setting} is {runs.get(setting, 'nothing')}, and the stack's parameters say {value}"
            yield Finding(name, wrong, "Release the live version again: bintally model release VERSION", "endpoint")


def of_the_other_mode(patient: Patient) -> Iterator[Finding]:
    """A change of EndpointMode leaves the endpoint of the mode before."""
    mode = "realtime" if patient.parameters["EndpointMode"] == "serverless" else "serverless"
    name = f"{patient.stack.name}-{mode}"
    try:
        patient.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return
    cure = f"Delete it: aws sagemaker delete-endpoint --endpoint-name {name}"
    yield Finding(name, f"nothing asks it: EndpointMode is {patient.parameters['EndpointMode']}", cure, "endpoint")


def instances(patient: Patient, endpoint: str) -> Iterator[Finding]:
    """A real-time endpoint has as many instances, scales between the limits and captures the share of its requests that
    the parameters say."""
    fewest, most, share = (
        int(patient.parameters[name]) for name in ("InstanceCount", "MaximumInstances", "DataCapturePercent")
    )
    found = patient.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    variant, capture = found["ProductionVariants"][0], found.get("DataCaptureConfig", {})
    again = "Release the live version again: bintally model release VERSION"
    if not fewest <= (number := variant["DesiredInstanceCount"]) <= (most or fewest):
        limits = f"{fewest} to {most}" if most else f"{fewest}"
        wrong = f"it has {number} instances, and the stack's parameters say {limits}"
        yield Finding(endpoint, wrong, again, "endpoint")
    captured = capture["CurrentSamplingPercentage"] if capture.get("EnableCapture") else 0
    if captured != share:
        wrong = f"it captures {captured} % of its requests, and the stack's parameters say {share} %"
        yield Finding(endpoint, wrong, again, "endpoint")
    if not patient.stack.on_aws:
        return  # one machine scales nothing
    targets = patient.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{endpoint}/variant/{variant['VariantName']}"]
    )["ScalableTargets"]
    scales = [(each["MinCapacity"], each["MaxCapacity"]) for each in targets]
    if scales != ([(fewest, most)] if most else []):
        between = f"between {scales[0][0]} and {scales[0][1]}" if scales else "not at all"
        wanted = f"between {fewest} and {most}" if most else "not at all"
        wrong = f"it scales {between}, and the stack's parameters say {wanted}"
        cure = "Change it back, or deploy with MaximumInstances=0 and then with the value"
        yield Finding(endpoint, wrong, cure, "endpoint")


def model(patient: Patient) -> Iterator[Finding]:
    """The live model is the newest approved one. A model that the registry lacks was released by hand."""
    if patient.live_model is None:
        return
    live, approved = patient.live_model["PrimaryContainer"]["ModelDataUrl"], False
    for package in patient.stack.packages():
        version, status = version_of(package), package["ModelApprovalStatus"]
        is_live = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == live
        if is_live and status != "Approved":
            cure = f"Approve it: bintally model approve {version}, or go back: bintally model rollback"
            yield Finding("model", f"version {version} is live and not approved ({status})", cure, "model")
        elif status == "Approved" and not is_live and not approved:
            cure = f"Release it: bintally model release {version}; after a rollback: bintally model reject {version}"
            yield Finding("model", f"version {version} is approved, and another one is live", cure, "model")
        approved = approved or status == "Approved"
        if is_live:
            return


def images(patient: Patient) -> Iterator[Finding]:
    """The images of the parameters exist, and the endpoint runs the one that its tag names now."""
    runs = patient.live_model["PrimaryContainer"]["Image"] if patient.live_model else ""
    for parameter in ("ServingImage", "TrainingImage"):
        image = patient.parameters[parameter]
        if not (parts := ECR.fullmatch(image)):
            continue  # of another registry
        account, name, tag, digest = parts.groups()
        wanted = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
        try:
            found = patient.client("ecr").describe_images(
                registryId=account, repositoryName=name, imageIds=[wanted]
            )["imageDetails"][0]["imageDigest"]  # fmt: skip
        except ClientError as error:
            if error.response["Error"]["Code"] not in NO_IMAGE:
                raise
            yield Finding(parameter, f"there is no image {image}", "Push it, or deploy with another one", "images")
            continue
        if parameter == "ServingImage" and runs and not runs.endswith(found):
            wrong = f"{image} is {found[:19]} now, and the endpoint runs {runs}"
            yield Finding(parameter, wrong, "Release the live version again: bintally model release VERSION", "images")


def alerts(patient: Patient) -> Iterator[Finding]:
    """Somebody hears of alarms."""
    topic = patient.outputs["AlertsTopic"]
    pages = patient.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    found = [each["SubscriptionArn"] for page in pages for each in page["Subscriptions"]]
    if not any(each.startswith("arn:") for each in found):
        pending = f", and {len(found)} not yet" if found else ""
        wrong = f"nobody hears of alarms: no subscription is confirmed{pending}"
        cure = f"aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint ADDRESS, and confirm it"
        yield Finding("AlertsTopic", wrong, cure, "alerts")


def schedules(patient: Patient) -> Iterator[Finding]:
    """Schedules have the state and the expression that the stack's parameters say."""
    for name, found in patient.schedules.items():
        wanted = patient.parameters.get(f"{name.removesuffix('Timer')}ScheduleState", "ENABLED")
        if found["State"] != wanted:
            wrong = f"it was {found['State'].lower()} by hand, and the stack says {wanted}"
            yield Finding(name, wrong, "Change it back, or set its parameter and deploy", "schedules")
        expression = patient.parameters.get(f"{name.removesuffix('Timer')}Schedule", found["ScheduleExpression"])
        if found["ScheduleExpression"] != expression:
            wrong = f"it is {found['ScheduleExpression']}, and the stack's parameters say {expression}"
            yield Finding(name, wrong, "Change it back, or set its parameter and deploy", "schedules")


def runs(patient: Patient) -> Iterator[Finding]:
    """The last release, retraining and reconciling succeeded, and the last two ran when their schedules say."""
    states = patient.client("stepfunctions")
    for name, verb, again in (
        ("Release", "release", "bintally model release VERSION"),
        ("Retrain", "retraining", "bintally retrain start"),
        ("Reconcile", "reconciling", "bintally stack reconcile"),
    ):
        machine = patient.outputs[f"{name}StateMachine"]
        found = states.list_executions(stateMachineArn=machine, maxResults=10)["executions"]
        ended = next((each for each in found if each["status"] != "RUNNING"), None)
        if ended and ended["status"] != "SUCCEEDED":
            reason = how_it_failed(states.describe_execution(executionArn=ended["executionArn"]), f"the last {verb}")
            yield Finding(f"{name}StateMachine", reason, f"Repair the cause, then: {again}", "runs")
        timer = patient.schedules.get(f"{name}Timer")
        every = timer and timer["State"] == "ENABLED" and interval(timer["ScheduleExpression"])
        if timer and every:
            last = max([timer["LastModificationDate"], *(each["startDate"] for each in found)])
            if patient.now - last > 2 * every:
                wrong = f"it has started nothing since {last:%Y-%m-%d}, and should every {every.days or 1} days"
                yield Finding(f"{name}Timer", wrong, f"Check its role and target; by hand: {again}", "runs")


def interval(expression: str) -> timedelta | None:
    """The longest time between two starts by a schedule's expression, roughly; None for one that starts once.

    cron(minutes hours day-of-month month day-of-week year), as EventBridge Scheduler has it.
    """
    if rate := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression):
        return timedelta(**{UNITS[rate[2]]: int(rate[1])})
    if not (cron := re.fullmatch(r"cron\(\S+ \S+ (\S+) (\S+) (\S+) \S+\)", expression)):
        return None
    day, month, weekday = cron.groups()
    if month != "*":
        return timedelta(days=366)
    if "#" in weekday or "L" in weekday or day not in ("*", "?"):
        return timedelta(days=31)
    return timedelta(days=1 if weekday in ("*", "?") else 7)


def quotas(patient: Patient) -> Iterator[Finding]:
    """The account's quotas hold what the stack runs, a release and a retraining."""
    for service, lacks in SERVICES.items():
        for name, has, needs in lacks(patient.stack, patient.parameters):
            wrong = f"the account's quota of {name} is {has:g}, and this stack needs {needs:g}"
            yield Finding(service, wrong, "Ask Service Quotas for more", "quotas")


def alarms(patient: Patient) -> Iterator[Finding]:
    """No alarm is firing, blind or mute."""
    for name, alarm in patient.alarms.items():
        section = name.lower()
        if alarm["StateValue"] == "ALARM":
            since = f"{alarm['StateUpdatedTimestamp'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            # Without the address at its end: a finding has its own.
            meaning = re.sub(r"\.? \S+#\w+$", "", alarm.get("AlarmDescription", ""))
            yield Finding(name, f"it has been firing since {since}", meaning or "Do what its page says", section)
        elif (
            alarm["StateValue"] == "INSUFFICIENT_DATA" and alarm["StateUpdatedTimestamp"] < patient.now - UNKNOWN_AFTER
        ):
            yield Finding(name, "it has had no data for over an hour", "Compare it with the template", section)
        if not alarm["ActionsEnabled"]:
            cure = f"aws cloudwatch enable-alarm-actions --alarm-names {alarm['AlarmName']}"
            yield Finding(name, "it tells nobody: its actions are disabled", cure, section)

"""Invariants of the template, checked on SAM's translation of it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
from bintally import reconcile, record, report_strays
from bintally.answering.requests import ROLES
from bintally.answering.sessions import WEAK_PASSWORD
from bintally.aws.queues import LONGEST_WAIT
from bintally.count import BATCH_SECONDS, PHOTOGRAPH_SECONDS
from bintally.releasing.endpoints import VARIANT
from bintally.retraining import LONGEST_STACK_NAME
from bintally.sign_in import SHIFT_SECONDS
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
TWO_WEEKS = 14 * 24 * 3600

# Actions that AWS gives no resource to name (Service Authorization Reference).
WITHOUT_RESOURCE = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListEndpoints",
    "sagemaker:ListModelPackages",
    "sagemaker:ListModels",
}


class NoManagedPolicies:
    """The template names none, so there is nothing to load."""

    def load(self) -> dict[str, str]:
        return {}


@cache
def source() -> dict[str, Any]:
    template: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return template


@cache
def translated() -> dict[str, Any]:
    """The CloudFormation template that SAM makes, with local paths in place of uploads."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"
    for resource in template["Resources"].values():
        resource.get("Properties", {}).pop("CodeUri", None)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::StateMachine":
            resource["Properties"]["DefinitionUri"] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        found: dict[str, Any] = transform(template, {}, NoManagedPolicies())
    return found


def of_type(kind: str) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in translated()["Resources"].items() if each["Type"] == kind}


def references(value: Any) -> Iterator[str]:
    """Logical ids that a value refers to."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [name, *_]}:
            yield name
        case {"Fn::GetAtt": str(name)}:
            yield name.split(".")[0]
        case {"Fn::Sub": str(text)}:
            yield from re.findall(r"\$\{([A-Za-z0-9]+)", text)
        case dict():
            for each in value.values():
                yield from references(each)
        case list():
            for each in value:
                yield from references(each)


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in of_type("AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in role, f"{name} has a managed policy, which nobody can read aloud"
        for policy in chosen(chosen(role["Policies"], "IsInVpc", True), "LocksTrail", True):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def queues_with(alarm_metric: str) -> set[str]:
    return {
        next(references(dimension["Value"]))
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
        if alarm["MetricName"] == alarm_metric
        for dimension in alarm["Dimensions"]
        if dimension["Name"] == "QueueName"
    }


def mappings_of(kind: str) -> dict[str, Any]:
    """Event source mappings whose source is a resource of this type, a queue or a table with a stream."""
    sources = of_type(kind)
    mappings = of_type("AWS::Lambda::EventSourceMapping")
    return {name: each for name, each in mappings.items() if next(references(each["EventSourceArn"])) in sources}


def watched_by(namespace: str, alarm_metric: str) -> set[str]:
    return {
        next(references(alarm["Dimensions"]))
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
        if (alarm.get("Namespace"), alarm.get("MetricName")) == (namespace, alarm_metric)
    }


def test_nothing_depends_on_itself() -> None:
    resources = translated()["Resources"]
    graph = {
        name: {r for r in references(each) if r in resources} | set(listed(each.get("DependsOn", [])))
        for name, each in resources.items()
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.slow
def test_lints() -> None:
    tool = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([tool, "template.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_named() -> None:
    for role, statement in statements():
        for action in listed(statement["Action"]):
            assert "*" not in action, f"{role} may {action}"


def test_every_resource_that_can_be_named_is() -> None:
    for role, statement in statements():
        for resource in listed(statement["Resource"]):
            if resource == "*" and "NetworkInterface" not in str(statement["Action"]):  # AWS documents these for all
                assert set(listed(statement["Action"])) <= WITHOUT_RESOURCE, f"{role} may {statement['Action']} on *"
            arn = re.sub(r"\$\{[^}]*\}", "X", resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource)
            assert not re.fullmatch(r"arn:(\*|([^:]*:){4}\*.*)", arn), f"{role}: {resource}"


LISTS = {"s3:GetObject": {"s3:ListBucket"}, "s3:GetObjectVersion": {"s3:ListBucket", "s3:ListBucketVersions"}}
READS_WHAT_IS_THERE = {"RetrainRole": "it copies what a training job has just stored, and fails in any case without it"}


def test_who_reads_objects_may_list_their_bucket_or_one_that_is_gone_answers_403() -> None:
    """S3 answers 404 for a missing object only to those who may list its bucket: functions and jobs take a 403 for a
    fault of the role and try again. The emulator answers 404 in any case."""
    reads: set[tuple[str, str, str, str]] = set()
    lists: dict[tuple[str, str, str], list[str]] = {}
    for role, statement in statements():
        for action, resource in product(listed(statement["Action"]), listed(statement["Resource"])):
            if action in LISTS and role not in READS_WHAT_IS_THERE:
                bucket, key = re.fullmatch(r"\$\{(\w+)\.Arn\}/(.*)", resource["Fn::Sub"]).groups()  # type: ignore[union-attr]
                reads |= {(role, bucket, needed, key) for needed in LISTS[action]}
            elif action in ("s3:ListBucket", "s3:ListBucketVersions"):
                condition = statement.get("Condition", {"StringLike": {"s3:prefix": "*"}})
                assert condition.keys() == {"StringLike"} and condition["StringLike"].keys() == {"s3:prefix"}
                prefixes = listed(condition["StringLike"]["s3:prefix"])
                lists.setdefault((role, next(references(resource)), action), []).extend(prefixes)
    assert {role for role, *_ in reads} >= {"CountRole", "RecordRole", "AnswerRole", "JobRole", "PlanRole", "JudgeRole"}
    for role, bucket, action, key in reads:
        prefixes = lists.get((role, bucket, action), [])
        assert any(fnmatchcase(key, prefix) for prefix in prefixes), f"{role} lacks {action} of {key} in {bucket}"


def test_every_function_has_a_role_of_its_own_and_a_log() -> None:
    functions = of_type("AWS::Lambda::Function")
    roles = [next(references(function["Role"])) for function in functions.values()]
    logs = [next(references(function["LoggingConfig"])) for function in functions.values()]
    assert len(set(roles)) == len(set(logs)) == len(functions)


def test_every_function_has_an_event() -> None:
    for name, function in of_type("AWS::Lambda::Function").items():
        module = function["Handler"].removesuffix(".handler").replace(".", "/")
        verb = module.rpartition("/")[2]
        assert (ROOT / "events" / f"{verb}.json").is_file(), f"{name} has no events/{verb}.json"
        folder = source()["Resources"][name]["Properties"].get("CodeUri", "functions/")
        assert (ROOT / folder / f"{module}.py").is_file()
        json.loads((ROOT / "events" / f"{verb}.json").read_bytes())


def test_the_runtime_is_named_once() -> None:
    assert source()["Globals"]["Function"]["Runtime"].startswith("python3.")
    for name, each in source()["Resources"].items():
        if each["Type"] == "AWS::Serverless::Function":
            assert "Runtime" not in each["Properties"], name
            assert each["Metadata"]["BuildMethod"] == "makefile", name


def test_every_rule_has_a_dead_letter_queue_with_an_alarm() -> None:
    alarmed = queues_with("ApproximateNumberOfMessagesVisible")
    rules = of_type("AWS::Events::Rule")
    assert rules
    for rule in rules.values():
        for target in rule["Targets"]:
            assert next(references(target["DeadLetterConfig"])) in alarmed


def test_every_function_that_a_rule_invokes_has_a_dead_letter_queue_with_an_alarm() -> None:
    alarmed, functions = queues_with("ApproximateNumberOfMessagesVisible"), of_type("AWS::Lambda::Function")
    targets = {
        next(references(target["Arn"])) for rule in of_type("AWS::Events::Rule").values() for target in rule["Targets"]
    }
    for name in targets & functions.keys():
        assert next(references(functions[name]["DeadLetterConfig"])) in alarmed, name


def test_every_working_queue_has_a_dead_letter_queue_and_alarms() -> None:
    alarmed, aged = queues_with("ApproximateNumberOfMessagesVisible"), queues_with("ApproximateAgeOfOldestMessage")
    queues = of_type("AWS::SQS::Queue")
    working = {
        next(references(mapping["EventSourceArn"])) for mapping in of_type("AWS::Lambda::EventSourceMapping").values()
    }
    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] is True, "an AWS-managed key would break delivery from EventBridge"
        if name in working:
            dead_letters = next(references(queue["RedrivePolicy"]["deadLetterTargetArn"]))
            assert dead_letters in alarmed and name in aged
        else:
            assert queue["MessageRetentionPeriod"] == TWO_WEEKS and name in alarmed


def test_a_file_of_which_nothing_is_kept_fires_an_alarm() -> None:
    (alarm,) = (
        each for each in of_type("AWS::CloudWatch::Alarm").values() if each["MetricName"] == "RecordFilesRefused"
    )
    service = of_type("AWS::Lambda::Function")["RecordFunction"]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
    assert alarm["Dimensions"] == [{"Name": "service", "Value": service}]
    assert (alarm["Statistic"], alarm["Threshold"], alarm["ComparisonOperator"]) == ("Sum", 0, "GreaterThanThreshold")


def test_every_alarm_ends_with_the_address_of_its_section_in_the_runbook() -> None:
    """Which says what it means, what to check and what to do."""
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", (ROOT / "docs/runbook.md").read_text(), re.M | re.S))
    for name, alarm in of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmDescription"]["Fn::Sub"].endswith(f". ${{Runbook}}#{name.lower()}"), name
        assert re.findall(r"^- \*\*(\w+):\*\* \S", sections[name], re.M) == ["Means", "Check", "Do"], name
    assert {name for name in sections if name.endswith("Alarm")} == set(of_type("AWS::CloudWatch::Alarm"))


def test_every_alarm_tells_the_topic() -> None:
    for name, alarm in of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmActions"] == [{"Ref": "AlertsTopic"}], name


@pytest.mark.parametrize(
    ("alarm", "share", "variable", "least"),
    [
        ("LowConfidenceAlarm", "LowConfidenceShare", "LOW_CONFIDENCE_SHARE", 11),
        ("DriftAlarm", "DisagreementLimit", "DISAGREEMENT_LIMIT", 26),
    ],
)
def test_a_few_counts_ring_no_alarm_about_a_share(alarm: str, share: str, variable: str, least: int) -> None:
    """Not even when all of them are bad; docs/operations.md tells from how many on they do."""
    found, usual = of_type("AWS::CloudWatch::Alarm")[alarm], translated()["Parameters"][share]["Default"]
    variables = of_type("AWS::Lambda::Function")["CountFunction"]["Environment"]["Variables"]
    assert variables[variable] == {"Ref": share}  # what the metric that it watches is reckoned from
    assert (found["Statistic"], found["ComparisonOperator"]) == ("Sum", "GreaterThanThreshold")
    assert (least - 1) * (1 - usual) <= found["Threshold"] + 1e-9
    assert least * (1 - usual) > found["Threshold"] + 1e-9


def test_every_function_behind_a_queue_or_a_stream_has_an_errors_alarm() -> None:
    alarmed = watched_by("AWS/Lambda", "Errors")
    for mapping in of_type("AWS::Lambda::EventSourceMapping").values():
        assert next(references(mapping["FunctionName"])) in alarmed


def test_visibility_is_six_time_limits_and_the_time_in_which_a_batch_gathers() -> None:
    queues, functions = of_type("AWS::SQS::Queue"), of_type("AWS::Lambda::Function")
    for mapping in mappings_of("AWS::SQS::Queue").values():
        queue = queues[next(references(mapping["EventSourceArn"]))]
        function = functions[next(references(mapping["FunctionName"]))]
        waits = mapping.get("MaximumBatchingWindowInSeconds", {"Ref": ""})["Ref"]
        window = source()["Parameters"][waits]["MaxValue"] if waits else 0
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"] + window
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"] and mapping["BatchSize"] <= 5
        assert "Enabled" not in mapping, "a change of the mapping would switch a released stack off"


def test_every_stream_is_retried_halved_kept_and_watched() -> None:
    streams = mappings_of("AWS::DynamoDB::Table")
    assert streams.keys() | mappings_of("AWS::SQS::Queue").keys() == of_type("AWS::Lambda::EventSourceMapping").keys()
    behind = watched_by("AWS/Lambda", "IteratorAge")
    discarded = watched_by("AWS/Lambda", "OnFailureDestinationDeliveredEventCount")
    for name, mapping in streams.items():
        assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["CountsTable", "StreamArn"]}
        assert mapping["MaximumRetryAttempts"] > 0 and mapping["BisectBatchOnFunctionError"] is True
        bucket = next(references(mapping["DestinationConfig"]["OnFailure"]["Destination"]))
        assert bucket in of_type("AWS::S3::Bucket"), "only a bucket is sent the records themselves"
        assert mapping["MetricsConfig"] == {"Metrics": ["EventCount"]} and name in discarded
        assert next(references(mapping["FunctionName"])) in behind
        assert "FunctionResponseTypes" not in mapping, "a batch is done as a whole"


def test_whoever_follows_a_stream_may_keep_what_failed() -> None:
    for mapping in mappings_of("AWS::DynamoDB::Table").values():
        bucket = mapping["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
        function = of_type("AWS::Lambda::Function")[next(references(mapping["FunctionName"]))]
        role = next(references(function["Role"]))
        allowed = {
            (action, json.dumps(resource))
            for name, statement in statements()
            if name == role
            for action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        }
        assert ("s3:PutObject", json.dumps({"Fn::Sub": f"${{{bucket}.Arn}}/aws/lambda/*"})) in allowed
        assert ("s3:ListBucket", json.dumps({"Fn::GetAtt": [bucket, "Arn"]})) in allowed


def test_follow_gathers_changes_and_its_function_can_take_what_lambda_sends() -> None:
    """The emulator keeps the window and does not wait; docs/decisions/label-log.md has the arithmetic."""
    mapping = of_type("AWS::Lambda::EventSourceMapping")["FollowMapping"]
    assert (mapping["MaximumBatchingWindowInSeconds"], mapping["BatchSize"]) == (60, 10_000)
    function = of_type("AWS::Lambda::Function")[next(references(mapping["FunctionName"]))]
    assert function["MemorySize"] >= 1769 and function["Timeout"] >= 300


def test_photographs_wait_for_no_others_unless_the_owner_says_so() -> None:
    wait = source()["Parameters"]["CountWait"]
    assert (wait["Default"], wait["MinValue"], wait["MaxValue"]) == (0, 0, 60)
    mapping = of_type("AWS::Lambda::EventSourceMapping")["CountMapping"]
    assert (mapping["MaximumBatchingWindowInSeconds"], mapping["BatchSize"]) == ({"Ref": "CountWait"}, 5)


def test_the_log_level_is_that_of_the_count_function_s_lines_and_of_lambda_s_about_it() -> None:
    assert source()["Parameters"]["CountLogLevel"]["AllowedValues"] == ["INFO", "WARN"]
    function = of_type("AWS::Lambda::Function")["CountFunction"]
    assert function["Environment"]["Variables"]["COUNT_LOG_LEVEL"] == {"Ref": "CountLogLevel"}
    logging = function["LoggingConfig"]
    assert (logging["SystemLogLevel"], logging["LogFormat"]) == ({"Ref": "CountLogLevel"}, "JSON")
    assert "ApplicationLogLevel" not in logging, "it would drop metrics, which have no level"


def matches(pattern: Any, value: Any) -> bool:
    """Whether a record fits an event filter, of the forms that the template uses."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(matches(each, value.get(name)) for name, each in pattern.items())
    prefixes = [each["prefix"] for each in pattern if isinstance(each, dict)]
    return value in pattern or (isinstance(value, str) and any(value.startswith(prefix) for prefix in prefixes))


def told(function: str, event: str, sort_key: str, status: str | None = None) -> bool:
    """Whether a change of the table reaches a function."""
    (mapping,) = (
        each for each in mappings_of("AWS::DynamoDB::Table").values() if each["FunctionName"] == {"Ref": function}
    )
    image = {"SK": {"S": sort_key}} | ({"status": {"S": status}} if status else {})
    record = {"eventName": event, "dynamodb": {"Keys": {"SK": {"S": sort_key}}, "NewImage": image}}
    patterns = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    return any(matches(pattern, record) for pattern in patterns)


@pytest.mark.parametrize(
    ("event", "sort_key", "reviewed"),
    [
        *(
            ("INSERT", "LATEST", True),
            ("MODIFY", "LATEST", True),
            ("INSERT", "RECORD", True),
            ("MODIFY", "RECORD", True),
        ),
        *(("INSERT", "TRAIL#00000001", True), ("REMOVE", "TRAIL#00000001", False), ("REMOVE", "RECORD", False)),
        *(("INSERT", "COUNT#2026", False), ("INSERT", "RECOUNT#1", False), ("MODIFY", "TOTALS#03", False)),
        *(("INSERT", "REVIEW", False), ("MODIFY", "REVIEW", False), ("INSERT", "IMAGE", False)),
    ],
)
def test_review_is_told_of_what_reviews_follow_from_and_of_their_trail(
    event: str, sort_key: str, reviewed: bool
) -> None:
    assert told("ReviewFunction", event, sort_key) == reviewed


@pytest.mark.parametrize(
    ("event", "sort_key", "status", "followed"),
    [
        ("INSERT", "COUNT#2026-11-22T10:15:00.000000Z#9ecc66a1fbf8cda6", "COUNTED", True),
        ("INSERT", "COUNT#2026-11-22T10:15:00.000000Z#9ecc66a1fbf8cda6", "REJECTED", False),
        ("REMOVE", "COUNT#2026-11-22T10:15:00.000000Z#9ecc66a1fbf8cda6", "COUNTED", False),
        ("INSERT", "RECOUNT#01JD7Z", None, True),
        ("INSERT", "RECORD", None, True),
        ("MODIFY", "RECORD", None, True),
        ("REMOVE", "RECORD", None, False),
        ("INSERT", "LATEST", "COUNTED", False),
        ("MODIFY", "LATEST", "COUNTED", False),
        ("MODIFY", "TOTALS#03", None, False),
        ("INSERT", "REVIEW", None, False),
        ("INSERT", "TRAIL#01JD7Z", None, False),
        ("INSERT", "LOCK", None, False),
    ],
)
def test_follow_is_told_of_counts_recounts_and_records_alone(
    event: str, sort_key: str, status: str | None, followed: bool
) -> None:
    assert told("FollowFunction", event, sort_key, status) == followed


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("incoming/SEA1/P-1/a.jpg", "CountRule"),
        ("Incoming/SEA1/P-1/a.jpg", "CountRule"),
        ("INCOMING/a.jpg", "CountRule"),
        ("incoming\\SEA1\\P-1\\a.jpg", "CountRule"),
        ("/incoming/SEA1/P-1/a.jpg", "CountRule"),
        ("./Incoming/SEA1/P-1/a.jpg", "CountRule"),
        ("records/a.csv", "RecordRule"),
        ("Records/a.csv", "RecordRule"),
        ("/records/a.csv", "RecordRule"),
        ("records\\SEA1\\P-1.json", "RecordRule"),
        ("incoming-archive/a.jpg", None),
        ("exports/incoming/a.jpg", None),
        ("a.jpg", None),
    ],
)
def test_what_seems_to_be_meant_for_a_folder_is_sent_to_be_refused(key: str, rule: str | None) -> None:
    """What no rule sends is reported once a day: functions/bintally/report_strays.py."""

    def takes(rule: dict[str, Any]) -> bool:
        prefixes = [each["prefix"] for each in rule["EventPattern"]["detail"]["object"]["key"]]
        return any(key.lower().startswith(each["equals-ignore-case"]) for each in prefixes)

    rules = of_type("AWS::Events::Rule")
    assert [name for name in ("CountRule", "RecordRule") if takes(rules[name])] == ([rule] if rule else [])


def test_every_schedule_keeps_what_it_could_not_deliver() -> None:
    alarmed = queues_with("ApproximateNumberOfMessagesVisible")
    for timer in of_type("AWS::Scheduler::Schedule").values():
        assert next(references(timer["Target"]["DeadLetterConfig"])) in alarmed


def test_the_report_of_strays_has_time_for_its_requests() -> None:
    assert of_type("AWS::Lambda::Function")["ReportStraysFunction"]["Timeout"] >= report_strays.WORST_SECONDS


def test_the_time_limit_holds_a_batch_of_photographs_at_worst() -> None:
    batch = of_type("AWS::Lambda::EventSourceMapping")["CountMapping"]["BatchSize"]
    worst = BATCH_SECONDS + batch * PHOTOGRAPH_SECONDS
    assert of_type("AWS::Lambda::Function")["CountFunction"]["Timeout"] > worst


def test_most_of_the_time_limit_is_for_the_rows_of_a_file() -> None:
    assert of_type("AWS::Lambda::Function")["RecordFunction"]["Timeout"] >= 4 * record.WORST_SECONDS


def test_every_schedule_keeps_what_it_could_not_start() -> None:
    alarmed, schedules = queues_with("ApproximateNumberOfMessagesVisible"), of_type("AWS::Scheduler::Schedule")
    assert schedules
    for schedule in schedules.values():
        assert next(references(schedule["Target"]["DeadLetterConfig"])) in alarmed
        assert schedule["ScheduleExpressionTimezone"] == {"Ref": "SiteTimezone"}


def test_what_costs_money_is_set_and_switched_by_parameters() -> None:
    parameters, schedules = translated()["Parameters"], of_type("AWS::Scheduler::Schedule")
    for schedule in (schedules["RetrainTimer"], schedules["ReconcileTimer"]):
        assert parameters[next(references(schedule["ScheduleExpression"]))]["Default"]
        assert parameters[next(references(schedule["State"]))]["AllowedValues"] == ["ENABLED", "DISABLED"]


def test_reconciling_is_weekly_and_reports_what_it_found() -> None:
    parameters, alarms = translated()["Parameters"], of_type("AWS::CloudWatch::Alarm")
    assert (parameters["ReconcileSchedule"]["Default"], parameters["ReconcileScheduleState"]["Default"]) == (
        *("cron(0 2 ? * SAT *)", "ENABLED"),
    )
    found, function = alarms["UncountedAlarm"], of_type("AWS::Lambda::Function")["ReconcileFunction"]
    assert (found["MetricName"], found["Threshold"]) == ("Uncounted", 0)
    assert found["Dimensions"][0]["Value"] == function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
    assert "ReconcileStateMachine" in watched_by("AWS/States", "ExecutionsFailed")


def test_a_step_of_reconciling_has_time_for_many_pages() -> None:
    limit = of_type("AWS::Lambda::Function")["ReconcileFunction"]["Timeout"]
    machine = json.loads((ROOT / "machines" / "reconcile.asl.json").read_bytes())
    assert limit >= 3 * reconcile.PAGE_SECONDS
    assert machine["States"]["Reconcile"]["TimeoutSeconds"] >= limit


def test_retries_outlast_an_endpoint_update() -> None:
    first = source()["Parameters"]["RetrySeconds"]["Default"]
    tries = of_type("AWS::SQS::Queue")["CountQueue"]["RedrivePolicy"]["maxReceiveCount"]
    waited = sum(min(LONGEST_WAIT, first * 2**number) for number in range(tries - 1))
    assert waited >= 30 * 60


@pytest.mark.parametrize(
    ("bucket", "rule", "prefix", "parameter"),
    [
        ("ImagesBucket", "photographs", "incoming/", "PhotographDays"),
        ("ArtifactsBucket", "labels", "labels/", "LabelDays"),
        ("ArtifactsBucket", "datasets", "datasets/", "DatasetDays"),
    ],
)
def test_what_is_old_is_deleted_where_that_is_asked_for_alone(
    bucket: str, rule: str, prefix: str, parameter: str
) -> None:
    assert {int(source()["Parameters"][name]["Default"]) for name in (parameter, "OldVersionDays")} == {0}
    found = source()["Resources"][bucket]["Properties"]["LifecycleConfiguration"]["Rules"]
    rules = {one["Id"]: one for one in found}
    for name in (rule, "old-versions"):
        assert rules[name]["Status"] == {"Fn::If": [f"Keeps{name.title().replace('-', '')}", "Disabled", "Enabled"]}
    assert rules[rule]["Prefix"] == prefix and "Prefix" not in rules["old-versions"]
    days = rules[rule]["ExpirationInDays"], rules["old-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"]
    assert [each["Fn::If"][2] for each in days] == [{"Ref": parameter}, {"Ref": "OldVersionDays"}]
    expired = {one["Prefix"] for one in found if "ExpirationInDays" in one}
    known = {"incoming/", "labels/", "datasets/", "display/", "captures/", "checkpoints/"}
    assert expired <= known, "models, reports and the files of runs are kept"
    assert not (kept := rules.get("checkpoints")) or kept["ExpirationInDays"] == {"Ref": "CheckpointDays"}


def test_the_trails_copy_is_locked_for_its_days_and_deleted_then() -> None:
    bucket, days = of_type("AWS::S3::Bucket")["TrailBucket"], {"Ref": "TrailLockDays"}
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": days}}
    assert bucket["ObjectLockEnabled"] is True
    assert bucket["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled", "Rule": rule}
    (expiry,) = bucket["LifecycleConfiguration"]["Rules"]
    assert (expiry["Status"], expiry["ExpirationInDays"]) == ("Enabled", days)
    assert {each["Condition"] for name, each in source()["Resources"].items() if name.startswith("Trail")} == {
        "LocksTrail"
    }
    assert source()["Parameters"]["TrailLockDays"]["Default"] == 0
    role = of_type("AWS::IAM::Role")["ReviewRole"]["Policies"]
    assert "TrailBucket" in json.dumps(chosen(role, "LocksTrail", True))
    assert "TrailBucket" not in json.dumps(chosen(role, "LocksTrail", False))
    for name, statement in statements():
        assert not [each for each in listed(statement["Action"]) if re.match("s3:.*(Retention|LegalHold)", each)], name


@pytest.mark.parametrize("name", ["ImagesBucket", "ArtifactsBucket", "TrailBucket"])
def test_buckets_are_private_versioned_encrypted_and_tls_only(name: str) -> None:
    bucket = of_type("AWS::S3::Bucket")[name]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (policy,) = (p for p in of_type("AWS::S3::BucketPolicy").values() if p["Bucket"] == {"Ref": name})
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"], statement["Principal"]) == ("Deny", "s3:*", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert len(statement["Resource"]) == 2


def chosen(value: Any, condition: str, holds: bool) -> Any:
    """A part of the template as CloudFormation reads it where this condition holds, or does not."""
    if isinstance(value, list):
        parts = [chosen(each, condition, holds) for each in value]
        return [each for each in parts if each != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    if value.get("Fn::If", [""])[0] == condition:
        return chosen(value["Fn::If"][1 if holds else 2], condition, holds)
    found = {name: chosen(each, condition, holds) for name, each in value.items()}
    return {name: each for name, each in found.items() if each != {"Ref": "AWS::NoValue"}}


def test_a_key_of_ones_own_encrypts_photographs_labels_and_counts() -> None:
    own, none = ({name: chosen(found, "HasDataKey", holds) for kind in ("AWS::S3::Bucket", "AWS::DynamoDB::Table")
                  for name, found in of_type(kind).items()} for holds in (True, False))  # fmt: skip
    for name in ("ImagesBucket", "ArtifactsBucket", "TrailBucket"):
        (rule,) = own[name]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": "DataKey"}}
        assert rule == {"BucketKeyEnabled": True, "ServerSideEncryptionByDefault": key}
        (rule,) = none[name]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    encrypted = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": {"Ref": "DataKey"}}
    assert own["CountsTable"]["SSESpecification"] == encrypted
    assert "SSESpecification" not in none["CountsTable"]
    for name, group in of_type("AWS::Logs::LogGroup").items():
        assert chosen(group, "HasDataKey", True)["KmsKeyId"] == {"Ref": "DataKey"}, name
        assert "KmsKeyId" not in chosen(group, "HasDataKey", False), name


def test_a_network_is_given_whole_or_not_at_all() -> None:
    """By its rule, on AWS before anything is made."""
    first, second = source()["Rules"]["NetworkIsWhole"]["Assertions"]
    for rule, missing, given in ((first, "SecurityGroupIds", "SubnetIds"), (second, "SubnetIds", "SecurityGroupIds")):
        absent = {"Fn::Equals": [{"Ref": given}, ""]}
        assert rule["Assert"] == {"Fn::Or": [absent, {"Fn::Not": [{"Fn::Equals": [{"Ref": missing}, ""]}]}]}
        assert rule["AssertDescription"].startswith(f"{missing} is empty.")
        assert source()["Parameters"][missing]["Default"] == ""
    assert source()["Conditions"]["IsInVpc"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "SubnetIds"}, ""]}]}


def test_every_function_is_in_the_stacks_vpc_and_in_none_without_it() -> None:
    names = {"SubnetIds": "SubnetIds", "SecurityGroupIds": "SecurityGroupIds"}
    vpc = {each: {"Fn::Split": [",", {"Ref": name}]} for each, name in names.items()}
    for name, function in of_type("AWS::Lambda::Function").items():
        assert chosen(function, "IsInVpc", True)["VpcConfig"] == vpc, name
        assert "VpcConfig" not in chosen(function, "IsInVpc", False), name


LAMBDA_IN_VPC = ("Assign", "Create", "Delete", "Describe", "Describe", "Unassign")
JOBS_IN_VPC = {f"ec2:{verb}NetworkInterface{what}" for verb in ("Create", "Delete") for what in ("", "Permission")}


def test_who_makes_network_interfaces_is_who_needs_them_and_a_functions_code_makes_none() -> None:
    """The actions are those of AWSLambdaVPCAccessExecutionRole, and those that SageMaker documents for a private VPC.
    Requests by a function's code carry the function's ARN, and Lambda's own do not."""
    found: dict[str, Any] = {}
    for role, statement in statements():
        if any(action.startswith("ec2:") for action in listed(statement["Action"])):
            assert role not in found
            found[role] = statement
    functions = {next(references(each["Role"])) for each in of_type("AWS::Lambda::Function").values()}
    assert found.keys() == functions | {"ModelRole", "JobRole"}
    for role, statement in found.items():
        if role in functions:
            assert [re.findall("[A-Z][a-z]+", action)[0] for action in statement["Action"]] == [*LAMBDA_IN_VPC], role
            assert statement["Condition"] == {"Null": {"lambda:SourceFunctionArn": "true"}}, role
        else:
            assert {action for action in statement["Action"] if "Describe" not in action} == JOBS_IN_VPC, role
    for name, role in of_type("AWS::IAM::Role").items():
        assert "ec2:" not in json.dumps(chosen(role, "IsInVpc", False)), name


def test_queues_and_the_topic_are_tls_only() -> None:
    denied: list[str] = []
    policies = of_type("AWS::SQS::QueuePolicy") | of_type("AWS::SNS::TopicPolicy")
    for policy in policies.values():
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny":
                assert statement["Principal"] == "*"
                assert statement["Action"] in ("sqs:*", "sns:Publish")
                assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
                denied += re.findall(r"\w+(?:Queue|Topic)\b", json.dumps(statement["Resource"]))
    assert sorted(denied) == sorted([*of_type("AWS::SQS::Queue"), *of_type("AWS::SNS::Topic")])


def test_an_alarm_may_publish_under_the_topics_policy() -> None:
    """A policy replaces the one that a topic has of itself, which lets its account's alarms in."""
    statements = of_type("AWS::SNS::TopicPolicy")["AlertsTopicPolicy"]["PolicyDocument"]["Statement"]
    assert {"Service": "cloudwatch.amazonaws.com"} in [one["Principal"] for one in statements]


def test_services_take_a_role_for_this_account_alone() -> None:
    """But Lambda, which names no source account when it takes a function's role."""
    for name, role in of_type("AWS::IAM::Role").items():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        if statement["Principal"] != {"Service": "lambda.amazonaws.com"}:
            assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}, name


def test_a_dead_letter_outlives_the_queue_it_came_from() -> None:
    """A message that is moved keeps the time it was sent at: with equal retentions it might be gone at once."""
    for queue in of_type("AWS::SQS::Queue").values():
        if "RedrivePolicy" in queue:
            dead = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
            left = of_type("AWS::SQS::Queue")[dead]["MessageRetentionPeriod"] - queue["MessageRetentionPeriod"]
            assert left >= 4 * 24 * 3600


def test_no_arn_names_a_partition() -> None:
    for path in (ROOT / "template.yaml", *(ROOT / "machines").glob("*.json")):
        assert "arn:aws:" not in path.read_text(), path.name


def test_state_machines_log_their_errors() -> None:
    groups = of_type("AWS::Logs::LogGroup")
    machines = of_type("AWS::StepFunctions::StateMachine")
    assert len(machines) == 3
    for machine in machines.values():
        (destination,) = machine["LoggingConfiguration"]["Destinations"]
        group = groups[destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"][0]]
        assert group["LogGroupName"]["Fn::Sub"].startswith("/aws/vendedlogs/states/")


def test_every_log_is_kept_for_a_time() -> None:
    for name, group in of_type("AWS::Logs::LogGroup").items():
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name
    named = [
        group["LogGroupName"]["Fn::Sub"] for group in of_type("AWS::Logs::LogGroup").values() if "LogGroupName" in group
    ]
    for mode in ("serverless", "realtime"):
        assert f"/aws/sagemaker/Endpoints/${{AWS::StackName}}-{mode}" in named


def test_a_scaled_endpoint_has_between_instance_count_and_maximum_instances() -> None:
    """On AWS alone, and after the release that makes the endpoint; the names of Application Auto Scaling must fit."""
    resources = translated()["Resources"]
    target, policy = resources["EndpointInstances"], resources["EndpointScaling"]
    assert (target["Condition"], policy["Condition"]) == ("IsScaled", "IsScaled")
    assert source()["Conditions"]["IsScaled"] == {
        "Fn::And": [
            {"Condition": "IsOnAws"},
            {"Fn::Equals": [{"Ref": "EndpointMode"}, "realtime"]},
            {"Fn::Not": [{"Fn::Equals": [{"Ref": "MaximumInstances"}, 0]}]},
        ]
    }
    assert target["Properties"] == {
        "ServiceNamespace": "sagemaker",
        "ResourceId": {"Fn::Sub": f"endpoint/${{AWS::StackName}}-${{EndpointMode}}/variant/{VARIANT}"},
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": {"Ref": "InstanceCount"},
        "MaxCapacity": {"Ref": "MaximumInstances"},
    }
    assert target["DependsOn"] == "ReleasedEndpoint", "it ends before the endpoint is removed with the stack"
    assert policy["Properties"]["ScalingTargetId"] == {"Ref": "EndpointInstances"}
    assert policy["Properties"]["PolicyType"] == "TargetTrackingScaling"
    tracking = policy["Properties"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == {"Ref": "InvocationsPerInstance"}
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    assert tracking["PredefinedMetricSpecification"] == metric
    assert tracking["ScaleOutCooldown"] < tracking["ScaleInCooldown"], "a queue waits while there are too few"


def test_the_table_is_on_demand_unless_units_are_asked_for() -> None:
    """On AWS alone: the emulator knows nothing that scales."""
    assert source()["Parameters"]["TableUnits"]["Default"] == 0
    asked = {"Fn::Not": [{"Fn::Equals": [{"Ref": "TableUnits"}, 0]}]}
    assert source()["Conditions"]["HasUnits"] == {"Fn::And": [{"Condition": "IsOnAws"}, asked]}
    table = chosen(of_type("AWS::DynamoDB::Table")["CountsTable"], "HasUnits", False)
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    for part in (table, *table["GlobalSecondaryIndexes"]):
        assert "ProvisionedThroughput" not in part


def test_every_number_of_units_has_its_parts() -> None:
    allowed, parts = source()["Parameters"]["TableUnits"]["AllowedValues"], source()["Mappings"]["Units"]
    assert list(parts) == list(map(str, allowed)), "the key of 0 too"
    for units in allowed[1:]:
        assert parts[str(units)] == {"Tenth": units / 10, "Hundredth": units / 100}


@pytest.mark.parametrize("units", [100, 500, 20_000])
def test_the_capacity_of_the_table_and_of_each_index_follows_its_load(units: int) -> None:
    """It starts between its limits: registering a target changes no table."""
    parts = source()["Mappings"]["Units"][str(units)]

    def number(value: Any) -> int:
        match value:
            case {"Ref": "TableUnits"}:
                return units
            case {"Fn::FindInMap": ["Units", {"Ref": "TableUnits"}, part]}:
                return int(parts[part])
        return int(value)

    resources = translated()["Resources"]
    table = chosen(of_type("AWS::DynamoDB::Table")["CountsTable"], "HasUnits", True)
    assert table["BillingMode"] == "PROVISIONED"
    starts = {"table/${CountsTable} dynamodb:table": table} | {
        f"table/${{CountsTable}}/index/{index['IndexName']} dynamodb:index": index
        for index in table["GlobalSecondaryIndexes"]
    }
    wanted = {
        f"{about}:{kind}": number(start)
        for about, part in starts.items()
        for kind, start in part["ProvisionedThroughput"].items()
    }
    assert sum(start for about, start in wanted.items() if "Write" in about) <= 40_000, "the least quota there is"
    policies = of_type("AWS::ApplicationAutoScaling::ScalingPolicy")
    del policies["EndpointScaling"]
    for name, policy in policies.items():
        target = policy["ScalingTargetId"]["Ref"]
        assert (resources[name]["Condition"], resources[target]["Condition"]) == ("HasUnits", "HasUnits")
        scaled = resources[target]["Properties"]
        start = wanted.pop(f"{scaled['ResourceId']['Fn::Sub']} {scaled['ScalableDimension']}")
        assert 1 <= number(scaled["MinCapacity"]) <= start <= number(scaled["MaxCapacity"]) == units
        kind = scaled["ScalableDimension"].split(":")[2].removesuffix("Units")
        assert (scaled["ServiceNamespace"], policy["PolicyType"]) == ("dynamodb", "TargetTrackingScaling")
        assert policy["TargetTrackingScalingPolicyConfiguration"] == {
            "TargetValue": 70,
            "PredefinedMetricSpecification": {"PredefinedMetricType": f"DynamoDB{kind}Utilization"},
        }
    assert not wanted, "nothing is left without a target"


@pytest.mark.parametrize(
    ("parameter", "right", "wrong"),
    [
        ("ServingImage", ["", "serve", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve:1"], ["serve :1"]),
        ("InstanceType", ["ml.c7i.large", "ml.inf2.24xlarge"], ["c7i.large", "ml.c7i", "ml.c7i.large "]),
        ("RetrainSchedule", ["cron(0 3 ? * SUN *)", "rate(7 days)"], ["0 3 * * 0", "weekly"]),
        ("RetrainSizes", ["96", "96,128"], ["96, 128", "96;128", ""]),
        ("AlertsKey", ["", "arn:aws-cn:kms:cn-north-1:123456789012:key/1234-ab"], ["alias/aws/sns", "1234-ab"]),
        (
            "DataKey",
            ["", "arn:aws:kms:eu-west-1:123456789012:key/1234-ab"],
            ["arn:aws:kms:eu-west-1:123456789012:alias/a"],
        ),
        ("SubnetIds", ["", "subnet-0a1b", "subnet-0a1b,subnet-0c2d"], ["subnet-0a1b, subnet-0c2d", "sg-0a1b", ","]),
        ("SecurityGroupIds", ["", "sg-0a1b,sg-0c2d"], ["subnet-0a1b", "sg-0a1b,", ",".join(6 * ["sg-0a1b"])]),
        ("CodeVersion", ["unknown", "46a7e43-dirty"], ["", "a b"]),
    ],
)
def test_a_value_that_no_service_takes_is_refused_at_deployment(
    parameter: str, right: list[str], wrong: list[str]
) -> None:
    pattern = re.compile(source()["Parameters"][parameter]["AllowedPattern"])
    assert all(pattern.fullmatch(value) for value in right)
    assert not any(pattern.fullmatch(value) for value in wrong)


def test_the_table_is_the_contracts() -> None:
    table = of_type("AWS::DynamoDB::Table")["CountsTable"]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == ["review", "site"]


def test_every_output_of_the_contract_is_there() -> None:
    expected = {"ImagesBucket", "CountsTable", "ReleaseStateMachine", "EndpointName", "CountQueueUrl"}
    assert expected | {"CountDeadLetterQueueUrl", "AlertsTopic", "ArtifactsBucket"} <= set(source()["Outputs"])


def test_every_parameter_and_output_is_described() -> None:
    for section in ("Parameters", "Outputs"):
        assert [name for name, found in source()[section].items() if not found.get("Description")] == []


def test_every_parameter_stands_in_one_group_in_the_order_of_the_file() -> None:
    groups = source()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert [name for group in groups for name in group["Parameters"]] == list(source()["Parameters"])
    assert all(group["Label"]["default"] for group in groups)


def test_the_sites_time_zone_is_any_that_iana_names_and_reaches_all_that_read_times() -> None:
    """Scheduler refuses a name that fits the pattern and that IANA does not know; the emulator does not."""
    found = source()["Parameters"]["SiteTimezone"]
    assert found["Default"] == "UTC"
    names = available_timezones() - {"localtime", "posixrules", "Factory"}
    assert [name for name in names if not re.fullmatch(found["AllowedPattern"], name)] == []
    for wrong in ("", "+02:00", "Europe/Berlin ", "Berlin, Germany", "CET/", "../UTC"):
        assert not re.fullmatch(found["AllowedPattern"], wrong)
    functions = of_type("AWS::Lambda::Function")
    for name in ("CountFunction", "RecordFunction"):
        assert functions[name]["Environment"]["Variables"]["SITE_TIMEZONE"] == {"Ref": "SiteTimezone"}
    for timer in of_type("AWS::Scheduler::Schedule").values():
        assert timer["ScheduleExpressionTimezone"] == {"Ref": "SiteTimezone"}


@pytest.mark.parametrize("missing", ["ServingImage", "TrainingImage"])
def test_a_deployment_without_an_image_is_refused(missing: str) -> None:
    """By its rule, on AWS before anything is made."""
    assert source()["Parameters"][missing]["Default"] == ""
    assertions = [each for rule in source()["Rules"].values() for each in rule["Assertions"]]
    (found,) = (each for each in assertions if missing in each["AssertDescription"])
    assert found["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": missing}, ""]}]}
    assert (
        f"{missing} is empty" in found["AssertDescription"] and f"deploy with {missing}=" in found["AssertDescription"]
    )


def test_the_longest_stack_name_is_told_where_one_deploys() -> None:
    told = f"{LONGEST_STACK_NAME} characters"
    assert told in (ROOT / "docs" / "deploying.md").read_text()
    assert told in (ROOT / "template.yaml").read_text()


def test_functions_never_import_torch_or_the_model() -> None:
    code = "import sys, pkgutil, importlib, bintally\n"
    code += "modules = [m.name for m in pkgutil.walk_packages(bintally.__path__, 'bintally.')]\n"
    code += "assert 'bintally.aws.table' in modules\n"
    code += "[importlib.import_module(name) for name in modules]\n"
    code += "print(sorted({'torch', 'numpy', 'model', 'training', 'aws_xray_sdk'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "functions", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert "torch" not in (ROOT / "functions" / "requirements.txt").read_text()


# People and the HTTP API

WITHOUT_AUTHORIZATION = {"POST /session", "GET /openapi.json", "GET /", "GET /page/{proxy+}"}


def test_every_route_asks_who_calls_but_for_those_that_must_not() -> None:
    routes = {each["RouteKey"]: each for each in of_type("AWS::ApiGatewayV2::Route").values()}
    for key, route in routes.items():
        kind = route.get("AuthorizationType", "NONE")
        if key in WITHOUT_AUTHORIZATION:
            assert kind == "NONE"
        elif "/api/" in key:
            assert (kind, route["AuthorizerId"]) == ("JWT", {"Ref": "ApiPeople"})
        else:
            assert kind == "AWS_IAM" and key == "ANY /machine/{proxy+}"
    assert routes.keys() > WITHOUT_AUTHORIZATION | {"ANY /api/{proxy+}"}
    (authorizer,) = of_type("AWS::ApiGatewayV2::Authorizer").values()
    assert authorizer["JwtConfiguration"]["Audience"] == [{"Ref": "UserPoolClient"}]
    assert list(references(authorizer["JwtConfiguration"]["Issuer"])) == ["AWS", "UserPool"]


def test_guessing_passwords_is_slow() -> None:
    """Routes whose own limit is set must exist before the stage."""
    (stage,) = of_type("AWS::ApiGatewayV2::Stage").values()
    usual, limits = stage["DefaultRouteSettings"], stage["RouteSettings"]
    assert {"POST /session", "GET /openapi.json"} <= limits.keys()
    for each in limits.values():
        assert each["ThrottlingRateLimit"] < usual["ThrottlingRateLimit"]
        assert each["ThrottlingBurstLimit"] < usual["ThrottlingBurstLimit"]
    first = set(listed(source()["Resources"]["ApiStage"]["DependsOn"]))
    named = {name for name, each in of_type("AWS::ApiGatewayV2::Route").items() if each["RouteKey"] in limits}
    assert named <= first and len(named) == len(limits)


def test_nobody_signs_up_and_one_function_sees_passwords() -> None:
    (pool,), (client,) = of_type("AWS::Cognito::UserPool").values(), of_type("AWS::Cognito::UserPoolClient").values()
    resource = source()["Resources"]["UserPool"]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert pool["DeletionProtection"] == {"Fn::If": ["IsProtected", "ACTIVE", "INACTIVE"]}
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert f"at least {pool['Policies']['PasswordPolicy']['MinimumLength']} characters" in WEAK_PASSWORD
    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert client["GenerateSecret"] is False and client["PreventUserExistenceErrors"] == "ENABLED"
    assert client["WriteAttributes"] == client["ReadAttributes"] == ["name"], "empty lists would allow all"
    units, lives = client["TokenValidityUnits"], client["RefreshTokenValidity"]
    assert (units["RefreshToken"], lives * 3600) == ("hours", SHIFT_SECONDS)
    assert (units["IdToken"], client["IdTokenValidity"]) == ("minutes", 15), "who is removed goes on for that long"
    groups = {each["GroupName"] for each in of_type("AWS::Cognito::UserPoolGroup").values()}
    assert groups == set(ROLES)
    who = {
        role for role, each in statements() for action in listed(each["Action"]) if action.startswith("cognito-idp:")
    }
    assert who == {"SignInRole"}

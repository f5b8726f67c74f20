"""Step Functions with SageMaker's jobs: what ministack alone lacks, and what ours does for a state machine."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack import Local

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])
SAGEMAKER = "arn:aws:sagemaker:us-east-1:000000000000"
RULE = "arn:aws:events:us-east-1:000000000000:rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule"
SYNC = "arn:aws:states:::sagemaker:createTrainingJob.sync"
SLEEPS = """
import os, time
print("started", flush=True)
time.sleep(300)
"""


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


@pytest.fixture(scope="module")
def start(ours: Local, role: Callable[..., str]) -> Callable[..., str]:
    """Starts an execution of a machine of one task, whose role may do what `.sync` needs but for what is taken away."""
    states = ours.client("stepfunctions")

    def run(
        name: str,
        parameters: dict[str, Any],
        *,
        resource: str = SYNC,
        without: Iterable[str] = (),
        stack: Local = ours,
        **task: Any,
    ) -> Any:
        jobs = ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"]
        statements = [
            {"Action": [*jobs, "sagemaker:AddTags"], "Resource": f"{SAGEMAKER}:training-job/*"},
            {"Action": ["events:PutRule", "events:PutTargets", "events:DescribeRule"], "Resource": RULE},
            {"Action": ["iam:PassRole"], "Resource": "*"},
        ]
        kept = [
            {"Effect": "Allow", **one, "Action": [action for action in one["Action"] if action not in without]}
            for one in statements
        ]
        arn = role(stack, f"sync-{name}", "states.amazonaws.com", *(one for one in kept if one["Action"]))
        state = {"Type": "Task", "Resource": resource, "Parameters": parameters, "End": True, **task}
        definition = {"StartAt": "Do", "States": {"Do": state, "Caught": {"Type": "Pass", "End": True}}}
        machine = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=arn)
        return states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]

    return run


@pytest.fixture(scope="module")
def training(ours: Local, role: Callable[..., str]) -> Callable[[str, str], dict[str, Any]]:
    """The request for a training job that runs a script."""
    s3 = ours.client("s3")
    s3.create_bucket(Bucket="steps")
    may = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
    arn = role(ours, "steps-job", "sagemaker.amazonaws.com", may)

    def request(name: str, script: str) -> dict[str, Any]:
        s3.put_object(Bucket="steps", Key=f"{name}/job.py", Body=script.encode())
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://steps/{name}/job.py"}}
        return {
            "TrainingJobName": name,
            "RoleArn": arn,
            "AlgorithmSpecification": {
                "TrainingImage": "training",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python", "/opt/ml/input/data/code/job.py"],
            },
            "InputDataConfig": [{"ChannelName": "code", "DataSource": source}],
            "OutputDataConfig": {"S3OutputPath": "s3://steps/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "Tags": [{"Key": "own", "Value": "1"}],
        }

    return request


def ended(stack: Local, execution: str, seconds: float = 60) -> Any:
    states = stack.client("stepfunctions")
    deadline = time.monotonic() + seconds
    while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def job_status(stack: Local, name: str) -> Any:
    return stack.client("sagemaker").describe_training_job(TrainingJobName=name)["TrainingJobStatus"]


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(stack: Local, name: str) -> bool:
    """Whether the job's script has said its first word."""
    file = stack.home / "jobs" / "training-job" / name / "algo-1.log"
    return file.exists() and "started" in file.read_text()


def test_a_task_waits_for_its_job_and_answers_with_its_description(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    found = ended(ours, start("waits", training("waits", "print('done')")))
    assert found["status"] == "SUCCEEDED", found
    output = json.loads(found["output"])
    described = ours.client("sagemaker").describe_training_job(TrainingJobName="waits")
    assert output["TrainingJobStatus"] == "Completed"
    assert output["ModelArtifacts"] == described["ModelArtifacts"]
    assert output["TrainingEndTime"] == round(described["TrainingEndTime"].timestamp() * 1000)
    tags = ours.client("sagemaker").list_tags(ResourceArn=described["TrainingJobArn"])["Tags"]
    assert {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"} in tags


def test_without_sync_a_task_only_creates(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    plain = SYNC.removesuffix(".sync")
    only_these = ("sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob", "events:PutRule")
    found = ended(ours, start("creates", training("creates", SLEEPS), resource=plain, without=only_these))
    assert json.loads(found["output"]) == {"TrainingJobArn": f"{SAGEMAKER}:training-job/creates"}
    assert job_status(ours, "creates") == "InProgress"
    ours.client("sagemaker").stop_training_job(TrainingJobName="creates")


def test_a_job_that_fails_fails_its_task(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    failed = ended(ours, start("fails", training("fails-in-steps", "raise SystemExit('all black')")))
    assert (failed["status"], failed["error"]) == ("FAILED", "States.TaskFailed")
    assert json.loads(failed["cause"])["FailureReason"] == "AlgorithmError: all black, exit code: 1"
    catch = [{"ErrorEquals": ["States.TaskFailed"], "Next": "Caught"}]
    caught = ended(ours, start("catches", training("caught", "raise SystemExit('x')"), Catch=catch))
    assert caught["status"] == "SUCCEEDED"


def test_errors_of_the_service_have_the_names_that_step_functions_gives_them(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    request = training("taken-in-steps", "")
    assert ended(ours, start("first", request))["status"] == "SUCCEEDED"
    taken = ended(ours, start("second", request))
    assert taken["error"] == "SageMaker.ResourceInUseException"
    wrong = ended(ours, start("wrong", {**training("wrong", ""), "EnableManagedSpotTraining": True}))
    assert wrong["error"] == "SageMaker.AmazonSageMakerException"
    assert "Error Code: ValidationException" in wrong["cause"]


@pytest.mark.parametrize(
    "missing, error",
    [
        ("sagemaker:CreateTrainingJob", "SageMaker.AmazonSageMakerException"),
        ("sagemaker:AddTags", "SageMaker.AmazonSageMakerException"),
        ("iam:PassRole", "SageMaker.AmazonSageMakerException"),
        ("sagemaker:DescribeTrainingJob", "States.Permissions"),
        ("sagemaker:StopTrainingJob", "States.Permissions"),
        ("events:PutRule", "States.Permissions"),
        ("events:PutTargets", "States.Permissions"),
        ("events:DescribeRule", "States.Permissions"),
    ],
)
def test_a_state_machine_needs_every_permission_that_sync_needs_on_aws(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]], missing: str, error: str
) -> None:
    name = missing.replace(":", "-")
    found = ended(ours, start(name, training(name, ""), without=[missing]))
    assert found["error"] == error
    assert missing in found["cause"]
    with pytest.raises(ClientError, match="Requested resource not found"):
        job_status(ours, name)


def test_an_execution_that_is_stopped_stops_its_job(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 3}]
    execution = start("stopped", training("stopped-in-steps", SLEEPS), Retry=retry)
    wait_until(lambda: running(ours, "stopped-in-steps"))
    ours.client("stepfunctions").stop_execution(executionArn=execution)
    wait_until(lambda: job_status(ours, "stopped-in-steps") == "Stopped")
    time.sleep(1.5)
    assert ended(ours, execution)["status"] == "ABORTED"


def test_a_task_that_is_out_of_time_stops_its_job(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    execution = start("late", training("late", SLEEPS), TimeoutSeconds=5, Catch=catch)
    assert ended(ours, execution)["status"] == "SUCCEEDED"
    wait_until(lambda: job_status(ours, "late") == "Stopped")


def test_a_job_that_someone_stops_fails_its_task(
    ours: Local, start: Callable[..., str], training: Callable[[str, str], dict[str, Any]]
) -> None:
    execution = start("someone", training("someone", SLEEPS))
    wait_until(lambda: running(ours, "someone"))
    ours.client("sagemaker").stop_training_job(TrainingJobName="someone")
    found = ended(ours, execution)
    assert found["error"] == "States.TaskFailed"
    assert json.loads(found["cause"])["TrainingJobStatus"] == "Stopped"


@BOTH
def test_there_is_an_integration_of_sagemaker(stack: Local, which: str, role: Callable[..., str]) -> None:
    arn = role(stack, "no-integration", "states.amazonaws.com")
    states = stack.client("stepfunctions")
    task = {"Type": "Task", "Resource": SYNC, "Parameters": {"TrainingJobName": "x"}, "End": True}
    definition = json.dumps({"StartAt": "Do", "States": {"Do": task}})
    machine = states.create_state_machine(name="integration", definition=definition, roleArn=arn)["stateMachineArn"]
    found = ended(stack, states.start_execution(stateMachineArn=machine)["executionArn"])
    assert ("not yet implemented" in found["cause"]) == (which == "bare")
    assert ("sagemaker:DescribeTrainingJob" in found["cause"]) == (which == "ours")


@BOTH
def test_a_stopped_execution_stays_stopped(stack: Local, which: str, role: Callable[..., str]) -> None:
    """A task that fails after the stop is not tried again, and its failure does not change how it ended."""
    any_function = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}
    arn = role(stack, "goes-on", "states.amazonaws.com", any_function)
    states = stack.client("stepfunctions")
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 3, "MaxAttempts": 3, "BackoffRate": 1}]
    call = {"FunctionName": "no-such-function", "Payload": {}}
    task = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": call, "Retry": retry}
    definition = json.dumps({"StartAt": "Do", "States": {"Do": {**task, "End": True}}})
    machine = states.create_state_machine(name="goes-on", definition=definition, roleArn=arn)["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]

    def tries() -> int:
        events = states.get_execution_history(executionArn=execution)["events"]
        return len([event for event in events if event["type"] == "TaskFailed"])

    wait_until(lambda: tries() == 1)
    states.stop_execution(executionArn=execution)
    if which == "bare":
        wait_until(lambda: states.describe_execution(executionArn=execution)["status"] == "FAILED")
        assert tries() == 4
        return
    time.sleep(6)  # as long as two more tries would take
    assert states.describe_execution(executionArn=execution)["status"] == "ABORTED"
    assert tries() == 1


LOCKS = """
import asyncio, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from local import emulator
from ministack import app
from ministack.services import dynamodb, stepfunctions
app._MAIN_LOOP = asyncio.new_event_loop()
threading.Thread(target=app._MAIN_LOOP.run_forever, daemon=True).start()
keys = {"AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}], "BillingMode": "PAY_PER_REQUEST"}
keys["KeySchema"] = [{"AttributeName": "PK", "KeyType": "HASH"}]
dynamodb._create_table({"TableName": "locks", **keys})
if sys.argv[1] == "ours":
    emulator.close_gaps()
put, met = stepfunctions._SERVICE_DISPATCH["arn:aws:states:::dynamodb:putItem"], dynamodb._evaluate_condition
def met_slowly(*given, **named):
    found = met(*given, **named)
    time.sleep(0.001)  # so that others look before this one writes
    return found
dynamodb._evaluate_condition = met_slowly
def takes(number):
    item = {"Item": {"PK": {"S": str(number // 4)}}, "ConditionExpression": "attribute_not_exists(PK)"}
    try:
        put("arn:aws:states:::dynamodb:putItem", {"TableName": "locks", **item})
        return True
    except stepfunctions._ExecutionError as refused:
        assert refused.error == "DynamoDB.ConditionalCheckFailedException", refused.error
        return False
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(takes, range(200))))
"""


@BOTH
def test_of_tasks_that_want_one_lock_one_gets_it(
    which: str, inside: Callable[[str, str], subprocess.CompletedProcess[str]]
) -> None:
    ran = inside(LOCKS, which)
    assert ran.returncode == 0, ran.stderr
    assert (int(ran.stdout) > 50) if which == "bare" else (int(ran.stdout) == 50)  # each lock is wanted four times

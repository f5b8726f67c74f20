"""Invariants of the state machine `retrain`, read from its definition and the template."""

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from bintally.plan import TICKS
from botocore.validate import ParamValidator
from samtranslator.yaml_helper import yaml_parse

from tests.template.machine import LOG_DELIVERY, decided, evaluated, reachable

ROOT = Path(__file__).parents[2]
DEFINITION = json.loads((ROOT / "machines" / "retrain.asl.json").read_text())
STATES: dict[str, dict[str, Any]] = DEFINITION["States"]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
TASKS = sorted(name for name, state in STATES.items() if state["Type"] == "Task")
JOBS = sorted(name for name in TASKS if STATES[name]["Resource"].endswith(".sync"))
ENDS = {"NothingToDo", "NotBetter", "Registered", "Failed"}
NAMES = ("process", "tune", "train", "champion", "challenger", "evaluate")
ROLE = "arn:aws:iam::123456789012:role/jobs"
SUBSTITUTED = {
    **{"ArtifactsBucket": "artifacts", "JobRole": ROLE, "JobVolume": 30, "SpotTraining": "true"},
    **{"ProcessingInstances": 1, "DataKey": "", "SecurityGroupIds": "", "SubnetIds": ""},
    **{f"{kind}InstanceType": "ml.c7i.large" for kind in ("Job", "Training", "Transform")},
}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234-ab"
SECURED = SUBSTITUTED | {"DataKey": KEY, "SecurityGroupIds": "sg-1", "SubnetIds": "subnet-1,subnet-2"}
VPC = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}


def actions(role: str) -> set[str]:
    (policy,) = (each for each in TEMPLATE[role]["Properties"]["Policies"] if "Fn::If" not in each)  # not that of a VPC
    found: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        named = statement["Action"]
        found |= {named} if isinstance(named, str) else set(named)
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(STATES, DEFINITION["StartAt"]) == STATES.keys()


def test_every_way_to_an_end_goes_through_the_conclusion() -> None:
    assert {name for name, state in STATES.items() if state.get("End") or state["Type"] == "Fail"} == ENDS
    assert not reachable(STATES, DEFINITION["StartAt"], without="Conclude") & ENDS


def test_a_plan_that_is_called_again_is_given_the_same_input() -> None:
    """The input of a state is the output of the one before, which is a plan the second time."""
    assert STATES["Begin"]["Assign"]["request"] == "{% $states.input %}"
    assert STATES["Plan"]["Arguments"]["Payload"]["input"] == "{% $request %}"


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("Conclude", "Live")])
def test_a_failed_task_is_concluded_under_its_own_name(name: str) -> None:
    state = STATES[name]
    assert state["TimeoutSeconds"] > 0
    (caught,) = state["Catch"]
    assert caught["ErrorEquals"] == ["States.ALL"]
    assert caught["Next"] == "Conclude"
    assert re.fullmatch(r"[A-Z][a-z]+Failed", caught["Assign"]["error"])


def test_each_job_waits_longer_than_the_job_may_run() -> None:
    """Else the machine gives a job up that SageMaker would still end itself."""
    for name in JOBS:
        limits = [
            int(found) for found in re.findall(r"Max(?:Runtime|WaitTime)InSeconds\D+(\d+)", json.dumps(STATES[name]))
        ]
        assert not limits or max(limits) < STATES[name]["TimeoutSeconds"], name
    assert sum(STATES[name]["TimeoutSeconds"] for name in JOBS) < 4 * DEFINITION["TimeoutSeconds"]


def test_a_job_that_failed_is_not_made_again_under_the_same_name() -> None:
    for name in JOBS:
        matched = {error for retry in STATES[name]["Retry"] for error in retry["ErrorEquals"]}
        assert not matched & {"States.ALL", "States.TaskFailed"}, name


def test_a_busy_service_is_asked_again_under_the_name_that_step_functions_gives_it() -> None:
    """Throttling is no modelled error of SageMaker; the service's own integration calls all such ones alike."""
    for name in JOBS:
        assert STATES[name]["Retry"][0]["ErrorEquals"] == ["SageMaker.AmazonSageMakerException"], name


def test_a_short_quota_is_waited_for_where_a_job_is_created() -> None:
    """Another job may end. Then the reason is SageMaker's message, which names the quota."""
    for name in JOBS:
        retry = STATES[name]["Retry"][1]
        assert retry["ErrorEquals"] == ["SageMaker.ResourceLimitExceededException"], name
        waits = [
            min(retry["IntervalSeconds"] * retry["BackoffRate"] ** n, retry["MaxDelaySeconds"])
            for n in range(retry["MaxAttempts"])
        ]
        assert 15 * 60 < sum(waits) < 30 * 60


def test_training_never_sees_the_test_split() -> None:
    training = ("PrepareChannels", "Tune", "PrepareTraining", "Train")
    assert "test.manifest" not in json.dumps([STATES[name] for name in training])
    assert "test.manifest" in json.dumps(STATES["TransformChallenger"])


def test_what_learns_or_answers_has_no_network() -> None:
    """Processing and evaluation read and write S3 themselves."""
    for name in ("Train", "CreateChampion", "CreateChallenger"):
        assert requested(name)["EnableNetworkIsolation"] is True
    assert requested("Tune")["TrainingJobDefinition"]["EnableNetworkIsolation"] is True


def requested(name: str, substituted: dict[str, Any] = SUBSTITUTED) -> dict[str, Any]:
    """The request of a job or of a model, which SageMaker's own model of it accepts."""
    champion = {"model_data_url": "s3://artifacts/models/1/model.tar.gz", "model_version": "1"}
    plan = {
        **{"run": "1", "model_version": "2", "start": "champion", "champion": champion, "instances": 1},
        **{"trials": 4, "parallel": 2, "tuning_parent": "", "process_arguments": ["--run"]},
        **{"hyperparameters": {"epochs": "3"}, "names": {each: f"bintally-{each}" for each in NAMES}},
    }
    variables: dict[str, Any] = {
        **{"plan": plan, "tuned": {}, "model_data_url": "s3://artifacts/retrain/1/model.tar.gz"},
        **{"folder": "s3://artifacts/retrain/1", "dataset": "s3://artifacts/retrain/1/dataset"},
    }
    for prepared in ("PrepareNetwork", "PrepareChannels", "PrepareTraining"):
        variables |= evaluated(STATES[prepared]["Assign"], substituted, **variables)
    request: dict[str, Any] = evaluated(STATES[name]["Arguments"], substituted, **variables)
    operation = re.sub(r".*:create(\w+)(\.sync)?", r"Create\1", STATES[name]["Resource"])
    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model(operation).input_shape)  # type: ignore[arg-type]
    assert not report.has_errors(), report.generate_report()
    return request


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *((name, ("NetworkConfig", "VpcConfig")) for name in ("Process", "Evaluate")),
        ("Tune", ("TrainingJobDefinition", "VpcConfig")),
        *((name, ("VpcConfig",)) for name in ("Train", "CreateChampion", "CreateChallenger")),
    ],
)
def test_jobs_are_in_the_stacks_vpc_and_in_none_without_it(name: str, path: tuple[str, ...]) -> None:
    """A batch transform is where its model is."""
    assert reduce(lambda part, key: part[key], path, requested(name, SECURED)) == VPC
    assert "VpcConfig" not in json.dumps(requested(name))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Tune", ("TrainingJobDefinition", "OutputDataConfig")),
        ("Train", ("OutputDataConfig",)),
        *((name, ("TransformOutput",)) for name in ("TransformChampion", "TransformChallenger")),
        ("Evaluate", ("ProcessingOutputConfig",)),
    ],
)
def test_what_sagemaker_writes_for_a_job_has_the_stacks_key(name: str, path: tuple[str, ...]) -> None:
    """Left to itself it takes a key of AWS, not the bucket's."""
    assert reduce(lambda part, key: part[key], path, requested(name, SECURED))["KmsKeyId"] == KEY
    assert "KmsKeyId" not in json.dumps(requested(name))


def test_no_volume_has_the_stacks_key() -> None:
    """SageMaker refuses one on instances with disks of their own, such as the default of training."""
    assert "VolumeKmsKeyId" not in json.dumps(DEFINITION)


@pytest.mark.parametrize("name", [*JOBS, "CreateChampion", "CreateChallenger"])
def test_a_job_has_the_tag_of_the_stack(name: str) -> None:
    """SageMaker gives a tuning job's tags to its training jobs. A package in the registry costs nothing."""
    arguments = STATES["PrepareTraining"]["Assign"]["training"] if name == "Train" else STATES[name]["Arguments"]
    text = json.dumps(arguments) if isinstance(arguments, dict) else arguments.replace("'", '"')
    assert '"Tags": [{"Key": "bintally-stack", "Value": "${StackName}"}]' in text
    substitutions = TEMPLATE["RetrainStateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert substitutions["StackName"] == {"Ref": "AWS::StackName"}


def test_nothing_but_an_approval_starts_a_release() -> None:
    text = json.dumps(DEFINITION)
    assert "startExecution" not in text
    assert "updateEndpoint" not in text
    assert STATES["Register"]["Arguments"]["ModelApprovalStatus"] == "{% $approval %}"


@pytest.mark.parametrize(
    ("config", "status", "approval"),
    [
        ("then", "InService", "Approved"),
        ("later", "InService", "PendingManualApproval"),
        ("then", "Updating", "PendingManualApproval"),
    ],
)
def test_a_challenger_of_a_model_that_is_no_longer_live_waits_for_a_person(
    config: str, status: str, approval: str
) -> None:
    plan = {"approval": "Approved", "champion": {"config": "then"}}
    expression = STATES["Live"]["Assign"]["approval"]
    states = {"result": {"EndpointConfigName": config, "EndpointStatus": status}}
    assert evaluated(expression, SUBSTITUTED, states=states, plan=plan) == approval
    assert STATES["Live"]["Catch"][0]["Assign"]["approval"] == "PendingManualApproval"


def test_every_substitution_is_given_and_used() -> None:
    text = json.dumps(DEFINITION)
    given = TEMPLATE["RetrainStateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert {name for name in given if f"${{{name}}}" not in text} == set()
    for name in given:
        text = text.replace(f"${{{name}}}", "")
    assert "${" not in text


def test_the_role_allows_what_the_tasks_do_and_no_more() -> None:
    needed = {"lambda:InvokeFunction", "iam:PassRole", "sagemaker:CreateModel", "sagemaker:CreateModelPackage"}
    needed |= {"s3:GetObject", "s3:PutObject"}  # of the package
    needed |= {"sagemaker:DescribeEndpoint"}  # whether the champion is live still
    needed |= {"sagemaker:AddTags", "sagemaker:ListTags", "events:PutTargets", "events:PutRule", "events:DescribeRule"}
    for name in JOBS:
        job = STATES[name]["Resource"].removeprefix("arn:${Partition}:states:::sagemaker:create").removesuffix(".sync")
        needed |= {f"sagemaker:{verb}{job}" for verb in ("Create", "Describe", "Stop")}
    assert actions("RetrainRole") == needed | LOG_DELIVERY


def test_roles_are_passed_to_sagemaker_only() -> None:
    (policy,) = TEMPLATE["RetrainRole"]["Properties"]["Policies"]
    (statement,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert statement["Resource"] == {"Fn::GetAtt": ["JobRole", "Arn"]}
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_what_the_machine_cannot_see_of_its_own_end_is_cleaned_up_after() -> None:
    pattern = TEMPLATE["ConcludeRule"]["Properties"]["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED", "TIMED_OUT", "ABORTED"]
    assert pattern["stateMachineArn"] == [{"Ref": "RetrainStateMachine"}]


def test_no_run_starts_while_the_stack_is_deleted() -> None:
    assert TEMPLATE["RetrainTimer"]["DependsOn"] == TEMPLATE["DriftRule"]["DependsOn"] == "ReleasedEndpoint"


def test_the_starts_that_no_person_waits_for_are_known() -> None:
    timer, rule = TEMPLATE["RetrainTimer"]["Properties"], TEMPLATE["DriftRule"]["Properties"]
    inputs = [timer["Target"]["Input"], rule["Targets"][0]["Input"]]
    assert tuple(json.loads(each)["reason"] for each in inputs) == TICKS


def test_a_package_is_copied_to_where_jobs_cannot_write_before_it_is_registered() -> None:
    plan = {"run": "261122-aaaaaa", "model_version": "2026-11-22-aaaaaa"}
    folder = "s3://artifacts/retrain/261122-aaaaaa"
    written = requested("Train")["OutputDataConfig"]
    assert written["S3OutputPath"] == "s3://artifacts/retrain/1/training"
    url = f"{folder}/training/a-job/output/model.tar.gz"
    copy = evaluated(STATES["Publish"]["Arguments"], SUBSTITUTED, plan=plan, model_data_url=url)
    assert copy == {
        "Bucket": "artifacts",
        "Key": "models/2026-11-22-aaaaaa/model.tar.gz",
        "CopySource": "artifacts/retrain/261122-aaaaaa/training/a-job/output/model.tar.gz",
    }
    assigned = evaluated(STATES["Publish"]["Assign"], SUBSTITUTED, plan=plan)
    assert assigned == {"model_data_url": f"s3://artifacts/{copy['Key']}"}
    assert "Register" not in reachable(STATES, DEFINITION["StartAt"], without="Publish")


def channels(start: str) -> list[dict[str, Any]]:
    plan = {"start": start, "champion": {"model_data_url": "s3://artifacts/models/1/model.tar.gz"}}
    assigned = STATES["PrepareChannels"]["Assign"]["channels"]
    return list(evaluated(assigned, SUBSTITUTED, plan=plan, dataset="s3://artifacts/dataset"))


def tuned(**hyperparameters: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The ranges and the fixed hyperparameters of the tuning job for a run with these."""
    plan = {"names": {"tune": "bintally-1"}, "trials": 4, "parallel": 2, "tuning_parent": ""}
    asked = evaluated(
        STATES["Tune"]["Arguments"],
        SUBSTITUTED,
        plan=plan | {"hyperparameters": hyperparameters},
        folder="s3://artifacts/retrain/1",
        channels=channels("champion"),
        metrics=STATES["PrepareChannels"]["Assign"]["metrics"],
        **evaluated(STATES["PrepareNetwork"]["Assign"], SUBSTITUTED),
    )
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape: Any = model.operation_model("CreateHyperParameterTuningJob").input_shape
    report = ParamValidator().validate(asked, shape)
    assert not report.has_errors(), report.generate_report()
    return (
        asked["HyperParameterTuningJobConfig"]["ParameterRanges"],
        asked["TrainingJobDefinition"]["StaticHyperParameters"],
    )


@pytest.mark.parametrize(
    ("given", "searched"),
    [
        ({}, {"learning-rate", "weight-decay", "augmentation", "batch-size"}),
        ({"learning-rate": "0.01"}, {"weight-decay", "augmentation", "batch-size"}),
        ({"batch-size": "16"}, {"learning-rate", "weight-decay", "augmentation"}),
        ({"learning-rate": "0.01", "batch-size": "16"}, {"weight-decay", "augmentation"}),
    ],
)
def test_tuning_searches_what_is_not_given(given: dict[str, str], searched: set[str]) -> None:
    """SageMaker refuses a hyperparameter that is both fixed and searched."""
    ranges, fixed = tuned(**{"epochs": "3", **given})
    assert {one["Name"] for kind in ranges.values() for one in kind} == searched
    assert fixed == {"epochs": "3", "package": "false", **given}


@pytest.mark.parametrize(
    ("state", "variables", "where"),
    [
        ("IsPlanned", {"outcome": "planned"}, "Prepare"),
        ("IsPlanned", {"outcome": "reading"}, "Plan"),
        ("IsPlanned", {"outcome": "nothing to do"}, "Conclude"),
        ("IsPlanned", {"outcome": "refused"}, "Conclude"),
        ("IsTuned", {"plan": {"trials": 1}}, "Tune"),
        ("IsTuned", {"plan": {"trials": 0}}, "PrepareTraining"),
        ("IsBetter", {"promote": True}, "Live"),
        ("IsBetter", {"promote": False}, "Conclude"),
        ("IsPlanned", {"outcome": "under way"}, "Conclude"),
        ("HowItEnded", {"outcome": "nothing to do"}, "NothingToDo"),
        ("HowItEnded", {"outcome": "under way"}, "NothingToDo"),
        ("HowItEnded", {"outcome": "not better"}, "NotBetter"),
        ("HowItEnded", {"outcome": "registered"}, "Registered"),
        ("HowItEnded", {"outcome": "failed"}, "Failed"),
        ("HowItEnded", {"outcome": "refused"}, "Failed"),
    ],
)
def test_where_a_run_goes_on(state: str, variables: dict[str, Any], where: str) -> None:
    assert decided(STATES[state], SUBSTITUTED, **variables)[0] == where


@pytest.mark.parametrize(
    ("start", "names"),
    [("champion", ["dataset", "train", "validation", "champion"]), ("scratch", ["dataset", "train", "validation"])],
)
def test_training_starts_from_the_champion_unless_from_scratch(start: str, names: list[str]) -> None:
    assert [channel["ChannelName"] for channel in channels(start)] == names

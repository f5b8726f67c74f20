"""Completes ministack's Step Functions: checks of the state machine's role, SageMaker's integration with its `.sync`
form, stops that take effect, an execution's time limit, and serialized writes to tables.

It touches ministack's internals, as local/emulator.py and local/cloudwatch.py do, with one function per gap;
tests/local/test_steps shows that ministack alone has each gap. Its modules are imported inside the functions.
"""

import asyncio
import contextlib
import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from localsagemaker.host import Host
from localsagemaker.jobs import ENDED
from localsagemaker.service import Service
from localsagemaker.wire import Json, ServiceError, milliseconds, operation, output_shape

POLL_SECONDS = 0.2
OTHERS = ("createModel", "createEndpointConfig", "createEndpoint", "updateEndpoint")
RULES = {  # job kinds that a task can wait for, and the rule that notifies Step Functions of their ends
    "TrainingJob": "StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "ProcessingJob": "StepFunctionsGetEventsForSageMakerProcessingJobsRule",
    "TransformJob": "StepFunctionsGetEventsForSageMakerTransformJobsRule",
    "HyperParameterTuningJob": "StepFunctionsGetEventsForSageMakerTuningJobsRule",
}

EXECUTION: contextvars.ContextVar[str] = contextvars.ContextVar("execution", default="")
"""ARN of the thread's execution; empty outside an execution."""
DEADLINE: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))
"""Deadline of the thread's task, by time.monotonic()."""


class Over(SystemExit):
    """The execution ended during a task of this thread. No Retry or Catch sees this, and it ends the thread without a
    message."""


def running() -> bool:
    from ministack.services import stepfunctions

    return EXECUTION.get() == "" or stepfunctions._executions[EXECUTION.get()]["status"] == "RUNNING"


def role() -> str:
    """The role of the state machine of the thread's execution; empty outside an execution."""
    from ministack.services import stepfunctions

    if not EXECUTION.get():
        return ""
    machine = stepfunctions._state_machines.get(stepfunctions._executions[EXECUTION.get()]["stateMachineArn"])
    return str(machine["roleArn"]) if machine else ""


def know_the_execution() -> None:
    """In ministack a task does not know its execution, and a stopped execution continues: its next task still runs, a
    failing one is retried, and the end of its last one changes ABORTED to FAILED."""
    from ministack.services import stepfunctions

    run, invoke, fail = stepfunctions._run_execution, stepfunctions._invoke_resource, stepfunctions._fail_execution
    invoke_with_timeout = stepfunctions._invoke_resource_with_timeout

    def run_known(execution_arn: str) -> None:
        token = EXECUTION.set(execution_arn)
        try:
            run(execution_arn)
        except Over:
            pass
        finally:
            EXECUTION.reset(token)

    def invoke_unless_over(resource: str, data: Any) -> Any:
        if not running():
            raise Over
        result = invoke(resource, data)
        if not running():
            raise Over
        return result

    def invoke_with_deadline(resource: str, data: Any, seconds: float) -> Any:
        token = DEADLINE.set(time.monotonic() + seconds)
        try:
            return invoke_with_timeout(resource, data, seconds)
        finally:
            DEADLINE.reset(token)

    def fail_unless_over(execution: Json, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail(execution, error, cause)

    stepfunctions._run_execution = run_known
    stepfunctions._invoke_resource = invoke_unless_over
    stepfunctions._invoke_resource_with_timeout = invoke_with_deadline
    stepfunctions._fail_execution = fail_unless_over


def keep_time_limits() -> None:
    """ministack ignores an execution's TimeoutSeconds, so none is ever TIMED_OUT."""
    from ministack.services import stepfunctions

    def end_late_ones() -> None:
        for execution in stepfunctions._executions.values():
            machine = stepfunctions._state_machines.get(execution["stateMachineArn"])
            if machine is None or execution["status"] != "RUNNING":
                continue
            limit = json.loads(machine["definition"]).get("TimeoutSeconds", float("inf"))
            if time.time() - stepfunctions._iso_to_epoch_ms(execution["startDate"]) / 1000 > limit:
                execution |= {"status": "TIMED_OUT", "stopDate": stepfunctions.now_iso(), "error": "States.Timeout"}
                stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
                stepfunctions._emit_execution_status_event(execution)

    def watch() -> None:
        while True:
            time.sleep(1)
            with contextlib.suppress(ValueError):  # a definition that is not JSON; its execution fails by itself
                end_late_ones()

    threading.Thread(target=watch, name="time-limits", daemon=True).start()


def use_tables_in_turn() -> None:
    """In ministack tasks use tables from their executions' threads, concurrently with each other and with requests: two
    conditional writes may both succeed, and two releases hold one lock. Here the thread that answers requests executes
    them, one at a time."""
    from ministack import app
    from ministack.services import stepfunctions

    use = stepfunctions._invoke_dynamodb

    def use_in_turn(operation: str, data: Json) -> Any:
        async def used() -> Any:
            return use(operation, data)

        return asyncio.run_coroutine_threadsafe(used(), app._MAIN_LOOP).result()

    stepfunctions._invoke_dynamodb = use_in_turn


def check_state_machine_roles(host: Host) -> None:
    """ministack's Step Functions calls services without checking the state machine's role, so a missing permission
    shows only on AWS. Here each task is first checked against the role's policies."""
    from ministack import app
    from ministack.core import iam_actions
    from ministack.services import stepfunctions

    call, invoke = app.call_service_handler_sync, stepfunctions._call_lambda
    dispatch = stepfunctions._SERVICE_DISPATCH
    region, account = host.region, host.account

    def call_checked(
        handler: Any, method: str, path: str, headers: dict[str, str], body: Any, query: Any, *rest: Any
    ) -> Any:
        # CloudFormation also calls this, with no role to check.
        if role():
            service = next(name for name, known in app.SERVICE_HANDLERS.items() if known is handler)
            content = body.encode() if isinstance(body, str) else body
            request = (service, method, path, headers, content, query)
            action = iam_actions.extract_iam_action(*request)
            wanted = [(action, iam_actions.extract_resource_arn(*request, region, account))] if action else []
            if service == "sagemaker" and action:
                wanted += also_wanted(*wanted[0], json.loads(content))
            for needed, resource in wanted:
                if reason := denied(host, role(), needed, resource):
                    return iam_actions.access_denied_response(
                        service, needed, role(), "", error_code="AccessDeniedException", message=reason
                    )
        return call(handler, method, path, headers, body, query, *rest)

    def invoke_checked(function: str, event: Any) -> Any:
        name = function.rpartition("function:")[2].split(":")[0]
        refuse("Lambda", "lambda:InvokeFunction", f"arn:aws:lambda:{region}:{account}:function:{name}")
        return invoke(function, event)

    def dispatch_checked(prefix: str, task: Any) -> Any:
        _, _, _, _, _, service, name = prefix.split(":")
        resource: Callable[[Json], str] = {
            "dynamodb": lambda data: f"arn:aws:dynamodb:{region}:{account}:table/{data.get('TableName')}",
            "sns": lambda data: data.get("TopicArn", "*"),
            "sqs": lambda data: f"arn:aws:sqs:{region}:{account}:{data.get('QueueUrl', '').rpartition('/')[2]}",
            "events": lambda data: f"arn:aws:events:{region}:{account}:event-bus/default",
        }.get(service, lambda data: "*")

        def checked(arn: str, data: dict[str, Any]) -> Any:
            refuse(service.upper(), f"{service}:{name[0].upper()}{name[1:]}", resource(data))
            return task(arn, data)

        return checked

    def refuse(prefix: str, action: str, resource: str) -> None:
        if role() and (reason := denied(host, role(), action, resource)):
            raise stepfunctions._ExecutionError(f"{prefix}.AccessDeniedException", reason)

    stepfunctions._call_lambda = invoke_checked
    app.call_service_handler_sync = call_checked
    for prefix, task in list(dispatch.items()):
        dispatch[prefix] = dispatch_checked(prefix, task)


def also_wanted(action: str, resource: str, request: Json) -> list[tuple[str, str]]:
    """The permissions that SageMaker requires besides the action itself: to pass each role in the request, to tag, and
    to read the alarms that may roll back an update."""
    wanted = [("iam:PassRole", passed) for passed in roles_in(request)]
    for alarm in request.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", []):
        _, _, _, region, account, _ = resource.split(":", 5)
        wanted.append(
            ("cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{region}:{account}:alarm:{alarm['AlarmName']}")
        )
    if action.startswith("sagemaker:Create") and request.get("Tags"):
        wanted.append(("sagemaker:AddTags", resource))
    return wanted


def roles_in(request: Any) -> Iterator[str]:
    if isinstance(request, dict):
        for name, value in request.items():
            if name in ("RoleArn", "ExecutionRoleArn"):
                yield str(value)
            else:
                yield from roles_in(value)
    elif isinstance(request, list):
        for item in request:
            yield from roles_in(item)


def denied(host: Host, role_arn: str, action: str, resource: str) -> str | None:
    """The reason for which the role's policies deny the action; None when they allow it."""
    from ministack.core import iam_actions, iam_evaluator

    name = role_arn.rpartition("/")[2]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{host.account}:assumed-role/{name}/execution",
        principal_type="AssumedRole",
        principal_account=host.account,
        action=action,
        resource_arn=resource,
        region=host.region,
        service_context={"iam:passedtoservice": "sagemaker.amazonaws.com"} if action == "iam:PassRole" else {},
    )
    found = iam_evaluator.evaluate(context, iam_evaluator._gather_role_policies(name, host.account))
    if found.decision == "Allow":
        return None
    explicit = found.decision == "Deny"
    return str(iam_actions.identity_denial_message(action, context.principal_arn, resource, explicit))


def integrate_sagemaker(service: Service, host: Host) -> None:
    """ministack lacks arn:aws:states:::sagemaker:create…[.sync]. Here it creates; `.sync` waits for the job's end and
    returns Describe's answer, and stops the job when the execution or the task's time ends first."""
    from ministack import app
    from ministack.services import stepfunctions

    def task(resource: str, data: Json) -> Json:
        name, _, form = resource.rpartition(":")[2].partition(".")
        created = name[0].upper() + name[1:]
        noun = created.removeprefix("Create")
        if not form:
            return ask(created, data)
        if form != "sync" or noun not in RULES:
            raise stepfunctions._ExecutionError("States.Runtime", f"{resource} is not a supported resource")
        job = host.arn(noun_in_arns(noun), str(data.get(f"{noun}Name", "*")))
        rule = f"arn:aws:events:{host.region}:{host.account}:rule/{RULES[noun]}"
        needed = [(f"sagemaker:{verb}{noun}", job) for verb in ("Describe", "Stop")]
        needed += [(f"events:{verb}", rule) for verb in ("PutRule", "PutTargets", "DescribeRule")]
        for action, on in needed:
            if reason := denied(host, role(), action, on):
                raise stepfunctions._ExecutionError("States.Permissions", reason)
        managed = {"MANAGED_BY_AWS": "STARTED_BY_STEP_FUNCTIONS", "AWS_STEP_FUNCTIONS_EXECUTION_ARN": EXECUTION.get()}
        tags = [{"Key": key, "Value": value} for key, value in managed.items()]
        ask(created, {**data, "Tags": [*data.get("Tags", []), *tags]})
        return wait(noun, {f"{noun}Name": data[f"{noun}Name"]})

    def ask(name: str, data: Json) -> Json:
        """The service's answer to the state machine's role. Raises an error as Step Functions names it."""
        headers = {"x-amz-target": f"SageMaker.{name}", "content-type": "application/x-amz-json-1.1"}
        handler = app.SERVICE_HANDLERS["sagemaker"]
        status, _, body = app.call_service_handler_sync(handler, "POST", "/", headers, json.dumps(data), {})
        answer: Json = json.loads(body or b"{}")
        if status >= 400:
            code, message = answer["__type"].rpartition("#")[2], answer.get("message", "")
            modelled = code in (shape.name for shape in operation(name).error_shapes)
            error = f"{code.removesuffix('Exception')}Exception" if modelled else "AmazonSageMakerException"
            cause = f"{message} (Service: AmazonSageMaker; Status Code: {status}; Error Code: {code})"
            raise stepfunctions._ExecutionError(f"SageMaker.{error}", cause)
        return answer

    def wait(noun: str, named: Json) -> Json:
        shape = output_shape(f"Describe{noun}")
        while True:
            found = json.loads(service.control(f"Describe{noun}", json.dumps(named))[2])
            told: Json = milliseconds(found, shape)
            if told[f"{noun}Status"] == "Completed":
                return told
            if told[f"{noun}Status"] in ENDED:
                raise stepfunctions._ExecutionError("States.TaskFailed", json.dumps(told))
            if not running():
                stop(noun, named)
                raise Over
            if time.monotonic() > DEADLINE.get():
                stop(noun, named)
                raise stepfunctions._ExecutionError("States.Timeout", f"{noun} {named} took longer than TimeoutSeconds")
            time.sleep(POLL_SECONDS)

    def stop(noun: str, named: Json) -> None:
        try:
            service.control(f"Stop{noun}", json.dumps(named))
        except ServiceError:
            return  # It has just ended.

    for name in (*(f"create{noun}" for noun in RULES), *OTHERS):
        stepfunctions._SERVICE_DISPATCH[f"arn:aws:states:::sagemaker:{name}"] = task


def noun_in_arns(noun: str) -> str:
    """HyperParameterTuningJob as hyper-parameter-tuning-job."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in noun).lstrip("-")

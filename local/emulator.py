"""AWS on this machine: runs ministack in this process, and closes the gaps that matter to this stack.

    python -m local.emulator        # reads BINTALLY_PORT and BINTALLY_HOME

All code that touches ministack's internals is in this file, local/cloudwatch.py, local/gate.py, local/grants.py,
local/journal.py, local/saving.py, local/server.py, local/steps.py and local/storing.py, one function per gap. For each
gap tests/local shows that ministack alone has it and that our function closes it, so a test fails once upstream has
closed it.
ministack reads its settings when it is imported, so its modules are imported inside the functions.
"""

import contextlib
import contextvars
import gc
import hashlib
import html
import json
import logging
import os
import re
import secrets
import sys
import tempfile
import threading
import time
import urllib.parse
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from localsagemaker.endpoints import Endpoints
from localsagemaker.host import Host
from localsagemaker.models import Credentials, ModelData
from localsagemaker.packages import Packages
from localsagemaker.processing import ProcessingJobs
from localsagemaker.service import Service
from localsagemaker.training import TrainingJobs
from localsagemaker.transform import TransformJobs
from localsagemaker.tuning import TuningJobs
from localsagemaker.wire import invalid

from local import steps
from local.cloudwatch import CloudWatch
from local.gate import Gate, check_the_owner, close_what_is_not_run, sam_containers
from local.grants import watch_permissions
from local.owner import OwnerKey, make_key
from local.saving import Saver
from local.server import serve_with_uvicorn
from local.snapshots import Snapshots
from local.storing import store_before_acknowledging

ACCOUNT = "000000000000"
REGION = "us-east-1"
SERVICES = (
    "apigateway,cloudformation,cognito-idp,dynamodb,dynamodbstreams,events,iam,kms,lambda,logs,monitoring,s3,scheduler,"
    "sns,sqs,states,sts"
)
REPOSITORY = Path(__file__).resolve().parent.parent
LOG = logging.getLogger(__name__)
STREAM_SECONDS = 0.25
START_SECONDS = 60
"""At most, for a function to be imported, before its own time limit begins."""
EVENTS = ThreadPoolExecutor(1, "sagemaker-event")
RESOURCES = {  # the ending of an operation's name, and its kind of resource
    "EndpointConfig": "endpoint-config",
    "Endpoint": "endpoint",
    "Model": "model",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "TrainingJob": "training-job",
    "ProcessingJob": "processing-job",
    "TransformJob": "transform-job",
}
TRAINING = ["python", "-m", "training.train"]  # as in training/Dockerfile, and so is MEMORY
MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
SERVING = [sys.executable, "-m", "model.serve"]


def environment(home: Path, port: int, key: OwnerKey) -> dict[str, str]:
    """ministack's settings: loopback only, identity checks on, state stored in `home`."""
    return {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "PERSIST_STATE": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "S3_PERSIST": "1",
        "SERVICES": SERVICES,
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(home / "state"),
    }


def put_version_ids_in_events() -> None:
    """In ministack S3 events reach EventBridge without the `version-id` that AWS adds for a versioned bucket.

    The function that emits an event knows the version; the one that dispatches to rules does not.
    """
    from ministack.services import eventbridge, s3

    version: contextvars.ContextVar[str | None] = contextvars.ContextVar("version", default=None)
    fire, dispatch = s3._fire_s3_event, eventbridge._dispatch_event

    def fire_knowing_version(*args: Any, **kwargs: Any) -> None:
        token = version.set(kwargs.get("version_id"))
        try:
            fire(*args, **kwargs)
        finally:
            version.reset(token)

    def dispatch_with_version(event: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if event.get("Source") == "aws.s3" and version.get():
            detail = json.loads(event["Detail"])
            detail["object"]["version-id"] = version.get()
            event = {**event, "Detail": json.dumps(detail)}
        return dispatch(event, *args, **kwargs)

    s3._fire_s3_event = fire_knowing_version
    eventbridge._dispatch_event = dispatch_with_version


def encode_keys_of_versions() -> None:
    """In ministack ListObjectVersions ignores `encoding-type=url`, which boto3 asks for. XML cannot contain a control
    character, so a key with one makes the whole answer unreadable."""
    from ministack.services import s3

    list_versions = s3._list_object_versions
    names = re.compile(rb"<(Key|Prefix|KeyMarker|NextKeyMarker|Delimiter)>(.*?)</\1>", re.DOTALL)

    def encode(found: re.Match[bytes]) -> bytes:
        text = urllib.parse.quote(html.unescape(found[2].decode()), safe="/").encode()
        return b"<%b>%b</%b>" % (found[1], text, found[1])

    def list_encoded(bucket: str, query: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = list_versions(bucket, query)
        if status == 200 and s3._qp(query, "encoding-type", "") == "url":
            body = names.sub(encode, body)
            body = body.replace(b"</ListVersionsResult>", b"<EncodingType>url</EncodingType></ListVersionsResult>")
        return status, headers, body

    s3._list_object_versions = list_encoded


def count_loopback_as_tls() -> None:
    """A bucket policy that requires TLS denies every role, since clients on one machine use plain HTTP over loopback.

    A request over loopback never leaves the machine, so it counts as secure transport. So does a call inside the
    emulator that no request has caused, as of an execution that an event started.
    """
    from ministack import app
    from ministack.core import iam_evaluator

    pin = iam_evaluator.pin_request_origin

    def pin_secure(source_ip: str, secure_transport: bool) -> None:
        pin(source_ip, secure_transport or source_ip == "127.0.0.1")

    iam_evaluator._request_origin = contextvars.ContextVar("ministack_request_origin", default=("127.0.0.1", True))
    iam_evaluator.pin_request_origin = pin_secure
    app.pin_request_origin = pin_secure


def check_batches_as_single_messages() -> None:
    """In ministack SendMessageBatch needs a permission of that name, which AWS does not know: there it is that of
    SendMessage, as for the other batches of SQS."""
    from ministack.core import iam_actions

    action_of = iam_actions.extract_iam_action

    def action_of_one(*request: Any) -> str | None:
        action: str | None = action_of(*request)
        return action.removesuffix("Batch") if action and action.startswith("sqs:") else action

    iam_actions.extract_iam_action = action_of_one


def know_the_namespace_of_metrics() -> None:
    """In ministack PutMetricData is checked without the condition key `cloudwatch:namespace`, so a role that may put
    metrics of one namespace may put none: the metrics of training jobs were lost."""
    from ministack.core import iam_actions

    context_of = iam_actions.request_tag_context

    def context_with_namespace(service: str, action: str, body: bytes, parameters: dict[str, Any]) -> dict[str, Any]:
        context: dict[str, Any] = context_of(service, action, body, parameters)
        if action != "cloudwatch:PutMetricData":
            return context
        with contextlib.suppress(ValueError):
            parameters = json.loads(body) if body[:1] == b"{" else parameters  # boto3 sends JSON, others a form
        named = parameters.get("Namespace", "")
        return context | {"cloudwatch:namespace": named[0] if isinstance(named, list) and named else named}

    iam_actions.request_tag_context = context_with_namespace


def know_log_streams() -> None:
    """In ministack DeleteLogStream needs a permission for the whole log group; on AWS it is that for the stream."""
    from ministack.core import iam_actions

    resource_of = iam_actions.extract_resource_arn

    def resource_of_stream(
        service: str, method: str, path: str, headers: dict[str, str], body: bytes, *rest: Any
    ) -> str:
        found = str(resource_of(service, method, path, headers, body, *rest))
        if service == "logs" and headers.get("x-amz-target", "").endswith(".DeleteLogStream"):
            found += f":log-stream:{json.loads(body)['logStreamName']}"
        return found

    iam_actions.extract_resource_arn = resource_of_stream


def read_concurrency_as_a_number() -> None:
    """In ministack a mapping's MaximumConcurrency that refers to a template parameter remains text. The poller then
    fails on every poll and receives no message. CloudFormation makes it a number."""
    from ministack.services import lambda_svc

    concurrency = lambda_svc._sqs_esm_concurrency

    def concurrency_of_number(esm: dict[str, Any], *args: Any) -> Any:
        scaling = esm.get("ScalingConfig") or {}
        if isinstance(scaling.get("MaximumConcurrency"), str):
            scaling["MaximumConcurrency"] = int(scaling["MaximumConcurrency"])
        return concurrency(esm, *args)

    lambda_svc._sqs_esm_concurrency = concurrency_of_number


def keep_unread_stream_records() -> None:
    """At a stop ministack saves a function's position in a table's stream, but not the stream: unread records are lost,
    and the function then waits for as many new records as it had ever read. Here the unread records are saved."""
    from ministack.core.responses import AccountRegionScopedDict
    from ministack.services import dynamodb, lambda_svc

    get_state, load_state = dynamodb.get_state, dynamodb.load_persisted_state

    def get_state_with_unread() -> dict[str, Any]:
        positions: dict[tuple[str, str, str], list[int]] = {}
        for (account, region, mapping), esm in lambda_svc._esms.all_items():
            read = lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping)
            if read is not None:
                table = esm["EventSourceArn"].split("/")[1]
                positions.setdefault((account, region, table), []).append(read)
        unread = AccountRegionScopedDict()
        for (account, region, table), records in dynamodb._stream_records.all_items():
            trimmed = dynamodb._stream_trimmed.get_scoped(account, region, table, 0)
            start = min(positions.get((account, region, table), [trimmed + len(records)]))
            unread.set_scoped(account, region, table, [start, records[max(0, start - trimmed) :]])
        return {**get_state(), "unread": unread}

    def load_state_with_unread(state: dict[str, Any]) -> None:
        load_state(state)
        for (account, region, table), (start, records) in state.get("unread", AccountRegionScopedDict()).all_items():
            dynamodb._stream_trimmed.set_scoped(account, region, table, start)
            dynamodb._stream_records.set_scoped(account, region, table, records)

    dynamodb.get_state = get_state_with_unread
    dynamodb.load_persisted_state = load_state_with_unread


def read_streams_apart() -> None:
    """In ministack one thread reads queues and streams, and waits for the functions of streams, which it invokes for
    each change or two: meanwhile queues wait. Here streams have a thread of their own, which reads them four times a
    second, as often as Lambda, and at once again while a whole batch waits. Streams still wait for each other."""
    from ministack.services import dynamodb, lambda_svc

    poll, ensure = lambda_svc._poll_dynamodb_streams, lambda_svc._ensure_poller
    started, lock = threading.Event(), threading.Lock()

    def a_batch_waits() -> bool:
        for (account, region, mapping), esm in list(lambda_svc._esms.all_items()):
            read = lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping)
            if read is not None:
                table = esm["EventSourceArn"].split("/")[1]
                trimmed = dynamodb._stream_trimmed.get_scoped(account, region, table, 0)
                written = trimmed + len(dynamodb._stream_records.get_scoped(account, region, table, ()))
                if written - read >= int(esm.get("BatchSize", 100)):
                    return True
        return False

    def read() -> None:
        while True:
            try:
                again = poll() and a_batch_waits()
            except Exception:
                LOG.exception("streams are read again in %s s", STREAM_SECONDS)
                again = False
            if not again:
                time.sleep(STREAM_SECONDS)

    def ensure_both() -> None:
        ensure()
        with lock:
            if not started.is_set():
                started.set()
                threading.Thread(target=read, name="streams", daemon=True).start()

    lambda_svc._poll_dynamodb_streams = lambda: False
    lambda_svc._ensure_poller = ensure_both


def keep_keys_of_functions_secret(key: OwnerKey) -> None:
    """ministack derives a function's keys from its name and its role's, so anyone who knows these has the keys. Here
    they also depend on the owner's secret. A worker that starts later has the same keys, as its role's session does
    not end."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    def execution_credentials(config: dict[str, Any]) -> dict[str, str]:
        role, function = config.get("Role", ""), config["FunctionArn"]
        secret = f"{key.secret_access_key}:{function}:{role}".encode()
        keys = register_role_session(role.rpartition("/")[2], config["FunctionName"][:64], secret)
        return {name.upper(): value for name, value in keys.items()}

    lambda_runtime.execution_credentials = execution_credentials
    lambda_svc.execution_credentials = execution_credentials


def unpack_code_once() -> None:
    """ministack unpacks a function's code for each of its workers, and Python compiles it again: 1 s of a processor.
    Here workers of the same code have links to one copy, which is read-only on AWS too."""
    from ministack.core import lambda_runtime

    lock = threading.Lock()

    class Archive(zipfile.ZipFile):
        def extractall(self, path: Any = None, *more: Any) -> None:
            digest = hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()
            copy = Path(tempfile.gettempdir()) / f"code-{digest[:32]}"
            with lock:
                if not copy.exists():
                    unfinished = tempfile.mkdtemp(dir=copy.parent)
                    super().extractall(unfinished, *more)
                    Path(unfinished).rename(copy)
            Path(path).rmdir()
            Path(path).symlink_to(copy)

    lambda_runtime.zipfile = SimpleNamespace(ZipFile=Archive, BadZipFile=zipfile.BadZipFile)


def let_running_functions_finish() -> None:
    """When ministack updates a function, it ends the processes that run it, and messages they had taken are visible
    again only after the visibility timeout. Here, as on AWS, they finish what they have begun, and then end; at the
    latest when that must be over."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    kill, release = lambda_runtime.kill_workers, lambda_runtime.release_worker

    def kill_the_idle(workers: list[Any]) -> None:
        with contextlib.ExitStack() as held:  # nothing begins in a process that is being ended
            idle = []
            for worker in workers:
                worker.replaced = True
                if worker.in_use:  # one that never starts, or does not answer, is not released by what it works on
                    last = threading.Timer(worker.config.get("Timeout", 3) + START_SECONDS, kill, [[worker]])
                    last.daemon = True
                    last.start()
                if worker._lock.acquire(blocking=False):  # held while the process works
                    held.callback(worker._lock.release)
                    idle.append(worker)
            kill(idle)

    def release_or_end(worker: Any) -> None:
        release(worker)
        if getattr(worker, "replaced", False):
            kill([worker])

    lambda_runtime.kill_workers = kill_the_idle
    lambda_svc.release_worker = release_or_end


def register_sessions_one_at_a_time() -> None:
    """Every new session iterates over all sessions to drop the expired ones. That fails when another thread, of a job
    or a function, adds one at the same time."""
    from ministack.services import sts

    register, lock = sts.register_session, threading.Lock()

    def register_alone(*args: Any) -> None:
        with lock:
            register(*args)

    sts.register_session = register_alone


def know_the_keys_of_pools() -> None:
    """ministack asks itself for the keys of a user pool by an unsigned request, which the gate refuses."""
    from ministack.services import apigateway, cognito

    fetch = apigateway._fetch_jwks

    async def fetch_or_know(url: str) -> dict[str, Any]:
        pool = url.removesuffix("/.well-known/jwks.json").rpartition("/")[2]
        if cognito._get_pool_unscoped(pool) is None:
            elsewhere: dict[str, Any] = await fetch(url)
            return elsewhere
        _, _, keys = cognito.well_known_jwks(pool)
        return dict(json.loads(keys))

    apigateway._fetch_jwks = fetch_or_know


def check_chosen_passwords() -> None:
    """ministack does not apply a pool's password policy to the password that a person chooses at the first sign-in."""
    from ministack.services import cognito

    respond = cognito._admin_respond_to_auth_challenge

    def respond_by_the_policy(data: dict[str, Any]) -> Any:
        pool = cognito._user_pools.get(data.get("UserPoolId"))
        chosen = data.get("ChallengeResponses", {}).get("NEW_PASSWORD")
        refused = cognito._validate_password(pool, chosen) if pool and chosen else None
        return refused or respond(data)

    cognito._admin_respond_to_auth_challenge = respond_by_the_policy


def end_sessions_in_time() -> None:
    """In ministack a refresh token renews a session for ever."""
    from ministack.services import cognito

    user_of = cognito._refresh_auth_user

    def user_in_time(pool: Any, pool_id: str, client: str, token: str) -> Any:
        user, error = user_of(pool, pool_id, client, token)
        if error is None and cognito._token_claims(token).get("exp", 0) <= time.time():
            return None, cognito.error_response_json("NotAuthorizedException", "Refresh Token has expired", 400)
        return user, error

    cognito._refresh_auth_user = user_in_time


def close_gaps() -> None:
    """Closes every gap that does not depend on the stack."""
    put_version_ids_in_events()
    encode_keys_of_versions()
    count_loopback_as_tls()
    check_batches_as_single_messages()
    know_the_namespace_of_metrics()
    know_log_streams()
    read_concurrency_as_a_number()
    know_the_keys_of_pools()
    check_chosen_passwords()
    end_sessions_in_time()
    keep_unread_stream_records()
    read_streams_apart()
    unpack_code_once()
    let_running_functions_finish()
    register_sessions_one_at_a_time()
    steps.know_the_execution()
    steps.keep_time_limits()
    steps.use_tables_in_turn()


def add_sagemaker(service: Service) -> None:
    """ministack has no SageMaker. Requests are routed to ours, which checks permissions against the caller's policies
    as for any service; Step Functions can call it, and its state is stored with the others'."""
    from ministack import app
    from ministack.core import iam_actions, router
    from ministack.services import stepfunctions

    app.SERVICE_HANDLERS["sagemaker"] = service.handle
    router.SERVICE_PATTERNS["sagemaker"] = {
        "target_prefixes": ["SageMaker."],
        "host_patterns": [r"sagemaker\."],
        "credential_scope": "sagemaker",
    }

    iam_actions.SERVICE_TO_IAM_NAMESPACE["sagemaker"] = "sagemaker"
    iam_actions._BOTOCORE_SERVICE_MAP["sagemaker"] = ["sagemaker-runtime"]
    resource_of = iam_actions.extract_resource_arn

    def resource_with_sagemaker(
        name: str, method: str, path: str, headers: dict[str, str], body: bytes, *rest: Any
    ) -> str:
        if name == "sagemaker":
            return sagemaker_resource(path, headers, body)
        return str(resource_of(name, method, path, headers, body, *rest))

    iam_actions.extract_resource_arn = resource_with_sagemaker

    stepfunctions._AWS_SDK_SERVICE_MAP["sagemaker"] = {"target_prefix": "SageMaker", "protocol": "json"}
    stepfunctions._AWS_SDK_ERROR_PREFIX["sagemaker"] = "SageMaker"
    # An error that the service model does not define, like this one, arrives under the service's name.
    stepfunctions._AWS_SDK_ERROR_CODE_OVERRIDES["sagemaker"] = {"ValidationException": "SageMakerException"}

    app._state_map["sagemaker"] = "sagemaker"
    app._loaded_modules["sagemaker"] = SimpleNamespace(
        get_state=service.get_state, load_persisted_state=service.load_state, reset=service.reset
    )


def provision_model_package_groups(service: Service) -> None:
    """In ministack CloudFormation lacks model package groups; here it creates and deletes them as any caller would."""
    from ministack.services.cloudformation import provisioners

    def ask(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        _, _, body = service.control(operation, json.dumps(request))
        return dict(json.loads(body or b"{}"))

    def create(logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        found = ask("CreateModelPackageGroup", properties)
        return found["ModelPackageGroupArn"], found

    def delete(arn: str, properties: dict[str, Any]) -> None:
        ask("DeleteModelPackageGroup", {"ModelPackageGroupName": arn})

    provisioners._RESOURCE_HANDLERS["AWS::SageMaker::ModelPackageGroup"] = {"create": create, "delete": delete}


def keep_names_of_tables() -> None:
    """ministack gives a table without a name in its template the name that it would choose for it, at each update: one
    that a stack has imported, under another name, would be replaced by an empty one. On AWS it keeps its name."""
    from ministack.services.cloudformation import provisioners

    handlers = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    update = handlers["update"]

    def keeping(physical_id: str, old: dict[str, Any], new: dict[str, Any], *rest: Any, **named: Any) -> Any:
        if "TableName" not in old and "TableName" not in new:
            old, new = ({**properties, "TableName": physical_id} for properties in (old, new))
        return update(physical_id, old, new, *rest, **named)

    provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"] = {**handlers, "update": keeping}


def sagemaker_resource(path: str, headers: dict[str, str], body: bytes) -> str:
    """The ARN on which a request's permission is checked; "*" for lists, as on AWS."""
    prefix = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    if not headers.get("x-amz-target"):
        return f"{prefix}:endpoint/{path.split('/')[2].lower()}" if path.count("/") > 1 else "*"
    kind = headers["x-amz-target"].rpartition(".")[2]
    try:
        request = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return "*"
    if not isinstance(request, dict):
        return "*"  # the service refuses it
    if kind in ("AddTags", "DeleteTags", "ListTags"):
        return str(request.get("ResourceArn", "*"))
    if "ModelPackage" in kind and not kind.startswith("List"):
        return model_package_resource(prefix, kind, request)
    # A list of a whole kind ends with an s; that of a tuning job's trials is checked on the tuning job.
    for suffix, member in RESOURCES.items():
        if kind.endswith(suffix):
            return f"{prefix}:{member}/{str(request.get(f'{suffix}Name', '*')).lower()}"
    return "*"


def model_package_resource(prefix: str, kind: str, request: dict[str, Any]) -> str:
    """The ARN of a model package or a group; for a version to be created, the ARN of any version in its group."""
    if kind.endswith("Group"):
        member, name = "model-package-group", str(request.get("ModelPackageGroupName", "*"))
    elif kind == "CreateModelPackage":
        member, name = "model-package", f"{str(request.get('ModelPackageGroupName', '*')).rpartition('/')[2]}/*"
    else:
        member, name = "model-package", str(request.get("ModelPackageArn") or request.get("ModelPackageName", "*"))
    return name.lower() if name.startswith("arn:") else f"{prefix}:{member}/{name.lower()}"


def assume_for_sagemaker(role_arn: str) -> Credentials:
    """Credentials of a model's role, as assumed by SageMaker. Raises ServiceError when its trust policy does not name
    the service. A client in this process cannot call AssumeRole as a service, so the session is registered as
    ministack registers those of functions."""
    from ministack.core.iam_evaluator import _service_principal_matches
    from ministack.services import iam

    name = role_arn.rpartition("/")[2]
    role = iam._roles.get(name)
    trust = json.loads(role["AssumeRolePolicyDocument"]) if role else {"Statement": []}
    if not any(
        statement.get("Effect") == "Allow"
        and _service_principal_matches(statement.get("Principal"), "sagemaker.amazonaws.com")
        for statement in trust["Statement"]
    ):
        raise invalid(f"SageMaker may not assume the role {role_arn}")
    # The default time limit of a job; SageMaker gives a job new keys before the old ones expire.
    return register_role_session(name, "SageMaker", secrets.token_bytes(32), Expiration=time.time() + 24 * 3600)


def register_role_session(role: str, name: str, secret: bytes, **session: Any) -> Credentials:
    """Keys that act as a role of this account; always the same for the same secret."""
    from ministack.services import sts

    digest = hashlib.sha256(secret).hexdigest()
    access_key, secret_key = f"ASIA{digest[:16].upper()}", hashlib.sha256(b"secret" + secret).hexdigest()
    token = hashlib.sha256(b"token" + secret).hexdigest()
    session |= {"Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{name}", "UserId": f"{role}:{name}"}
    sts.register_session(access_key, session | {"SecretAccessKey": secret_key, "SessionToken": token})
    return {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key, "aws_session_token": token}


def put_sagemaker_event(detail_type: str, resources: list[str], detail: dict[str, Any]) -> None:
    """Puts an event as SageMaker does, in the order of the calls; does not wait for its targets."""
    from ministack.services import eventbridge

    entry = {"Source": "aws.sagemaker", "DetailType": detail_type, "Resources": resources, "Detail": json.dumps(detail)}
    EVENTS.submit(eventbridge._put_events, {"Entries": [entry]}, allow_aws_source=True)


def resume_when_ready(service: Service, saver: Saver, port: int) -> None:
    """Restarts what ran before the stop, once S3 can provide the endpoints' models, and reports the executions that
    the stop cut off."""
    from local.stack import healthy

    while not healthy(f"http://127.0.0.1:{port}"):
        time.sleep(0.1)
    service.resume()
    saver.report_cut_off()


def main() -> None:
    home, port = Path(os.environ["BINTALLY_HOME"]), int(os.environ["BINTALLY_PORT"])
    os.umask(0o077)
    key = make_key(home)
    os.environ.update(environment(home, port, key))
    from ministack import app

    url = f"http://127.0.0.1:{port}"
    cloudwatch = CloudWatch()
    host = Host(
        home=home,
        folder=REPOSITORY,
        search_path=(REPOSITORY,),
        python=Path(os.environ.get("BINTALLY_TRAINING_PYTHON") or REPOSITORY / ".venv-train" / "bin" / "python"),
        python_hint="make it: make train-venv",
        entry_points={"*train*": TRAINING, "*serv*": json.loads(os.environ.get("BINTALLY_SERVING", "null")) or SERVING},
        endpoint_url=url,
        account=ACCOUNT,
        region=REGION,
        assume=assume_for_sagemaker,
        put_event=put_sagemaker_event,
        record_metric=cloudwatch.record,
        alarmed=cloudwatch.alarmed,
        variables={**MEMORY, "BINTALLY_REQUIRE_GPU": "false"},  # the instance types are AWS's, the machine is this one
    )
    endpoints = Endpoints(host, model_data=ModelData(url, REGION, assume_for_sagemaker))
    training = TrainingJobs(host)
    service = Service(
        endpoints,
        *(Packages(host), training, TuningJobs(host, training)),
        *(ProcessingJobs(host), TransformJobs(host, endpoints)),
    )
    close_gaps()

    def end() -> None:
        """State is saved; running threads (an execution, a warm function) must not delay the stop."""
        service.close()
        sys.stdout.flush()
        os._exit(0)

    saver = Saver(Snapshots(home), {"sagemaker": service.get_state}, cloudwatch.lock, end)
    store_before_acknowledging(saver.bytes_of_next)
    saver.install()
    check_the_owner(key)
    close_what_is_not_run()
    keep_keys_of_functions_secret(key)
    app.app = Gate(app.app, port, sam_containers)
    steps.check_state_machine_roles(host)
    add_sagemaker(service)
    steps.integrate_sagemaker(service, host)
    provision_model_package_groups(service)
    keep_names_of_tables()
    noted, without = os.environ.get("BINTALLY_GRANTS"), os.environ.get("BINTALLY_WITHOUT", "")
    if noted or without:
        watch_permissions(without, Path(noted) if noted else None)
    cloudwatch.start()
    serve_with_uvicorn()
    gc.set_threshold(20_000)  # state is many objects and no cycles; Python's own threshold is 700
    threading.Thread(target=resume_when_ready, args=(service, saver, port), daemon=True).start()
    try:
        app.main()
    finally:
        end()


if __name__ == "__main__":
    main()

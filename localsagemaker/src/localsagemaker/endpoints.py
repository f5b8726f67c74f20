"""Models, endpoint configurations and endpoints, with their operations."""

import logging
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localsagemaker.deployment import AT_ONCE, Plan, Traffic, planned
from localsagemaker.endpoint import Endpoint, described, pending_summary
from localsagemaker.host import Host, listed, now
from localsagemaker.models import BadModelData, ModelData
from localsagemaker.server import Server, TimedOut, Unavailable, Unhealthy, serving_environment
from localsagemaker.wire import Answer, Json, ServiceError, fitting, invalid, milliseconds, output_shape

LOG = logging.getLogger(__name__)

SERVERLESS_LIMIT = 4 * 1024 * 1024  # bytes a request
REALTIME_LIMIT = 25 * 1024 * 1024
START_SECONDS = 180.0  # a serverless endpoint's; a real-time variant may set its own
DRAIN_SECONDS = 60.0
WATCH_SECONDS = 0.2  # between two checks of an update's alarms

PASSED_ON = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")

SUPPORTED = {
    "CreateModel": {"ModelName", "PrimaryContainer", "ExecutionRoleArn", "Tags", "EnableNetworkIsolation"},
    "CreateModel.PrimaryContainer": {"ContainerHostname", "Image", "Mode", "ModelDataUrl", "Environment"},
    "CreateEndpointConfig": {"EndpointConfigName", "ProductionVariants", "Tags"},
    "CreateEndpoint": {"EndpointName", "EndpointConfigName", "Tags"},
    "UpdateEndpoint": {
        *("EndpointName", "EndpointConfigName", "RetainAllVariantProperties"),
        *("DeploymentConfig", "RetainDeploymentConfig"),
    },
}


class Endpoints:
    """Models, configurations, endpoints and their operations."""

    operations = (
        *("CreateModel", "DescribeModel", "DeleteModel", "ListModels"),
        *("CreateEndpointConfig", "DescribeEndpointConfig", "DeleteEndpointConfig", "ListEndpointConfigs"),
        *("CreateEndpoint", "UpdateEndpoint", "DescribeEndpoint", "DeleteEndpoint", "ListEndpoints"),
    )

    def __init__(self, host: Host, *, model_data: ModelData) -> None:
        self.host, self.model_data = host, model_data
        self.home, self.account, self.region, self.arn = host.home, host.account, host.region, host.arn
        self.models: dict[str, Json] = {}
        self.configs: dict[str, Json] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self._traffic: dict[str, Traffic] = {}
        self._lock = threading.RLock()
        self._changes = ThreadPoolExecutor(8, "endpoint-change")
        self._closed = False

    # Models

    def create_model(self, request: Json) -> Json:
        refuse_unsupported("CreateModel", request)
        container, name = request.get("PrimaryContainer"), request["ModelName"]
        if not container or "ModelDataUrl" not in container or "Image" not in container:
            raise invalid("PrimaryContainer with Image and ModelDataUrl is needed on one machine")
        if "ExecutionRoleArn" not in request:
            raise invalid("ExecutionRoleArn is needed")
        refuse_unsupported("CreateModel.PrimaryContainer", container)
        self.host.entry_point(container["Image"])
        with self._lock:
            self._refuse_existing("model", name, self.models)
        self.model_data.check(container["ModelDataUrl"], request["ExecutionRoleArn"])
        with self._lock:
            self._refuse_existing("model", name, self.models)
            self.models[name] = {**request, "ModelArn": self.arn("model", name), "CreationTime": now()}
        return {"ModelArn": self.arn("model", name)}

    def describe_model(self, request: Json) -> Json:
        model = self._find("model", request["ModelName"], self.models)
        return fitting(model, output_shape("DescribeModel"))

    def delete_model(self, request: Json) -> Json:
        with self._lock:
            self._find("model", request["ModelName"], self.models)
            del self.models[request["ModelName"]]
        return {}

    def list_models(self, request: Json) -> Json:
        return listed("ListModels", request, list(self.models.values()), "Model")

    # Endpoint configurations

    def create_endpoint_config(self, request: Json) -> Json:
        refuse_unsupported("CreateEndpointConfig", request)
        name, variants = request["EndpointConfigName"], request["ProductionVariants"]
        if len(variants) != 1:
            raise invalid("exactly one production variant is supported on one machine")
        variant = variants[0]
        if "ModelName" not in variant:
            raise invalid("a production variant needs a ModelName on one machine")
        if ("ServerlessConfig" in variant) == ("InstanceType" in variant):
            raise invalid("a production variant has either a ServerlessConfig or an InstanceType")
        if "InstanceType" in variant and "InitialInstanceCount" not in variant:
            raise invalid("InitialInstanceCount is needed with an InstanceType")
        with self._lock:
            self._refuse_existing("endpoint-config", name, self.configs)
            self._find("model", variant["ModelName"], self.models)
            arn = self.arn("endpoint-config", name)
            self.configs[name] = {**request, "EndpointConfigArn": arn, "CreationTime": now()}
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, request: Json) -> Json:
        config = self._find("endpoint-config", request["EndpointConfigName"], self.configs)
        return fitting(config, output_shape("DescribeEndpointConfig"))

    def delete_endpoint_config(self, request: Json) -> Json:
        with self._lock:
            self._find("endpoint-config", request["EndpointConfigName"], self.configs)
            del self.configs[request["EndpointConfigName"]]
        return {}

    def list_endpoint_configs(self, request: Json) -> Json:
        return listed("ListEndpointConfigs", request, list(self.configs.values()), "EndpointConfig")

    # Endpoints

    def create_endpoint(self, request: Json) -> Json:
        refuse_unsupported("CreateEndpoint", request)
        name, config_name = request["EndpointName"], request["EndpointConfigName"]
        with self._lock:
            self._refuse_existing("endpoint", name, self.endpoints)
            endpoint = Endpoint(name, self.arn("endpoint", name), config_name, now(), now())
            self._adopt(endpoint, config_name)
            self.endpoints[name] = endpoint
            self._set(endpoint, "Creating")
        self._changes.submit(self._bring_up, endpoint)
        return {"EndpointArn": endpoint.arn}

    def update_endpoint(self, request: Json) -> Json:
        refuse_unsupported("UpdateEndpoint", request)
        config_name = request["EndpointConfigName"]
        with self._lock:
            endpoint = self._find("endpoint", request["EndpointName"], self.endpoints)
            if endpoint.status != "InService":
                wording = "in-progress" if endpoint.status != "Failed" else "failed"
                raise invalid(f'Cannot update {wording} endpoint "{endpoint.arn}".')
            wanted = deepcopy(endpoint)
            self._adopt(wanted, config_name)
            if wanted.serverless() and not endpoint.serverless():
                raise invalid(f'Cannot update endpoint "{endpoint.arn}" from real-time to serverless.')
            if request.get("RetainAllVariantProperties") and not wanted.serverless():
                retained = ("InitialInstanceCount", "InitialVariantWeight")
                kept = {key: endpoint.variant[key] for key in retained if key in endpoint.variant}
                wanted.variant = {**wanted.variant, **kept}
            retain = endpoint.deployment if request.get("RetainDeploymentConfig") else None
            wanted.deployment = request.get("DeploymentConfig", retain)
            plan = self._plan(wanted)
            endpoint.deployment, endpoint.pending = wanted.deployment, pending_summary(wanted)
            self._set(endpoint, "Updating")
        self._changes.submit(self._replace, endpoint, wanted, plan)
        return {"EndpointArn": endpoint.arn}

    def _plan(self, wanted: Endpoint) -> Plan:
        """The plan that moves traffic to the new configuration. Raises ServiceError."""
        if wanted.deployment is None:
            return AT_ONCE
        if wanted.serverless():
            raise invalid("DeploymentConfig is not supported for serverless endpoints.")
        plan = planned(wanted.deployment, wanted.variant["InitialInstanceCount"])
        if unknown := [name for name in plan.alarms if self.host.alarmed(name, now()) is None]:
            raise invalid(f"Could not find CloudWatch alarms: {', '.join(unknown)}.")
        return plan

    def describe_endpoint(self, request: Json) -> Json:
        with self._lock:
            return described(self._find("endpoint", request["EndpointName"], self.endpoints))

    def delete_endpoint(self, request: Json) -> Json:
        with self._lock:
            endpoint = self._find("endpoint", request["EndpointName"], self.endpoints)
            if endpoint.status == "Creating":
                raise invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')  # of a deletion, too
            self._set(endpoint, "Deleting")
            traffic = self._traffic.pop(endpoint.name, None)
        self._changes.submit(self._remove, endpoint, traffic)
        return {}

    def list_endpoints(self, request: Json) -> Json:
        with self._lock:
            found = [
                {
                    "EndpointName": endpoint.name,
                    "EndpointArn": endpoint.arn,
                    "CreationTime": endpoint.created,
                    "LastModifiedTime": endpoint.changed,
                    "EndpointStatus": endpoint.status,
                }
                for endpoint in self.endpoints.values()
            ]
        return listed("ListEndpoints", request, found, "Endpoint")

    def invoke_endpoint(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        """Sends the request to one of the endpoint's processes. Raises ServiceError as the runtime words it."""
        started = time.perf_counter()
        with self._lock:
            endpoint = self.endpoints.get(name)
            if endpoint is None or endpoint.status in ("Creating", "Failed", "Deleting"):
                raise ServiceError("ValidationError", f"Endpoint {name} of account {self.account} not found.")
            limit = SERVERLESS_LIMIT if endpoint.serverless() else REALTIME_LIMIT
            if len(body) > limit:
                raise ServiceError("ValidationError", f"HTTP content length exceeded {limit} bytes.", 413)
            variant = endpoint.variant["VariantName"]
            traffic = self._traffic.get(name)
            if traffic is None:  # The stack has just restarted and the process is not up yet.
                raise ServiceError("ServiceUnavailable", f"Endpoint {name} is starting.", 503)
            server = traffic.pick()
            if not server.enter():
                raise ServiceError("ThrottlingException", "Rate exceeded", 429)
        sent, status = time.perf_counter(), 0
        try:
            reply = server.invoke(body, {key: headers[key] for key in PASSED_ON if key in headers})
            status = reply.status
        except Unavailable as error:
            status = 503
            raise ServiceError("ServiceUnavailable", f"Endpoint {name} does not answer: {error}", 503) from error
        except TimedOut as error:
            raise self.model_error(endpoint, 0, "Your invocation timed out while waiting for a response.") from error
        finally:
            server.leave()
            answered = time.perf_counter()
            self._measure(name, variant, status, answered - sent, sent - started)
        if reply.status >= 400:
            raise self.model_error(endpoint, reply.status, reply.body.decode("utf-8", "replace"))
        kept = {key: value for key, value in reply.headers.items() if key in PASSED_ON}
        return 200, {**kept, "x-amzn-invoked-production-variant": variant}, reply.body

    def _measure(self, name: str, variant: str, status: int, model_seconds: float, overhead_seconds: float) -> None:
        """Records an invocation as the service does, whichever process answered; `status` is 0 after a time-out."""
        dimensions = {"EndpointName": name, "VariantName": variant}
        figures = {
            "Invocations": 1,
            "Invocation4XXErrors": int(400 <= status < 500),
            "Invocation5XXErrors": int(status >= 500),
            "InvocationModelErrors": int(not 200 <= status < 300),
        }
        for metric, value in figures.items():
            self.host.record_metric("AWS/SageMaker", metric, value, "None", dimensions)
        for metric, seconds in {"ModelLatency": model_seconds, "OverheadLatency": overhead_seconds}.items():
            self.host.record_metric("AWS/SageMaker", metric, round(seconds * 1e6), "Microseconds", dimensions)

    def model_error(self, endpoint: Endpoint, status: int, message: str) -> ServiceError:
        kind = "client" if 400 <= status < 500 else "server"
        return ServiceError(
            "ModelError",
            f'Received {kind} error ({status}) from primary with message "{message[:1000]}". '
            f"See {self.log_file(endpoint.name)} for more information.",
            424,
            OriginalStatusCode=status,
            OriginalMessage=message,
            LogStreamArn=f"arn:aws:logs:{self.region}:{self.account}:log-group:/aws/sagemaker/Endpoints/{endpoint.name}",
        )

    # State across a stop and a start

    def get_state(self) -> Json:
        with self._lock:
            endpoints = {name: vars(endpoint) for name, endpoint in self.endpoints.items()}
            return deepcopy({"models": self.models, "configs": self.configs, "endpoints": endpoints})

    def load_state(self, state: Json) -> None:
        with self._lock:
            self.models, self.configs = state.get("models", {}), state.get("configs", {})
            self.endpoints = {name: Endpoint(**fields) for name, fields in state.get("endpoints", {}).items()}

    def resume(self) -> None:
        """Restarts the endpoints that ran before the stop. An update that it interrupted is reported as failed."""
        with self._lock:
            for endpoint in list(self.endpoints.values()):
                if endpoint.status == "Deleting":
                    del self.endpoints[endpoint.name]
                elif endpoint.status != "Failed":
                    failure = endpoint.failure
                    if endpoint.status == "Updating":
                        failure = "The update was interrupted by a stop of the local stack."
                    endpoint.pending = None
                    self._set(endpoint, "Creating" if endpoint.status == "Creating" else "SystemUpdating", failure)
                    self._changes.submit(self._bring_up, endpoint)

    def reset(self) -> None:
        """Forgets everything and ends every endpoint's process."""
        with self._lock:
            for endpoint in self.endpoints.values():
                endpoint.status = "Deleting"
            self.models, self.configs, self.endpoints = {}, {}, {}
        self._end_servers()

    def close(self) -> None:
        """Ends every endpoint's process; none is started again."""
        self._closed = True
        self._end_servers()

    def _end_servers(self) -> None:
        with self._lock:
            servers = [server for traffic in self._traffic.values() for server in traffic.servers()]
            self._traffic = {}
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            list(pool.map(Server.close, servers))

    # Changes, each in its own thread

    def _bring_up(self, endpoint: Endpoint) -> None:
        server, failure = self._serve(endpoint)
        with self._lock:
            gone = self._gone(endpoint)
            if not gone and server:
                self._traffic[endpoint.name] = Traffic(server)
                self._set(endpoint, "InService", endpoint.failure)
            elif not gone:
                self._set(endpoint, "Failed", failure)
        if gone and server:
            server.close()

    def _replace(self, endpoint: Endpoint, wanted: Endpoint, plan: Plan) -> None:
        """Starts the new process next to the old one and moves traffic by the plan; on failure the old one stays."""
        started = now()
        server, failure = self._serve(wanted)
        if server:
            failure = self._roll_out(endpoint, wanted, server, plan, started)
            with self._lock:
                leaving = server
                if not self._gone(endpoint):
                    traffic = self._traffic[endpoint.name]
                    if failure:
                        self._set(endpoint, "RollingBack", failure)
                    else:
                        leaving, traffic.live = traffic.live, server
                        endpoint.config_name, endpoint.role = wanted.config_name, wanted.role
                        endpoint.variant, endpoint.container = wanted.variant, wanted.container
                        self._settle(endpoint, None)
                    traffic.fresh = None
            leaving.close(DRAIN_SECONDS)
        if failure:
            self._settle(endpoint, failure)

    def _roll_out(self, endpoint: Endpoint, wanted: Endpoint, server: Server, plan: Plan, started: float) -> str | None:
        """Moves the traffic step by step. Returns the reason to roll back; None when there is none."""
        for step in plan.steps:
            with self._lock:
                if failure := self._trouble(endpoint, plan, started):
                    return failure
                traffic = self._traffic[endpoint.name]
                traffic.fresh, traffic.share = server, step.share
                if endpoint.pending and not wanted.serverless():
                    endpoint.pending = pending_summary(wanted, step, endpoint.pending["StartTime"])
            until = time.monotonic() + step.seconds
            while time.monotonic() < until:
                if failure := self._trouble(endpoint, plan, started):
                    return failure
                time.sleep(WATCH_SECONDS)
        return self._trouble(endpoint, plan, started)

    def _trouble(self, endpoint: Endpoint, plan: Plan, started: float) -> str | None:
        return "The endpoint is being deleted." if self._gone(endpoint) else plan.trouble(self.host.alarmed, started)

    def _settle(self, endpoint: Endpoint, failure: str | None) -> None:
        """Ends an update, successful or not: the endpoint is in service with the process that now gets its requests."""
        with self._lock:
            if not self._gone(endpoint):
                endpoint.pending = None
                self._set(endpoint, "InService", failure)

    def _remove(self, endpoint: Endpoint, traffic: Traffic | None) -> None:
        for server in traffic.servers() if traffic else ():
            server.close(DRAIN_SECONDS)
        with self._lock:
            if self.endpoints.get(endpoint.name) is endpoint:
                del self.endpoints[endpoint.name]

    def _gone(self, endpoint: Endpoint) -> bool:
        return self._closed or endpoint.status == "Deleting" or self.endpoints.get(endpoint.name) is not endpoint

    def _set(self, endpoint: Endpoint, status: str, failure: str | None = None) -> None:
        """Changes the endpoint's status and notifies EventBridge, where a status is written like IN_SERVICE."""
        endpoint.status, endpoint.changed, endpoint.failure = status, now(), failure
        shape = output_shape("DescribeEndpoint")
        detail = milliseconds(described(endpoint), shape)
        detail |= {"EndpointStatus": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", status).upper(), "Tags": {}}
        self.host.put_event("SageMaker Endpoint State Change", [endpoint.arn], detail)

    def _serve(self, endpoint: Endpoint) -> tuple[Server | None, str | None]:
        """A healthy process for the endpoint's model, or None and the reason."""
        directory = self.home / "endpoints" / f"{endpoint.name}-{uuid.uuid4().hex[:8]}"
        server = Server(
            command=self.host.entry_point(endpoint.container["Image"]),
            environment=serving_environment(endpoint.container.get("Environment", {})),
            directory=directory,
            log_file=self.log_file(endpoint.name),
            spawner=self.host.spawner,
            start_seconds=endpoint.variant.get("ContainerStartupHealthCheckTimeoutInSeconds", START_SECONDS),
            concurrency=endpoint.variant.get("ServerlessConfig", {}).get("MaxConcurrency"),
        )
        try:
            self.model_data.fetch(endpoint.container["ModelDataUrl"], endpoint.role, directory / "model")
            server.start()
        except Unhealthy as error:
            failure = f"The primary container for production variant {endpoint.variant['VariantName']}: {error}"
        except (BadModelData, ServiceError, ClientError, BotoCoreError, OSError, ValueError) as error:
            failure = str(error)  # a ValueError: an environment that no process can be given
        except Exception as error:
            LOG.exception("endpoint %s", endpoint.name)  # whatever it is, no endpoint is being created for ever
            failure = f"{type(error).__name__}: {error}"
        else:
            return server, None
        server.close()
        return None, failure[:1024]

    # Helpers

    def log_file(self, endpoint_name: str) -> Path:
        (self.home / "endpoints").mkdir(parents=True, exist_ok=True)
        return self.home / "endpoints" / f"{endpoint_name}.log"

    def _adopt(self, endpoint: Endpoint, config_name: str) -> None:
        """Gives `endpoint` this configuration and its model."""
        config = self._find("endpoint-config", config_name, self.configs)
        variant = config["ProductionVariants"][0]
        model = self._find("model", variant["ModelName"], self.models)
        endpoint.config_name, endpoint.variant = config_name, variant
        endpoint.container, endpoint.role = model["PrimaryContainer"], model["ExecutionRoleArn"]

    def _find(self, kind: str, name: str, among: dict[str, Any]) -> Any:
        words = {"endpoint-config": "endpoint configuration"}.get(kind, kind)
        if name not in among:
            raise invalid(f'Could not find {words} "{self.arn(kind, name)}".')
        return among[name]

    def _refuse_existing(self, kind: str, name: str, among: dict[str, Any]) -> None:
        words = {"endpoint-config": "endpoint configuration"}.get(kind, kind)
        if name in among:
            raise invalid(f'Cannot create already existing {words} "{self.arn(kind, name)}".')


def refuse_unsupported(what: str, request: Json) -> None:
    """Raises ServiceError for members that this service does not support; none is ignored."""
    if unsupported := sorted(request.keys() - SUPPORTED[what]):
        raise invalid(f"not supported on one machine: {', '.join(unsupported)}")

"""Models, endpoint configurations and endpoints, and what is done with them."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.sagemaker.host import Host, listed, now
from local.sagemaker.models import BadModelData, ModelData
from local.sagemaker.server import Server, TimedOut, Unavailable, Unhealthy, serving_environment
from local.sagemaker.wire import Answer, Json, ServiceError, fitting, invalid, output_shape

SERVERLESS_LIMIT = 4 * 1024 * 1024  # bytes a request
REALTIME_LIMIT = 25 * 1024 * 1024
START_SECONDS = 180.0  # a serverless endpoint's; a real-time variant may set its own
DRAIN_SECONDS = 60.0

PASSED_ON = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")

SUPPORTED = {
    "CreateModel": {"ModelName", "PrimaryContainer", "ExecutionRoleArn", "Tags", "EnableNetworkIsolation"},
    "CreateModel.PrimaryContainer": {"ContainerHostname", "Image", "Mode", "ModelDataUrl", "Environment"},
    "CreateEndpointConfig": {"EndpointConfigName", "ProductionVariants", "Tags"},
    "CreateEndpoint": {"EndpointName", "EndpointConfigName", "Tags"},
    "UpdateEndpoint": {"EndpointName", "EndpointConfigName", "RetainAllVariantProperties"},
}


@dataclass
class Endpoint:
    """What is known of one endpoint; `variant`, `container` and `role` are those of the configuration it serves,
    kept because its model and configuration may be deleted meanwhile."""

    name: str
    arn: str
    config_name: str
    created: float
    changed: float
    status: str = "Creating"
    failure: str | None = None
    variant: Json = field(default_factory=dict)
    container: Json = field(default_factory=dict)
    role: str = ""

    def serverless(self) -> bool:
        return "ServerlessConfig" in self.variant


class Endpoints:
    """Models, configurations, endpoints and their operations. `command` is the serving app."""

    operations = (
        *("CreateModel", "DescribeModel", "DeleteModel", "ListModels"),
        *("CreateEndpointConfig", "DescribeEndpointConfig", "DeleteEndpointConfig", "ListEndpointConfigs"),
        *("CreateEndpoint", "UpdateEndpoint", "DescribeEndpoint", "DeleteEndpoint", "ListEndpoints"),
    )

    def __init__(self, host: Host, *, command: list[str], model_data: ModelData) -> None:
        self.host, self.command, self.model_data = host, command, model_data
        self.home, self.account, self.region, self.arn = host.home, host.account, host.region, host.arn
        self.models: dict[str, Json] = {}
        self.configs: dict[str, Json] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self._servers: dict[str, Server] = {}
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
            endpoint.status, endpoint.changed, endpoint.failure = "Updating", now(), None
        self._changes.submit(self._replace, endpoint, wanted)
        return {"EndpointArn": endpoint.arn}

    def describe_endpoint(self, request: Json) -> Json:
        with self._lock:
            endpoint = self._find("endpoint", request["EndpointName"], self.endpoints)
            described: Json = {
                "EndpointName": endpoint.name,
                "EndpointArn": endpoint.arn,
                "EndpointConfigName": endpoint.config_name,
                "EndpointStatus": endpoint.status,
                "CreationTime": endpoint.created,
                "LastModifiedTime": endpoint.changed,
            }
            if endpoint.status not in ("Creating", "Failed"):
                described["ProductionVariants"] = [variant_summary(endpoint)]
            if endpoint.failure:
                described["FailureReason"] = endpoint.failure
            return described

    def delete_endpoint(self, request: Json) -> Json:
        with self._lock:
            endpoint = self._find("endpoint", request["EndpointName"], self.endpoints)
            endpoint.status, endpoint.changed = "Deleting", now()
            server = self._servers.pop(endpoint.name, None)
        self._changes.submit(self._remove, endpoint, server)
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
        """Sends the request to the endpoint's process. Raises ServiceError as the runtime words it."""
        with self._lock:
            endpoint = self.endpoints.get(name)
            if endpoint is None or endpoint.status in ("Creating", "Failed", "Deleting"):
                raise ServiceError("ValidationError", f"Endpoint {name} of account {self.account} not found.")
            limit = SERVERLESS_LIMIT if endpoint.serverless() else REALTIME_LIMIT
            if len(body) > limit:
                raise ServiceError("ValidationError", f"HTTP content length exceeded {limit} bytes.", 413)
            variant = endpoint.variant["VariantName"]
            server = self._servers.get(name)
            if server is None:  # The stack has just come back and the process is not up yet.
                raise ServiceError("ServiceUnavailable", f"Endpoint {name} is starting.", 503)
            if not server.enter():
                raise ServiceError("ThrottlingException", "Rate exceeded", 429)
        try:
            reply = server.invoke(body, {key: headers[key] for key in PASSED_ON if key in headers})
        except Unavailable as error:
            raise ServiceError("ServiceUnavailable", f"Endpoint {name} does not answer: {error}", 503) from error
        except TimedOut as error:
            raise self.model_error(endpoint, 0, "Your invocation timed out while waiting for a response.") from error
        finally:
            server.leave()
        if reply.status >= 400:
            raise self.model_error(endpoint, reply.status, reply.body.decode("utf-8", "replace"))
        kept = {key: value for key, value in reply.headers.items() if key in PASSED_ON}
        return 200, {**kept, "x-amzn-invoked-production-variant": variant}, reply.body

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

    # Over a stop and a start

    def get_state(self) -> Json:
        with self._lock:
            endpoints = {name: vars(endpoint).copy() for name, endpoint in self.endpoints.items()}
            return {"models": self.models, "configs": self.configs, "endpoints": endpoints}

    def load_state(self, state: Json) -> None:
        with self._lock:
            self.models, self.configs = state.get("models", {}), state.get("configs", {})
            self.endpoints = {name: Endpoint(**fields) for name, fields in state.get("endpoints", {}).items()}

    def resume(self) -> None:
        """Brings up what ran before the stop. An update that the stop cut off is told as failed."""
        with self._lock:
            for endpoint in list(self.endpoints.values()):
                if endpoint.status == "Deleting":
                    del self.endpoints[endpoint.name]
                elif endpoint.status != "Failed":
                    if endpoint.status == "Updating":
                        endpoint.failure = "The update was cut off by a stop of the local stack."
                    endpoint.status = "Creating" if endpoint.status == "Creating" else "SystemUpdating"
                    self._changes.submit(self._bring_up, endpoint)

    def reset(self) -> None:
        """Forgets everything and ends every endpoint's process."""
        with self._lock:
            for endpoint in self.endpoints.values():
                endpoint.status = "Deleting"
            self.models, self.configs, self.endpoints = {}, {}, {}
        self._end_servers()

    def close(self) -> None:
        """Ends every endpoint's process, for good."""
        self._closed = True
        self._end_servers()

    def _end_servers(self) -> None:
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            list(pool.map(Server.close, servers))

    # Changes, each in a thread of its own

    def _bring_up(self, endpoint: Endpoint) -> None:
        server, failure = self._serve(endpoint)
        with self._lock:
            gone = self._closed or self.endpoints.get(endpoint.name) is not endpoint or endpoint.status == "Deleting"
            if not gone:
                endpoint.changed = now()
                if server is None:
                    endpoint.status, endpoint.failure = "Failed", failure
                else:
                    self._servers[endpoint.name] = server
                    endpoint.status = "InService"
        if gone and server:
            server.close()

    def _replace(self, endpoint: Endpoint, wanted: Endpoint) -> None:
        """The new process starts beside the old one, takes over when it is healthy; else the old one stays."""
        server, failure = self._serve(wanted)
        old: Server | None = None
        with self._lock:
            gone = self._closed or endpoint.status == "Deleting"
            if not gone:
                endpoint.status, endpoint.changed, endpoint.failure = "InService", now(), failure
                if server is not None:
                    old, self._servers[endpoint.name] = self._servers.get(endpoint.name), server
                    endpoint.config_name, endpoint.role = wanted.config_name, wanted.role
                    endpoint.variant, endpoint.container = wanted.variant, wanted.container
        if gone and server:
            server.close()
        if old:
            old.close(DRAIN_SECONDS)

    def _remove(self, endpoint: Endpoint, server: Server | None) -> None:
        if server:
            server.close(DRAIN_SECONDS)
        with self._lock:
            if self.endpoints.get(endpoint.name) is endpoint:
                del self.endpoints[endpoint.name]

    def _serve(self, endpoint: Endpoint) -> tuple[Server | None, str | None]:
        """A healthy process for the endpoint's model, or None and the reason why there is none."""
        directory = self.home / "endpoints" / f"{endpoint.name}-{uuid.uuid4().hex[:8]}"
        server = Server(
            command=self.command,
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
        except (BadModelData, ServiceError, ClientError, BotoCoreError, OSError) as error:
            failure = str(error)
        else:
            return server, None
        server.close()
        return None, failure[:1024]

    # Small parts

    def log_file(self, endpoint_name: str) -> Path:
        (self.home / "endpoints").mkdir(parents=True, exist_ok=True)
        return self.home / "endpoints" / f"{endpoint_name}.log"

    def _adopt(self, endpoint: Endpoint, config_name: str) -> None:
        """Makes `endpoint` one of this configuration and its model."""
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
    """What the request asks for and this service would not do is an error, never ignored."""
    if unsupported := sorted(request.keys() - SUPPORTED[what]):
        raise invalid(f"not supported on one machine: {', '.join(unsupported)}")


def variant_summary(endpoint: Endpoint) -> Json:
    variant = endpoint.variant
    weight = variant.get("InitialVariantWeight", 1.0)
    summary: Json = {"VariantName": variant["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
    if endpoint.serverless():
        return {**summary, "CurrentServerlessConfig": variant["ServerlessConfig"]}
    return {**summary, "CurrentInstanceCount": variant["InitialInstanceCount"]}

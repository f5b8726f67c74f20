"""The service as ministack calls it: one HTTP request in, one answer out, never blocking the loop it runs on."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from local.sagemaker.endpoints import Endpoints
from local.sagemaker.wire import Answer, Json, ServiceError, check_request, shaped

OPERATIONS = (
    *("CreateModel", "DescribeModel", "DeleteModel", "ListModels"),
    *("CreateEndpointConfig", "DescribeEndpointConfig", "DeleteEndpointConfig", "ListEndpointConfigs"),
    *("CreateEndpoint", "UpdateEndpoint", "DescribeEndpoint", "DeleteEndpoint", "ListEndpoints"),
)
INVOKE = re.compile(r"/endpoints/([^/]+)/invocations")

# Not the loop's own threads: functions wait in those while they ask an endpoint.
THREADS = 256


class Service:
    """Answers SageMaker's control plane and its runtime from `endpoints`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._threads = ThreadPoolExecutor(THREADS, "sagemaker")

    async def handle(self, method: str, path: str, headers: dict[str, str], body: bytes, query: Json) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.answer, method, path, headers, body)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes | str) -> Answer:
        try:
            # A target header decides, as it decides which permission was checked.
            if target := headers.get("x-amz-target", ""):
                return self.control(target.rpartition(".")[2], body)
            if method == "POST" and (found := INVOKE.fullmatch(path)):
                content = body.encode() if isinstance(body, str) else body
                return self.endpoints.invoke_endpoint(unquote(found[1]), headers, content)
            raise ServiceError("UnknownOperationException", f"no such operation: {method} {path}", 404)
        except ServiceError as error:
            return error.answer()

    def control(self, name: str, body: bytes | str) -> Answer:
        try:
            request = json.loads(body or b"{}")
        except ValueError as error:
            raise ServiceError("SerializationException", "the request is not JSON") from error
        check_request(name, request)
        if name not in OPERATIONS:
            raise ServiceError("UnknownOperationException", f"{name} is not supported on one machine")
        result = getattr(self.endpoints, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())(request)
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, shaped(name, result)

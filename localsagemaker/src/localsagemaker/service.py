"""The service's interface to ministack: one HTTP request in, one answer out, without blocking the event loop."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from localsagemaker.endpoints import Endpoints
from localsagemaker.host import Part
from localsagemaker.tags import Tags
from localsagemaker.wire import Answer, Json, ServiceError, parsed, shaped

INVOKE = re.compile(r"/endpoints/([^/]+)/invocations")

# Not the loop's own threads: functions that ask an endpoint wait in those.
THREADS = 256


class Service:
    """Answers SageMaker's control plane from its parts, and its runtime from `endpoints`, one of them."""

    def __init__(self, endpoints: Endpoints, *others: Part) -> None:
        self.endpoints = endpoints
        self.tags = Tags()
        self.parts: tuple[Part, ...] = (endpoints, *others, self.tags)
        self.operations = {name: getattr(part, snake(name)) for part in self.parts for name in part.operations}
        self._threads = ThreadPoolExecutor(THREADS, "sagemaker")

    async def handle(self, method: str, path: str, headers: dict[str, str], body: bytes, query: Json) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.answer, method, path, headers, body)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes | str) -> Answer:
        try:
            # The target header decides, since the permission check also uses it.
            if target := headers.get("x-amz-target", ""):
                return self.control(target.rpartition(".")[2], body)
            if method == "POST" and (found := INVOKE.fullmatch(path)):
                content = body.encode() if isinstance(body, str) else body
                return self.endpoints.invoke_endpoint(unquote(found[1]), headers, content)
            raise ServiceError("UnknownOperationException", f"no such operation: {method} {path}", 404)
        except ServiceError as error:
            return error.answer()

    def control(self, name: str, body: bytes | str) -> Answer:
        request = parsed(name, body)
        if name not in self.operations:
            raise ServiceError("UnknownOperationException", f"{name} is not supported on one machine")
        result = self.operations[name](request)
        if name.startswith("Create"):
            self.tags.remember(result, request.get("Tags", []))
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, shaped(name, result)

    # State across a stop and a start

    def get_state(self) -> Json:
        return {key: value for part in self.parts for key, value in part.get_state().items()}

    def load_state(self, state: Json) -> None:
        for part in self.parts:
            part.load_state(state)

    def resume(self) -> None:
        for part in self.parts:
            part.resume()

    def reset(self) -> None:
        for part in self.parts:
            part.reset()

    def close(self) -> None:
        """Closes all parts concurrently, so that it takes only as long as the slowest one."""
        with ThreadPoolExecutor(len(self.parts)) as pool:
            list(pool.map(lambda part: part.close(), self.parts))


def snake(name: str) -> str:
    """CreateHyperParameterTuningJob as create_hyper_parameter_tuning_job."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()

"""The wire format: checks requests against botocore's service model, shapes answers by it, and words errors as the
service does."""

import json
import math
import re
import sys
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.model import OperationModel, Shape
from botocore.utils import parse_timestamp
from botocore.validate import ParamValidator

Json = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]

SESSION = botocore.session.get_session()
CONTROL = SESSION.get_service_model("sagemaker")
RUNTIME = SESSION.get_service_model("sagemaker-runtime")
BODY_LIMIT: int = RUNTIME.shape_for("BodyBlob").metadata["max"]  # bytes; a serverless endpoint takes less


class ServiceError(Exception):
    """An error as SageMaker returns it: a code, a message, an HTTP status and further members."""

    def __init__(self, code: str, message: str, status: int = 400, **members: object) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.members = code, message, status, members

    def answer(self) -> Answer:
        # The control plane reads `message`, the runtime's error shapes have `Message`.
        body = {"__type": self.code, "message": self.message, "Message": self.message, **self.members}
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-errortype": self.code}
        return self.status, headers, json.dumps(body).encode()


def invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


def operation(name: str) -> OperationModel:
    """Raises ServiceError for a name that is not an operation of SageMaker."""
    if name not in CONTROL.operation_names:
        raise ServiceError("UnknownOperationException", f"no such operation: {name}")
    return CONTROL.operation_model(name)


def parsed(name: str, body: bytes | str) -> Json:
    """The request of an operation, with its times in seconds since 1970 and without members that are null.

    Raises ServiceError when it is not JSON, or violates botocore's model of the operation.
    """
    shape: Any = operation(name).input_shape
    try:
        text = body.decode() if isinstance(body, bytes) else body
        found = json.loads(text or "{}", parse_constant=no_number, parse_float=finite)
        json.dumps(found, ensure_ascii=False).encode()  # fails for half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise unreadable(f"the request is not JSON: {error}") from error
    request: Json = typed(found, shape, "the request")
    check_request(request, shape)
    return request


def unreadable(message: str) -> ServiceError:
    return ServiceError("SerializationException", message[:1000])


def no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits[:40]} is too large")
    return number


def typed(value: Any, shape: Any, where: str) -> Any:
    """`value` if it has the types of its shape. Raises ServiceError, as AWS's parser does before any other check."""
    if shape is None:
        return {}
    if isinstance(value, dict) and shape.type_name == "structure":
        return {
            name: typed(member, shape.members[name], name) if name in shape.members else member
            for name, member in value.items()
            if member is not None
        }
    if isinstance(value, dict) and shape.type_name == "map":
        return {key: typed(member, shape.value, f"{where}.{key}") for key, member in value.items()}
    if isinstance(value, list) and shape.type_name == "list":
        return [typed(member, shape.member, where) for member in value]
    if shape.type_name == "timestamp":
        return seconds(value, where)
    if type(value) in TYPES.get(shape.type_name, ()) and (shape.type_name not in LARGEST or fits(value, shape)):
        return value
    found = json.dumps(value)
    raise unreadable(f"{where} is {found[:100]}; it must be of type {shape.type_name}")


TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("string", "blob"), (str,)),
    **dict.fromkeys(("integer", "long"), (int,)),
    **dict.fromkeys(("float", "double"), (int, float)),
    "boolean": (bool,),
}
LARGEST = {"integer": 2**31 - 1, "long": 2**63 - 1, "float": sys.float_info.max, "double": sys.float_info.max}


def fits(value: float, shape: Shape) -> bool:
    return abs(value) <= LARGEST[shape.type_name]


def seconds(value: Any, where: str) -> float:
    """A time as seconds since 1970. Raises ServiceError for what is no time, or before year 1 or after year 9999."""
    try:
        if type(value) in (int, float):
            datetime.fromtimestamp(value, UTC)
            return float(value)
        if isinstance(value, str):
            return parse_timestamp(value).timestamp()
    except (ValueError, OverflowError, OSError, RuntimeError):
        pass
    raise unreadable(f"{where} is {json.dumps(value)[:100]}; it must be a time: seconds since 1970, or ISO 8601")


def check_request(request: Json, shape: Any) -> None:
    """Raises ServiceError when `request` violates the structure."""
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise invalid(report.generate_report())
    problems = list(constraints(request, shape, ""))
    if problems:
        listed = "; ".join(problems)
        raise invalid(f"{len(problems)} validation error{'s' * (len(problems) > 1)} detected: {listed}")


def constraints(value: Any, shape: Any, where: str) -> list[str]:
    """The checks that botocore leaves to the service: patterns, enumerations and upper limits."""
    if shape.type_name == "structure":
        return [
            problem
            for name, member in value.items()
            for problem in constraints(member, shape.members[name], f"{where}.{name}".lstrip("."))
        ]
    if shape.type_name == "list":
        numbered = enumerate(value, 1)
        found = [problem for n, item in numbered for problem in constraints(item, shape.member, f"{where}.{n}")]
        return found + too_large(len(value), shape, where, "length")
    if shape.type_name == "string":
        found = too_large(len(value), shape, where, "length")
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(as_python(pattern), value):
            found.append(f"Value '{value}' at '{where}' must satisfy regular expression pattern: {pattern}")
        if shape.enum and value not in shape.enum:
            found.append(f"Value '{value}' at '{where}' must satisfy enum value set: {shape.enum}")
        return found
    if shape.type_name in ("integer", "long", "float", "double"):
        return too_large(value, shape, where, "value")
    return []


def as_python(pattern: str) -> str:
    """A Java pattern as a Python pattern; character categories become the same or slightly larger sets."""
    visible = r"!-/:-@\[-`{-~\u00a1-\U0010ffff"
    for category, characters in {"L": r"\w", "N": r"\d", "Z": r"\s", "M": visible, "P": visible, "S": visible}.items():
        pattern = pattern.replace(rf"\p{{{category}}}", characters)
    return re.sub(r"\$\{\d+,\d+\}", "", pattern)  # A repeated end, which has no meaning.


def too_large(size: float, shape: Shape, where: str, what: str) -> list[str]:
    most = shape.metadata.get("max")
    if most is None or size <= most:
        return []
    return [f"Member at '{where}' must have {what} less than or equal to {most}"]


def output_shape(name: str) -> Any:
    """The structure of the operation's answer."""
    return operation(name).output_shape


def fitting(item: Json, shape: Any) -> Json:
    """The members of `item` that the structure has."""
    return {name: value for name, value in item.items() if name in shape.members}


def milliseconds(value: Any, shape: Any) -> Any:
    """`value` with the times in its shape in milliseconds since 1970 instead of seconds, as in events."""
    if shape.type_name == "structure":
        return {name: milliseconds(member, shape.members[name]) for name, member in value.items()}
    if shape.type_name == "list":
        return [milliseconds(item, shape.member) for item in value]
    return round(value * 1000) if shape.type_name == "timestamp" else value


def shaped(name: str, result: Json) -> bytes:
    """`result` as the operation's answer. A violation of botocore's model is our fault."""
    shape = operation(name).output_shape
    if shape is None:
        return b""
    report = ParamValidator().validate(result, shape)
    if report.has_errors():
        raise RuntimeError(f"{name}'s answer violates its model: {report.generate_report()}")
    return json.dumps(result, default=datetime.timestamp).encode()

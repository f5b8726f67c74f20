"""Subsegments of AWS X-Ray: what a traced call asks of AWS, and how long its photograph had waited since its upload.

X-Ray's SDK would bring botocore a second time (30 MB). So the documents are sent from here, a datagram each, to the
daemon that Lambda runs beside a traced function. Protocol and fields: "Sending trace data to AWS X-Ray" and "AWS X-Ray
segment documents" in X-Ray's developer guide. A call that X-Ray does not sample sends nothing; a lost datagram loses a
line of a picture.
"""

import json
import os
import socket
import time
from typing import Any

HEADER = b'{"format": "json", "version": 1}\n'
BEGUN = "trace_begun"


def trace_requests(*clients: Any) -> None:
    """Makes these clients send a subsegment for each of their requests."""
    for client in clients:
        client.meta.events.register("before-call", _begin, unique_id="trace-begin")
        client.meta.events.register("after-call", _end, unique_id="trace-end")
        client.meta.events.register("after-call-error", _end, unique_id="trace-error")


def trace_wait(uploaded: float, key: str, event_id: str) -> None:
    """Sends a subsegment from the upload (seconds since 1970) until now; people find the trace by its annotations."""
    annotations = {"photograph": key, "event": event_id}
    send({"name": "waiting", "start_time": uploaded, "end_time": time.time(), "annotations": annotations})


def _begin(model: Any, context: dict[str, Any], **_: object) -> None:
    context[BEGUN] = model, time.time()


def _end(context: dict[str, Any], parsed: Any = None, **_: object) -> None:
    """Without an answer the request itself has failed."""
    model, begun = context[BEGUN]
    status = parsed["ResponseMetadata"]["HTTPStatusCode"] if parsed else 500
    send(
        {
            "name": model.service_model.service_id,
            "namespace": "aws",
            "start_time": begun,
            "end_time": time.time(),
            "aws": {"operation": model.name, "region": os.environ["AWS_REGION"]},
            "throttle": status == 429,
            "error": 400 <= status < 500,
            "fault": status >= 500,
        }
    )


def send(subsegment: dict[str, Any]) -> None:
    """Sends a subsegment of the current call, if X-Ray samples that. A failure is not the photograph's."""
    trace = dict(part.partition("=")[::2] for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"))
    address, _, port = os.environ.get("AWS_XRAY_DAEMON_ADDRESS", "").partition(":")
    if trace.get("Sampled") != "1" or not port:
        return
    place = {"id": os.urandom(8).hex(), "type": "subsegment", "trace_id": trace["Root"], "parent_id": trace["Parent"]}
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.sendto(HEADER + json.dumps(place | subsegment).encode(), (address, int(port)))
    except OSError:
        return

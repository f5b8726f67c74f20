"""`bintally bench retrain redeploy`: sends requests without a pause while models are promoted and rolled back."""

import io
import itertools
import json
import statistics
import tarfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from bench.common import Numbers, bare_table, own_stack, rank
from bench.stack import ignore, jpegs
from cli.errors import CliError
from cli.photographs import Photograph, Uploaded, send
from cli.readings import counted
from deployed.stack import how_it_failed
from local.stack import REPOSITORY, Local, package_version
from model.answer import CLASSES, Answer

PARAMETERS = ("EndpointMode=realtime", "CanaryPercent=50", "CanaryWaitSeconds=20", "LowConfidenceShare=0.4")
REQUESTS_PER_SECOND = 5
COUNTED_PER_SECOND = 2
BEFORE_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
UPDATES = ("before", "promoted", "rolled back")


@dataclass(frozen=True)
class Request:
    """One request: when it was due (monotonic), seconds until its answer, the model that answered, its fault."""

    due: float
    latency_ms: float
    model_version: str
    fault: str


def measure_redeploy(console: Console, photographs: Path, rounds: int) -> Numbers:
    """{"summary", "rows", "requests", "failed", …}: each round is a quiet phase, a promotion and a rollback."""
    bodies = [path.read_bytes() for path in jpegs(photographs) if path.suffix.lower() in (".jpg", ".jpeg")][:500]
    with own_stack(console, *PARAMETERS) as stack:
        outputs, alarm = stack.outputs(), quick_alarm(stack)
        live = package_version(stack.package)
        windows = []
        with Stream(stack, outputs, bodies) as stream, console.status("") as status:
            for turn in range(rounds):
                for update in UPDATES:
                    status.update(f"Requests all the time, round {turn + 1}: {update}")
                    version, began = f"bench-{update.replace(' ', '-')}-{turn}", time.monotonic()
                    if update == "before":
                        time.sleep(BEFORE_SECONDS)
                        seconds = BEFORE_SECONDS
                    else:
                        package = changed(stack.package, version, unsure=update == "rolled back")
                        seconds = release(stack, outputs, version, package, update)
                    windows.append((update, turn, began, time.monotonic(), seconds, live, version))
                    live = version if update == "promoted" else live
                status.update("Waiting for a quiet alarm")
                wait_quiet(stack, alarm)
        table = stack.counts_table()
        answered = sum(item["status"] == "COUNTED" for _, item in counted(table, stream.uploads, PATIENCE_SECONDS))
    requests = stream.requests()
    rows = [row_of(requests, *window) for window in windows]
    return {
        "summary": summarise(rows),
        "requests": len(requests),
        "failed": sum(bool(request.fault) for request in requests),
        "faults": sorted({request.fault for request in requests if request.fault}),
        "uploaded": len(stream.uploads),
        "counted": answered,
        "rows": rows,
    }


class Stream:
    """Sends requests to the endpoint and photographs to the count function, at a steady pace until the block ends.

    A waiting request does not delay others. It is sent once: an error that botocore would retry is a failure here.
    """

    def __init__(self, stack: Local, outputs: dict[str, str], bodies: list[bytes]) -> None:
        self.endpoint, self.bucket, self.bodies = outputs["EndpointName"], outputs["ImagesBucket"], bodies
        self.runtime = stack.client("sagemaker-runtime", retries={"total_max_attempts": 1}, max_pool_connections=32)
        self.s3 = stack.client("s3")
        self.uploads: list[Uploaded] = []
        self._asked: list[Future[Request]] = []
        self._ended = threading.Event()
        self._askers, self._loops = ThreadPoolExecutor(32, "ask"), ThreadPoolExecutor(2, "pace")

    def __enter__(self) -> "Stream":
        self._running = [self._loops.submit(self._ask_all), self._loops.submit(self._upload_all)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._loops.shutdown()
        self._askers.shutdown()
        for loop in self._running:
            loop.result()

    def requests(self) -> list[Request]:
        return [asked.result() for asked in self._asked]

    def _ask_all(self) -> None:
        due = time.monotonic()
        for body in itertools.cycle(self.bodies):
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            self._asked.append(self._askers.submit(self._ask, due, body))
            due += 1 / REQUESTS_PER_SECOND

    def _ask(self, due: float, body: bytes) -> Request:
        try:
            found = self.runtime.invoke_endpoint(
                EndpointName=self.endpoint, Body=body, ContentType="image/jpeg", Accept="application/json"
            )
            version, fault = read_answer(found["Body"].read())
        except (BotoCoreError, ClientError) as error:
            version, fault = "", str(error)
        return Request(due, 1000 * (time.monotonic() - due), version, fault)

    def _upload_all(self) -> None:
        """Uploads the repository's samples. The shipped model is sure of them: unsure counts are the new one's."""
        samples = jpegs(REPOSITORY / "samples")
        for place in itertools.count():
            if self._ended.wait(1 / COUNTED_PER_SECOND):
                return
            photograph = Photograph(samples[place % len(samples)], "BENCH", f"{place:05}", None)
            self.uploads += send(self.s3, self.bucket, [photograph], ignore)


def read_answer(body: bytes) -> tuple[str, str]:
    """The version that answered, and the answer's violation of its contract (`model.answer`), else empty."""
    try:
        found = json.loads(body)
        version, shares, count = found["model_version"], found["probabilities"], found["count"]
        if found.keys() - {"prior"} != Answer.__annotations__.keys() - {"prior"}:
            return version, f"an answer of {', '.join(sorted(found))}"
        if len(shares) != len(CLASSES) or abs(sum(shares) - 1) > 1e-3 or min(shares) < 0:
            return version, f"probabilities {shares}"
        if abs(found["confidence"] - shares[count]) > 1e-3 or found["is_minimum"] != (count == len(CLASSES) - 1):
            return version, f"count {count} contradicts the rest of the answer"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return "", f"not an answer: {error!r}"
    return version, ""


def changed(package: Path, version: str, *, unsure: bool) -> bytes:
    """The package as another version. An unsure one passes its golden images and gives all counts one probability."""
    with tarfile.open(package) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    description = json.loads(files["package.json"])
    description["model_version"] = version
    for golden in description["golden"]:
        golden["answer"]["model_version"] = version
        if unsure:
            same = {"probabilities": [1 / 7] * 7, "confidence": 1 / 7, "count": 3, "is_minimum": False}
            golden["answer"] |= same | {"expected_capped": 3.0}
    if unsure:
        description["calibration"] |= {"temperature": 1e6, "bias": [0.0] * 7}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, content in (files | {"package.json": json.dumps(description).encode()}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def quick_alarm(stack: Local) -> str:
    """Sets the period of the low-confidence alarm to 15 seconds, 300 as deployed; returns its name."""
    cloudwatch = stack.client("cloudwatch")
    (alarm,) = (a for a in cloudwatch.describe_alarms()["MetricAlarms"] if a["MetricName"] == "LowConfidenceExcess")
    kept = ("AlarmName", "Namespace", "MetricName", "Dimensions", "Statistic", "ComparisonOperator", "Threshold")
    quick = {"Period": 15, "EvaluationPeriods": 1, "TreatMissingData": "notBreaching"}
    cloudwatch.put_metric_alarm(**{name: alarm[name] for name in kept}, **quick, AlarmActions=alarm["AlarmActions"])
    return str(alarm["AlarmName"])


def release(stack: Local, outputs: dict[str, str], version: str, package: bytes, expected: str) -> float:
    """Seconds of the release by the execution's clock. Raises CliError when it does not end as `expected`."""
    bucket, key = outputs["ArtifactsBucket"], f"models/{version}/model.tar.gz"
    stack.client("s3").put_object(Bucket=bucket, Key=key, Body=package)
    request = {"model_version": version, "model_data_url": f"s3://{bucket}/{key}"}
    execution, states = stack.start_release(request, outputs), stack.client("stepfunctions")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        if time.monotonic() > deadline:
            raise CliError(f"the release of {version} takes over {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.5)
    if ended_as(found) != expected:
        raise CliError(f"{version} was to be {expected}: {how_it_failed(found)}")
    return float((found["stopDate"] - found["startDate"]).total_seconds())


def ended_as(execution: dict[str, Any]) -> str:
    if execution["status"] == "SUCCEEDED":
        outcome = str(json.loads(execution["output"])["outcome"])
        return "promoted" if outcome == "released" else outcome
    return "rolled back" if execution.get("error") == "RolledBack" else "failed"


def wait_quiet(stack: Local, alarm: str) -> None:
    """Waits until the alarm no longer fires: it would end the next canary."""
    cloudwatch, deadline = stack.client("cloudwatch"), time.monotonic() + PATIENCE_SECONDS
    while cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"] == "ALARM":
        if time.monotonic() > deadline:
            raise CliError(f"alarm {alarm} does not become quiet")
        time.sleep(1)


def row_of(
    requests: list[Request], update: str, turn: int, began: float, ended: float, seconds: float, old: str, new: str
) -> Numbers:
    """The results of the requests that were due in a window. An answer of a third model is also a failure."""
    asked = [request for request in requests if began <= request.due < ended]
    good = [request for request in asked if not request.fault and request.model_version in (old, new)]
    return {
        "update": update,
        "round": turn,
        "seconds": seconds,
        "requests": len(asked),
        "failed": len(asked) - len(good),
        "by_new": sum(request.model_version == new for request in good),
        "latencies_ms": [request.latency_ms for request in good],
    }


def summarise(rows: list[Numbers]) -> list[Numbers]:
    """By update: sums over the rounds, percentiles of all their latencies, the median of their seconds."""
    result = []
    for update in UPDATES:
        of = [row for row in rows if row["update"] == update]
        latencies = sorted(itertools.chain.from_iterable(row["latencies_ms"] for row in of))
        result.append(
            {"update": update, "seconds": statistics.median(row["seconds"] for row in of)}
            | {name: sum(row[name] for row in of) for name in ("requests", "failed", "by_new")}
            | {"p50_ms": rank(latencies, 0.5), "p99_ms": rank(latencies, 0.99)}
        )
    return result


def show_redeploy(console: Console, report: Numbers) -> None:
    table = bare_table("Redeploying", "", "requests", "failed", "by the new", "p50 ms", "p99 ms", "release s")
    for row in report["summary"]:
        latencies = (f"{row['p50_ms']:.0f}", f"{row['p99_ms']:.0f}")
        seconds = "" if row["update"] == "before" else f"{row['seconds']:.0f}"
        table.add_row(
            row["update"], *(str(row[name]) for name in ("requests", "failed", "by_new")), *latencies, seconds
        )
    console.print(table)
    console.print(f"{report['failed']} of {report['requests']} requests failed, with those between the updates")
    for fault in report["faults"][:5]:
        console.print(f"  {fault}", markup=False)
    console.print(f"{report['counted']} of {report['uploaded']} photographs uploaded at the same time were counted")

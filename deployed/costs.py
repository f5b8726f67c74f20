"""What a stack costs: what a photograph uses, times the prices of prices.toml. Pure.

Usage is the table: every number with its origin. tests/functions/test_costs.py and tests/template/test_costs.py compare
it with the code and the template. "Assumed" numbers could only be measured on an account.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Endpoint = Literal["serverless", "realtime"]
Costs = dict[str, float]
"""US dollars by service."""

MILLION = 1_000_000
DAYS, HOURS = 365 / 12, 730
"""Of a month."""
SECONDS = 3600 * HOURS
WEEKS = DAYS / 7
TO_MILLIONS = 1 / MILLION
TABLE_UNITS = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)
"""Of the parameter TableUnits. A tenth is the table's least, a hundredth each index's for writes."""
UNTOUCHED, SHRUNK = 0.066, 0.036
"""Megabytes: a photograph above the first is shrunk for the endpoint (docs/decisions/photographs.md)."""


@dataclass(frozen=True)
class Usage:
    """What a stack with the defaults of template.yaml uses."""

    # The photograph
    megabytes: float = 0.2
    """In S3."""
    puts: float = 1
    """The upload."""
    gets: float = 1
    """GetObject (test_costs)."""
    opt_in_events: float = 1
    """S3's Object Created."""

    # The count queue
    wait: float = 0
    """CountWait, in seconds: without it they come alone unless they pile up."""
    most: float = 5
    """Messages of a call."""
    queue_requests: float = 1
    """SendMessage, by EventBridge. DeleteMessage comes once a batch; ReceiveMessage may come for each photograph,
    which ends a long poll."""
    pollers: float = 10
    """Lambda starts with 5 for each of two mappings; each polls for 20 seconds while its queue is empty."""

    # The count function
    count_megabytes: float = 1769
    """MemorySize."""
    gigabyte_second: str = "lambda_gb_second"
    """The price, by Architectures."""
    request_milliseconds: float = 13.5
    """Of the count function's wait for S3 or DynamoDB. Assumed."""
    requests: float = 3
    """To AWS: GetObject, BatchGetItem and TransactWriteItems (test_costs)."""
    own_milliseconds: float = 10.4
    """Own CPU (docs/benchmarks.md, `bench function`)."""
    shrinking_milliseconds: float = 1.4
    """Own CPU to shrink a photograph (docs/decisions/photographs.md)."""
    further_milliseconds: float = 19.3
    """Of each further photograph of a call: five took 144 ms where one takes 67 (docs/decisions/functions-build.md)."""

    # DynamoDB: units, by item. A unit writes 1 KB; a transaction takes twice the units (test_costs)
    count_units: float = 2
    """COUNT, in the transaction: 969 bytes with a record, and a unit holds 1,024."""
    marker_units: float = 2
    """IMAGE, in the transaction."""
    totals_units: float = 2
    """TOTALS, in the transaction."""
    latest_units: float = 3
    """LATEST, in the transaction, and its copy in the index `site`."""
    read_units: float = 0.5 + 1 + 3 + 1
    """`count`: RECORD, eventually. `follow`: RECORD. `review`: LATEST, RECORD and REVIEW; newer counts."""
    provisioned: float = 0
    """Share of the table's provisioned units that are used, with TableUnits; 0: they are on demand."""
    index_reads: float = 50
    """Least read units of the two indexes, with TableUnits."""
    scaling_alarms: float = 24
    """That target tracking makes, with TableUnits: four for each of six policies. Assumed."""
    table_bytes: float = 969 + 162 + 200
    """COUNT and IMAGE, for good, and 100 bytes for each item, which AWS adds."""

    # Reviews
    reviewed: float = 0.33
    """Share of photographs that open a review (docs/benchmarks.md, `bench review ranking`, 5 % wrong records)."""
    review_units: float = 9
    """REVIEW, TRAIL, WAITING, REVIEWS in a transaction, and REVIEW's copy in the index `review` (test_costs)."""
    review_megabytes: float = 512
    review_milliseconds: float = 60
    """Of a call. Assumed."""
    polls: float = 4
    """Calls a second for each shard of the stream at most: how often Lambda reads it."""

    # The label log
    follow_megabytes: float = 1769
    follow_milliseconds: float = 300
    """Of a call, once a minute. Assumed."""
    change_milliseconds: float = 1
    """Of a change. Assumed."""
    label_bytes: float = 600

    # CloudWatch
    count_log: float = 563 + 26
    """The line of a photograph (test_costs), and what CloudWatch adds to each event."""
    count_metrics: float = 560 + 26
    """Embedded metrics of a call, one photograph in it (test_costs)."""
    further_metrics: float = 28
    """Each further photograph in it (test_costs)."""
    review_log: float = 303 + 26 + 290 + 26
    """The line and the embedded metrics of a call (test_costs)."""
    platform_log: float = 160 + 26 + 330 + 26
    """Lambda's own lines at the start and the end of a call. Assumed, from AWS's examples."""
    count_platform_log: float = platform_log
    """Those of the count function."""
    log_months: float = 1
    """LogRetentionDays."""
    metrics: float = 10
    """6 of the count function, 2 of follow, 2 of review (test_costs)."""
    mapping_metrics: float = 4
    """FilteredOutEventCount and InvokedEventCount of two mappings. That they are charged is assumed."""
    idle_metrics: float = 2
    """PolledEventCount of the two: Lambda sends zeros while nothing changes."""
    alarms: float = 27
    dashboards: float = 1

    # The endpoint
    serverless_gigabytes: float = 3
    """ServerlessMemory."""
    endpoint_milliseconds: float = 16
    """The endpoint's answer as the function waits, on two cores (docs/benchmarks.md). Cold starts are not in it."""
    answer_megabytes: float = 0.0004
    instances: float = 2
    """InstanceCount."""
    instance_rate: float = 100
    """Photographs/s of an ml.c7i.large. Assumed: it has one core, and two cores do 186 (docs/benchmarks.md)."""
    peak: float = 3
    """The busiest hour against the day's mean. Assumed."""

    # What is kept
    images_gigabytes: float = 3.5
    """The two images, compressed (docs/operations.md). They have not been pushed to ECR."""
    checks: float = WEEKS
    """Times a month that ReconcileSchedule reads a photograph's marker and count: half a unit each."""
    check_megabytes: float = 1769
    check_rate: float = 1000
    """Photographs/s of the reconcile function (template.yaml)."""

    @property
    def count_milliseconds(self) -> float:
        """Of a call with one photograph that is not shrunk."""
        return self.own_milliseconds + self.endpoint_milliseconds + self.requests * self.request_milliseconds

    @property
    def most_a_second(self) -> float:
        """Photographs that a count function counts where its calls are full."""
        return 1000 * self.most / (self.count_milliseconds + (self.most - 1) * self.further_milliseconds)


def counting(use: Usage, prices: Mapping[str, float], per_day: float, endpoint: Endpoint) -> Costs:
    """What a month of counting costs, by service. Without what is there when nothing is counted (`idle`), and without
    keeping photographs and counts (`keeping`)."""
    photographs = per_day * DAYS * TO_MILLIONS
    """A month, in millions; so are all numbers of requests and units."""
    calls = photographs / batch(use, per_day)
    changes = photographs * (1 + use.reviewed)
    reviews = min(changes, use.polls * SECONDS * TO_MILLIONS * shards(per_day))
    follows = min(photographs, HOURS * 60 * TO_MILLIONS * shards(per_day))
    count_seconds = calls * call_milliseconds(use, per_day) * 1e3
    review_seconds = reviews * use.review_milliseconds * 1e3
    follow_seconds = (follows * use.follow_milliseconds + photographs * use.change_milliseconds) * 1e3
    gigabyte_seconds = (
        count_seconds * use.count_megabytes
        + review_seconds * use.review_megabytes
        + follow_seconds * use.follow_megabytes
    ) / 1024
    log_bytes = (
        photographs * use.count_log
        + calls * (use.count_metrics + use.count_platform_log)
        + (photographs - calls) * use.further_metrics
        + reviews * (use.review_log + use.platform_log)
        + follows * (use.review_log + use.platform_log)
    )
    log_gigabytes = log_bytes * MILLION / 1e9
    sent = SHRUNK if use.megabytes > UNTOUCHED else use.megabytes
    data = photographs * MILLION * (sent + use.answer_megabytes) / 1000
    return {
        "S3, requests": (photographs * use.puts + follows) * prices["s3_put"]
        + photographs * use.gets * prices["s3_get"],
        "EventBridge": photographs
        * (use.opt_in_events * prices["eventbridge_opt_in"] + use.reviewed * prices["eventbridge_custom"]),
        "SQS": (photographs * (use.queue_requests + 1) + calls) * prices["sqs_request"],
        "Lambda": (calls + reviews + follows) * prices["lambda_request"]
        + gigabyte_seconds * prices[use.gigabyte_second],
        "DynamoDB": table(use, prices, per_day),
        "SageMaker, compute": compute(use, prices, per_day, endpoint),
        "SageMaker, data": data * prices["endpoint_data"],
        "CloudWatch, logs": log_gigabytes * (prices["logs_ingestion"] + use.log_months * prices["logs_storage"]),
        "CloudWatch, metrics": (use.metrics + use.mapping_metrics) * prices["metric"],
    }


def compute(use: Usage, prices: Mapping[str, float], per_day: float, endpoint: Endpoint) -> float:
    """What the endpoint's processors cost in a month."""
    if endpoint == "realtime":
        return instances(use, per_day) * HOURS * prices["ml.c7i.large"]
    return per_day * DAYS * per_request(use, prices)


def batch(use: Usage, per_day: float) -> float:
    """Photographs of a call. While it waits, each of Lambda's five pollers gathers a fifth of what comes."""
    return min(use.most, 1 + rate(per_day) * use.wait / 5)


def call_milliseconds(use: Usage, per_day: float) -> float:
    """Of a call of the count function. Its photographs wait for AWS together."""
    photographs = batch(use, per_day)
    shrinking = use.shrinking_milliseconds if use.megabytes > UNTOUCHED else 0
    return use.count_milliseconds + (photographs - 1) * use.further_milliseconds + photographs * shrinking


def table(use: Usage, prices: Mapping[str, float], per_day: float) -> float:
    """What the table's units cost in a month."""
    writes = use.count_units + use.marker_units + use.totals_units + use.latest_units + use.reviewed * use.review_units
    if not use.provisioned:
        photographs = per_day * DAYS * TO_MILLIONS
        return photographs * (writes * prices["dynamodb_write"] + use.read_units * prices["dynamodb_read"])
    most = next(most for most in TABLE_UNITS if most >= rate(per_day) * use.peak * writes or most == TABLE_UNITS[-1])
    write_units = max(rate(per_day) * writes / use.provisioned, 0.12 * most)
    read_units = max(rate(per_day) * use.read_units / use.provisioned, 0.1 * most) + use.index_reads
    return (
        HOURS * write_units * prices["dynamodb_write_provisioned"]
        + HOURS * read_units * prices["dynamodb_read_provisioned"]
        + use.scaling_alarms * prices["alarm"]
    )


def rate(per_day: float) -> float:
    """Photographs a second, as a mean."""
    return per_day / (24 * 3600)


def per_request(use: Usage, prices: Mapping[str, float]) -> float:
    return use.endpoint_milliseconds / 1000 * use.serverless_gigabytes * prices["serverless_gb_second"]


def instances(use: Usage, per_day: float) -> int:
    """Instances of a real-time endpoint that hold the busiest hour."""
    return max(int(use.instances), -int(-rate(per_day) * use.peak // use.instance_rate))


def shards(per_day: float) -> int:
    """Of the table's stream. Assumed: one for each 1,000 write units a second, of which a photograph takes 15."""
    return max(1, round(rate(per_day) * 15 / 1000))


def keeping(use: Usage, prices: Mapping[str, float]) -> Costs:
    """What a million photographs and their counts cost in each month that they are kept."""
    table = use.table_bytes * MILLION / 1e9
    checking = MILLION / use.check_rate * use.check_megabytes / 1024 * prices[use.gigabyte_second]
    return {
        "S3, photographs": use.megabytes * 1000 * prices["s3_storage"],
        "DynamoDB, counts": table * (prices["dynamodb_storage"] + prices["dynamodb_recovery"]),
        "S3, label log": use.label_bytes / 1000 * prices["s3_storage"],
        "Reconciling": use.checks * (prices["dynamodb_read"] + prices["s3_put"] / 1000 + checking),
    }


def idle(use: Usage, prices: Mapping[str, float], free: Mapping[str, float] | None = None) -> Costs:
    """What a stack costs in a month in which nothing is counted. `free` is subtracted."""
    free = free or {}
    polls = use.pollers * SECONDS / 20 * TO_MILLIONS
    return {
        "Alarms": max(0, use.alarms - free.get("alarm", 0)) * prices["alarm"],
        "Dashboard": max(0, use.dashboards - free.get("dashboard", 0)) * prices["dashboard"],
        "Metrics": max(0, use.idle_metrics - free.get("metric", 0)) * prices["metric"],
        "Polls of two queues": max(0, polls - free.get("sqs_request", 0)) * prices["sqs_request"],
        "Images": use.images_gigabytes * prices["image_storage"],
    }


def tracing(prices: Mapping[str, float], per_day: float) -> float:
    """What traces cost in a month with Tracing=Active. Lambda samples one call a second and 5 % of the others, and lets
    nobody choose; each call counts one photograph, evenly over the day."""
    calls = rate(per_day)
    return (min(calls, 1) + 0.05 * max(0, calls - 1)) * SECONDS * TO_MILLIONS * prices["trace"]


@dataclass(frozen=True)
class Recount:
    """What one recount on the web page uses. All but memory is assumed."""

    requests: float = 4
    """Of the HTTP API, each a call of the answer function."""
    milliseconds: float = 100
    megabytes: float = 1769
    """MemorySize of the answer function."""
    units: float = 25
    """A claim and an entry, with their lines of the trail, tallies and scores."""
    photograph: float = 0.1
    """Megabytes of the display copy, which is made and sent once."""


def recounting(use: Recount, prices: Mapping[str, float]) -> float:
    """What a thousand recounts cost."""
    seconds = use.requests * use.milliseconds / 1000
    one = (
        use.requests * (prices["http_api"] + prices["lambda_request"]) * TO_MILLIONS
        + seconds * use.megabytes / 1024 * prices["lambda_gb_second"]
        + (use.units * prices["dynamodb_write"] + prices["s3_put"] + 2 * prices["s3_get"]) * TO_MILLIONS
        + prices["eventbridge_custom"] * TO_MILLIONS
        + use.photograph / 1000 * prices["transfer_out"]
    )
    return 1000 * one


@dataclass(frozen=True)
class Retraining:
    """A retraining with the defaults of template.yaml. All but trials and epochs is assumed."""

    labels: int = 100_000
    trials: int = 8
    """RetrainTrials, on demand; the training itself is on spot instances, here without the discount."""
    epochs: int = 12
    """RetrainEpochs."""
    trained: float = 1200
    """Photographs/s on an ml.g5.xlarge. A sixth of an H200's 7,490 (docs/benchmarks.md)."""
    processed: float = 380
    """Photographs/s of the processing job: two cores at 191 (docs/benchmarks.md)."""
    transformed: float = 180
    """Photographs/s of a batch transform."""
    tested: float = 0.15
    """Share of the photographs that both models count."""
    start: float = 240
    """Seconds of each job before its first photograph."""
    gigabytes: float = 50
    """JobVolume."""
    transitions: float = 60
    """Of the state machine."""


def retraining(job: Retraining, prices: Mapping[str, float]) -> Costs:
    training = job.labels * job.epochs / job.trained + job.start
    processing = job.labels / job.processed + job.start
    transform = 2 * (job.labels * job.tested / job.transformed + job.start)
    seconds = training * (job.trials + 1) + processing + transform + job.start
    return {
        "Processing": processing / 3600 * prices["ml.c7i.xlarge"],
        "Tuning": training * job.trials / 3600 * prices["ml.g5.xlarge"],
        "Training": training / 3600 * prices["ml.g5.xlarge"],
        "Transform": transform / 3600 * prices["ml.c5.xlarge"],
        "Evaluation": job.start / 3600 * prices["ml.c7i.xlarge"],
        "Steps": job.transitions * TO_MILLIONS * prices["transition"],
        "Disks": job.gigabytes * seconds / SECONDS * prices["job_storage"],
    }


def break_even(use: Usage, prices: Mapping[str, float]) -> float:
    """Photographs a day from which two instances cost less than the serverless endpoint. Their data costs the same."""
    return use.instances * HOURS * prices["ml.c7i.large"] / per_request(use, prices) / DAYS


PARAMETERS: dict[str, Callable[[Usage], Usage]] = {
    "TableUnits: the table's capacity follows the load": lambda use: replace(use, provisioned=0.6),
    "CountWait=5: up to five photographs a call": lambda use: replace(use, wait=5),
    "CountLogLevel=WARN: no line for a photograph or a call": lambda use: replace(
        use, count_log=0, count_platform_log=0
    ),
}
"""What the template has parameters for. That 0.6 of the units are used is simulated (docs/experiments.md)."""
LEVERS: dict[str, Callable[[Usage], Usage]] = PARAMETERS | {
    "no transaction: four items one by one": lambda use: replace(
        use,
        count_units=use.count_units / 2,
        marker_units=1,
        totals_units=1,
        latest_units=2,
        requests=use.requests + 3,
    ),
    "a review for a tenth of the photographs": lambda use: replace(use, reviewed=0.1),
    "count function of 1,024 MB, as fast": lambda use: replace(use, count_megabytes=1024),
    "functions on arm64, as fast": lambda use: replace(use, gigabyte_second="lambda_arm_gb_second"),
    "no lines of Lambda's own in the logs": lambda use: replace(use, platform_log=0, count_platform_log=0),
    "serverless endpoint of 2 GB, as fast": lambda use: replace(use, serverless_gigabytes=2),
}
"""What would make counting cheaper. None is set: each costs something, which docs/costs.md says."""


def levers(use: Usage, prices: Mapping[str, float], per_day: float, endpoint: Endpoint) -> Costs:
    """What each saves on a million photographs, the most first."""
    now = per_million(counting(use, prices, per_day, endpoint), per_day)
    saved = {
        name: now - per_million(counting(change(use), prices, per_day, endpoint), per_day)
        for name, change in LEVERS.items()
    }
    return dict(sorted(saved.items(), key=lambda each: -each[1]))


def with_all(
    changes: Iterable[Callable[[Usage], Usage]],
    use: Usage,
    prices: Mapping[str, float],
    per_day: float,
    endpoint: Endpoint,
) -> float:
    """What a million photographs cost with all of the changes that save something."""

    def cost(use: Usage) -> float:
        return per_million(counting(use, prices, per_day, endpoint), per_day)

    for change in changes:
        use = min(use, change(use), key=cost)
    return cost(use)


def per_million(costs: Costs, per_day: float) -> float:
    return sum(costs.values()) / (per_day * DAYS) * MILLION

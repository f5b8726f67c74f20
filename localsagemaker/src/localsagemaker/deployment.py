"""Moves an endpoint's traffic from one process to another: all at once, by a canary or in steps."""

from dataclasses import dataclass
from fractions import Fraction

from localsagemaker.host import Alarmed, now
from localsagemaker.server import Server
from localsagemaker.wire import Json, invalid

MOST = Fraction(1, 2)  # of the capacity in a canary or a linear step
LEAST_STEP = Fraction(1, 10)


@dataclass
class Traffic:
    """An endpoint's processes. The new one gets `share` of the requests, evenly spread and not at random. Used under
    the endpoints' lock."""

    live: Server
    fresh: Server | None = None
    share: Fraction = Fraction(0)
    asked: int = 0

    def pick(self) -> Server:
        """The process for the next request."""
        self.asked += 1
        due = self.asked * self.share // 1 > (self.asked - 1) * self.share // 1
        return self.fresh if self.fresh and due else self.live

    def servers(self) -> list[Server]:
        return [server for server in (self.live, self.fresh) if server]


@dataclass(frozen=True)
class Step:
    """The new process gets `share` of the requests for `seconds`; `why` is the request's name for this wait."""

    share: Fraction
    seconds: int
    why: str


@dataclass(frozen=True)
class Plan:
    """The steps of an update; in the last the new process gets all requests. `limit` is the time limit in seconds."""

    steps: tuple[Step, ...]
    alarms: tuple[str, ...] = ()
    limit: float = float("inf")

    def trouble(self, alarmed: Alarmed, started: float) -> str | None:
        """The reason to roll back an update that started then (seconds since 1970); None when there is none."""
        if raised := [name for name in self.alarms if alarmed(name, started)]:
            return f"The update was rolled back: CloudWatch alarms in ALARM during it: {', '.join(raised)}."
        if now() - started > self.limit:
            return f"The update was rolled back: it took longer than {self.limit:.0f} seconds."
        return None


AT_ONCE = Plan((Step(Fraction(1), 0, "TerminationWaitInSeconds"),))


def planned(config: Json, instances: int) -> Plan:
    """The plan of a DeploymentConfig for this number of instances. Raises ServiceError."""
    if "RollingUpdatePolicy" in config:
        raise invalid("not supported on one machine: RollingUpdatePolicy")
    alarms = tuple(alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", []))
    if "BlueGreenUpdatePolicy" not in config:
        return Plan(AT_ONCE.steps, alarms)
    policy = config["BlueGreenUpdatePolicy"]
    routing, last = policy["TrafficRoutingConfiguration"], policy.get("TerminationWaitInSeconds", 0)
    wait = routing["WaitIntervalInSeconds"]
    size_of = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(routing["Type"])
    if misplaced := {"CanarySize", "LinearStepSize"} & routing.keys() - {size_of}:
        raise invalid(f"{', '.join(sorted(misplaced))} cannot be specified for traffic routing type {routing['Type']}.")
    shares = []
    if size_of:
        if size_of not in routing:
            raise invalid(f"{size_of} must be specified for traffic routing type {routing['Type']}.")
        first = share_of(routing[size_of], instances)
        if first > MOST or (routing["Type"] == "LINEAR" and first < LEAST_STEP):
            least = "10-" if routing["Type"] == "LINEAR" else "less than or equal to "
            raise invalid(f"{size_of} must be {least}50% of the variant's total instance count.")
        shares = [first] if routing["Type"] == "CANARY" else [first * n for n in range(1, int(1 / first) + 1)]
    steps = tuple(Step(share, wait, "WaitIntervalInSeconds") for share in shares if share < 1)
    steps += (Step(Fraction(1), last, "TerminationWaitInSeconds"),)
    limit = policy.get("MaximumExecutionTimeoutInSeconds", float("inf"))
    if limit <= (total := sum(step.seconds for step in steps)):
        raise invalid(
            f"MaximumExecutionTimeoutInSeconds must be larger than the total waiting time of {total} seconds."
        )
    return Plan(steps, alarms, limit)


def share_of(size: Json, instances: int) -> Fraction:
    return Fraction(size["Value"], 100 if size["Type"] == "CAPACITY_PERCENT" else instances)

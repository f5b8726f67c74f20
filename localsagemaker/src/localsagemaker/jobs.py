"""The base of every kind of job: names, states, lists, stops and ends.

A kind is a subclass that names its jobs and executes one in `run`:

    class TrainingJobs(Jobs):
        phase, kind = "Training", "training-job"
        def run(self, job, stop): ...      # returns when completed, raises JobFailed or JobStopped

A job is a dictionary in the form of its Describe answer, with times as seconds since 1970. It is stored across an
orderly stop of the stack.
"""

import copy
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localsagemaker.host import Host, listed, now
from localsagemaker.wire import Json, ServiceError, fitting, invalid, milliseconds, output_shape

LOG = logging.getLogger(__name__)
ENDED = ("Completed", "Failed", "Stopped")
REASON_LIMIT = 1024
CLOSE_SECONDS = 8.0


class JobFailed(Exception):
    """The job cannot succeed; the message is its FailureReason."""


class JobStopped(Exception):
    """The job ended because it was stopped."""


class Stop(threading.Event):
    """Set when a job must end: by Stop*, by a reset, or (`closing`) because the stack stops."""

    closing = False


class Jobs:
    """The jobs of one kind. `changed` is notified at every change of any of them; hold it to read several at once."""

    phase: str  # "Training": its jobs have a TrainingJobName, a TrainingJobStatus and a TrainingEndTime
    kind: str  # "training-job", as in ARNs
    event: str  # detail type of the state-change event
    unknown = "Requested resource not found."
    taken = "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"

    def __init__(self, host: Host) -> None:
        self.host = host
        self.noun = f"{self.phase}Job"
        self.status = f"{self.noun}Status"
        self.jobs: dict[str, Json] = {}
        self.changed = threading.Condition(threading.RLock())
        self._stops: dict[str, Stop] = {}
        self._threads: dict[str, threading.Thread] = {}

    def run(self, job: Json, stop: Stop) -> None:
        """Executes the job. Returns when it is completed; raises JobFailed, JobStopped, or an error of S3 or a role."""
        raise NotImplementedError

    # For other parts of the service

    def find(self, name: str) -> Json:
        """The job itself; hold `changed` while reading it. Raises ServiceError."""
        with self.changed:
            if name not in self.jobs:
                raise self.not_found(name)
            return self.jobs[name]

    def describe(self, name: str) -> Json:
        """The job as Describe returns it. Raises ServiceError."""
        with self.changed:
            return copy.deepcopy(fitting(self.find(name), output_shape(f"Describe{self.noun}")))

    def ended(self, name: str) -> bool:
        return self.find(name)[self.status] in ENDED

    def wait(self, name: str, seconds: float | None = None) -> bool:
        """Whether the job ended within `seconds`."""
        with self.changed:
            return self.changed.wait_for(lambda: self.ended(name), seconds)

    def stop(self, name: str) -> None:
        """Sets the job to Stopping and asks it to end. Raises ServiceError when it has ended."""
        with self.changed:
            job = self.find(name)
            if job[self.status] in ENDED:
                what = self.kind.replace("-", " ")
                raise invalid(f"The request was rejected because the {what} is in status {job[self.status]}.")
            if job[self.status] != "Stopping":
                self.change(job, **self.stopping(job))
            self._stops[name].set()

    # For the kinds

    def begin(self, name: str, members: Json) -> Json:
        """Registers a job and starts it in its own thread. Returns the answer of its Create operation."""
        arn = self.host.arn(self.kind, name)
        with self.changed:
            self.refuse_taken(name)
            job = {**members, f"{self.noun}Name": name, f"{self.noun}Arn": arn, "CreationTime": now()}
            self.jobs[name] = job
            self.change(job, **{self.status: "InProgress"})
            stop = self._stops[name] = Stop()
            thread = threading.Thread(target=self._conduct, args=(job, stop), name=arn, daemon=True)
            self._threads[name] = thread
            thread.start()
        return {f"{self.noun}Arn": arn}

    def change(self, job: Json, **members: object) -> None:
        """Sets members of the job, and notifies waiting threads and EventBridge."""
        with self.changed:
            job.update(members, LastModifiedTime=now())
            self.changed.notify_all()
            if self.jobs.get(job[f"{self.noun}Name"]) is job:
                self.host.put_event(self.event, [job[f"{self.noun}Arn"]], self.detail(job))

    def detail(self, job: Json) -> Json:
        """The job in its state-change event: the Describe answer, with times in milliseconds."""
        shape = output_shape(f"Describe{self.noun}")
        tags = {tag["Key"]: tag["Value"] for tag in job.get("Tags", [])}
        return {**milliseconds(fitting(job, shape), shape), "Tags": tags}

    def stopping(self, job: Json) -> Json:
        """The members that a job gets when it is asked to end; a kind may add some."""
        return {self.status: "Stopping"}

    def ending(self, job: Json, status: str, reason: str | None) -> Json:
        """The members that a job gets when it ends; a kind may add some."""
        members: Json = {self.status: status, f"{self.phase}EndTime": now()}
        return {**members, "FailureReason": reason[:REASON_LIMIT]} if reason else members

    def refuse_taken(self, name: str) -> None:
        if name in self.jobs:
            raise ServiceError("ResourceInUse", self.taken.format(arn=self.host.arn(self.kind, name)))

    def not_found(self, name: str) -> ServiceError:
        return invalid(self.unknown.format(name=name))

    def list(self, request: Json) -> Json:
        with self.changed:
            return listed(f"List{self.noun}s", request, list(self.jobs.values()), self.noun)

    def _conduct(self, job: Json, stop: Stop) -> None:
        status, reason = "Failed", "InternalServerError: We encountered an internal error. Please try again."
        try:
            self.run(job, stop)
            status, reason = "Completed", ""
        except JobStopped:
            status, reason = "Stopped", ""
        except JobFailed as error:
            reason = str(error)
        except (ServiceError, ClientError, BotoCoreError, OSError) as error:
            reason = f"ClientError: {error}"
        except Exception:
            LOG.exception("%s", job[f"{self.noun}Arn"])
        finally:
            with self.changed:
                if not stop.closing:  # Then the stop is reported after the next start.
                    self.change(job, **self.ending(job, status, reason))
                name = job[f"{self.noun}Name"]
                if self._stops.get(name) is stop:
                    del self._stops[name], self._threads[name]

    # State across a stop and a start

    def get_state(self) -> Json:
        with self.changed:
            return {f"{self.noun}s": copy.deepcopy(self.jobs)}

    def load_state(self, state: Json) -> None:
        with self.changed:
            self.jobs = state.get(f"{self.noun}s", {})

    def resume(self) -> None:
        """Fails the jobs that the stop of the stack interrupted, with that reason."""
        with self.changed:
            for job in list(self.jobs.values()):
                if job[self.status] not in ENDED:
                    stopping = job[self.status] == "Stopping"
                    cut_off = "The job was interrupted by a stop of the local stack."
                    self.change(job, **self.ending(job, "Stopped" if stopping else "Failed", cut_off))

    def reset(self) -> None:
        """Forgets every job and ends those that run."""
        with self.changed:
            self.jobs = {}
            for stop in self._stops.values():
                stop.set()

    def close(self) -> None:
        """Ends every job's processes; none is started again."""
        with self.changed:
            threads = list(self._threads.values())
            for stop in self._stops.values():
                stop.closing = True
                stop.set()
        for thread in threads:
            thread.join(CLOSE_SECONDS)


Supported = Mapping[str, "Supported | None"]


def only(names: str) -> dict[str, Supported | None]:
    """Supported members that have no members of their own, or all of them."""
    return dict.fromkeys(names.split())


def refuse_unsupported(request: Json, supported: Supported) -> None:
    """Raises ServiceError, which names them, for members that this service does not support; none is ignored."""
    if found := sorted(unsupported(request, supported, "")):
        raise invalid(f"not supported on one machine: {', '.join(dict.fromkeys(found))}")


def unsupported(value: Any, supported: Supported, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from unsupported(item, supported, where)
        return
    for name, member in value.items():
        path = f"{where}.{name}".lstrip(".")
        if name not in supported:
            yield path
        elif (inner := supported[name]) is not None:
            yield from unsupported(member, inner, path)

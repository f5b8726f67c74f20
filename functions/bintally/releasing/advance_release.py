"""The steps of a release. Each reads how things are, does what comes next, and answers where the state machine goes.

A step may be repeated at any point, after an error or a time-out of its function: it starts from the actual state,
not from what an earlier try reported. Nothing waits in here; a step answers `wait` and is called again. Before each
change it reads the lock, so that a function that outlives its execution changes nothing beside the clean-up after it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.events import WrongEvent
from bintally.common.keys import utc
from bintally.releasing import lock
from bintally.releasing.counting import resume_counting
from bintally.releasing.endpoints import ABSENT, BROKEN, Endpoints
from bintally.releasing.goldens import BadPackage, digest_of, read_package
from bintally.releasing.images import by_digest
from bintally.releasing.lock import LockLost
from bintally.releasing.release import POLLS, QUOTA_POLLS, Failed, Release, settings_digest, short_digest
from bintally.releasing.settings import ReleaseSettings

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

RUNNING = ("RUNNING", "PENDING_REDRIVE")
STOPPED = ("ABORTED", "TIMED_OUT")
STOPPED_POLLS = 5
UNKNOWN = "none"
"""The registered digest of a package of which nobody knows it; SageMaker takes no empty value."""
KEPT = 1
"""Configurations that are kept besides the live and the previous one."""


@dataclass(frozen=True)
class Services:
    table: Table
    s3: "S3Client"
    endpoints: Endpoints
    states: "SFNClient"
    lambda_: "LambdaClient"
    ecr: "ECRClient"


@dataclass(frozen=True)
class Answer:
    """The machine's next state, as its Choice after the step names it; `seconds` if that is a wait."""

    next: str
    release: Release
    seconds: int = 0


@dataclass
class Step:
    """One call of the function, for the execution `owner`. `release` is renewed as far as the step comes. `verdict` is
    verify's answer where it was asked before."""

    services: Services
    settings: ReleaseSettings
    owner: str
    request: Mapping[str, Any]
    release: Release
    verdict: Mapping[str, Any]

    # Prepare: may this release run, and is there something to do?

    def prepare(self) -> Answer:
        """Answers wait, ask (the live endpoint may serve this already), create or end; restore or finish if this
        cleans up after a stopped execution."""
        if self.release.stopped:
            return self.clean_up()
        registered = self.describe()
        if self.release.outcome != "failed":
            return Answer("end", self.release)
        self.pin(registered)
        return self.lock() or self.newest() or self.settled()

    def clean_up(self) -> Answer:
        """Takes over the stopped execution's lock and notes."""
        self.release = replace(self.release, why=self.reason())
        notes = lock.take_over(self.services.table, self.owner, self.release.stopped)
        self.release = replace(
            self.release,
            execution=notes.get("execution", self.release.stopped),
            endpoint=notes.get("endpoint", self.release.endpoint),
            model_version=notes["model_version"],
            name=notes.get("release", ""),
            previous=notes.get("previous", ""),
        )
        return Answer("finish" if notes.get("verified") else "restore", self.release)

    def reason(self) -> dict[str, str]:
        """Why the stopped execution ended, which its event does not contain."""
        why = self.release.why
        try:
            found = self.services.states.describe_execution(executionArn=self.release.stopped)
        except ClientError as error:
            logger.warning("no reason", extra={"reason": str(error)})
            return why
        return {"Error": found.get("error") or why["Error"], "Cause": found.get("cause") or why["Cause"]}

    def describe(self) -> str:
        """Reads which version to release; ends the release if it is not approved. Returns the digest that its package
        should have, empty if nobody knows it. Raises Failed."""
        detail = self.request.get("detail")
        package = self.release.package or (detail.get("ModelPackageArn", "") if isinstance(detail, dict) else "")
        if not package:
            self.identify(self.request.get("model_version"), self.request.get("model_data_url"))
            return known_digest(self.request)
        found = self.services.endpoints.package(package)
        known = found.get("CustomerMetadataProperties", {})
        containers = found.get("InferenceSpecification", {}).get("Containers") or [{}]
        self.release = replace(self.release, package=package)
        if (approval := found.get("ModelApprovalStatus")) != "Approved":
            version = known.get("model_version", "")
            reason = f"model package {package} is {approval}"
            self.release = replace(self.release, model_version=version).end("not approved", reason)
            return ""
        self.identify(known.get("model_version"), containers[0].get("ModelDataUrl"))
        return known_digest(known)

    def identify(self, version: object, url: object) -> None:
        """Raises Failed unless the two can be released."""
        folder = f"s3://{self.settings.artifacts_bucket}/models/"
        if not isinstance(version, str) or not isinstance(url, str) or not version or not url.startswith(folder):
            reason = f"a release needs a model_version and a model_data_url that starts with {folder}"
            raise Failed("InvalidInput", reason, "refused")
        self.release = replace(self.release, model_version=version, model_data_url=url)

    def pin(self, registered: str) -> None:
        """Reads the digests of package and image, and names configuration and model, once. Raises Failed if it is not
        the package that was registered, or if there is no such image."""
        release, url = self.release, self.release.model_data_url
        if release.name:
            return
        try:
            digest = digest_of(read_package(self.services.s3, url))
        except BadPackage as error:
            raise Failed("BadPackage", str(error)) from error
        if registered and registered != digest:
            reason = f"{url} has changed since it was registered: its package.json is {digest}, not {registered}"
            raise Failed("PackageChanged", reason)
        image, variant = by_digest(self.services.ecr, self.settings.image), self.settings.variant
        settings = settings_digest(image, {**variant, **self.settings.capture, **self.settings.network}, digest)
        ours = short_digest(self.owner)
        self.release = replace(
            release,
            package_digest=digest,
            name=f"{release.endpoint}-{settings}-{ours}",
            candidate=f"{self.settings.stack_name}-candidate-{ours}",
            image=image,
            variant=variant,
        )

    def lock(self) -> Answer | None:
        """Takes the lock, or waits for it. Raises Failed when another release runs and a person started this one."""
        table = self.services.table
        item = {
            "execution": self.owner,
            "endpoint": self.release.endpoint,
            "release": self.release.name,
            "model_version": self.release.model_version,
            "taken_at": utc(datetime.now(UTC)),
        }
        if lock.take(table, self.owner, item, stale=""):
            return None
        if (held := lock.read(table)) is None:
            return self.wait("lock", longest=60)
        holder, status = held["owner"], lock.status(self.services.states, held["owner"])
        version = held.get("model_version", "")
        self.release = replace(self.release, holder=holder, holder_version=version, holder_status=status)
        what = "stopped" if status in STOPPED else "lock"  # a clean-up has its seconds, however long this has waited
        if waits_for(status, by_registry=bool(self.release.package), polls=self.polls(what)):
            return self.wait(what, longest=60)
        if status in RUNNING:
            raise Failed("ReleaseRunning", f"another release runs: {holder}", "refused")
        return None if lock.take(table, self.owner, item, stale=holder) else self.wait("lock", longest=60)

    def newest(self) -> Answer | None:
        """An execution that waited takes the newest version, except one that the awaited release has just tried:
        events are delivered more than once."""
        release = self.release
        if not release.package:
            return None
        newest = self.services.endpoints.newest_approved()
        if not newest:
            reason = f"model package {release.package} is no longer approved, and no other is"
            return Answer("end", release.end("not approved", reason))
        is_newer = number_of(newest) > number_of(release.package)  # a list may lack what was approved just now
        if is_newer and not release.holder_status:
            return Answer("end", release.end("superseded", f"a newer model package is approved: {newest}"))
        if is_newer:
            return Answer("wait", replace(release, package=newest, package_digest="", name=""), 1)
        if release.holder_version == release.model_version and release.holder_status == "RUNNING":
            reason = f"another release of this version has just ended: {release.holder}"
            return Answer("end", release.end("superseded", reason))
        return None

    def settled(self) -> Answer:
        """Removes candidates that stopped releases left, and waits until the live endpoint is in service or absent.
        Then create, or ask if its configuration has this release's settings. Raises Failed when it does not settle."""
        endpoints, release = self.services.endpoints, self.release
        if self.waits_for_candidates(unless="endpoint"):
            return self.wait("candidates")
        live = endpoints.find(release.endpoint)
        if live.status not in (ABSENT, "InService"):
            if self.polls("endpoint") > POLLS:
                raise Failed("EndpointUnsettled", f"endpoint {release.endpoint} stays {live.status}")
            if live.status in BROKEN:  # it answers nothing and cannot be updated
                self.hold()
                endpoints.delete(release.endpoint)
            return self.wait("endpoint")
        same = live.config.startswith(release.name.rpartition("-")[0] + "-")
        next_ = "ask" if same and self.request.get("again") is not True else "create"
        return Answer(next_, replace(release, previous=live.config))

    # Candidate: a serverless endpoint's update has no guardrails, so that another endpoint tries the model first.

    def create_candidate(self) -> Answer:
        """Answers wait, or ask once the candidate is in service. Raises Failed."""
        endpoints, release = self.services.endpoints, self.release
        found = endpoints.find(release.candidate)
        if found.status == "InService":
            return Answer("ask", release)
        if found.status not in (ABSENT, "Creating") or self.polls("candidate") > POLLS:
            raise Failed("CandidateFailed", f"the candidate endpoint is {found.status}: {found.failure}")
        if found.status == ABSENT:
            self.hold()
            endpoints.create_model(release.name, self.model())
            endpoints.create_config(release.name, release.variant, self.settings.capture)
            self.hold()
            if waiting := self.allowed(lambda: endpoints.create(release.candidate, release.name)):
                return waiting
        return self.wait("candidate")

    def model(self) -> dict[str, Any]:
        """The container refuses another package than the pinned one, also on an instance that starts later."""
        release = self.release
        return {
            "ExecutionRoleArn": self.settings.model_role,
            "EnableNetworkIsolation": "ServerlessConfig" not in release.variant,  # serverless inference has none
            "PrimaryContainer": {
                "Image": release.image,
                "ModelDataUrl": release.model_data_url,
                "Environment": {"BINTALLY_PACKAGE_DIGEST": release.package_digest},
            },
            **self.settings.network,
        }

    def remove_candidate(self) -> Answer:
        """Answers wait until the candidate is gone, then go: its instances count against the account's quota, which
        the update needs. Raises Failed."""
        if not self.verdict["ok"]:
            raise Failed("CandidateWrong", f"the candidate answers wrong: {self.verdict['reason']}")
        self.hold()
        left = self.services.endpoints.delete_candidates()
        if not left:
            return Answer("go", self.release)
        if self.polls("candidates") > POLLS:
            raise Failed("CandidateRemains", f"the candidate endpoint cannot be removed: {left}")
        return self.wait("candidates")

    # Live endpoint

    def change_live(self) -> Answer:
        """Requests the change, then answers wait until the endpoint is in service with it, then ask. Raises Failed."""
        return self.watched() if self.release.changed else self.requested()

    def requested(self) -> Answer:
        endpoints, release = self.services.endpoints, self.release
        # From here on the live endpoint may be between two configurations: a clean-up reads here which to restore.
        lock.note(self.services.table, self.owner, previous=release.previous)
        live = endpoints.find(release.endpoint)
        if release.name not in (live.config, live.pending):  # else an earlier try has requested it
            if live.status == ABSENT:
                request = lambda: endpoints.create(release.endpoint, release.name)  # noqa: E731
            else:
                request = lambda: endpoints.update(  # noqa: E731
                    release.endpoint, release.name, self.deployment(), scaled=self.settings.scales
                )
            if waiting := self.allowed(request):
                return waiting
        self.release = replace(release, changed=True)
        return self.wait("live")

    def watched(self) -> Answer:
        release = self.release
        live = self.services.endpoints.find(release.endpoint)
        if live.status == "InService" and live.config == release.name:
            return Answer("ask", release)
        if live.status == "InService":
            raise Failed("RolledBack", f"SageMaker went back to the model before: {live.failure}")
        lost = live.status == ABSENT and self.polls("live") > 5  # a new endpoint may not be listed at once
        if live.status in BROKEN or lost or self.polls("live") > self.live_polls:
            raise Failed("LiveFailed", f"the live endpoint is {live.status}: {live.failure}")
        return self.wait("live")

    def deployment(self) -> dict[str, Any] | None:
        """A real-time endpoint's canary, unless the release is to be at once."""
        settings = self.settings
        if "ServerlessConfig" in self.release.variant or self.request.get("at_once") is True:
            return None
        return {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": settings.canary_percent},
                    "WaitIntervalInSeconds": settings.canary_wait,
                },
                "TerminationWaitInSeconds": settings.canary_wait,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in settings.alarms]},
        }

    def finish(self) -> Answer:
        """Enables counting and removes old configurations, once the live endpoint answers right. Raises Failed."""
        release, table = self.release, self.services.table
        if self.verdict and not self.verdict["ok"]:
            raise Failed("LiveWrong", f"the live endpoint answers wrong: {self.verdict['reason']}")
        notes = lock.held(table, self.owner)
        if "previous" in notes and not notes.get("verified"):
            lock.note(table, self.owner, verified=True)  # from here on the previous configuration is never restored
        resume_counting(self.services.lambda_, self.settings.count_mapping)
        if "previous" not in notes:
            return Answer("end", release.end("already live", f"version {release.model_version} answers already"))
        self.prune()
        if release.stopped:
            reason = f"version {release.model_version} was live before the end: {release.why['Cause']}"
            return Answer("end", release.end("released", reason))
        return Answer("end", release.end("released", f"version {release.model_version} is live"))

    def prune(self) -> None:
        """Keeps the live configuration, the previous one and the newest other one."""
        endpoints, keep = self.services.endpoints, (self.release.name, self.release.previous)
        try:
            old = [name for name in endpoints.configs(self.release.endpoint) if name not in keep]
        except ClientError as error:
            logger.warning("nothing pruned", extra={"reason": str(error)})
            return
        for name in old[KEPT:]:
            endpoints.delete_config(name)

    # Restore: after a failure, whatever it was

    def restore(self) -> Answer:
        """Answers wait until the candidate is gone and the live endpoint is as before, then end. The lock's notes say
        whether it was touched: an execution that was stopped, or a function that timed out, cannot."""
        notes, release, endpoints = lock.held(self.services.table, self.owner), self.release, self.services.endpoints
        if notes.get("verified"):
            return Answer("end", release)
        if self.waits_for_candidates(unless="restored"):
            return self.wait("candidates")
        if "previous" in notes and (unrestored := self.unrestored(notes["previous"])):
            if self.polls("restored") <= self.live_polls:
                return self.wait("restored")
            reason = f"{release.why['Cause']}; and endpoint {release.endpoint} could not be restored: {unrestored}"
            why = {"Error": release.why["Error"], "Cause": reason}
            return Answer("end", replace(release, restored=False, why=why))
        if release.name:
            self.hold()
            endpoints.delete_config(release.name)
        return Answer("end", release)

    def unrestored(self, previous: str) -> str:
        """Does what comes next to restore the live endpoint, and says why it is not restored yet; empty if it is."""
        endpoints, endpoint = self.services.endpoints, self.release.endpoint
        live = endpoints.find(endpoint)
        if (live.status, live.config) in ((ABSENT, previous), ("InService", previous)):
            return ""
        self.hold()
        try:
            if live.status == ABSENT:
                endpoints.create(endpoint, previous)
            elif live.status in BROKEN or (live.status == "InService" and not previous):
                endpoints.delete(endpoint)
            elif live.status == "InService":
                endpoints.update(endpoint, previous, None, scaled=self.settings.scales)
        except ClientError as error:  # its state has changed since, or a quota is short: look again
            return f"it is {live.status}: {error}"
        return f"it is {live.status}"

    # What the steps have in common

    @property
    def live_polls(self) -> int:
        """A canary waits twice."""
        return POLLS + 2 * self.settings.canary_wait // 15

    def waits_for_candidates(self, *, unless: str) -> bool:
        """Removes candidates. Whether some are left to wait for, unless this was given up and the next wait began."""
        left = self.services.endpoints.delete_candidates()
        return bool(left) and self.release.awaited != unless and self.polls("candidates") <= POLLS

    def hold(self) -> None:
        """Raises LockLost unless this execution holds the lock."""
        lock.held(self.services.table, self.owner)

    def polls(self, what: str) -> int:
        """How often this release has waited for this."""
        return self.release.polls if self.release.awaited == what else 0

    def wait(self, what: str, longest: int = 15) -> Answer:
        """Waits grow from 1 to `longest` seconds."""
        polls = self.polls(what)
        return Answer("wait", replace(self.release, awaited=what, polls=polls + 1), min(1 + polls, longest))

    def allowed(self, request: Callable[[], None]) -> Answer | None:
        """Makes the request, or answers wait while the account's quota is short. Raises Failed when it stays so."""
        try:
            request()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceLimitExceeded":
                raise
            polls = self.polls("quota")
            if polls >= QUOTA_POLLS:
                raise Failed("ResourceLimitExceeded", self.quota(error)) from error
            release = replace(self.release, awaited="quota", polls=polls + 1)
            return Answer("wait", release, min(5 * 2**polls, 60))
        return None

    def quota(self, error: ClientError) -> str:
        """SageMaker's message names the quota too, but not what the release needs of it."""
        variant = self.release.variant
        if "ServerlessConfig" in variant:
            quota = "total concurrency of all serverless endpoints"
            needed = f"{variant['ServerlessConfig']['MaxConcurrency']} more"
        else:
            quota = f"{variant['InstanceType']} for endpoint usage"
            needed = f"{variant['InitialInstanceCount']} more"
        return (
            f"the account's SageMaker quota '{quota}' did not suffice for 9 minutes. A release needs {needed} while the"
            f" previous model is live: ask Service Quotas for them. {error.response['Error']['Message']}"
        )


def known_digest(properties: Mapping[str, Any]) -> str:
    """The digest that a package should have, empty if nobody knows it."""
    digest = str(properties.get("package_digest") or UNKNOWN)
    return "" if digest == UNKNOWN else digest


def number_of(package: str) -> int:
    """The version's number in its group, which its ARN ends with."""
    return int(package.rpartition("/")[2])


def waits_for(status: str, *, by_registry: bool, polls: int) -> bool:
    """Whether a release waits for the lock's holder. A stopped holder is first left to the execution that cleans up
    after it, which knows what to restore. A person sees at once that another release runs."""
    return (status in RUNNING and by_registry and polls <= POLLS) or (status in STOPPED and polls < STOPPED_POLLS)


def advance(step: Step, name: str) -> Answer:
    """Does the step of this name. Whatever fails for good is an answer, too: restore, or end before anything was
    created. Raises Transient, ClientError or BotoCoreError if another try may succeed."""
    steps = {
        "prepare": step.prepare,
        "create_candidate": step.create_candidate,
        "remove_candidate": step.remove_candidate,
        "change_live": step.change_live,
        "finish": step.finish,
        "restore": step.restore,
    }
    if name not in steps:
        raise WrongEvent(f"advance takes a step of {', '.join(steps)}, not {name}; events/advance.json is a sample")
    try:
        return steps[name]()
    except Failed as error:
        ended = step.release.end(error.outcome, str(error), error.error)
    except LockLost as error:
        why = step.release.why
        cause = "; ".join(filter(None, [why["Cause"], f"{error}: nothing was restored"]))
        return Answer("end", step.release.end(step.release.outcome, cause, why["Error"] or "LockLost"))
    except ClientError as error:
        if may_pass(error) or name == "restore":  # the machine then says that it could not be restored
            raise
        ended = step.release.end("failed", str(error), error.response["Error"]["Code"])
    return Answer("end" if name in ("prepare", "restore") else "restore", ended)


def may_pass(error: ClientError) -> bool:
    """True for throttling, overload and an update of the mapping that is in progress."""
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status == 429 or status >= 500 or "Throttling" in code or code == "ResourceInUseException"

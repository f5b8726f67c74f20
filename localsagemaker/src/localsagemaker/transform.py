"""Batch transform: every object of an input is sent to the model's serving app, every answer becomes an object."""

import contextlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

from localsagemaker import channels
from localsagemaker.channels import BadInput, Found
from localsagemaker.endpoints import START_SECONDS, Endpoints
from localsagemaker.host import Host, now
from localsagemaker.jobs import JobFailed, Jobs, JobStopped, Stop, only, refuse_unsupported
from localsagemaker.logs import LogStream, Tail
from localsagemaker.models import BadModelData
from localsagemaker.server import Reply, Server, TimedOut, Unavailable, Unhealthy, serving_environment
from localsagemaker.wire import Json, invalid

GROUP = "/aws/sagemaker/TransformJobs"
MEGABYTE = 1024 * 1024
PAYLOAD_MB = 6  # largest request, if neither the job nor the container sets it
TIMEOUT_SECONDS = 600  # of one request, the default
RETRIES = 3
RETRY_SECONDS = 1.0  # before the first retry; doubles

SUPPORTED = {
    **only("TransformJobName ModelName MaxConcurrentTransforms MaxPayloadInMB BatchStrategy Environment Tags"),
    "ModelClientConfig": only("InvocationsTimeoutInSeconds InvocationsMaxRetries"),
    "TransformInput": {
        **only("ContentType CompressionType SplitType"),
        "DataSource": {"S3DataSource": only("S3DataType S3Uri")},
    },
    "TransformOutput": only("S3OutputPath Accept AssembleWith"),
    "TransformResources": only("InstanceType InstanceCount"),
    "DataProcessing": only("JoinSource InputFilter OutputFilter"),
}


class Refused(Exception):
    """The container did not answer one object correctly; the message goes to the job's log."""


class TransformJobs(Jobs):
    """CreateTransformJob and its kind; models and their app are those of `endpoints`."""

    phase, kind, event = "Transform", "transform-job", "SageMaker Transform Job State Change"
    unknown = "Could not find requested job with name: {name}"
    operations = ("CreateTransformJob", "DescribeTransformJob", "ListTransformJobs", "StopTransformJob")

    def __init__(self, host: Host, endpoints: Endpoints) -> None:
        super().__init__(host)
        self.endpoints = endpoints

    def create_transform_job(self, request: Json) -> Json:
        check(request)
        model = self.endpoints.describe_model({"ModelName": request["ModelName"]})
        return self.begin(request["TransformJobName"], {**request, "Model": model})

    def describe_transform_job(self, request: Json) -> Json:
        return self.describe(request["TransformJobName"])

    def list_transform_jobs(self, request: Json) -> Json:
        return self.list(request)

    def stop_transform_job(self, request: Json) -> Json:
        self.stop(request["TransformJobName"])
        return {}

    def run(self, job: Json, stop: Stop) -> None:
        transform = Transform(self, job, stop)
        try:
            transform.go()
        finally:
            transform.close()


class Transform:
    """One job: one server per instance, and the objects divided between them."""

    def __init__(self, jobs: TransformJobs, job: Json, stop: Stop) -> None:
        self.jobs, self.job, self.stop, self.host = jobs, job, stop, jobs.host
        self.name: str = job["TransformJobName"]
        self.role: str = job["Model"]["ExecutionRoleArn"]
        self.container: Json = job["Model"]["PrimaryContainer"]
        self.folder = self.host.home / "jobs" / jobs.kind / self.name
        self.stamp = round(now())
        self.s3 = self.host.client("s3", self.role)
        self.servers: list[Server] = []
        self.tails: list[Tail] = []
        self.refused = threading.Event()

    def go(self) -> None:
        """Raises JobFailed, JobStopped, or an error of S3 or the role."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.jobs.change(self.job, TransformStartTime=now())
        try:
            found = channels.find(self.s3, self.job["TransformInput"]["DataSource"]["S3DataSource"])
        except BadInput as error:
            raise JobFailed(f"ClientError: {error}") from error
        count = self.job["TransformResources"]["InstanceCount"]
        for number in range(1, count + 1):
            if self.stop.is_set():
                raise JobStopped
            self.servers.append(self.serve(f"algo-{number}"))
        parameters = self.parameters(self.servers[0])
        with ThreadPoolExecutor(count) as pool:
            shares = [pool.submit(self.share, n, found[n::count], parameters) for n in range(count)]
            for share in shares:
                share.result()
        if self.stop.is_set():
            raise JobStopped
        if self.refused.is_set():
            raise JobFailed("ClientError: See job logs for more information")

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for tail in self.tails:
            tail.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def serve(self, instance: str) -> Server:
        """Starts the model's serving app for an instance of this job; returns it when it is healthy."""
        given = self.container.get("Environment", {}) | self.job.get("Environment", {})
        batch = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_BATCH_STRATEGY": self.job.get("BatchStrategy", "MultiRecord")}
        for variable, member in (
            ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "MaxConcurrentTransforms"),
            ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "MaxPayloadInMB"),
        ):
            if member in self.job:
                batch[variable] = str(self.job[member])
        directory = self.folder / instance
        directory.mkdir(parents=True)
        log_file = self.folder / f"{instance}.log"
        log_file.touch()
        server = Server(
            command=self.host.entry_point(self.container["Image"]),
            environment=serving_environment(batch | given),
            directory=directory,
            log_file=log_file,
            spawner=self.host.spawner,
            start_seconds=START_SECONDS,
        )
        self.tails.append(Tail(log_file, self.log(instance), heard=lambda lines: None))
        try:
            self.jobs.endpoints.model_data.fetch(self.container["ModelDataUrl"], self.role, directory / "model")
            server.start()
        except BadModelData as error:
            raise JobFailed(f"ClientError: {error}") from error
        except Unhealthy as error:
            raise JobFailed(f"AlgorithmError: the model container did not start: {error}") from error
        return server

    def log(self, instance: str, suffix: str = "") -> LogStream:
        logs = self.host.client("logs", self.role)
        return LogStream(logs, GROUP, f"{self.name}/{instance}-{self.stamp}{suffix}")

    def parameters(self, server: Server) -> Json:
        """The job's parameters, else the container's at /execution-parameters, else the defaults."""
        proposed: Json = {}
        with contextlib.suppress(Unavailable, TimedOut, ValueError):
            reply = server.execution_parameters()
            proposed = json.loads(reply.body) if reply.status == 200 else {}
        defaults = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": PAYLOAD_MB}
        # 0 and a missing value both leave it to the container.
        return {name: self.job.get(name) or proposed.get(name) or value for name, value in defaults.items()}

    def share(self, number: int, found: list[Found], parameters: Json) -> None:
        """Sends an instance its objects. One object without an answer fails the job; the others are still sent."""
        server, data_log = self.servers[number], self.log(f"algo-{number + 1}", "/data-log")

        def one(item: Found) -> None:
            if self.stop.is_set():
                return
            try:
                self.transform(server, item, parameters["MaxPayloadInMB"])
            except Refused as error:
                self.refused.set()
                data_log.send([f"{item.bucket}/{item.key}: {error}"])

        with ThreadPoolExecutor(parameters["MaxConcurrentTransforms"]) as pool:
            list(pool.map(one, found))

    def transform(self, server: Server, item: Found, most_mb: int) -> None:
        """Raises Refused."""
        wanted, output = self.job["TransformInput"], self.job["TransformOutput"]
        body: bytes = self.s3.get_object(Bucket=item.bucket, Key=item.key)["Body"].read()
        if len(body) > most_mb * MEGABYTE:
            raise Refused(f"Too much data for max payload size ({most_mb} MB)")
        headers = {"content-type": wanted.get("ContentType", "application/octet-stream")}
        if "Accept" in output:
            headers["accept"] = output["Accept"]
        reply = self.invoke(server, body, headers)
        bucket, _, prefix = output["S3OutputPath"].removeprefix("s3://").partition("/")
        key = f"{prefix.rstrip('/')}/{item.path}.out".removeprefix("/")
        end = b"\n" if output.get("AssembleWith") == "Line" else b""
        content_type = {"ContentType": output["Accept"]} if "Accept" in output else {}
        self.s3.put_object(Bucket=bucket, Key=key, Body=reply.body + end, **content_type)

    def invoke(self, server: Server, body: bytes, headers: dict[str, str]) -> Reply:
        """Retries errors that may be transient. Raises Refused."""
        config = self.job.get("ModelClientConfig", {})
        seconds, reason = config.get("InvocationsTimeoutInSeconds", TIMEOUT_SECONDS), ""
        for tries in range(config.get("InvocationsMaxRetries", RETRIES) + 1):
            if tries and self.stop.wait(RETRY_SECONDS * 2 ** (tries - 1)):
                break
            try:
                reply = server.invoke(body, headers, seconds)
            except Unavailable as error:
                reason = f"The container does not answer: {error}"
            except TimedOut:
                reason = f"The container did not answer within {seconds} seconds"
            else:
                if reply.status < 300:
                    return reply
                said = reply.body[:1000].decode("utf-8", "replace")
                reason = f"Bad HTTP status received from algorithm: {reply.status}\n{said}"
                if reply.status < 500 and reply.status != 429:
                    break
        raise Refused(reason)


def check(request: Json) -> None:
    """Raises ServiceError for an invalid request, and for one that this service does not support."""
    refuse_unsupported(request, SUPPORTED)
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise invalid(f"not supported on one machine: S3DataType {source['S3DataType']}")
    for member in ("SplitType", "CompressionType"):
        if (chosen := request["TransformInput"].get(member, "None")) != "None":
            raise invalid(f"not supported on one machine: {member} {chosen}")
    for member, default in (("JoinSource", "None"), ("InputFilter", "$"), ("OutputFilter", "$")):
        if (chosen := request.get("DataProcessing", {}).get(member, default)) != default:
            raise invalid(f"not supported on one machine: {member} {chosen}")

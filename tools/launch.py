"""Runs one processing, training or tuning job by hand with the SageMaker SDK, and waits for it.

    python -m tools.launch training --data s3://…/retrain/<run>/dataset --set epochs=3 --set package=true
    python -m tools.launch tuning --data s3://…/retrain/<run>/dataset --trials 8 --parallel 2
    python -m tools.launch training --on container --data FOLDER --set epochs=1
    python -m tools.launch processing -- --manifest s3://… --dataset s3://… --parts s3://… --shards s3://…

The jobs have the entry points, channels, metrics and ranges that the state machine `retrain` gives them. They run where
your AWS credentials point: in an account, or on the local stack after `eval "$(bintally env)"`. Role, bucket, image and
instance type are those of the Bintally stack there. `--on container` needs Docker with Compose and the image of
training/Dockerfile. If a job does not complete, the command prints one line and exits with code 1. Needs .venv-launch
(make .venv-launch/installed).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.local.local_session import LocalSession
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.processing import Processor
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import CheckpointConfig, MetricDefinition, OutputDataConfig
from sagemaker.core.training.configs import Channel, Compute, DataSource, S3DataSource, StoppingCondition
from sagemaker.core.utils.exceptions import FailedStatusError, SageMakerCoreError
from sagemaker.train.model_trainer import Mode, ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

REPOSITORY = Path(__file__).resolve().parent.parent
NAME = "by-hand"  # prefix of the jobs' names
OUT = REPOSITORY / ".runs" / f"{NAME}-{int(time.time())}"  # of a container: the SDK adds to what an earlier job left
KNOWN = (ClientError, BotoCoreError, SageMakerCoreError, ValueError, OSError, RuntimeError, ImportError)
RUNTIME, SPOT_WAIT, VOLUME = 86400, 129600, 100  # seconds, seconds, GB

# As in retrain.asl.json; a test compares them.
RANGES = {
    "learning-rate": ContinuousParameter(0.0001, 0.003, "Logarithmic"),
    "weight-decay": ContinuousParameter(0.005, 0.2, "Logarithmic"),
    "augmentation": ContinuousParameter(0.5, 2.0, "Linear"),
    "batch-size": CategoricalParameter(["32", "64"]),
}

# Otherwise the SDK sends telemetry to AWS, and refuses a role that may not create network interfaces; ours need none.
SETTINGS = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("job", choices=("processing", "training", "tuning"))
flags.add_argument("--on", choices=("sagemaker", "container"), default="sagemaker")
flags.add_argument("--stack", default="bintally", help="name of the stack whose role, bucket and image are used")
flags.add_argument("--role", help="ARN; default: the stack's JobRole")
flags.add_argument("--image", help="default: the stack's TrainingImage; bintally-train:latest in a container")
flags.add_argument("--instance-type", help="default: the stack's")
flags.add_argument("--instances", type=int, default=1)
flags.add_argument("--data", help="S3 URI of a run's dataset, or a folder with dataset/, train/ and validation/")
flags.add_argument("--champion", help="S3 URI of a model.tar.gz to start from")
flags.add_argument("--weights", help="S3 URI of weights of torchvision's ResNet50 to start from instead")
flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
flags.add_argument("--spot", action="store_true", help="on spot instances, with checkpoints")
flags.add_argument("--trials", type=int, default=4)
flags.add_argument("--parallel", type=int, default=1, help="maximum concurrent trials")
flags.add_argument("arguments", nargs="*", help="after --: arguments of training.process")


def enter(a: argparse.Namespace) -> Session:
    """The SDK's session. Options missing in `a` are set from the stack. Raises ClientError, BotoCoreError."""
    if a.on == "container":
        if not boto3.Session().region_name:
            os.environ["AWS_DEFAULT_REGION"] = "us-east-1"  # the SDK requires one even if nothing is fetched from S3
        a.image, a.instance_type = a.image or "bintally-train:latest", "local"
        return LocalSession()
    own = boto3.Session()
    found = own.client("cloudformation").describe_stacks(StackName=a.stack)["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}
    kind = "JobInstanceType" if a.job == "processing" else "TrainingInstanceType"
    a.role, a.image = a.role or outputs["JobRole"], a.image or parameters["TrainingImage"]
    a.instance_type = a.instance_type or parameters[kind]
    place = f"retrain/{NAME}-{int(time.time())}"  # below retrain/, where the job role may write
    bucket = outputs["ArtifactsBucket"]
    return Session(own, default_bucket=bucket, default_bucket_prefix=place, sagemaker_config=SETTINGS)


def process(a: argparse.Namespace, session: Session) -> None:
    processor = Processor(
        role=a.role, image_uri=a.image, instance_count=a.instances, instance_type=a.instance_type,
        entrypoint=["python", "-m", "training.process"], volume_size_in_gb=VOLUME, max_runtime_in_seconds=RUNTIME,
        base_job_name=NAME, sagemaker_session=session,
    )  # fmt: skip
    processor.run(arguments=a.arguments, wait=False, logs=False)
    if a.on != "container":  # that has ended when run() returns
        job = processor.latest_job  # run(wait=True) of SDK 3.27 fails on a name in its own code when the job fails
        with contextlib.suppress(FailedStatusError):
            job.wait(logs=True)
        job.refresh()
        # What the process said; the FailureReason of a processing job is its exit code alone.
        said = job.exit_message if isinstance(job.exit_message, str) else job.failure_reason
        completed(job.processing_job_name, job.processing_job_status, said)


def train(a: argparse.Namespace, session: Session) -> None:
    model_trainer = trainer(a, session)
    model_trainer.train(channels(a, model_trainer), wait=True, logs=True)
    if a.on == "container":
        print(f"made: {OUT / 'compressed_artifacts' / 'model.tar.gz'}")
    else:
        report(model_trainer._latest_training_job.training_job_name)


def tune(a: argparse.Namespace, session: Session) -> None:
    if a.on == "container":
        raise SystemExit("the SDK tunes on SageMaker and on the local stack, not in a container")
    model_trainer = trainer(a, session)
    tuner = HyperparameterTuner(
        model_trainer, objective_metric_name="validation:rps", objective_type="Minimize", hyperparameter_ranges=RANGES,
        metric_definitions=metrics(), max_jobs=a.trials, max_parallel_jobs=a.parallel, early_stopping_type="Auto",
    )  # fmt: skip
    # By default the SDK gives all tunings of a minute the same name.
    tuner.tune(channels(a, model_trainer), job_name=f"{NAME}-{int(time.time())}", wait=True)
    job = tuner.describe()
    completed(job.hyper_parameter_tuning_job_name, job.hyper_parameter_tuning_job_status, job.failure_reason)
    print("best:", json.dumps(job.best_training_job.tuned_hyper_parameters))
    report(tuner.best_training_job())


def trainer(a: argparse.Namespace, session: Session) -> ModelTrainer:
    if wrong := [pair for pair in a.set if "=" not in pair]:
        raise SystemExit(f"--set {wrong[0]} is not NAME=VALUE")
    compute = Compute(instance_type=a.instance_type, instance_count=a.instances, volume_size_in_gb=VOLUME)
    compute.enable_managed_spot_training = a.spot
    given = dict(pair.split("=", 1) for pair in a.set)
    common = {"training_image": a.image, "base_job_name": NAME, "compute": compute, "hyperparameters": given}
    if a.on == "container":
        OUT.mkdir(parents=True, exist_ok=True)
        return ModelTrainer(training_mode=Mode.LOCAL_CONTAINER, local_container_root=str(OUT), **common)
    at = f"s3://{session.default_bucket()}/{session.default_bucket_prefix}"
    model_trainer = ModelTrainer(
        sagemaker_session=session, role=a.role, output_data_config=OutputDataConfig(s3_output_path=f"{at}/models"),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=RUNTIME), **common,
    )  # fmt: skip
    if a.spot:
        model_trainer.stopping_condition.max_wait_time_in_seconds = SPOT_WAIT
        model_trainer.with_checkpoint_config(CheckpointConfig(s3_uri=f"{at}/checkpoints"))
    return model_trainer.with_metric_definitions(
        [MetricDefinition(name=m["Name"], regex=m["Regex"]) for m in metrics()]
    )


def channels(a: argparse.Namespace, model_trainer: ModelTrainer) -> list[Channel]:
    """The channels of a training job; the SDK uploads local folders, or mounts them into a container."""
    if not a.data:
        raise SystemExit(f"a {a.job} job needs --data")
    if a.data.startswith("s3://"):
        base = a.data.rstrip("/")
        made = [s3("dataset", f"{base}/", "S3Prefix")]
        made += [s3(name, f"{base}/{name}.manifest", "ManifestFile") for name in ("train", "validation")]
    else:
        folders = [Path(a.data) / name for name in ("dataset", "train", "validation")]
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            raise SystemExit(
                f"there is no folder {missing[0]}: a processing job makes it. A folder with photographs and labels.csv"
                f" needs no job: python -m training.train --data {a.data} --out FOLDER"
            )
        made = [model_trainer.create_input_data_channel(folder.name, str(folder)) for folder in folders]
    starts = {"champion": a.champion, "weights": a.weights}
    return [*made, *(s3(name, uri, "S3Prefix") for name, uri in starts.items() if uri)]


def s3(name: str, uri: str, kind: str) -> Channel:
    source = S3DataSource(s3_uri=uri, s3_data_type=kind, s3_data_distribution_type="FullyReplicated")
    return Channel(channel_name=name, input_mode="File", data_source=DataSource(s3_data_source=source))


def metrics() -> list[dict[str, str]]:
    """The metric definitions of the state machine."""
    states = json.loads((REPOSITORY / "machines" / "retrain.asl.json").read_text())["States"].values()
    return next(one["Assign"]["metrics"] for one in states if "metrics" in one.get("Assign", {}))


def report(name: str) -> None:
    job = TrainingJob.get(name)
    completed(name, job.training_job_status, job.failure_reason)
    told = [f"{metric.metric_name:<26}{metric.value:g}" for metric in job.final_metric_data_list]
    print(*told, f"made: {job.model_artifacts.s3_model_artifacts}", sep="\n")


def completed(name: str, status: str, reason: object) -> None:
    if status != "Completed":
        raise SystemExit(f"{name}: {status}, {reason}")
    print(f"{name}: {status}")


if __name__ == "__main__":
    a = flags.parse_intermixed_args()
    try:
        {"processing": process, "training": train, "tuning": tune}[a.job](a, enter(a))
    except KNOWN as error:
        raise SystemExit(" ".join(str(error).split())) from error

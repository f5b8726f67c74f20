"""The SageMaker SDK, unmodified, against the local SageMaker: it makes jobs, waits for them and reads them."""

import io
import json
import tarfile
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.processing import Processor, ScriptProcessor
from sagemaker.core.resources import (
    Endpoint,
    EndpointConfig,
    HyperParameterTuningJob,
    Model,
    ModelPackage,
    ModelPackageGroup,
    ProcessingJob,
    TrainingJob,
    TransformJob,
)
from sagemaker.core.shapes import (
    ContainerDefinition,
    MetricDefinition,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    ProductionVariant,
    TransformDataSource,
    TransformInput,
    TransformOutput,
    TransformResources,
    TransformS3DataSource,
)
from sagemaker.core.training.configs import InputData
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train.tuner import HyperparameterTuner

METRICS = [
    {"Name": "train:loss", "Regex": r"\bloss ([0-9.]+)"},
    {"Name": "validation:rps", "Regex": r"validation_rps ([0-9.]+)"},
]
DEFINITIONS = [MetricDefinition(name=one["Name"], regex=one["Regex"]) for one in METRICS]


def made(objects: Any, job: Any) -> Any:
    archive = io.BytesIO(objects.get(job.model_artifacts.s3_model_artifacts))
    with tarfile.open(fileobj=archive) as tar:
        return json.load(tar.extractfile("made.json"))  # type: ignore[arg-type]


def test_a_model_trainer_trains_and_shows_the_log(trainer: Any, objects: Any, tmp_path: Any, caplog: Any) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "a.txt").write_text("a")
    remote = objects.put("retrain/sdk/data/b.json", [])
    estimator = trainer({"learning-rate": 0.001, "epochs": 2, "words": "as they are"})
    estimator.with_metric_definitions(DEFINITIONS)
    inputs = [("uploaded", str(tmp_path / "local")), ("train", remote)]
    with caplog.at_level("INFO"):
        estimator.train([InputData(channel_name=name, data_source=source) for name, source in inputs], logs=True)
    job = estimator._latest_training_job
    assert job.training_job_status == "Completed" and job.secondary_status == "Completed"
    assert {one.metric_name: one.value for one in job.final_metric_data_list} == {
        "train:loss": 0.5,
        "validation:rps": 1.0,
    }
    assert made(objects, job) == {
        "given": {"learning-rate": "0.001", "epochs": "2", "words": "as they are"},
        "channels": ["train", "uploaded"],
    }
    assert "validation_rps 1.000000" in caplog.text


def test_a_failed_training_job_says_why(trainer: Any) -> None:
    with pytest.raises(FailedStatusError, match="it was told to fail"):
        trainer({"fails": "yes"}).train(logs=False)


def test_a_training_job_is_listed_refreshed_and_stopped(trainer: Any) -> None:
    estimator = trainer({"learning-rate": 0.001, "epochs": 1000, "seconds": 0.1}, base_job_name="stopped")
    estimator.train(wait=False, logs=False)
    name = estimator._latest_training_job.training_job_name
    job = TrainingJob.get(name)
    assert job.training_job_status == "InProgress" and job.enable_managed_spot_training is not True
    assert [one.training_job_name for one in TrainingJob.get_all(name_contains="stopped")] == [name]
    job.stop()
    job.wait(poll=1)
    assert job.refresh().training_job_status == "Stopped"
    with pytest.raises(ClientError, match="Requested resource not found"):
        TrainingJob.get("unheard-of")


def test_a_tuner_finds_its_best_trial(trainer: Any, objects: Any) -> None:
    tuner = HyperparameterTuner(
        trainer({"epochs": 1}),
        objective_metric_name="validation:rps",
        objective_type="Minimize",
        hyperparameter_ranges={
            "learning-rate": ContinuousParameter(0.0001, 1, "Logarithmic"),
            "batch-size": CategoricalParameter(["32", "64"]),
        },
        metric_definitions=METRICS,
        max_jobs=3,
        max_parallel_jobs=2,
        early_stopping_type="Auto",
        random_seed=1,
        base_tuning_job_name="sdk",
    )
    tuner.tune([InputData(channel_name="train", data_source=objects.put("retrain/sdk/data/b.json", []))], wait=True)
    job = tuner.describe()
    assert job.hyper_parameter_tuning_job_status == "Completed"
    assert job.training_job_status_counters.completed == 3
    best = TrainingJob.get(tuner.best_training_job())
    trials = list(job.get_all_training_jobs())
    assert len(trials) == 3 and best.training_job_name in [one.training_job_name for one in trials]
    told = [one.final_hyper_parameter_tuning_job_objective_metric.value for one in trials]
    (own,) = [one.value for one in best.final_metric_data_list if one.metric_name == "validation:rps"]
    assert own == pytest.approx(min(told))
    assert made(objects, best)["given"]["batch-size"] in ("32", "64")
    name = tuner.latest_tuning_job.hyper_parameter_tuning_job_name
    assert name in [one.hyper_parameter_tuning_job_name for one in HyperParameterTuningJob.get_all()]


def test_a_tuning_job_is_stopped_and_tells_of_failure(trainer: Any) -> None:
    def tuner(given: dict[str, Any]) -> HyperparameterTuner:
        return HyperparameterTuner(
            trainer(given),
            objective_metric_name="validation:rps",
            objective_type="Minimize",
            hyperparameter_ranges={"learning-rate": ContinuousParameter(0.0001, 1, "Logarithmic")},
            metric_definitions=METRICS,
            max_jobs=2,
        )

    stopped, failed = tuner({"epochs": 1000, "seconds": 0.1}), tuner({"fails": "yes"})
    stopped.tune(job_name="stopped", wait=False)
    stopped.stop_tuning_job()
    stopped.wait()
    assert stopped.describe().hyper_parameter_tuning_job_status == "Stopped"
    with pytest.raises(FailedStatusError):
        failed.tune(job_name="failed", wait=True)


def test_a_script_processor_runs_its_script(session: Any, environment: Any, objects: Any, tmp_path: Any) -> None:
    script = tmp_path / "copy_it.py"
    script.write_text(
        "import os, shutil, sys\n"
        "root = os.environ['SM_OPT_ML'] + '/processing'\n"
        "assert sys.argv[1:] == ['--word', 'said']\n"
        "shutil.copytree(root + '/input/in', root + '/output/out', dirs_exist_ok=True)\n"
    )
    source = objects.put("retrain/sdk/in/x.json", {"x": 1})
    target = source.replace("in/x.json", "out")
    processor = ScriptProcessor(
        role=environment["JobRole"],
        image_uri="training",
        command=["python3"],
        instance_count=1,
        instance_type="ml.m5.large",
        base_job_name="sdk",
        sagemaker_session=session,
    )
    processor.run(
        code=str(script),
        arguments=["--word", "said"],
        inputs=[
            ProcessingInput(
                input_name="in",
                s3_input=ProcessingS3Input(
                    s3_uri=source.replace("/x.json", "/"),
                    local_path="/opt/ml/processing/input/in",
                    s3_data_type="S3Prefix",
                    s3_input_mode="File",
                ),
            )
        ],
        outputs=[
            ProcessingOutput(
                output_name="out",
                s3_output=ProcessingS3Output(
                    s3_uri=target, local_path="/opt/ml/processing/output/out", s3_upload_mode="EndOfJob"
                ),
            )
        ],
        logs=False,
    )
    assert json.loads(objects.get(f"{target}/x.json")) == {"x": 1}
    name = processor.latest_job.processing_job_name
    assert ProcessingJob.get(name).processing_job_status == "Completed"
    assert name in [one.processing_job_name for one in ProcessingJob.get_all(name_contains="sdk")]


def test_a_processing_job_fails_and_is_stopped(session: Any, environment: Any) -> None:
    def processor(words: str) -> Processor:
        return Processor(
            role=environment["JobRole"],
            image_uri="training",
            entrypoint=["python3", "-c", words],
            instance_count=1,
            instance_type="ml.m5.large",
            base_job_name="ends",
            sagemaker_session=session,
        )

    failing, endless = processor("raise SystemExit('too many are bad')"), processor("import time; time.sleep(600)")
    failing.run(wait=False, logs=False)
    # Not run(wait=True): on failure, SDK 3.27 trips over a name that it does not import.
    with pytest.raises(FailedStatusError, match="exit code: 1"):
        failing.latest_job.wait(poll=1)
    endless.run(wait=False, logs=False)
    job = ProcessingJob.get(endless.latest_job.processing_job_name)
    job.stop()
    job.wait(poll=1)
    assert job.processing_job_status == "Stopped"


def test_models_transform_jobs_packages_and_endpoints_are_resources(
    environment: Any, objects: Any, session: Any
) -> None:
    data = objects.put("retrain/sdk/model/model.tar.gz", {"no": "archive"})
    container = ContainerDefinition(image="serving", model_data_url=data)
    model = Model.create(model_name="sdk", primary_container=container, execution_role_arn=environment["JobRole"])
    assert model.get_name() == "sdk" and [one.model_name for one in Model.get_all()] == ["sdk"]

    source = TransformS3DataSource(s3_data_type="S3Prefix", s3_uri=data.replace("model/model.tar.gz", "in/"))
    job = TransformJob.create(
        transform_job_name="sdk",
        model_name="sdk",
        transform_input=TransformInput(data_source=TransformDataSource(s3_data_source=source)),
        transform_output=TransformOutput(s3_output_path=data.replace("model/model.tar.gz", "answers")),
        transform_resources=TransformResources(instance_type="ml.m5.large", instance_count=1),
    )
    with pytest.raises(FailedStatusError):  # such a model does not load
        job.wait(poll=1)
    assert [one.transform_job_status for one in TransformJob.get_all()] == ["Failed"]

    # Not serverless: SDK 3.27 writes MemorySizeInMb, which botocore refuses.
    instances = {"initial_instance_count": 1, "instance_type": "ml.m5.large"}
    variant = ProductionVariant(variant_name="AllTraffic", model_name="sdk", **instances)
    EndpointConfig.create(endpoint_config_name="sdk", production_variants=[variant])
    endpoint = Endpoint.create(endpoint_name="sdk", endpoint_config_name="sdk")
    with pytest.raises(FailedStatusError):
        endpoint.wait_for_status("InService", poll=1)
    assert [one.endpoint_name for one in Endpoint.get_all()] == ["sdk"]
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)

    ModelPackageGroup.create(model_package_group_name="sdk")
    # Not ModelPackage.create: SDK 3.27 looks for a name in the answer, which has an ARN only.
    arn = session.sagemaker_client.create_model_package(
        ModelPackageGroupName="sdk",
        InferenceSpecification={
            "Containers": [{"Image": "serving", "ModelDataUrl": data}],
            "SupportedContentTypes": ["application/x-image"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={"model_version": "2026-01-01-abcdef"},
    )["ModelPackageArn"]
    package = ModelPackage.get(arn)
    package.wait_for_status("Completed", poll=1)
    package.update(model_approval_status="Approved")
    (listed,) = ModelPackage.get_all(model_package_group_name="sdk")
    assert listed.model_approval_status == "Approved"
    assert listed.refresh().customer_metadata_properties == {"model_version": "2026-01-01-abcdef"}
    model.delete()
    assert list(Model.get_all()) == []

"""A real emulator, run by the environment `.venv` as always, beside the SDK in the environment of these tests."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from localsagemaker.ports import free_port

from local.stack import Local

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}

# In the place of training.train, whose image runs it; best at a learning rate of 0.01.
TRIAL = """
import json, math, os, sys, time
given = json.load(open(os.environ["SM_OPT_ML"] + "/input/config/hyperparameters.json"))
if "fails" in given:
    raise SystemExit("it was told to fail")
for _ in range(int(given.get("epochs", "1"))):
    rate = float(given["learning-rate"])
    print(f"loss 0.5 validation_rps {abs(math.log10(rate) + 2):.6f}", flush=True)
    time.sleep(float(given.get("seconds", "0")))
channels = sorted(os.listdir(os.environ["SM_OPT_ML"] + "/input/data"))
open(os.environ["SM_MODEL_DIR"] + "/made.json", "w").write(json.dumps({"given": given, "channels": channels}))
"""

# The rights of the template's JobRole, here for one bucket.
TEMPLATE = """
Parameters:
  TrainingImage: {Type: String, Default: "bintally-train:latest"}
  TrainingInstanceType: {Type: String, Default: ml.g5.xlarge}
  JobInstanceType: {Type: String, Default: ml.m5.xlarge}
Resources:
  ImagesBucket: {Type: AWS::S3::Bucket, Properties: {VersioningConfiguration: {Status: Enabled}}}
  ArtifactsBucket: {Type: AWS::S3::Bucket}
  JobRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: sagemaker.amazonaws.com}, Action: sts:AssumeRole}]
      Policies:
        - PolicyName: job
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - {Effect: Allow, Action: [s3:GetObject, s3:GetObjectVersion], Resource: !Sub "${ImagesBucket.Arn}/*"}
              - {Effect: Allow, Action: s3:ListBucket, Resource: !GetAtt ArtifactsBucket.Arn}
              - Effect: Allow
                Action: [s3:GetObject, s3:PutObject]
                Resource: [!Sub "${ArtifactsBucket.Arn}/retrain/*", !Sub "${ArtifactsBucket.Arn}/datasets/*"]
              - {Effect: Allow, Action: ["logs:*", "cloudwatch:PutMetricData"], Resource: "*"}
Outputs:
  ImagesBucket: {Value: !Ref ImagesBucket}
  ArtifactsBucket: {Value: !Ref ArtifactsBucket}
  JobRole: {Value: !GetAtt JobRole.Arn}
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    stack = Local(home=tmp_path_factory.mktemp("home"), port=free_port())
    start = "import sys; from pathlib import Path; from local.stack import Local; "
    start += "Local(home=Path(sys.argv[1]), port=int(sys.argv[2])).start_emulator()"
    python = REPOSITORY / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", start, stack.home, str(stack.port)], check=True, cwd=REPOSITORY)
    cloudformation = stack.client("cloudformation")
    cloudformation.create_stack(StackName="bintally", TemplateBody=TEMPLATE, Capabilities=["CAPABILITY_IAM"])
    cloudformation.get_waiter("stack_create_complete").wait(StackName="bintally", WaiterConfig={"Delay": 1})
    yield stack
    stack.down()


@pytest.fixture(scope="session", autouse=True)
def environment(stack: Local) -> Iterator[dict[str, str]]:
    """The SDK finds the stack as any program does: by AWS's own environment variables."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(stack.credentials(), SAGEMAKER_VALIDATE_ROLE="false")
    yield stack.outputs()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def session(environment: dict[str, str]) -> Any:
    from sagemaker.core.helper.session_helper import Session

    return Session(
        boto3.Session(),
        default_bucket=environment["ArtifactsBucket"],
        default_bucket_prefix="retrain/tests",
        sagemaker_config=SETTINGS,
    )


@pytest.fixture(scope="session")
def trainer(session: Any, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a ModelTrainer whose image runs TRIAL."""
    from sagemaker.core.training.configs import Compute
    from sagemaker.train import ModelTrainer

    folder = tmp_path_factory.mktemp("image")
    (folder / "training").mkdir()
    (folder / "training" / "__init__.py").touch()
    (folder / "training" / "train.py").write_text(TRIAL)

    def make(hyperparameters: dict[str, Any], **others: Any) -> Any:
        settings = {
            "training_image": "training",
            "role": environment["JobRole"],
            "base_job_name": "sdk",
            "compute": Compute(instance_type="ml.m5.large", instance_count=1),
            "environment": {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(folder)},
        }
        return ModelTrainer(sagemaker_session=session, hyperparameters=hyperparameters, **(settings | others))

    return make


@pytest.fixture(scope="session")
def objects(session: Any, environment: dict[str, str]) -> Any:
    """Writes and reads JSON in the artifacts bucket."""
    s3 = session.boto_session.client("s3")

    class Objects:
        def put(self, key: str, content: Any) -> str:
            s3.put_object(Bucket=environment["ArtifactsBucket"], Key=key, Body=json.dumps(content).encode())
            return f"s3://{environment['ArtifactsBucket']}/{key}"

        def get(self, uri: str) -> bytes:
            bucket, key = uri.removeprefix("s3://").split("/", 1)
            body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return body

    return Objects()

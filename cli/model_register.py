"""`bintally model register`: registers a version of the model from its package in the bucket."""

import tempfile
from pathlib import Path

import click
from botocore.exceptions import ClientError

from cli.errors import CliError
from cli.stacks import chosen
from deployed.shipping import package_version, register

DESCRIPTION = "Registered again from the artifacts bucket"


@click.command()
@click.argument("version")
def command(version: str) -> None:
    """Register a version of the model from its package in the artifacts bucket.

    A deleted stack's registry is gone, its packages are not. The version waits for a person's approval, which starts
    its release.
    """
    stack = chosen()
    stack.require_running()
    if stack.find_package(version):
        raise CliError(f"the registry has model {version}. See: bintally model list")
    outputs = stack.outputs()
    if "ArtifactsBucket" not in outputs:
        raise CliError(f"stack {stack.name} has only its data. Deploy it first: bintally stack deploy")
    bucket, key = outputs["ArtifactsBucket"], f"models/{version}/model.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "model.tar.gz")
        try:
            stack.client("s3").download_file(bucket, key, str(package))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                raise CliError(f"there is no s3://{bucket}/{key}. See: aws s3 ls s3://{bucket}/models/") from error
            raise
        if (found := package_version(package)) != version:
            raise CliError(f"the package at s3://{bucket}/{key} is version {found}")
        parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack.describe()["Parameters"]}
        register(
            stack, package, f"s3://{bucket}/{key}", parameters["ServingImage"], "PendingManualApproval", DESCRIPTION
        )
    click.echo(f"Model {version} is registered. Release it with: bintally model approve {version}")

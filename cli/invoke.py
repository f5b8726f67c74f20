"""`bintally invoke`: runs one function in a container with `sam local invoke`, as part of a running stack."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import ClientError

from cli.errors import USAGE, CliError
from cli.stacks import choice, chosen, on_this_machine
from deployed.stack import Deployed
from local.relay import bridge_address, relay, url_of
from local.stack import REPOSITORY, last_line

EVENTS = REPOSITORY / "events"
FUNCTIONS = sorted(path.stem for path in EVENTS.glob("*.json") if not path.stem.startswith("endpoint_"))
FOLDER = REPOSITORY / ".aws-sam" / "invoke"
ADDRESS = "AWS_ENDPOINT_URL"


@dataclass(frozen=True)
class Invocation:
    """The files that `sam local invoke` reads, and the line that runs it."""

    function: str
    template: Path
    event: Path
    variables: Path
    image: str | None

    def line(self) -> list[str]:
        own_image = ["--invoke-image", self.image, "--skip-pull-image"] if self.image else []
        return [
            *("sam", "local", "invoke", self.function, "--template", str(self.template)),
            *("--event", str(self.event), "--env-vars", str(self.variables), *own_image),
        ]


@click.command()
@click.argument("function", metavar="FUNCTION", type=click.Choice(FUNCTIONS))
@click.argument("photograph", required=False)
@click.option("--image", metavar="NAME", help="Base image on this machine, for use without a registry.")
@click.option("--run", "runs", is_flag=True, help="Run the line instead of printing it. Needs Docker.")
def command(function: str, photograph: str | None, image: str | None, runs: bool) -> None:
    """Run one FUNCTION in a container with sam local invoke, as part of the running stack.

    FUNCTION is the name of a file in events/, for example count. Its event is the sample in that file, or for count
    the event of a PHOTOGRAPH in the images bucket: give its key (incoming/…) or its s3:// address.

    The command builds the function for the image's Python, writes the event and the deployed function's variables to
    .aws-sam/invoke, and prints the sam local invoke line. With --run it also runs the line and, for the local stack,
    relays the container's requests to the stack.
    """
    if photograph is not None and function != "count":
        raise CliError(f"{function} takes no photograph; only count does", USAGE)
    stack = chosen()
    outputs = stack.outputs()
    logical = "".join(word.capitalize() for word in function.split("_")) + "Function"
    event = json.loads((EVENTS / f"{function}.json").read_text())
    if photograph is not None:
        event = event_of(event, outputs["ImagesBucket"], photograph, stack)
    port = on_this_machine().port if choice().name is None else None
    bridge = bridge_address() if port is not None else None
    variables = variables_of(stack, outputs, logical)
    if port is not None and bridge is not None:
        variables[ADDRESS] = url_of(bridge, port)
    invocation = prepare(logical, event, variables, image)
    if not runs:
        if port is not None:
            click.echo("# First load the stack's key, and let the container reach the stack while it runs:", err=True)
            click.echo('#   eval "$(bintally env)"; python -m local.relay &', err=True)
        click.echo(shlex.join(invocation.line()))
        return
    meanwhile = relay(bridge, port) if bridge is not None and port is not None else contextlib.nullcontext()
    with meanwhile:
        code = subprocess.run(sam(*invocation.line()[1:]), env=environment_of(stack)).returncode
    if code:
        raise CliError(f"sam local invoke ended with exit code {code}; its output above says why")


def event_of(sample: dict[str, Any], bucket: str, photograph: str, stack: Deployed) -> dict[str, Any]:
    """The sample event of count for a photograph in the bucket. Raises CliError when the bucket lacks it."""
    key = photograph.removeprefix(f"s3://{bucket}/")
    if key.startswith("s3://"):
        raise CliError(f"{photograph} is not in the stack's images bucket {bucket}", USAGE)
    try:
        found = stack.client("s3").head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
        raise CliError(f"{bucket} contains no photograph {key}. Find keys with: bintally counts --csv -") from error
    return with_object(sample, bucket, key, found)


def with_object(sample: dict[str, Any], bucket: str, key: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The sample event with the object that HeadObject describes. S3 gives a sequencer only in events, so it is made
    from the upload time."""
    record = sample["Records"][0]
    arrival = json.loads(record["body"])
    arrival["detail"]["bucket"]["name"] = bucket
    arrival["detail"]["object"] |= {
        "key": key,
        "size": found["ContentLength"],
        "etag": found["ETag"].strip('"'),
        "version-id": found["VersionId"],
        "sequencer": sequencer(found["LastModified"]),
    }
    return sample | {"Records": [record | {"body": json.dumps(arrival)}]}


def sequencer(uploaded: datetime) -> str:
    """16 hexadecimal digits that grow with time."""
    return f"{int(uploaded.timestamp() * 1e6):016X}"


def variables_of(stack: Deployed, outputs: Mapping[str, str], logical: str) -> dict[str, str]:
    """The deployed function's environment variables."""
    name = outputs.get(logical) or physical_name(stack, logical)
    found = stack.client("lambda").get_function_configuration(FunctionName=name)
    return dict(found.get("Environment", {}).get("Variables", {}))


def physical_name(stack: Deployed, logical: str) -> str:
    found = stack.client("cloudformation").describe_stack_resource(StackName=stack.name, LogicalResourceId=logical)
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


def prepare(logical: str, event: object, variables: dict[str, str], image: str | None) -> Invocation:
    """Builds the function and writes the files of an invocation. Raises CliError when the build fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    template = build(logical, FOLDER / "build", image)
    if ADDRESS in variables:
        name_variable(template, ADDRESS)
    invocation = Invocation(logical, template, FOLDER / "event.json", FOLDER / "variables.json", image)
    invocation.event.write_text(json.dumps(event, indent=2) + "\n")
    invocation.variables.write_text(json.dumps({logical: variables}, indent=2) + "\n")
    return invocation


def build(logical: str, folder: Path, image: str | None) -> Path:
    """Builds one function with `sam build`, for the image's Python or else for the template's."""
    settings = {"PYTHON_VERSION": python_of(image)} if image else {}
    log_file = FOLDER / "sam-build.log"
    words = ("build", logical, "--template", str(REPOSITORY / "template.yaml"), "--build-dir", str(folder))
    with log_file.open("wb") as log:
        done = subprocess.run(sam(*words), env=with_tools(os.environ) | settings, stdout=log, stderr=log)
    if done.returncode:
        raise CliError(f"sam build failed: {last_line(log_file)} (see {log_file})")
    return folder / "template.yaml"


def python_of(image: str) -> str:
    """Major and minor version of the Python in an image: 3.11. Raises CliError when the image does not run."""
    words = ["docker", "run", "--rm", "--entrypoint", "python3", image]
    try:
        done = subprocess.run(
            [*words, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise CliError("the docker command was not found. Install Docker, then try again") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[0]
        raise CliError(f"cannot read the Python version of image {image}: {reason}")
    return done.stdout.strip()


def name_variable(template: Path, name: str) -> None:
    """Adds a variable to a built template: sam passes only variables that the template names. The repository's
    template does not name this one, since it must not exist on AWS."""
    from samcli.yamlhelper import yaml_dump, yaml_parse

    content = yaml_parse(template.read_text())
    content["Globals"]["Function"]["Environment"]["Variables"][name] = "overridden"
    template.write_text(yaml_dump(content))


def sam(*words: str) -> list[str]:
    """The SAM CLI of this environment."""
    return [sys.executable, "-m", "samcli", *words]


def environment_of(stack: Deployed) -> dict[str, str]:
    """The environment with which sam and the container act as the caller: the owner's key, or the caller's."""
    if choice().name is None:
        return with_tools(os.environ) | on_this_machine().credentials()
    wanted = {"AWS_REGION": stack.client("sts").meta.region_name, "AWS_PROFILE": choice().profile}
    wanted["AWS_DEFAULT_REGION"] = wanted["AWS_REGION"]
    return with_tools(os.environ) | {name: value for name, value in wanted.items() if value}


def with_tools(environment: Mapping[str, str]) -> dict[str, str]:
    """Puts this environment's commands first, among them the uv that builds functions; turns sam's telemetry off."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return dict(environment) | {"PATH": path, "SAM_CLI_TELEMETRY": "0"}

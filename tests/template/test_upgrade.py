"""An update of a stack of 0.1.0 replaces nothing: CloudFormation refuses that for a named resource, and another loses
what it holds.

create_only_0_1_0.json has those properties of 0.1.0's template that CloudFormation never changes in place, by the
services' own schemas, which cfn-lint brings.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from samtranslator.yaml_helper import yaml_parse

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BEFORE = json.loads(Path(__file__).with_name("create_only_0_1_0.json").read_bytes())
NOW = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
REMOVED = {"ResumeCountingFunction", "ResumeCountingLogGroup", "ResumeCountingRole"}
"""Without data."""


def create_only(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource's top-level properties of which any part can only be set when it is created."""
    if resource["Type"].startswith(("AWS::Serverless", "Custom::")):
        return {}
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource["Type"]).schema
    paths = [*schema.get("createOnlyProperties", ()), *schema.get("conditionalCreateOnlyProperties", ())]
    names = {path.split("/")[2] for path in paths}
    return {name: value for name, value in resource.get("Properties", {}).items() if name in names}


@pytest.mark.parametrize("name", sorted(BEFORE.keys() - REMOVED))
def test_nothing_of_0_1_0_is_replaced(name: str) -> None:
    now = NOW[name]
    assert {"Type": now["Type"]} | create_only(now) == BEFORE[name]


def test_what_holds_data_is_still_there() -> None:
    assert {"ImagesBucket", "ArtifactsBucket", "CountsTable", "ModelPackageGroup"} <= BEFORE.keys() - REMOVED
    assert not REMOVED & NOW.keys()
    assert create_only({"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "x", "BillingMode": "y"}}) == {
        "TableName": "x"
    }, "so the schema is read"

"""The rules of AWS Control Tower for templates, checked by cfn-guard: `make guard`, which gets both from npm.

The template is that of a stack with a VPC and a key of its own. A rule of EXCEPTIONS that the template keeps fails too.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.template.test_template import ROOT, chosen, translated

pytestmark = pytest.mark.guard
PACKAGE = ROOT / ".runs" / "guard" / "package"
GIVEN = {
    '{"Ref": "DataKey"}': '"arn:aws:kms:eu-west-1:123456789012:key/1234-ab"',
    '{"Fn::Split": [",", {"Ref": "SubnetIds"}]}': '["subnet-1", "subnet-2"]',
    '{"Fn::Split": [",", {"Ref": "SecurityGroupIds"}]}': '["sg-1"]',
}
EXCEPTIONS = {
    "api_gw_v2_authorization_type_configured_check": "the page, its description and signing in ask nobody who they are",
    "cloudwatch_log_group_retention_period_check": "it wants a year; LogRetentionDays is the owner's to say",
    "lambda_function_public_access_prohibited_check": "the API may call three functions, as their policies say",
    "s3_bucket_logging_enabled_check": "CloudTrail's data events say the same, if an account wants to pay for them",
    "s3_bucket_object_lock_enabled_check": "photographs must be deletable: bintally stack forget",
    "s3_bucket_policy_ssl_requests_only_check": "it reads no Fn::GetAtt; test_template.py checks the policies",
    "s3_event_notifications_enabled_check": "nobody waits for new files of the artifacts bucket",
    "sqs_dlq_check": "dead-letter queues have none themselves; they have alarms",
    "step_functions_state_machine_tracing_enabled_check": "Tracing follows photographs, which no state machine sees",
}


def test_the_template_keeps_control_towers_rules_but_for_named_ones(tmp_path: Path) -> None:
    template = chosen(chosen(translated(), "IsInVpc", True), "HasDataKey", True)
    text = json.dumps(template)
    for part, value in GIVEN.items():
        assert part in text
        text = text.replace(part, value)
    (tmp_path / "template.json").write_text(text)
    guard, rules = PACKAGE / "bin" / "ubuntu" / "x86_64" / "cfn-guard", PACKAGE / "rules" / "control-tower"
    guard.chmod(0o755)
    done = subprocess.run(
        [guard, "validate", "-d", tmp_path, "-r", rules, "--show-summary", "none", "-o", "json", "--structured"],
        capture_output=True,
        text=True,
    )
    (found,) = json.loads(done.stdout)
    assert len(found["compliant"]) > 10, done.stderr
    broken = {each["Rule"]["name"]: json.dumps(each) for each in found["not_compliant"]}
    assert broken.keys() == EXCEPTIONS.keys(), {name: broken[name] for name in broken.keys() - EXCEPTIONS.keys()}

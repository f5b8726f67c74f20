"""The usage that `bintally stack cost` computes with is the template's, and a budget watches the real costs."""

import json
from typing import Any

from deployed.costs import TABLE_UNITS, Recount, Retraining, Usage
from deployed.prices import prices
from tests.template.test_template import of_type, source, translated

USE = Usage()


def default(parameter: str) -> Any:
    return source()["Parameters"][parameter]["Default"]


def test_functions_have_the_memory_that_usage_says() -> None:
    functions = of_type("AWS::Lambda::Function")
    assert functions["CountFunction"]["MemorySize"] == USE.count_megabytes
    assert functions["ReviewFunction"]["MemorySize"] == USE.review_megabytes
    assert functions["FollowFunction"]["MemorySize"] == USE.follow_megabytes
    assert functions["ReconcileFunction"]["MemorySize"] == USE.check_megabytes
    assert functions["AnswerFunction"]["MemorySize"] == Recount().megabytes
    assert {each["Architectures"][0] for each in functions.values()} == {"x86_64"}


def test_mappings_gather_messages_and_changes_as_usage_says() -> None:
    mappings = of_type("AWS::Lambda::EventSourceMapping")
    assert mappings["CountMapping"]["MaximumBatchingWindowInSeconds"] == {"Ref": "CountWait"}
    assert (default("CountWait"), mappings["CountMapping"]["BatchSize"]) == (USE.wait, USE.most)
    assert mappings["ReviewMapping"]["MaximumBatchingWindowInSeconds"] == 0
    assert mappings["FollowMapping"]["MaximumBatchingWindowInSeconds"] == 60
    queues = [each for each in mappings.values() if "Queue" in str(each["EventSourceArn"])]
    assert 5 * len(queues) == USE.pollers
    assert sum("MetricsConfig" in each for each in mappings.values()) == USE.idle_metrics


def test_the_table_s_units_are_those_that_usage_says() -> None:
    on_demand, *allowed = source()["Parameters"]["TableUnits"]["AllowedValues"]
    assert (default("TableUnits"), on_demand) == (USE.provisioned, 0)
    assert tuple(allowed) == TABLE_UNITS
    policies, targets = (
        of_type(f"AWS::ApplicationAutoScaling::{kind}") for kind in ("ScalingPolicy", "ScalableTarget")
    )
    assert 4 * sum("DynamoDB" in json.dumps(each) for each in policies.values()) == USE.scaling_alarms
    least = [
        each["MinCapacity"]
        for each in targets.values()
        if each["ScalableDimension"] == "dynamodb:index:ReadCapacityUnits"
    ]
    assert sum(least) == USE.index_reads


def test_a_month_has_as_many_alarms_and_checks_as_usage_says() -> None:
    assert len(of_type("AWS::CloudWatch::Alarm")) == USE.alarms
    assert len(of_type("AWS::CloudWatch::Dashboard")) == USE.dashboards
    assert default("ReconcileSchedule").endswith("SAT *)"), "weekly"


def test_the_endpoint_is_the_one_that_usage_says() -> None:
    assert default("ServerlessMemory") / 1024 == USE.serverless_gigabytes
    assert (default("InstanceCount"), default("ProvisionedConcurrency")) == (USE.instances, 0)
    assert default("InvocationsPerInstance") == USE.instance_rate * 60 / 2, "half of what an instance answers"


def test_a_retraining_is_the_one_that_usage_says() -> None:
    job = Retraining()
    assert (default("RetrainTrials"), default("RetrainEpochs")) == (job.trials, job.epochs)
    assert (default("JobVolume"), default("ProcessingInstances")) == (job.gigabytes, 1)
    assert default("TrainingInstances") == 1


def test_every_instance_type_that_the_template_suggests_has_a_price() -> None:
    types = {
        default(name) for name in source()["Parameters"] if name.endswith("InstanceType") or name == "InstanceType"
    }
    assert {name for name in prices("us-east-1").amounts if name.startswith("ml.")} == types


def test_a_budget_is_made_where_one_is_asked_for() -> None:
    budget = translated()["Resources"]["CostBudget"]
    assert (budget["Condition"], default("MonthlyBudget")) == ("HasBudget", 0)
    assert source()["Conditions"]["HasBudget"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "MonthlyBudget"}, 0]}]}
    limit = budget["Properties"]["Budget"]["BudgetLimit"]
    assert limit == {"Amount": {"Ref": "MonthlyBudget"}, "Unit": "USD"}


def test_a_budget_tells_the_topic_or_an_address_before_and_when_it_is_spent() -> None:
    told = translated()["Resources"]["CostBudget"]["Properties"]["NotificationsWithSubscribers"]
    kinds = {(each["Notification"]["NotificationType"], each["Notification"]["Threshold"]) for each in told}
    assert kinds == {("FORECASTED", 100), ("ACTUAL", 100)}
    for each in told:
        (subscriber,) = each["Subscribers"]
        assert subscriber == {
            "SubscriptionType": {"Fn::If": ["HasBudgetEmail", "EMAIL", "SNS"]},
            "Address": {"Fn::If": ["HasBudgetEmail", {"Ref": "BudgetEmail"}, {"Ref": "AlertsTopic"}]},
        }
    (statement,) = (
        each
        for each in of_type("AWS::SNS::TopicPolicy")["AlertsTopicPolicy"]["PolicyDocument"]["Statement"]
        if each["Principal"] == {"Service": "budgets.amazonaws.com"}
    )
    assert (statement["Effect"], statement["Action"]) == ("Allow", "sns:Publish")
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}

"""Functions that read a table's stream: what they have not read is kept over a stop, and no queue waits for them. With
ministack alone neither holds."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from local import emulator, processes
from local.owner import make_key
from local.stack import Local, healthy

FOLLOWER = """
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: followed
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_IMAGE}
  Seen: {Type: AWS::SQS::Queue, Properties: {QueueName: seen}}
  Asked: {Type: AWS::SQS::Queue, Properties: {QueueName: asked}}
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]
      Policies:
        - PolicyName: own
          PolicyDocument:
            Statement:
              - {Effect: Allow, Action: "sqs:*", Resource: "*"}
              - {Effect: Allow, Action: "dynamodb:*", Resource: "*"}
  Function:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Timeout: 60
      Environment: {Variables: {SEEN: !Ref Seen}}
      Code:
        ZipFile: |
          import boto3, os, time
          def handler(event, context):
              for record in event["Records"]:
                  name = record["body"] if "body" in record else record["dynamodb"]["Keys"]["id"]["S"]
                  time.sleep(8 if name == "slow" else 0)
                  boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=name)
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Table.StreamArn
      FunctionName: !Ref Function
      StartingPosition: TRIM_HORIZON
      FilterCriteria: {Filters: [{Pattern: '{"dynamodb": {"Keys": {"id": {"S": [{"anything-but": "filtered"}]}}}}'}]}
  Answering:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {EventSourceArn: !GetAtt Asked.Arn, FunctionName: !Ref Function}
Outputs:
  Asked: {Value: !Ref Asked}
  Mapping: {Value: !Ref Mapping}
  Seen: {Value: !Ref Seen}
"""


@contextmanager
def running(stack: Local, which: str) -> Iterator[None]:
    """The emulator, stopped in order afterwards."""
    if which == "ours":
        stack.start_emulator()
        yield
        stack.down()
        return
    stack.make_home()
    settings = emulator.environment(stack.home, stack.port, make_key(stack.home))
    process = subprocess.Popen(
        [sys.executable, "-m", "ministack.app"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not healthy(stack.endpoint_url):
            assert process.poll() is None
            time.sleep(0.1)
        yield
        process.terminate()
        process.wait(60)
    finally:
        processes.end_session(process.pid, 10)
        process.wait()


def seen(stack: Local, queue: str, number: int, seconds: float) -> list[str]:
    """What the function saw, in turn; waits for so many, but no longer."""
    sqs, deadline = stack.client("sqs"), time.monotonic() + seconds
    names: list[str] = []
    while len(names) < number and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            names.append(message["Body"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return names


@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", ["bare", "ours"])
def test_a_stop_keeps_what_a_function_has_not_read_of_a_stream_and_no_queue_waits_for_it(
    own: Local, which: str
) -> None:
    def put(*names: str) -> None:
        for name in names:
            own.client("dynamodb").put_item(TableName="followed", Item={"id": {"S": name}})

    def switch(enabled: bool) -> None:
        own.client("lambda").update_event_source_mapping(UUID=outputs["Mapping"], Enabled=enabled)
        time.sleep(1)

    patience = 10 if which == "bare" else 60
    with running(own, which):
        cloudformation = own.client("cloudformation")
        cloudformation.create_stack(StackName="follower", TemplateBody=FOLLOWER, Capabilities=["CAPABILITY_IAM"])
        cloudformation.get_waiter("stack_create_complete").wait(StackName="follower", WaiterConfig={"Delay": 1})
        found = cloudformation.describe_stacks(StackName="follower")["Stacks"][0]["Outputs"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in found}
        put("a", "filtered", "b")
        assert seen(own, outputs["Seen"], 2, 60) == ["a", "b"]
        put("slow")
        time.sleep(2)
        own.client("sqs").send_message(QueueUrl=outputs["Asked"], MessageBody="quick")
        turns = ["slow", "quick"] if which == "bare" else ["quick", "slow"]
        assert seen(own, outputs["Seen"], 2, 60) == turns
        switch(False)
        put("c", "d")
    with running(own, which):
        switch(True)
        put("e")
        assert seen(own, outputs["Seen"], 3, patience) == ([] if which == "bare" else ["c", "d", "e"])
    with running(own, which):  # nothing was left unread
        put("f")
        assert seen(own, outputs["Seen"], 1, patience) == ([] if which == "bare" else ["f"])

"""The SageMaker that ministack lacks: models, endpoint configurations, endpoints and InvokeEndpoint.

Small on purpose: the operations that the stack uses, each request and answer checked against botocore's own
service model; what is not supported is refused by name, never ignored.
"""

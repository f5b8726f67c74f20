"""The regions of AWS, as botocore knows them."""

import botocore.session

NEEDED = ("sagemaker", "cognito-idp", "apigatewayv2")
"""Services that the template needs and that some regions lack: in China Cognito has no user pools."""


def is_served(region: str) -> bool:
    """Whether a stack can be deployed there."""
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return all(
        any(region in session.get_available_regions(service, partition) for partition in partitions)
        for service in NEEDED
    )

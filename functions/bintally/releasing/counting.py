"""The count queue's mapping: disabled until the first model is live, then enabled."""

from typing import TYPE_CHECKING

from bintally.releasing.remove_all import wait

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def pause_counting(client: "LambdaClient", mapping: str, deadline: float) -> None:
    """Disables the mapping as soon as it is created. Raises Unfinished after `deadline` (time.monotonic)."""
    while True:
        try:
            client.update_event_source_mapping(UUID=mapping, Enabled=False)
            return
        except client.exceptions.ResourceInUseException as error:
            wait(deadline, str(error))


def resume_counting(client: "LambdaClient", mapping: str) -> str:
    """Enables the mapping; returns its new state, mostly "Enabling". Raises ClientError (ResourceInUseException) while
    another update of it is in progress."""
    return client.update_event_source_mapping(UUID=mapping, Enabled=True)["State"]

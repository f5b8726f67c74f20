"""The count queue's mapping: off until the first model is live, then on."""

from typing import TYPE_CHECKING

from bintally.releasing.remove_all import wait

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def pause_counting(client: "LambdaClient", mapping: str, deadline: float) -> None:
    """Switches the mapping off as soon as it is made. Raises Unfinished after `deadline` (time.monotonic)."""
    while True:
        try:
            client.update_event_source_mapping(UUID=mapping, Enabled=False)
            return
        except client.exceptions.ResourceInUseException as error:
            wait(deadline, str(error))


def resume_counting(client: "LambdaClient", mapping: str) -> str:
    """The mapping's state then, mostly "Enabling". Raises ClientError (ResourceInUseException) while it is in another
    change."""
    return client.update_event_source_mapping(UUID=mapping, Enabled=True)["State"]

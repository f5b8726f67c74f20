"""Tags of the service's resources."""

import threading

from localsagemaker.wire import Json, invalid

MOST = 50


class Tags:
    """Tags by ARN. An ARN that was never created is refused."""

    operations = ("AddTags", "ListTags", "DeleteTags")

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def remember(self, answer: Json, tags: list[Json]) -> None:
        """Stores the tags of a Create request under the ARN in its answer."""
        with self._lock:
            for arn in answer.values():
                self.tags[arn] = as_dictionary(tags)

    def add_tags(self, request: Json) -> Json:
        with self._lock:
            wanted = self._of(request) | as_dictionary(request["Tags"])
            if len(wanted) > MOST:
                raise invalid(f"The number of tags exceeds the limit of {MOST}.")
            self.tags[request["ResourceArn"]] = wanted
            return {"Tags": as_list(wanted)}

    def list_tags(self, request: Json) -> Json:
        with self._lock:
            return {"Tags": as_list(self._of(request))}

    def delete_tags(self, request: Json) -> Json:
        with self._lock:
            tags = self._of(request)
            self.tags[request["ResourceArn"]] = {key: tags[key] for key in tags.keys() - set(request["TagKeys"])}
        return {}

    def _of(self, request: Json) -> dict[str, str]:
        arn = request["ResourceArn"]
        if arn not in self.tags:
            raise invalid(f'Could not find resource "{arn}".')
        return self.tags[arn]

    # State across a stop and a start

    def get_state(self) -> Json:
        with self._lock:
            return {"Tags": dict(self.tags)}

    def load_state(self, state: Json) -> None:
        with self._lock:
            self.tags = state.get("Tags", {})

    def resume(self) -> None:
        """Tags have no processes."""

    def reset(self) -> None:
        with self._lock:
            self.tags = {}

    def close(self) -> None:
        """Tags have no processes."""


def as_dictionary(tags: list[Json]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def as_list(tags: dict[str, str]) -> list[Json]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]

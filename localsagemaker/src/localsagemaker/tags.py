"""Tags of what the service made."""

import threading

from localsagemaker.wire import Json, invalid

MOST = 50


class Tags:
    """Tags by ARN. What was never created has none, and is refused."""

    operations = ("AddTags", "ListTags", "DeleteTags")

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def remember(self, answer: Json, tags: list[Json]) -> None:
        """Keeps the tags that a Create operation, whose answer holds the one ARN, was given."""
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

    # Over a stop and a start

    def get_state(self) -> Json:
        with self._lock:
            return {"Tags": dict(self.tags)}

    def load_state(self, state: Json) -> None:
        with self._lock:
            self.tags = state.get("Tags", {})

    def resume(self) -> None:
        """Nothing runs."""

    def reset(self) -> None:
        with self._lock:
            self.tags = {}

    def close(self) -> None:
        """Nothing runs."""


def as_dictionary(tags: list[Json]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def as_list(tags: dict[str, str]) -> list[Json]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]

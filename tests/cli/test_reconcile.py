"""`bintally stack reconcile`: what it asks, what it says, and how it ends."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from deployed.errors import ReconcileFailed
from deployed.stack import Account, Reconciled
from local.stack import Local


class Stack(Account):
    """A stack whose state machine ends as told."""

    arrival_seconds = 0
    ends: Reconciled | Exception = Reconciled(0, 0, 0, 0)
    queued = "0"
    since: datetime | None = None

    def outputs(self) -> dict[str, str]:
        return {"CountQueueUrl": "queue", "ReconcileStateMachine": "machine"}

    def client(self, service: str, **config: Any) -> Any:
        return self

    def get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:
        return {"Attributes": dict.fromkeys(AttributeNames, self.queued)}

    def start_reconcile(self, since: datetime | None = None, grace_seconds: float | None = None) -> str:
        type(self).since = since
        return "arn"

    def wait_reconcile(self, execution: str) -> Reconciled:
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> type[Stack]:
    class Own(Stack):
        pass

    monkeypatch.setattr(Local, "from_environment", lambda: Own("bintally"))
    return Own


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(main, ["stack", "reconcile", *words])


def test_one_line_says_what_it_checked_found_and_sent(stack: type[Stack]) -> None:
    shown = run()
    assert (shown.exit_code, shown.stdout, shown.stderr) == (
        0,
        "0 image versions checked, 0 without a count, 0 sent to the count queue\n"
        "0 files of records checked, 0 that nobody had read, sent to be read\n",
        "",
    )
    stack.ends = Reconciled(12_345, 6, 6, 1, 1_200, 1)
    assert run().stdout == (
        "12,345 image versions checked, 6 without a count, 6 sent to the count queue\n"
        "1,200 files of records checked, 1 that nobody had read, sent to be read\n"
    )
    stack.queued = "3"
    assert "(which had 6 messages before, maybe of the same)\n" in run().stdout
    assert run().exit_code == 0
    assert json.loads(run("--json").stdout) == {
        **{"checked": 12_345, "uncounted": 6, "requeued": 6, "young": 1, "queued_before": 6},
        **{"files": 1_200, "unread": 1},
    }


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T10:15+02:00", datetime(2026, 11, 22, 8, 15, tzinfo=UTC)),
        ("2026-11-22T10:15:00Z", datetime(2026, 11, 22, 10, 15, tzinfo=UTC)),
    ],
)
def test_since_takes_dates_and_times(stack: type[Stack], text: str, since: datetime) -> None:
    assert run("--since", text).exit_code == 0
    assert stack.since == since


def test_since_takes_ages(stack: type[Stack]) -> None:
    for text, age in (("7d", timedelta(days=7)), ("12h", timedelta(hours=12)), ("30m", timedelta(minutes=30))):
        assert run("--since", text).exit_code == 0
        assert stack.since and abs(datetime.now(UTC) - age - stack.since) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["yesterday", "7", "-1d", "7w", "2026-13-01", "", "999999d", "2999-01-01"])
def test_other_values_are_wrong_use(stack: type[Stack], text: str) -> None:
    shown = run("--since", text)
    assert shown.exit_code == 2 and "Invalid value for '--since'" in shown.stderr


def test_a_failure_is_one_line(stack: type[Stack]) -> None:
    stack.ends = ReconcileFailed("reconcile failed: Denied")
    shown = run()
    assert (shown.exit_code, shown.stdout, shown.stderr) == (1, "", "Error: reconcile failed: Denied\n")


def test_a_stack_of_an_older_release_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "outputs", lambda self: {"CountQueueUrl": "queue"})
    with pytest.raises(ReconcileFailed, match="deploy it again"):
        Account("old").start_reconcile()

"""`make soak` in small: photographs while the endpoint and functions are killed, and each is accounted for."""

import random
from dataclasses import replace
from typing import Any

import pytest
from click import BadParameter

from bench.soak import FAULTS, ON_A_RUNNING_STACK, Account, chosen_faults, soak
from bench.soak_totals import Totals
from bench.soak_work import WorkDone


def test_sixty_photographs_while_things_break(user: Any) -> None:
    name, kept = "VisibilityTimeout", {}
    for queue in (user.queue, user.outputs["RecordQueueUrl"]):
        kept[queue] = user.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"]
    try:
        account, work = soak(
            user.stack,
            number=60,
            faults=ON_A_RUNNING_STACK,
            seed=random.SystemRandom().randrange(10**6),
            hold_seconds=1,
            visibility_seconds=5,
        )
    finally:
        for queue, attributes in kept.items():
            user.sqs.set_queue_attributes(QueueUrl=queue, Attributes=attributes)
    assert account.faults + work.faults == []
    assert work.files == len(ON_A_RUNNING_STACK) + 1
    assert account.uploaded == 60 == account.counted + account.rejected - account.unanswered


WORKED = WorkDone(5, 1, 1, 0, 0, 0, 2, 0, 3, 0, 0)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"entries_lost": 1}, "1 entries lost"),
        ({"entries_double": 2}, "2 entries double"),
        ({"trails_differ": 1}, "1 trails differ"),
        ({"records_wrong": 1}, "1 records wrong"),
        ({"people_who_failed": 1}, "1 people who failed"),
        ({"entries": 0}, "no entry of a person"),
    ],
)
def test_work_that_went_wrong_says_so(change: dict[str, int], fault: str) -> None:
    assert WORKED.faults == []
    assert replace(WORKED, **change).faults == [fault]


GOOD = Account(10, 1, 1, 9, 2, 0, 0, 0, 0, 0, Totals(5, 4, 2, 1, 1, ()))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"lost": 1, "counted": 8}, "1 lost"),
        ({"double": 1, "counted": 10}, "1 double"),
        ({"vanished": 1}, "1 vanished"),
        ({"stale": 1}, "1 stale"),
        ({"miscounted_totals": -1}, "-1 miscounted totals"),
        ({"counted": 8}, "the sums do not agree"),
        ({"totals": Totals(5, 4, 2, 1, 1, ("5 compared, items say 6 to 6",))}, "5 compared, items say 6 to 6"),
    ],
)
def test_an_account_that_is_wrong_says_so(change: dict[str, Any], fault: str) -> None:
    assert GOOD.faults == []
    assert replace(GOOD, **change).faults == [fault]


def test_faults_are_chosen_by_name() -> None:
    assert chosen_faults("all") == list(FAULTS)
    assert chosen_faults("killed,stopped") == ["killed", "stopped"]
    with pytest.raises(BadParameter, match="fire"):
        chosen_faults("killed,fire")

"""What `bintally recount` says of the list's promise; tests/stack/test_recounts.py runs its verbs."""

from cli.recounts import kept


def test_a_promise_is_compared_once_there_are_recounts() -> None:
    found = {"expected_wrong": 11.7, "found_wrong": 11, "recounted": 31}
    assert kept(found) == "So far: 12 wrong records expected, 11 found, in 31 recounts."
    assert kept({name: 0 for name in found}) == "No recount has ended yet."

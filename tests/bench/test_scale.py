"""`bintally bench scale` in small: each part does its work. That it is fast is shown by running it."""

import pytest

from bench import scale

pytestmark = pytest.mark.slow


def test_each_part_counts_what_a_hundred_take() -> None:
    with scale.emulator() as stack:
        labels = scale.loop(stack, "labels", 100)
        followed = scale.loop(stack, "follow", 100)  # labels go on in the same log
        recorded = scale.loop(stack, "records", 100)
    assert (labels["slices"], labels["memory MB"] > 20) == (1, True)
    assert labels["objects per 1,000"] == 20, "the log's, and the slice to merge it"
    assert labels["lists and writes per 1,000"] == 50
    assert (followed["look-ups per 1,000"], followed["objects per 1,000"]) == (10, 10), "one for all"
    assert followed["read units per 1,000"] == 1000, "the RECORD of each bin"
    assert (recorded["look-ups per 1,000"], recorded["write units per 1,000"]) == (10, 1000)
    assert recorded["read units per 1,000"] == 1000
    assert recorded["objects read and written"] == 2, "the file and its summary"

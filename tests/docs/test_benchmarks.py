"""What costs and scaling are computed from is what the benchmarks' page has."""

import re
from pathlib import Path

import pytest

from deployed.costs import Retraining, Usage

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
COSTS = (Path(__file__).parents[2] / "docs" / "costs.md").read_text()
USE = Usage()


def measured(line: str) -> float:
    """The figure of a line of a bench's output, which the page has once."""
    (found,) = re.findall(rf"^{re.escape(line)} +([\d.,]+)", PAGE, re.MULTILINE)
    return float(found.replace(",", ""))


def test_the_count_function_takes_what_the_bench_measured() -> None:
    answer = measured("Endpoint's answer, as the function waits")
    assert USE.endpoint_milliseconds == answer
    waits = USE.count_milliseconds - 3 * USE.request_milliseconds
    assert waits == pytest.approx(measured("Own CPU a photograph") + answer)


def test_as_many_reviews_open_as_the_bench_of_the_ranking_found() -> None:
    assert f"A review opens for {USE.reviewed:.1%}".replace("%", " %") in PAGE
    assert f"{USE.reviewed:.1%}".replace("%", " %") in COSTS


def test_an_instance_answers_half_of_what_two_cores_do_and_a_little_more() -> None:
    """An ml.c7i.large has two processors, which are one core."""
    assert measured("OpenVINO int8        8") / 2 < USE.instance_rate < measured("OpenVINO int8        8")


def test_a_retraining_prepares_and_learns_at_the_pace_of_the_benches() -> None:
    assert Retraining.processed == pytest.approx(2 * measured("training.process"), rel=0.01), (
        "an ml.c7i.xlarge: 2 cores"
    )
    h200 = re.search(r"whole loop .* ([\d,]+) \([\d.]+\) \|$", PAGE, re.MULTILINE)
    assert h200 and Retraining.trained < float(h200[1].replace(",", "")) / 6

"""The arithmetic of docs/scaling.md, from the figures that it names."""

from math import ceil, log
from pathlib import Path

from deployed.costs import Usage
from tests.template.test_template import source

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "scaling.md").read_text().split())
USE = Usage()
A_DAY = 24 * 3600


def test_functions_and_endpoint() -> None:
    seconds = USE.count_milliseconds / 1000
    assert f"some {1000 * seconds:.0f} ms" in PAGE
    call = USE.count_milliseconds + (USE.most - 1) * USE.further_milliseconds
    in_five = 1 / USE.most_a_second
    assert f"A call of five takes some {call:.0f} ms, {1000 * in_five:.0f} for each" in PAGE
    assert f"C / {seconds:.3f} photographs" in PAGE and f"C / {in_five:.3f} where" in PAGE
    peak = 3 * 100_000_000 / A_DAY
    assert f"| {peak * in_five:.0f}, in calls of five |" in PAGE
    most = int(source()["Parameters"]["CountConcurrency"]["MaxValue"])
    rate = most / in_five
    assert (
        f"`CountConcurrency` of {most}: {round(rate, -1):,.0f} photographs a second** in calls of five, "
        f"{rate * A_DAY / 1e6:.0f} million a day if they came evenly; {round(most / seconds, -1):,.0f} where" in PAGE
    )
    assert f"{ceil(rate / USE.instance_rate)} `ml.c7i.large` for {round(rate, -1):,.0f} a second" in PAGE
    assert f"An `ml.c7i.large` answers some {USE.instance_rate:.0f} photographs a second" in PAGE
    assert f"The default, {USE.instance_rate * 60 / 2:,.0f}, is half of what `ml.c7i.large` answers" in PAGE


def test_write_units() -> None:
    units = USE.count_units + USE.marker_units + USE.totals_units + USE.latest_units
    assert f"A photograph takes {units:.0f} write units" in PAGE
    assert f"A review takes {USE.review_units:.0f} more" in PAGE
    all_of_it = round(units + USE.reviewed * USE.review_units)
    assert f"{all_of_it} together" in PAGE
    assert f"A new table, {4000 // all_of_it // 10 * 10:.0f} photographs a second" in PAGE
    assert f"40,000 write units a second: {40000 // all_of_it // 100 * 100:,.0f} photographs" in PAGE


def test_one_site() -> None:
    """The day's totals are the first to stop it: REVIEWS is written in a transaction, so 2 units."""
    a_day = USE.totals_units + 2 * USE.reviewed
    rate = 1000 // a_day // 10 * 10
    assert f"One site, {rate:.0f} photographs a second" in PAGE and f"for {rate:.0f} photographs a second each" in PAGE
    assert f"{ceil(3 * 100_000_000 / A_DAY / rate)} if one site has them all" in PAGE
    assert a_day >= USE.latest_units / 2
    under_way = round(rate * USE.request_milliseconds / 1000)
    assert under_way == 5 and f"each for {USE.request_milliseconds} ms" in PAGE
    assert 0.2 < 1 - (15 / 16) ** under_way < 0.3, "a quarter"


def test_table_units() -> None:
    """Of a photograph and its share of a review: `review` and `site` have a unit of their own."""
    index = 1
    units = USE.count_units + USE.marker_units + USE.totals_units + USE.latest_units - index
    units += USE.reviewed * (USE.review_units - index)
    assert f"A photograph takes {units:.1f} write units of the table and one of an index" in PAGE
    assert f"So 500 are enough for {500 / units:.0f} photographs a second" in PAGE
    assert units / index > 10, "an index begins with a tenth"
    peak = 3 * 1_000_000 / A_DAY
    assert peak * units < 500 and "| 500, if they come all day |" in PAGE
    assert max(source()["Parameters"]["TableUnits"]["AllowedValues"]) == 20_000
    assert f"its most, 20000, is for {round(20_000 / units, -1):,.0f} a second |" in PAGE
    steps = ceil(log(10) / log(1 / 0.7))
    assert f"{steps} steps, 20 minutes" in PAGE and steps * 3 == 21
    assert USE.read_units < 0.6 * units, "about half as many"


def test_photographs_wait_for_longer_than_scaling_takes() -> None:
    waits = [min(30 * 2**number, 900) for number in range(7)]
    assert f"they have {sum(waits) // 60} minutes" in PAGE and sum(waits) / 60 > 2 * 20
    queue = source()["Resources"]["CountQueue"]["Properties"]["RedrivePolicy"]
    assert queue["maxReceiveCount"] == len(waits) + 1 and source()["Parameters"]["RetrySeconds"]["Default"] == 30

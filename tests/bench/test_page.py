"""The page's figures as a person reads them."""

import io

from rich.console import Console

from bench.page import show_page


def test_the_table_says_the_middle_the_95th_percentile_and_what_is_wanted() -> None:
    out = io.StringIO()
    report = {"next_ms": [*range(1, 50), 400], "view_ms": [300.0, 500.0], "sent_bytes": 36_000}
    show_page(Console(file=out, width=120), report)
    said = [line.split() for line in out.getvalue().splitlines()]
    assert ["Enter", "to", "next", "photograph,", "ms", "(50)", "25.5", "48.0", "p95", "<", "100"] in said
    assert ["First", "view,", "ms", "(2)", "400.0", "500.0", "<", "1,000"] in said
    assert ["Sent,", "kB", "36.0", "<", "150"] in said

"""Evaluates a CloudWatch alarm by the service's rules, without the service.

The rules are in "How alarm state is evaluated when data is missing" in the CloudWatch user guide; its two tables are
the tests.
"""

import operator
from collections.abc import Sequence
from typing import Any

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
BREACHES = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
WORDS = {
    "GreaterThanThreshold": "greater than",
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}
EXTRA_PERIODS = 2  # The guide reads 5 periods to evaluate 3, in case some are missing.


def periods(alarm: dict[str, Any]) -> int:
    """The number of periods that are read for an alarm."""
    return int(alarm["EvaluationPeriods"]) + EXTRA_PERIODS


def evaluate(alarm: dict[str, Any], values: Sequence[float | None]) -> tuple[str, str]:
    """The alarm's state and the reason for it.

    `alarm` has the members of PutMetricAlarm and its StateValue. `values` has one value a period, the newest first,
    `periods(alarm)` in all; None where there is no data.
    """
    needed = int(alarm["EvaluationPeriods"])
    enough = int(alarm.get("DatapointsToAlarm") or needed)
    breaches, threshold = BREACHES[alarm["ComparisonOperator"]], alarm["Threshold"]
    treatment = alarm.get("TreatMissingData") or "missing"
    real = [(age, value) for age, value in enumerate(values, 1) if value is not None][:needed]
    breaching = [(age, value) for age, value in real if breaches(value, threshold)]
    shown = [value for _, value in real]
    crossed = f"{len(breaching)} out of the last {needed} datapoints {shown}"
    words = f"{WORDS[alarm['ComparisonOperator']]} the threshold ({threshold})"
    if not real:
        state = {"breaching": ALARM, "notBreaching": OK, "ignore": alarm["StateValue"]}.get(treatment, INSUFFICIENT)
        return state, f"No datapoints were received for {len(values)} periods, and they are treated as {treatment}."
    filled = needed - len(real) if treatment == "breaching" else 0
    if len(breaching) + filled >= enough:
        filling = f" (with {filled} missing treated as breaching)" if filled else ""
        return ALARM, f"Threshold Crossed: {crossed}{filling} were {words} (minimum {enough} for OK -> ALARM)."
    if len(real) < needed and len(breaching) == len(real) and treatment in ("missing", "ignore"):
        # All values breach, but they are too few: ALARM once they are old enough, unless missing data is ignored.
        premature = treatment == "missing" and breaching[-1][0] >= enough
        return ALARM if premature else alarm["StateValue"], f"Threshold Crossed: {crossed} were {words}."
    return OK, f"Threshold Crossed: {crossed} were {words} (minimum {enough} for ALARM)."

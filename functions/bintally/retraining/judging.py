"""The rule by which a challenger replaces the champion; docs/decisions/judge.md gives the reasons."""

from typing import Any

from bintally.retraining.settings import Margins

UNPROVEN_SHARE = 0.2
"""Maximum share of photographs in groups of counts that are too small for the margin."""


def judge(evaluation: dict[str, Any], margins: Margins) -> dict[str, Any]:
    """The verdict on evaluation.json. Raises KeyError, TypeError or ValueError if it is not one."""
    rps = evaluation["paired"]["rps"]
    gained, bound = number(rps["difference"]), number(rps["lower_bound"])
    against = []
    if faults := evaluation["golden"]["faults"]:
        against.append(f"{len(faults)} golden images are not answered as recorded, first {faults[0]}")
    if not evaluation["golden"]["asked"] > 0:
        against.append("the package has no golden images")
    if not bound > margins.superiority:
        against.append(
            f"not shown to be better: ranked probability score {gained:+.4f}, lower bound {bound:+.4f},"
            f" which must exceed {margins.superiority:+.4f}"
        )
    against += against_groups(evaluation["groups"], margins)
    reason = (
        "; ".join(against)
        if against
        else f"better by {gained:.4f} in ranked probability score (lower bound {bound:.4f}), and in no group of counts"
        f" worse by {margins.noninferiority:g} or more"
    )
    return {
        "promote": not against,
        "reason": " ".join(reason.split()),
        "reasons": against or [reason],
        "figures": {
            "dataset_digest": evaluation["dataset_digest"],
            "package_digest": evaluation["golden"].get("package_digest", "none"),  # of an older training image
            "test_set_digest": evaluation["test_set"]["digest"],
            "test_photographs": evaluation["test_set"]["photographs"],
            "champion_rps": evaluation["champion"]["as_shipped"]["rps"],
            "challenger_rps": evaluation["challenger"]["as_shipped"]["rps"],
            "rps_difference": gained,
            "rps_lower_bound": bound,
        },
    }


def against_groups(groups: list[dict[str, Any]], margins: Margins) -> list[str]:
    """The reasons against the challenger in single groups of counts.

    In a group of enough bins the challenger must be shown to lose less than the margin. A smaller group cannot show
    that, and a site without empty bins must still be able to retrain: there it must only not be shown to be worse. All
    small groups together may contain at most a fixed share of the photographs, else the test set shows too little.
    """
    found, total, unproven = [], 0, 0
    for group in groups:
        name, difference, total = group["name"], group["difference"], total + group["photographs"]
        if group["bins"] >= margins.least_bins and group["lower_bound"] is not None:
            bound = number(group["lower_bound"])
            if not bound > -margins.noninferiority:
                found.append(
                    f"bins of {name}: {difference:+.4f}, lower bound {bound:+.4f},"
                    f" which must exceed {-margins.noninferiority:+.4f}"
                )
            continue
        unproven += group["photographs"]
        if group["upper_bound"] is not None and number(group["upper_bound"]) < 0:
            found.append(f"bins of {name}: shown to be worse, {difference:+.4f}, by {group['bins']} bins")
    if not total or unproven > UNPROVEN_SHARE * total:
        found.append(
            f"too few photographs to judge by: {unproven} of {total} are in groups of counts with fewer than"
            f" {margins.least_bins} bins"
        )
    return found


def number(value: object) -> float:
    """Raises ValueError if it is not a number, or is NaN, which comparisons would not detect."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"a number, has {value!r}")
    return float(value)

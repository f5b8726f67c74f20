"""Compares new photographs with those that the champion was trained on, site by site.

A site's photographs are stored as histograms with fixed edges (`profile`). Two histograms are compared by the
population stability index, PSI = sum over the cells of (p - q) ln(p / q). Without drift, it is about (1/n + 1/m) times
a chi-square with one degree of freedom fewer than there are cells (Yurdakul and Naranjo, "Statistical properties of
the population stability index", Journal of Risk Model Validation 14(4), 2020). So the customary limit of 0.1 is used
only where chance alone does not reach it. n and m are numbers of bins, not of photographs: photographs of one bin are
similar, and counting each of them would make chance look like drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.answer import AT_LEAST, CLASSES
from training.dataset.layout import Line

EDGES: dict[str, list[float]] = {
    "brightness": [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8],
    "blur": [25, 50, 100, 150, 200, 250, 300, 400, 600],
    "confidence": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
}
"""The edges between cells. A stored profile can be compared only with one of the same edges."""
CELLS = {
    "label": len(CLASSES),
    **{name: len(edges) + 1 for name, edges in EDGES.items()},
    "six_or_more": 2,
    "agreement": 2,
}
"""The histograms and their numbers of cells. "six_or_more" (no, yes) is of the model's answers; "agreement" (no, yes)
is whether that answer agreed with the inventory record."""

ALL = ""
"""The name of all sites together."""
CUSTOMARY_LIMIT = 0.1
CERTAINTY = 0.99
LEAST_IN_A_CELL = 5
"""Bins of the smaller sample; with fewer, neighbouring cells are joined, since the chi-square no longer applies."""

WORDS = {
    "label": ("labels", "lower", "higher"),
    "brightness": ("brightness", "darker", "brighter"),
    "blur": ("sharpness", "more blurred", "sharper"),
    "confidence": ("confidence", "lower", "higher"),
    "six_or_more": ('answers of "6 or more"', "fewer", "more"),
    "agreement": ("agreement of counts with records", "less", "more"),
}

Profile = dict[str, Any]
Floats = NDArray[np.float64]


def profile(lines: Iterable[Line], bins: Mapping[str, int]) -> dict[str, Profile]:
    """{site: {"photographs", "bins", then `CELLS` histograms}}, with all sites together under "".

    `bins` has the number of different bins of each site.
    """
    found: dict[str, Profile] = {}
    for line in lines:
        for site in (ALL, line.site):
            if site not in found:
                number = bins[site] if site else sum(bins.values())
                found[site] = {"photographs": 0, "bins": number} | {name: [0] * n for name, n in CELLS.items()}
            found[site]["photographs"] += 1
            for name, cell in _cells(line):
                found[site][name][cell] += 1
    return dict(sorted(found.items()))


def _cells(line: Line) -> Iterable[tuple[str, int]]:
    yield "label", line.label
    for name, value in (("brightness", line.brightness), ("blur", line.blur), ("confidence", line.confidence)):
        if value is not None:
            yield name, int(np.searchsorted(EDGES[name], value, side="right"))
    if line.count is not None:
        yield "six_or_more", int(line.count >= AT_LEAST)
        if line.source == "record":
            yield "agreement", int(min(line.count, AT_LEAST) == line.label)


def report(new: Mapping[str, Profile], reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """drift.json: the profiles of new photographs and those of a dataset.json, None if there is no such file."""
    if reference and reference["edges"] != EDGES:
        reference = None  # written by another version of this code: its histograms cannot be compared with ours
    known: Mapping[str, Profile] = reference["profile"] if reference else {}
    sites = {site: _site(site, found, known) for site, found in new.items()}
    return {
        "format": 1,
        "reference": reference["digest"] if reference else None,
        "edges": EDGES,
        "flagged": sorted(site for site, seen in sites.items() if seen["flagged"]),
        "sites": sites,
    }


def _site(name: str, new: Profile, known: Mapping[str, Profile]) -> dict[str, Any]:
    compared_with = name if name in known else ALL if ALL in known else None
    measures = {}
    if compared_with is not None:
        reference = known[compared_with]
        for measure in CELLS:
            measures[measure] = compare(reference[measure], new[measure], reference["bins"], new["bins"])
    flagged = [measure for measure, seen in measures.items() if seen["flagged"]]
    return {
        "photographs": new["photographs"],
        "bins": new["bins"],
        "compared_with": compared_with,
        "measures": measures,
        "flagged": flagged,
        "sentence": _sentence(name, new, compared_with, measures, flagged),
    }


def compare(reference: list[int], new: list[int], reference_bins: int, new_bins: int) -> dict[str, Any]:
    """Two histograms of the same cells: {"psi", "limit", "flagged", "direction", "reference", "new"}.

    "psi" and "limit" are None if there are too few photographs. "direction" is -1 or 1: the new ones are in lower or
    higher cells on average.
    """
    expected, found = np.array(reference, dtype=float), np.array(new, dtype=float)
    n, m = (min(float(histogram.sum()), bins) for histogram, bins in ((expected, reference_bins), (found, new_bins)))
    psi = limit = None
    direction = 0
    if n and m:
        p, q = expected / expected.sum(), found / found.sum()
        direction = int(np.sign(np.arange(len(p)) @ (q - p)))
        p, q = _joined(p, q, LEAST_IN_A_CELL / min(n, m))
        if len(p) > 1:
            psi = round(_index(p, q, n, m), 4)
            limit = round(max(CUSTOMARY_LIMIT, (1 / n + 1 / m) * chi_square_quantile(CERTAINTY, len(p) - 1)), 4)
    return {
        "psi": psi,
        "limit": limit,
        "flagged": psi is not None and limit is not None and psi > limit,
        "direction": direction,
        "reference": reference,
        "new": new,
    }


def _joined(p: Floats, q: Floats, least: float) -> tuple[Floats, Floats]:
    """The shares with neighbouring cells joined until each has `least` in one of the two."""
    starts, held = [0], 0.0
    for cell in range(len(p)):
        if held >= least:
            starts.append(cell)
        held = max(p[starts[-1] : cell + 1].sum(), q[starts[-1] : cell + 1].sum())
    if held < least and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(p, starts), np.add.reduceat(q, starts)


def _index(p: Floats, q: Floats, n: float, m: float) -> float:
    """The population stability index of shares from n and m observations. Half an observation is added to each cell, so
    that an empty one does not make it infinite."""
    p, q = (p * n + 0.5) / (n + 0.5 * len(p)), (q * m + 0.5) / (m + 0.5 * len(q))
    return float(((p - q) * np.log(p / q)).sum())


def chi_square_quantile(share: float, degrees: int) -> float:
    """By Wilson and Hilferty (1931): within 1 % of the true value at 0.99."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NormalDist().inv_cdf(share) * spread**0.5) ** 3)


def _sentence(
    name: str, new: Profile, compared_with: str | None, measures: Mapping[str, Any], flagged: list[str]
) -> str:
    who = f"{name or 'All sites'}: {new['photographs']} new photographs of {new['bins']} bins"
    if compared_with is None:
        return f"{who}; there is no reference to compare them with."
    beside = "all sites of the reference, as this one is new to it" if compared_with != name else "the reference"
    if flagged:
        return f"{who} differ from {beside}: {', '.join(_told(measure, measures[measure]) for measure in flagged)}."
    limits = [seen["limit"] for seen in measures.values() if seen["limit"] is not None]
    if not limits:
        return f"{who} are too few to compare."
    return f"{who} show no drift from {beside}; a PSI above {max(limits):.2f} would have been flagged in any measure."


def _told(measure: str, seen: Mapping[str, Any]) -> str:
    subject, lower, higher = WORDS[measure]
    return f"{subject} {lower if seen['direction'] < 0 else higher} (PSI {seen['psi']:.2f}, limit {seen['limit']:.2f})"

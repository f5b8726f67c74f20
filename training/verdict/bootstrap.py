"""The bootstrap over bin groups: photographs of one bin are drawn together, since they are similar.

Every resampled figure is computed from sums over photographs, so a resample costs one product of the groups' draw
counts and the groups' sums, and memory does not grow with the number of resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AT_ONCE = 64
"""Resamples in memory at a time."""


@dataclass(frozen=True)
class Resamples:
    """`draws` resamples of the bin groups, the same ones at every call: differences are paired."""

    member: Ints  # [N], the group of each photograph
    groups: int
    draws: int
    seed: int = 0

    @classmethod
    def of(cls, groups: NDArray[np.str_], draws: int, seed: int = 0) -> Resamples:
        """Resamples of photographs whose bin groups are `groups` [N]."""
        names, member = np.unique(groups, return_inverse=True)
        return cls(member, len(names), draws, seed)

    def counts(self) -> Iterator[Floats]:
        """The draw counts of each group, [up to AT_ONCE, groups] at a time."""
        random = np.random.default_rng(self.seed)
        for start in range(0, self.draws, AT_ONCE):
            several = min(AT_ONCE, self.draws - start)
            drawn = random.integers(self.groups, size=(several, self.groups))
            drawn += self.groups * np.arange(several)[:, None]
            yield np.bincount(drawn.ravel(), minlength=several * self.groups).reshape(several, -1).astype(np.float64)

    def sums(self, columns: Floats) -> Floats:
        """Sums of columns [N, K] over each resample's photographs: [draws, K]."""
        by_group = np.zeros((self.groups, columns.shape[1]))
        np.add.at(by_group, self.member, columns)
        return np.concatenate([counts @ by_group for counts in self.counts()])

    def means(self, values: Floats, counted: NDArray[np.bool_]) -> Floats:
        """Means of the columns of `values` [N, K] over the photographs `counted` [N, K]: [draws, K].

        NaN where a resample contains no counted photograph.
        """
        sums = self.sums(np.hstack([np.where(counted, values, 0.0), counted]))
        with np.errstate(invalid="ignore"):
            means: Floats = sums[:, : values.shape[1]] / sums[:, values.shape[1] :]
        return means


def interval(drawn: Floats) -> list[float | None]:
    """The 95 % percentile interval of resampled figures [draws] (Efron 1981); [None, None] if all are NaN."""
    known = drawn[np.isfinite(drawn)]
    return [float(x) for x in np.percentile(known, (2.5, 97.5))] if len(known) else [None, None]


def simultaneous_lower_bounds(estimates: Floats, drawn: Floats) -> Floats:
    """Simultaneous 95 % lower bounds [K] for all K figures, from estimates [K] and resamples [draws, K].

    Each is the same number of its bootstrap standard errors below its estimate: the number that the largest of the
    K standardised errors exceeds in 5 % of the resamples (the plug-in sup-t band of Montiel Olea and
    Plagborg-Moller 2019, "Simultaneous confidence bands", made one-sided).
    """
    errors = np.nanstd(drawn, axis=0, ddof=1)
    exact = errors < 1e-12
    standardised = (drawn - estimates) / np.where(exact, np.inf, errors)
    reach = np.nanpercentile(np.nanmax(standardised, axis=1), 95)  # a resample may contain none of the small groups
    bounds: Floats = estimates - reach * errors
    return bounds

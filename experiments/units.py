"""Simulates how much of the table's provisioned units is used over a day, with TableUnits.

    python -m experiments.units

Photographs come as a power of a raised cosine over the day. Every minute, target tracking looks back: two minutes
above 70 % raise the capacity to what would have been 70 %, fifteen below 50 % lower it, as often as DynamoDB allows
(four times and once more in each hour). All of this is AWS's documented behaviour, simplified. Nothing was measured on
AWS.
"""

from __future__ import annotations

import math

MINUTES = 24 * 60
TARGET, BELOW = 0.7, 0.2
"""Share of the units that scaling aims at, and how far below it the use has to be before it takes units away."""
UNITS = 12 * 1_000_000 / (24 * 3600)
"""Write units a second at a million photographs a day, 12 each."""


def day(peak: float) -> list[float]:
    """For each minute, the load against the day's mean; the busiest has at least `peak`."""
    power = 0.1
    while True:
        wave = [(0.5 - 0.5 * math.cos(2 * math.pi * minute / MINUTES)) ** power for minute in range(MINUTES)]
        mean = sum(wave) / MINUTES
        if max(wave) / mean >= peak:
            return [value / mean for value in wave]
        power += 0.1


def used(load: list[float], mean: float, most: float, days: int = 5) -> tuple[float, float]:
    """After the first day: the share of the provisioned units that is used, and that of the load that is refused."""
    least, capacity = most / 10, most
    shares: list[float] = []
    taken = provided = refused = 0.0
    for number in range(days):
        decreases = 4
        for minute, relative in enumerate(load):
            decreases += minute % 60 == 0
            wanted = relative * mean
            shares.append(min(1, wanted / capacity))
            if number:
                taken += min(wanted, capacity)
                provided += capacity
                refused += max(0, wanted - capacity)
            if len(shares) >= 2 and min(shares[-2:]) > TARGET:
                capacity = min(most, max(capacity, capacity * shares[-1] / TARGET))
                shares.clear()
            elif len(shares) >= 15 and max(shares[-15:]) < TARGET - BELOW and decreases:
                lower = max(least, capacity * max(shares[-15:]) / TARGET)
                decreases -= lower < capacity
                capacity = lower
                shares.clear()
    return taken / provided, refused / (taken + refused)


def main() -> None:
    print("| busiest minute against the day's mean | TableUnits | used | refused |")
    print("|---|---|---|---|")
    for peak in (1.5, 2, 3):
        for most in (500, 1000):
            share, refused = used(day(peak), UNITS, most)
            print(f"| {peak:g} | {most} | {share:.0%} | {refused:.1%} |")


if __name__ == "__main__":
    main()

"""Chooses a tuning job's next trial by Optuna over the request's ranges; decides which trials stop early."""

import contextlib
import hashlib
import itertools
from statistics import fmean, median
from typing import Any

from localsagemaker.wire import Json, invalid

PREVIOUS = 3  # trials that must have ended before one is stopped early
AUTO_LOGARITHMIC = 100  # ScalingType Auto is logarithmic from this ratio of the largest to the smallest value on


class Search:
    """Optuna's search over a job's ranges: Tree-structured Parzen estimators for Bayesian, random, or a grid.

    Hyperparameters are text, as in SageMaker. The seed is the request's, else the job's name.
    """

    def __init__(self, config: Json, name: str) -> None:
        import optuna  # imported here, so that the emulator starts faster

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ranges = {one["Name"]: one for one in all_ranges(config)}
        self.distributions = {name: distribution(one) for name, one in self.ranges.items()}
        digest = hashlib.sha256(name.encode()).digest()
        seed = config.get("RandomSeed", int.from_bytes(digest[:4], "big"))
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if config["Strategy"] == "Bayesian":
            # Random until there is one more trial than dimensions, including the parents' trials.
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=len(self.ranges) + 1)
        direction = config["HyperParameterTuningJobObjective"]["Type"].lower()
        self.study = optuna.create_study(sampler=sampler, direction=direction)
        if config["Strategy"] == "Grid":
            for point in itertools.product(*(one["Values"] for one in self.ranges.values())):
                self.study.enqueue_trial(dict(zip(self.ranges, point, strict=True)))

    def ask(self) -> tuple[int, dict[str, str]]:
        """A number for the next trial, and its hyperparameters."""
        trial = self.study.ask(self.distributions)
        return trial.number, {name: as_text(self.ranges[name], value) for name, value in trial.params.items()}

    def tell(self, number: int, value: float | None) -> None:
        """Reports a trial's value; None when it failed."""
        import optuna

        self.study.tell(number, value, state=optuna.trial.TrialState.FAIL if value is None else None)

    def remember(self, hyperparameters: dict[str, str], value: float) -> None:
        """Adds a trial of an earlier job, unless it is outside the ranges of this one."""
        import optuna

        with contextlib.suppress(KeyError, ValueError):
            params = {name: as_value(one, hyperparameters[name]) for name, one in self.ranges.items()}
            self.study.add_trial(
                optuna.trial.create_trial(params=params, distributions=self.distributions, value=value)
            )


def all_ranges(config: Json) -> list[Json]:
    """Every range, with its kind."""
    ranges = config["ParameterRanges"]
    kinds = ("Continuous", "Integer", "Categorical")
    return [{**one, "Kind": kind} for kind in kinds for one in ranges.get(f"{kind}ParameterRanges", [])]


def bounds(one: Json) -> tuple[float, float]:
    """Raises ServiceError."""
    number = int if one["Kind"] == "Integer" else float
    try:
        return number(one["MinValue"]), number(one["MaxValue"])
    except ValueError as error:
        raise invalid(f"the range of {one['Name']} is not one of {one['Kind'].lower()} numbers: {error}") from error


def scaling(one: Json) -> str:
    low, high = bounds(one)
    asked: str = one.get("ScalingType", "Auto")
    if asked != "Auto":
        return asked
    return "Logarithmic" if low > 0 and high / low >= AUTO_LOGARITHMIC else "Linear"


def distribution(one: Json) -> Any:
    from optuna import distributions

    if one["Kind"] == "Categorical":
        return distributions.CategoricalDistribution(one["Values"])
    low, high = bounds(one)
    if one["Kind"] == "Integer":
        return distributions.IntDistribution(int(low), int(high), log=scaling(one) == "Logarithmic")
    if scaling(one) == "ReverseLogarithmic":
        return distributions.FloatDistribution(from_one(high), from_one(low), log=True)
    return distributions.FloatDistribution(low, high, log=scaling(one) == "Logarithmic")


def from_one(value: float) -> float:
    """Distance from 1, rounded so that applying it twice gives the original value."""
    return round(1 - value, 15)


def as_text(one: Json, value: float | str) -> str:
    if one["Kind"] == "Continuous" and scaling(one) == "ReverseLogarithmic":
        return repr(from_one(float(value)))
    return str(value)


def as_value(one: Json, text: str) -> float | str:
    """Raises ValueError."""
    if one["Kind"] == "Categorical":
        return text
    if one["Kind"] == "Integer":
        return int(text)
    return from_one(float(text)) if scaling(one) == "ReverseLogarithmic" else float(text)


def worse_than_median(own: list[float], previous: list[list[float]], minimize: bool) -> bool:
    """The median rule as SageMaker documents it: whether the newest value is worse than the median, over the previous
    trials, of the averages of their values up to the same point."""
    averages = [fmean(series[: len(own)]) for series in previous if len(series) >= len(own) > 0]
    if len(averages) < PREVIOUS:
        return False
    return own[-1] > median(averages) if minimize else own[-1] < median(averages)


def check_scaling(one: Json) -> None:
    low, high = bounds(one)
    if not low <= high:
        raise invalid(f"MinValue of {one['Name']} is greater than its MaxValue.")
    if scaling(one) == "Logarithmic" and low <= 0:
        raise invalid(f"Logarithmic scaling of {one['Name']} needs values greater than 0.")
    if scaling(one) == "ReverseLogarithmic" and (one["Kind"] == "Integer" or not 0 <= low <= high < 1):
        raise invalid(f"ReverseLogarithmic scaling of {one['Name']} needs a continuous range within 0 <= x < 1.")

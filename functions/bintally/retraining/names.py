"""The names, addresses and job settings of a retraining run. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from bintally.common.errors import BintallyError

TUNED = ("learning-rate", "weight-decay", "augmentation", "batch-size")
"""The hyperparameters that the tuning job searches; learning rate and batch size only if none is given."""
LONGEST_STACK_NAME = 18
"""Characters: a tuning job's name `<stack>-<run>` has at most 32."""


class Refused(BintallyError):
    """The run cannot start; `error` is the error's name in the execution, the message says why."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def check_stack_name(stack: str) -> None:
    """Raises Refused for a name under which no retraining could run."""
    if len(stack) > LONGEST_STACK_NAME:
        raise Refused(
            "InvalidInput",
            f"the stack name {stack} has {len(stack)} characters. Retraining takes at most {LONGEST_STACK_NAME},"
            " since a tuning job's name has at most 32. Deploy under a shorter name.",
        )


def run_of(execution: str, started: datetime) -> str:
    """The run of an execution, `YYMMDD-xxxxxx`; always the same for the same execution."""
    digest = hashlib.sha256(execution.encode()).hexdigest()[:6]
    return f"{started.astimezone(UTC):%y%m%d}-{digest}"


def version_of(run: str) -> str:
    """The model version that a run creates: `20YY-MM-DD-xxxxxx`."""
    return f"20{run[:2]}-{run[2:4]}-{run[4:6]}-{run[7:]}"


def run_of_version(version: str) -> str | None:
    """The run that created a model version; None when no run did."""
    found = re.fullmatch(r"20(\d\d)-(\d\d)-(\d\d)-([0-9a-f]{6})", version)
    return f"{found[1]}{found[2]}{found[3]}-{found[4]}" if found else None


@dataclass(frozen=True)
class Names:
    """The names of a run's jobs; a tuning job's name is also the prefix of its trials' names."""

    process: str
    tune: str
    train: str
    champion: str
    challenger: str
    evaluate: str

    @classmethod
    def of(cls, stack: str, run: str) -> "Names":
        parts = {field.name: f"{stack}-{run}-{field.name}" for field in fields(cls)}
        return cls(**(parts | {"tune": f"{stack}-{run}"}))


@dataclass(frozen=True)
class Knobs:
    """The settings of one run that a person may give; the template's parameters are the defaults."""

    epochs: int
    sizes: str
    """Input sizes in pixels, separated by commas; each is used for an equal part of the epochs."""
    trials: int
    """Trials of the tuning job; 0 uses the defaults of training/train.py."""
    parallel: int
    instances: int
    """Instances of the training job."""
    start: str
    """Initial weights: `champion` or `scratch`."""
    learning_rate: str = ""
    """If given, it is not tuned; if empty, tuning finds it, or training/train.py uses its default."""
    batch_size: int = 0
    """Photographs a step. If 0, as with an empty `learning_rate`."""
    calibration_photographs: int = 512
    seed: int = 0

    def with_(self, wanted: Mapping[str, Any]) -> "Knobs":
        """Raises Refused for an unknown setting or an invalid value."""
        return replace(self, **checked(wanted))

    def hyperparameters(self, version: str, champion: str) -> dict[str, str]:
        """The flags of training/train.py, as SageMaker passes them.

        Every run has the same names, otherwise a tuning job could not start from an earlier one."""
        found = {
            "epochs": str(self.epochs),
            "sizes": self.sizes,
            "seed": str(self.seed),
            "calibration-photographs": str(self.calibration_photographs),
            "model-version": version,
            "parent": champion if self.start == "champion" else "none",
        }
        chosen = {"learning-rate": self.learning_rate, "batch-size": str(self.batch_size or "")}
        return found | {name: value for name, value in chosen.items() if value}


RANGES = {
    **{"epochs": (1, 1000), "trials": (0, 100), "parallel": (1, 10), "instances": (1, 20)},  # as in the template
    **{"batch_size": (0, 1024), "calibration_photographs": (1, 100_000), "seed": (0, 999_999)},
}
"""The least and the greatest of each setting that is a whole number."""
STARTS = ("champion", "scratch")
SIZES = (32, 512)
"""In pixels: the network halves a picture five times; it was never trained on larger ones."""


def checked(wanted: object) -> dict[str, Any]:
    """The settings that a person gave for one run, by name, as Knobs has them: numbers may be text and text numbers.

    Raises Refused for an unknown setting or an invalid value.
    """
    if not isinstance(wanted, Mapping):
        raise Refused("InvalidInput", f"settings have names and values, not {wanted!r}")
    known = [field.name for field in fields(Knobs)]
    if unknown := sorted(str(name) for name in wanted.keys() - {*known}):
        hint = ""
        if any("instance_type" in name.lower().replace("-", "_") for name in unknown):
            hint = ". Instance types are parameters of the stack, such as TrainingInstanceType"
        raise Refused("InvalidInput", f"no such settings: {', '.join(unknown)}; there are {', '.join(known)}{hint}")
    return {name: value_of(name, value) for name, value in wanted.items()}


def value_of(name: str, value: object) -> int | str:
    """Raises Refused."""
    text = "" if value is None or isinstance(value, bool) else str(value).strip()
    if name in RANGES:
        low, high = RANGES[name]
        if re.fullmatch(r"\d{1,9}(\.0)?", text) and low <= int(float(text)) <= high:
            return int(float(text))
        raise Refused("InvalidInput", f"{name} is a whole number from {low} to {high}, not {value!r}")
    if name == "start":
        if text in STARTS:
            return text
        raise Refused("InvalidInput", f"start is {' or '.join(STARTS)}, not {value!r}")
    if name == "sizes":
        if re.fullmatch(r"\d{2,3}(,\d{2,3})*", text) and all(
            SIZES[0] <= int(size) <= SIZES[1] for size in text.split(",")
        ):
            return text
        message = f"sizes are from {SIZES[0]} to {SIZES[1]} pixels with commas between, such as 96,128, not {value!r}"
        raise Refused("InvalidInput", message)
    if re.fullmatch(r"(\d*\.?\d+|\d+\.)(e-?\d+)?", text, re.IGNORECASE) and 0 < float(text) <= 1:
        return text
    raise Refused("InvalidInput", f"learning_rate is a number above 0, at most 1, not {value!r}")


@dataclass(frozen=True)
class Places:
    """The keys of a run's files in the artifacts bucket."""

    run: str

    @property
    def folder(self) -> str:
        return f"retrain/{self.run}"

    @property
    def temporary(self) -> str:
        """Of what no other run can use: checkpoints, the trials' models, the parts of which the dataset was made."""
        return f"checkpoints/{self.run}"

    @property
    def manifest(self) -> str:
        return f"{self.folder}/manifest.jsonl"

    @property
    def dataset(self) -> str:
        return f"{self.folder}/dataset"

    @property
    def verdict(self) -> str:
        return f"{self.folder}/verdict.json"


def process_arguments(
    bucket: str, places: Places, *, previous: str, reference: str, bad_share: str, stored_between: tuple[str, ...] = ()
) -> list[str]:
    """The command line of training/process.py; `previous` and `reference` are keys, or empty."""
    base = f"s3://{bucket}/"
    found = ["--manifest", base + places.manifest, "--dataset", base + places.dataset]
    found += ["--parts", f"{base}{places.temporary}/parts", "--shards", f"{base}datasets", "--bad-share", bad_share]
    found += ["--previous", base + previous] if previous else []
    found += ["--stored-between", *stored_between] if stored_between else []
    return found + (["--reference", base + reference] if reference else [])

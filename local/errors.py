"""The errors of the local stack; they are those of every stack."""

from deployed.errors import (
    DeployFailed,
    HomeUnusable,
    NotRunning,
    NotStored,
    PackageMissing,
    PortTaken,
    ReconcileFailed,
    ReleaseFailed,
    StackError,
    WrongSetting,
)

__all__ = [
    "DeployFailed",
    "HomeUnusable",
    "NotRunning",
    "NotStored",
    "PackageMissing",
    "PortTaken",
    "ReconcileFailed",
    "ReleaseFailed",
    "StackError",
    "WrongSetting",
]

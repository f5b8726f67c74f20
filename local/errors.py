"""The errors of the local stack; they are those of every stack."""

from deployed.errors import DeployFailed, NotRunning, PackageMissing, PortTaken, ReleaseFailed, StackError

__all__ = ["DeployFailed", "NotRunning", "PackageMissing", "PortTaken", "ReleaseFailed", "StackError"]

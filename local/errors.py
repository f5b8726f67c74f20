"""What can go wrong with the local stack. Each message is one line for the person at the terminal.

StackError
├── NotRunning        the emulator does not answer
├── PortTaken         another program has the port
├── PackageMissing    there is no model package to release
├── DeployFailed      `sam build` or `sam deploy` failed
└── ReleaseFailed     the release state machine did not succeed
"""


class StackError(Exception):
    """The local stack could not do what was asked."""


class NotRunning(StackError):
    """The emulator does not answer."""


class PortTaken(StackError):
    """Another program listens on the stack's port."""


class PackageMissing(StackError):
    """There is no model package, or it cannot be read."""


class DeployFailed(StackError):
    """`sam build` or `sam deploy` ended with an error."""


class ReleaseFailed(StackError):
    """The release state machine did not succeed."""

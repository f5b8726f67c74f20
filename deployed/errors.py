"""Errors of a stack. Each message is one line for the person at the terminal.

StackError
├── NotRunning        the local stack does not answer
├── NotDeployed       there is no stack of this name in the account and region
├── NoAccess          no credentials, an expired session, unknown keys, no region
├── Denied            a permission is missing
├── ApiRefused        the stack's HTTP API refused a request
├── WrongSetting      a variable has a value that nothing can be done with
├── HomeUnusable      the local stack's folder cannot be read or written
├── NotStored         the disk has too little room, or the state could not be saved
├── PortTaken         another program uses the port
├── PackageMissing    there is no model package to release
├── DeployFailed      a tool is missing, `docker`, `sam build` or `sam deploy` failed
├── DestroyFailed     something of the stack could not be removed
├── ForgetFailed      something of a bin could not be removed
├── ReleaseFailed     the release state machine did not succeed
└── ReconcileFailed   the reconcile state machine did not succeed
"""


class StackError(Exception):
    """Base of all errors of a stack."""


class NotRunning(StackError):
    """The emulator does not answer."""


class NotDeployed(StackError):
    """There is no stack of this name in the account and region."""


class NoAccess(StackError):
    """AWS cannot identify the caller: no credentials, an expired session, unknown keys, no region."""


class Denied(StackError):
    """The caller lacks a permission: `action`, on `resource` where AWS names it."""

    def __init__(self, action: str, resource: str = "") -> None:
        self.action, self.resource = action, resource
        on = f" on {resource}" if resource else ""
        super().__init__(
            f"access denied. Missing permission: {action}{on}. docs/operations.md lists policies to attach"
        )


class ApiRefused(StackError):
    """The HTTP API refused a request; `code` is for programs."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class WrongSetting(StackError):
    """A variable has a value that nothing can be done with."""


class HomeUnusable(StackError):
    """The local stack's folder cannot be read or written."""


class NotStored(StackError):
    """The disk has too little room, or the state could not be saved."""


class PortTaken(StackError):
    """Another program listens on the stack's port."""


class PackageMissing(StackError):
    """There is no model package, or it cannot be read."""


class DeployFailed(StackError):
    """A tool is missing, or `docker`, `sam build` or `sam deploy` ended with an error."""


class DestroyFailed(StackError):
    """Something of the stack could not be removed; a second run goes on."""


class ForgetFailed(StackError):
    """Something of a bin could not be removed."""


class ReleaseFailed(StackError):
    """The release state machine did not succeed."""


class ReconcileFailed(StackError):
    """The reconcile state machine did not succeed."""

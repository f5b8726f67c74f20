"""A command's failures: one clear line and an exit code.

botocore is imported only after a failure, so that `bintally --help` stays quick.
"""

import click

from deployed.errors import NotDeployed, NotRunning, PackageMissing, PortTaken, StackError

FAILED, USAGE, NOT_RUNNING, PORT_TAKEN, PACKAGE_MISSING = 1, 2, 3, 4, 5
INTERRUPTED = 130  # as a shell reports Ctrl-C


class CliError(click.ClickException):
    """One line for the person at the terminal. `exit_code`: 1 failed, 2 usage, 3 no such stack runs,
    4 port taken, 5 model package missing."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


EXIT_CODES: dict[type[StackError], int] = {
    NotRunning: NOT_RUNNING,
    NotDeployed: NOT_RUNNING,
    PortTaken: PORT_TAKEN,
    PackageMissing: PACKAGE_MISSING,
}


def failures() -> tuple[type[Exception], ...]:
    """The errors that `of_failure` accepts."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (StackError, BotoCoreError, ClientError)


def of_failure(error: Exception) -> CliError:
    """A failure of the stack, or of an AWS client, as one line and an exit code."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, BotoCoreError | ClientError):
        from cli.stacks import chosen
        from deployed.access import explain

        found = explain(error)
        return CliError(f"{found}{chosen().hint if type(found) is StackError else ''}")
    assert isinstance(error, StackError)
    return CliError(str(error), EXIT_CODES.get(type(error), FAILED))

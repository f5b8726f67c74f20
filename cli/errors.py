"""A command's failures: one clear line and an exit code.

botocore is imported only after a failure, so that `bintally --help` stays quick.
"""

import errno

import click

from deployed.errors import NotDeployed, NotRunning, PackageMissing, PortTaken, StackError, WrongSetting

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
    WrongSetting: USAGE,
}


CURES = {
    errno.ENOSPC: ". Free some space on that disk, then run it again",
    errno.EDQUOT: ". Free some space in your quota, then run it again",
    errno.EROFS: ". The local stack's folder must allow writing: set BINTALLY_HOME to another one",
    errno.EACCES: ". Allow reading and writing there, or set BINTALLY_HOME to a folder of your own",
}


def failures() -> tuple[type[Exception], ...]:
    """The errors that `of_failure` accepts."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (StackError, BotoCoreError, ClientError, OSError)


def of_failure(error: Exception) -> CliError:
    """A failure of the stack, or of an AWS client, as one line and an exit code."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, BotoCoreError | ClientError):
        from cli.stacks import chosen
        from deployed.access import explain

        found = explain(error)
        return CliError(f"{found}{chosen().hint if type(found) is StackError else ''}")
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            raise error  # the reader of the output has gone: click ends the command without a word
        place = f"{error.filename}: " if error.filename else ""
        return CliError(f"{place}{error.strerror or error}{CURES.get(error.errno or 0, '')}")
    assert isinstance(error, StackError)
    return CliError(str(error), EXIT_CODES.get(type(error), FAILED))

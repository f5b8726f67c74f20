"""What a command says when it cannot do its work: one clear line and an exit code."""

import click

from local.errors import NotRunning, PackageMissing, PortTaken, StackError

FAILED, USAGE, NOT_RUNNING, PORT_TAKEN, PACKAGE_MISSING = 1, 2, 3, 4, 5


class CliError(click.ClickException):
    """One line for the person at the terminal. `exit_code`: 1 failed, 2 usage, 3 stack not running,
    4 port taken, 5 model package missing."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


EXIT_CODES: dict[type[StackError], int] = {
    NotRunning: NOT_RUNNING,
    PortTaken: PORT_TAKEN,
    PackageMissing: PACKAGE_MISSING,
}


def of_stack_error(error: StackError) -> CliError:
    return CliError(str(error), EXIT_CODES.get(type(error), FAILED))

"""The steps of a long command; and a progress bar for a person at a terminal, nothing for a file or a program."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

COLUMNS = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@contextlib.contextmanager
def progress_bar(console: Console, description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each of `total` steps. The bar disappears at the end."""
    if not console.is_interactive:  # rich would leave an empty line
        yield lambda: None
        return
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def steps(console: Console) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with each step. It shows the step while it runs and, with its seconds, when it is done,
    which is when the next one begins. Of a step that fails no line is printed."""
    done: list[tuple[str, float]] = []

    def finish() -> None:
        if done:
            step, since = done[-1]
            seconds = time.monotonic() - since
            console.print(f"[green]✓[/] {escape(step)} [dim]{seconds:.1f} s[/]", highlight=False, soft_wrap=True)

    with console.status("") as status:

        def say(step: str) -> None:
            finish()
            status.update(escape(step))
            done.append((step, time.monotonic()))

        yield say
        finish()


def noting(console: Console) -> Callable[[str], None]:
    """A function that prints a line between steps."""
    return lambda line: console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)

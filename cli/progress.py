"""A progress bar for a person at a terminal; nothing where the output goes to a file or a program."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
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

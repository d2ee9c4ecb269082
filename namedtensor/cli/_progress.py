"""Progress of builds on a terminal, a line for each target and each long step; in a pipe there is none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namedtensor.compilers import OnProgress, Progress


@contextlib.contextmanager
def shown() -> Iterator[OnProgress]:
    """Gives what is to be called with progress, from any thread."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Lines

    console = Console(stderr=True)
    columns: tuple[ProgressColumn, ...]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    one_at_a_time = threading.Lock()
    columns = (*columns, TextColumn("{task.fields[note]}"))
    with Lines(*columns, console=console, transient=True, disable=not console.is_terminal) as lines:
        tasks: dict[str, TaskID] = {}

        def on_progress(progress: Progress) -> None:
            with one_at_a_time:
                if progress.what not in tasks:
                    tasks[progress.what] = lines.add_task(progress.what, total=progress.total, note="")
                lines.update(tasks[progress.what], completed=progress.done, total=progress.total, note=progress.note)

        yield on_progress

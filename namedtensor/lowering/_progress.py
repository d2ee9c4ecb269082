"""Progress of compilation on stderr, where that is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """How many of `total` variants are compiled, and which one is in work."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._total, self._wanted, self._begun = total, wanted, 0
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        if self._wanted:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            console = Console(stderr=True)
            if console.is_terminal:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
                self._progress = Progress(*columns, console=console, transient=True)
                self._progress.start()
                self._task = self._progress.add_task("compiling", total=self._total)
        return self

    def at(self, name: str) -> None:
        """The variant whose turn it is; those before it are done."""
        if self._progress is not None:
            self._progress.update(self._task, description=f"compiling {name}", completed=self._begun)
            self._begun += 1

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

"""Progress of compilation on stderr, where that is a terminal and it takes more than a second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 1.0  # seconds


class Bar:
    """How many of `total` variants are compiled, and which one is in work."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._total, self._begun, self._name = total, 0, ""
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        # The compiler holds the calling thread, so another one brings the bar up.
        self._timer = threading.Timer(_PATIENCE, self._start) if wanted else None

    def __enter__(self) -> Bar:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def at(self, name: str) -> None:
        """The variant whose turn it is; those before it are done."""
        with self._lock:
            self._name = name
            self._show()
            self._begun += 1

    def _show(self) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=f"compiling {self._name}", completed=self._begun)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with self._lock:
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task(f"compiling {self._name}", total=self._total)
            self._progress.update(self._task, completed=max(self._begun - 1, 0))
            self._progress.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._progress is not None:
            self._progress.stop()

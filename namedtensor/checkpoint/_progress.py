"""A progress bar for loading: on a terminal, and only when there is time to read it."""

import sys
import threading
from collections.abc import Callable

_PATIENCE_S = 1.0
_REFRESH_S = 0.1


class Bar:
    """Bytes, rate and time left on stderr, until an event is set."""

    @staticmethod
    def watch(done: threading.Event, progress: Callable[[], tuple[int, int]]) -> None:
        """Draw in the background if stderr is a terminal and `done` is not set within a second."""
        if sys.stderr is not None and sys.stderr.isatty():
            threading.Thread(target=_draw, args=(done, progress), name="nt.load.progress", daemon=True).start()


def _draw(done: threading.Event, progress: Callable[[], tuple[int, int]]) -> None:
    if done.wait(_PATIENCE_S):
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("loading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        loaded, total = progress()
        task = bar.add_task("", total=total, completed=loaded)
        while not done.wait(_REFRESH_S):
            loaded, total = progress()
            bar.update(task, completed=loaded, total=total)

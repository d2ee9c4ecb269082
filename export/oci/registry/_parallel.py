"""Several pieces of work at once, which stop together when one fails or the user has enough."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from namedtensor.export.oci.registry._errors import Cancelled

# How long the others get to put down where they stand.
_GRACE_S = 2.0
_WAKE_S = 0.5


def each[Item, Result](
    work: Callable[[Item], Result], items: Sequence[Item], count: int, cancelled: threading.Event
) -> list[Result]:
    """`work` of every item, `count` at once, in the items' order. The first error ends all and is raised.

    The threads are daemons: one that waits for a registry must not keep an interrupted program alive.
    """
    results: dict[int, Result] = {}
    errors: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    waiting = iter(enumerate(items))
    lock = threading.Lock()

    def run() -> None:
        while not cancelled.is_set():
            with lock:
                at, item = next(waiting, (-1, None))
            if item is None:
                break
            try:
                results[at] = work(item)
            except BaseException as error:
                errors.put(error)
                return
        errors.put(None)

    threads = [threading.Thread(target=run, name="nt.push", daemon=True) for _ in range(min(count, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            error = _next(errors)
            if error is not None:
                raise error
    except BaseException:
        cancelled.set()
        for thread in threads:
            thread.join(_GRACE_S / len(threads))
        raise
    if cancelled.is_set():
        raise Cancelled("cancelled")
    return [results[at] for at in range(len(items))]


def _next(errors: queue.SimpleQueue[BaseException | None]) -> BaseException | None:
    """What comes next. Python raises an interruption between its own steps only: one that arrives just before a wait
    begins is not noticed until that ends."""
    while True:
        try:
            return errors.get(timeout=_WAKE_S)
        except queue.Empty:
            continue

"""When to try again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from namedtensor.export.oci.registry import Patience, RegistryError
from namedtensor.export.oci.registry._errors import Cancelled
from namedtensor.export.oci.registry._patience import Interruption, retry_after


class Clock(threading.Event):
    """Notes how long it is waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def test_pauses_grow_up_to_the_longest() -> None:
    clock = Clock()
    waiter = Patience(attempts=7, first_s=1, longest_s=4).waiter(clock)
    for _ in range(6):
        waiter.wait(Interruption("cut"))
    for pause, longest in zip(clock.waits, (1, 2, 4, 4, 4, 4), strict=True):
        assert longest / 2 <= pause <= longest
    with pytest.raises(RegistryError, match=r"cut \(tried 7 times\)"):
        waiter.wait(Interruption("cut"))


def test_progress_begins_the_count_anew() -> None:
    clock = Clock()
    waiter = Patience(attempts=2, first_s=1).waiter(clock)
    for _ in range(9):
        waiter.wait(Interruption("cut"))
        waiter.progress()
    assert max(clock.waits) <= 1


def test_what_the_registry_asks_for_is_waited_for_within_bounds() -> None:
    clock = Clock()
    waiter = Patience(asked_s=60).waiter(clock)
    waiter.wait(Interruption("busy", 429, after=60))
    assert clock.waits == [60]
    with pytest.raises(RegistryError, match="busy; it asks to come back in 61 s"):
        waiter.wait(Interruption("busy", 429, after=61))


def test_a_cancelled_wait_ends() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        Patience(first_s=1000, longest_s=1000).waiter(cancelled).wait(Interruption("cut"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), (" 12 ", 12), ("", None), ("soon", None), ("-1", None), ("1e9", None), ("9" * 40, None), ("١", None)],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}) == seconds


def test_retry_after_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = retry_after({"retry-after": later})
    assert found is not None
    assert 90 < found <= 100
    assert retry_after({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    assert retry_after({}) is None

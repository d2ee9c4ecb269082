"""When to try again, and when to stop: what is worth a second attempt, how long to wait, for how long in all."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from namedtensor.export.oci.registry._errors import Cancelled, RegistryError

# Statuses that pass by themselves: RFC 9110 and RFC 6585.
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Interruption(RegistryError):
    """Something that may well go right the next time. `after` is how many seconds the registry asks to wait."""

    def __init__(self, message: str, status: int | None = None, after: float | None = None) -> None:
        super().__init__(message, status)
        self.after = after


@dataclass(frozen=True, slots=True)
class Patience:
    """How much a client puts up with.

    `attempts` in a row without progress; between them `first_s`, doubled each time up to `longest_s`, but as long as
    the registry asks for up to `asked_s`.
    """

    attempts: int = 7
    first_s: float = 0.5
    longest_s: float = 15.0
    asked_s: float = 120.0

    def waiter(self, cancelled: threading.Event) -> Waiter:
        return Waiter(self, cancelled)


class Waiter:
    """The waits of one piece of work."""

    def __init__(self, patience: Patience, cancelled: threading.Event) -> None:
        self._patience = patience
        self._cancelled = cancelled
        self._failures = 0

    def progress(self) -> None:
        """Something went right: the next failure counts as the first."""
        self._failures = 0

    def wait(self, error: Interruption) -> None:
        """Wait before the next attempt. Raises `RegistryError` where there is to be none."""
        self._failures += 1
        if self._failures >= self._patience.attempts:
            raise RegistryError(f"{error.headline} (tried {self._failures} times)", error.status) from error
        if error.after is not None and error.after > self._patience.asked_s:
            raise RegistryError(
                f"{error.headline}; it asks to come back in {error.after:.0f} s", error.status
            ) from error
        longest = min(self._patience.longest_s, self._patience.first_s * 2 ** (self._failures - 1))
        # Spread out, so that many clients that were turned away together do not return together.
        pause = error.after if error.after is not None else longest * random.uniform(0.5, 1.0)
        if self._cancelled.wait(pause):
            raise Cancelled("cancelled") from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header: a number of them, or a date (RFC 9110, 10.2.3). None where it says neither."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None

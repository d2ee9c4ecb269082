"""Reading a `config.json`: every key is checked for what it must be, and refused by name where it is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import namedtensor as nt

_LARGEST = 1 << 31
# Tokenizers without a limit of their own are said to take 10^30 tokens.
_FAR = 1e32


@dataclass(frozen=True)
class Fields:
    """The keys of one configuration file; a key that is null counts as absent. `file` names it in messages."""

    file: str
    given: Mapping[str, Any]

    @classmethod
    def of(cls, ckpt: nt.Checkpoint, file: str) -> Fields:
        """The object in a JSON file beside the weights."""
        value = ckpt.json(file)
        if not isinstance(value, dict):
            raise nt.ModelError(f"{file}: an object is needed, this holds a {type(value).__name__}")
        return cls(file, {key: item for key, item in value.items() if item is not None})

    def inside(self, key: str) -> Fields:
        """The object under `key`; empty where there is none."""
        value = self.given.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, "must be an object")
        return Fields(f"{self.file}: {key}", {name: item for name, item in value.items() if item is not None})

    def whole(self, key: str, default: int | None = None, *, least: int = 1, most: int = _LARGEST) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, f"must be a whole number from {least} to {most}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _FAR:
            self.refuse(key, "must be a number above 0")
        return float(value)

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self._value(key, default)
        if not isinstance(value, (list, tuple)) or not value:
            self.refuse(key, "must be a list of numbers")
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= _FAR for v in value):
            self.refuse(key, "must be a list of numbers")
        return tuple(float(v) for v in value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def choice(self, key: str, default: str | None, implemented: Collection[str]) -> str:
        """Text that is one of what is implemented."""
        value = self._value(key, default)
        if value not in implemented:
            raise nt.ModelError(
                f"{self.file}: {key} {_short(value)} is not implemented; implemented: {', '.join(implemented)}"
            )
        return str(value)

    def neutral(self, **absent: Any) -> None:
        """Refuse keys that would change what is computed: each may be absent, or hold the value given here."""
        for key, value in absent.items():
            if self.given.get(key, value) != value:
                self.refuse(key, "is not implemented")

    def refuse(self, key: str, problem: str) -> NoReturn:
        found = f", it is {_short(self.given[key])}" if key in self.given else ""
        raise nt.ModelError(f"{self.file}: {key} {problem}{found}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.given.get(key, default)
        if value is None:
            raise nt.ModelError(f"{self.file}: {key} is missing")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."

"""How the next token is chosen: settings, their ranges, and where they are written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from namedtensor._errors import InputError, ModelError, NamedTensorError, closest


@dataclass(frozen=True)
class Sampling:
    """Settings of `nn.sample` and `nn.repetition_penalty`; these values turn them off.

    - `temperature`: 0 takes the likeliest token, 1 draws with the model's probabilities; at least 0.
    - `top_k`: draw from so many of the likeliest tokens; 0 for all.
    - `top_p`: draw from the likeliest tokens that have this much probability together; 0 to 1.
    - `min_p`: draw from tokens at least this many times as likely as the likeliest; 0 to 1.
    - `repetition_penalty`: above 1 makes tokens that occurred less likely; above 0.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, generation: Mapping[str, Any]) -> Self:
        """The settings in a `generation_config.json`. Raises `ModelError` where one is out of range."""
        names = [field.name for field in dataclasses.fields(cls)]
        given = {name: generation[name] for name in names if generation.get(name) is not None}
        if generation.get("do_sample") is not True:
            given = {name: value for name, value in given.items() if name == "repetition_penalty"}
        else:
            given.setdefault("temperature", 1.0)
        return cls()._changed(given, "generation_config.json: ", ModelError)

    def replace(self, **settings: Any) -> Self:
        """The same with some settings changed; None leaves one as it is. Raises `InputError` for one out of range."""
        return self._changed({k: v for k, v in settings.items() if v is not None}, "", InputError)

    def settings(self) -> dict[str, Any]:
        """Inputs of the entry point `sample`, as scalars of its types."""
        return {
            name: np.int32(value) if name == "top_k" else np.float32(value)
            for name, value in dataclasses.asdict(self).items()
        }

    def _changed(self, given: Mapping[str, Any], where: str, kind: type[NamedTensorError]) -> Self:
        for name, value in given.items():
            if name not in _RANGES:
                guess = closest(name, _RANGES)
                hint = f"did you mean {guess!r}?" if guess else f"settings: {', '.join(_RANGES)}"
                raise kind(f"{where}there is no setting {name!r}; {hint}")
            low, high, open_below = _RANGES[name]
            types = int if name == "top_k" else (int, float)
            number = isinstance(value, types) and not isinstance(value, bool)
            if not number or not low <= value <= high or (open_below and value == low):
                whole = "a whole number" if name == "top_k" else "a number"
                bound = f"above {low:g}" if open_below else f"from {low:g}"
                upto = "" if high > 1e6 else f" to {high:g}"
                raise kind(f"{where}{name} must be {whole} {bound}{upto}, not {value!r}")
        return dataclasses.replace(self, **given)


_RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 1e9, False),
    "top_k": (0, (1 << 31) - 1, False),
    "top_p": (0, 1, False),
    "min_p": (0, 1, False),
    "repetition_penalty": (0, 1e9, True),
}

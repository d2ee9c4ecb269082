"""Rotary position embedding, and its extensions to longer contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from namedtensor._errors import AxisError, ModelError, describe, fail
from namedtensor._join import concat, stack
from namedtensor._module import Module
from namedtensor._tensor import Tensor, wrap

_IMPLEMENTED = ("default", "linear", "llama3", "yarn")


class Rope(Module):
    """Rotary position embedding (RoFormer, arXiv 2104.09864): pairs of components turn with the position.

    - `frequencies`: radians per position, one for each pair of components.
    - `scale`: factor on the result; YaRN's attention factor, 1 otherwise.
    - `interleaved`: pairs are neighbours (0, 1), (2, 3), ... as in the paper and in GGUF's Llama. Otherwise component i
      is paired with i + n/2, as in transformers.

    All of it is configuration: a model that holds one has no weights in it.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0
    interleaved: bool = False

    @classmethod
    def default(cls, size: int, theta: float = 10000.0, *, interleaved: bool = False) -> Self:
        """Frequencies theta^(-2i/size) for the `size` components of a head."""
        return cls(_constant(_geometric(size, theta)), interleaved=interleaved)

    @classmethod
    def linear(cls, size: int, theta: float = 10000.0, *, factor: float, interleaved: bool = False) -> Self:
        """Position interpolation (arXiv 2306.15595): every frequency divided by `factor`."""
        _at_least("factor", factor, 1.0)
        return cls(_constant(_geometric(size, theta) / np.float32(factor)), interleaved=interleaved)

    @classmethod
    def llama3(
        cls,
        size: int,
        theta: float = 10000.0,
        *,
        factor: float,
        original_context: int,
        low_frequency: float = 1.0,
        high_frequency: float = 4.0,
        interleaved: bool = False,
    ) -> Self:
        """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, those between blended.

        `low_frequency` and `high_frequency` bound the blend, in turns over `original_context` positions.
        """
        _at_least("factor", factor, 1.0)
        _at_least("original_context", original_context, 1)
        _at_least("low_frequency", low_frequency, 0.0)
        if not high_frequency > low_frequency:
            _bad(f"high_frequency ({high_frequency}) must be above low_frequency ({low_frequency})")
        plain = _geometric(size, theta)
        turns = np.float32(original_context) * plain / np.float32(2 * math.pi)
        kept = np.clip((turns - low_frequency) / (high_frequency - low_frequency), 0, 1).astype(np.float32)
        return cls(_constant((1 - kept) * (plain / np.float32(factor)) + kept * plain), interleaved=interleaved)

    @classmethod
    def yarn(
        cls,
        size: int,
        theta: float = 10000.0,
        *,
        factor: float,
        original_context: int,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        attention_factor: float | None = None,
        truncate: bool = True,
        interleaved: bool = False,
    ) -> Self:
        """YaRN (arXiv 2309.00071): pairs that turn more than `beta_fast` times over `original_context` positions keep
        their frequency, those that turn less than `beta_slow` times have it divided by `factor`, with a ramp between.

        `attention_factor` multiplies queries and keys; by default 0.1 ln(factor) + 1. `truncate` widens the ramp to
        whole pairs, as the paper's code does.
        """
        _at_least("factor", factor, 1.0)
        _at_least("original_context", original_context, 1)
        _at_least("beta_slow", beta_slow, 0.0, above=True)
        _at_least("beta_fast", beta_fast, beta_slow)
        if attention_factor is None:
            attention_factor = yarn_attention(factor)
        _at_least("attention_factor", attention_factor, 0.0, above=True)
        if not theta > 1:
            _bad(f"theta must be above 1, not {theta}")

        def pair(turns: float) -> float:
            """The pair, counted with fractions, that makes so many turns over the original context."""
            return size * math.log(original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

        first, last = pair(beta_fast), pair(beta_slow)
        if truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        width = last - first if last != first else 0.001
        kept = 1 - np.clip((np.arange(size // 2, dtype=np.float32) - np.float32(first)) / np.float32(width), 0, 1)
        plain = _geometric(size, theta)
        blended = plain / np.float32(factor) * (1 - kept) + plain * kept
        return cls(_constant(blended), float(attention_factor), interleaved)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], size: int, *, interleaved: bool = False) -> Self:
        """What a transformers `config.json` describes, in the older form (`rope_theta`, `rope_scaling`) or the newer
        (`rope_parameters`), for heads of `size` components.

        Raises `ModelError`, by name, for a type that is not implemented and for values out of range.
        """
        parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(parameters, Mapping):
            _bad(f"rope_scaling must hold an object, not {describe(parameters)}")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in _IMPLEMENTED:
            fail(
                f"the rotary embedding of type {kind!r} is not implemented",
                found={"implemented": ", ".join(_IMPLEMENTED)},
                kind=ModelError,
            )

        def number(name: str, default: Any = None) -> float:
            value = parameters.get(name)
            if value is None:
                value = default
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e18:
                _bad(f"{kind} needs a number {name!r}, not {value!r}")
            return float(value)

        theta = number("rope_theta", config.get("rope_theta", 10000.0))
        if parameters.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) not in (None, 1.0):
            _bad("partial_rotary_factor other than 1 is not implemented")
        if kind == "default":
            return cls.default(size, theta, interleaved=interleaved)
        if kind == "linear":
            return cls.linear(size, theta, factor=number("factor"), interleaved=interleaved)
        if kind == "llama3":
            return cls.llama3(
                size,
                theta,
                factor=number("factor"),
                original_context=int(number("original_max_position_embeddings")),
                low_frequency=number("low_freq_factor"),
                high_frequency=number("high_freq_factor"),
                interleaved=interleaved,
            )
        original = number("original_max_position_embeddings", config.get("max_position_embeddings"))
        factor = number("factor")
        attention = number("attention_factor") if parameters.get("attention_factor") is not None else None
        if attention is None and parameters.get("mscale") and parameters.get("mscale_all_dim"):
            attention = yarn_attention(factor, number("mscale")) / yarn_attention(factor, number("mscale_all_dim"))
        return cls.yarn(
            size,
            theta,
            factor=factor,
            original_context=int(original),
            # A zero there means the default, as in transformers.
            beta_fast=number("beta_fast", 32.0) or 32.0,
            beta_slow=number("beta_slow", 1.0) or 1.0,
            attention_factor=attention,
            truncate=bool(parameters.get("truncate", True)),
            interleaved=interleaved,
        )

    def __call__(self, x: Tensor, positions: Tensor, axis: str = "hd") -> Tensor:
        """Turn the pairs along `axis` by their frequency times the position.

        x: `axis` and any others, among them the positions' axes, or all but some of size one broadcast there.
        positions: integers. Computed in f32 and rounded once, to x's dtype.
        """
        if x.size(axis) != 2 * len(self.frequencies):
            fail(
                f"rope: {axis!r} has size {x.size(axis)}, and there are {len(self.frequencies)} frequencies",
                found={"x": x},
                kind=AxisError,
            )
        frequencies = wrap(np.asarray(self.frequencies, np.float32), axis)
        angle = frequencies.broadcast(**positions.sizes) * positions.cast("float32")
        cos, sin = angle.cos(), angle.sin()
        if self.scale != 1.0:
            cos, sin = cos * self.scale, sin * self.scale
        wide = x._wide()
        if self.interleaved:
            first, second = wide.split(axis, f"{axis} _pair", _pair=2).unstack("_pair")
            turned = stack([first * cos - second * sin, second * cos + first * sin], "_pair")
            return turned.merge(f"{axis} _pair -> {axis}").cast(x.dtype)
        half = len(self.frequencies)
        first, second = wide.slice(axis, 0, half), wide.slice(axis, half, 2 * half)
        return concat([first * cos - second * sin, second * cos + first * sin], axis).cast(x.dtype)


def yarn_attention(factor: float, scale: float = 1.0) -> float:
    """YaRN's factor on queries and keys for a context `factor` times the original (arXiv 2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _geometric(size: int, theta: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """theta^(-2i/size), in f32 throughout: models were trained with these roundings in them."""
    if size < 2 or size % 2:
        _bad(f"a head of {size} components cannot be divided into pairs")
    _at_least("theta", theta, 0.0, above=True)
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return np.asarray(1 / np.power(np.float32(theta), exponents), np.float32)


def _constant(frequencies: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in frequencies.astype(jnp.float32))


def _at_least(name: str, value: float, bound: float, *, above: bool = False) -> None:
    if not math.isfinite(value) or value < bound or (above and value == bound):
        _bad(f"{name} must be {'above' if above else 'at least'} {bound:g}, not {value}")


def _bad(problem: str) -> Any:
    fail(f"rope: {problem}", kind=ModelError)

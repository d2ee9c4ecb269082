"""The data files of chips, and this machine's own rates."""

import numpy as np
import pytest

from namedtensor import InputError, targets

NAMES = [name for name in targets.names() if name != targets.NATIVE]


def test_the_chips_that_are_promised_are_there() -> None:
    promised = "a100 b200 h100 h200 l4 l40s rtx4090 mi250x mi300x mi325x mi355x tpu-v4 tpu-v5e tpu-v5p tpu-v6e"
    assert set(promised.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_of_the_right_size_and_their_source_is_named(name: str) -> None:
    chip = targets.chip(name)
    assert chip.platform in ("cuda", "rocm", "tpu")
    assert chip.source
    assert 16e9 <= chip.memory_bytes <= 300e9
    assert 2e11 <= chip.memory_bandwidth <= 1e13
    rates = {dtype: chip.rate(dtype) for dtype in ("bfloat16", "int8")}
    assert all(1e14 <= rate <= 1e16 for rate in rates.values() if rate is not None)
    assert rates["bfloat16"] is not None
    assert (chip.rate("float32") or 0) < rates["bfloat16"]


def test_a_rate_is_found_by_dtype() -> None:
    chip = targets.chip("h100")
    assert chip.rate(np.float32) == 67e12
    assert chip.rate("float8_e4m3fn") == chip.rate("float8_e5m2") == 1978.9e12
    assert chip.rate("int4") is None


def test_an_unknown_chip_is_refused_with_the_likeliest() -> None:
    with pytest.raises(InputError, match="there is no chip 'mi300': did you mean 'mi300x'"):
        targets.chip("mi300")

"""Element types, checked where they are asked for."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor._errors import DTypeError, fail


def element_type(op: str, dtype: Any, found: Mapping[str, Any] | None = None) -> np.dtype[Any]:
    """The element type that `dtype` names. Raises `DTypeError` for what is none, and for one that jax would narrow."""
    try:
        target = jnp.dtype(dtype)
    except TypeError:
        target = None
    if target is None or not (target == jnp.bool_ or jnp.issubdtype(target, jnp.number)):
        fail(
            f"{op}: {dtype!r} is not an element type",
            found=found,
            fix='for example "float32", "bfloat16", "float16", "int32", "int8", "bool"',
            kind=DTypeError,
        )
    narrow = jax.dtypes.canonicalize_dtype(target)
    if narrow != target:
        fail(
            f"{op}: {target} needs jax's 64-bit mode, which is off; jax would silently give {narrow}",
            found=found,
            fix=f'use "{narrow}", or jax.config.update("jax_enable_x64", True) before anything else',
            kind=DTypeError,
        )
    return target

"""Scaled dot-product attention over named axes."""

from __future__ import annotations

from namedtensor._errors import DTypeError, ModelError, fail
from namedtensor._tensor import Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    axis: str = "hd",
    keys: str = "keys",
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(q·k · scale + bias) v, the softmax over `keys` (arXiv 1706.03762, section 3.2.1).

    - q: `axis`, the queries' own axes (`s`, ...) and batch axes (`b`, `heads`, ...).
    - k: `axis`, `keys` and batch axes.  v: `keys`, batch axes and any others, such as `axis`.
    - `mask`: true where a key is visible; `bias`: added to the scores. Both have axes of the scores: q's and k's
      together without `axis`.
    - `scale`: by default 1 / sqrt(size of `axis`).

    Heads need no argument of their own: an axis that q and k share is a batch axis. For grouped heads (arXiv
    2305.13245) split the queries' heads, `q.split("heads", "kv group", kv=8)`, and name the keys' heads `kv`.
    Visibility by position comes from `causal_mask`.

    Scores and softmax are in f32 or wider; the result has v's dtype, its axes beside `keys`, and the queries' own.
    """
    _distinct(q, keys)
    wide = "float32" if q.dtype.itemsize < 4 else q.dtype
    scores = q.dot(k, axis, dtype=wide) * (q.size(axis) ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.cast(wide)
    if mask is not None:
        scores = scores.mask(mask)
    return scores.softmax(keys).cast(v.dtype).dot(v, keys)


def causal_mask(queries: Tensor, keys: Tensor, *, window: int | None = None) -> Tensor:
    """True where a query sees a key: those at its own position and before; with `window`, its last `window` only.

    queries, keys: integer positions, over axes of their own, such as `s` and `keys`, and any that they share. The
    window is that of Mistral (arXiv 2310.06825, section 2): a query at i sees positions i - window < j <= i.
    """
    if window is not None and window < 1:
        fail(f"causal_mask: a window of {window} positions shows nothing; at least 1", kind=ModelError)
    if queries.dtype != keys.dtype:
        fail("causal_mask: positions of two types", found={"queries": queries, "keys": keys}, kind=DTypeError)
    theirs = {name: size for name, size in queries.sizes.items() if name not in keys.axes}
    keys = keys.broadcast(**theirs)
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)


def _distinct(q: Tensor, keys: str) -> None:
    if keys in q.axes:
        fail(
            f"attention: the queries have the axis {keys!r} too, so each would meet one key only",
            found={"q": q},
            fix=f'name positions apart: k.rename("s -> {keys}"), v.rename("s -> {keys}")',
        )

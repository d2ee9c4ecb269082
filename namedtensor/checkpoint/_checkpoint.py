"""A checkpoint as a model sees it: names, shapes, and weights declared by axis names. No weight is read here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import numpy as np

from namedtensor import _axes
from namedtensor._errors import CheckpointError, DTypeError, fail
from namedtensor.checkpoint import _json
from namedtensor.checkpoint._blob import Blob
from namedtensor.checkpoint._convert import can_convert
from namedtensor.checkpoint._discover import Contents, discover
from namedtensor.checkpoint._entry import Entry, TensorInfo, Weight

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor


class Checkpoint:
    """Named weights of one source, and the files beside them.

    Made by `Checkpoint.open`, narrowed by `scope`. Holds what the headers say; weights are read by `nt.load`.
    """

    __slots__ = ("_contents", "_prefix")

    def __init__(self, contents: Contents, prefix: str = "") -> None:
        self._contents = contents
        self._prefix = prefix

    @classmethod
    def open(cls, source: str | Path) -> Checkpoint:
        """Read the headers of a checkpoint.

        `source` is one of
        - a path to a file: safetensors, PyTorch zip (`.pt`, `.pth`, `.bin`), GGUF, or an `.index.json` of shards;
        - a path to a directory that holds one of these;
        - `hf://org/repo`, `hf://org/repo@revision`, either with `/file` behind it;
        - `https://`, `s3://` and `gs://` addresses of such a file or directory.

        Of a remote source only the headers are fetched. `nt.load` brings the weights into the local cache
        (`$NAMEDTENSOR_CACHE`, by default `~/.cache/namedtensor`; for `hf://` the cache of huggingface_hub).

        Raises `CheckpointError`, in one line, where the source does not exist, is ambiguous, damaged or hostile.
        """
        return cls(discover(source))

    @property
    def source(self) -> str:
        """Where it was opened from: a path or an address."""
        return self._contents.source

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the header says beside tensors: strings of safetensors, hyperparameters and tokenizer of GGUF."""
        return self._contents.metadata

    def names(self) -> list[str]:
        """Names of the stored tensors, sorted; under the scope's prefix, and without it."""
        cut = len(self._prefix)
        return sorted(name[cut:] for name in self._contents.entries if name.startswith(self._prefix))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._prefix + name in self._contents.entries

    def __len__(self) -> int:
        return sum(name.startswith(self._prefix) for name in self._contents.entries)

    def __repr__(self) -> str:
        where = f"{self.source!r}, scope {self._prefix[:-1]!r}" if self._prefix else repr(self.source)
        return f"<Checkpoint {where}: {len(self)} tensors>"

    def scope(self, prefix: str) -> Checkpoint:
        """The part whose names begin with `prefix` and a dot, under names without them."""
        prefix = prefix.strip(".")
        return Checkpoint(self._contents, f"{self._prefix}{prefix}." if prefix else self._prefix)

    def info(self, name: str) -> TensorInfo:
        """Shape, dtype, bytes and format as stored. Raises `CheckpointError` where there is no such tensor."""
        return self._entry(name).info

    def weight(self, name: str, spec: str, /, *, dtype: Any = None, **sizes: int) -> Tensor:
        """Declare a weight; nothing is read until `nt.load`.

        `spec` names the stored axes in order, `(heads hd)` where one stored axis is the product of several, the first
        outermost, with all but one of their sizes given as keywords: `ckpt.weight("q", "(heads hd) d", hd=64)`.

        `dtype` is what values are converted to while loading; by default they keep the stored one, and block formats
        become float32. As everywhere in jax, 64-bit types become 32-bit ones unless `jax_enable_x64` is set.

        Returns a `Tensor` over a `Weight`. Raises `CheckpointError` where the checkpoint has no such tensor,
        `AxisError` where its shape does not fit the spec, `DTypeError` where the conversion would lose meaning.
        """
        entry = self._entry(name)
        layout = _axes.parse(spec)
        shape = layout.resolve(entry.shape, sizes, what=f"weight {entry.name!r} of {self.source}")
        stored = entry.format.dtype
        if stored is None:
            fail(
                f"weight {entry.name!r} is stored as {entry.format.name}, which is not implemented",
                found={"source": entry.blob.name},
                fix="convert the checkpoint to f32, f16, bf16, q8_0 or q4_0",
                kind=CheckpointError,
            )
        wanted = np.dtype(jax.dtypes.canonicalize_dtype(stored if dtype is None else dtype))
        if not can_convert(stored, wanted):
            fail(
                f"weight {entry.name!r}: {stored} values do not become {wanted} without losing what they mean",
                found={"stored": f"shape {entry.shape}, {entry.format.name}", "source": entry.blob.name},
                fix="leave dtype out, and cast the loaded tensor",
                kind=DTypeError,
            )
        from namedtensor._tensor import Tensor

        return Tensor._of(Weight(entry.name, shape, wanted, entry), layout.axes)

    def has_file(self, file: str) -> bool:
        """True where a file of this name lies beside the weights, such as `tokenizer.json`."""
        return self._contents.origin.find(file) is not None

    def file(self, file: str) -> Path:
        """Local path of a file beside the weights, fetched into the cache where need be.

        Raises `CheckpointError` where there is none.
        """
        return self._beside(file).local().path

    def json(self, file: str) -> Any:
        """The value in a JSON file beside the weights. Raises `CheckpointError` where it is absent or damaged."""
        return _json.read(self._beside(file))

    def _entry(self, name: str) -> Entry:
        entry = self._contents.entries.get(self._prefix + name)
        if entry is None:
            self._missing(name)
        return entry

    def _missing(self, name: str) -> NoReturn:
        full = self._prefix + name
        every = list(self._contents.entries)
        found = {"source": f"{self.source} ({len(every)} tensors)"}
        # A whole prefix too many or too few is the usual mistake, and beats any likeness of letters.
        inside = [other for other in every if other.endswith(f".{full}")]
        around = [other for other in every if full.endswith(f".{other}")]
        fix = None
        if inside:
            found["holds"] = ", ".join(map(repr, inside[:3])) + (", ..." if len(inside) > 3 else "")
            fix = f"open that part: ckpt.scope({inside[0][: -len(full) - 1]!r})"
        elif around:
            found["holds"] = repr(around[0])
            fix = f"leave {full[: -len(around[0])]!r} out of the name or scope"
        else:
            close = _closest(full, every)
            if close:
                found["closest"] = ", ".join(map(repr, close))
            else:
                fix = "list what there is: ckpt.names(), or namedtensor inspect"
        fail(
            f"the checkpoint has no weight {full!r}",
            asked=f"{name!r} in scope {self._prefix[:-1]!r}" if self._prefix else repr(name),
            found=found,
            fix=fix,
            kind=CheckpointError,
        )

    def _beside(self, file: str) -> Blob:
        blob = self._contents.origin.find(file)
        if blob is None:
            fail(
                f"the checkpoint has no file {file!r}",
                found={"source": self._contents.origin.name},
                fix="open the directory or repository that holds it, rather than a copy of the weights alone",
                kind=CheckpointError,
            )
        return blob


_NUMBER = re.compile(r"[0-9]+")


def _closest(name: str, every: list[str]) -> list[str]:
    """Up to three names that may have been meant.

    Names are compared without their numbers: that leaves a handful of kinds where there are tens of thousands of
    tensors, and the answer is the one of the same layer.
    """
    kinds: dict[str, list[str]] = {}
    for other in every:
        if len(other) <= 200:
            kinds.setdefault(_NUMBER.sub("#", other), []).append(other)
    numbers = [*_NUMBER.findall(name), ""]
    found = []
    for kind in difflib.get_close_matches(_NUMBER.sub("#", name), kinds, n=3, cutoff=0.6):
        same = "".join(part + number for part, number in zip(kind.split("#"), numbers, strict=False))
        found.append(same if same in kinds[kind] else kinds[kind][0])
    return found

"""Loading: from declared weights to jax arrays, in background threads, while the model compiles.

A few threads read pieces of a file straight into the memory that jax will hold: buffers aligned to 64 bytes, which
jax takes over on CPU without another copy. Reads and conversions run without the interpreter's lock.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from namedtensor.checkpoint._blob import Cancelled, LocalFile
from namedtensor.checkpoint._convert import convert
from namedtensor.checkpoint._entry import Entry, Weight
from namedtensor.checkpoint._progress import Bar
from namedtensor.checkpoint._reject import quoted, reject

# Alignment that XLA:CPU needs to use a buffer where it lies.
_ALIGN = 64
# Large enough that a call costs nothing beside its bytes, small enough that threads share one tensor.
_PIECE = 8 << 20
_THREADS = min(8, max(2, os.cpu_count() or 1))

_active: weakref.WeakSet[Loading[Any]] = weakref.WeakSet()


def load[T](tree: T, *, device: Any = None, progress: bool = True) -> Loading[T]:
    """Start to load every `Weight` in a pytree; returns at once.

    `device` is a jax device or sharding, by default jax's default device. Everything else in the tree stays as it
    is. A weight that appears several times is read once. With `progress`, a bar with bytes and rate is drawn on a
    terminal's stderr when loading takes longer than a second.
    """
    return Loading(tree, device=device, progress=progress)


class Loading[T]:
    """Weights on their way into memory. Made by `nt.load`."""

    def __init__(self, tree: T, *, device: Any = None, progress: bool = True) -> None:
        self._leaves, self._treedef = jax.tree.flatten(tree, is_leaf=lambda leaf: isinstance(leaf, Weight))
        self._device = device
        # What the caller set for itself alone (`with jax.default_device(...)`), which other threads do not see.
        self._settings = jax.config.jax_default_device, jax.config.jax_enable_x64
        self._tensors: dict[Any, _Tensor] = {}
        for leaf in self._leaves:
            if isinstance(leaf, Weight) and _key(leaf) not in self._tensors:
                self._tensors[_key(leaf)] = _Tensor(leaf)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._cancelled = False
        self._error: BaseException | None = None
        self._result: T | None = None
        self._blobs = list({id(tensor.entry.blob): tensor.entry.blob for tensor in self._tensors.values()}.values())
        self._loaded = 0
        self._total = sum(tensor.entry.nbytes for tensor in self._tensors.values())
        self._total += sum(blob.to_fetch for blob in self._blobs)
        self._thread = threading.Thread(target=self._run, name="nt.load", daemon=True)
        _active.add(self)
        self._thread.start()
        if progress:
            Bar.watch(self._done, lambda: self.progress)

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes done so far, and in all: what is read from files, and before that fetched from remote sources."""
        with self._lock:
            return self._loaded, self._total

    @property
    def done(self) -> bool:
        """True once `result` would return or raise at once."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Stop loading. `result` raises `concurrent.futures.CancelledError`, unless everything was loaded already."""
        with self._lock:
            if not self._done.is_set():
                self._cancelled = True
                self._stop.set()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the tree, with a jax array in the place of every weight.

        Raises `TimeoutError` after `timeout` seconds (loading goes on), `concurrent.futures.CancelledError` after
        `cancel`, and `CheckpointError` where a file turned out damaged, or changed since its header was read.
        """
        try:
            finished = self._done.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not finished:
            done, total = self.progress
            raise TimeoutError(f"{done:,} of {total:,} bytes were loaded within {timeout:g} seconds")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def __repr__(self) -> str:
        done, total = self.progress
        state = "cancelled" if self._cancelled else "failed" if self._error else "done" if self.done else "loading"
        return f"<Loading: {state}, {done:,} of {total:,} bytes>"

    # -- in the background --------------------------------------------------------------------------------------

    def _run(self) -> None:
        result = None
        try:
            self._read_all()
            if not self._stop.is_set():
                arrays = {key: tensor.array for key, tensor in self._tensors.items()}
                jax.block_until_ready(list(arrays.values()))
                leaves = [arrays[_key(leaf)] if isinstance(leaf, Weight) else leaf for leaf in self._leaves]
                result = jax.tree.unflatten(self._treedef, leaves)
        except BaseException as error:
            self._fail(error)
        with self._lock:
            if self._cancelled and self._error is None:
                self._error = CancelledError(f"loading was cancelled after {self._loaded:,} of {self._total:,} bytes")
            if self._error is None:
                self._result = result
            # Whatever was loaded of a failed tree is let go of.
            self._tensors = {}
            self._leaves = []
            self._done.set()

    def _read_all(self) -> None:
        # Bounded, so that memory for what is to come is not taken long before it is read.
        pieces: queue.Queue[_Piece | None] = queue.Queue(maxsize=2 * _THREADS)
        threads = [
            threading.Thread(target=self._work, args=(pieces,), name=f"nt.load.{i}", daemon=True)
            for i in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            for blob in self._blobs:
                local = blob.local(self._advance, self._stop.is_set)
                here = [tensor for tensor in self._tensors.values() if tensor.entry.blob is blob]
                for piece in _plan(local, here):
                    if self._stop.is_set():
                        return
                    pieces.put(piece)
        except Cancelled:
            pass
        finally:
            for _ in threads:
                pieces.put(None)
            for thread in threads:
                thread.join()

    def _work(self, pieces: queue.Queue[_Piece | None]) -> None:
        default_device, x64 = self._settings
        with jax.default_device(default_device), jax.enable_x64(x64):
            while (piece := pieces.get()) is not None:
                # After a failure the queue is emptied, so that whoever fills it does not wait for ever.
                if self._stop.is_set():
                    continue
                try:
                    piece.read()
                    tensor = piece.tensor
                    with self._lock:
                        self._loaded += piece.nbytes
                        tensor.missing -= 1
                        complete = tensor.missing == 0
                    if complete:
                        tensor.finish(self._device)
                except BaseException as error:
                    self._fail(error)

    def _advance(self, count: int) -> None:
        with self._lock:
            self._loaded += count

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None and not self._cancelled:
                self._error = error
            self._stop.set()


def _key(weight: Weight) -> Any:
    """Equal for weights that are the same values from the same place, under whatever names of axes."""
    entry = weight.entry
    return (
        id(entry.blob),
        id(entry.record),
        entry.offset,
        entry.nbytes,
        entry.strides,
        entry.format.name,
        weight.shape,
        weight.dtype,
    )


@dataclass(eq=False)
class _Tensor:
    """One weight to load: memory for it once it is its turn, and the jax array when its last piece was read."""

    weight: Weight
    missing: int = 0
    memory: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0, np.uint8))
    array: Any = None

    @property
    def entry(self) -> Entry:
        return self.weight.entry

    def finish(self, device: Any) -> None:
        """Hand the memory over to jax, which keeps it where it lies on CPU."""
        values = self.memory.view(self.weight.dtype).reshape(self.weight.shape)
        self.memory = self.memory[:0]
        self.array = jax.device_put(values, device, may_alias=True)


@dataclass(eq=False, slots=True)
class _Piece:
    """Some consecutive elements of one tensor."""

    tensor: _Tensor
    file: LocalFile
    offset: int
    nbytes: int
    target: np.ndarray[Any, Any]

    def read(self) -> None:
        entry, dtype = self.tensor.entry, self.tensor.weight.dtype
        direct = entry.format.plain and entry.format.dtype == dtype and dtype.kind != "b" and entry.strides is None
        raw = self.target if direct else np.empty(self.nbytes, np.uint8)
        self.file.read_into(self.offset, memoryview(raw))
        if direct:
            return
        try:
            convert(raw, entry.format, self.target.view(dtype), entry.shape, entry.strides)
        except ValueError as error:
            reject(self.file.name, f"tensor {quoted(entry.name)} {error}")


def _plan(file: LocalFile, tensors: list[_Tensor]) -> Iterator[_Piece]:
    """Pieces of all tensors of a file, in the order in which they lie there."""
    placed = [(tensor.entry.position(file), tensor) for tensor in tensors]
    for start, tensor in sorted(placed, key=lambda item: item[0]):
        entry, dtype = tensor.entry, tensor.weight.dtype
        tensor.memory = _aligned(tensor.weight.nbytes)
        step = entry.nbytes or 1
        if entry.strides is None:
            step = _PIECE // entry.format.block_bytes * entry.format.block_bytes
        tensor.missing = max(1, -(-entry.nbytes // step))
        for at in range(0, max(entry.nbytes, 1), step):
            count = min(step, entry.nbytes - at)
            if entry.strides is None:
                scale = entry.format.block * dtype.itemsize
                first, last = (x // entry.format.block_bytes * scale for x in (at, at + count))
                target = tensor.memory[first:last]
            else:
                target = tensor.memory
            yield _Piece(tensor, file, start + at, count, target)


def _aligned(nbytes: int) -> np.ndarray[Any, Any]:
    """Uninitialised memory that starts where XLA wants it to. numpy asks for huge pages where that pays."""
    memory = np.empty(nbytes + _ALIGN, np.uint8)
    start = -memory.ctypes.data % _ALIGN
    return memory[start : start + nbytes]


def _finish_at_exit() -> None:
    """Threads must not be inside jax while the interpreter is taken down."""
    for loading in list(_active):
        loading.cancel()
        with contextlib.suppress(RuntimeError):
            loading._thread.join(timeout=10)


atexit.register(_finish_at_exit)

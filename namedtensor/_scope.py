"""Names of modules while a model is traced, and repeated layers traced once.

Inside `naming(model)` every module knows its path in the model (`layers.0.attention`). The path becomes the location
of its operations in the lowered program, and the name under which an activation is recorded.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
from jax._src import source_info_util

from namedtensor._errors import MODELS, PACKAGE

if TYPE_CHECKING:
    from namedtensor._module import Module

# Locations in the lowered program point at lines of models, not at the lines of this package that they call.
source_info_util.register_exclusion(PACKAGE)
for _directory in MODELS:
    source_info_util.register_inclusion(_directory)

_current: contextvars.ContextVar[Naming | None] = contextvars.ContextVar("naming", default=None)


class Naming:
    """Paths of the modules of one model, and the calls of them that were recorded."""

    def __init__(self, root: Module, *, outline: bool, record: bool) -> None:
        self.paths: dict[int, str] = {}
        self.repeated: set[int] = set()
        self.stack: list[str] = []
        # Of each call of a module, in the order in which they return: its path, (args, kwargs), result.
        self.calls: list[tuple[str, Any, Any]] | None = [] if record else None
        self._keep: list[Module] = []  # ids stay valid only while the objects live
        self._walk(root, "", outline)

    def _walk(self, value: Any, path: str, outline: bool) -> None:
        from namedtensor._module import Module

        if isinstance(value, Module):
            if id(value) in self.paths:
                return
            self._keep.append(value)
            self.paths[id(value)] = path
            for name in value._fields:
                self._walk(getattr(value, name), f"{path}.{name}" if path else name, outline)
        elif isinstance(value, (list, tuple)):
            if outline:
                self.repeated.update(_siblings([v for v in value if isinstance(v, Module)]))
            for i, item in enumerate(value):
                self._walk(item, f"{path}.{i}", outline)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._walk(item, f"{path}.{key}", outline)

    def relative(self, module: Module) -> str:
        """The module's path below the module that is running, for nested scopes; its class where it has no path."""
        path = self.paths.get(id(module))
        if not path:
            return type(module).__name__
        parent = self.stack[-1] if self.stack else ""
        return path.removeprefix(parent + ".") if parent else path


def _siblings(modules: list[Module]) -> set[int]:
    """Ids of the modules that are alike in structure, shapes and types, where there are at least two of a kind."""
    alike: dict[Any, list[int]] = {}
    for module in modules:
        leaves, treedef = jax.tree_util.tree_flatten(module)
        if all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
            key = (treedef, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves))
            alike.setdefault(key, []).append(id(module))
    return {i for group in alike.values() if len(group) > 1 for i in group}


@contextlib.contextmanager
def naming(root: Module, *, outline: bool = True, record: bool = False) -> Iterator[Naming]:
    """Give every module of `root` its path while the block runs; outline repeated layers; record calls if asked."""
    state = Naming(root, outline=outline, record=record)
    token = _current.set(state)
    try:
        yield state
    finally:
        _current.reset(token)


def scoped(call: Callable[..., Any]) -> Callable[..., Any]:
    """A module's `__call__` under the module's name, outlined where the module is one of several alike."""

    @functools.wraps(call)
    def run(self: Module, *args: Any, **kwargs: Any) -> Any:
        state = _current.get()
        if state is None:
            with jax.named_scope(type(self).__name__):
                return call(self, *args, **kwargs)
        path = state.paths.get(id(self), "")
        with jax.named_scope(state.relative(self)):
            state.stack.append(path)
            try:
                if id(self) in state.repeated:
                    result = _outlined(call, self, args, kwargs)
                else:
                    result = call(self, *args, **kwargs)
            finally:
                state.stack.pop()
        # A call through super() is part of the module's own.
        if state.calls is not None and id(self) in state.paths and state.stack[-1:] != [path]:
            state.calls.append((path, (args, kwargs), result))
        return result

    return run


def _outlined(call: Callable[..., Any], module: Module, args: Any, kwargs: Any) -> Any:
    """The call as a function of its own in the program: one body, however many layers call it."""
    leaves, treedef = jax.tree_util.tree_flatten((module, args, kwargs))
    # What is not an array (a flag, a size, None) belongs to the body and not to its arguments.
    dynamic = tuple(leaf if _is_array(leaf) else None for leaf in leaves)
    static = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
    return _body(call, type(module).__name__)(treedef, static, dynamic)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


@functools.cache
def _body(call: Callable[..., Any], name: str) -> Any:
    def body(treedef: Any, static: tuple[Any, ...], dynamic: tuple[Any, ...]) -> Any:
        leaves = [s if d is None else d for s, d in zip(static, dynamic, strict=True)]
        module, args, kwargs = jax.tree_util.tree_unflatten(treedef, leaves)
        with naming(module):
            return call(module, *args, **kwargs)

    body.__name__ = body.__qualname__ = name
    return jax.jit(body, static_argnums=(0, 1))

"""`Module`: a frozen dataclass of tensors and other modules, and a pytree."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self, dataclass_transform

import jax

from namedtensor import _scope
from namedtensor._base import Base
from namedtensor._errors import ModelError, describe, fail


@dataclass_transform(frozen_default=True, eq_default=False)
class Module:
    """Base of every part of a model.

    A subclass lists its fields with annotations and becomes a frozen dataclass:

        class Linear(nt.Module):
            weight: nt.Tensor
            bias: nt.Tensor | None = None

            def __call__(self, x: nt.Tensor) -> nt.Tensor: ...

    Fields that hold tensors, modules, or lists, tuples and dicts of them are the module's children in the pytree;
    every other field is configuration, part of the tree's structure, and must be hashable.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        cls._fields = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
        jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, _unflatten(cls), _flatten)
        if "__call__" in cls.__dict__:
            setattr(cls, "__call__", _scope.scoped(cls.__dict__["__call__"]))  # noqa: B010 (mypy forbids the assignment)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        for name in changes:
            if name not in self._fields:
                fail(
                    f"{type(self).__name__} has no field {name!r}",
                    fix=f"fields: {', '.join(self._fields)}",
                    kind=ModelError,
                )
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def __repr__(self) -> str:
        lines = []
        for name in self._fields:
            value = _show(getattr(self, name)).replace("\n", "\n  ")
            lines.append(f"  {name}={value},")
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)" if lines else f"{type(self).__name__}()"


def _show(value: Any) -> str:
    """A field's value without the numbers in it: what a reader of a model wants is names, sizes and types."""
    if isinstance(value, Base):
        return describe(value)
    if isinstance(value, (list, tuple)) and is_child(value):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return repr(value)


def is_child(value: Any) -> bool:
    """Whether a field's value belongs to the tree rather than to its structure."""
    if isinstance(value, (Base, Module)):
        return True
    if isinstance(value, (dict, list)) and not value:
        return True  # no layers, rather than a constant
    if isinstance(value, dict):
        return any(is_child(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_child(v) for v in value)
    return False


type _Aux = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]


def _split(module: Module) -> _Aux:
    """Names of the fields that are children, and the others with their values. A frozen module's never change."""
    known: _Aux | None = module.__dict__.get("_aux")
    if known is not None:
        return known
    children, static = [], []
    for name in module._fields:
        value = getattr(module, name)
        if is_child(value):
            children.append(name)
            continue
        try:
            hash(value)
        except TypeError:
            fail(
                f"{type(module).__name__}.{name} holds something of type {type(value).__name__}, which is neither a "
                "tensor, nor a module, nor a hashable constant",
                fix="numpy arrays: nt.wrap(array, axes); lists of constants: a tuple",
                kind=ModelError,
            )
        static.append((name, value))
    object.__setattr__(module, "_aux", (tuple(children), tuple(static)))
    return tuple(children), tuple(static)


def _flatten_with_keys(module: Module) -> tuple[list[tuple[Any, Any]], _Aux]:
    aux = _split(module)
    return [(jax.tree_util.GetAttrKey(name), getattr(module, name)) for name in aux[0]], aux


def _flatten(module: Module) -> tuple[list[Any], _Aux]:
    aux = _split(module)
    return [getattr(module, name) for name in aux[0]], aux


def _unflatten(cls: type[Module]) -> Any:
    def unflatten(aux: _Aux, children: Any) -> Module:
        # Not through __init__: jax puts placeholders into trees, and a dataclass's own checks must not see them.
        module = object.__new__(cls)
        object.__setattr__(module, "_aux", aux)
        for name, value in aux[1]:
            object.__setattr__(module, name, value)
        for name, value in zip(aux[0], children, strict=True):
            object.__setattr__(module, name, value)
        return module

    return unflatten

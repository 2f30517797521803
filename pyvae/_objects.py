"""What the objects of all likelihoods are: frozen dataclasses of tensors and numbers, and pytrees.

torch.func, torch.export and torch.compile take trees of tensors apart, torch.fx dataclasses. What is left of a tuple
would be in the way: two objects are equal if they are one, and each is true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from torch import Tensor
from torch.utils import _pytree


class Object:
    """The base of them all; subclasses are `dataclass(frozen=True, eq=False, repr=False)`."""

    _members: ClassVar[tuple[Any, ...]] = ()  # of the family (`Likelihood`), those that an object may stand for
    _needed: ClassVar[tuple[str, ...]] = ()  # fields that have a default, and in most calls another value
    _settings: ClassVar[tuple[str, ...]] = ()  # fields that hold neither a tensor nor a number

    def _check(self, function: str) -> None:
        """Refuse, in a call of the public `function`, what its fields make together."""

    def __init_subclass__(cls) -> None:
        _pytree.register_pytree_node(
            cls,
            _flatten,
            lambda children, context: _unflatten(cls, children, context),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )

    def __repr__(self) -> str:
        """Of tensors the shapes alone, of numbers what they are, and nothing of what is as always."""
        given = (held(self) | settings(self)).items()
        shown = (f"{name}={_shown(value)}" for name, value in given if not _is_default(self, name))
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    return f"{type(value).__name__}{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def names(likelihood: Any) -> tuple[str, ...]:
    """Of the fields that hold something, in their order."""
    return tuple([field.name for field in fields(likelihood) if field.name not in likelihood._settings])


def settings(likelihood: Any) -> dict[str, Any]:
    """The other fields."""
    return {name: getattr(likelihood, name) for name in likelihood._settings}


def held(likelihood: Any) -> dict[str, Any]:
    """What an object was given to hold, by the names of its fields; of a name, or anything else, nothing."""
    if not isinstance(likelihood, Object):
        return {}
    return {name: getattr(likelihood, name) for name in names(likelihood) if not _is_default(likelihood, name)}


def _is_default(likelihood: Any, name: str) -> bool:
    value, default = getattr(likelihood, name), getattr(type(likelihood), name, MISSING)
    # Numbers by their value, since pickles make them anew; not those of vmap's `in_dims`, which are integers.
    return value is default or (type(value) is type(default) is float and value == default)


def example(cls: type[Object]) -> str:
    """How one is made: "pyvae.NegativeBinomial(log_theta)"."""
    needed = [field.name for field in fields(cls) if field.default is MISSING]  # type: ignore[arg-type]
    return f"pyvae.{cls.__name__}({', '.join([*cls._needed, *needed])})"


Context = list[Any]  # names of the children, and settings


def _flatten(likelihood: Any) -> tuple[list[Any], Context]:
    """Tensors and numbers are leaves. What was not given is (), a tree without any, of which no transform hears."""
    given, every = held(likelihood), names(likelihood)
    values = [given.get(name) for name in every]
    children = values if _are_dims(values) else [() if value is None else value for value in values]
    return children, [list(every), settings(likelihood)]


def _unflatten(cls: type[Object], children: Iterable[Any], context: Context) -> Object:
    values, (every, own) = list(children), context
    absent = type(None) if _are_dims(values) else tuple
    return cls(**{every[i]: value for i, value in enumerate(values) if type(value) is not absent}, **own)


def _are_dims(values: list[Any]) -> bool:
    """Whether they are integers, and so vmap's `in_dims`: then None is a leaf, "not mapped", and () stays as it is."""
    kinds = {type(value) for value in values}
    return int in kinds and kinds <= {int, type(None), tuple}


def _flatten_with_keys(likelihood: Any) -> tuple[list[Any], Context]:
    children, context = _flatten(likelihood)
    keys: Iterable[Any] = map(_pytree.GetAttrKey, names(likelihood))
    return list(zip(keys, children, strict=True)), context

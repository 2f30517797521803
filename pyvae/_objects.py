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

    def __init_subclass__(cls) -> None:
        _pytree.register_pytree_node(
            cls,
            _flatten,
            lambda children, _: cls(*_unflatten(children)),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )

    def __repr__(self) -> str:
        """Of tensors the shapes alone, of numbers what they are, and nothing of what is not there."""
        shown = (f"{name}={_shown(value)}" for name, value in held(self).items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    return f"{type(value).__name__}{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def names(likelihood: Any) -> tuple[str, ...]:
    """Of the fields, in their order."""
    return tuple([field.name for field in fields(likelihood)])


def held(likelihood: Any) -> dict[str, Any]:
    """What an object holds, by the names of its fields; of a name, or anything else, nothing."""
    return {name: getattr(likelihood, name) for name in names(likelihood)} if isinstance(likelihood, Object) else {}


def example(cls: type[Object]) -> str:
    """How one is made: "pyvae.NegativeBinomial(log_theta)"."""
    needed = [field.name for field in fields(cls) if field.default is MISSING]  # type: ignore[arg-type]
    return f"pyvae.{cls.__name__}({', '.join(needed)})"


def _flatten(likelihood: Any) -> tuple[list[Any], None]:
    """Tensors and numbers are leaves. What is not there is (), a tree without any, of which no transform hears."""
    values = list(held(likelihood).values())
    return values if _are_dims(values) else [() if value is None else value for value in values], None


def _unflatten(children: Iterable[Any]) -> list[Any]:
    values = list(children)
    return values if _are_dims(values) else [None if type(value) is tuple else value for value in values]


def _are_dims(values: list[Any]) -> bool:
    """Whether they are integers, and so vmap's `in_dims`: then None is a leaf, "not mapped", and () stays as it is."""
    kinds = {type(value) for value in values}
    return int in kinds and kinds <= {int, type(None), tuple}


def _flatten_with_keys(likelihood: Any) -> tuple[list[Any], None]:
    children, context = _flatten(likelihood)
    keys: Iterable[Any] = map(_pytree.GetAttrKey, names(likelihood))
    return list(zip(keys, children, strict=True)), context

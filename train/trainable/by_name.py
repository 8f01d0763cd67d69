"""Trees of parameters, divided by name into two and united again."""

from collections.abc import Callable
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.types import Params


def divide(params: Params, is_trained: Callable[[str], bool]) -> tuple[Params, Params]:
    """Parameters as (trained, frozen): trees without the other's leaves."""
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    trained = {name: leaf for name, leaf in flat.items() if is_trained(name)}
    frozen = {name: leaf for name, leaf in flat.items() if name not in trained}
    return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")


def unite(frozen: Params, trained: Params) -> Params:
    """The inverse of `divide`."""
    return unflatten_dict({**flatten_dict(frozen, sep="/"), **flatten_dict(trained, sep="/")}, sep="/")

"""Training of some of the parameters, listed by name, as they are."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.types import Params

from .patterns import BUFFERS


@dataclasses.dataclass(frozen=True)
class Named:
    """Splits the tree by name: those of `names` that are in it are trained, the others frozen."""

    names: frozenset[str]  # such as image_encoder/pos_embed

    def split(self, params: Params) -> tuple[Params, Params]:
        """Parameters as (trained, frozen): trees without the other's leaves."""
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        trained = {name: leaf for name, leaf in flat.items() if name in self.names}
        frozen = {name: leaf for name, leaf in flat.items() if name not in self.names}
        return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The inverse of `split`."""
        return unflatten_dict({**flatten_dict(frozen, sep="/"), **flatten_dict(trained, sep="/")}, sep="/")


def named(names: Iterable[str], *patterns: str) -> Named:
    """Those of the names that one of the patterns, regular expressions, fits anywhere; buffers never."""
    return Named(
        frozenset(
            name
            for name in names
            if any(re.search(pattern, name) for pattern in patterns)
            and not any(re.search(buffer, name) for buffer in BUFFERS)
        )
    )

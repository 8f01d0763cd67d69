"""Training of some of the parameters, listed by name, as they are."""

import dataclasses
import re
from collections.abc import Iterable

from samjax.types import Params

from .by_name import divide, unite
from .patterns import BUFFERS


@dataclasses.dataclass(frozen=True)
class Named:
    """Splits the tree by name: those of `names` that are in it are trained, the others frozen."""

    names: frozenset[str]  # such as image_encoder/pos_embed

    def split(self, params: Params) -> tuple[Params, Params]:
        """Parameters as (trained, frozen): trees without the other's leaves."""
        return divide(params, self.names.__contains__)

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The inverse of `split`."""
        return unite(frozen, trained)


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

"""Training of the parameters whose names fit none of a list of patterns; the others stay as they are."""

import dataclasses
import re

from samjax.types import Params

from .by_name import divide, unite

# A buffer in the reference: it has no gradient, and weight decay must not shrink it.
BUFFERS = (r"positional_encoding_gaussian_matrix$",)


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Splits the tree by name: what fits a pattern of `frozen` or is a buffer is frozen, the rest is trained."""

    frozen: tuple[str, ...] = ()  # regular expressions, found anywhere in a name such as image_encoder/pos_embed

    def is_frozen(self, name: str) -> bool:
        """True if the parameter of this name is not trained."""
        return any(re.search(pattern, name) for pattern in (*self.frozen, *BUFFERS))

    def split(self, params: Params) -> tuple[Params, Params]:
        """Parameters as (trained, frozen): trees without the other's leaves."""
        return divide(params, lambda name: not self.is_frozen(name))

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The inverse of `split`."""
        return unite(frozen, trained)

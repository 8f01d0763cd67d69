"""Several ways to train at once."""

import dataclasses

from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.types import Params

from .protocol import Trainable


@dataclasses.dataclass(frozen=True)
class Combined:
    """Ways to train, each of which splits what those before it have left frozen.

    The merge of each takes leaves of the others in either tree, and hands them on as they are.
    """

    ways: tuple[Trainable, ...]

    def split(self, params: Params) -> tuple[Params, Params]:
        """Parameters as (trained, frozen): all that one of the ways trains, and what none does."""
        trained, frozen = {}, params
        for way in self.ways:
            more, frozen = way.split(frozen)
            trained |= flatten_dict(more, sep="/")
        return unflatten_dict(trained, sep="/"), frozen

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The network's parameters."""
        params = self.ways[0].merge(frozen, trained)
        for way in self.ways[1:]:
            params = way.merge(params, {})
        return params

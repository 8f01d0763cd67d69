"""The protocol of a way to train a network."""

from typing import Protocol, runtime_checkable

from samjax.types import Params


@runtime_checkable
class Trainable(Protocol):
    """A way to train a network: a transform of its tree of parameters and back.

    A step differentiates, clips, averages and updates the trained tree alone; the frozen one costs nothing and stays
    bit for bit as it was. No name is in both trees, so that a checkpoint keeps them as one.
    """

    def split(self, params: Params) -> tuple[Params, Params]:
        """The network's parameters, before training, as (trained, frozen)."""
        ...

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The network's parameters; differentiable in `trained`."""
        ...

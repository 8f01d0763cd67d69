"""The seam between what is trained and what the network computes with."""

from typing import Protocol, runtime_checkable

from flax.traverse_util import flatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.types import Params

from ..config import TrainConfig
from .patterns import Patterns


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


def make_trainable(config: TrainConfig, sam: SamConfig) -> Trainable:
    """What of the network a recipe trains.

    Raises ValueError for patterns that fit no parameter and where nothing is left to train.
    """
    patterns = Patterns(config.optim.frozen)
    patterns.check(list(flatten_dict(abstract_params(sam), sep="/")))
    return patterns

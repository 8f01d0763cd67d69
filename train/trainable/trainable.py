"""The seam between what is trained and what the network computes with."""

import functools
from typing import Protocol, runtime_checkable

import jax
from flax.traverse_util import flatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.types import Params

from ..config import TrainConfig
from ..tasks import task_type
from .patterns import Patterns, check_patterns


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


def abstract_network(config: TrainConfig, sam: SamConfig) -> Params:
    """Names and shapes of all parameters that a recipe is about: SAM's and the task's own."""
    new = jax.eval_shape(functools.partial(task_type(config).new_params, config, sam), jax.random.key(0))
    return {**abstract_params(sam), **new}


def make_trainable(config: TrainConfig, sam: SamConfig) -> Trainable:
    """What of the network a recipe trains.

    Raises ValueError for patterns that fit no parameter and where nothing is left to train.
    """
    names = list(flatten_dict(abstract_network(config, sam), sep="/"))
    check_patterns("no_decay", config.optim.no_decay, names)
    unused = tuple(f"^{part}/" for part in abstract_params(sam) if part not in task_type(config).parts)
    patterns = Patterns((*config.optim.frozen, *unused))
    patterns.check(names)
    return patterns

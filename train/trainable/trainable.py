"""The seam between what is trained and what the network computes with."""

import functools

import jax

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.types import Params

from ..config import TrainConfig
from ..tasks import task_type
from .freezing import check_patterns, freeze, parameter_names
from .patterns import Patterns
from .protocol import Trainable


def abstract_network(config: TrainConfig, sam: SamConfig) -> Params:
    """Names and shapes of all parameters that a recipe is about: SAM's and the task's own."""
    new = jax.eval_shape(functools.partial(task_type(config).new_params, config, sam), jax.random.key(0))
    return {**abstract_params(sam), **new}


def make_trainable(config: TrainConfig, sam: SamConfig) -> Trainable:
    """What of the network a recipe trains: by some way to train, all but what fits a pattern of `optim.frozen`.

    Raises ValueError for patterns that fit no parameter, of the network or trained, and where nothing is left to train.
    """
    network = abstract_network(config, sam)
    trainable = freeze(_way(config, sam), config.optim.frozen, network)
    trained, _ = jax.eval_shape(trainable.split, network)
    check_patterns("no_decay", config.optim.no_decay, [*parameter_names(network), *parameter_names(trained)])
    return trainable


def _way(config: TrainConfig, sam: SamConfig) -> Trainable:
    """The parameters themselves, of the parts that the task uses."""
    return Patterns(tuple(f"^{part}/" for part in abstract_params(sam) if part not in task_type(config).parts))

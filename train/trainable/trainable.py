"""The seam between what is trained and what the network computes with."""

import itertools
import re

import jax

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.tuned import changed_kernel
from samjax.types import Params

from ..config import TrainConfig
from ..tasks import task_type
from .combined import Combined
from .freezing import Frozen, check_patterns, freeze, parameter_names
from .lora import LowRank
from .modes import MODES, chosen_modes
from .named import Named
from .patterns import Patterns
from .protocol import Trainable


def abstract_network(config: TrainConfig, sam: SamConfig) -> Params:
    """Names and shapes of all parameters that a recipe is about: SAM's and the task's own."""
    # The key is made within: made outside, it would start JAX, whose devices may still be chosen (`cores`).
    new = jax.eval_shape(lambda: task_type(config).new_params(config, sam, jax.random.key(0)))
    return {**abstract_params(sam), **new}


def make_trainable(config: TrainConfig, sam: SamConfig) -> Trainable:
    """The way to train that a recipe names: by its modes, without what fits a pattern of `optim.frozen`.

    Raises ValueError for unknown modes and ones that cannot be joined, for options of others, for patterns that fit no
    parameter, of the network or trained, and where nothing is left to train.
    """
    network = abstract_network(config, sam)
    trainable = freeze(_way(config, sam), config.optim.frozen, network)
    trained, _ = jax.eval_shape(trainable.split, network)
    check_patterns("optim.no_decay", config.optim.no_decay, [*parameter_names(network), *parameter_names(trained)])
    return trainable


def trained_shapes(config: TrainConfig, sam: SamConfig) -> Params:
    """Names and shapes of what a recipe trains; raises as `make_trainable`. Does not start JAX."""
    return jax.eval_shape(make_trainable(config, sam).split, abstract_network(config, sam))[0]


def _way(config: TrainConfig, sam: SamConfig) -> Trainable:
    """The modes of a recipe as one. Parts of SAM that the task does not use are frozen, its own parameters trained."""
    modes, task = chosen_modes(config.tune), task_type(config)
    unused = tuple(part for part in abstract_params(sam) if part not in task.parts)
    if [mode.name for mode in modes] == ["full"]:
        return Patterns(tuple(f"^{part}/" for part in unused))
    network = abstract_network(config, sam)
    names = parameter_names(network)
    own = frozenset(name for name in names if name.partition("/")[0] not in abstract_params(sam))
    ways = [mode.way(config, sam) for mode in modes]

    def trained_names(way: Trainable) -> list[str]:
        return parameter_names(jax.eval_shape(way.split, network)[0])

    whole = {name for way in ways for name in trained_names(way) if changed_kernel(name) is None}
    ways = [way.beside(whole) if isinstance(way, LowRank) else way for way in ways]
    moved = {mode.name: trained_names(way) for mode, way in zip(modes, ways, strict=True)}
    _check_apart(moved)
    _check_needed(moved)
    _check_left(moved, config.optim.frozen)
    way = Combined((*ways, Named(own))) if own or len(ways) > 1 else ways[0]
    trained = trained_names(way)
    still = frozenset(name for name in trained if name.partition("/")[0] in unused)
    if len(still) == len(trained):
        raise ValueError(f"tune.mode {config.tune.mode} trains nothing of this network")
    return Frozen(way, still) if still else way


def _check_left(trained: dict[str, list[str]], frozen: tuple[str, ...]) -> None:
    """Raises ValueError if the patterns freeze all that one of several modes, by name, would train."""
    for mode, names in trained.items():
        if names and all(any(re.search(pattern, name) for pattern in frozen) for name in names):
            raise ValueError(
                f"optim.frozen: nothing is left to train of tune.mode {mode} with {frozen}; give --optim.frozen "
                "without a pattern, or leave the mode out"
            )


def _check_needed(trained: dict[str, list[str]]) -> None:
    """Raises ValueError if one of several modes, by name, trains nothing that another one does not."""
    for mode, other in itertools.permutations(trained, 2):
        if set(trained[mode]) <= set(trained[other]):
            raise ValueError(f"tune.mode: {other} trains all that {mode} does; leave {mode} out")


def _check_apart(trained: dict[str, list[str]]) -> None:
    """Raises ValueError if a kernel that one mode changes by parameters beside it is changed by another one too."""
    for mode, other in itertools.permutations(trained, 2):
        beside = {kernel for name in trained[mode] if (kernel := changed_kernel(name)) is not None}
        both = beside & {changed_kernel(name) or name for name in trained[other]}
        if both:
            raise ValueError(
                f"tune.mode: {mode} changes {min(both)}, and {other} trains it too; leave one of them out, or choose "
                f"by {_options(mode, other)} what each trains"
            )


def _options(*names: str) -> str:
    """The options of modes by which their parameters are chosen, as the command line has them."""
    chosen = "last", "patterns", "targets", "where", "late", "matrices"
    options = (option for mode in MODES if mode.name in names for option in mode.options if option in chosen)
    return ", ".join(f"--tune.{option.replace('_', '-')}" for option in options)

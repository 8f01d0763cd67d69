"""Freezing of a part of what another way to train would train."""

import dataclasses
import re
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.types import Params

from .protocol import Trainable


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Another way to train, but for some of its trained parameters, which stay as they are."""

    inner: Trainable
    still: frozenset[str]  # their names in its trained tree

    def split(self, params: Params) -> tuple[Params, Params]:
        """Parameters as (trained, frozen): trees without the other's leaves."""
        trained, frozen = (flatten_dict(tree, sep="/") for tree in self.inner.split(params))
        more = {name: leaf for name, leaf in trained.items() if name in self.still}
        rest = {name: leaf for name, leaf in trained.items() if name not in self.still}
        return unflatten_dict(rest, sep="/"), unflatten_dict({**frozen, **more}, sep="/")

    def merge(self, frozen: Params, trained: Params) -> Params:
        """The network's parameters."""
        flat: dict[str, Any] = flatten_dict(frozen, sep="/")
        more = {name: leaf for name, leaf in flat.items() if name in self.still}
        rest = {name: leaf for name, leaf in flat.items() if name not in self.still}
        whole = {**flatten_dict(trained, sep="/"), **more}
        return self.inner.merge(unflatten_dict(rest, sep="/"), unflatten_dict(whole, sep="/"))


def freeze(trainable: Trainable, patterns: tuple[str, ...], network: Params) -> Trainable:
    """Freezes what fits a pattern, a regular expression that is found anywhere in a name.

    Args:
        trainable: the way to train without them.
        patterns: for the names in its trained tree, which may be others than the network's.
        network: names and shapes of all parameters before training.

    Raises:
        ValueError: a pattern fits neither a trained parameter nor one of the network, or nothing is left to train.
    """
    trained = parameter_names(jax.eval_shape(trainable.split, network)[0])
    check_patterns("optim.frozen", patterns, [*parameter_names(network), *trained])
    still = frozenset(name for name in trained if any(re.search(pattern, name) for pattern in patterns))
    if len(still) == len(trained):
        raise ValueError(f"optim.frozen: nothing is left to train with {patterns}")
    return Frozen(trainable, still) if still else trainable


def check_patterns(option: str, patterns: tuple[str, ...], names: list[str]) -> None:
    """Raises ValueError if one of the patterns of an option fits none of the parameters' names."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"{option}: no parameter's name fits {pattern!r}; names are like {names[0]}, and "
                "`samjax info CHECKPOINT --parameters` lists them"
            )


def parameter_names(params: Params) -> list[str]:
    """Names such as image_encoder/pos_embed."""
    return list(flatten_dict(params, sep="/"))

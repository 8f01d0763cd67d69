"""The table of what a run trains: parameters, learning rates and the optimiser's memory, by group."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.nn.encoders import family_of
from samjax.sharding import path_name
from samjax.tuned import changed_kernel

from .config import TrainConfig
from .optim import learning_rate_factor, make_optimizer, optax_numerics
from .trainable import abstract_network, trained_shapes


@dataclasses.dataclass(frozen=True)
class Group:
    """Trained parameters that belong together."""

    name: str
    parameters: int  # how many numbers they are
    share: float  # of all parameters of the network before training
    rates: tuple[float, float]  # the smallest and the largest learning rate at the schedule's peak
    optimizer_bytes: int  # of its moments and other state, on all devices together


def trained_groups(config: TrainConfig, sam: SamConfig) -> list[Group]:
    """The groups of parameters that a recipe trains, from the photo to the masks."""
    trained: dict[str, Any] = flatten_dict(trained_shapes(config, sam), sep="/")
    network = sum(leaf.size for leaf in jax.tree.leaves(abstract_network(config, sam)))
    memory = dict.fromkeys(trained, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(optimizer_state(config, sam)):
        if (name := _ending(path_name(path), trained)) is not None:
            memory[name] += _bytes(leaf)
    members: dict[str, list[str]] = {}
    for name in sorted(trained, key=functools.partial(_place, sam)):
        members.setdefault(_group(sam, name), []).append(name)
    groups = []
    for group, names in members.items():
        rates = [config.optim.learning_rate * learning_rate_factor(config.optim, sam, name) for name in names]
        count = sum(trained[name].size for name in names)
        kept = sum(memory[name] for name in names)
        groups.append(Group(group, count, count / network, (min(rates), max(rates)), kept))
    return groups


def optimizer_state(config: TrainConfig, sam: SamConfig) -> Any:
    """Shapes of the optimiser's state."""
    optimizer = make_optimizer(config.optim, sam, config.run.steps)
    with optax_numerics():
        return jax.eval_shape(optimizer.init, trained_shapes(config, sam))


def table(groups: list[Group]) -> str:
    """The groups and their sum as lines of text."""
    rows = [(group.name, group.parameters, group.share, _rates(group.rates), group.optimizer_bytes) for group in groups]
    sums = sum(group.parameters for group in groups), sum(group.share for group in groups)
    rows.append(("all that is trained", *sums, "", sum(group.optimizer_bytes for group in groups)))
    width = max(len(row[0]) for row in rows)
    rate = max(len("learning rate"), *(len(row[3]) for row in rows))
    lines = [f"{'trained':<{width}}  {'parameters':>13}  {'share':>9}  {'learning rate':>{rate}}  {'optimiser':>10}"]
    for name, count, share, rates, kept in rows:
        lines.append(f"{name:<{width}}  {count:>13,}  {share:>9.4%}  {rates:>{rate}}  {kept / 1e6:>7.3g} MB")
    return "\n".join(lines)


def _place(sam: SamConfig, name: str) -> tuple[int, int]:
    """A key that sorts parameters as a photo passes them."""
    part, _, within = name.partition("/")
    if part == "image_encoder":
        return 0, family_of(sam.image_encoder).layer(sam.image_encoder, within)
    return {"prompt_encoder": 1, "mask_decoder": 2}.get(part, 3), 0


def _group(sam: SamConfig, name: str) -> str:
    part, _, within = name.partition("/")
    words, encoder = part.replace("_", " "), sam.image_encoder
    if changed_kernel(name) is not None:
        return f"{'low-rank changes' if '/lora' in name else 'singular values'}, {words}"
    if name in _of_hq(sam):
        return "HQ token"
    if "/adaptmlp/" in name:
        return "adapters"
    if part != "image_encoder":
        return words
    layer = family_of(encoder).layer(encoder, within)
    return "patches and positions" if layer == 0 else "encoder blocks" if layer <= encoder.depth else "neck"


@functools.cache
def _of_hq(sam: SamConfig) -> frozenset[str]:
    """Names of what HQ-SAM has beside SAM; none in another model."""
    has, had = (flatten_dict(abstract_params(each), sep="/").keys() for each in (sam, sam.with_hq(False)))
    return frozenset(has - had)


def _ending(path: str, names: dict[str, Any]) -> str | None:
    """The parameter that a path in the optimiser's state ends with."""
    parts = path.split("/")
    return next((name for i in range(len(parts)) if (name := "/".join(parts[i:])) in names), None)


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _rates(rates: tuple[float, float]) -> str:
    low, high = (f"{rate:.2e}" for rate in rates)
    return low if low == high else f"{low} to {high}"

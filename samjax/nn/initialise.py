"""Initial parameters: modules declare a distribution beside each parameter, and all are drawn at once.

Flax would draw each of the hundreds of arrays by a random generator of its own, which XLA takes half a minute to
compile even for the smallest SAM; slices of one draw compile in a second. So an initialiser only says what to draw, and
`initialise` draws.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core.meta import AxisMetadata
from jaxtyping import Array, Float32, Key


@dataclasses.dataclass(frozen=True)
class Uniform:
    """U(-1/√fan_in, 1/√fan_in): PyTorch's default for kernels, and so the reference's."""

    fan_in: int
    is_random: ClassVar = True

    def sample(self, uniform: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Values of this distribution from ones that are uniform in [-1, 1)."""
        return uniform * self.fan_in**-0.5


@dataclasses.dataclass(frozen=True)
class Normal:
    """N(0, 1)."""

    is_random: ClassVar = True

    def sample(self, uniform: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Values of this distribution from ones that are uniform in [-1, 1), by the inverse error function."""
        # The open interval: -1 itself, one draw in 2^24, would be minus infinity.
        return math.sqrt(2) * jax.scipy.special.erfinv(
            jnp.maximum(uniform, np.nextafter(np.float32(-1), np.float32(0)))
        )


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float
    is_random: ClassVar = False

    def sample(self, uniform: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """The number in the shape of `uniform`, whose values are not used."""
        return jnp.full_like(uniform, self.value)


@dataclasses.dataclass(frozen=True)
class Xavier:
    """U(-b, b) with b = √(6 / (inputs + outputs)): Glorot and Bengio's, as transformers of the DETR family have it."""

    inputs: int
    outputs: int
    is_random: ClassVar = True

    def sample(self, uniform: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Values of this distribution from ones that are uniform in [-1, 1)."""
        return uniform * (6 / (self.inputs + self.outputs)) ** 0.5


@dataclasses.dataclass(frozen=True)
class Listed:
    """These numbers, row by row, whatever the key."""

    values: tuple[float, ...]
    is_random: ClassVar = False

    def sample(self, uniform: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """The numbers in the shape of `uniform`, whose values are not used."""
        return jnp.asarray(self.values, jnp.float32).reshape(uniform.shape)


Distribution = Uniform | Xavier | Normal | Constant | Listed
ZEROS, ONES, NORMAL = Constant(0.0), Constant(1.0), Normal()


class Declared(struct.PyTreeNode, AxisMetadata):
    """A parameter's shape with its distribution, as Flax boxes a parameter's metadata; modules see the value alone.

    The methods are those that Flax asks of a box (`flax.core.meta.AxisMetadata`).
    """

    value: Any  # has the shape; its numbers do not count
    distribution: Distribution = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """The value, without the distribution."""
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        """Another value with the same distribution."""
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """The same box: a distribution has no axes to keep track of."""
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """The same box, as for `add_axis`."""
        return self


def declare(distribution: Distribution) -> Any:
    """A Flax initialiser that declares a float32 parameter without drawing it."""

    def declared(key: Any, shape: tuple[int, ...]) -> Declared:
        # By name: the default becomes float64 where a program turns on 64 bits.
        return Declared(jnp.zeros(shape, jnp.float32), distribution)

    return declared


def initialise(declared: Any, key: Key[Array, ""]) -> Any:
    """Float32 arrays for a tree of `Declared` shapes; one draw by `key` serves all that are random."""
    leaves, structure = jax.tree.flatten(declared, is_leaf=lambda leaf: isinstance(leaf, Declared))
    total = sum(math.prod(leaf.value.shape) for leaf in leaves if leaf.distribution.is_random)
    drawn = jax.random.uniform(key, (total,), jnp.float32, minval=-1.0, maxval=1.0)
    arrays, start = [], 0
    for leaf in leaves:
        shape = leaf.value.shape
        if leaf.distribution.is_random:
            uniform = drawn[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        else:
            uniform = jnp.zeros(shape, jnp.float32)
        arrays.append(leaf.distribution.sample(uniform))
    return jax.tree.unflatten(structure, arrays)

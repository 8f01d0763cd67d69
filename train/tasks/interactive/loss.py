"""The loss of all passes as one differentiable function, whose gradient is computed in constant memory.

To differentiate a loop over hundreds of passes, JAX would remember all of them. `blocks.gradient` adds up the gradient
on the way forward instead, so this is a function with a derivative of its own: the forward pass leaves the gradient,
and the backward pass scales it. What is constant for the caller (`symbolic_zeros`) gets no gradient and costs none.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float32, Int32, Key

from samjax.types import Features, Params

from ...batch import Batch
from . import blocks
from .losses import MaskLoss
from .passes import Gradient, PassSettings


class Given(NamedTuple):
    """The inputs of the loss that nothing is differentiated in, in the order of `blocks.gradient`."""

    batch: Batch
    image_keys: Key[Array, " B"]
    origin: Int32[Array, "B 2"] | None
    balanced_weight: Float32[Array, ""]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def passes_loss(
    settings: PassSettings,
    together: tuple[int | None, int],
    heads: Params,
    features: Features,
    given: Given,
) -> tuple[Float32[Array, ""], MaskLoss]:
    """The losses of all passes over all valid masks of a batch, summed, and their terms; see `blocks.gradient`.

    Differentiable in the heads' parameters and the features, once and backward; the terms carry no gradient.
    """
    nothing = jax.tree.map(lambda _: False, Gradient(heads, features))
    _, terms = blocks.gradient(settings, together, heads, *given, features=features, wanted=nothing)
    return terms.total.sum(), terms


def _forward(
    settings: PassSettings, together: tuple[int | None, int], heads: Any, features: Any, given: Any
) -> tuple[tuple[Float32[Array, ""], MaskLoss], Gradient]:
    wanted = jax.tree.map(lambda leaf: leaf.perturbed, Gradient(heads, features))
    heads, features, given = jax.tree.map(lambda leaf: leaf.value, (heads, features, given))
    gradient, terms = blocks.gradient(settings, together, heads, *given, features=features, wanted=wanted)
    return (terms.total.sum(), terms), gradient


def _backward(
    settings: PassSettings, together: tuple[int | None, int], gradient: Gradient, cotangent: Any
) -> tuple[Any, Any, None]:
    of_loss, _ = cotangent  # the terms are there to be looked at
    if isinstance(of_loss, SymbolicZero):
        return None, None, None
    scaled = jax.tree.map(lambda leaf: leaf * of_loss, gradient)
    return scaled.params, scaled.features, None


passes_loss.defvjp(_forward, _backward, symbolic_zeros=True)

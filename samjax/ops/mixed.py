"""Products and sums of half-precision arrays: summed in float32, while what is kept and moved stays in half precision.

JAX's own gradient of a product that is summed in float32 multiplies float32 by half precision, so it converts the other
operand, writes the copy, and moves twice the bytes of both. Here the gradient comes in half precision like the
operands, as it does from a product whose result is rounded. Other operands go JAX's way. In half precision there is no
forward-mode gradient.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from samjax.ops.broadcasting import with_rank


def einsum(spec: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float32[Array, "..."]:
    """`jnp.einsum` of two operands, summed in float32.

    `spec` has an output, no letter that stands in one operand alone, and `...` in all three terms or in none.
    """
    return _product(spec, a, b) if a.dtype == b.dtype and a.dtype in _HALF else _exact(spec, a, b)


def add_bias(x: Float[Array, "*B C"], bias: Float[Array, " C"]) -> Float[Array, "*B C"]:
    """Adds a vector of the same dtype along the last axis; its gradient, a sum over all others, is one in float32."""
    return _sum(x, bias) if x.dtype in _HALF else x + with_rank(bias, x.ndim)


_HALF = (jnp.bfloat16, jnp.float16)
_exact = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(spec, a, b):
    return _exact(spec, a, b)


def _product_backward(spec, operands, gradient):
    (of_a, of_b), of_result = spec.split("->")[0].split(","), spec.split("->")[1]
    a, b = operands
    gradient = gradient.astype(a.dtype)
    in_a = jnp.einsum(f"{of_result},{of_b}->{of_a}", gradient, b)
    return in_a, jnp.einsum(f"{of_result},{of_a}->{of_b}", gradient, a)


_product.defvjp(lambda spec, a, b: (_product(spec, a, b), (a, b)), _product_backward)


@jax.custom_vjp
def _sum(x, bias):
    return x + with_rank(bias, x.ndim)


def _sum_backward(_, gradient):
    in_bias = gradient.astype(jnp.float32).sum(range(gradient.ndim - 1))
    return gradient, in_bias.astype(gradient.dtype)


_sum.defvjp(lambda x, bias: (_sum(x, bias), None), _sum_backward)

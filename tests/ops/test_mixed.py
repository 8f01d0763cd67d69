"""Products and sums of half-precision arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import mixed


def normal(*shape: int) -> jax.Array:
    random = np.random.default_rng(len(shape))
    return jnp.asarray(random.standard_normal(shape), jnp.bfloat16)


def exact(x):
    return x.astype(jnp.float32)


SPECS = {
    "tnd,snd->nts": ((3, 2, 64), (5, 2, 64)),
    "nts,sc->ntc": ((2, 3, 64), (64, 4)),
    "mf,shf->msh": ((2, 64), (5, 3, 64)),
}


@pytest.mark.parametrize("spec", SPECS)
def test_a_product_is_summed_in_float32_and_its_gradient_rounded(spec):
    a, b = (normal(*shape) for shape in SPECS[spec])
    result, gradient = jax.vjp(lambda a, b: mixed.einsum(spec, a, b), a, b)
    true, true_gradient = jax.vjp(lambda a, b: jnp.einsum(spec, a, b, precision="highest"), exact(a), exact(b))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, true, rtol=1e-5, atol=1e-5)  # a rounded one would be off by 2^-9
    cotangent = exact(normal(*result.shape))
    for found, expected in zip(gradient(cotangent), true_gradient(cotangent), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(exact(found), expected, rtol=2**-7, atol=2**-7)


def test_the_gradient_of_a_bias_is_summed_in_float32():
    """In half precision a sum of ones stays at 256."""
    x, bias = jnp.zeros((64, 64, 2), jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)
    gradient = jax.grad(lambda bias: exact(mixed.add_bias(x, bias)).sum())(bias)
    np.testing.assert_array_equal(exact(gradient), [4096, 4096])
    np.testing.assert_array_equal(exact(mixed.add_bias(x + 1, bias + 2)), 3)


def test_float32_goes_jaxs_own_way():
    a, b = exact(normal(3, 8)), exact(normal(8))
    program = jax.make_jaxpr(lambda a, b: (mixed.einsum("td,d->t", a, b), mixed.add_bias(a, b)))(a, b)
    assert "custom_vjp" not in str(program)

import jax
import jax.numpy as jnp
import numpy as np

from samjax.ops.gathering import weighted_rows


def test_values_and_gradients_are_those_of_plain_indexing():
    random = np.random.RandomState(0)
    table, weight = (random.standard_normal(shape).astype(np.float32) for shape in ((11, 3), (6, 5, 2)))
    table, weight = jnp.asarray(table), jnp.asarray(weight)
    index = jnp.asarray(random.randint(0, 11, (6, 5, 2)), jnp.int32)
    out = random.standard_normal((5, 2, 3)).astype(np.float32)

    def plain(table, weight):
        return jnp.einsum("knmc,knm->nmc", table[index], weight)

    for function in (weighted_rows, lambda table, _, weight: plain(table, weight)):
        value, gradient = jax.vjp(lambda t, w, f=function: f(t, index, w), table, weight)
        results = [value, *gradient(jnp.asarray(out))]
        if function is weighted_rows:
            ours = results
    for mine, expected in zip(ours, results, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_the_gradient_of_a_half_precision_table_is_summed_in_float32():
    """4,096 times one hundredth into one row: in bfloat16 the sum stops at 4."""
    index, weight = jnp.zeros((1, 4096), jnp.int32), jnp.full((1, 4096), 0.01, jnp.float32)
    gradient = jax.grad(lambda table: weighted_rows(table, index, weight).sum())(jnp.ones((2, 1), jnp.bfloat16))
    np.testing.assert_allclose(gradient.astype(jnp.float32), [[40.96], [0]], rtol=2**-8)

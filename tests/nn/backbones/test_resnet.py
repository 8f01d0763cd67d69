import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from samjax.nn.backbones.config import ResNetConfig
from samjax.nn.backbones.resnet import FrozenBatchNorm, ResNet, maximum_of_neighbours


def test_statistics_of_batch_norms_are_constants():
    random = np.random.RandomState(0)
    x = jnp.asarray(random.standard_normal((3, 4, 5)), jnp.float32)
    params = {name: jnp.asarray(1 + random.random_sample(5), jnp.float32) for name in ("scale", "bias", "mean", "var")}
    module = FrozenBatchNorm(5)
    exact = {name: np.asarray(value, np.float64) for name, value in params.items()}
    expected = (np.asarray(x, np.float64) - exact["mean"]) / np.sqrt(exact["var"] + 1e-5) * exact["scale"] + exact[
        "bias"
    ]
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)
    gradient = jax.grad(lambda params: jnp.square(module.apply({"params": params}, x)).sum())(params)
    assert {name for name, value in gradient.items() if np.any(value)} == {"scale", "bias"}


def test_features_are_at_strides_4_to_32_rounded_up():
    module = ResNet(ResNetConfig(8, (16, 32, 48, 64), (1, 1, 1, 1)), jnp.dtype("float32"))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare"))
    pixels = jax.ShapeDtypeStruct((75, 101, 3), jnp.float32)
    features = jax.eval_shape(module.apply, meta.unbox(variables), pixels)
    assert [each.shape for each in features] == [(19, 26, 16), (10, 13, 32), (5, 7, 48), (3, 4, 64)]


@pytest.mark.parametrize("size", [(6, 9), (5, 4), (1, 1)])
def test_the_stem_takes_the_maximum_of_neighbours(size):
    """Around every second cell; there is nothing beyond the edges, also where all values are negative."""
    x = -1 - np.random.RandomState(0).random_sample((*size, 2)).astype(np.float32)
    found = np.asarray(jax.jit(maximum_of_neighbours)(x))
    assert found.shape[:2] == tuple(-(-side // 2) for side in size)
    for row, column in np.ndindex(found.shape[:2]):
        around = x[max(2 * row - 1, 0) : 2 * row + 2, max(2 * column - 1, 0) : 2 * column + 2]
        np.testing.assert_array_equal(found[row, column], around.max((0, 1)))

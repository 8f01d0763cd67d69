import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from samjax.nn.backbones.config import ResNetConfig
from samjax.nn.backbones.resnet import FrozenBatchNorm, ResNet


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
    module = ResNet(ResNetConfig(), jnp.dtype("float32"))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare"))
    pixels = jax.ShapeDtypeStruct((75, 101, 3), jnp.float32)
    features = jax.eval_shape(module.apply, meta.unbox(variables), pixels)
    assert [each.shape for each in features] == [(19, 26, 256), (10, 13, 512), (5, 7, 1024), (3, 4, 2048)]

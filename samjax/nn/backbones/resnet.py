"""ResNet: convolutions in bottlenecks, whose batch norms have constant statistics (arXiv 1512.03385)."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from samjax.nn.backbones.config import REDUCTION, ResNetConfig
from samjax.nn.initialise import ONES, ZEROS, Uniform, declare
from samjax.nn.layers import Layer, ModuleList
from samjax.ops.broadcasting import with_rank


class FrozenBatchNorm(Layer):
    """A batch norm by statistics that were gathered when the network was trained, and that no gradient changes."""

    features: int
    epsilon: float = 1e-5

    def setup(self) -> None:
        self.scale = self.param("scale", declare(ONES), (self.features,))
        self.bias = self.param("bias", declare(ZEROS), (self.features,))
        self.mean = self.param("mean", declare(ZEROS), (self.features,))
        self.var = self.param("var", declare(ONES), (self.features,))

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """Normalises each channel in float32; the result has the input's dtype."""
        mean, var = lax.stop_gradient((self.mean, self.var))
        y = (x.astype(jnp.float32) - with_rank(mean, 3)) * with_rank(lax.rsqrt(var + self.epsilon), 3)
        return (y * with_rank(self.scale, 3) + with_rank(self.bias, 3)).astype(x.dtype)


class NormedConv(Layer):
    """A convolution without a bias, and its norm; zeros beyond the edges keep a grid's size at stride 1."""

    inputs: int  # channels
    features: int
    side: int  # of the kernel, odd
    stride: int
    dtype: jnp.dtype

    def setup(self) -> None:
        shape = (self.side, self.side, self.inputs, self.features)
        self.kernel = self.param("kernel", declare(Uniform(fan_in=self.side**2 * self.inputs)), shape)
        self.norm = FrozenBatchNorm(self.features)

    def __call__(self, x: Float[Array, "H W inputs"]) -> Float[Array, "_ _ features"]:
        """Convolves and normalises a grid."""
        margin = [(self.side // 2, self.side // 2)] * 2
        kernel, strides = self.kernel.astype(self.dtype), (self.stride, self.stride)
        layout = lax.conv_dimension_numbers((1, *x.shape), kernel.shape, ("NHWC", "HWIO", "NHWC"))
        return self.norm(lax.conv_general_dilated(x[None], kernel, strides, margin, dimension_numbers=layout)[0])


class Bottleneck(Layer):
    """1x1, 3x3 and 1x1 convolution, added to the input or, where that has another shape, to its projection."""

    inputs: int
    features: int
    stride: int
    dtype: jnp.dtype

    def setup(self) -> None:
        inner = self.features // REDUCTION
        self.conv1 = NormedConv(self.inputs, inner, 1, 1, self.dtype)
        self.conv2 = NormedConv(inner, inner, 3, self.stride, self.dtype)
        self.conv3 = NormedConv(inner, self.features, 1, 1, self.dtype)
        if self.stride != 1 or self.inputs != self.features:
            self.shortcut = NormedConv(self.inputs, self.features, 1, self.stride, self.dtype)

    def __call__(self, x: Float[Array, "H W inputs"]) -> Float[Array, "_ _ features"]:
        """The grid after the bottleneck."""
        y = self.conv3(jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x)))))
        projects = self.stride != 1 or self.inputs != self.features
        return jax.nn.relu(y + (self.shortcut(x) if projects else x))


class Stage(Layer):
    """Bottlenecks in a row, of which the first changes channels and, but in the first stage, halves the grid."""

    config: ResNetConfig
    number: int
    dtype: jnp.dtype

    def setup(self) -> None:
        width, before = self.config.widths[self.number], (self.config.stem, *self.config.widths)[self.number]
        stride = 2 if self.number else 1
        self.layers = ModuleList(
            lambda i: Bottleneck(width if i else before, width, 1 if i else stride, self.dtype),
            tuple(range(self.config.depths[self.number])),
        )

    def __call__(self, x: Float[Array, "_ _ _"]) -> Float[Array, "_ _ _"]:
        """The grid after the stage."""
        for i in range(self.config.depths[self.number]):
            x = self.layers[i](x)
        return x


class ResNet(Layer):
    """A convolution and a maximum at stride 4, then the stages."""

    config: ResNetConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        self.stem = NormedConv(3, self.config.stem, 7, 2, self.dtype)
        self.stages = ModuleList(lambda i: Stage(self.config, i, self.dtype), tuple(range(len(self.config.widths))))

    def __call__(self, pixels: Float32[Array, "h w 3"]) -> tuple[Float[Array, "_ _ _"], ...]:
        """Features of normalised pixels after each stage, finest first; any size will do."""
        x = maximum_of_neighbours(jax.nn.relu(self.stem(pixels.astype(self.dtype))))
        features = []
        for i in range(len(self.config.widths)):
            x = self.stages[i](x)
            features.append(x)
        return tuple(features)


def maximum_of_neighbours(x: Float[Array, "H W C"]) -> Float[Array, "_ _ C"]:
    """The maximum of 3x3 cells around every second one: PyTorch's `max_pool2d(x, 3, stride=2, padding=1)`.

    In two passes over slices, because TPUs cannot differentiate `lax.reduce_window` of one image.
    """
    for axis in (0, 1):
        size = (x.shape[axis] + 1) // 2
        margin = [(1, 1) if each == axis else (0, 0) for each in range(3)]
        padded = jnp.pad(x, margin, constant_values=-jnp.inf)
        slices = [lax.slice_in_dim(padded, first, first + 2 * size - 1, 2, axis) for first in range(3)]
        x = functools.reduce(jnp.maximum, slices)
    return x

"""Layers that more than one of SAM's three parts uses, holding parameters under the reference's names."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from samjax.nn.initialise import NORMAL, ONES, ZEROS, Distribution, Uniform, declare
from samjax.ops.broadcasting import with_rank
from samjax.ops.mixed import add_bias, einsum


class Layer(nn.Module):
    """A module that makes all its parameters and layers in `setup`, whatever it is called with later."""

    def declare(self) -> None:
        """Declares the parameters of this layer and of all layers in it, without computing anything.

        As the method of `init` it gives what running the module would, in a tenth of the time.
        """
        for name, part in vars(self).items():  # Flax has run `setup` before this
            if isinstance(part, Layer) and name != "parent":
                part.declare()


class Dense(Layer):
    """A linear layer whose kernel and bias its owner may also use apart, to fold them into something smaller.

    With `patch` a convolution whose stride is its kernel of patch x patch cells; 1 makes a 1x1 convolution.
    """

    inputs: int  # channels of the input, of one cell where there are patches
    features: int  # channels of the output
    dtype: jnp.dtype
    patch: int | None = None
    use_bias: bool = True
    starts_at_zero: bool = False  # the kernel, as the bias does
    kernel_start: Distribution | None = None  # where that is not PyTorch's default
    bias_start: Distribution = ZEROS

    def setup(self) -> None:
        window = (self.patch, self.patch) if self.patch else ()
        shape = (*window, self.inputs, self.features)
        start = ZEROS if self.starts_at_zero else self.kernel_start or Uniform(fan_in=math.prod(shape[:-1]))
        self.stored_kernel = self.param("kernel", declare(start), shape)
        self.stored_bias = self.param("bias", declare(self.bias_start), (self.features,)) if self.use_bias else None

    @property
    def kernel(self) -> Float[Array, "inputs features"]:
        """The kernel as a matrix; with `patch` its rows are (row, column, channel) of a patch."""
        return self.stored_kernel.reshape(-1, self.features).astype(self.dtype)

    @property
    def bias(self) -> Float[Array, " features"]:
        """The bias of a layer that has one (`use_bias`)."""
        assert self.stored_bias is not None  # nobody asks for the bias of a layer without one
        return self.stored_bias.astype(self.dtype)

    def __call__(self, x: Float[Array, "*B inputs"]) -> Float[Array, "*b features"]:
        """The layer's output for each vector, or with `patch` for each patch of a grid (rows, columns, inputs).

        The grid's sides are multiples of `patch`, and the output's are as many times smaller.
        """
        y = self._in_patches(x).astype(self.dtype) @ self.kernel
        return add_bias(y, self.bias) if self.use_bias else y

    def by_channels(self, x: Float[Array, "h w inputs"], groups: tuple[int, ...]) -> Float[Array, "H W features"]:
        """The same for a layer with `patch`, summed over groups of so many neighbouring channels, one after the
        other."""
        kernels, first, terms = self.stored_kernel.astype(self.dtype), 0, []
        for count in groups:
            part = slice(first, first + count)
            kernel = kernels[:, :, part].reshape(-1, self.features)
            terms.append(self._in_patches(x[:, :, part]).astype(self.dtype) @ kernel)
            first += count
        y = functools.reduce(jnp.add, terms)
        return add_bias(y, self.bias) if self.use_bias else y

    def _in_patches(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        if not self.patch:
            return x
        height, width, channels = x.shape
        x = x.reshape(height // self.patch, self.patch, width // self.patch, self.patch, channels).swapaxes(1, 2)
        return x.reshape(*x.shape[:2], -1)


class Conv3x3(Layer):
    """A 3x3 convolution of a grid, zero-padded to keep the grid's size."""

    inputs: int  # channels
    features: int
    dtype: jnp.dtype
    use_bias: bool = True

    def setup(self) -> None:
        shape = (3, 3, self.inputs, self.features)
        self.stored_kernel = self.param("kernel", declare(Uniform(fan_in=math.prod(shape[:-1]))), shape)
        self.stored_bias = self.param("bias", declare(ZEROS), (self.features,)) if self.use_bias else None

    def __call__(self, x: Float[Array, "H W inputs"]) -> Float[Array, "H W features"]:
        """Convolves a grid, which ends in zeros."""
        kernel = self.stored_kernel.astype(self.dtype)
        layout = lax.conv_dimension_numbers((1, *x.shape), kernel.shape, ("NHWC", "HWIO", "NHWC"))
        y = lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=layout)[0]
        return y if self.stored_bias is None else add_bias(y, self.stored_bias.astype(self.dtype))

    def projected(self, x: Float[Array, "H W inputs"], onto: Float[Array, " features"]) -> Float32[Array, "H W"]:
        """The product of the convolution's output at each place with one vector, which is taken into the kernel: a
        convolution to one channel, and that is nine products a place, shifted and added."""
        onto = onto.astype(self.dtype)
        kernel = (self.stored_kernel.astype(self.dtype) @ onto).reshape(9, self.inputs)
        height, width, _ = x.shape
        products = einsum("hwi,ki->hwk", x.astype(self.dtype), kernel)
        padded = jnp.pad(products, ((1, 1), (1, 1), (0, 0)))
        places = [(row, column) for row in range(3) for column in range(3)]
        shifted = [padded[row : row + height, column : column + width, 3 * row + column] for row, column in places]
        y = functools.reduce(jnp.add, shifted)
        if self.stored_bias is not None:
            y = y + with_rank((self.stored_bias.astype(self.dtype) @ onto).astype(jnp.float32), 2)
        return y


class FeedForward(Layer):
    """Two linear layers with an activation between them: GELU in the ViT, ReLU in the decoder's transformer.

    The reference's `MLPBlock` (modeling/common.py).
    """

    width: int
    hidden: int
    activation: Callable[[jax.Array], jax.Array]
    dtype: jnp.dtype
    kernel_start: Distribution | None = None  # of both layers

    def setup(self) -> None:
        self.lin1 = Dense(self.width, self.hidden, self.dtype, kernel_start=self.kernel_start)
        self.lin2 = Dense(self.hidden, self.width, self.dtype, kernel_start=self.kernel_start)

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Each vector by itself."""
        return self.lin2(self.activation(self.lin1(x)))


class GroupNorm(Layer):
    """Normalisation of a grid over its cells and a group of neighbouring channels, in float32: PyTorch's `GroupNorm`.

    What heads trained here use instead of batch norms, which need statistics of many photos.
    """

    features: int
    groups: int
    epsilon: float = 1e-5

    def setup(self) -> None:
        self.scale = self.param("scale", declare(ONES), (self.features,))
        self.bias = self.param("bias", declare(ZEROS), (self.features,))

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """Normalises a grid; the result has its dtype."""
        y = x.astype(jnp.float32).reshape(*x.shape[:2], self.groups, -1)
        y = y - y.mean((0, 1, 3), keepdims=True)
        y = y * lax.rsqrt(jnp.square(y).mean((0, 1, 3), keepdims=True) + self.epsilon)
        scale, bias = (with_rank(vector.astype(jnp.float32), 3) for vector in (self.scale, self.bias))
        return (y.reshape(x.shape) * scale + bias).astype(x.dtype)


class LayerNorm(Layer):
    """Normalisation over the last axis in float32, whatever the dtype of the input; the result has the input's.

    SAM has two epsilons: 1e-6 in the ViT and in every channel norm (`LayerNorm2d` of the reference's
    modeling/common.py), 1e-5 in the decoder's transformer.
    """

    features: int
    epsilon: float

    def setup(self) -> None:
        self.scale = self.param("scale", declare(ONES), (self.features,))
        self.bias = self.param("bias", declare(ZEROS), (self.features,))

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Normalises each vector; the result has the input's dtype."""
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        scale, bias = (with_rank(vector.astype(jnp.float32), y.ndim) for vector in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)


class MLP(Layer):
    """Linear layers with ReLU between them: `MLP` of the reference's mask_decoder.py."""

    widths: tuple[int, ...]  # channels of the input, of the layers between, and of the output
    dtype: jnp.dtype

    def setup(self) -> None:
        self.layers = ModuleList(
            lambda i: Dense(self.widths[i], self.widths[i + 1], self.dtype), tuple(range(len(self.widths) - 1))
        )

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
        """Each vector by itself."""
        last = len(self.widths) - 2
        for i in range(last):
            x = jax.nn.relu(self.layers[i](x))
        return self.layers[last](x)


class LearnedVectors(Layer):
    """A learned table of `rows` float32 vectors: PyTorch's `Embedding`, read as a whole."""

    rows: int
    features: int

    def setup(self) -> None:
        self.table = self.param("embedding", declare(NORMAL), (self.rows, self.features))

    def __call__(self) -> Float[Array, "rows features"]:
        """The table."""
        return self.table.astype(jnp.float32)


class ModuleList(Layer):
    """Modules named "0", "1", ...: what the reference's Sequential and ModuleList call their children.

    `indices` may have gaps, where a Sequential has an activation, which holds no parameters.
    """

    build: Callable[[int], nn.Module]
    indices: tuple[int, ...]

    def setup(self) -> None:
        for index in self.indices:
            setattr(self, str(index), self.build(index))

    def __getitem__(self, index: int) -> nn.Module:
        """The module named `index`. Raises AttributeError if `indices` does not have it."""
        return getattr(self, str(index))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU in its exact (erf) form, as the reference has it everywhere; JAX's default is the tanh approximation.

    In half precision, which is for accelerators, a gradient computes it again: to keep its three terms would move more
    bytes than to read `x`.
    """
    exact = functools.partial(jax.nn.gelu, approximate=False)
    return exact(x) if x.dtype == jnp.float32 else jax.checkpoint(exact)(x)

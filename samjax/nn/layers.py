"""Layers that more than one of SAM's three parts uses, holding parameters under the reference's names."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from samjax.nn.initialise import NORMAL, ONES, ZEROS, Uniform, declare
from samjax.ops.broadcasting import with_rank
from samjax.ops.mixed import add_bias


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

    def setup(self) -> None:
        window = (self.patch, self.patch) if self.patch else ()
        shape = (*window, self.inputs, self.features)
        self.stored_kernel = self.param("kernel", declare(Uniform(fan_in=math.prod(shape[:-1]))), shape)
        self.stored_bias = self.param("bias", declare(ZEROS), (self.features,)) if self.use_bias else None

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
        if self.patch:
            height, width, channels = x.shape
            x = x.reshape(height // self.patch, self.patch, width // self.patch, self.patch, channels).swapaxes(1, 2)
            x = x.reshape(*x.shape[:2], -1)
        y = x.astype(self.dtype) @ self.kernel
        return add_bias(y, self.bias) if self.use_bias else y


class FeedForward(Layer):
    """Two linear layers with an activation between them: GELU in the ViT, ReLU in the decoder's transformer.

    The reference's `MLPBlock` (modeling/common.py).
    """

    width: int
    hidden: int
    activation: Callable[[jax.Array], jax.Array]
    dtype: jnp.dtype

    def setup(self) -> None:
        self.lin1 = Dense(self.width, self.hidden, self.dtype)
        self.lin2 = Dense(self.hidden, self.width, self.dtype)

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Each vector by itself."""
        return self.lin2(self.activation(self.lin1(x)))


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
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        scale, bias = (with_rank(vector.astype(jnp.float32), y.ndim) for vector in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)


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

"""The pixel decoder: features of a backbone to mask features and to levels that queries attend to.

Layers of multi-scale deformable attention (MSDeformAttn) over the coarsest levels, then a feature pyramid to the
finest. The published code has it in modeling/pixel_decoder/msdeformattn.py.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from samjax.nn.heads.config import PixelDecoderConfig
from samjax.nn.initialise import NORMAL, Listed, Xavier, declare
from samjax.nn.layers import Conv3x3, Dense, FeedForward, GroupNorm, Layer, LayerNorm, ModuleList
from samjax.ops.attention import deformable_attention
from samjax.ops.broadcasting import with_rank
from samjax.ops.points import cell_centres
from samjax.ops.resize import resize_axis
from samjax.ops.sines import sine_positions

NORM_EPSILON = 1e-5  # PyTorch's default, of all norms of Mask2Former
Sizes = tuple[tuple[int, int], ...]  # (rows, columns) of levels


class DeformableSelfAttention(Layer):
    """Each cell attends to a few points near itself, in all levels; their places and weights come from the cell."""

    config: PixelDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width, points = self.config.width, self.config.heads * self.config.levels * self.config.points
        square = Xavier(width, width)
        offsets = Listed(_first_offsets(self.config))
        self.sampling_offsets = Dense(width, 2 * points, self.dtype, starts_at_zero=True, bias_start=offsets)
        self.attention_weights = Dense(width, points, self.dtype, starts_at_zero=True)
        self.value_proj = Dense(width, width, self.dtype, kernel_start=square)
        self.output_proj = Dense(width, width, self.dtype, kernel_start=square)

    def __call__(
        self, x: Float[Array, "S C"], position: Float32[Array, "S C"], centres: Float32[Array, "S 2"], sizes: Sizes
    ) -> Float[Array, "S C"]:
        """Attends from all cells to all levels; `centres` are where the cells stand, as shares of the image."""
        query = x + position.astype(x.dtype)
        of_points = (len(x), self.config.heads, len(sizes), self.config.points)
        offsets = self.sampling_offsets(query).astype(jnp.float32).reshape(*of_points, 2)  # in cells of each level
        columns_rows = jnp.array([size[::-1] for size in sizes], jnp.float32)[None, None, :, None]
        weights = self.attention_weights(query).astype(jnp.float32).reshape(*of_points[:2], -1)
        weights = jax.nn.softmax(weights, -1).reshape(of_points)
        values = self.value_proj(x).reshape(len(x), self.config.heads, -1)
        points = centres[:, None, None, None] + offsets / columns_rows
        return self.output_proj(deformable_attention(values, sizes, points, weights).reshape(x.shape))


def _first_offsets(config: PixelDecoderConfig) -> tuple[float, ...]:
    """Where heads look before training: each into a direction of its own, its points one, two, ... cells away."""
    numbers: list[float] = []
    for head in range(config.heads):
        angle = 2 * math.pi * head / config.heads
        x, y = math.cos(angle), math.sin(angle)
        longest = max(abs(x), abs(y))
        distances = range(1, config.points + 1)
        numbers += [part * d / longest for d in distances for part in (x, y)] * config.levels
    return tuple(numbers)


class DeformableLayer(Layer):
    """Deformable self-attention, then an MLP, each added to its input and normalised after."""

    config: PixelDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width = self.config.width
        start = Xavier(width, self.config.mlp_dim)
        self.self_attn = DeformableSelfAttention(self.config, self.dtype)
        self.norm1 = LayerNorm(width, NORM_EPSILON)
        self.mlp = FeedForward(width, self.config.mlp_dim, jax.nn.relu, self.dtype, start)
        self.norm2 = LayerNorm(width, NORM_EPSILON)

    def __call__(
        self, x: Float[Array, "S C"], position: Float32[Array, "S C"], centres: Float32[Array, "S 2"], sizes: Sizes
    ) -> Float[Array, "S C"]:
        """The cells of all levels after the layer."""
        x = self.norm1(x + self.self_attn(x, position, centres, sizes))
        return self.norm2(x + self.mlp(x))


class Projection(Layer):
    """A 1x1 convolution to the decoder's channels, with its norm."""

    inputs: int  # channels
    config: PixelDecoderConfig
    dtype: jnp.dtype
    use_bias: bool

    def setup(self) -> None:
        width = self.config.width
        start = Xavier(self.inputs, width)
        self.conv = Dense(self.inputs, width, self.dtype, patch=1, use_bias=self.use_bias, kernel_start=start)
        self.norm = GroupNorm(width, self.config.groups, NORM_EPSILON)

    def __call__(self, x: Float[Array, "H W inputs"]) -> Float[Array, "H W C"]:
        """The grid in other channels."""
        return self.norm(self.conv(x))


class Smoothing(Layer):
    """A 3x3 convolution behind a sum of two levels, with its norm and ReLU."""

    config: PixelDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        self.conv = Conv3x3(self.config.width, self.config.width, self.dtype, use_bias=False)
        self.norm = GroupNorm(self.config.width, self.config.groups, NORM_EPSILON)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """The grid, smoothed."""
        return jax.nn.relu(self.norm(self.conv(x)))


class PixelDecoder(Layer):
    """Features of a backbone to mask features and levels. Raises ValueError for fewer features than levels."""

    config: PixelDecoderConfig
    inputs: tuple[int, ...]  # channels of the features, finest first
    dtype: jnp.dtype

    def setup(self) -> None:
        config, levels = self.config, self.config.levels
        if len(self.inputs) < levels:
            raise ValueError(f"the pixel decoder attends to {levels} levels of features, got {self.inputs}")
        coarsest = self.inputs[::-1]
        self.level_embed = self.param("level_embed", declare(NORMAL), (levels, config.width))
        self.input_proj = ModuleList(lambda i: Projection(coarsest[i], config, self.dtype, True), tuple(range(levels)))
        self.layers = ModuleList(lambda _: DeformableLayer(config, self.dtype), tuple(range(config.depth)))
        finer = tuple(range(len(self.inputs) - levels))
        self.lateral = ModuleList(lambda i: Projection(self.inputs[i], config, self.dtype, False), finer)
        self.smooth = ModuleList(lambda _: Smoothing(config, self.dtype), finer)
        self.mask_proj = Dense(config.width, config.mask_width, self.dtype, patch=1)

    def __call__(
        self, features: tuple[Float[Array, "_ _ _"], ...]
    ) -> tuple[Float[Array, "h w F"], tuple[Float[Array, "_ _ C"], ...]]:
        """Decodes the features of an image.

        Args:
            features: of the backbone, finest first, with `inputs` channels.

        Returns:
            Mask features, with the grid of the finest, and the levels that were attended to, coarsest first.
        """
        grids = [self.input_proj[i](features[-1 - i].astype(self.dtype)) for i in range(self.config.levels)]
        sizes = tuple((grid.shape[0], grid.shape[1]) for grid in grids)
        embeds = self.level_embed.astype(jnp.float32)
        positions = [sine_positions(size, self.config.width) + embeds[i][None] for i, size in enumerate(sizes)]
        x = jnp.concatenate([grid.reshape(-1, self.config.width) for grid in grids])
        position, centres = jnp.concatenate(positions), jnp.concatenate([cell_centres(size) for size in sizes])
        for i in range(self.config.depth):
            x = self.layers[i](x, position, centres, sizes)
        levels, start = [], 0
        for rows, columns in sizes:
            levels.append(x[start : start + rows * columns].reshape(rows, columns, -1))
            start += rows * columns
        finest = levels[-1]
        for i in reversed(range(len(self.inputs) - self.config.levels)):
            lateral = self.lateral[i](features[i].astype(self.dtype))
            finest = self.smooth[i](lateral + resized(finest, (lateral.shape[0], lateral.shape[1])))
        return self.mask_proj(finest), tuple(levels)


def resized(grid: Float[Array, "H W C"], size: tuple[int, int]) -> Float[Array, "h w C"]:
    """Resizes a grid bilinearly to `size` (rows, columns), without antialiasing, as PyTorch's `interpolate`."""
    for axis, side in enumerate(size):
        grid = resize_axis(grid, axis, side, "linear")
    return with_rank(grid, 3)

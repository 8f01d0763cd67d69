"""Swin: a pyramid of transformer blocks that attend within windows, every second one within shifted ones."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from samjax.nn.backbones.config import SwinConfig
from samjax.nn.initialise import ZEROS, declare
from samjax.nn.layers import Dense, FeedForward, Layer, LayerNorm, ModuleList, gelu
from samjax.ops.attention import shifted_window_attention
from samjax.ops.windows import pad_to_windows

NORM_EPSILON = 1e-5


class WindowAttention(Layer):
    """Self-attention within windows, with a learned bias for each offset between two cells."""

    width: int
    heads: int
    window: int  # cells
    shift: int
    dtype: jnp.dtype

    def setup(self) -> None:
        self.q_proj, self.k_proj, self.v_proj, self.proj = (Dense(self.width, self.width, self.dtype) for _ in range(4))
        offsets = (2 * self.window - 1) ** 2
        self.table = self.param("relative_position_bias_table", declare(ZEROS), (offsets, self.heads))

    def __call__(self, x: Float[Array, "Hp Wp C"]) -> Float[Array, "Hp Wp C"]:
        """Attends within the windows of a grid whose sides are multiples of theirs."""
        q, k, v = (
            project(x).reshape(*x.shape[:2], self.heads, -1) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.proj(shifted_window_attention(q, k, v, self.table, self.window, self.shift).reshape(x.shape))


class Block(Layer):
    """A pre-norm block; the grid is filled up to whole windows after the norm, with zeros, which are attended."""

    config: SwinConfig
    stage: int
    number: int
    dtype: jnp.dtype

    def setup(self) -> None:
        width, window = self.config.channels[self.stage], self.config.window
        shift = window // 2 if self.number % 2 else 0
        self.norm1 = LayerNorm(width, NORM_EPSILON)
        self.attn = WindowAttention(width, self.config.heads[self.stage], window, shift, self.dtype)
        self.norm2 = LayerNorm(width, NORM_EPSILON)
        self.mlp = FeedForward(width, self.config.mlp_ratio * width, gelu, self.dtype)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """The grid after the block."""
        height, width, _ = x.shape
        y = self.attn(pad_to_windows(self.norm1(x), self.config.window))
        x = x + y[:height, :width]
        return x + self.mlp(self.norm2(x))


class PatchMerging(Layer):
    """Four neighbours of a grid become one cell of twice the channels."""

    width: int
    dtype: jnp.dtype

    def setup(self) -> None:
        self.norm = LayerNorm(4 * self.width, NORM_EPSILON)
        self.reduction = Dense(4 * self.width, 2 * self.width, self.dtype, use_bias=False)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "_ _ D"]:
        """The grid of half the size, rounded up; beyond the edges are zeros."""
        x = pad_to_windows(x, 2)
        neighbours = [x[row::2, column::2] for column in range(2) for row in range(2)]
        return self.reduction(self.norm(jnp.concatenate(neighbours, -1)))


class Stage(Layer):
    """Blocks in a row; behind all stages but the last their grid is made smaller for the next."""

    config: SwinConfig
    number: int
    dtype: jnp.dtype

    def setup(self) -> None:
        self.blocks = ModuleList(
            lambda i: Block(self.config, self.number, i, self.dtype), tuple(range(self.config.depths[self.number]))
        )
        if self.number + 1 < len(self.config.depths):
            self.downsample = PatchMerging(self.config.channels[self.number], self.dtype)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """The grid after the blocks."""
        for i in range(self.config.depths[self.number]):
            x = self.blocks[i](x)
        return x


class PatchEmbed(Layer):
    """Patches of pixels to cells, normalised."""

    config: SwinConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        self.proj = Dense(3, self.config.width, self.dtype, patch=self.config.patch)
        self.norm = LayerNorm(self.config.width, NORM_EPSILON)

    def __call__(self, pixels: Float32[Array, "h w 3"]) -> Float[Array, "H W C"]:
        """Cells of normalised pixels, which are filled up to whole patches with zeros."""
        return self.norm(self.proj(pad_to_windows(pixels, self.config.patch)))


class Swin(Layer):
    """Patches, then stages, the output of each with a norm of its own."""

    config: SwinConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        stages = tuple(range(len(self.config.depths)))
        self.patch_embed = PatchEmbed(self.config, self.dtype)
        self.layers = ModuleList(lambda i: Stage(self.config, i, self.dtype), stages)
        self.norms = ModuleList(lambda i: LayerNorm(self.config.channels[i], NORM_EPSILON), stages)

    def __call__(self, pixels: Float32[Array, "h w 3"]) -> tuple[Float[Array, "_ _ _"], ...]:
        """Features of normalised pixels after each stage, finest first; any size will do."""
        x = self.patch_embed(pixels)
        features = []
        for i in range(len(self.config.depths)):
            x = self.layers[i](x)
            features.append(self.norms[i](x))
            if i + 1 < len(self.config.depths):
                x = self.layers[i].downsample(x)
        return tuple(features)

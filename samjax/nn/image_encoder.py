"""The ViT image encoder: photo pixels to an embedding at 1/patch of their size (SAM paper, section 3; ViTDet).

The reference has it in modeling/image_encoder.py.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from samjax.config import Execution, ImageEncoderConfig
from samjax.nn.initialise import ZEROS, Uniform, declare
from samjax.nn.layers import Dense, FeedForward, LayerNorm, ModuleList, gelu
from samjax.ops import attention, resize, windows
from samjax.ops.batching import map_batch
from samjax.ops.broadcasting import with_rank


class GridAttention(nn.Module):
    """Self-attention with decomposed relative position, over the whole grid or within windows.

    The reference's `Attention`.
    """

    config: ImageEncoderConfig
    execution: Execution
    is_global: bool

    def setup(self) -> None:
        width, size = self.config.width, self.config.window_size
        table_sizes = self.config.grid if self.is_global else (size, size)
        self.rel_pos_h, self.rel_pos_w = (
            self.param(name, declare(ZEROS), (2 * side - 1, self.config.head_dim))
            for name, side in zip(("rel_pos_h", "rel_pos_w"), table_sizes, strict=True)
        )
        self.qkv = Dense(width, 3 * width, self.execution.dtype)
        self.proj = Dense(width, width, self.execution.dtype)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """Attention of the tokens of a grid, which may be that of a window of the model's input.

        Raises ValueError if it attends globally and the grid is larger than `config.grid` along an axis.
        """
        tables = self.rel_pos_h.astype(x.dtype), self.rel_pos_w.astype(x.dtype)
        if self.is_global:
            tables = [_shortened(table, side) for table, side in zip(tables, x.shape[:2], strict=True)]
            q, k, v = self._heads(self.qkv(x))
            y = self._merge_heads(self._attend_globally(q, k, v, *tables))
        else:
            # The reference pads windows with zeros AFTER the norm and attends to them: a padding token's q, k and v
            # are the bias of qkv. Projecting first and padding then is the same for less work.
            size = self.config.window_size
            qkv = windows.pad_to_windows(x @ self.qkv.kernel, size) + with_rank(self.qkv.bias, 3)

            @jax.checkpoint  # a gradient would keep the logits of all windows
            def attend_within(window):
                q, k, v = self._heads(window)
                return self._merge_heads(attention.grid_attention(q, k, v, *tables))

            attended = map_batch(attend_within, windows.partition(qkv, size), together=self.execution.windows_per_step)
            y = windows.merge(attended, (x.shape[0], x.shape[1]))
        return self.proj(y)

    def _heads(self, qkv: Float[Array, "H W QKV"]) -> Float[Array, "3 heads H W D"]:
        height, width = qkv.shape[:2]
        return qkv.reshape(height, width, 3, self.config.heads, -1).transpose(2, 3, 0, 1, 4)

    def _merge_heads(self, x: Float[Array, "heads H W D"]) -> Float[Array, "H W heads*D"]:
        return x.transpose(1, 2, 0, 3).reshape(*x.shape[1:3], -1)

    def _attend_globally(self, q, k, v, rel_pos_h, rel_pos_w):
        how = self.execution
        if how.attention == "plain":
            return attention.grid_attention(q, k, v, rel_pos_h, rel_pos_w)
        return attention.blocked_grid_attention(
            q, k, v, rel_pos_h, rel_pos_w, rows=how.attention_rows, heads_together=how.heads_together
        )


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP, each added to its input; the reference's `Block`."""

    config: ImageEncoderConfig
    execution: Execution
    is_global: bool

    def setup(self) -> None:
        width = self.config.width
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.attn = GridAttention(self.config, self.execution, self.is_global)
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        self.mlp = FeedForward(width, self.config.mlp_ratio * width, gelu, self.execution.dtype)

    def __call__(self, x: Float[Array, "H W C"], weights: Float32[Array, "2"] | None = None) -> Float[Array, "H W C"]:
        """The tokens of a grid after the block.

        `weights` multiply what the branches add: (attention, MLP). None is 1.
        """
        attention_weight, mlp_weight = (1, 1) if weights is None else weights.astype(x.dtype)
        x = x + self.attn(self.norm1(x)) * attention_weight
        return x + self.mlp(self.norm2(x)) * mlp_weight


class Conv3x3(nn.Module):
    """The neck's 3x3 convolution of a grid, without bias, zero-padded to keep the grid's size."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W features"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", declare(Uniform(fan_in=math.prod(shape[:-1]))), shape).astype(self.dtype)
        layout = lax.conv_dimension_numbers((1, *x.shape), shape, ("NHWC", "HWIO", "NHWC"))
        return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=layout)[0]


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens, one per cell of the grid: the reference's `PatchEmbed`."""

    config: ImageEncoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        self.proj = Dense(3, self.config.width, self.dtype, patch=self.config.patch_size)

    def __call__(self, pixels: Float[Array, "h w 3"]) -> Float[Array, "H W C"]:
        """Tokens of normalised RGB pixels; h and w are multiples of the patch size."""
        return self.proj(pixels)


class ImageEncoder(nn.Module):
    """Patch embedding, absolute positions, transformer blocks, convolutional neck.

    The reference's `ImageEncoderViT`.
    """

    config: ImageEncoderConfig
    features: int  # channels of the embedding
    execution: Execution

    def setup(self) -> None:
        config, dtype = self.config, self.execution.dtype
        self.patch_embed = PatchEmbed(config, dtype)
        self.pos_embed = self.param("pos_embed", declare(ZEROS), (1, *config.grid, config.width))
        block = nn.remat(Block) if self.execution.remat else Block
        self.blocks = ModuleList(
            lambda i: block(config, self.execution, i in config.global_blocks), tuple(range(config.depth))
        )
        neck = (
            lambda: Dense(config.width, self.features, dtype, patch=1, use_bias=False),
            lambda: LayerNorm(self.features, epsilon=1e-6),
            lambda: Conv3x3(self.features, dtype),
            lambda: LayerNorm(self.features, epsilon=1e-6),
        )
        self.neck = ModuleList(lambda i: neck[i](), tuple(range(len(neck))))

    def __call__(
        self,
        pixels: Float32[Array, "h w 3"],
        branch_weights: Float32[Array, "depth 2"] | None = None,
        origin: Int32[Array, "2"] | None = None,
    ) -> Float[Array, "H W C"]:
        """The image embedding of normalised RGB pixels, one vector per patch.

        Args:
            pixels: the padded model input, (h, w) = `config.image_size`, as `transforms.to_pixels` makes it; or with
                `origin` a window of it, whose sides are multiples of the patch size.
            branch_weights: multiply what each block's (attention, MLP) add to its input: how training drops paths.
                None is 1.
            origin: (x, y) of the window's upper left corner, in pixels of the padded model input; multiples of the
                patch size.
        """
        x = self.patch_embed(pixels)
        position = self.pos_embed[0]
        if origin is not None:
            column, row = origin // self.config.patch_size
            position = lax.dynamic_slice(position, (row, column, jnp.zeros_like(row)), x.shape)
        x = x + position.astype(x.dtype)
        for i in range(self.config.depth):
            x = self.blocks[i](x, None if branch_weights is None else branch_weights[i])
        for i in range(4):
            x = self.neck[i](x)
        return x


def _shortened(table: Float[Array, "L D"], side: int) -> Float[Array, "l D"]:
    """The part of a table of relative positions that a window of `side` tokens needs, which is its middle."""
    left = (len(table) - (2 * side - 1)) // 2
    return table[left : len(table) - left] if left > 0 else table


def resample_positions(params: dict, config: ImageEncoderConfig) -> dict:
    """The encoder's parameters with position tables resampled to `config`'s grid; all other leaves are untouched.

    Absolute positions (1, H, W, C) are resized bicubically, as is usual when a ViT changes resolution; the global
    blocks' relative position tables, (2H - 1, D) and (2W - 1, D), linearly, as the reference does on the fly
    (`get_rel_pos`). `params` is the tree "image_encoder" of a SAM's parameters.
    """

    def fit(path, leaf):
        names = [entry.key for entry in path]
        if names == ["pos_embed"]:
            for axis, side in zip((1, 2), config.grid, strict=True):
                leaf = resize.resize_axis(leaf, axis, side, "cubic")
        elif names[-1] in ("rel_pos_h", "rel_pos_w") and int(names[1]) in config.global_blocks:
            side = config.grid[0] if names[-1] == "rel_pos_h" else config.grid[1]
            leaf = resize.resize_axis(leaf, 0, 2 * side - 1, "linear")
        return leaf

    return jax.tree_util.tree_map_with_path(fit, params)

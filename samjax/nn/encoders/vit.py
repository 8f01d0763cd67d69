"""The plain ViT: photo pixels to features at 1/patch of their size (SAM paper, section 3; ViTDet).

The reference has it in modeling/image_encoder.py.
"""

import math
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from samjax.config import ViTConfig
from samjax.execution import Execution
from samjax.nn.initialise import ONES, ZEROS, declare
from samjax.nn.layers import Conv3x3, Dense, FeedForward, Layer, LayerNorm, ModuleList, gelu
from samjax.ops import attention, resize
from samjax.ops.batching import by_pieces
from samjax.ops.broadcasting import with_rank


class GridAttention(Layer):
    """Self-attention with decomposed relative position, over the whole grid or within windows.

    The reference's `Attention`.
    """

    config: ViTConfig
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
        grid, heads = (x.shape[0], x.shape[1]), self.config.heads
        if self.is_global:
            tables = _shortened(tables[0], grid[0]), _shortened(tables[1], grid[1])
            qkv = by_pieces(self.qkv, x, self.execution.tokens_per_step)
            y = attention.grid_attention(qkv, tables, heads, self._how(grid, None, x.dtype))
        else:
            size = self.config.window_size
            how = self._how(grid, size, x.dtype)
            projected = by_pieces(lambda x: x @ self.qkv.kernel, x, self.execution.tokens_per_step)
            y = attention.window_attention(projected, self.qkv.bias, size, tables, heads, how)
        return self.proj(y)

    def _how(self, grid: tuple[int, int], window: int | None, dtype: jnp.dtype) -> attention.AttentionForm:
        how, config = self.execution, self.config
        work = attention.Workload(how.platform, dtype, grid, window, config.heads, config.head_dim)
        return attention.choose(work, how.attention if window is None else how.window_attention)


class Adapter(Layer):
    """A bottleneck beside a block's MLP, with a learnable scale: AdaptFormer's (arXiv 2205.13535, section 3.2).

    It starts as nothing: the output's kernel and bias are zero. Its input is the MLP's, the normalised tokens. The
    names are those of the authors' models/adapter.py, which takes the tokens before the norm.
    """

    width: int
    hidden: int
    dtype: jnp.dtype

    def setup(self) -> None:
        self.down_proj = Dense(self.width, self.hidden, self.dtype)
        self.up_proj = Dense(self.hidden, self.width, self.dtype, starts_at_zero=True)
        self.scale = self.param("scale", declare(ONES), (1,))

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """The bottleneck's output, which is added to the MLP's."""
        return self.up_proj(jax.nn.relu(self.down_proj(x))) * with_rank(self.scale.astype(self.dtype), x.ndim)


class Block(Layer):
    """A pre-norm transformer block: attention, then an MLP, each added to its input; the reference's `Block`."""

    config: ViTConfig
    execution: Execution
    is_global: bool

    def setup(self) -> None:
        width = self.config.width
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.attn = GridAttention(self.config, self.execution, self.is_global)
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        self.mlp = FeedForward(width, self.config.mlp_ratio * width, gelu, self.execution.dtype)
        if self.config.adapter:
            self.adaptmlp = Adapter(width, self.config.adapter, self.execution.dtype)

    def __call__(self, x: Float[Array, "H W C"], weights: Float32[Array, "2"] | None = None) -> Float[Array, "H W C"]:
        """The tokens of a grid after the block.

        `weights` multiply what the branches add: (attention, MLP). None is 1.
        """
        attention_weight, mlp_weight = (1, 1) if weights is None else weights.astype(x.dtype)
        x = x + self.attn(self.norm1(x)) * attention_weight

        def with_mlp(x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
            normalised = self.norm2(x)
            y = self.mlp(normalised)
            if self.config.adapter:
                y = y + self.adaptmlp(normalised)
            return x + y * mlp_weight

        return by_pieces(with_mlp, x, self.execution.tokens_per_step)


class PatchEmbed(Layer):
    """Non-overlapping patches to tokens, one per cell of the grid: the reference's `PatchEmbed`."""

    config: ViTConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        self.proj = Dense(self.config.channels, self.config.width, self.dtype, patch=self.config.patch_size)

    def __call__(self, pixels: Float[Array, "h w channels"]) -> Float[Array, "H W C"]:
        """Tokens of normalised pixels; h and w are multiples of the patch size."""
        if self.config.channels == 3:
            return self.proj(pixels)
        # Apart, so that channels whose kernel is zero leave the tokens of the others as they are, to the bit.
        return self.proj.by_channels(pixels, (3, self.config.channels - 3))


class ViT(Layer):
    """Patch embedding, absolute positions, transformer blocks, convolutional neck.

    The reference's `ImageEncoderViT`.
    """

    config: ViTConfig
    features: int  # channels of the features
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
            lambda: Conv3x3(self.features, self.features, dtype, use_bias=False),
            lambda: LayerNorm(self.features, epsilon=1e-6),
        )
        self.neck = ModuleList(lambda i: neck[i](), tuple(range(len(neck))))

    def __call__(
        self,
        pixels: Float32[Array, "h w channels"],
        branch_weights: Float32[Array, "depth 2"] | None = None,
        origin: Int32[Array, "2"] | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Float[Array, "H W C"], dict[str, Float[Array, "H W width"]]]:
        """Features of normalised pixels, one vector per patch, and taps.

        Args:
            pixels: the padded model input, (h, w) = `config.image_size`, as `transforms.to_pixels` makes it; or with
                `origin` a window of it, whose sides are multiples of the patch size.
            branch_weights: multiply what each block's (attention, MLP) add to its input: how training drops paths.
                None is 1.
            origin: (x, y) of the window's upper left corner, in pixels of the padded model input; multiples of the
                patch size.
            taps: names of `tap_names`.
        """
        x = self.patch_embed(pixels)
        position = self.pos_embed[0]
        if origin is not None:
            column, row = origin // self.config.patch_size
            position = lax.dynamic_slice(position, (row, column, jnp.zeros_like(row)), x.shape)
        return self._from_block(0, x + position.astype(x.dtype), branch_weights, taps)

    def resume(
        self,
        tokens: Float[Array, "H W width"],
        after: str,
        branch_weights: Float32[Array, "depth 2"] | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Float[Array, "H W C"], dict[str, Float[Array, "H W width"]]]:
        """Computes what `__call__` does from the output of a block on: `tokens` is the tap `after`; taps are later."""
        return self._from_block(tap_names(self.config).index(after) + 1, tokens, branch_weights, taps)

    def _from_block(
        self,
        first: int,
        x: Float[Array, "H W width"],
        branch_weights: Float32[Array, "depth 2"] | None,
        taps: tuple[str, ...],
    ) -> tuple[Float[Array, "H W C"], dict[str, Float[Array, "H W width"]]]:
        tapped = {}
        for i in range(first, self.config.depth):
            x = self.blocks[i](x, None if branch_weights is None else branch_weights[i])
            if (name := f"blocks/{i}") in taps:
                tapped[name] = x
        for i in range(4):
            x = self.neck[i](x)
        return x, tapped


def _shortened(table: Float[Array, "L D"], side: int) -> Float[Array, "l D"]:
    """The part of a table of relative positions that a window of `side` tokens needs, which is its middle."""
    left = (len(table) - (2 * side - 1)) // 2
    return table[left : len(table) - left] if left > 0 else table


def resample_positions(params: dict[str, Any], config: ViTConfig) -> dict:
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


def tap_names(config: ViTConfig) -> tuple[str, ...]:
    """The outputs of the blocks, "blocks/0" and on: (H, W) tokens of `config.width` channels, before the neck."""
    return tuple(f"blocks/{i}" for i in range(config.depth))


def layer(config: ViTConfig, name: str) -> int:
    """The layer of a parameter, for rates by layer: 0 for patches and positions, i + 1 for block i, then the neck."""
    if block := re.match(r"blocks/(\d+)/", name):
        return int(block[1]) + 1
    return 0 if re.match(r"patch_embed|pos_embed", name) else config.depth + 1


def flops(config: ViTConfig, features: int) -> tuple[int, ...]:
    """Operations of one image's features, of so many channels, by `layer`: matrix products, windows padded."""
    tokens, width = math.prod(config.grid), config.width
    counts = [2 * tokens * config.channels * config.patch_size**2 * width]
    for block in range(config.depth):
        if block in config.global_blocks:
            number, grid = 1, config.grid
        else:
            number = math.prod(-(-side // config.window_size) for side in config.grid)
            grid = (config.window_size, config.window_size)
        keys = math.prod(grid)
        products = 2 * 2 * keys * keys * width  # logits, values
        positions = 2 * keys * sum(grid) * width
        count = number * (products + positions)
        count += 2 * tokens * width * width * (3 + 1 + 2 * config.mlp_ratio)  # qkv, proj, MLP
        counts.append(count + 2 * tokens * width * 2 * config.adapter)
    return (*counts, 2 * tokens * (width + 9 * features) * features)  # neck


def describe(config: ViTConfig) -> str:
    """A line for people."""
    adapter = f", adapters of {config.adapter}" if config.adapter else ""
    channels = f", {config.channels} channels" if config.channels != 3 else ""
    return f"{config.depth} blocks of width {config.width}, patch {config.patch_size}{adapter}{channels}"


_BLOCK, _LAYER = "image_encoder.blocks.{}", "vision_encoder.layers.{}"
# Modules by the kind of their parameters, under Meta's names and Hugging Face's.
KEYS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "raw": (
        ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
        (f"{_BLOCK}.attn.rel_pos_h", f"{_LAYER}.attn.rel_pos_h"),
        (f"{_BLOCK}.attn.rel_pos_w", f"{_LAYER}.attn.rel_pos_w"),
        (f"{_BLOCK}.adaptmlp.scale", None),
    ),
    "convolution": (
        ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection"),
        ("image_encoder.neck.0", "vision_encoder.neck.conv1"),
        ("image_encoder.neck.2", "vision_encoder.neck.conv2"),
    ),
    "norm": (
        (f"{_BLOCK}.norm1", f"{_LAYER}.layer_norm1"),
        (f"{_BLOCK}.norm2", f"{_LAYER}.layer_norm2"),
        ("image_encoder.neck.1", "vision_encoder.neck.layer_norm1"),
        ("image_encoder.neck.3", "vision_encoder.neck.layer_norm2"),
    ),
    "linear": (
        (f"{_BLOCK}.attn.qkv", f"{_LAYER}.attn.qkv"),
        (f"{_BLOCK}.attn.proj", f"{_LAYER}.attn.proj"),
        (f"{_BLOCK}.mlp.lin1", f"{_LAYER}.mlp.lin1"),
        (f"{_BLOCK}.mlp.lin2", f"{_LAYER}.mlp.lin2"),
        (f"{_BLOCK}.adaptmlp.down_proj", None),
        (f"{_BLOCK}.adaptmlp.up_proj", None),
    ),
}
MATRICES = (r"^blocks/.*kernel$",)
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"patch_embed/proj/kernel", ("fsdp",)),
    (r"adaptmlp/down_proj/kernel", ("fsdp", None)),  # a bottleneck is too narrow to be split
    (r"adaptmlp/up_proj/kernel", (None, "fsdp")),
    (r"(qkv|lin1)/kernel", ("fsdp", "tensor")),
    (r"(qkv|lin1)/bias", ("tensor",)),
    (r"(proj|lin2)/kernel", ("tensor", "fsdp")),
    (r"(pos_embed|neck/\d/kernel)", ("fsdp",)),
    # Low-rank factors (`samjax.tuned`) lie as the axis of the kernel that each has.
    (r"(qkv|lin1)/lora(_[qkv])?/a", ("fsdp", None)),
    (r"(qkv|lin1)/lora(_[qkv])?/b", (None, "tensor")),
    (r"(proj|lin2)/lora/a", ("tensor", None)),
    (r"(proj|lin2)/lora/b", (None, "fsdp")),
)
LOW_RANK: dict[str, tuple[tuple[str, str], ...]] = {
    **{block: ((r"/attn/qkv/kernel$", f"lora_{block}"),) for block in "qkv"},
    "qkv": ((r"/attn/qkv/kernel$", "lora"),),
    "proj": ((r"/attn/proj/kernel$", "lora"),),
    "mlp": ((r"/mlp/lin[12]/kernel$", "lora"),),
}

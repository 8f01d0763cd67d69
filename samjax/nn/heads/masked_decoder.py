"""The masked transformer decoder: learned queries become classes and masks, attending within their masks so far.

The published code has it in modeling/transformer_decoder/mask2former_transformer_decoder.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from samjax.nn.heads.config import Mask2FormerHeadConfig, MaskedDecoderConfig
from samjax.nn.heads.pixel_decoder import NORM_EPSILON, resized
from samjax.nn.initialise import Xavier
from samjax.nn.layers import MLP, Dense, FeedForward, Layer, LayerNorm, LearnedVectors, ModuleList
from samjax.ops.attention import attention_within_masks, masked_attention
from samjax.ops.mixed import add_bias, einsum
from samjax.ops.sines import sine_positions


class Instances(NamedTuple):
    """The answer of the queries after a layer, in float32."""

    class_logits: Float32[Array, "*B Q K"]  # the last class is "no object"
    mask_logits: Float32[Array, "*B Q h w"]


class CrossAttention(Layer):
    """Multi-head attention of queries within their masks: PyTorch's `MultiheadAttention`, whose projections are one."""

    config: MaskedDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width = self.config.width
        self.in_proj = Dense(width, 3 * width, self.dtype, kernel_start=Xavier(width, 3 * width))
        self.out_proj = Dense(width, width, self.dtype, kernel_start=Xavier(width, width))

    def __call__(
        self, q: Float[Array, "Q C"], k: Float[Array, "S C"], v: Float[Array, "S C"], masks: Bool[Array, "Q S"]
    ) -> Float[Array, "Q C"]:
        """Attends from queries to the cells of a level, of which `masks` has those of each query."""
        kernels, biases = jnp.split(self.in_proj.kernel, 3, axis=1), jnp.split(self.in_proj.bias, 3)
        q_heads, k_heads, v_heads = (
            add_bias(x @ kernel, bias).reshape(len(x), self.config.heads, -1)
            for x, kernel, bias in zip((q, k, v), kernels, biases, strict=True)
        )
        return self.out_proj(attention_within_masks(q_heads, k_heads, v_heads, masks).reshape(q.shape))


class SelfAttention(Layer):
    """Multi-head attention of queries to each other."""

    config: MaskedDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width = self.config.width
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Dense(width, width, self.dtype, kernel_start=Xavier(width, width)) for _ in range(4)
        )

    def __call__(self, x: Float[Array, "Q C"], position: Float[Array, "Q C"]) -> Float[Array, "Q C"]:
        """Attends with positions added to queries and keys."""
        positioned = x + position
        projections = (self.q_proj, positioned), (self.k_proj, positioned), (self.v_proj, x)
        q, k, v = (project(of).reshape(len(x), self.config.heads, -1) for project, of in projections)
        return self.out_proj(masked_attention(q, k, v).reshape(x.shape))


class MaskedLayer(Layer):
    """Attention within masks, then self-attention, then an MLP, each added to its input and normalised after."""

    config: MaskedDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width = self.config.width
        self.cross_attn = CrossAttention(self.config, self.dtype)
        self.norm1 = LayerNorm(width, NORM_EPSILON)
        self.self_attn = SelfAttention(self.config, self.dtype)
        self.norm2 = LayerNorm(width, NORM_EPSILON)
        start = Xavier(width, self.config.mlp_dim)
        self.mlp = FeedForward(width, self.config.mlp_dim, jax.nn.relu, self.dtype, start)
        self.norm3 = LayerNorm(width, NORM_EPSILON)

    def __call__(
        self,
        x: Float[Array, "Q C"],
        query_position: Float[Array, "Q C"],
        level: Float[Array, "S C"],
        level_position: Float[Array, "S C"],
        masks: Bool[Array, "Q S"],
    ) -> Float[Array, "Q C"]:
        """The queries after the layer."""
        x = self.norm1(x + self.cross_attn(x + query_position, level + level_position, level, masks))
        x = self.norm2(x + self.self_attn(x, query_position))
        return self.norm3(x + self.mlp(x))


class MaskedDecoder(Layer):
    """Learned queries to classes and masks, before the first layer and after each."""

    config: Mask2FormerHeadConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config, dtype = self.config.decoder, self.dtype
        levels, width = tuple(range(self.config.pixel_decoder.levels)), self.config.pixel_decoder.width
        self.query_features = LearnedVectors(config.queries, config.width)
        self.query_positions = LearnedVectors(config.queries, config.width)
        self.level_embed = LearnedVectors(len(levels), config.width)
        self.projects = config.projects_levels or width != config.width
        self.input_proj = ModuleList(
            lambda _: Dense(width, config.width, dtype, patch=1, kernel_start=Xavier(width, config.width)),
            levels if self.projects else (),
        )
        self.layers = ModuleList(lambda _: MaskedLayer(config, dtype), tuple(range(config.depth)))
        self.norm = LayerNorm(config.width, NORM_EPSILON)
        self.mask_embed = MLP((*[config.width] * 3, self.config.pixel_decoder.mask_width), dtype)
        self.class_embed = Dense(config.width, self.config.classes + 1, dtype)

    def __call__(
        self, mask_features: Float[Array, "h w F"], levels: tuple[Float[Array, "_ _ _"], ...]
    ) -> tuple[Instances, ...]:
        """The answers before the first layer and after each; where only the last is used, XLA computes no other.

        Args:
            mask_features: whose products with a query's mask embedding are its mask logits.
            levels: coarsest first, as `PixelDecoder` gives them.
        """
        config, dtype = self.config.decoder, self.dtype
        sizes = [(level.shape[0], level.shape[1]) for level in levels]
        embeds = self.level_embed().astype(dtype)
        grids = [self.input_proj[i](level) if self.projects else level for i, level in enumerate(levels)]
        cells = [grid.reshape(-1, config.width) + embeds[i][None] for i, grid in enumerate(grids)]
        positions = [sine_positions(size, config.width).astype(dtype) for size in sizes]
        # A mask at a level's size is the product with features of that size: resizing is linear, and there are fewer
        # features than masks of all queries and layers.
        coarse = [resized(mask_features, size) for size in sizes]

        x, query_positions = self.query_features().astype(dtype), self.query_positions().astype(dtype)
        answers = []
        for i in range(config.depth + 1):
            normalised = self.norm(x)
            embedding = self.mask_embed(normalised)
            class_logits = self.class_embed(normalised).astype(jnp.float32)
            answers.append(Instances(class_logits, einsum("qf,hwf->qhw", embedding, mask_features)))
            if i == config.depth:
                break
            level = i % len(levels)
            logits = einsum("qf,hwf->qhw", embedding, coarse[level])
            masks = logits.reshape(config.queries, -1) >= 0
            x = self.layers[i](x, query_positions, cells[level], positions[level], masks)
        return tuple(answers)

"""The mask decoder: image embedding and prompt tokens to mask logits and IoU predictions (SAM paper, Appendix A).

It computes what the reference computes in an order that touches the image less: the first layer's image-side
projections are the same for all prompts of an image and are made once (`image_side`); from the second layer on the
projections are folded into the tokens where these are few; transposed convolutions are matrix products whose 2x2
outputs stay separate axes until the masks are put together.

The reference has it in modeling/mask_decoder.py, the transformer in modeling/transformer.py; HQ-SAM's part (arXiv
2306.01567) is in its authors' modeling/mask_decoder_hq.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from samjax.config import DecoderConfig, HqMasks, SamConfig
from samjax.nn.initialise import ZEROS, Uniform, declare
from samjax.nn.layers import MLP, Conv3x3, Dense, FeedForward, Layer, LayerNorm, LearnedVectors, ModuleList, gelu
from samjax.ops import attention
from samjax.ops.mixed import add_bias, einsum

# As a family of encoders has it (`samjax.nn.encoders.Family.low_rank`).
LOW_RANK: dict[str, tuple[tuple[str, str], ...]] = {
    **{block: ((rf"/{block}_proj/kernel$", "lora"),) for block in "qkv"},
    "qkv": ((r"/[qkv]_proj/kernel$", "lora"),),
    "proj": ((r"/out_proj/kernel$", "lora"),),
    "mlp": ((r"/mlp/lin[12]/kernel$", "lora"),),
}
NORM_EPSILON = 1e-5  # PyTorch's default, which the reference's decoder transformer uses; its ViT has 1e-6


class ImageSide(NamedTuple):
    """The image's part of the decoder, shared by all prompts without a mask; S = H W image tokens, row by row."""

    image: Float[Array, "S C"]  # the image embedding with the dense prompt added
    position: Float[Array, "S C"]  # `PromptEncoder.grid_positions`
    k: Float[Array, "S heads D"]  # of the first layer's token-to-image attention
    v: Float[Array, "S heads D"]
    q: Float[Array, "S heads D"]  # of the first layer's image-to-token attention


class TokenAttention(Layer):
    """Multi-head attention at `width / downsample` internal channels: the reference's transformer.py `Attention`.

    D = width / downsample / heads. Positions are the caller's to add.
    """

    width: int  # channels of tokens and image
    heads: int
    downsample: int
    dtype: jnp.dtype

    def setup(self) -> None:
        inner = self.width // self.downsample
        self.q_proj, self.k_proj, self.v_proj = (Dense(self.width, inner, self.dtype) for _ in range(3))
        self.out_proj = Dense(inner, self.width, self.dtype)

    def q(self, x: Float[Array, "T C"]) -> Float[Array, "T heads D"]:
        """Queries, split into heads."""
        return self._split(self.q_proj(x))

    def k(self, x: Float[Array, "S C"]) -> Float[Array, "S heads D"]:
        """Keys, split into heads."""
        return self._split(self.k_proj(x))

    def v(self, x: Float[Array, "S C"]) -> Float[Array, "S heads D"]:
        """Values, split into heads."""
        return self._split(self.v_proj(x))

    def out(self, x: Float[Array, "T heads D"]) -> Float[Array, "T C"]:
        """Merges the heads and projects them to `width` channels."""
        return self.out_proj(x.reshape(len(x), -1))

    def __call__(
        self, q: Float[Array, "T C"], k: Float[Array, "S C"], v: Float[Array, "S C"], key_valid: Bool[Array, " S"]
    ) -> Float[Array, "T C"]:
        """The T tokens' attention to S keys and values, of which those that are not valid get no weight."""
        return self.out(attention.masked_attention(self.q(q), self.k(k), self.v(v), key_valid))

    def tokens_to_image(
        self, tokens: Float[Array, "T C"], image_with_position: Float[Array, "S C"], image: Float[Array, "S C"]
    ) -> Float[Array, "T C"]:
        """Attention of tokens to an image, which gives keys (with its position) and values."""
        k, v = self._projection(self.k_proj), self._projection(self.v_proj)
        return self.out(attention.tokens_to_image(self.q(tokens), image_with_position, image, k, v))

    def image_to_tokens(
        self,
        q: Float[Array, "S heads D"] | None,
        image_with_position: Float[Array, "S C"],
        tokens_with_position: Float[Array, "T C"],
        tokens: Float[Array, "T C"],
        token_valid: Bool[Array, " T"],
    ) -> Float[Array, "S C"]:
        """Attention of an image to tokens, which give keys (with their position) and values; `q` are the image's
        queries if they are at hand."""
        queries = self._projection(self.q_proj) if q is None else q
        logits = attention.image_logits(queries, image_with_position, self.k(tokens_with_position))
        out_kernel = self.out_proj.kernel.reshape(self.heads, -1, self.width)
        return attention.image_to_tokens(logits, self.v(tokens), out_kernel, self.out_proj.bias, token_valid)

    def _projection(self, dense: Dense) -> attention.Projection:
        return attention.Projection(self._split(dense.kernel), self._split(dense.bias[None])[0])

    def _split(self, x: Float[Array, "A ND"]) -> Float[Array, "A heads D"]:
        return x.reshape(len(x), self.heads, -1)


class TwoWayLayer(Layer):
    """Tokens attend to themselves, then to the image, pass an MLP, then the image attends to the tokens.

    The reference's `TwoWayAttentionBlock` (modeling/transformer.py).
    """

    width: int
    config: DecoderConfig
    dtype: jnp.dtype
    is_first: bool

    def setup(self) -> None:
        width, heads, downsample = self.width, self.config.heads, self.config.downsample
        self.self_attn = TokenAttention(width, heads, 1, self.dtype)
        self.cross_attn_token_to_image = TokenAttention(width, heads, downsample, self.dtype)
        self.cross_attn_image_to_token = TokenAttention(width, heads, downsample, self.dtype)
        self.mlp = FeedForward(width, self.config.mlp_dim, jax.nn.relu, self.dtype)
        self.norm1, self.norm2, self.norm3, self.norm4 = (LayerNorm(width, NORM_EPSILON) for _ in range(4))

    def image_side(self, image: Float[Array, "S C"], position: Float[Array, "S C"]) -> ImageSide:
        """Projections of the image for the first layer, which prompts without a mask share.

        `image` has the dense prompt added to it, `position` is `PromptEncoder.grid_positions`.
        """
        positioned = image + position
        return ImageSide(
            image,
            position,
            k=self.cross_attn_token_to_image.k(positioned),
            v=self.cross_attn_token_to_image.v(image),
            q=self.cross_attn_image_to_token.q(positioned),
        )

    def __call__(
        self,
        tokens: Float[Array, "T C"],
        token_position: Float[Array, "T C"],
        token_valid: Bool[Array, " T"],
        image: Float[Array, "S C"],
        side: ImageSide,
        weights: Float32[Array, "3 T C"] | None,
    ) -> tuple[Float[Array, "T C"], Float[Array, "S C"]]:
        """The tokens and the image tokens after the layer.

        Args:
            tokens: of the output and the prompt, as the layer before left them.
            token_position: the tokens as they were before the first layer; added for queries and keys, but not in the
                first layer's self-attention.
            token_valid: False for absent tokens, which nothing attends to.
            image: image tokens as the layer before left them.
            side: gives the image's position and, to the first layer alone, its projections.
            weights: multiply what (self-attention, attention to the image, MLP) add to the tokens; None is 1.
        """
        self_weight, image_weight, mlp_weight = (1, 1, 1) if weights is None else weights.astype(tokens.dtype)
        if self.is_first:  # the reference adds neither positions nor the residual here
            tokens = self.self_attn(tokens, tokens, tokens, token_valid) * self_weight
        else:
            positioned = tokens + token_position
            tokens = tokens + self.self_attn(positioned, positioned, tokens, token_valid) * self_weight
        tokens = self.norm1(tokens)

        to_image = self.cross_attn_token_to_image
        positioned = tokens + token_position
        image_with_position = image + side.position
        if self.is_first:
            attended = to_image.out(attention.masked_attention(to_image.q(positioned), side.k, side.v))
        else:
            attended = to_image.tokens_to_image(positioned, image_with_position, image)
        tokens = self.norm2(tokens + attended * image_weight)

        tokens = self.norm3(tokens + self.mlp(tokens) * mlp_weight)

        to_tokens = self.cross_attn_image_to_token
        positioned = tokens + token_position
        q = side.q if self.is_first else None
        attended = to_tokens.image_to_tokens(q, image_with_position, positioned, tokens, token_valid)
        return tokens, self.norm4(image + attended)


class TwoWayTransformer(Layer):
    """Two-way layers and a last look of the tokens at the image: the reference's `TwoWayTransformer`."""

    width: int
    config: DecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        self.layers = ModuleList(
            lambda i: TwoWayLayer(self.width, config, self.dtype, is_first=i == 0), tuple(range(config.depth))
        )
        self.final_attn_token_to_image = TokenAttention(self.width, config.heads, config.downsample, self.dtype)
        self.norm_final_attn = LayerNorm(self.width, NORM_EPSILON)

    def image_side(self, image: Float[Array, "S C"], position: Float[Array, "S C"]) -> ImageSide:
        """`TwoWayLayer.image_side` of the first layer."""
        return self.layers[0].image_side(image, position)

    def __call__(
        self,
        side: ImageSide,
        tokens: Float[Array, "T C"],
        token_valid: Bool[Array, " T"],
        weights: Float32[Array, "depth 3 T C"] | None = None,
    ) -> tuple[Float[Array, "T C"], Float[Array, "S C"]]:
        """The tokens and the image tokens after all layers.

        `token_valid` is False for absent tokens. `weights` are `TwoWayLayer`'s for each layer; None is 1.
        """
        token_position, image = tokens, side.image
        for i in range(self.config.depth):
            layer_weights = None if weights is None else weights[i]
            tokens, image = self.layers[i](tokens, token_position, token_valid, image, side, layer_weights)
        attended = self.final_attn_token_to_image.tokens_to_image(tokens + token_position, image + side.position, image)
        return self.norm_final_attn(tokens + attended), image


class ConvTranspose2x2(Layer):
    """A transposed convolution with stride 2 and a 2x2 kernel; the 2x2 outputs of a place are axes of their own.

    The axes 2 2 are (row, column) of the half-sized cells that the place is split into.
    """

    inputs: int
    features: int
    dtype: jnp.dtype

    def setup(self) -> None:
        # Every output sees one position of the kernel.
        shape = (self.inputs, 2, 2, self.features)
        self.kernel = self.param("kernel", declare(Uniform(fan_in=self.inputs)), shape)
        self.bias = self.param("bias", declare(ZEROS), (self.features,))

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B 2 2 features"]:
        """For each place its four outputs, (y, x) by twos."""
        kernel, bias = self.kernel.astype(self.dtype), self.bias.astype(self.dtype)
        y = (x @ kernel.reshape(self.inputs, -1)).reshape(*x.shape[:-1], *kernel.shape[1:])
        return add_bias(y, bias)


def _upscaling(inputs: int, hidden: int, features: int, dtype: jnp.dtype) -> ModuleList:
    """Two transposed convolutions with a norm between them, numbered as in a Sequential with a GELU after the norm."""
    layers = {
        0: lambda: ConvTranspose2x2(inputs, hidden, dtype),
        1: lambda: LayerNorm(hidden, epsilon=1e-6),
        3: lambda: ConvTranspose2x2(hidden, features, dtype),
    }
    return ModuleList(lambda i: layers[i](), tuple(layers))


def _upscaled(layers: ModuleList, x: Float[Array, "S C"]) -> Float[Array, "S 2 2 2 2 D"]:
    """For each place the cells of the two doublings, (y, x) of the first and then of the second."""
    return layers[3](gelu(layers[1](layers[0](x))))


def _cells(x: Float[Array, "S 2 2 2 2 F"], grid: tuple[int, int]) -> Float[Array, "h w F"]:
    """Cells in rows and columns: places row by row, with (y, x) of each of the two doublings."""
    height, width = grid
    x = x.reshape(height, width, *x.shape[1:]).transpose(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(4 * height, 4 * width, -1)


class MaskDecoder(Layer):
    """Masks and their predicted IoU for one prompt of one image: the reference's `MaskDecoder`.

    With `config.mask_decoder.hq` also HQ-SAM's `MaskDecoderHQ`: one more token, whose mask is made of what the image
    encoder, its first global block and the mask features have.
    """

    config: SamConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width, decoder, tokens = self.config.width, self.config.mask_decoder, self.config.mask_tokens
        self.iou_token = LearnedVectors(1, width)
        self.mask_tokens = LearnedVectors(tokens, width)
        self.transformer = TwoWayTransformer(width, decoder, self.dtype)
        self.output_upscaling = _upscaling(width, width // 4, width // 8, self.dtype)
        self.output_hypernetworks_mlps = ModuleList(
            lambda i: MLP((width, width, width, width // 8), self.dtype), tuple(range(tokens))
        )
        hidden = (decoder.iou_head_dim,) * (decoder.iou_head_depth - 1)
        # Tiny, and a score in bfloat16 would have two decimals.
        self.iou_prediction_head = MLP((width, *hidden, tokens), jnp.dtype(jnp.float32))
        if decoder.hq:
            self.hf_token = LearnedVectors(1, width)
            self.hf_mlp = MLP((width, width, width, width // 8), self.dtype)
            _, channels = self.config.image_encoder.early_output  # type: ignore[attr-defined]  # as the config checks
            self.compress_vit_feat = _upscaling(channels, width, width // 8, self.dtype)
            self.embedding_encoder = _upscaling(width, width // 4, width // 8, self.dtype)
            fusion = {
                0: lambda: Conv3x3(width // 8, width // 4, self.dtype),
                1: lambda: LayerNorm(width // 4, epsilon=1e-6),
                3: lambda: Conv3x3(width // 4, width // 8, self.dtype),
            }
            self.embedding_maskfeature = ModuleList(lambda i: fusion[i](), tuple(fusion))

    def image_side(self, image: Float[Array, "H W C"], position: Float32[Array, "H W C"]) -> ImageSide:
        """The part of the work that prompts share, from the image embedding with the dense prompt added.

        `position` is `PromptEncoder.grid_positions` of the same grid.
        """
        width = self.config.width
        return self.transformer.image_side(image.reshape(-1, width), position.astype(self.dtype).reshape(-1, width))

    def hq_side(self, image: Float[Array, "H W C"], early: Float[Array, "H W D"]) -> Float[Array, "h w F"]:
        """HQ-SAM's features of an image at four times the grid, which its prompts share: of the image embedding,
        without a dense prompt, and of the encoder's first global block."""
        parts = (self.embedding_encoder, image), (self.compress_vit_feat, early.astype(self.dtype))
        one, two = (_upscaled(layers, x.reshape(-1, x.shape[-1])) for layers, x in parts)
        return _cells(one + two, (image.shape[0], image.shape[1]))

    def __call__(
        self,
        side: ImageSide,
        prompt: Float32[Array, "T C"],
        prompt_valid: Bool[Array, " T"],
        multimask: bool,
        branch_weights: Float32[Array, "depth 3 T2 C"] | None = None,
        grid: tuple[int, int] | None = None,
        hq_side: Float[Array, "h w F"] | None = None,
        hq: HqMasks = "off",
    ) -> tuple[Float32[Array, "M h w"], Float32[Array, " M"]]:
        """Mask logits (mask where > 0) at four times the grid, and predictions of the masks' IoU with the object.

        The logits cover the padded model input, or the window of it that the image side is of: a cell is a quarter of a
        patch along each axis. IoU predictions are not clipped to [0, 1].

        Args:
            side: from `image_side`.
            prompt: tokens from `PromptEncoder.tokens`.
            prompt_valid: False for absent tokens, which nothing attends to.
            multimask: gives the M masks for an ambiguous prompt (mask tokens 1, 2, ...), otherwise the one of mask
                token 0.
            branch_weights: multiply what each layer's three branches (`TwoWayLayer`) add to the T2 tokens: the IoU
                token, the mask tokens, HQ-SAM's if it takes part, the prompt's. How training drops out; None is 1.
            grid: (rows, columns) of the image side where that is only a window; None: `config.grid`.
            hq_side: from `hq_side`, where HQ-SAM's token takes part.
            hq: what that token's mask counts for. With "off" there is no such token. Otherwise M is 1, as in HQ-SAM's
                predictor: the token's mask ("only"), or the sum of its logits and the most confident mask's of those
                asked for ("sum"), with that mask's predicted IoU, for which `multimask` decides.
        """
        own = [self.iou_token(), self.mask_tokens(), *([self.hf_token()] if hq != "off" else [])]
        tokens = jnp.concatenate([*own, prompt]).astype(self.dtype)
        first = sum(map(len, own))
        token_valid = jnp.concatenate([jnp.ones(first, bool), prompt_valid])
        tokens, image = self.transformer(side, tokens, token_valid, branch_weights)

        wanted = range(1, self.config.mask_tokens) if multimask else range(1)
        x = gelu(_upscaled(self.output_upscaling, image))  # S 2 2 2 2 C/8
        grid = grid or self.config.grid
        iou = self.iou_prediction_head(tokens[0])[wanted.start : wanted.stop]
        if hq == "only":
            return self._hq_mask(x, tokens[first - 1], hq_side, grid)[None], iou.max(keepdims=True)
        kernels = jnp.stack([self.output_hypernetworks_mlps[i](tokens[1 + i]) for i in wanted])  # M C/8
        masks = einsum("mf,shwyxf->mshwyx", kernels, x)
        height, width = grid
        masks = masks.reshape(len(wanted), height, width, 2, 2, 2, 2)  # M H W, then (y, x) of each of the two doublings
        masks = masks.transpose(0, 1, 3, 5, 2, 4, 6).reshape(len(wanted), 4 * height, 4 * width)
        if hq == "off":
            return masks, iou
        best = jnp.argmax(iou)
        return (masks[best] + self._hq_mask(x, tokens[first - 1], hq_side, grid))[None], iou[best][None]

    def _hq_mask(
        self,
        x: Float[Array, "S 2 2 2 2 F"],
        token: Float[Array, " C"],
        hq_side: Float[Array, "h w F"] | None,
        grid: tuple[int, int],
    ) -> Float32[Array, "h w"]:
        """The mask of HQ-SAM's token from the mask features `x`, which the fusion adds to the image's."""
        assert hq_side is not None  # whoever asks for the token gives it
        kernel = self.hf_mlp(token)
        fused = gelu(self.embedding_maskfeature[1](self.embedding_maskfeature[0](_cells(x, grid))))
        return self.embedding_maskfeature[3].projected(fused, kernel) + einsum("f,hwf->hw", kernel, hq_side)

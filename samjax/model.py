"""Segment Anything as two pure functions, `encode` and `decode`, and what they take: named parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Array, Float, Float32, Int32, Key

from samjax import transforms
from samjax.config import Execution, PromptLabel, SamConfig
from samjax.nn.image_encoder import ImageEncoder
from samjax.nn.initialise import initialise
from samjax.nn.mask_decoder import MaskDecoder
from samjax.nn.prompt_encoder import PromptEncoder
from samjax.ops.batching import map_batch
from samjax.types import Embedding, Params, Prediction, Prompts


def encode(
    config: SamConfig,
    params: Params,
    pixels: Float32[Array | np.ndarray, "*B h w 3"],
    execution: Execution,
    *,
    branch_weights: Float32[Array, "*B depth 2"] | None = None,
    origin: Int32[Array, "*B 2"] | None = None,
) -> Float[Array, "*B H W C"]:
    """Image features of normalised, padded pixels in the INPUT frame (`transforms.to_pixels`), in the compute dtype.

    (H, W) is the grid of patches: (h, w) in pixels over the patch size. C is `config.width`.
    `branch_weights` multiply what each block's attention and MLP add to its input: how training drops paths. With
    `origin` the pixels are a window of the model's input whose upper left is there, (x, y) in pixels; both it and the
    window's sides are multiples of the attention windows, patch times window size: how training sees less at a time.

    Raises ValueError if there is no `origin` and (h, w) is not `config.image_size`.
    """
    encoder, pixels = ImageEncoder(config.image_encoder, config.width, execution), jnp.asarray(pixels)
    if origin is None and pixels.shape[-3:-1] != config.image_size:
        raise ValueError(f"pixels must be (height, width) {config.image_size}, got {pixels.shape[-3:-1]}")

    def encode_one(pixels, weights, origin) -> Any:
        return encoder.apply({"params": params["image_encoder"]}, pixels, weights, origin)

    if pixels.ndim == 3:
        return encode_one(pixels, branch_weights, origin)
    return map_batch(encode_one, pixels, branch_weights, origin, together=execution.images_per_step)


def decode(
    config: SamConfig,
    params: Params,
    embedding: Embedding,
    prompts: Prompts,
    execution: Execution,
    *,
    multimask: bool,
    branch_weights: Float32[Array, "*B N depth 3 T C"] | None = None,
    origin: Int32[Array, "*B 2"] | None = None,
) -> Prediction:
    """Masks for N prompts of an image, or of each image of a batch.

    Prompts are in pixels of the ORIGINAL frame, as in `samjax.types`; the prediction's logits are LOW-RES, of
    `config.mask_size`, and float32 like the IoUs.
    Each prompt's answer depends on nothing but itself and its image: absent tokens and padding rows are masked out of
    every attention. `multimask` gives the three masks of an ambiguous prompt, otherwise the single one.
    `branch_weights` multiply what the decoder layers' branches add to the tokens (the IoU token, the mask tokens, then
    the prompt's): how training drops out. `origin` as `encode` had it; coordinates and logits are then the window's.
    """
    embedding, prompts = jax.tree.map(jnp.asarray, (embedding, prompts))  # as jit would, where it is disabled
    if embedding.features.ndim == 4:

        def one(embedding, prompts, weights, origin):
            more = {"multimask": multimask, "branch_weights": weights, "origin": origin}
            return decode(config, params, embedding, prompts, execution, **more)

        return map_batch(one, embedding, prompts, branch_weights, origin, together=execution.images_per_step)

    prompt_encoder = PromptEncoder(config, execution.dtype)
    decoder = MaskDecoder(config, execution.dtype)

    def encoded(method, *args) -> Any:
        return prompt_encoder.apply({"params": params["prompt_encoder"]}, *args, method=method)

    def decoded(*args, method="__call__") -> Any:
        return decoder.apply({"params": params["mask_decoder"]}, *args, method=method)

    image = embedding.features.astype(execution.dtype)
    no_mask = encoded("no_mask")
    grid = image.shape[:2]
    position = encoded("grid_positions", grid, origin)
    # Without mask prompts the image side is the same for all prompts of an image: made here, outside the map.
    no_mask = no_mask[None, None]
    shared = decoded(image + no_mask, position, method="image_side") if prompts.masks is None else None

    def decode_one(prompt: Prompts, weights: Any) -> tuple[Float32[Array, "M h w"], Float32[Array, " M"]]:
        points = transforms.to_input_frame(jnp.asarray(prompt.points), embedding.original_size, embedding.input_size)
        tokens = encoded("tokens", points, prompt.labels, origin)
        if shared is not None:
            side = shared
        elif prompt.has_mask is None:
            side = decoded(image + encoded("dense", prompt.masks), position, method="image_side")
        else:
            # Chosen before and after: a NaN in an unused mask would reach the gradient through the branch not taken.
            masks: Any = prompt.masks
            dense = encoded("dense", jnp.where(prompt.has_mask, masks, 0))
            dense = jnp.where(prompt.has_mask, dense, no_mask)
            side = decoded(image + dense, position, method="image_side")
        return decoded(side, tokens, prompt.labels != PromptLabel.ABSENT, multimask, weights, grid)

    logits, iou = map_batch(decode_one, prompts, branch_weights, together=execution.prompts_per_step)
    return Prediction(logits, iou, prompts.valid)


jitted_encode = jax.jit(encode, static_argnames=("config", "execution"))
jitted_decode = jax.jit(decode, static_argnames=("config", "execution", "multimask"))


@functools.cache
def declared_params(config: SamConfig) -> Params:
    """Shapes of the parameters with what they start from (`samjax.nn.initialise.Declared`), without computing any."""
    execution = Execution()
    encoder = ImageEncoder(config.image_encoder, config.width, execution)
    prompt_encoder = PromptEncoder(config, execution.dtype)
    decoder = MaskDecoder(config, execution.dtype)

    def run_decoder(module, grid, tokens):
        single = module(module.image_side(grid, grid), tokens, jnp.ones(len(tokens), bool), False)
        return single, module(module.image_side(grid, grid), tokens, jnp.ones(len(tokens), bool), True)

    def init():
        key = jax.random.key(0)
        zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
        pixels, mask = zeros((*config.image_size, 3)), zeros(config.mask_size)
        grid, tokens = zeros((*config.grid, config.width)), zeros((1, config.width))
        return {
            "image_encoder": encoder.init(key, pixels)["params"],
            "prompt_encoder": prompt_encoder.init(key, zeros((1, 2)), jnp.zeros(1, jnp.int32), mask)["params"],
            "mask_decoder": decoder.init(key, grid, tokens, method=run_decoder)["params"],
        }

    return jax.eval_shape(init)


@functools.cache
def abstract_params(config: SamConfig) -> Params:
    """Names and shapes of the parameters, without computing any."""
    return meta.unbox(declared_params(config))


@functools.partial(jax.jit, static_argnames="config")
def init_params(config: SamConfig, key: Key[Array, ""]) -> Params:
    """Freshly initialised float32 parameters, of which `key` draws those that are random."""
    return initialise(declared_params(config), key)

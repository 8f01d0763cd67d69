"""Segment Anything as two pure functions, `encode` and `decode`, and `Sam`: a configuration with its parameters."""

import dataclasses
import functools
import itertools
import operator
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from samjax import pictures, transforms
from samjax.config import VARIANTS, Execution, SamConfig
from samjax.nn.image_encoder import ImageEncoder, resample_positions
from samjax.nn.initialise import initialise
from samjax.nn.mask_decoder import MaskDecoder
from samjax.nn.prompt_encoder import ABSENT, PromptEncoder
from samjax.ops.batching import map_batch
from samjax.types import PROMPT_BUCKETS, TOKEN_BUCKETS, ArrayLike, Embedding, Prediction, Prompts, bucket

Params = dict[str, Any]  # nested dicts under the reference's names: image_encoder/blocks/0/attn/qkv/kernel


def encode(
    config: SamConfig,
    params: Params,
    pixels: Float32[Array | np.ndarray, "*B h w 3"],
    execution: Execution,
    *,
    branch_weights: Float32[Array, "*B depth 2"] | None = None,
    origin: Int32[Array, "*B 2"] | None = None,
) -> Float[Array, "*B H W C"]:
    """Image features of normalised, padded pixels (`transforms.to_pixels`).

    `branch_weights` multiply what each block's attention and MLP add to its input: how training drops paths. With
    `origin` the pixels are a window of the model's input whose upper left is there, (x, y) in pixels; both it and the
    window's sides are multiples of the attention windows, patch times window size: how training sees less at a time.
    """
    encoder, pixels = ImageEncoder(config.image_encoder, config.width, execution), jnp.asarray(pixels)
    if origin is None and pixels.shape[-3:-1] != config.image_size:
        raise ValueError(f"pixels must be (height, width) {config.image_size}, got {pixels.shape[-3:-1]}")

    def encode_one(pixels, weights, origin):
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

    Each prompt's answer depends on nothing but itself and its image: absent tokens and padding rows are masked out of
    every attention. `multimask` gives the three masks of an ambiguous prompt, otherwise the single one.
    `branch_weights` multiply what the decoder layers' branches add to the tokens (the IoU token, the mask tokens, then
    the prompt's): how training drops out. `origin` as `encode` had it; all coordinates are then the window's.
    """
    embedding, prompts = jax.tree.map(jnp.asarray, (embedding, prompts))  # as jit would, where it is disabled
    if embedding.features.ndim == 4:

        def one(embedding, prompts, weights, origin):
            more = {"multimask": multimask, "branch_weights": weights, "origin": origin}
            return decode(config, params, embedding, prompts, execution, **more)

        return map_batch(one, embedding, prompts, branch_weights, origin, together=execution.images_per_step)

    prompt_encoder = PromptEncoder(config, execution.dtype)
    decoder = MaskDecoder(config, execution.dtype)

    def encoded(method, *args):
        return prompt_encoder.apply({"params": params["prompt_encoder"]}, *args, method=method)

    def decoded(*args, method="__call__"):
        return decoder.apply({"params": params["mask_decoder"]}, *args, method=method)

    image = embedding.features.astype(execution.dtype)
    no_mask = encoded("no_mask")
    grid = image.shape[:2]
    position = encoded("grid_positions", grid, origin)
    # Without mask prompts the image side is the same for all prompts of an image: made here, outside the map.
    no_mask = no_mask[None, None]
    shared = decoded(image + no_mask, position, method="image_side") if prompts.masks is None else None

    def decode_one(prompt: Prompts, weights: Any) -> tuple[Float32[Array, "M h w"], Float32[Array, " M"]]:
        points = transforms.to_input_frame(prompt.points, embedding.original_size, embedding.input_size)
        tokens = encoded("tokens", points, prompt.labels, origin)
        if shared is not None:
            side = shared
        elif prompt.has_mask is None:
            side = decoded(image + encoded("dense", prompt.masks), position, method="image_side")
        else:
            # Chosen before and after: a NaN in an unused mask would reach the gradient through the branch not taken.
            dense = encoded("dense", jnp.where(prompt.has_mask, prompt.masks, 0))
            dense = jnp.where(prompt.has_mask, dense, no_mask)
            side = decoded(image + dense, position, method="image_side")
        return decoded(side, tokens, prompt.labels != ABSENT, multimask, weights, grid)

    logits, iou = map_batch(decode_one, prompts, branch_weights, together=execution.prompts_per_step)
    return Prediction(logits, iou, prompts.valid)


jitted_encode = jax.jit(encode, static_argnames=("config", "execution"))
jitted_decode = jax.jit(decode, static_argnames=("config", "execution", "multimask"))


@functools.cache
def abstract_params(config: SamConfig) -> Params:
    """Names and shapes of the parameters, without computing any."""
    execution = Execution()
    encoder = ImageEncoder(config.image_encoder, config.width, execution)
    prompt_encoder = PromptEncoder(config, execution.dtype)
    decoder = MaskDecoder(config, execution.dtype)

    def run_decoder(module, grid, tokens):
        single = module(module.image_side(grid, grid), tokens, jnp.ones(len(tokens), bool), False)
        return single, module(module.image_side(grid, grid), tokens, jnp.ones(len(tokens), bool), True)

    def declare():
        key = jax.random.key(0)
        zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
        pixels, mask = zeros((*config.image_size, 3)), zeros(config.mask_size)
        grid, tokens = zeros((*config.grid, config.width)), zeros((1, config.width))
        return {
            "image_encoder": encoder.init(key, pixels)["params"],
            "prompt_encoder": prompt_encoder.init(key, zeros((1, 2)), jnp.zeros(1, jnp.int32), mask)["params"],
            "mask_decoder": decoder.init(key, grid, tokens, method=run_decoder)["params"],
        }

    return jax.eval_shape(declare)


@functools.partial(jax.jit, static_argnames="config")
def init_params(config: SamConfig, key: Key[Array, ""]) -> Params:
    """Freshly initialised float32 parameters."""
    return initialise(abstract_params(config), key)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Sam:
    """A configuration and its parameters. A pytree whose leaves are the parameters.

    Any number of threads may share one: it is immutable, and nothing of a photo or prompt is kept in it.
    """

    config: SamConfig
    params: Params
    execution: Execution = dataclasses.field(default_factory=Execution.for_backend)

    def tree_flatten(self):
        return (self.params,), (self.config, self.execution)

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(static[0], children[0], static[1])

    @classmethod
    def init(cls, variant: str | SamConfig, key: Key[Array, ""] | None = None) -> "Sam":
        """A model with random parameters; `variant` names a row of `samjax.config.VARIANTS` or is a configuration."""
        if isinstance(variant, str) and variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")
        config = VARIANTS[variant] if isinstance(variant, str) else variant
        return cls(config, init_params(config, jax.random.key(0) if key is None else key))

    def with_image_size(self, image_size: tuple[int, int] | int) -> "Sam":
        """The same network for another input size, (height, width) or the side of a square, multiples of the patch.

        Position tables are resampled, everything else is shared with this model.
        """
        config = self.config.with_image_size(image_size)
        encoder = resample_positions(self.params["image_encoder"], config.image_encoder)
        return dataclasses.replace(self, config=config, params={**self.params, "image_encoder": encoder})

    def with_dtype(self, compute_dtype: str) -> "Sam":
        """The same parameters computing in "float32" or "bfloat16"."""
        return dataclasses.replace(self, execution=dataclasses.replace(self.execution, compute_dtype=compute_dtype))

    def encode(self, image: ArrayLike) -> Embedding:
        """The embedding of one photo, in any form that `samjax.pictures.as_rgb` takes."""
        rgb = pictures.as_rgb(image)
        features = jitted_encode(self.config, self.params, transforms.to_pixels(rgb, self.config), self.execution)
        return self._embedding(features[None], [rgb.shape[:2]])[0]

    def encode_batch(self, images: Sequence[ArrayLike], sharding: jax.sharding.Sharding | None = None) -> Embedding:
        """Embeddings of B photos of any sizes, with a leading axis B.

        The batch is computed in pieces of `execution.images_per_step`, so that one program serves any B. With
        `sharding`, which places the pixels on a mesh, it is one program for this B, and the features come out where
        JAX's propagation puts them.
        """
        if not len(images):
            raise ValueError("no image was given")
        rgbs = [pictures.as_rgb(image) for image in images]
        pixels = [transforms.to_pixels(rgb, self.config) for rgb in rgbs]
        if sharding is not None:
            placed = jax.device_put(np.stack(pixels), sharding)
            features = jitted_encode(self.config, self.params, placed, self._all_at_once())
        else:
            pieces = [
                jitted_encode(self.config, self.params, np.stack([pixels[i] for i in piece]), self.execution)
                for piece in self._pieces(len(images))
            ]
            features = jnp.concatenate(pieces)[: len(images)]
        return self._embedding(features, [rgb.shape[:2] for rgb in rgbs])

    def _pieces(self, count: int) -> Iterator[list[int]]:
        """Indices of a batch in pieces of one size; the last piece repeats the last image."""
        size = self.execution.images_per_step or count
        for start in range(0, count, size):
            yield [min(i, count - 1) for i in range(start, start + size)]

    def _all_at_once(self) -> Execution:
        # A loop over a sharded axis would gather it.
        return dataclasses.replace(self.execution, images_per_step=None)

    def _embedding(self, features: Float[Array, "B H W C"], sizes: list[transforms.Size]) -> Embedding:
        fitted = [transforms.input_size(size, self.config.image_size) for size in sizes]
        return Embedding(features, jnp.asarray(sizes, jnp.int32), jnp.asarray(fitted, jnp.int32))

    def predict(self, embedding: Embedding, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """Masks for the N prompts of one image: logits (N, M, h, w) and IoU (N, M), M = 3 with `multimask`, else 1.

        The prediction is on the host. Warns about points outside the image, which the reference takes too.
        """
        if embedding.features.ndim != 3 or prompts.valid.ndim != 1:
            raise ValueError("predict takes one image and its prompts; for batches there is predict_batch")
        _check_prompts(self.config, embedding.original_size, prompts)
        return self._decode(embedding, prompts, multimask).trimmed()

    def predict_batch(self, embeddings: Embedding, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """Masks for the prompts of B images (`Prompts.batch`); `prediction[b]` is image b's without padding rows.

        Like `encode_batch` in pieces, or all at once where the features lie on several devices.
        """
        if embeddings.features.ndim != 4 or prompts.valid.ndim != 2:
            raise ValueError(
                "predict_batch takes encode_batch's embeddings and Prompts.batch; one image goes to predict"
            )
        count = embeddings.features.shape[0]
        if count != prompts.valid.shape[0]:
            raise ValueError(f"{count} embeddings came with prompts of {prompts.valid.shape[0]} images")
        _check_prompts(self.config, embeddings.original_size, prompts)
        if isinstance(embeddings.features, jax.Array) and len(embeddings.features.devices()) > 1:
            return self._decode(embeddings, prompts, multimask, self._all_at_once())
        pieces = []
        for piece in self._pieces(count):
            take = operator.itemgetter(np.array(piece))
            pieces.append(self._decode(jax.tree.map(take, embeddings), jax.tree.map(take, prompts), multimask))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *pieces)

    def _decode(
        self, embedding: Embedding, prompts: Prompts, multimask: bool, execution: Execution | None = None
    ) -> Prediction:
        how = execution or self.execution
        return jitted_decode(self.config, self.params, embedding, prompts, how, multimask=multimask)

    def masks(
        self, prediction: Prediction, embedding: Embedding, *, threshold: float | None = 0.0
    ) -> Bool[np.ndarray, "N M H W"] | Float32[np.ndarray, "N M H W"]:
        """One image's predictions at the photo's own size: booleans above `threshold`, or logits where it is None."""
        if embedding.features.ndim != 3:
            raise ValueError("masks takes one image's prediction and embedding: prediction[b] and embeddings[b]")
        original = tuple(np.asarray(embedding.original_size).tolist())
        return transforms.upscale_masks(prediction.logits, original, self.config, threshold=threshold)

    def warmup(
        self,
        *,
        points: Sequence[int] = (1,),
        prompts: Sequence[int] = (1,),
        multimask: Sequence[bool] = (True, False),
        mask_prompts: bool = False,
        photo_sizes: Sequence[transforms.Size] = (),
    ) -> list["Timing"]:
        """Compiles what one photo needs: the encoder, the decoder for the buckets that hold these numbers of points and
        of prompts (with `mask_prompts` also for prompts with a mask), and the upscaling to photos of these sizes
        (height, width).

        Later calls find the programs compiled; with JAX's persistent compilation cache, later processes too.
        """
        pixels = np.zeros((*self.config.image_size, 3), np.float32)
        timings = [_time("encode", jitted_encode, self.config, self.params, pixels, self.execution)]
        embedding = self.encode(np.zeros((1, 1, 3), np.uint8))
        shapes = {
            (bucket(count, PROMPT_BUCKETS), bucket(tokens + 1, TOKEN_BUCKETS)) for count in prompts for tokens in points
        }
        for (count, tokens), masked, flag in itertools.product(
            sorted(shapes), (False, True) if mask_prompts else (False,), multimask
        ):
            blank = Prompts(
                np.zeros((count, tokens, 2), np.float32),
                np.zeros((count, tokens), np.int32),
                np.ones(count, bool),
                np.zeros((count, *self.config.mask_size), np.float32) if masked else None,
                np.ones(count, bool) if masked else None,
            )
            name = f"decode {count} prompt(s) of up to {tokens} tokens{' and a mask' if masked else ''}"
            arguments = self.config, self.params, embedding, blank, self.execution
            name += ", three masks" if flag else ", one mask"
            timings.append(_time(name, jitted_decode, *arguments, multimask=flag))
        logits = np.zeros(self.config.mask_size, np.float32)
        for size in photo_sizes:
            start = time.perf_counter()
            transforms.upscale_masks(logits, size, self.config)
            warm = time.perf_counter()
            transforms.upscale_masks(logits, size, self.config)
            run = time.perf_counter() - warm
            timings.append(Timing(f"upscale to {size[0]} x {size[1]}", warm - start - run, run))
        return timings


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a program took to compile (or to be read from the compilation cache), and to run once compiled."""

    program: str
    compile_seconds: float
    run_seconds: float


def _time(name: str, program: Any, *args: Any, **kwargs: Any) -> Timing:
    start = time.perf_counter()
    program.lower(*args, **kwargs).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(program(*args, **kwargs))  # the first run of a program also loads it
    warm = time.perf_counter()
    jax.block_until_ready(program(*args, **kwargs))
    return Timing(name, compiled - start, time.perf_counter() - warm)


def _check_prompts(config: SamConfig, original_size: Any, prompts: Prompts) -> None:
    """What can be said about prompts only beside a model and an image."""
    if prompts.masks is not None and prompts.masks.shape[-2:] != config.mask_size:
        raise ValueError(
            f"mask prompts must be logits of size {config.mask_size}, got {prompts.masks.shape[-2:]}; "
            "samjax.mask_prompt makes them from a binary mask of the photo's size"
        )
    height, width = np.moveaxis(np.asarray(original_size), -1, 0)[..., None, None]
    x, y = np.moveaxis(np.asarray(prompts.points), -1, 0)
    outside = (np.asarray(prompts.labels) >= 0) & ((x < 0) | (y < 0) | (x > width) | (y > height))
    if outside.any():
        x, y = float(x[outside][0]), float(y[outside][0])
        warnings.warn(
            f"{int(outside.sum())} point(s) or box corner(s) lie outside the image, e.g. ({x:g}, {y:g}); "
            f"coordinates are (x, y) in pixels",
            stacklevel=3,
        )

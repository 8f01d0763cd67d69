"""Segment Anything as pure functions of named parameters: `encode` a photo, `decode` prompts.

`decode` computes what `embed_prompts` and `embed_masks`, which turn prompts into tokens and a dense map, and
`decode_tokens`, which does not know where its tokens come from, compute one after the other.
"""

import functools
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from samjax import transforms
from samjax.config import HqMasks, PromptLabel, SamConfig
from samjax.execution import Execution
from samjax.nn.encoders import family_of
from samjax.nn.initialise import initialise
from samjax.nn.layers import Layer
from samjax.nn.mask_decoder import MaskDecoder
from samjax.nn.prompt_encoder import PromptEncoder
from samjax.ops.batching import map_batch
from samjax.types import Embedding, Features, Params, Perturbation, Prediction, Prompts, Tokens

_UNPERTURBED = Perturbation()


def encode(
    config: SamConfig,
    params: Params,
    pixels: Float32[Array | np.ndarray, "*B h w channels"],
    execution: Execution,
    *,
    taps: tuple[str, ...] = (),
    perturbation: Perturbation | None = None,
) -> Features:
    """Features of normalised, padded pixels (`transforms.to_pixels`) of an image, or of each of a batch.

    Args:
        config: the model.
        params: its parameters.
        pixels: (height, width) as `config.image_size`, or a window of that (`Perturbation`).
        execution: how to compute.
        taps: names of outputs from inside the encoder to give as well, of `tap_names`, beside those that the model's
            decoder takes (`config.decoder_taps`); free if there are none.
        perturbation: what training changes.

    Raises:
        ValueError: pixels of another size or with other channels, a window that is not aligned, or an unknown tap.
    """
    perturbation, pixels = perturbation or _UNPERTURBED, jnp.asarray(pixels)
    if perturbation.origin is None and pixels.shape[-3:-1] != config.image_size:
        raise ValueError(f"pixels must be (height, width) {config.image_size}, got {pixels.shape[-3:-1]}")
    if perturbation.origin is not None and any(side % config.image_encoder.alignment for side in pixels.shape[-3:-1]):
        raise ValueError(
            f"the sides of a window must be multiples of {config.image_encoder.alignment}, got {pixels.shape[-3:-1]}"
        )
    channels = config.channels
    if pixels.shape[-1] != channels:
        raise ValueError(f"this model takes pixels of {channels} channels, got {pixels.shape[-1]}")
    taps = _taps(config, taps, tap_names(config))
    encoder = _image_encoder(config, params, execution)

    def encode_one(pixels: Any, change: Perturbation) -> Features:
        given = pixels, change.branch_weights, change.origin, taps
        return Features(*encoder("__call__", *given))

    if pixels.ndim == 3:
        return encode_one(pixels, perturbation)
    return map_batch(encode_one, pixels, perturbation, together=execution.images_per_step)


def encode_from(
    config: SamConfig,
    params: Params,
    tokens: Float[Array | np.ndarray, "*B H W width"],
    execution: Execution,
    *,
    after: str,
    taps: tuple[str, ...] = (),
    perturbation: Perturbation | None = None,
) -> Features:
    """Computes what `encode` gives from one of its taps on: what comes before it is not computed again.

    Args:
        config: the model.
        params: its parameters.
        tokens: the tap of an image, or of each of a batch.
        execution: how to compute.
        after: the tap's name.
        taps: names of later taps to give as well, beside those that the model's decoder takes.
        perturbation: what training changes; its `origin` is of the pixels, and means nothing here.

    Raises:
        ValueError: an unknown tap, or one that is not later than `after`.
    """
    names = tap_names(config)
    _taps(config, (after,), names)
    taps = _taps(config, taps, names[names.index(after) + 1 :])
    encoder = _image_encoder(config, params, execution)
    tokens = jnp.asarray(tokens).astype(execution.dtype)
    weights = (perturbation or _UNPERTURBED).branch_weights

    def one(tokens: Any, weights: Any) -> Features:
        return Features(*encoder("resume", tokens, after, weights, taps))

    if tokens.ndim == 3:
        return one(tokens, weights)
    return map_batch(one, tokens, weights, together=execution.images_per_step)


def _taps(config: SamConfig, taps: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The taps that are asked for, and those of `known` that the decoder takes."""
    if isinstance(taps, str):
        raise ValueError(f"taps must be a tuple of names, got the text {taps!r}")
    if unknown := set(taps) - set(known):
        names = ", ".join(known) or "none"
        raise ValueError(f"the image encoder has no tap {', '.join(sorted(unknown))}; it has: {names}")
    return (*taps, *(name for name in config.decoder_taps if name in known and name not in taps))


def _image_encoder(config: SamConfig, params: Params, execution: Execution) -> "_Part":
    module = family_of(config.image_encoder).build(config.image_encoder, config.width, execution)
    return _part(module, params["image_encoder"])


def tap_names(config: SamConfig) -> tuple[str, ...]:
    """The outputs from inside the image encoder that `encode` gives if asked."""
    return family_of(config.image_encoder).tap_names(config.image_encoder)


def embed_prompts(
    config: SamConfig,
    params: Params,
    embedding: Embedding,
    prompts: Prompts,
    execution: Execution,
    *,
    perturbation: Perturbation | None = None,
) -> Tokens:
    """Tokens of the points and boxes of N prompts of an image, or of each image of a batch.

    Of `embedding` only the photo's frames are used: prompts are in pixels of the original image.
    """
    encoder = _part(PromptEncoder(config, execution.dtype), params["prompt_encoder"])
    origin = (perturbation or _UNPERTURBED).origin
    embedding, prompts = jax.tree.map(jnp.asarray, (embedding, prompts))

    def one_image(original_size: Any, input_size: Any, points: Any, labels: Any, origin: Any) -> Tokens:
        one = functools.partial(_tokens, encoder, original_size, input_size, origin)
        return jax.vmap(one)(points, labels)

    run = one_image if embedding.features.ndim == 3 else jax.vmap(one_image)
    return run(embedding.original_size, embedding.input_size, prompts.points, prompts.labels, origin)


def embed_masks(
    config: SamConfig, params: Params, prompts: Prompts, execution: Execution
) -> Float[Array, "*B N H W C"] | None:
    """The dense map that is added to the image for each prompt, from its mask; None if no prompt has one."""
    if prompts.masks is None:
        return None
    encoder = _part(PromptEncoder(config, execution.dtype), params["prompt_encoder"])
    one = functools.partial(_dense, encoder)
    for _ in range(prompts.masks.ndim - 2):
        one = jax.vmap(one)
    return one(*jax.tree.map(jnp.asarray, (prompts.masks, prompts.has_mask)))


def decode_tokens(
    config: SamConfig,
    params: Params,
    features: Features,
    tokens: Tokens,
    execution: Execution,
    *,
    multimask: bool,
    dense: Float[Array, "*B N H W C"] | None = None,
    valid: Bool[Array | np.ndarray, "*B N"] | None = None,
    perturbation: Perturbation | None = None,
    hq: HqMasks | None = None,
) -> Prediction:
    """Masks for N sets of prompt tokens of an image, or of each image of a batch, wherever the tokens come from.

    Args:
        config: the model.
        params: its parameters.
        features: of the image.
        tokens: those of `embed_prompts`, others of the model's width, or both (`Tokens.joined`).
        execution: how to compute.
        multimask: three masks of an ambiguous prompt, otherwise one.
        dense: what is added to the image for each prompt (`embed_masks`); None: the model's vector for no mask.
        valid: False for rows that only pad (`Prompts.valid`); None: there are none.
        perturbation: what training changes.
        hq: as for `decode`.

    Raises:
        TypeError: `features` are no `Features`.
        ValueError: tokens of another width than the model's, or not N sets of them for each image; what `hq` asks for
            the model or the features have not.
    """
    perturbation = perturbation or _UNPERTURBED
    _check_tokens(config, features, tokens, dense)
    if features.image.ndim == 4:

        def one(features: Any, tokens: Any, dense: Any, valid: Any, change: Perturbation) -> Prediction:
            more = {"multimask": multimask, "dense": dense, "valid": valid, "perturbation": change, "hq": hq}
            return decode_tokens(config, params, features, tokens, execution, **more)

        return map_batch(one, features, tokens, dense, valid, perturbation, together=execution.images_per_step)
    decoder = _Decoder(config, params, features, execution, perturbation.origin, hq, shares_image=dense is None)

    def decode_one(tokens: Tokens, dense: Any, weights: Any) -> tuple[Array, Array]:
        return decoder.masks(tokens, dense, multimask, weights)

    inputs = tokens, dense, perturbation.branch_weights
    logits, iou = map_batch(decode_one, *inputs, together=execution.prompts_per_step)
    return Prediction(logits, iou, jnp.ones(len(iou), bool) if valid is None else jnp.asarray(valid))


def _check_tokens(config: SamConfig, features: Features, tokens: Tokens, dense: Any) -> None:
    if not isinstance(features, Features):
        raise TypeError(f"features must be Features, e.g. Features(embedding.features), got {type(features).__name__}")
    shape, images = tokens.values.shape, features.image.shape[:-3]
    if len(shape) != len(images) + 3 or shape[: len(images)] != images or shape[-1] != config.width:
        wanted = ", ".join(map(str, (*images, "prompts", "tokens", config.width)))
        raise ValueError(f"tokens for features of {features.image.shape} must have shape ({wanted}), got {shape}")
    if dense is not None and dense.shape[:-3] != shape[:-2]:
        raise ValueError(f"tokens are of {shape[:-2]} prompts, dense maps of {dense.shape[:-3]}")


def decode(
    config: SamConfig,
    params: Params,
    embedding: Embedding,
    prompts: Prompts,
    execution: Execution,
    *,
    multimask: bool,
    perturbation: Perturbation | None = None,
    hq: HqMasks | None = None,
) -> Prediction:
    """Masks for N prompts of an image, or of each image of a batch.

    Prompts are in pixels of the ORIGINAL frame, as in `samjax.types`; the prediction's logits are LOW-RES, of
    `config.mask_size`, and float32 like the IoUs.
    Each prompt's answer depends on nothing but itself and its image: absent tokens and padding rows are masked out of
    every attention. `multimask` gives the three masks of an ambiguous prompt, otherwise the single one. A prompt is
    embedded when it is decoded, so that no more dense maps exist than prompts are decoded together.

    A model with HQ-SAM's token answers with one mask in either case, as HQ-SAM does: with `hq` "sum", or None, the
    token's logits are added to those of SAM's mask, with `multimask` the most confident of three; "only" gives the
    token's alone, with the same predicted IoU. With "off" the token takes no part: the answers are SAM's own, to the
    bit.

    Raises ValueError where the embedding lacks the tap that the token needs, and for "sum" or "only" without a token.
    """
    embedding, prompts = jax.tree.map(jnp.asarray, (embedding, prompts))  # as jit would, where it is disabled
    perturbation = perturbation or _UNPERTURBED
    if embedding.features.ndim == 4:

        def one(embedding: Any, prompts: Any, change: Perturbation) -> Prediction:
            more = {"multimask": multimask, "perturbation": change, "hq": hq}
            return decode(config, params, embedding, prompts, execution, **more)

        return map_batch(one, embedding, prompts, perturbation, together=execution.images_per_step)
    origin, has_masks = perturbation.origin, prompts.masks is not None
    features = Features(embedding.features, embedding.taps)
    decoder = _Decoder(config, params, features, execution, origin, hq, shares_image=not has_masks)

    def decode_one(prompt: Prompts, weights: Any) -> tuple[Array, Array]:
        frames = embedding.original_size, embedding.input_size
        tokens = _tokens(decoder.prompt_encoder, *frames, origin, prompt.points, prompt.labels)
        dense = _dense(decoder.prompt_encoder, prompt.masks, prompt.has_mask) if has_masks else None
        return decoder.masks(tokens, dense, multimask, weights)

    inputs = prompts, perturbation.branch_weights
    logits, iou = map_batch(decode_one, *inputs, together=execution.prompts_per_step)
    return Prediction(logits, iou, prompts.valid)


jitted_encode = jax.jit(encode, static_argnames=("config", "execution", "taps"))
jitted_decode = jax.jit(decode, static_argnames=("config", "execution", "multimask", "hq"))

_Part = Callable[..., Any]  # of a method's name and its arguments


def _part(module: Any, params: Params) -> _Part:
    return lambda method, *args: module.apply({"params": params}, *args, method=method)


def _tokens(
    encoder: _Part,
    original_size: Int32[Array, "2"],
    input_size: Int32[Array, "2"],
    origin: Int32[Array, "2"] | None,
    points: Any,  # T 2
    labels: Any,  # T
) -> Tokens:
    """Tokens of the points and the box of one prompt."""
    points = transforms.to_input_frame(points, original_size, input_size)
    return Tokens(encoder("tokens", points, labels, origin), labels != PromptLabel.ABSENT)


def _dense(encoder: _Part, mask: Any, has_mask: Any) -> Float[Array, "H W C"]:
    """The dense map of one prompt's mask (h, w), where `has_mask` says that it has one; None: it has."""
    if has_mask is None:
        return encoder("dense", mask)
    # Chosen before and after: a NaN in an unused mask would reach the gradient through the branch not taken.
    return jnp.where(has_mask, encoder("dense", jnp.where(has_mask, mask, 0)), encoder("no_mask")[None, None])


class _Decoder:
    """The decoder for one image, with what the image's prompts share."""

    def __init__(
        self,
        config: SamConfig,
        params: Params,
        features: Features,
        execution: Execution,
        origin: Int32[Array, "2"] | None,
        hq: HqMasks | None,
        *,
        shares_image: bool,
    ) -> None:
        image = features.image
        self.prompt_encoder = _part(PromptEncoder(config, execution.dtype), params["prompt_encoder"])
        module = MaskDecoder(config, execution.dtype)
        self._decoder = _part(module, params["mask_decoder"])
        self._image = image.astype(execution.dtype)
        self._grid = (image.shape[0], image.shape[1])
        no_mask = self.prompt_encoder("no_mask")[None, None]
        self._position = self.prompt_encoder("grid_positions", self._grid, origin)
        # Without dense maps the image side is the same for all prompts of an image: made once.
        self._shared = self._side(no_mask) if shares_image else None
        if hq not in (None, *get_args(HqMasks)):
            raise ValueError(f"hq is one of {', '.join(get_args(HqMasks))}, or None, got {hq!r}")
        self._hq = hq or ("sum" if config.mask_decoder.hq else "off")
        self._hq_side = None
        if self._hq != "off":
            self._hq_side = self._decoder("hq_side", self._image, _early(config, features))

    def masks(
        self, tokens: Tokens, dense: Float[Array, "H W C"] | None, multimask: bool, weights: Array | None
    ) -> tuple[Float32[Array, "M h w"], Float32[Array, " M"]]:
        """Logits and predicted IoU for the tokens of one prompt."""
        side = self._shared if dense is None else self._side(dense)
        given = side, tokens.values, tokens.valid, multimask, weights, self._grid, self._hq_side, self._hq
        return self._decoder("__call__", *given)

    def _side(self, dense: Float[Array, "#H #W C"]) -> Any:
        return self._decoder("image_side", self._image + dense, self._position)


def _early(config: SamConfig, features: Features) -> Float[Array, "H W D"]:
    """The tap that HQ-SAM's token needs."""
    if not config.mask_decoder.hq:
        raise ValueError('this model has no token of HQ-SAM: leave hq out, or give "off"')
    (name,) = config.decoder_taps
    if name not in features.taps:
        raise ValueError(
            f"the embedding lacks {name!r}, which HQ-SAM's token needs beside the features: encode the photo with this "
            'model, hand its taps on (Embedding.taps, Features.taps), or ask for SAM\'s own masks with hq="off"'
        )
    return features.taps[name]


@functools.cache
def declared_params(config: SamConfig) -> Params:
    """Shapes of the parameters with what they start from (`samjax.nn.initialise.Declared`), without computing any."""
    execution = Execution()
    encoder: Any = family_of(config.image_encoder).build(config.image_encoder, config.width, execution)

    def init():
        key = jax.random.key(0)
        if isinstance(encoder, Layer):
            of_encoder = encoder.init(key, method="declare")
        else:  # it may make parameters while it runs
            of_encoder = encoder.init(key, jnp.zeros((*config.image_size, config.channels), jnp.float32))
        return {
            "image_encoder": of_encoder["params"],
            "prompt_encoder": PromptEncoder(config, execution.dtype).init(key, method="declare")["params"],
            "mask_decoder": MaskDecoder(config, execution.dtype).init(key, method="declare")["params"],
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

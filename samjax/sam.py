"""`Sam`: a configuration with its parameters, and what one does with it."""

import dataclasses
import operator
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Key, UInt8

from samjax import pictures, transforms
from samjax.config import VARIANTS, HqMasks, MaskThresholds, SamConfig
from samjax.execution import Execution
from samjax.model import abstract_params, init_params, jitted_decode, jitted_encode
from samjax.nn.encoders import family_of
from samjax.types import ArrayLike, Embedding, Features, Params, Prediction, Prompts
from samjax.warmup import compile_programs


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Sam:
    """A configuration and its parameters. A pytree whose leaves are the parameters.

    Any number of threads may share one: it is immutable, and nothing of a photo or prompt is kept in it.
    """

    config: SamConfig
    params: Params
    execution: Execution = dataclasses.field(default_factory=Execution.for_backend)
    # Of mask generation (`samjax.amg`), suited to the model.
    thresholds: MaskThresholds = dataclasses.field(default_factory=MaskThresholds)

    def tree_flatten(self):
        """The parameters as children; configuration, execution and thresholds as what programs are compiled for."""
        return (self.params,), (self.config, self.execution, self.thresholds)

    @classmethod
    def tree_unflatten(cls, static, children):
        """The model with these children, whatever JAX has put in the parameters' place."""
        config, execution, thresholds = static
        return cls(config, children[0], execution, thresholds)

    @classmethod
    def init(cls, variant: str | SamConfig, key: Key[Array, ""] | None = None) -> "Sam":
        """A model with random parameters; `variant` names a row of `samjax.config.VARIANTS` or is a configuration.

        Without `key` the parameters are those of `jax.random.key(0)`. Raises ValueError for a name that no row has.
        """
        if isinstance(variant, str) and variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")
        config = VARIANTS[variant] if isinstance(variant, str) else variant
        return cls(config, init_params(config, jax.random.key(0) if key is None else key))

    def with_image_size(self, image_size: tuple[int, int] | int) -> "Sam":
        """The same network for another input size in pixels, (height, width) or the side of a square.

        Position tables are resampled, everything else is shared with this model. Raises ValueError unless the sides are
        multiples of the patch size.
        """
        config = self.config.with_image_size(image_size)
        resample = family_of(config.image_encoder).resample
        encoder = resample(self.params["image_encoder"], config.image_encoder)
        return dataclasses.replace(self, config=config, params={**self.params, "image_encoder": encoder})

    def with_dtype(self, compute_dtype: str) -> "Sam":
        """The same parameters computing in "float32" or "bfloat16". Raises ValueError for any other dtype."""
        return dataclasses.replace(self, execution=dataclasses.replace(self.execution, compute_dtype=compute_dtype))

    def without_hq(self) -> "Sam":
        """SAM itself, where this is HQ-SAM: the same parameters without the token and what goes with it."""
        config = self.config.with_hq(False)
        if config == self.config:
            return self
        decoder = {name: self.params["mask_decoder"][name] for name in abstract_params(config)["mask_decoder"]}
        return dataclasses.replace(self, config=config, params={**self.params, "mask_decoder": decoder})

    def as_photo(self, image: ArrayLike, image_format: str = "RGB") -> UInt8[np.ndarray, "H W channels"]:
        """A photo with the channels that the model takes, by `samjax.pictures.as_rgb`, or by `as_channels` where they
        are more than three; raises ValueError like them."""
        channels = self.config.channels
        if channels == 3:
            return pictures.as_rgb(image, image_format)
        if image_format != "RGB":
            raise ValueError(f"image_format is for photos of three channels, this model takes {channels}")
        return pictures.as_channels(image, channels)

    def check_reads_files(self) -> None:
        """Raises ValueError if picture files, which are read as RGB, are not what the model takes."""
        if self.config.channels != 3:
            raise ValueError(
                f"this model takes photos of {self.config.channels} channels, and picture files are read in red, green "
                "and blue: give arrays to samjax.Sam.encode, from samjax.pictures.read_channels for example"
            )

    def encode(self, image: ArrayLike, *, taps: Sequence[str] = ()) -> Embedding:
        """The embedding of one photo, in any form that `as_photo` takes; raises ValueError like it.

        With `taps`, names of `samjax.model.tap_names`, also outputs from inside the encoder; those that the decoder
        needs (`config.decoder_taps`) are always there.
        """
        rgb = self.as_photo(image)
        pixels = transforms.to_pixels(rgb, self.config)
        features = jitted_encode(self.config, self.params, pixels, self.execution, taps=_names(taps))
        return self._embedding(features, rgb.shape[:2], self._fitted(rgb))

    def encode_batch(
        self,
        images: Sequence[ArrayLike],
        sharding: jax.sharding.Sharding | None = None,
        *,
        taps: Sequence[str] = (),
    ) -> Embedding:
        """Embeddings of B photos of any sizes, with a leading axis B; `taps` as for `encode`.

        The batch is computed in pieces of `execution.images_per_step`, so that one program serves any B. With
        `sharding`, which places the pixels on a mesh, it is one program for this B, and the features come out where
        JAX's propagation puts them. Raises ValueError if there is no photo, and as `encode` does.
        """
        if not len(images):
            raise ValueError("no image was given")
        names, rgbs = _names(taps), [self.as_photo(image) for image in images]
        pixels = [transforms.to_pixels(rgb, self.config) for rgb in rgbs]
        if sharding is not None:
            placed = jax.device_put(np.stack(pixels), sharding)
            features = jitted_encode(self.config, self.params, placed, self._all_at_once(), taps=names)
        else:
            pieces = [
                jitted_encode(
                    self.config, self.params, np.stack([pixels[i] for i in piece]), self.execution, taps=_names(taps)
                )
                for piece in self._pieces(len(images))
            ]
            features = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(images)], *pieces)
        return self._embedding(features, [rgb.shape[:2] for rgb in rgbs], [self._fitted(rgb) for rgb in rgbs])

    def _pieces(self, count: int) -> Iterator[list[int]]:
        """Indices of a batch in pieces of one size; the last piece repeats the last image."""
        size = self.execution.images_per_step or count
        for start in range(0, count, size):
            yield [min(i, count - 1) for i in range(start, start + size)]

    def _all_at_once(self) -> Execution:
        # A loop over a sharded axis would gather it.
        return dataclasses.replace(self.execution, images_per_step=None)

    def _fitted(self, rgb: np.ndarray) -> transforms.Size:
        return transforms.input_size(rgb.shape[:2], self.config.image_size)

    def _embedding(self, features: Features, original: Any, fitted: Any) -> Embedding:
        """The embedding of one photo from its two sizes, or of a batch from lists of them."""
        # `jnp.asarray` would compile programs.
        original, fitted = jax.device_put((np.array(original, np.int32), np.array(fitted, np.int32)))
        return Embedding(features.image, original, fitted, features.taps)

    def predict(
        self, embedding: Embedding, prompts: Prompts, *, multimask: bool = True, hq: HqMasks | None = None
    ) -> Prediction:
        """Masks for the N prompts of one image: logits (N, M, h, w) and IoU (N, M), M = 3 with `multimask`, else 1.

        HQ-SAM gives one mask in either case: "sum" (or None), "only" or, for SAM's own masks, "off"; `hq` is what
        `samjax.model.decode` says.

        Prompts are in pixels of the photo; the logits are low-resolution ones (`config.mask_size`) that cover the
        padded model input, and `masks` brings them to the photo's size. The prediction is on the host. Warns about
        points outside the image, which the reference takes too.

        Raises ValueError for a batch, and for mask prompts of another size than `config.mask_size`.
        """
        if embedding.features.ndim != 3 or prompts.valid.ndim != 1:
            raise ValueError("predict takes one image and its prompts; for batches there is predict_batch")
        _check_prompts(self.config, embedding.original_size, prompts)
        return self._decode(embedding, prompts, multimask, hq).trimmed()

    def predict_batch(
        self, embeddings: Embedding, prompts: Prompts, *, multimask: bool = True, hq: HqMasks | None = None
    ) -> Prediction:
        """Masks for the prompts of B images (`Prompts.batch`); `prediction[b]` is image b's without padding rows.

        Like `encode_batch` in pieces, or all at once where the features lie on several devices. Coordinates, logits and
        warnings are those of `predict`.

        Raises ValueError if the two are not batches of the same number of images, and for mask prompts of another size
        than `config.mask_size`.
        """
        if embeddings.features.ndim != 4 or prompts.valid.ndim != 2:
            raise ValueError(
                "predict_batch takes encode_batch's embeddings and Prompts.batch; one image goes to predict"
            )
        embeddings = embeddings.with_taps(self.config.decoder_taps)
        count = embeddings.features.shape[0]
        if count != prompts.valid.shape[0]:
            raise ValueError(f"{count} embeddings came with prompts of {prompts.valid.shape[0]} images")
        _check_prompts(self.config, embeddings.original_size, prompts)
        if isinstance(embeddings.features, jax.Array) and len(embeddings.features.devices()) > 1:
            return self._decode(embeddings, prompts, multimask, hq, self._all_at_once())
        pieces = []
        for piece in self._pieces(count):
            take = operator.itemgetter(np.array(piece))
            pieces.append(self._decode(jax.tree.map(take, embeddings), jax.tree.map(take, prompts), multimask, hq))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *pieces)

    def _decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        multimask: bool,
        hq: HqMasks | None,
        execution: Execution | None = None,
    ) -> Prediction:
        how = execution or self.execution
        embedding = embedding.with_taps(() if hq == "off" else self.config.decoder_taps)
        return jitted_decode(self.config, self.params, embedding, prompts, how, multimask=multimask, hq=hq)

    def masks(
        self, prediction: Prediction, embedding: Embedding, *, threshold: float | None = 0.0
    ) -> Bool[np.ndarray, "N M H W"] | Float32[np.ndarray, "N M H W"]:
        """One image's predictions at the photo's own size: booleans above `threshold`, or logits where it is None.

        (H, W) is the photo's (height, width) in pixels. Raises ValueError for a batch.
        """
        if embedding.features.ndim != 3:
            raise ValueError("masks takes one image's prediction and embedding: prediction[b] and embeddings[b]")
        original = tuple(np.asarray(embedding.original_size).tolist())
        return transforms.upscale_masks(prediction.logits, original, self.config, threshold=threshold)

    warmup = compile_programs


def _names(taps: Sequence[str]) -> tuple[str, ...]:
    """Names that JAX can hash. Raises ValueError for a text, which is a sequence too."""
    if isinstance(taps, str):
        raise ValueError(f"taps must be a tuple of names, got the text {taps!r}")
    return tuple(taps)


def _check_prompts(config: SamConfig, original_size: Any, prompts: Prompts) -> None:
    """Checks prompts against the model and the image's size: ValueError for masks, a warning for outside points."""
    if prompts.masks is not None and prompts.masks.shape[-2:] != config.mask_size:
        raise ValueError(
            f"mask prompts must be logits of size {config.mask_size}, got {prompts.masks.shape[-2:]}; "
            "samjax.mask_prompt makes them from a binary mask of the photo's size"
        )
    height, width = np.moveaxis(np.asarray(original_size), -1, 0)[..., None, None]
    x, y = np.moveaxis(np.asarray(prompts.points), -1, 0)
    # Integers name pixels: the first one begins at -0.5.
    outside = (np.asarray(prompts.labels) >= 0) & ((x < -0.5) | (y < -0.5) | (x > width) | (y > height))
    if outside.any():
        x, y = float(x[outside][0]), float(y[outside][0])
        warnings.warn(
            f"{int(outside.sum())} point(s) or box corner(s) lie outside the image, e.g. ({x:g}, {y:g}); "
            f"coordinates are (x, y) in pixels",
            stacklevel=3,
        )

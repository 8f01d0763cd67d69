"""Interactive prediction on one photo: a drop-in for `segment_anything.SamPredictor` and its model registry.

Argument names, shapes, frames and return values are the reference's, so that a program written for it runs after a
change of its import line. Nothing here computes: the work is done by `samjax.Sam`.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from samjax import hub, transforms
from samjax.config import VARIANTS, Execution
from samjax.sam import Sam
from samjax.types import ArrayLike, Embedding, Prompts

Masks = Bool[np.ndarray, "*N M H W"] | Float32[np.ndarray, "*N M H W"]


class ResizeLongestSide:
    """The reference's helper of this name: photos and coordinates to the model's input frame."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: ArrayLike) -> np.ndarray:
        """An (H, W, 3) photo resized so that its longer side is `target_length`, uint8."""
        rgb = transforms.as_rgb(image)
        return transforms.resize_photo(rgb, self.get_preprocess_shape(*rgb.shape[:2], self.target_length))

    def apply_coords(self, coords: ArrayLike, original_size: tuple[int, ...]) -> np.ndarray:
        """(..., 2) pixel coordinates (x, y) of a photo of `original_size` (H, W) in the input frame, float64."""
        height, width = original_size[:2]
        new_height, new_width = self.get_preprocess_shape(height, width, self.target_length)
        return np.asarray(coords, np.float64) * (new_width / width, new_height / height)

    def apply_boxes(self, boxes: ArrayLike, original_size: tuple[int, ...]) -> np.ndarray:
        """(N, 4) boxes (x0, y0, x1, y1) of a photo of `original_size` in the input frame."""
        return self.apply_coords(np.reshape(boxes, (-1, 2, 2)), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, ...]) -> Any:
        """`apply_coords` for a torch tensor, to a torch tensor of float32."""
        return _like(coords, self.apply_coords(_numpy(coords), original_size).astype(np.float32))

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, ...]) -> Any:
        """`apply_boxes` for a torch tensor, to a torch tensor of float32."""
        return _like(boxes, self.apply_boxes(_numpy(boxes), original_size).astype(np.float32))

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        return transforms.input_size((oldh, oldw), (long_side_length, long_side_length))


class RegistryModel:
    """What `sam_model_registry` makes: a `Sam` behind the few attributes of the reference's model that programs use."""

    mask_threshold = 0.0
    image_format = "RGB"
    device = "cpu"  # where torch tensors for `SamPredictor.predict_torch` live; JAX places its own arrays

    def __init__(self, sam: Sam) -> None:
        self.sam = sam

    @property
    def image_encoder(self) -> Any:
        """Holds `img_size`, the side of the model input."""
        return _ImageEncoderView(self.sam.config.image_size[0])

    def to(self, device: Any = None) -> "RegistryModel":
        """Moves the parameters to a device: "cpu", "cuda" or "gpu", "tpu", with ":1" the second one, or a `jax.Device`.

        Raises ValueError where there is no such device.
        """
        if not isinstance(device, jax.Device):
            kind, _, index = str(device).replace("cuda", "gpu").partition(":")
            try:
                device = jax.devices(kind)[int(index or 0)]
            except (RuntimeError, ValueError, IndexError) as error:
                raise ValueError(
                    f"there is no device {str(device)!r}; JAX sees {', '.join(map(str, jax.devices()))}"
                ) from error
        execution = Execution.for_backend(device.platform, self.sam.execution.compute_dtype)
        self.sam = Sam(self.sam.config, jax.device_put(self.sam.params, device), execution)
        return self

    def eval(self) -> "RegistryModel":
        """Nothing to do: samjax has no training mode."""
        return self


@dataclasses.dataclass(frozen=True)
class _ImageEncoderView:
    img_size: int


def _build(variant: str, checkpoint: str | os.PathLike | None = None) -> RegistryModel:
    """A model from a checkpoint file or folder of any format `samjax.load` takes; without one, random weights."""
    if checkpoint is None:
        return RegistryModel(Sam.init(variant))
    sam = hub.load(checkpoint)
    if sam.config.variant != variant:
        raise ValueError(f"{os.fspath(checkpoint)} holds a {sam.config.variant} model, not {variant}")
    return RegistryModel(sam)


sam_model_registry: dict[str, Callable[..., RegistryModel]] = {
    "default": functools.partial(_build, "vit_h"),
    **{name: functools.partial(_build, name) for name in VARIANTS},
}


class SamPredictor:
    """Embeds a photo once, then answers prompts about it."""

    def __init__(self, sam_model: Sam | RegistryModel) -> None:
        self.model = sam_model if isinstance(sam_model, RegistryModel) else RegistryModel(sam_model)
        self.transform = ResizeLongestSide(self.model.image_encoder.img_size)
        self.reset_image()

    @property
    def device(self) -> str:
        return self.model.device

    def reset_image(self) -> None:
        """Forgets the photo."""
        self.is_image_set = False
        self.embedding: Embedding | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None

    def set_image(self, image: ArrayLike, image_format: str = "RGB") -> None:
        """Computes the embedding of a photo, (H, W, 3) uint8 or anything else that `samjax.pictures.as_rgb` takes.

        `image_format` is the order of an array's channels, "RGB" or "BGR".
        """
        self.reset_image()
        rgb = transforms.as_rgb(image, image_format)
        self.set_embedding(self.model.sam.encode(rgb))

    def set_embedding(self, embedding: Embedding) -> None:
        """Takes up a photo whose embedding is at hand, from `Sam.encode` or `samjax.embeddings`."""
        self.embedding = embedding
        self.original_size = tuple(np.asarray(embedding.original_size).tolist())
        self.input_size = tuple(np.asarray(embedding.input_size).tolist())
        self.is_image_set = True

    def get_image_embedding(self) -> Float[Array, "1 C H W"]:
        """The photo's features, channels first as in the reference."""
        return self._embedding_set().features.astype(jnp.float32).transpose(2, 0, 1)[None]

    @property
    def features(self) -> Float[Array, "1 C H W"] | None:
        """`get_image_embedding`, or None before a photo is set."""
        return self.get_image_embedding() if self.is_image_set else None

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Masks, Float32[np.ndarray, " M"], Float32[np.ndarray, "M h w"]]:
        """Masks for one prompt, in pixels of the photo.

        point_coords: (K, 2) points (x, y). point_labels: (K,), 1 foreground, 0 background. box: (x0, y0, x1, y1).
        mask_input: (1, h, w) low-resolution logits of an earlier prediction. multimask_output: three masks instead of
        one. return_logits: float logits instead of booleans.

        Returns masks (M, H, W) of the photo's size, predicted IoU (M,), low-resolution logits (M, h, w).
        """
        if point_coords is not None and point_labels is None:
            raise ValueError("point_labels must be supplied if point_coords is supplied: 1 foreground, 0 background")
        masks, scores, logits = self.predict_batch(
            None if point_coords is None else [point_coords],
            None if point_labels is None else [point_labels],
            None if box is None else np.reshape(box, (1, -1)),
            None if mask_input is None else [mask_input],
            multimask_output,
            return_logits,
        )
        return masks[0], scores[0], logits[0]

    def predict_batch(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Masks, Float32[np.ndarray, "N M"], Float32[np.ndarray, "N M h w"]]:
        """Masks for N prompts at once, in pixels of the photo; each may have a number of points of its own.

        point_coords: N arrays (K, 2). point_labels: N arrays (K,). boxes: (N, 4). mask_input: N arrays (1, h, w).
        Returns masks (N, M, H, W), predicted IoU (N, M), low-resolution logits (N, M, h, w).
        """
        embedding = self._embedding_set()
        prompts = point_coords, point_labels, boxes, mask_input
        return self._predict(embedding, prompts, multimask_output, return_logits)

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """`predict_batch` for torch tensors whose coordinates are in the INPUT frame (`transform.apply_boxes_torch`).

        point_coords (N, K, 2), point_labels (N, K), boxes (N, 4), mask_input (N, 1, h, w). The result is torch
        tensors where the prompts are, NumPy arrays otherwise.
        """
        embedding = self._embedding_set()
        tensors = [point_coords, point_labels, boxes, mask_input]
        arrays = [None if tensor is None else _numpy(tensor) for tensor in tensors]
        in_input_frame = dataclasses.replace(embedding, original_size=embedding.input_size)
        results = self._predict(in_input_frame, arrays, multimask_output, return_logits)
        like = next((tensor for tensor in tensors if tensor is not None), None)
        return tuple(_like(like, result) for result in results)

    def _predict(self, embedding: Embedding, prompts: Sequence[Any], multimask: bool, return_logits: bool) -> tuple:
        """`prompts` are the arguments of `Prompts.of`."""
        sam = self.model.sam
        points, labels, boxes, masks = prompts
        if points is None and boxes is None and masks is None:
            points, labels = [None], None  # the reference answers a prompt of nothing
        prediction = sam.predict(embedding, Prompts.of(points, labels, boxes, masks), multimask=multimask)
        threshold = None if return_logits else self.model.mask_threshold
        masks = transforms.upscale_masks(prediction.logits, self.original_size, sam.config, threshold=threshold)
        return masks, np.array(prediction.iou), np.array(prediction.logits)

    def _embedding_set(self) -> Embedding:
        if self.embedding is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        return self.embedding


def _numpy(array: Any) -> np.ndarray:
    """A NumPy array of an array or of a torch tensor on any device."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def _like(original: Any, array: np.ndarray) -> Any:
    """`array` as a torch tensor where `original` is one; torch itself is never imported here."""
    if not hasattr(original, "new_tensor"):
        return array
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(array)).to(original.device)

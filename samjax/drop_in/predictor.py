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
import ml_dtypes
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from samjax import hub, pictures, transforms
from samjax.config import VARIANTS
from samjax.execution import Execution
from samjax.sam import Sam
from samjax.types import ArrayLike, Embedding, Prompts

Masks = Bool[np.ndarray, "*N M H W"] | Float32[np.ndarray, "*N M H W"]


class ResizeLongestSide:
    """The reference's helper of this name: photos and coordinates to the model's input frame."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: ArrayLike) -> np.ndarray:
        """An (H, W, 3) photo resized so that its longer side is `target_length`, uint8."""
        rgb = pictures.as_rgb(image)
        return transforms.resize_photo(rgb, self.get_preprocess_shape(rgb.shape[0], rgb.shape[1], self.target_length))

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
        """(height, width) of a photo of (`oldh`, `oldw`) pixels when its longer side is `long_side_length`."""
        return transforms.input_size((oldh, oldw), (long_side_length, long_side_length))


class RegistryModel:
    """A `Sam` behind the few attributes of the reference's model that programs use; `sam_model_registry` makes it."""

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

        Raises ValueError if there is no such device.
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
        params = jax.device_put(self.sam.params, device)
        self.sam = dataclasses.replace(self.sam, params=params, execution=execution)
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


@dataclasses.dataclass(frozen=True)
class _Photo:
    """A predictor's photo. One object, so that features and sizes are always those of the same photo."""

    embedding: Embedding
    original_size: transforms.Size
    input_size: transforms.Size


class _BeingSet:
    """Stands for a photo that `set_image` is at."""


ONE_PHOTO = (
    "a SamPredictor holds one photo and is for one thread at a time; make one for each thread, which costs nothing "
    "because they share the model, or use samjax.Sam, which any number of threads can share"
)


class SamPredictor:
    """Embeds a photo once, then answers prompts about it.

    It holds one photo, so threads that work on different photos need a predictor each; these can share one model
    (`samjax.Sam` may be used by any number of threads). Where another thread sets or resets the photo during a
    `set_image`, and where one asks during it, RuntimeError is raised; an answer is always about one photo.
    """

    def __init__(self, sam_model: Sam | RegistryModel) -> None:
        self.model = sam_model if isinstance(sam_model, RegistryModel) else RegistryModel(sam_model)
        self.transform = ResizeLongestSide(self.model.image_encoder.img_size)
        self.reset_image()

    @property
    def device(self) -> str:
        """The device of the torch tensors of `predict_torch`: "cpu"."""
        return self.model.device

    @property
    def is_image_set(self) -> bool:
        """True if `predict` has a photo to answer about."""
        return isinstance(self._photo, _Photo)

    @property
    def embedding(self) -> Embedding | None:
        """The photo's embedding, None before a photo is set."""
        return getattr(self._photo, "embedding", None)

    @property
    def original_size(self) -> transforms.Size | None:
        """(height, width) of the photo in pixels, None before one is set."""
        return getattr(self._photo, "original_size", None)

    @property
    def input_size(self) -> transforms.Size | None:
        """(height, width) of the resized photo inside the padded model input, None before a photo is set."""
        return getattr(self._photo, "input_size", None)

    def reset_image(self) -> None:
        """Forgets the photo."""
        self._photo: _Photo | _BeingSet | None = None

    def set_image(self, image: ArrayLike, image_format: str = "RGB") -> None:
        """Computes the embedding of a photo, (H, W, 3) uint8 or anything else that `samjax.Sam.as_photo` takes.

        `image_format` is the order of an array's channels, "RGB" or "BGR".
        Raises RuntimeError if another thread has set or reset the photo meanwhile.
        """
        being_set = self._photo = _BeingSet()
        try:
            embedding = self.model.sam.encode(self.model.sam.as_photo(image, image_format))
            if self._photo is not being_set:
                raise RuntimeError(f"another thread changed this predictor's photo during set_image; {ONE_PHOTO}")
            self.set_embedding(embedding)
        finally:
            if self._photo is being_set:
                self.reset_image()

    def set_embedding(self, embedding: Embedding) -> None:
        """Takes up a photo whose embedding is at hand, from `Sam.encode` or `samjax.embeddings`."""
        sizes = (tuple(np.asarray(size).tolist()) for size in (embedding.original_size, embedding.input_size))
        self._photo = _Photo(embedding, *sizes)

    def get_image_embedding(self) -> Float[Array, "1 C H W"]:
        """The photo's features, channels first as in the reference."""
        return _channels_first(self._photo_set().embedding)

    @property
    def features(self) -> Float[Array, "1 C H W"] | None:
        """`get_image_embedding`, or None before a photo is set."""
        embedding = self.embedding
        return None if embedding is None else _channels_first(embedding)

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        hq_token_only: bool = False,
    ) -> tuple[Masks, Float32[np.ndarray, " M"], Float32[np.ndarray, "M h w"]]:
        """Masks for one prompt, in pixels of the photo.

        point_coords: (K, 2) points (x, y). point_labels: (K,), 1 foreground, 0 background. box: (x0, y0, x1, y1).
        mask_input: (1, h, w) low-resolution logits of an earlier prediction. multimask_output: three masks instead of
        one. return_logits: float logits instead of booleans. hq_token_only: with HQ-SAM, which gives one mask whatever
        multimask_output is, the mask of its token alone, without SAM's; the argument is its authors'.

        As in the reference, points that are none, (0, 2), are not the same as None: if there is no box, they too
        get the padding point that stands beside any number of points. Labels without points count for nothing.

        Returns masks (M, H, W) of the photo's size, predicted IoU (M,), low-resolution logits (M, h, w).
        Raises RuntimeError before a photo is set, and ValueError like `Prompts.of`.
        """
        photo = self._photo_set()
        if point_coords is not None and point_labels is None:
            raise ValueError("point_labels must be supplied if point_coords is supplied: 1 foreground, 0 background")
        points, labels, box, mask = map(_numpy, (point_coords, point_labels, box, mask_input))
        prompts = points, None if points is None else labels, None if box is None else box.ravel(), mask
        listed = [None if part is None else [part] for part in prompts]
        return tuple(
            answer[0] for answer in self._predict(photo, listed, multimask_output, return_logits, hq_token_only)
        )

    def predict_batch(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        hq_token_only: bool = False,
    ) -> tuple[Masks, Float32[np.ndarray, "N M"], Float32[np.ndarray, "N M h w"]]:
        """Masks for N prompts at once, in pixels of the photo; each may have a number of points of its own.

        point_coords: N arrays (K, 2). point_labels: N arrays (K,). boxes: (N, 4). mask_input: N arrays (1, h, w).
        Returns masks (N, M, H, W), predicted IoU (N, M), low-resolution logits (N, M, h, w).
        """
        prompts = point_coords, point_labels, boxes, mask_input
        return self._predict(self._photo_set(), prompts, multimask_output, return_logits, hq_token_only)

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        hq_token_only: bool = False,
    ) -> tuple[Any, Any, Any]:
        """`predict_batch` for torch tensors whose coordinates are in the INPUT frame (`transform.apply_boxes_torch`).

        point_coords (N, K, 2), point_labels (N, K), boxes (N, 4) or (N, 1, 4), mask_input (N, 1, h, w), one mask for
        all prompts or one prompt for all masks; any dtype. K may be 0, which is not the same as None (`predict`).
        The result is torch tensors where the prompts are, NumPy arrays otherwise.
        """
        photo = self._photo_set()
        tensors = [point_coords, point_labels, boxes, mask_input]
        points, labels, boxes, masks = map(_numpy, tensors)
        prompts = _one_for_all(
            None if points is None else _moved_as_the_reference_does(points),
            None if points is None else labels,
            None if boxes is None else _moved_as_the_reference_does(_rows_of_four(boxes)),
            masks,
        )
        # The prompts' frame is the INPUT frame, so to decode it is the photo's own.
        embedding = dataclasses.replace(photo.embedding, original_size=photo.embedding.input_size)
        in_input_frame = dataclasses.replace(photo, embedding=embedding)
        results = self._predict(in_input_frame, prompts, multimask_output, return_logits, hq_token_only)
        like = next((tensor for tensor in tensors if tensor is not None), None)
        return tuple(_like(like, result) for result in results)

    def _predict(
        self, photo: _Photo, prompts: Sequence[Any], multimask: bool, return_logits: bool, hq_token_only: bool
    ) -> tuple:
        """`prompts` are the arguments of `Prompts.of`."""
        sam = self.model.sam
        points, labels, boxes, masks = prompts
        if points is None and boxes is None and masks is None:
            points, labels = [None], None  # the reference answers a prompt of nothing
        asked = Prompts.of(points, labels, boxes, masks)
        hq = "only" if hq_token_only else None
        prediction = sam.predict(photo.embedding, asked, multimask=multimask, hq=hq)
        threshold = None if return_logits else self.model.mask_threshold
        masks = transforms.upscale_masks(prediction.logits, photo.original_size, sam.config, threshold=threshold)
        return masks, np.array(prediction.iou), np.array(prediction.logits)

    def _photo_set(self) -> _Photo:
        photo = self._photo
        if isinstance(photo, _BeingSet):
            raise RuntimeError(f"another thread is in set_image of this predictor; {ONE_PHOTO}")
        if photo is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        return photo


def _channels_first(embedding: Embedding) -> Float[Array, "1 C H W"]:
    return jnp.asarray(embedding.features, jnp.float32).transpose(2, 0, 1)[None]


def _rows_of_four(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of whatever shape has four numbers for each of the first axis, such as (N, 1, 4) and (N, 2, 2)."""
    return boxes.reshape(-1, 4) if boxes.ndim and boxes.size == 4 * len(boxes) else boxes


def _moved_as_the_reference_does(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates as they are after the reference has added half a pixel in their own dtype, which rounds where it is
    bfloat16 or float16: by up to four pixels at 1000."""
    if coordinates.dtype.itemsize > 2 or coordinates.dtype.kind in "iub":
        return coordinates
    half = coordinates.dtype.type(0.5)
    return (coordinates + half).astype(np.float32) - np.float32(half)


def _one_for_all(points: Any, labels: Any, boxes: Any, masks: Any) -> list[np.ndarray | None]:
    """Prompts of N objects, where a single mask stands for all prompts, or a single prompt for all masks."""
    prompts = [points, labels, boxes]
    count = next((len(part) for part in (points, boxes) if part is not None), None)
    if masks is None or count is None:
        return [*prompts, masks]
    if len(masks) == 1:
        masks = np.repeat(masks, count, 0)
    elif count == 1:
        prompts = [None if part is None else np.repeat(part, len(masks), 0) for part in prompts]
    return [*prompts, masks]


def _numpy(array: Any) -> np.ndarray | None:
    """A NumPy array of an array or of a torch tensor of any dtype on any device; None stays None."""
    if array is None or not hasattr(array, "detach"):
        return None if array is None else np.asarray(array)
    tensor = array.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which torch does not give to NumPy
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.numpy()


def _like(original: Any, array: np.ndarray) -> Any:
    """`array` as a torch tensor where `original` is one; torch itself is never imported here."""
    if not hasattr(original, "new_tensor"):
        return array
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(array)).to(original.device)

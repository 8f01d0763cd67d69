"""The data that travel through SAM: prompts in, an embedding between, a prediction out. Immutable pytrees.

Every type may carry one leading batch axis "*B" of images; coordinates are (x, y) in pixels of the ORIGINAL image,
integers naming pixels (their centres are at .5), and become model-input coordinates inside `samjax.model.decode` only.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from samjax.config import PromptLabel

T = TypeVar("T")
# Whatever numpy.asarray takes. NumPy's own type of this name is a recursive protocol that run-time checkers trip over.
ArrayLike = Any
Params = dict[str, Any]  # nested dicts under the reference's names: image_encoder/blocks/0/attn/qkv/kernel

TOKEN_BUCKETS = (3, 6, 10, 18, 34, 66)  # 2^k points beside a box (2 tokens) or the padding point; then steps of 64
PROMPT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)  # then steps of 64


@dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass as a pytree of all its fields.

    Unflattening does not run `__init__`: JAX rebuilds trees with leaves that are no arrays (shardings, axes, shapes),
    which annotated fields would refuse.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields: Any = dataclasses.fields  # the class is a dataclass since the line above
    names = tuple(field.name for field in fields(cls))

    def flatten(tree):
        return tuple((jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in names), None

    def unflatten(_, leaves):
        tree = object.__new__(cls)
        for name, leaf in zip(names, leaves, strict=True):
            object.__setattr__(tree, name, leaf)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


@pytree
class Features:
    """What the image encoder makes of a photo, or of each of a batch, in the compute dtype; channels last."""

    image: Float[Array, "*B H W C"]
    # Outputs from inside the encoder that were asked for (`samjax.model.tap_names`): rows, columns, channels. To be
    # looked up by name, because JAX sorts dictionaries.
    taps: dict[str, Float[Array, "*B _ _ _"]] = dataclasses.field(default_factory=dict)


@pytree
class Tokens:
    """T tokens of a prompt, or of each of many ("*N"), whatever they were made from; padded where not valid."""

    values: Float32[Array, "*N T C"]
    valid: Bool[Array, "*N T"]  # the others are masked out of every attention

    def joined(self, *others: "Tokens") -> "Tokens":
        """These tokens and then the others', for the same prompts. Raises ValueError if they are of other prompts."""
        for other in others:
            if other.values.shape[:-2] != self.values.shape[:-2] or other.values.shape[-1] != self.values.shape[-1]:
                raise ValueError(
                    f"tokens of {other.values.shape} are not for the prompts of these, {self.values.shape}; prompts "
                    "come padded to a few counts"
                )
        values, valid = zip(*((tokens.values, tokens.valid) for tokens in (self, *others)), strict=True)
        return Tokens(jnp.concatenate(values, -2), jnp.concatenate(valid, -1))


@pytree
class Perturbation:
    """What training changes in the network from step to step; None is nothing.

    For `encode`, `branch_weights` (*B, depth, 2) multiply what each block's two branches add to its input: how training
    drops paths. For `decode` they are (*B, N, depth, 3, T, C), for what the decoder layers' three branches add to the
    tokens, the IoU token, the mask tokens, then the prompt's: how training drops out.
    With `origin` the pixels are a window of the model's input whose upper left is there, (x, y) in pixels, and all
    coordinates of prompts are the window's; it and the window's sides are multiples of the encoder's alignment: how
    training sees less at a time.
    """

    branch_weights: Float32[Array, "..."] | None = None
    origin: Int32[Array, "*B 2"] | None = None


@pytree
class Embedding:
    """The image encoder's output for a photo, and the photo's sizes in two frames."""

    features: Float[Array, "*B H W C"]  # channels last, in the compute dtype
    original_size: Int32[Array, "*B 2"]  # (height, width) of the photo, pixels
    input_size: Int32[Array, "*B 2"]  # (height, width) of the resized photo inside the padded model input, pixels
    taps: dict[str, Float[Array, "*B _ _ _"]] = dataclasses.field(default_factory=dict)  # as in `Features`

    def __post_init__(self) -> None:
        if isinstance(self.features, Features):
            raise TypeError(
                "an Embedding takes an array: pass features.image (and taps=features.taps), not the Features"
            )

    def with_taps(self, names: Sequence[str]) -> "Embedding":
        """The same with these taps alone, those of them that it has: with others it would be another program's."""
        return dataclasses.replace(self, taps={name: self.taps[name] for name in names if name in self.taps})

    def __getitem__(self, index: int) -> "Embedding":
        """One image of a batch. Raises ValueError if this is no batch."""
        if self.features.ndim != 4:
            raise ValueError("this is the embedding of one image, not of a batch; its features are in .features")
        return jax.tree.map(lambda x: x[index], self)


@pytree
class Prediction:
    """Masks before upscaling, and the model's opinion of them."""

    logits: Float32[
        Array | np.ndarray, "*B N M h w"
    ]  # at four times the grid, of the padded model input; mask where > 0
    iou: Float32[Array | np.ndarray, "*B N M"]  # predicted IoU of each mask with the object; may exceed 1
    valid: Bool[Array | np.ndarray, "*B N"]  # False for rows that only pad the bucket

    def __getitem__(self, index: int) -> "Prediction":
        """The predictions for one image of a batch, on the host, without the padding rows.

        Raises ValueError if this is no batch.
        """
        if self.iou.ndim != 3:
            raise ValueError("this is the prediction for one image, not for a batch; index its .logits and .iou")
        return jax.tree.map(lambda x: np.asarray(x)[index], self).trimmed()

    def trimmed(self) -> "Prediction":
        """One image's predictions on the host, without the padding rows.

        Slicing on the device would compile a program for every number of prompts.
        """
        count = int(np.asarray(self.valid).sum())
        return jax.tree.map(lambda x: np.asarray(x)[:count], self)


@pytree
class Prompts:
    """N prompts for each image, each up to T points and box corners and possibly a mask; ragged sets are padded.

    Build them on the host with `Prompts.of` (one image) or `Prompts.batch` (many): numpy arrays in few bucketed sizes,
    which go to the device when they are used.
    """

    points: Float32[Array | np.ndarray, "*B N T 2"]  # (x, y), pixels of the original image; integers name pixels
    labels: Int32[
        Array | np.ndarray, "*B N T"
    ]  # 1 foreground, 0 background, 2 and 3 box corners, -1 not a point, -2 absent
    valid: Bool[Array | np.ndarray, "*B N"]  # False for rows that only pad the bucket
    masks: Float32[Array | np.ndarray, "*B N h w"] | None = None  # logits at four times the grid
    has_mask: Bool[Array | np.ndarray, "*B N"] | None = None  # which rows of `masks` count; None: all

    @classmethod
    def of(
        cls,
        points: Sequence[ArrayLike | None] | ArrayLike | None = None,
        labels: Sequence[ArrayLike | None] | ArrayLike | None = None,
        boxes: Sequence[ArrayLike | None] | ArrayLike | None = None,
        masks: Sequence[ArrayLike | None] | ArrayLike | None = None,
    ) -> "Prompts":
        """N prompts of one image. Whatever is given has N entries, an entry may be None.

        points: N sets of any number of (x, y), pixels of the original image, integers naming pixels. labels: as many
        for each set, 1 for foreground, 0 for background, -1 for no point; all foreground when left out. boxes: N times
        (x0, y0, x1, y1), the upper left and the lower right corner in the same frame. masks: N times logits of four
        times the grid's size, from an earlier prediction or from `samjax.mask_prompt`.

        As in the reference, a prompt with points and no box gets one not-a-point token, also where its set of points is
        empty, which is not the same as None.

        Raises ValueError if nothing is given, counts or the sizes of masks differ, labels come without points, a shape
        is wrong, a label is none of the three, a box is empty or inverted, or a number is not finite.
        """
        given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
        counts = {name: len(value) for name, value in given.items() if value is not None}
        if not counts:
            raise ValueError("a prompt needs at least one of points, boxes and masks; none was given")
        if len(set(counts.values())) > 1:
            raise ValueError(f"points, labels, boxes and masks must hold one entry per prompt each, got {counts}")
        if points is None and labels is not None:
            raise ValueError("labels were given without points; each label belongs to one point")
        count = next(iter(counts.values()))
        if count == 0:
            raise ValueError("no prompt was given: points, boxes and masks are empty")
        columns = [value if value is not None else [None] * count for value in given.values()]
        rows = [_tokens(row[0], row[1], row[2], number) for number, row in enumerate(zip(*columns, strict=True))]

        size = bucket(count, PROMPT_BUCKETS)
        width = bucket(max(len(labels) for _, labels in rows), TOKEN_BUCKETS)
        all_points = np.zeros((size, width, 2), np.float32)
        all_labels = np.full((size, width), PromptLabel.ABSENT, np.int32)
        for number, (row_points, row_labels) in enumerate(rows):
            all_points[number, : len(row_points)] = row_points
            all_labels[number, : len(row_labels)] = row_labels
        all_masks, has_mask = _stack_masks(masks, size) if masks is not None else (None, None)
        return cls(all_points, all_labels, np.arange(size) < count, all_masks, has_mask)

    @classmethod
    def batch(cls, images: Sequence["Prompts"]) -> "Prompts":
        """Prompts of many images as one batch, padded to the largest; the leading axis is the image.

        Raises ValueError if there is no image, or their mask prompts differ in size.
        """
        if not images:
            raise ValueError("a batch needs the prompts of at least one image")
        count = max(prompts.valid.shape[0] for prompts in images)
        width = max(prompts.labels.shape[1] for prompts in images)
        shapes = {prompts.masks.shape[1:] for prompts in images if prompts.masks is not None}
        if len(shapes) > 1:
            raise ValueError("mask prompts of one batch must all have the size that the model's predictions have")

        def padded(prompts: Prompts) -> Prompts:
            rows, tokens = count - prompts.valid.shape[0], width - prompts.labels.shape[1]
            masks = has_mask = None
            if shapes:
                masks = np.zeros((count, *next(iter(shapes))), np.float32)
                has_mask = np.zeros(count, bool)
                if prompts.masks is not None:
                    masks[: len(prompts.masks)] = prompts.masks
                    has_mask[: len(prompts.masks)] = True if prompts.has_mask is None else prompts.has_mask
            return Prompts(
                np.pad(prompts.points, ((0, rows), (0, tokens), (0, 0))),
                np.pad(prompts.labels, ((0, rows), (0, tokens)), constant_values=PromptLabel.ABSENT),
                np.pad(prompts.valid, (0, rows)),
                masks,
                has_mask,
            )

        return jax.tree.map(lambda *leaves: np.stack(leaves), *map(padded, images))


def bucket(size: int, sizes: tuple[int, ...]) -> int:
    """The smallest of `sizes`, which ascend, that holds `size`; beyond the largest, steps of 64 from it."""
    for known in sizes:
        if size <= known:
            return known
    return sizes[-1] + -(-(size - sizes[-1]) // 64) * 64


def _tokens(points: Any, labels: Any, box: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of one prompt: its points, then either its box corners or the reference's padding point."""
    xy = np.zeros((0, 2), np.float32)
    kinds = np.zeros(0, np.int32)
    if points is not None:
        xy = _finite(points, f"points of prompt {number}")
        xy = xy.reshape(0, 2) if xy.size == 0 else xy
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise ValueError(
                f"points of prompt {number} must have shape (count, 2) as (x, y), got {xy.shape}; "
                "points is a list with one set of points for each prompt"
            )
        kinds = np.full(len(xy), PromptLabel.FOREGROUND) if labels is None else np.asarray(labels)
        if kinds.shape != (len(xy),):
            raise ValueError(
                f"prompt {number} has {len(xy)} points and labels of shape {kinds.shape}; one label a point"
            )
        if not np.isin(kinds, (PromptLabel.BACKGROUND, PromptLabel.FOREGROUND, PromptLabel.NOT_A_POINT)).all():
            raise ValueError(
                f"labels of prompt {number} must be 1 (foreground), 0 (background) or -1 (no point), "
                f"got {kinds.tolist()}"
            )
        kinds = kinds.astype(np.int32)
        if box is None:
            xy, kinds = np.vstack([xy, np.zeros((1, 2))]), np.append(kinds, PromptLabel.NOT_A_POINT)
    elif labels is not None and len(labels):
        raise ValueError(f"prompt {number} has {len(labels)} labels and no points; one label a point")
    if box is not None:
        corners = _finite(box, f"box of prompt {number}")
        if corners.shape != (4,):
            raise ValueError(
                f"box of prompt {number} must be (x0, y0, x1, y1), got shape {corners.shape}; "
                "boxes is a list with one box for each prompt"
            )
        if corners[2] <= corners[0] or corners[3] <= corners[1]:
            raise ValueError(
                f"box of prompt {number} must have x0 < x1 and y0 < y1, got {corners.tolist()}; "
                "boxes are (x0, y0, x1, y1), not (x, y, width, height)"
            )
        xy, kinds = np.vstack([xy, corners.reshape(2, 2)]), np.append(kinds, (PromptLabel.BOX_MIN, PromptLabel.BOX_MAX))
    return xy.astype(np.float32), kinds.astype(np.int32)


def _stack_masks(masks: Sequence[Any] | ArrayLike, size: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    arrays = [None if mask is None else _finite(mask, f"mask of prompt {i}") for i, mask in enumerate(masks)]
    arrays = [mask[0] if mask is not None and mask.ndim == 3 and len(mask) == 1 else mask for mask in arrays]
    shapes = {mask.shape for mask in arrays if mask is not None}
    if not shapes:
        return None, None
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"mask prompts must be 2-d logits of one size, got shapes {sorted(shapes)}")
    stacked = np.zeros((size, *next(iter(shapes))), np.float32)
    has_mask = np.zeros(size, bool)
    for number, mask in enumerate(arrays):
        if mask is not None:
            stacked[number], has_mask[number] = mask, True
    return stacked, has_mask


def _finite(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value, np.float64).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers, got NaN or infinity")
    return array

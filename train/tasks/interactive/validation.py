"""The quality of masks after 1, 3 and 5 clicks and for a box: a simulated user without randomness.

The first click is the pixel of the object farthest from its boundary; each further one lies deepest in what is wrong
(`samjax.train.tasks.interactive.cell_clicks`). One click asks for three masks, the most confident of which is scored
and carried on; further clicks ask for one, with the logits before as mask prompt. A box, exact and inclusive, asks for
one mask. Masks are compared at the size of the model's input, and every mask counts the same.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt

from samjax.config import PromptLabel, SamConfig
from samjax.execution import Execution
from samjax.model import decode
from samjax.types import Embedding, Features, Params, Prompts

from ... import cells
from ...batch import NO_MASK, Batch, cell_ratio, on_host
from ...encoder import features_of
from .cell_clicks import correction, deepest_pixel


@dataclasses.dataclass(frozen=True)
class ValidationAnswer:
    """The model's answers to one kind of prompt for all masks of a batch, on the host; rows that only pad mean nothing.

    Predicted masks are cells, as in `Batch`.
    """

    clicks: int  # 0: a box
    points: Float32[np.ndarray, "B N T 2"]  # (x, y), pixels of the model's input
    labels: Int32[np.ndarray, "B N T"]
    mask: UInt[np.ndarray, "B N h w"]  # the most confident one
    iou: Float32[np.ndarray, "B N"]  # its IoU
    best_iou: Float32[np.ndarray, "B N"]  # of the best of all masks that were asked for
    predicted_iou: Float32[np.ndarray, "B N"]  # what the model says about its most confident one


class _Masks(NamedTuple):
    """The part of a `Batch` that answers are judged by."""

    size: Int32[Array | np.ndarray, "B 2"]
    valid: Bool[Array | np.ndarray, "B N"]
    cells: UInt[Array | np.ndarray, "B N h w"]


def validate(
    config: SamConfig,
    params: Params,
    batches: Iterable[Batch],
    execution: Execution,
    clicks: Sequence[int] = (1, 3, 5),
) -> dict[str, float]:
    """Mean IoU over all valid masks of all batches.

    Args:
        config: the model.
        params: its parameters, on any mesh.
        batches: of one shape each, on the host or on a mesh; rows without a valid mask contribute nothing.
        execution: how to compute; on a mesh `images_per_step` is None or a multiple of the devices that images are
            spread over, because another loop over a sharded axis would gather it.
        clicks: numbers of clicks to report.

    Returns:
        "iou_1", "iou_3", ... for `clicks`; "iou_1_oracle", the best of the three masks of the first click; "iou_box";
        "iou", the mean of clicks and box; "iou_distance", the mean distance of predicted and true IoU over the same;
        "masks", how many were judged.

    Raises:
        ValueError: there is no valid mask at all, or a number of clicks is below 1.
    """
    sums: dict[str, float] = {}
    count = 0

    def add(name: str, values: Float[np.ndarray, " N"]) -> None:
        sums[name] = sums.get(name, 0.0) + float(values.sum(dtype=np.float64))

    for batch in batches:
        valid = on_host(batch.valid)
        if not valid.any():
            continue
        count += int(valid.sum())
        for answer in answers(config, params, batch, execution, max(clicks)):
            if answer.clicks == 1:
                add("iou_1_oracle", answer.best_iou[valid])
            if answer.clicks and answer.clicks not in clicks:
                continue
            add(f"iou_{answer.clicks or 'box'}", answer.iou[valid])
            add("iou_distance", np.abs(answer.predicted_iou - answer.iou)[valid] / (len(set(clicks)) + 1))
    if not count:
        raise ValueError(NO_MASK)
    means = {name: total / count for name, total in sums.items()}
    headline = [f"iou_{number}" for number in sorted(set(clicks))] + ["iou_box"]
    return {"iou": float(np.mean([means[name] for name in headline])), **means, "masks": float(count)}


def answers(
    config: SamConfig, params: Params, batch: Batch, execution: Execution, clicks: int
) -> Iterator[ValidationAnswer]:
    """The answers to 1, 2, ..., `clicks` clicks on every mask of a batch, then to its box.

    The photos are encoded once. Three programs decode: one click, more clicks (in slots for all of them), a box.
    Raises ValueError below one click.
    """
    if clicks < 1:
        raise ValueError(f"a mask needs at least one click, got {clicks}")
    ratio = cell_ratio(config)
    features = _encode(config, params, batch, execution)
    target, valid = on_host(batch.cells), on_host(batch.valid)
    rows = list(zip(*np.nonzero(valid), strict=True))
    points = np.zeros((*valid.shape, clicks + 1, 2), np.float32)
    labels = np.full((*valid.shape, clicks + 1), PromptLabel.ABSENT, np.int32)
    labels[:, :, 0] = PromptLabel.NOT_A_POINT  # every prompt has it beside its points, as in the reference
    for row in rows:
        _, points[*row, 1] = deepest_pixel(target[row], ratio)
        labels[*row, 1] = PromptLabel.FOREGROUND

    masks = jax.tree.map(jnp.asarray, _Masks(batch.size, batch.valid, batch.cells))
    run = functools.partial(_answer, config, params, features, masks, execution)
    logits, *judged = run(points[:, :, :2], labels[:, :, :2], None, multimask=True)
    answer = _on_host(1, points, labels, judged)
    yield answer
    for number in range(2, clicks + 1):
        for row in rows:
            if found := correction(target[row], answer.mask[row] ^ target[row], ratio):
                points[*row, number], labels[*row, number] = found
        logits, *judged = run(points, labels, logits, multimask=False)
        answer = _on_host(number, points, labels, judged)
        yield answer

    boxes = on_host(_boxes(masks.cells, ratio=ratio)).reshape(*valid.shape, 2, 2)
    labels = np.array([PromptLabel.BOX_MIN, PromptLabel.BOX_MAX], np.int32)
    corners = np.where(valid[:, :, None], labels, np.int32(PromptLabel.ABSENT))
    _, *judged = run(boxes, corners, None, multimask=False)
    yield _on_host(0, boxes, corners, judged)


def _on_host(clicks: int, points: np.ndarray, labels: np.ndarray, judged: Sequence[Array]) -> ValidationAnswer:
    used = clicks + 1 if clicks else 2
    return ValidationAnswer(clicks, points[:, :, :used].copy(), labels[:, :, :used].copy(), *map(on_host, judged))


@functools.partial(jax.jit, static_argnames=("config", "execution"))
def _encode(config: SamConfig, params: Params, batch: Batch, execution: Execution) -> Features:
    return features_of(config, params, batch, execution)


@functools.partial(jax.jit, static_argnames="ratio")
def _boxes(masks: UInt[Array, "B N h w"], *, ratio: int) -> Float32[Array, "B N 4"]:
    return jax.vmap(jax.vmap(functools.partial(cells.box, ratio=ratio)))(masks)


@functools.partial(jax.jit, static_argnames=("config", "execution", "multimask"))
def _answer(
    config: SamConfig,
    params: Params,
    features: Features,
    masks: _Masks,
    execution: Execution,
    points: Float32[Array, "B N T 2"],
    labels: Int32[Array, "B N T"],
    before: Float32[Array, "B N h w"] | None,
    *,
    multimask: bool,
) -> tuple[Array, ...]:
    """Logits of the most confident masks, those masks as cells, their IoU, the best IoU, and the predicted IoU."""
    size = jnp.asarray(masks.size)  # photos come in the model's frame, so it is the ORIGINAL one too
    prompts = Prompts(points, labels, masks.valid, before, None if before is None else masks.valid)
    embedding = Embedding(features.image, size, size, features.taps)
    answer = decode(config, params, embedding, prompts, execution, multimask=multimask)
    chosen = jnp.argmax(answer.iou, -1)  # B N

    ratio = cell_ratio(config)
    photos = jax.vmap(lambda size: cells.photo(size, config.mask_size, ratio, masks.cells.dtype))(size)

    def one_slot(slot):  # of all images: the upscaled logits of a few masks exist at a time
        logits, target = slot
        found = jax.vmap(functools.partial(cells.from_logits, ratio=ratio))(logits, photos)  # B K h w
        return found, jax.vmap(cells.iou)(found, target)

    by_slot = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (answer.logits, masks.cells))
    found, iou = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), lax.map(one_slot, by_slot))

    def choose(x):
        index = chosen.reshape(*chosen.shape, *[1] * (x.ndim - 2))
        return jnp.take_along_axis(x, index, 2)[:, :, 0]

    return choose(answer.logits), choose(found), choose(iou), iou.max(-1), choose(answer.iou)

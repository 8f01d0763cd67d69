"""The device programs of mask generation: `judge` and `choose` find the best masks of a region, `decode_survivors` and
`pack_masks` make their bits.

Only `judge` and `pack_masks` depend on the photo's size (by the shapes of its `Frame`), so these are what another size
may have to be compiled for; `frame_of` has few shapes for many sizes.

A region is what goes through the image encoder at once: the photo, a crop of it or a tile. Which of 3,072 masks survive
is only known once all are judged. Keeping their logits would take 800 MB (at 64 points a side 3 GB), their bits at the
photo's size as much; so nothing is kept of a mask but its measures, and the few survivors' points are decoded again,
which costs a few per cent of `judge`.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8, UInt32

from samjax import transforms
from samjax.config import PromptLabel, SamConfig
from samjax.execution import Execution
from samjax.model import decode
from samjax.ops.batching import map_batch
from samjax.ops.boxes import by_score, greedy, keep_by_nms
from samjax.ops.masks import Frame, Measures, measure, overlaps, pack
from samjax.ops.resize import Banded
from samjax.transforms import Size
from samjax.types import Embedding, Params, Prompts

EDGE_TOLERANCE = 20.0  # pixels; a box so near to a crop's edge is an object cut off (reference: is_box_near_crop_edge)
MASKS_PER_PACK = 16  # survivors whose bits are made in one call, while the host encodes those of the call before
_COLUMNS = 16  # blocks of 128 that the columns of photos of up to 2048 pixels have
MASK_THRESHOLD = 0.0  # logit above which a pixel belongs to a mask

Nms = Literal["box", "mask"]


class Limits(NamedTuple):
    """Filters, under the names of the generator's arguments; 0 or less turns one of the first two off."""

    pred_iou_thresh: Float32[Array, ""]
    stability_score_thresh: Float32[Array, ""]
    stability_score_offset: Float32[Array, ""]
    nms_thresh: Float32[Array, ""]  # of boxes, or of masks at low resolution


class Region(NamedTuple):
    """The place of a region in the photo, pixels of the ORIGINAL frame."""

    points: Float32[Array, "P 2"]  # (x, y) in the region's own frame; the first `count` of them are real
    count: Int32[Array, ""]
    box: Float32[Array, "4"]  # (x0, y0, x1, y1) in the photo, ends exclusive
    photo: Float32[Array, "4"]  # the photo's own box


class Found(NamedTuple):
    """All masks of a region, number 3p + m is mask m of point p (of HQ-SAM, which has one, p); those of points that
    only fill up are not kept."""

    iou: Float32[Array, " N"]
    stability: Float32[Array, " N"]
    ranking: Int32[Array, " N"]  # mask numbers by descending predicted IoU
    kept: Bool[Array, " N"]  # which of the ranking passed all filters and the suppression of duplicates


class Judged(NamedTuple):
    """All masks of a region, before duplicates are looked for; numbered as in `Found`."""

    iou: Float32[Array, " N"]
    passed: Bool[Array, " N"]  # the predicted IoU
    measures: Measures
    bits: UInt32[Array, "N words"]  # at low resolution; no words where boxes tell duplicates


def judge(
    config: SamConfig,
    params: Params,
    embedding: Embedding,
    region: Region,
    frame: Frame,
    limits: Limits,
    execution: Execution,
    *,
    points_per_batch: int,
    nms: Nms,
) -> Judged:
    """Judges the three masks (HQ-SAM: the one) of every point of a region, `points_per_batch` points at a time.

    Masks whose predicted IoU is too low are dropped before they are brought to the photo's size.
    """
    region, frame, limits = jax.tree.map(jnp.asarray, (region, frame, limits))  # as jit would, where it is disabled
    masks = config.multimask_answers
    count = len(region.points)
    batches = -(-count // points_per_batch)
    size = -(-count // batches)  # evened out, so that the last batch is not mostly padding
    points = jnp.pad(region.points, ((0, batches * size - count), (0, 0)))

    def judge_batch(batch, found):
        first = batch * size
        some = lax.dynamic_slice_in_dim(points, first, size)
        prediction = decode(config, params, embedding, point_prompts(some), execution, multimask=True)
        logits = jnp.asarray(prediction.logits).reshape(-1, *config.mask_size)
        iou = prediction.iou.ravel()
        real = jnp.repeat(first + jnp.arange(size, dtype=jnp.int32) < region.count, masks)
        passed = real & ((iou > limits.pred_iou_thresh) | (limits.pred_iou_thresh <= 0))
        measures = _measure_those(passed, logits, frame, limits.stability_score_offset, execution)
        bits = (
            _low_res_bits(config, logits, embedding, frame) if nms == "mask" else jnp.zeros((len(iou), 0), jnp.uint32)
        )
        new = iou, passed, measures, bits
        return jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, first * masks, 0), found, new
        )

    total = batches * size * masks
    words = -(-config.mask_size[0] * config.mask_size[1] // 32) if nms == "mask" else 0
    nothing = (
        jnp.zeros(total, jnp.float32),
        jnp.zeros(total, bool),
        Measures(jnp.zeros(total, jnp.int32), jnp.zeros((total, 4), jnp.int32), jnp.zeros(total, jnp.float32)),
        jnp.zeros((total, words), jnp.uint32),
    )
    used = (region.count + size - 1) // size
    return Judged(*lax.fori_loop(0, used, judge_batch, nothing))


def choose(judged: Judged, region: Region, limits: Limits, *, nms: Nms) -> Found:
    """Applies the other filters and suppresses duplicates."""
    region, limits = jax.tree.map(jnp.asarray, (region, limits))  # as jit would, where it is disabled
    iou, passed, measures, bits = judged
    passed &= (measures.stability >= limits.stability_score_thresh) | (limits.stability_score_thresh <= 0)
    passed &= ~_cut_off(measures.box.astype(jnp.float32), region)
    if nms == "box":
        ranking, kept = keep_by_nms(measures.box.astype(jnp.float32), iou, passed, limits.nms_thresh)
    else:
        ranking = by_score(iou, passed)
        bits = bits[ranking]
        kept = greedy(lambda rows: overlaps(bits[rows], bits, limits.nms_thresh), passed[ranking])
    return Found(iou, measures.stability, ranking, kept)


def decode_survivors(
    config: SamConfig,
    params: Params,
    embedding: Embedding,
    points: Float32[Array | np.ndarray, "N 2"],
    which: Int32[Array | np.ndarray, " N"],
    execution: Execution,
) -> Float32[Array, "N h w"]:
    """The logits of mask number `which` of each point of a region."""
    points, which = jnp.asarray(points), jnp.asarray(which)  # as jit would, where it is disabled
    prediction = decode(config, params, embedding, point_prompts(points), execution, multimask=True)
    return jnp.take_along_axis(prediction.logits, which[:, None, None, None], axis=1)[:, 0]


def pack_masks(logits: Float32[Array, "N h w"], frame: Frame, execution: Execution) -> UInt8[Array, "N W bytes"]:
    """The bits (`samjax.ops.masks.pack`) of masks."""
    return map_batch(lambda mask: pack(mask, frame, MASK_THRESHOLD), logits, together=execution.masks_per_step)


def frame_of(size: Size, config: SamConfig) -> Frame:
    """The frame of a view of `size` (height, width), filled up with blocks that are not part of it.

    Columns beyond the size are not computed, so up to `_COLUMNS` blocks all have as many. Rows are computed: small
    numbers of blocks become powers of two, large ones, where that would cost most, stay as `banded` rounds them.
    """
    frame = transforms.upscaling(size, config)
    rows, columns = len(frame.rows.first), len(frame.columns.first)
    return frame._replace(
        rows=_filled_up(frame.rows, 1 << (rows - 1).bit_length() if rows <= 8 else rows),
        columns=_filled_up(frame.columns, max(columns, _COLUMNS)),
    )


def _filled_up(banded: Banded, blocks: int) -> Banded:
    return Banded(*(np.pad(part, [(0, blocks - len(part))] + [(0, 0)] * (part.ndim - 1)) for part in banded))


jitted_judge = jax.jit(judge, static_argnames=("config", "execution", "points_per_batch", "nms"))
jitted_choose = jax.jit(choose, static_argnames="nms")
jitted_decode = jax.jit(decode_survivors, static_argnames=("config", "execution"))
jitted_pack = jax.jit(pack_masks, static_argnames="execution")


def point_prompts(points: Float32[Array, "N 2"]) -> Prompts:
    """N prompts of one foreground point each, with the padding point that the reference adds."""
    labels = jnp.tile(jnp.array([PromptLabel.FOREGROUND, PromptLabel.NOT_A_POINT], jnp.int32), (len(points), 1))
    return Prompts(jnp.stack([points, jnp.zeros_like(points)], axis=1), labels, jnp.ones(len(points), bool))


def _measure_those(
    wanted: Bool[Array, " N"],
    logits: Float32[Array, "N h w"],
    frame: Frame,
    offset: Float32[Array, ""],
    execution: Execution,
) -> Measures:
    """Measures of the wanted masks, some at a time; zeros for the others, which cost nothing."""
    count = len(wanted)
    size = min(execution.masks_per_step or count, count)
    order = jnp.pad(jnp.argsort(~wanted, stable=True), (0, -count % size), mode="edge")
    measure_all = jax.vmap(functools.partial(measure, frame=frame, threshold=MASK_THRESHOLD, offset=offset))

    def step(number, measures):
        some = lax.dynamic_slice_in_dim(order, number * size, size)
        return jax.tree.map(lambda whole, part: whole.at[some].set(part), measures, measure_all(logits[some]))

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure_all, logits))
    steps = (wanted.sum(dtype=jnp.int32) + size - 1) // size
    return lax.fori_loop(0, steps, step, zeros)


def _low_res_bits(
    config: SamConfig, logits: Float32[Array, "N h w"], embedding: Embedding, frame: Frame
) -> UInt32[Array, "N words"]:
    """Masks at low resolution, without the model input's padding and what a tile has beyond the photo."""
    share = jnp.asarray(frame.size, jnp.float32) / embedding.original_size.astype(jnp.float32)
    scale = np.array(config.mask_size, np.float32) / np.array(config.image_size, np.float32)
    extent = jnp.ceil(share * embedding.input_size.astype(jnp.float32) * scale).astype(jnp.int32)
    y, x = (jnp.arange(side, dtype=jnp.int32) < end for side, end in zip(logits.shape[1:], extent, strict=True))
    bits = ((logits > MASK_THRESHOLD) & y[None, :, None] & x[None, None]).reshape(len(logits), -1)
    packed = jnp.packbits(jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % 32))), axis=1)
    return lax.bitcast_convert_type(packed.reshape(len(logits), -1, 4), jnp.uint32)


def _cut_off(boxes: Float32[Array, "N 4"], region: Region) -> Bool[Array, " N"]:
    """True for boxes, in the region's own frame, that end at an edge of the region that is not an edge of the photo."""
    boxes = boxes + jnp.tile(region.box[:2], 2)[None]
    near_region, near_photo = (jnp.abs(boxes - edges[None]) <= EDGE_TOLERANCE for edges in (region.box, region.photo))
    return (near_region & ~near_photo).any(1)

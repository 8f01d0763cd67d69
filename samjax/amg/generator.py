"""Automatic mask generation: `segment_anything.SamAutomaticMaskGenerator`, and what its users miss there."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int, Int32, UInt8

from samjax import pictures
from samjax.amg import crops, duplicates, labels, regions, seams
from samjax.amg.candidates import Candidates
from samjax.amg.memory import Plan, plan
from samjax.amg.program import (
    MASKS_PER_DRAW,
    Found,
    Limits,
    Region,
    frame_of,
    jitted_choose,
    jitted_decode,
    jitted_draw,
    jitted_judge,
)
from samjax.drop_in.predictor import RegistryModel
from samjax.ops.boxes import float32_below, nms
from samjax.ops.masks import Frame, unpack
from samjax.ops.rle import decode_rle, encode_placed, rle_area, run_lengths
from samjax.sam import Sam
from samjax.transforms import PIXEL_MEAN, Size
from samjax.types import ArrayLike, Embedding

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclasses.dataclass(frozen=True)
class View:
    """A part of the photo that the model sees at once: all of it, a crop, or a tile."""

    box: tuple[int, int, int, int]  # (x0, y0, x1, y1) in the photo, ends exclusive
    size: (
        Size  # (height, width) of the picture the model gets; larger than the box where a tile sticks out of the photo
    )
    points: Float64[np.ndarray, "P 2"]  # (x, y) in the view's own frame

    @property
    def inside(self) -> Size:
        """(height, width) of the box."""
        return _extent(self.box)


@dataclasses.dataclass(frozen=True)
class _Started:
    """A view whose `find` is under way on the device."""

    view: View
    embedding: Embedding
    found: Found


class SamAutomaticMaskGenerator:
    """Finds everything in a photo: a grid of point prompts, then filters for quality and duplicates.

    Any number of threads may share one; it keeps nothing of a photo.
    The first thirteen arguments, their defaults and the records are the reference's. Raises ValueError where arguments
    make no sense.

    Args:
        model: a `samjax.Sam` or what `sam_model_registry` makes.
        points_per_side: points along each side of the photo, or None where `point_grids` gives them.
        points_per_batch: points decoded together; decides memory and, on accelerators, speed. Not the answer.
        pred_iou_thresh: masks with a predicted IoU of no more than this are dropped; 0 keeps all.
        stability_score_thresh: masks less stable than this are dropped; 0 keeps all.
        stability_score_offset: shift of the logit threshold in the stability score.
        box_nms_thresh: box IoU (mask IoU with nms="mask") above which a mask is a duplicate of a better one in the
            same crop.
        crop_n_layers: layers of crops beside the whole photo; layer i has (2^i)^2 crops.
        crop_nms_thresh: as `box_nms_thresh`, between crops; smaller crops are preferred.
        crop_overlap_ratio: overlap of the first layer's crops, as a share of the photo's shorter side.
        crop_n_points_downscale_factor: points per side shrink by this factor from layer to layer.
        point_grids: instead of `points_per_side`, for each layer an array (P, 2) of (x, y) in [0, 1].
        min_mask_region_area: holes and islands of fewer pixels are removed from masks; 0 leaves them.
        output_mode: "binary_mask" (bool (H, W)), "uncompressed_rle" or "coco_rle".
        memory_budget: bytes that generation may use beside the model's weights; replaces `points_per_batch` by as
            many as fit (see `explain`).
        nms: "box", the reference's, or "mask": duplicates are masks that overlap, not boxes, and nested ones too.
        containment_thresh: with nms="mask", a mask is also a duplicate where the smaller of the two lies in the other
            to more than this share, of which the one with the lower predicted IoU goes; 1 turns that off.
        tile: instead of crops, cut the photo into square tiles of this side (pixels), each with its own grid of
            points, and unite objects across their seams. For large photos and small objects.
        overlap: of neighbouring tiles, pixels; a quarter of `tile` by default. Objects up to this size are whole in
            at least one tile.
    """

    def __init__(
        self,
        model: Sam | RegistryModel,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        *,
        memory_budget: int | None = None,
        nms: str = "box",
        containment_thresh: float = 0.9,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> None:
        self.model = model if isinstance(model, RegistryModel) else RegistryModel(model)
        if (points_per_side is None) == (point_grids is None):
            raise ValueError("give exactly one of points_per_side and point_grids")
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode is binary_mask, uncompressed_rle or coco_rle, got {output_mode!r}")
        if nms not in ("box", "mask"):
            raise ValueError(f"nms is box or mask, got {nms!r}")
        if points_per_batch < 1:
            raise ValueError(f"points_per_batch must be at least 1, got {points_per_batch}")
        thresholds = pred_iou_thresh, stability_score_thresh, stability_score_offset, box_nms_thresh, crop_nms_thresh
        if not np.isfinite(thresholds).all():
            raise ValueError(f"thresholds are finite numbers, got {', '.join(map(str, thresholds))}")
        if not 0 < containment_thresh <= 1:
            raise ValueError(f"containment_thresh is a share above 0 and up to 1, got {containment_thresh}")
        if tile is None and overlap is not None:
            raise ValueError("overlap belongs to tile; crops take crop_overlap_ratio")
        if tile is not None and crop_n_layers:
            raise ValueError("tile and crop_n_layers are two ways of cutting a photo up; give one of them")
        if point_grids is None:
            self.point_grids = crops.point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        else:
            self.point_grids = [_checked_grid(grid) for grid in point_grids]
            if len(self.point_grids) <= crop_n_layers:
                raise ValueError(
                    f"point_grids needs a grid for the photo and one for each of {crop_n_layers} crop layer(s), "
                    f"got {len(self.point_grids)}"
                )
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.memory_budget = memory_budget
        self.nms = nms
        self.containment_thresh = containment_thresh
        self.tile = tile
        self.overlap = tile // 4 if tile is not None and overlap is None else overlap
        self.views((1, 1))  # says now what is wrong with crops or tiles

    def generate(self, image: ArrayLike, *, label_map: bool = False) -> list[dict[str, Any]] | Int32[np.ndarray, "H W"]:
        """Masks for everything in a photo, (H, W, 3) uint8 RGB or anything else that `samjax.pictures.as_rgb` takes.

        Returns one record a mask: `segmentation` (as `output_mode` says), `bbox` [x, y, width, height] of the outermost
        pixels as the reference counts (one less than COCO does), `area` in pixels, `predicted_iou`, `point_coords`
        [[x, y]], `stability_score`, `crop_box` [x, y, width, height]. With `label_map` instead one map of the photo in
        which 0 is background and i + 1 the i-th record; see `samjax.amg.labels.label_map` for overlaps.
        """
        rgb = pictures.as_rgb(image)
        candidates = self.candidates(rgb)
        if label_map:
            return labels.label_map(_records(candidates, "coco_rle"), rgb.shape[:2])
        return _records(candidates, self.output_mode)

    def views(self, size: Size) -> list[View]:
        """The views of a photo of `size` (height, width), in the order in which they are computed."""
        if self.tile is None:
            return [
                View(crop.box, _extent(crop.box), self.point_grids[crop.layer] * _extent(crop.box)[::-1])
                for crop in crops.crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
            ]
        height, width = size
        points = self.point_grids[0] * self.tile
        views = []
        for x0, y0, x1, y1 in crops.tile_boxes(size, self.tile, self.overlap):
            box = x0, y0, min(x1, width), min(y1, height)
            inside = points[(points < _extent(box)[::-1]).all(1)]
            if len(inside):
                views.append(View(box, (self.tile, self.tile), inside))
        return views

    def programs(self, size: Size) -> frozenset[tuple[tuple[int, ...], ...]]:
        """Which programs a photo of `size` (height, width) takes, to compare with another's: what is new in the set has
        to be compiled first, unless an earlier run has left it in the cache."""
        frames = map(self._frame, self.views(size))
        return frozenset(tuple(np.shape(leaf) for leaf in jax.tree.leaves(frame)) for frame in frames)

    def explain(self, size: Size) -> Plan:
        """The memory that a photo of `size` (height, width) will take, as `str` can print it. Compiles the programs."""
        sam = self.model.sam
        return plan(
            sam.config,
            sam.params,
            sam.execution,
            size,
            size if self.tile is None else (self.tile, self.tile),
            views=max(len(self.views(size)), 1),
            points=max(map(len, self.point_grids)),
            nms=self.nms,
            points_per_batch=self.points_per_batch,
            budget=self.memory_budget,
        )

    def candidates(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Candidates:
        """What `generate` makes records of."""
        size = rgb.shape[:2]
        views = self.views(size)
        parts = list(self._search(rgb, views))
        if self.tile is not None:
            candidates = seams.merge_seams(parts, [view.box for view in views])
            scores = candidates.iou
        else:
            candidates = Candidates.concatenate(parts)
            extents = candidates.crops[:, 2:] - candidates.crops[:, :2]
            scores = candidates.iou if len(views) == 1 else 1 / extents.prod(1)  # prefers masks from smaller crops
        if self.nms == "mask":
            threshold = self.crop_nms_thresh if len(views) > 1 else self.box_nms_thresh
            candidates = candidates.take(duplicates.mask_nms(candidates.rles, scores, threshold, 1.0))
            # Nested masks are no two views of one object: the better one stays, whatever crop it is from.
            kept = duplicates.mask_nms(candidates.rles, candidates.iou, 1.0, self.containment_thresh)
            candidates = candidates.take(kept)
        elif len(views) > 1:
            candidates = candidates.take(nms(candidates.boxes, scores, self.crop_nms_thresh))
        if self.min_mask_region_area > 0:
            threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
            candidates = regions.remove_from(candidates, self.min_mask_region_area, threshold)
        return candidates

    def _search(self, rgb: UInt8[np.ndarray, "H W 3"], views: list[View]) -> Iterator[Candidates]:
        """Candidates of each view; while the host encodes the masks of some, the device is at the next."""
        together = self.model.sam.execution.images_per_step or len(views)
        batch = self.points_per_batch if self.memory_budget is None else self.explain(rgb.shape[:2]).points_per_batch
        under_way: list[_Started] = []
        for first in range(0, len(views), together):
            ahead = self._start(rgb, views[first : first + together], batch)
            for started in under_way:
                yield self._finish(started, rgb.shape[:2])
            under_way = ahead
        for started in under_way:
            yield self._finish(started, rgb.shape[:2])

    def _start(self, rgb: UInt8[np.ndarray, "H W 3"], views: list[View], points_per_batch: int) -> list[_Started]:
        embeddings = self.model.sam.encode_batch([_picture(rgb, view) for view in views])
        started = []
        for number, view in enumerate(views):
            found = self.find(embeddings[number], view, rgb.shape[:2], points_per_batch)
            started.append(_Started(view, embeddings[number], found))
        return started

    def find(self, embedding: Embedding, view: View, size: Size, points_per_batch: int) -> Found:
        """Judges all masks of a view of a photo of `size` (height, width); returns before the device has finished."""
        sam = self.model.sam
        points = np.zeros((max(map(len, self.point_grids)), 2), np.float32)
        points[: len(view.points)] = view.points
        photo = np.array((0, 0, *size[::-1]), np.float32)
        # What a tile cuts off is not dropped: a neighbouring tile has the rest of it.
        box = photo if self.tile is not None else np.array(view.box, np.float32)
        limits = Limits(
            np.float32(self.pred_iou_thresh),
            np.float32(self.stability_score_thresh),
            np.float32(self.stability_score_offset),
            # Masks at low resolution that are nearly the same; what else is a duplicate their true size decides.
            float32_below(self.box_nms_thresh if self.nms == "box" else (1 + self.box_nms_thresh) / 2),
        )
        region = Region(points, np.int32(len(view.points)), box, photo)
        arguments = sam.config, sam.params, embedding, region, self._frame(view), limits, sam.execution
        judged = jitted_judge(*arguments, points_per_batch=points_per_batch, nms=self.nms)
        return jitted_choose(judged, region, limits, nms=self.nms)

    def _frame(self, view: View) -> Frame:
        frame = frame_of(view.size, self.model.sam.config)
        return frame._replace(size=np.array(view.inside, np.int32))

    def _finish(self, started: _Started, size: Size) -> Candidates:
        """The survivors of a view, their masks encoded at the photo's size (height, width)."""
        view, found = started.view, jax.tree.map(np.asarray, started.found)
        best = found.ranking[found.kept]
        points, which = np.divmod(best, self.model.sam.config.mask_decoder.multimask_outputs)
        points = view.points[points]
        x0, y0, _, _ = view.box
        rles, boxes = [], np.zeros((len(best), 4), int)
        for number, bits in enumerate(self._draw(started, points.astype(np.float32), which.astype(np.int32))):
            mask, (x, y) = unpack(bits, view.inside)
            height, width = mask.shape
            rles.append(encode_placed(mask, (x0 + x, y0 + y), size))
            boxes[number] = x, y, x + max(width - 1, 0), y + max(height - 1, 0)
        boxes += (x0, y0, x0, y0)
        crop = np.tile(np.array(view.box), (len(best), 1))
        return Candidates(rles, boxes, found.iou[best], found.stability[best], points + np.array([x0, y0]), crop)

    def _draw(
        self, started: _Started, points: Float32[np.ndarray, "N 2"], which: Int32[np.ndarray, " N"]
    ) -> Iterator[UInt8[np.ndarray, "W bytes"]]:
        """The bits of each mask; the device is one call ahead of whoever takes them."""
        sam, frame = self.model.sam, self._frame(started.view)
        under_way: list[Any] = []
        for first in range(0, len(points), MASKS_PER_DRAW):
            some = np.arange(first, first + MASKS_PER_DRAW).clip(max=len(points) - 1)
            arguments = sam.config, sam.params, started.embedding, points[some], which[some], sam.execution
            bits = jitted_draw(jitted_decode(*arguments), frame, sam.execution)
            under_way.append((bits, len(points) - first))
            if len(under_way) == 2:
                bits, left = under_way.pop(0)
                yield from np.asarray(bits)[:left]
        for bits, left in under_way:
            yield from np.asarray(bits)[:left]


def _records(candidates: Candidates, output_mode: str) -> list[dict[str, Any]]:
    def segmentation(rle: dict[str, Any]) -> Any:
        if output_mode == "binary_mask":
            return decode_rle(rle)
        return rle if output_mode == "coco_rle" else {"size": rle["size"], "counts": run_lengths(rle).tolist()}

    return [
        {
            "segmentation": segmentation(rle),
            "area": rle_area(rle),
            "bbox": _xywh(candidates.boxes[number]),
            "predicted_iou": float(candidates.iou[number]),
            "point_coords": [candidates.points[number].tolist()],
            "stability_score": float(candidates.stability[number]),
            "crop_box": _xywh(candidates.crops[number]),
        }
        for number, rle in enumerate(candidates.rles)
    ]


def _picture(rgb: UInt8[np.ndarray, "H W 3"], view: View) -> UInt8[np.ndarray, "h w 3"]:
    """The part of the photo, filled up to the view's size with the colour that normalisation takes to (nearly) 0."""
    x0, y0, x1, y1 = view.box
    part = rgb[y0:y1, x0:x1]
    if view.inside == view.size:
        return part
    picture = np.empty((*view.size, 3), np.uint8)
    picture[:] = np.rint(PIXEL_MEAN)
    picture[: y1 - y0, : x1 - x0] = part
    return picture


def _xywh(box: Int[np.ndarray, "4"]) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def _extent(box: tuple[int, int, int, int]) -> Size:
    """(height, width) of a box."""
    return box[3] - box[1], box[2] - box[0]


def _checked_grid(grid: ArrayLike) -> Float64[np.ndarray, "P 2"]:
    array = np.asarray(grid, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(f"a point grid is an array (P, 2) of (x, y) in [0, 1], got shape {array.shape}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"a point grid lies in [0, 1], got values from {array.min():g} to {array.max():g}")
    return array

"""Automatic mask generation: everything in a photo, by a grid of point prompts."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from samjax.amg import crops, duplicates, labels, moved_generator, regions, seams
from samjax.amg.candidates import Candidates
from samjax.amg.config import GenerationConfig
from samjax.amg.memory import Plan, plan
from samjax.amg.program import (
    MASKS_PER_PACK,
    Found,
    Judged,
    Limits,
    Region,
    frame_of,
    jitted_choose,
    jitted_decode,
    jitted_judge,
    jitted_pack,
)
from samjax.amg.records import records
from samjax.ops.boxes import float32_below, nms
from samjax.ops.masks import Frame, unpack
from samjax.ops.rle import encode_placed
from samjax.sam import Sam
from samjax.transforms import Size, channel_statistics
from samjax.types import ArrayLike, Embedding

Progress = Callable[[float], None]  # is told the share of points that are judged; may raise to end the search


@dataclasses.dataclass(frozen=True)
class View:
    """A part of the photo that the model sees at once: all of it, a crop, or a tile."""

    box: tuple[int, int, int, int]  # (x0, y0, x1, y1) in the photo, ends exclusive
    # (height, width) of the picture that the model gets; larger than the box if a tile sticks out of the photo
    size: Size
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


class MaskGenerator:
    """Finds everything in a photo: a grid of point prompts, then filters for quality and duplicates.

    Any number of threads may share one; it keeps nothing of a photo.

    Args:
        sam: the model, whose thresholds stand in for those that `config` leaves open.
        config: the settings.
    """

    def __init__(self, sam: Sam, config: GenerationConfig | None = None) -> None:
        self.sam = sam
        self.config = (config or GenerationConfig()).with_thresholds(sam.thresholds)
        self.point_grids = self.config.grids()

    def generate(
        self, image: ArrayLike, *, output_mode: str = "coco_rle", progress: Progress | None = None
    ) -> list[dict[str, Any]]:
        """Records (`samjax.amg.records.records`) of everything in a photo, (H, W, 3) uint8 RGB or anything else that
        `samjax.Sam.as_photo` takes.

        With `progress` the device has a pause after every batch of points and of masks, in which it is called: other
        work may be done there. The records are the same.
        """
        return records(self.candidates(self.sam.as_photo(image), progress), output_mode)

    def label_map(self, image: ArrayLike) -> Int32[np.ndarray, "H W"]:
        """One map of the photo in which 0 is background and i + 1 the i-th record of `generate`; see
        `samjax.amg.labels.label_map` for overlaps."""
        rgb = self.sam.as_photo(image)
        return labels.label_map(records(self.candidates(rgb), "coco_rle"), rgb.shape[:2])

    def views(self, size: Size) -> list[View]:
        """The views of a photo of `size` (height, width), in the order in which they are computed."""
        if self.config.tile is None:
            return [
                View(crop.box, _extent(crop.box), self.point_grids[crop.layer] * _extent(crop.box)[::-1])
                for crop in crops.crop_boxes(size, self.config.crop_n_layers, self.config.crop_overlap_ratio)
            ]
        height, width = size
        points = self.point_grids[0] * self.config.tile
        views = []
        for x0, y0, x1, y1 in crops.tile_boxes(size, self.config.tile, self.config.tile_overlap):
            box = x0, y0, min(x1, width), min(y1, height)
            inside = points[(points < _extent(box)[::-1]).all(1)]
            if len(inside):
                views.append(View(box, (self.config.tile, self.config.tile), inside))
        return views

    def programs(self, size: Size) -> frozenset[tuple[tuple[int, ...], ...]]:
        """The programs that a photo of `size` (height, width) needs, to compare with another's. Those that are new in
        the set are compiled first, unless an earlier run has left them in the cache."""
        frames = map(self._frame, self.views(size))
        return frozenset(tuple(np.shape(leaf) for leaf in jax.tree.leaves(frame)) for frame in frames)

    def explain(self, size: Size) -> Plan:
        """The memory that a photo of `size` (height, width) will take, as `str` can print it. Compiles the programs."""
        sam = self.sam
        return plan(
            sam.config,
            sam.params,
            sam.execution,
            size,
            size if self.config.tile is None else (self.config.tile, self.config.tile),
            views=max(len(self.views(size)), 1),
            points=max(map(len, self.point_grids)),
            nms=self.config.nms,
            points_per_batch=self.config.points_per_batch,
            budget=self.config.memory_budget,
        )

    def candidates(self, rgb: UInt8[np.ndarray, "H W channels"], progress: Progress | None = None) -> Candidates:
        """Run-length encoded masks with their scores, in the ORIGINAL frame; `generate` makes records of them, and has
        the same `progress`."""
        size = rgb.shape[:2]
        views = self.views(size)
        parts = list(self._search(rgb, views, _Pauses(progress, sum(len(view.points) for view in views))))
        if self.config.tile is not None:
            candidates = seams.merge_seams(parts, [view.box for view in views])
            scores = candidates.iou
        else:
            candidates = Candidates.concatenate(parts)
            extents = candidates.crops[:, 2:] - candidates.crops[:, :2]
            scores = candidates.iou if len(views) == 1 else 1 / extents.prod(1)  # prefers masks from smaller crops
        if self.config.nms == "mask":
            threshold = self.config.crop_nms_thresh if len(views) > 1 else self.config.box_nms_thresh
            candidates = candidates.take(duplicates.mask_nms(candidates.rles, scores, threshold, 1.0))
            # Nested masks are no two views of one object: the better one stays, whatever crop it is from.
            kept = duplicates.mask_nms(candidates.rles, candidates.iou, 1.0, self.config.containment_thresh)
            candidates = candidates.take(kept)
        elif len(views) > 1:
            candidates = candidates.take(nms(candidates.boxes, scores, self.config.crop_nms_thresh))
        if self.config.min_mask_region_area > 0:
            threshold = max(self.config.box_nms_thresh, self.config.crop_nms_thresh)
            candidates = regions.remove_from(candidates, self.config.min_mask_region_area, threshold)
        return candidates

    def _search(
        self, rgb: UInt8[np.ndarray, "H W channels"], views: list[View], pauses: "_Pauses"
    ) -> Iterator[Candidates]:
        """Candidates of each view; while the host encodes the masks of some, the device is at the next."""
        together = self.sam.execution.images_per_step or len(views)
        batch = self.config.points_per_batch
        if self.config.memory_budget is not None:
            batch = self.explain(rgb.shape[:2]).points_per_batch
        under_way: list[_Started] = []
        for first in range(0, len(views), together):
            ahead = self._start(rgb, views[first : first + together], batch, pauses)
            for started in under_way:
                yield self._finish(started, rgb.shape[:2], pauses)
            under_way = ahead
        for started in under_way:
            yield self._finish(started, rgb.shape[:2], pauses)

    def _start(
        self, rgb: UInt8[np.ndarray, "H W channels"], views: list[View], points_per_batch: int, pauses: "_Pauses"
    ) -> list[_Started]:
        embeddings = self.sam.encode_batch([_picture(rgb, view) for view in views])
        started = []
        for number, view in enumerate(views):
            found = self._find(embeddings[number], view, rgb.shape[:2], points_per_batch, pauses)
            started.append(_Started(view, embeddings[number], found))
        return started

    def find(self, embedding: Embedding, view: View, size: Size, points_per_batch: int) -> Found:
        """Judges all masks of a view of a photo of `size` (height, width); returns before the device has finished."""
        return self._find(embedding, view, size, points_per_batch, _Pauses(None, 0))

    def _find(self, embedding: Embedding, view: View, size: Size, points_per_batch: int, pauses: "_Pauses") -> Found:
        sam, config = self.sam, self.config
        points: Any = np.zeros((max(map(len, self.point_grids)), 2), np.float32)
        points[: len(view.points)] = view.points
        photo: Any = np.array((0, 0, *size[::-1]), np.float32)
        # What a tile cuts off is not dropped: a neighbouring tile has the rest of it.
        box: Any = photo if self.config.tile is not None else np.array(view.box, np.float32)
        limits = Limits(
            _number(config.pred_iou_thresh),
            _number(config.stability_score_thresh),
            _number(config.stability_score_offset),
            # Masks at low resolution that are nearly the same; what else is a duplicate their true size decides.
            _number(float32_below(config.box_nms_thresh if config.nms == "box" else (1 + config.box_nms_thresh) / 2)),
        )
        count: Any = np.int32(len(view.points))
        region = Region(points, count, box, photo)
        frame = self._frame(view)

        def judge(some: Region, batch: int) -> Judged:
            arguments = sam.config, sam.params, embedding, some, frame, limits, sam.execution
            return jitted_judge(*arguments, points_per_batch=batch, nms=self.config.nms)

        judged = (
            judge(region, points_per_batch) if not pauses.wanted else pauses.judged(judge, region, points_per_batch)
        )
        return jitted_choose(judged, region, limits, nms=self.config.nms)

    def _frame(self, view: View) -> Frame:
        frame = frame_of(view.size, self.sam.config)
        return frame._replace(size=np.array(view.inside, np.int32))

    def _finish(self, started: _Started, size: Size, pauses: "_Pauses") -> Candidates:
        """The survivors of a view, their masks encoded at the photo's size (height, width)."""
        view, found = started.view, jax.tree.map(np.asarray, started.found)
        best = found.ranking[found.kept]
        points, which = np.divmod(best, self.sam.config.multimask_answers)
        points = view.points[points]
        x0, y0, _, _ = view.box
        rles, boxes = [], np.zeros((len(best), 4), int)
        for number, bits in enumerate(self._bits(started, points.astype(np.float32), which.astype(np.int32))):
            if number % MASKS_PER_PACK == 0:
                pauses.take(0)
            mask, (x, y) = unpack(bits, view.inside)
            height, width = mask.shape
            rles.append(encode_placed(mask, (x0 + x, y0 + y), size))
            boxes[number] = x, y, x + max(width - 1, 0), y + max(height - 1, 0)
        boxes += (x0, y0, x0, y0)
        crop = np.tile(np.array(view.box), (len(best), 1))
        return Candidates(rles, boxes, found.iou[best], found.stability[best], points + np.array([x0, y0]), crop)

    def _bits(
        self, started: _Started, points: Float32[np.ndarray, "N 2"], which: Int32[np.ndarray, " N"]
    ) -> Iterator[UInt8[np.ndarray, "W bytes"]]:
        """The bits of each mask; the device is one call ahead of whoever takes them."""
        sam, frame = self.sam, self._frame(started.view)
        under_way: list[Any] = []
        for first in range(0, len(points), MASKS_PER_PACK):
            some = np.arange(first, first + MASKS_PER_PACK).clip(max=len(points) - 1)
            arguments = sam.config, sam.params, started.embedding, points[some], which[some], sam.execution
            bits = jitted_pack(jitted_decode(*arguments), frame, sam.execution)
            under_way.append((bits, len(points) - first))
            if len(under_way) == 2:
                bits, left = under_way.pop(0)
                yield from np.asarray(bits)[:left]
        for bits, left in under_way:
            yield from np.asarray(bits)[:left]


class _Pauses:
    """The pauses of a search, in which `progress` is called; none without it.

    Args:
        progress: what is called.
        points: of all views together.
    """

    def __init__(self, progress: Progress | None, points: int) -> None:
        self.wanted = progress is not None
        self._progress, self._points, self._judged = progress, points, 0

    def take(self, points: int) -> None:
        """A pause after so many points have been judged."""
        self._judged += points
        if self._progress is not None:
            self._progress(self._judged / max(self._points, 1))

    def judged(self, judge: Callable[[Region, int], Judged], region: Region, points_per_batch: int) -> Judged:
        """The same batches that `samjax.amg.program.judge` would make of a region, each in a call of its own."""
        points, real = np.asarray(region.points), int(region.count)
        size = -(-len(points) // -(-len(points) // points_per_batch))
        parts = []
        for first in range(0, len(points), size):
            some: Any = np.zeros((size, 2), np.float32)
            some[: len(points) - first] = points[first : first + size]
            count: Any = np.int32(min(max(real - first, 0), size))
            part = judge(region._replace(points=some, count=count), size)
            parts.append(jax.tree.map(np.asarray, part))  # waits for the device, which is then free
            self.take(int(count))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _number(number: Any) -> Any:
    """A float32 on the host, which compiled programs take as an array."""
    return np.float32(number)


def _picture(rgb: UInt8[np.ndarray, "H W channels"], view: View) -> UInt8[np.ndarray, "h w channels"]:
    """The part of the photo, filled up to the view's size with the colour that normalisation takes to (nearly) 0."""
    x0, y0, x1, y1 = view.box
    part = rgb[y0:y1, x0:x1]
    if view.inside == view.size:
        return part
    picture = np.empty((*view.size, rgb.shape[2]), np.uint8)
    picture[:] = np.rint(channel_statistics(rgb.shape[2])[0])
    picture[: y1 - y0, : x1 - x0] = part
    return picture


def _extent(box: tuple[int, int, int, int]) -> Size:
    """(height, width) of a box."""
    return box[3] - box[1], box[2] - box[0]


def __getattr__(name: str) -> Any:
    return moved_generator(__name__, name)

"""Settings of mask generation, as one frozen dataclass for Python, the command line and the journal of a job."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from samjax.amg import crops
from samjax.config import MaskThresholds

THRESHOLDS = tuple(field.name for field in dataclasses.fields(MaskThresholds))
# What decides memory and speed, but not the masks.
_NOT_IN_KEY = ("points_per_batch", "memory_budget")


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Settings of the search for everything in a photo. The first twelve are the reference's, with its defaults;
    thresholds that are None are the model's own.

    Raises ValueError if settings make no sense or contradict each other.

    Attributes:
        points_per_side: points along each side of the photo, or None if `point_grids` gives them.
        points_per_batch: points decoded together; decides memory and, on accelerators, speed, not the masks.
        pred_iou_thresh: masks with a predicted IoU of no more than this are dropped; 0 keeps all, None is the model's
            own threshold (`samjax.Sam.thresholds`), as in the next two.
        stability_score_thresh: masks less stable than this are dropped; 0 keeps all.
        stability_score_offset: shift of the logit threshold in the stability score.
        box_nms_thresh: box IoU (mask IoU with nms="mask") above which a mask is a duplicate of a better one in the
            same crop.
        crop_n_layers: layers of crops beside the whole photo; layer i has (2^i)^2 crops.
        crop_nms_thresh: as `box_nms_thresh`, between crops; smaller crops are preferred.
        crop_overlap_ratio: overlap of the first layer's crops, as a share of the photo's shorter side.
        crop_n_points_downscale_factor: points per side shrink by this factor from layer to layer.
        min_mask_region_area: holes and islands of fewer pixels are removed from masks; 0 leaves them.
        point_grids: instead of `points_per_side`, for each layer an array (P, 2) of (x, y) in [0, 1].
        memory_budget: bytes that generation may use beside the model's weights; replaces `points_per_batch` by as
            many as fit (`MaskGenerator.explain`).
        nms: "box", the reference's, or "mask": duplicates are masks that overlap, not boxes, and nested ones too.
        containment_thresh: with nms="mask", a mask is also a duplicate if the smaller of the two lies in the other to
            more than this share; the one with the lower predicted IoU goes. 1 turns that off.
        tile: instead of crops, cut the photo into square tiles of this side (pixels), each with its own grid of
            points, and unite objects across their seams. For large photos and small objects.
        overlap: of neighbouring tiles, pixels; None is a quarter of `tile`. Objects up to this size are whole in at
            least one tile.
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    stability_score_offset: float | None = None
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    point_grids: Sequence[Any] | None = None  # array-likes, kept as tuples, so that settings can be compared and hashed
    memory_budget: int | None = None
    nms: str = "box"
    containment_thresh: float = 0.9
    tile: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ValueError("give exactly one of points_per_side and point_grids")
        if self.point_grids is not None:
            grids = tuple(tuple(map(tuple, _checked_grid(grid).tolist())) for grid in self.point_grids)
            if len(grids) <= self.crop_n_layers:
                raise ValueError(
                    f"point_grids needs a grid for the photo and one for each of {self.crop_n_layers} crop layer(s), "
                    f"got {len(grids)}"
                )
            object.__setattr__(self, "point_grids", grids)
        if self.memory_budget is not None and self.memory_budget < 1:
            raise ValueError(f"memory_budget is a number of bytes above 0, got {self.memory_budget}")
        if self.min_mask_region_area < 0:
            raise ValueError(f"min_mask_region_area is a number of pixels from 0 on, got {self.min_mask_region_area}")
        if self.nms not in ("box", "mask"):
            raise ValueError(f"nms is box or mask, got {self.nms!r}")
        if self.points_per_batch < 1:
            raise ValueError(f"points_per_batch must be at least 1, got {self.points_per_batch}")
        names = (*THRESHOLDS, "box_nms_thresh", "crop_nms_thresh")
        thresholds = [value for name in names if (value := getattr(self, name)) is not None]
        if not np.isfinite(thresholds).all():
            raise ValueError(f"thresholds are finite numbers, got {', '.join(map(str, thresholds))}")
        if not 0 < self.containment_thresh <= 1:
            raise ValueError(f"containment_thresh is a share above 0 and up to 1, got {self.containment_thresh}")
        if self.tile is None and self.overlap is not None:
            raise ValueError("overlap belongs to tile; crops take crop_overlap_ratio")
        if self.tile is not None and self.crop_n_layers:
            raise ValueError("tile and crop_n_layers are two ways of cutting a photo up; give one of them")
        if self.point_grids is None:
            self.grids()  # shows what is wrong with the numbers of points
        # A photo of one pixel shows what is wrong with crops or tiles.
        if self.tile is None:
            crops.crop_boxes((1, 1), self.crop_n_layers, self.crop_overlap_ratio)
        else:
            crops.tile_boxes((1, 1), self.tile, self.tile_overlap)

    @property
    def tile_overlap(self) -> int:
        """Pixels that neighbouring tiles share; 0 without tiles."""
        return (self.tile or 0) // 4 if self.overlap is None else self.overlap

    def grids(self) -> list[Float64[np.ndarray, "_ 2"]]:
        """The grid of points for the photo and for each layer of crops: (x, y) as shares of the crop's sides."""
        if self.point_grids is not None:
            return [np.array(grid) for grid in self.point_grids]
        assert self.points_per_side is not None  # as `__post_init__` has it
        return crops.point_grids(self.points_per_side, self.crop_n_layers, self.crop_n_points_downscale_factor)

    def with_thresholds(self, thresholds: MaskThresholds) -> "GenerationConfig":
        """A copy in which a model's thresholds replace those that are None."""
        missing = {name: getattr(thresholds, name) for name in THRESHOLDS if getattr(self, name) is None}
        return dataclasses.replace(self, **missing) if missing else self

    def journal_key(self) -> dict[str, Any]:
        """The settings that decide which masks come out, as JSON; grids only if there are any."""
        left_out = _NOT_IN_KEY if self.point_grids is not None else (*_NOT_IN_KEY, "point_grids")
        names = [field.name for field in dataclasses.fields(self) if field.name not in left_out]
        return {name: getattr(self, name) for name in names}


def _checked_grid(grid: Any) -> Float64[np.ndarray, "P 2"]:
    array = np.asarray(grid, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(f"a point grid is an array (P, 2) of (x, y) in [0, 1], got shape {array.shape}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"a point grid lies in [0, 1], got values from {array.min():g} to {array.max():g}")
    return array

"""Everything in a photo: a drop-in for `segment_anything.SamAutomaticMaskGenerator`, with what its users miss there."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.amg.memory import Plan
from samjax.amg.records import OUTPUT_MODES
from samjax.drop_in.predictor import RegistryModel
from samjax.sam import Sam
from samjax.transforms import Size
from samjax.types import ArrayLike


class SamAutomaticMaskGenerator:
    """Finds everything in a photo: a grid of point prompts, then filters for quality and duplicates.

    Any number of threads may share one; it keeps nothing of a photo. The first thirteen arguments after the model,
    their defaults and the records are the reference's; `samjax.amg.config.GenerationConfig` says what each argument
    means. They stay as attributes, and `generate` follows them; `points_per_side` becomes `point_grids`, as in the
    reference.

    Args:
        model: a `samjax.Sam` or what `sam_model_registry` makes.
        output_mode: "binary_mask" (bool (H, W)), "uncompressed_rle" or "coco_rle".

    Raises:
        ValueError: arguments make no sense.
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
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode is binary_mask, uncompressed_rle or coco_rle, got {output_mode!r}")
        config = GenerationConfig(
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            min_mask_region_area=min_mask_region_area,
            point_grids=point_grids,
            memory_budget=memory_budget,
            nms=nms,
            containment_thresh=containment_thresh,
            tile=tile,
            overlap=overlap,
        )
        self.model = model if isinstance(model, RegistryModel) else RegistryModel(model)
        self.output_mode = output_mode
        for field in dataclasses.fields(config):
            setattr(self, field.name, getattr(config, field.name))
        self.points_per_side, self.point_grids = None, config.grids()  # as the reference keeps them
        self.overlap = None if tile is None else config.tile_overlap

    @property
    def config(self) -> GenerationConfig:
        """The present attributes; `overlap` means nothing without `tile`."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(GenerationConfig)}
        if settings["tile"] is None:
            settings["overlap"] = None
        return GenerationConfig(**settings)

    @property
    def generator(self) -> MaskGenerator:
        """The generator that does the work, with the present attributes."""
        return MaskGenerator(self.model.sam, self.config)

    def generate(self, image: ArrayLike, *, label_map: bool = False) -> list[dict[str, Any]] | Int32[np.ndarray, "H W"]:
        """Masks for everything in a photo, (H, W, 3) uint8 RGB or anything else that `samjax.pictures.as_rgb` takes.

        Returns the records of `samjax.amg.records.records`. With `label_map` instead one map of the photo in which 0 is
        background and i + 1 the i-th record; see `samjax.amg.labels.label_map` for overlaps.
        """
        generator = self.generator
        return generator.label_map(image) if label_map else generator.generate(image, output_mode=self.output_mode)

    def programs(self, size: Size) -> frozenset[tuple[tuple[int, ...], ...]]:
        """`MaskGenerator.programs`."""
        return self.generator.programs(size)

    def explain(self, size: Size) -> Plan:
        """`MaskGenerator.explain`."""
        return self.generator.explain(size)

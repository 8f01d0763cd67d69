"""`SamAutomaticMaskGenerator` has the reference's arguments, attributes and records."""

import dataclasses
import inspect

import numpy as np
import pytest
from example_generation import OPTIONS, PHOTO

import samjax.amg
import samjax.amg.generator
from samjax import SamAutomaticMaskGenerator
from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.config import MaskThresholds
from samjax.drop_in.predictor import RegistryModel
from samjax.ops.rle import decode_rle


def test_output_modes_describe_the_same_masks(shapes):
    generate = {
        mode: SamAutomaticMaskGenerator(shapes, **OPTIONS, output_mode=mode).generate(PHOTO)
        for mode in ("binary_mask", "coco_rle", "uncompressed_rle")
    }
    assert generate["binary_mask"]
    for records in zip(*generate.values(), strict=True):
        binary, *rles = (record["segmentation"] for record in records)
        assert binary.dtype == bool
        for rle in rles:
            np.testing.assert_array_equal(decode_rle(rle), binary)


def test_a_registry_model_is_taken_too(shapes):
    ours = SamAutomaticMaskGenerator(RegistryModel(shapes), **OPTIONS, output_mode="coco_rle").generate(PHOTO)
    assert ours == SamAutomaticMaskGenerator(shapes, **OPTIONS, output_mode="coco_rle").generate(PHOTO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_mode": "png"}, "binary_mask, uncompressed_rle or coco_rle, got 'png'"),
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids"),
        ({"overlap": 10}, "overlap belongs to tile"),
        ({"box_nms_thresh": float("nan")}, "finite numbers, got 0.88, 0.95, 1.0, nan, 0.7"),
        ({"memory_budget": 1000}, "memory budget of 0 MB is too small.*interpreter and libraries"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(sorted(value)),
)
def test_senseless_arguments_are_refused(shapes, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        SamAutomaticMaskGenerator(shapes, **options).generate(PHOTO)


def test_thresholds_are_metas_unless_they_are_given_whatever_the_model_carries(shapes):
    carrying = dataclasses.replace(shapes, thresholds=MaskThresholds(0.3, 0.7, 0.25))
    config = SamAutomaticMaskGenerator(carrying).generator.config
    assert config == GenerationConfig(points_per_side=None, point_grids=config.point_grids).with_thresholds(
        MaskThresholds()
    )
    assert MaskGenerator(carrying).config.pred_iou_thresh == 0.3


def test_arguments_are_attributes_which_the_generator_follows(shapes):
    arguments = list(inspect.signature(SamAutomaticMaskGenerator).parameters)
    assert arguments[1:14] == [
        "points_per_side",
        "points_per_batch",
        "pred_iou_thresh",
        "stability_score_thresh",
        "stability_score_offset",
        "box_nms_thresh",
        "crop_n_layers",
        "crop_nms_thresh",
        "crop_overlap_ratio",
        "crop_n_points_downscale_factor",
        "point_grids",
        "min_mask_region_area",
        "output_mode",
    ]
    generator = SamAutomaticMaskGenerator(shapes, **OPTIONS)
    assert all(hasattr(generator, name) for name in arguments)
    assert len(generator.point_grids[0]) == 144
    some = generator.generate(PHOTO)
    generator.pred_iou_thresh = 0.9
    assert len(generator.generate(PHOTO)) < len(some)


def test_the_overlap_of_tiles_is_an_attribute_which_means_nothing_without_tiles(shapes):
    generator = SamAutomaticMaskGenerator(shapes, tile=128)
    assert generator.overlap == 32
    assert SamAutomaticMaskGenerator(shapes).overlap is None
    generator.tile = None
    assert generator.config.overlap is None


@pytest.mark.parametrize("module", [samjax.amg, samjax.amg.generator])
def test_it_is_found_where_0_1_had_it_with_a_warning(module):
    with pytest.warns(FutureWarning, match=rf"{module.__name__}\.\w+ is now samjax\.drop_in\.generator\.Sam"):
        assert module.SamAutomaticMaskGenerator is SamAutomaticMaskGenerator
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        module.other  # noqa: B018

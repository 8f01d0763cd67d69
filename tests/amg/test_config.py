"""Settings of mask generation check themselves, take a model's thresholds, and name what decides about the masks."""

import dataclasses
import json

import numpy as np
import pytest

from samjax.amg.config import GenerationConfig
from samjax.config import MaskThresholds


def test_the_deciding_settings_are_those_that_journals_of_0_1_hold():
    """Name by name and value by value: a job that was begun before is resumed."""
    assert json.dumps(GenerationConfig().with_thresholds(MaskThresholds()).journal_key()) == (
        '{"points_per_side": 32, "pred_iou_thresh": 0.88, "stability_score_thresh": 0.95, '
        '"stability_score_offset": 1.0, "box_nms_thresh": 0.7, "crop_n_layers": 0, "crop_nms_thresh": 0.7, '
        '"crop_overlap_ratio": 0.3413333333333333, "crop_n_points_downscale_factor": 1, "min_mask_region_area": 0, '
        '"nms": "box", "containment_thresh": 0.9, "tile": null, "overlap": null}'
    )


@pytest.mark.parametrize("options", [{"points_per_batch": 7}, {"memory_budget": 10**9}], ids=str)
def test_what_decides_memory_and_speed_only_is_not_among_them(options):
    assert GenerationConfig(**options).journal_key() == GenerationConfig().journal_key()


def test_a_models_thresholds_replace_those_that_are_open():
    suited = MaskThresholds(0.3, 0.7, 0.25)
    assert GenerationConfig().with_thresholds(suited) == GenerationConfig(
        pred_iou_thresh=0.3, stability_score_thresh=0.7, stability_score_offset=0.25
    )
    chosen = GenerationConfig(pred_iou_thresh=0.0, stability_score_offset=2.0)
    assert chosen.with_thresholds(suited) == dataclasses.replace(chosen, stability_score_thresh=0.7)


def test_tiles_overlap_by_a_quarter_unless_another_overlap_is_given():
    assert GenerationConfig().tile_overlap == 0
    assert GenerationConfig(tile=130).tile_overlap == 32
    assert GenerationConfig(tile=130, overlap=0).tile_overlap == 0


def test_there_is_a_grid_for_the_photo_and_for_each_layer_of_crops():
    grids = GenerationConfig(points_per_side=8, crop_n_layers=2, crop_n_points_downscale_factor=2).grids()
    assert [len(grid) for grid in grids] == [64, 16, 4]
    own = [np.array([[0.25, 0.75]]), np.array([[0.5, 0.5], [1.0, 0.0]])]
    given = GenerationConfig(points_per_side=None, point_grids=own, crop_n_layers=1).grids()
    for one, other in zip(given, own, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids"),
        ({"point_grids": [np.zeros((1, 2))]}, "exactly one of points_per_side and point_grids"),
        ({"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1}, "got 1"),
        ({"points_per_side": None, "point_grids": [np.zeros((4, 3))]}, r"an array \(P, 2\).*got shape \(4, 3\)"),
        ({"points_per_side": None, "point_grids": [np.full((4, 2), 30.0)]}, r"lies in \[0, 1\]"),
        ({"nms": "soft"}, "box or mask, got 'soft'"),
        ({"points_per_batch": 0}, "at least 1, got 0"),
        ({"overlap": 10}, "overlap belongs to tile"),
        ({"tile": 100, "crop_n_layers": 1}, "two ways of cutting"),
        ({"tile": 100, "overlap": 100}, "overlap from 0 to below it"),
        ({"crop_overlap_ratio": 2.0, "crop_n_layers": 1}, "from 0 to below 1, got 2.0"),
        ({"points_per_side": 2, "crop_n_layers": 3, "crop_n_points_downscale_factor": 2}, "has no points"),
        ({"containment_thresh": 7.0}, "above 0 and up to 1, got 7.0"),
        ({"pred_iou_thresh": float("inf")}, "finite numbers, got inf, 0.7, 0.7"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(sorted(value)),
)
def test_senseless_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**options)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationConfig().tile = 100

"""Automatic mask generation finds what Meta's finds: the same masks, in the same order, with the same scores."""

import numpy as np
import pytest
from example_models import SHAPES, SMALL, random_photo, shapes_photo, shapes_sam

from samjax import SamAutomaticMaskGenerator

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def shapes(segment_anything):
    """(the reference, our model) with weights that segment the shapes they are shown."""
    from parity.reference import build_reference, load_params

    sam = shapes_sam()
    reference = build_reference(SHAPES)
    load_params(reference, sam.params)
    return reference, sam


def assert_same(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        assert type(mine["area"]) is int
        union = mine["segmentation"] | other["segmentation"]
        both = mine["segmentation"] & other["segmentation"]
        assert both.sum() >= 0.999 * union.sum()
        assert mine["bbox"] == other["bbox"]
        assert mine["crop_box"] == other["crop_box"]
        assert mine["point_coords"] == other["point_coords"]
        assert mine["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-3)
        # A quotient of two areas, at whose thresholds rounding may turn over a pixel or two of a small mask.
        slack = max(1e-3, 2 / max(other["area"], 1))
        assert mine["stability_score"] == pytest.approx(other["stability_score"], abs=slack, nan_ok=True)
        assert abs(mine["area"] - other["area"]) <= 1e-3 * other["area"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_n_layers": 1},
        {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "crop_overlap_ratio": 0.2},
        {"min_mask_region_area": 60},
        {"crop_n_layers": 1, "min_mask_region_area": 60, "crop_nms_thresh": 0.5},
        {"points_per_batch": 7},
        {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.3},
        {"points_per_side": None, "point_grids": [np.random.default_rng(0).random((90, 2))]},
    ],
    ids=str,
)
def test_the_same_masks_are_found_as_by_the_reference(segment_anything, shapes, options):
    reference, sam = shapes
    photo, _ = shapes_photo(260, 390, seed=7, count=30)
    options = {"points_per_side": 12, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7, **options}
    theirs = segment_anything.SamAutomaticMaskGenerator(reference, **options).generate(photo)
    assert len(theirs) > 9
    assert_same(SamAutomaticMaskGenerator(sam, **options).generate(photo), theirs)


@pytest.mark.parametrize("name", ["truck", "groceries", "dog"])
@pytest.mark.parametrize("options", [{}, {"crop_n_layers": 1, "min_mask_region_area": 100}], ids=str)
def test_the_same_masks_are_found_in_photographs(segment_anything, bundled, photos, name, options):
    reference, sam = bundled
    photo = photos[name]
    # A small model is rarely sure.
    options = {"points_per_side": 12, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.45, **options}
    theirs = segment_anything.SamAutomaticMaskGenerator(reference, **options).generate(photo)
    assert len(theirs) > 4
    assert_same(SamAutomaticMaskGenerator(sam, **options).generate(photo), theirs)


def test_random_weights_give_the_same_masks_where_nothing_is_filtered(segment_anything, pair):
    predictor, sam = pair(SMALL)
    photo = random_photo(150, 220, seed=3)
    options = {"points_per_side": 5, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    theirs = segment_anything.SamAutomaticMaskGenerator(predictor.model, **options).generate(photo)
    assert len(theirs) == 75
    assert_same(SamAutomaticMaskGenerator(sam, **options).generate(photo), theirs)


@pytest.mark.parametrize("mode", ["uncompressed_rle", "coco_rle"])
def test_run_lengths_are_written_alike(segment_anything, shapes, mode):
    reference, sam = shapes
    photo, _ = shapes_photo(128, 200, seed=8, count=9)
    options = {"points_per_side": 8, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7, "output_mode": mode}
    theirs = segment_anything.SamAutomaticMaskGenerator(reference, **options).generate(photo)
    ours = SamAutomaticMaskGenerator(sam, **options).generate(photo)
    same = [mine["segmentation"] == other["segmentation"] for mine, other in zip(ours, theirs, strict=True)]
    assert np.mean(same) > 0.5  # a single pixel that rounds the other way changes the runs
    assert all(type(mine["segmentation"]["size"]) is list for mine in ours)


def test_small_regions_are_removed_as_by_opencv(segment_anything):
    from segment_anything.utils import amg

    from samjax.amg.regions import remove_small_regions

    random = np.random.default_rng(0)
    for _ in range(500):
        mask = random.random(random.integers(1, 14, 2)) < random.choice([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1])
        for mode in ("holes", "islands"):
            area = int(random.choice([1, 2, 5, 9, 30, 200]))
            ours, changed = remove_small_regions(mask, area, mode)
            theirs, expected = amg.remove_small_regions(mask, area, mode)
            assert changed == expected
            np.testing.assert_array_equal(ours, theirs)


def test_grids_and_crops_are_the_references(segment_anything):
    from segment_anything.utils import amg

    from samjax.amg import crops

    random = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(int(side) for side in random.integers(64, 4000, 2))
        layers, ratio = int(random.integers(0, 4)), float(random.random() * 0.9)
        boxes, numbers = amg.generate_crop_boxes(size, layers, ratio)
        ours = crops.crop_boxes(size, layers, ratio)
        assert [list(crop.box) for crop in ours] == boxes
        assert [crop.layer for crop in ours] == numbers
    for arguments in ((32, 2, 1), (33, 2, 2), (5, 0, 1)):
        for mine, other in zip(crops.point_grids(*arguments), amg.build_all_layer_point_grids(*arguments), strict=True):
            np.testing.assert_array_equal(mine, other)

"""Average precision as pycocotools has it."""

import json
import math

import numpy as np
import pytest
from evaluation.example_detections import HEIGHT, WIDTH, annotated, by_pycocotools, disc

from samjax.evaluation.metrics.average_precision import coco_ap


@pytest.mark.parametrize(("kind", "iou_type"), [("mask", "segm"), ("box", "bbox")])
def test_the_numbers_are_those_of_pycocotools(scene, kind, iou_type):
    truth, results = scene
    ours = coco_ap(truth, results, kind)
    expected = by_pycocotools(truth, results, iou_type)
    assert list(ours.values()) == pytest.approx(expected, abs=1e-12)
    assert 0.1 < ours["AP"] < ours["AP50"] < 0.9
    assert len({round(value, 6) for value in list(ours.values())[:6]}) == 6  # no two alike that could be mixed up


def test_only_the_photos_that_were_judged_count(scene):
    truth, results = scene
    ours = coco_ap(truth, results, image_ids=[2, 5])
    expected = by_pycocotools(truth, results, "segm", [2, 5])
    assert [0 if math.isnan(value) else value for value in ours.values()] == pytest.approx(np.maximum(expected, 0))
    assert ours["AP"] != coco_ap(truth, results)["AP"]


def test_perfect_masks_have_precision_1(scene):
    truth, _ = scene
    perfect = [{**annotation, "score": 0.5} for annotation in truth["annotations"]]
    for kind in ("mask", "box"):
        assert coco_ap(truth, perfect, kind)["AP"] == pytest.approx(1.0)
        assert coco_ap(truth, perfect, kind)["AP small"] == pytest.approx(1.0)


def test_an_annotation_of_number_0_can_be_found():
    """pycocotools alone takes it for never found."""
    masks = [disc(30, 30, 20), disc(100, 60, 40)]
    truth = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
        "annotations": [annotated(number, 1, 1, mask) for number, mask in enumerate(masks)],
        "categories": [{"id": 1}],
    }
    perfect = [{**annotation, "score": 0.5} for annotation in truth["annotations"]]
    assert coco_ap(truth, perfect)["AP"] == pytest.approx(1.0)
    assert by_pycocotools(truth, perfect, "segm")[0] < 0.9


def test_nothing_found_is_0_and_nothing_to_find_is_not_a_number(scene):
    truth, results = scene
    assert coco_ap(truth, [])["AP"] == 0
    nothing = {**truth, "annotations": []}
    assert all(map(math.isnan, coco_ap(nothing, results).values()))


def test_lvis_annotations_have_no_crowds_and_are_judged(scene):
    truth, _ = scene
    lvis = {**truth, "annotations": [{k: v for k, v in a.items() if k != "iscrowd"} for a in truth["annotations"]]}
    perfect = [{**annotation, "score": 0.5} for annotation in lvis["annotations"]]
    assert coco_ap(lvis, perfect)["AP"] == pytest.approx(1.0)


def test_judging_changes_nothing_that_it_is_given(scene):
    truth, results = scene
    before = json.dumps([truth, results])
    coco_ap(truth, results)
    assert json.dumps([truth, results]) == before


def test_equal_scores_are_ranked_in_the_order_of_ids(scene):
    """As by pycocotools, whatever the order of images in the file."""
    truth, results = scene
    tied = [{**result, "score": round(result["score"])} for result in results]
    shuffled = {**truth, "images": truth["images"][::-1], "categories": truth["categories"][::-1]}
    other = {1: 60, 2: 50, 3: 9, 4: 100, 5: 7, 6: 8}
    renamed = {
        "images": [{**image, "id": other[image["id"]]} for image in shuffled["images"]],
        "annotations": [{**entry, "image_id": other[entry["image_id"]]} for entry in truth["annotations"]],
        "categories": truth["categories"],
    }
    moved = [{**result, "image_id": other[result["image_id"]]} for result in tied]
    expected = by_pycocotools(renamed, moved, "segm")
    assert list(coco_ap(renamed, moved).values()) == pytest.approx(expected, abs=1e-12)
    assert list(coco_ap(shuffled, tied).values()) == pytest.approx(by_pycocotools(truth, tied, "segm"), abs=1e-12)
    assert expected != pytest.approx(by_pycocotools(truth, tied, "segm"), abs=1e-12)


@pytest.mark.parametrize(("name", "value"), [("image_id", "1"), ("category_id", 9)])
def test_results_of_what_the_annotations_do_not_have_are_refused(scene, name, value):
    truth, results = scene
    with pytest.raises(ValueError, match=f"result number 1 has an unknown {name}, {value!r}"):
        coco_ap(truth, [results[0], {**results[1], name: value}])

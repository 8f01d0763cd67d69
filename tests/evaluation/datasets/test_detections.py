"""Annotations and detections as files: what is kept, what is completed, and what is refused."""

import math

import pytest
from evaluation.example_detections import DETECTION, HEIGHT, WIDTH, by_pycocotools, written

from samjax.evaluation.datasets.detections import read_annotations, read_detections
from samjax.evaluation.metrics.average_precision import coco_ap


def test_detections_keep_what_is_needed(scene, tmp_path):
    path = written(tmp_path / "found.json", [{**DETECTION, "id": 7, "segmentation": []}])
    assert read_detections(path, scene[0]) == [DETECTION]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({name: DETECTION[name] for name in ("image_id", "bbox")}, "has no category_id, score"),
        (
            {**DETECTION, "image_id": 99},
            "is about image 99, which the annotations do not have; are both of the same split",
        ),
        ({**DETECTION, "image_id": [1]}, r"is about image \[1\]"),
        ({**DETECTION, "category_id": 0}, "is of category 0, which .* must be mapped to the annotations' category ids"),
        ({**DETECTION, "bbox": [1, 2, 3]}, r"has the bbox \[1, 2, 3\]; \[x, y, width, height\] in pixels"),
        ({**DETECTION, "bbox": [1, 2, 0, 4]}, "has the bbox .* with a positive width and height"),
        ({**DETECTION, "bbox": [1, 2, math.nan, 4]}, "has the bbox"),
        ({**DETECTION, "bbox": "1 2 3 4"}, "has the bbox"),
        ({**DETECTION, "score": "high"}, "has the score 'high'; a number was expected"),
        ({**DETECTION, "score": math.inf}, "has the score inf"),
        (17, "is 17; an object with image_id"),
    ],
)
def test_detections_that_cannot_be_used_are_refused(scene, tmp_path, entry, problem):
    path = written(tmp_path / "found.json", [DETECTION, entry])
    with pytest.raises(ValueError, match=rf"found\.json: detection number 1 \(from 0\) {problem}"):
        read_detections(path, scene[0])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is no JSON"),
        ({"annotations": []}, "is no COCO results file.* annotations were given"),
        ({}, "is no COCO results file: a JSON list of detections was expected$"),
        ("3", "is no COCO results file: a JSON list of detections was expected$"),
    ],
)
def test_files_that_hold_no_detections_are_refused(scene, tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_detections(written(tmp_path / "found.json", content), scene[0])


def test_files_that_hold_no_annotations_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*missing\.json of annotations"):
        read_annotations(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="a JSON object with a list of 'images' was expected"):
        read_annotations(written(tmp_path / "list.json", []))
    with pytest.raises(ValueError, match="a JSON object with a list of 'categories' was expected"):
        read_annotations(written(tmp_path / "half.json", {"images": [], "annotations": []}))
    unsized = {"images": [{"id": 1}], "annotations": [], "categories": []}
    with pytest.raises(ValueError, match=r"image number 0 \(from 0\) has no height, width"):
        read_annotations(written(tmp_path / "unsized.json", unsized))


def test_what_an_annotation_lacks_is_its_masks(scene, tmp_path):
    truth, results = scene
    polygon = [[10, 10, 50, 10, 50, 40, 10, 40]]
    entries = [*truth["annotations"], {"image_id": 1, "category_id": 2, "segmentation": polygon, "area": None}]
    given = ("image_id", "category_id", "segmentation", "iscrowd")
    bare = [{name: entry[name] for name in given if name in entry} for entry in entries]
    read = read_annotations(written(tmp_path / "bare.json", {**truth, "annotations": bare}))
    last = read["annotations"][-1]
    assert (last["area"], last["bbox"], last["iscrowd"]) == (40 * 30, [10, 10, 40, 30], 0)
    whole = {**truth, "annotations": [*entries[:-1], last]}
    for kind, iou_type in (("mask", "segm"), ("box", "bbox")):
        judged = list(coco_ap(read, results, kind).values())
        assert judged == pytest.approx(list(coco_ap(whole, results, kind).values()), abs=1e-12)
        renumbered = [{**entry, "id": number} for number, entry in enumerate(entries[:-1], 1)]
        assert judged != by_pycocotools({**truth, "annotations": renumbered}, results, iou_type)


def test_areas_are_those_that_annotations_state(scene, tmp_path):
    entry = {**scene[0]["annotations"][0], "area": 7.5}
    read = read_annotations(written(tmp_path / "truth.json", {**scene[0], "annotations": [entry]}))
    assert read["annotations"][0]["area"] == 7.5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (17, "is 17; an object with image_id"),
        ({"segmentation": ...}, "has no segmentation"),
        ({"image_id": ..., "category_id": ...}, "has no image_id, category_id"),
        ({"image_id": [1]}, r"has the image_id \[1\], which the file does not have"),
        ({"category_id": 9}, "has the category_id 9, which the file does not have"),
        ({"area": "large"}, "has the area 'large'; a number of pixels was expected"),
        ({"area": -1}, "has the area -1; a number"),
        ({"iscrowd": "perhaps"}, "cannot be used: its iscrowd is 'perhaps', neither 0 nor 1"),
        ({"segmentation": None}, "cannot be used: its segmentation is neither a list of polygons nor"),
        ({"segmentation": [[1, 2, 3, 4]]}, "cannot be used: it has no polygon of three points or more"),
        ({"segmentation": {"size": [3, 4], "counts": [12]}}, "cannot be used: its mask has the size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "zz~"}}, "cannot be used: its counts are no run-length"),
    ],
)
def test_annotations_that_cannot_be_judged_by_are_refused(scene, tmp_path, change, problem):
    truth = scene[0]
    entry = truth["annotations"][0]
    spoilt = {k: v for k, v in (entry | change).items() if v is not ...} if isinstance(change, dict) else change
    path = written(tmp_path / "truth.json", {**truth, "annotations": [entry, spoilt]})
    with pytest.raises(ValueError, match=rf"truth\.json: annotation number 1 \(from 0\) {problem}"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("part", "entry", "problem"),
    [
        ("images", 3, "image number 0 .* has no id, height, width"),
        ("images", {"id": 1, "height": "tall", "width": 160}, "image number 0 .* has the height 'tall'; a whole"),
        ("categories", {"name": "cat"}, "category number 0 .* has no id"),
        ("categories", {"id": None}, "category number 0 .* has the id None; a number or text was expected"),
        ("images", {"id": [1], "height": 1, "width": 1}, r"image number 0 .* has the id \[1\]; a number or text"),
    ],
)
def test_photos_and_categories_that_cannot_be_used_are_refused(scene, tmp_path, part, entry, problem):
    path = written(tmp_path / "truth.json", {**scene[0], part: [entry]})
    with pytest.raises(ValueError, match=problem):
        read_annotations(path)


@pytest.mark.parametrize("form", [float, str, lambda number: f"{number}.0"])
def test_numbers_may_be_floats_or_text(scene, tmp_path, form):
    truth, results = scene
    written_so = {
        "images": [
            {**image, **{name: form(image[name]) for name in ("id", "height", "width")}} for image in truth["images"]
        ],
        "categories": [{**category, "id": form(category["id"])} for category in truth["categories"]],
        "annotations": [
            {**entry, **{name: form(entry[name]) for name in ("id", "image_id", "category_id", "area", "iscrowd")}}
            for entry in truth["annotations"]
        ],
    }
    found = [
        {
            "image_id": form(result["image_id"]),
            "category_id": form(result["category_id"]),
            "bbox": list(map(str, result["bbox"])),
            "score": str(result["score"]),
        }
        for result in results
    ]
    read = read_annotations(written(tmp_path / "truth.json", written_so))
    boxes = read_detections(written(tmp_path / "found.json", found), read)
    ours = coco_ap(read, boxes, "box")
    assert list(ours.values()) == pytest.approx(by_pycocotools(truth, results, "bbox"), abs=1e-12)


def test_boxes_that_cannot_be_right_are_those_of_the_masks(scene, tmp_path, caplog):
    truth, _ = scene
    flawed = [math.nan, [1, 2, 3], [1, 2, 3, math.nan], [1, 2, -3, 4], [0, 0, 150, 9000]]
    entries = [{**entry, "bbox": box} for entry, box in zip(truth["annotations"], flawed, strict=False)]
    read = read_annotations(written(tmp_path / "truth.json", {**truth, "annotations": entries}))
    expected = [entry["bbox"] for entry in truth["annotations"][: len(flawed)]]
    assert [entry["bbox"] for entry in read["annotations"]] == expected
    assert "the bbox of 5 annotation(s) cannot be right, that of number 0 (from 0) is nan" in caplog.text

"""Average precision as pycocotools has it, and detections that fit their annotations."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samjax.evaluation.datasets.detections import read_annotations, read_detections
from samjax.evaluation.metrics.average_precision import coco_ap
from samjax.evaluation.protocol import Sample
from samjax.evaluation.protocols.detection import BoxDetections
from samjax.ops.rle import encode_rle, rle_area, rle_box

HEIGHT, WIDTH, PHOTOS = 120, 160, 6


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def annotated(id: int, image: int, category: int, mask: np.ndarray, crowd: int = 0) -> dict:
    rle = encode_rle(mask)
    return {
        "id": id,
        "image_id": image,
        "category_id": category,
        "segmentation": rle,
        "area": rle_area(rle),
        "bbox": rle_box(rle),
        "iscrowd": crowd,
    }


@pytest.fixture(scope="module")
def scene() -> tuple[dict, list[dict]]:
    """Photos with small, medium, large discs and crowds of three categories; detections that are off, doubled, invented
    or of the wrong category."""
    random = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, PHOTOS + 1):
        for _ in range(6):
            x, y, radius = random.uniform(20, 140), random.uniform(20, 100), random.choice([8, 14, 40, 56])
            category = int(random.integers(1, 4))
            mask = disc(x, y, radius)
            annotations.append(annotated(len(annotations) + 1, image, category, mask, int(random.random() < 0.1)))
            for _ in range(random.integers(0, 3)):
                off = disc(x + random.normal(0, 2), y + random.normal(0, 2), radius * random.uniform(0.8, 1.2))
                found = category if random.random() < 0.8 else int(random.integers(1, 4))
                result = annotated(0, image, found, off)
                results.append({name: result[name] for name in ("image_id", "category_id", "segmentation", "bbox")})
                results[-1]["score"] = float(random.random())
    truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(1, PHOTOS + 1)],
        "annotations": annotations,
        "categories": [{"id": id, "name": f"kind {id}"} for id in (1, 2, 3)],
    }
    return truth, results


def by_pycocotools(truth: dict, results: list[dict], kind: str, image_ids=None) -> list[float]:
    """The twelve numbers, by its own reading of files."""
    kept = "segmentation" if kind == "segm" else "bbox"
    given = [{name: result[name] for name in ("image_id", "category_id", "score", kept)} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(given), kind)
        if image_ids:
            judge.params.imgIds = image_ids
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


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


GOOD = {"image_id": 1, "category_id": 2, "bbox": [10, 20.5, 30, 40], "score": 0.5}


def written(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_detections_keep_what_is_needed(scene, tmp_path):
    path = written(tmp_path / "found.json", [{**GOOD, "id": 7, "segmentation": []}])
    assert read_detections(path, scene[0]) == [GOOD]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({name: GOOD[name] for name in ("image_id", "bbox")}, "has no category_id, score"),
        ({**GOOD, "image_id": 99}, "is about image 99, which the annotations do not have; are both of the same split"),
        ({**GOOD, "image_id": [1]}, r"is about image \[1\]"),
        ({**GOOD, "category_id": 0}, "is of category 0, which .* must be mapped to the annotations' category ids"),
        ({**GOOD, "bbox": [1, 2, 3]}, r"has the bbox \[1, 2, 3\]; \[x, y, width, height\] in pixels"),
        ({**GOOD, "bbox": [1, 2, 0, 4]}, "has the bbox .* with a positive width and height"),
        ({**GOOD, "bbox": [1, 2, math.nan, 4]}, "has the bbox"),
        ({**GOOD, "bbox": "1 2 3 4"}, "has the bbox"),
        ({**GOOD, "score": "high"}, "has the score 'high'; a number was expected"),
        ({**GOOD, "score": math.inf}, "has the score inf"),
        (17, "is 17; an object with image_id"),
    ],
)
def test_detections_that_cannot_be_used_are_refused(scene, tmp_path, entry, problem):
    path = written(tmp_path / "found.json", [GOOD, entry])
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


IDS = {
    "numbers and text": {1: "12a", 2: 345, 3: "007", 4: "7", 5: "1e3", 6: 1000},
    "text that looks like one number": {1: "7", 2: "007", 3: "07", 4: "+7", 5: "7e0", 6: " 7"},
    "floats": {1: 7.0, 2: 8, 3: "9", 4: "10.0", 5: 0, 6: -1},
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_ids_may_be_numbers_and_text(scene, tmp_path, ids):
    truth, results = scene
    kinds = {1: "cat", 2: 2, 3: "02"}

    def renamed(entries):
        return [
            {**entry, "image_id": ids[entry["image_id"]], "category_id": kinds[entry["category_id"]]}
            for entry in entries
        ]

    content = {
        "images": [{**image, "id": ids[image["id"]]} for image in truth["images"]],
        "annotations": renamed(truth["annotations"]),
        "categories": [{"id": kinds[category["id"]]} for category in truth["categories"]],
    }
    path = written(tmp_path / "truth.json", content)
    found = written(tmp_path / "found.json", renamed(results))
    read = read_annotations(path)
    assert list(coco_ap(read, read_detections(found, read), "box").values()) == pytest.approx(
        by_pycocotools(truth, results, "bbox"), abs=1e-12
    )
    protocol = BoxDetections(path, found)
    samples = [Sample(image["file_name"], np.zeros((1, 1, 3), np.uint8), ()) for image in truth["images"]]
    records = [
        {"image_id": protocol._id(sample), "results": [one for one in renamed(results) if one["image_id"] == own]}
        for sample, own in zip(samples, ids.values(), strict=True)
    ][2:]
    for record in records:
        for result in record["results"]:
            result["image_id"] = record["image_id"]
    expected = by_pycocotools(truth, results, "segm", [3, 4, 5, 6])
    assert protocol.summarise(records).metrics["mask AP"] == pytest.approx(expected[0], abs=1e-12)


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


def test_a_name_that_may_be_two_photos_is_refused(scene, tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "2.jpg", "c/2.jpg", "7.jpg", "d/5.jpg"]
    images = [{**image, "file_name": name} for image, name in zip(scene[0]["images"], names, strict=True)]
    path = written(tmp_path / "truth.json", {**scene[0], "images": images})
    protocol = BoxDetections(path, written(tmp_path / "found.json", [GOOD]))

    def id_of(name: str) -> int:
        return protocol._id(Sample(name, np.zeros((HEIGHT, WIDTH, 3), np.uint8), ()))

    assert [id_of(name) for name in (*names, "5.jpg", "d/5.png", "6", "7")] == [1, 2, 3, 4, 5, 6, 6, 6, 6, 5]
    for name in ("1.jpg", "1", "e/1.jpg"):
        with pytest.raises(ValueError, match=r"may be any of a/1\.jpg, b/1\.jpg in the annotations"):
            id_of(name)
    with pytest.raises(ValueError, match=r"know no photo 9\.jpg"):
        id_of("9.jpg")


def test_boxes_that_cannot_be_right_are_those_of_the_masks(scene, tmp_path, caplog):
    truth, _ = scene
    flawed = [math.nan, [1, 2, 3], [1, 2, 3, math.nan], [1, 2, -3, 4], [0, 0, 150, 9000]]
    entries = [{**entry, "bbox": box} for entry, box in zip(truth["annotations"], flawed, strict=False)]
    read = read_annotations(written(tmp_path / "truth.json", {**truth, "annotations": entries}))
    expected = [entry["bbox"] for entry in truth["annotations"][: len(flawed)]]
    assert [entry["bbox"] for entry in read["annotations"]] == expected
    assert "the bbox of 5 annotation(s) cannot be right, that of number 0 (from 0) is nan" in caplog.text


def test_what_annotations_say_of_photos_decides_records_and_what_they_say_of_objects_does_not(scene, tmp_path):
    truth = scene[0]
    found = written(tmp_path / "found.json", [GOOD])
    swapped = [{**image, "id": {1: 2, 2: 1}.get(image["id"], image["id"])} for image in truth["images"]]
    contents = (truth, {**truth, "annotations": truth["annotations"][1:]}, {**truth, "images": swapped})
    protocols = [
        BoxDetections(written(tmp_path / f"{number}.json", content), found) for number, content in enumerate(contents)
    ]
    whole, fewer, others = (protocol.settings() for protocol in protocols)
    assert whole == fewer != others
    assert len({protocol.annotations_digest for protocol in protocols}) == 3

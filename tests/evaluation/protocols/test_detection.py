"""Detections of photos that the annotations know, by whatever ids and names."""

import numpy as np
import pytest
from evaluation.example_detections import DETECTION, HEIGHT, WIDTH, by_pycocotools, written

from samjax.evaluation.datasets.detections import read_annotations, read_detections
from samjax.evaluation.metrics.average_precision import coco_ap
from samjax.evaluation.protocol import Sample
from samjax.evaluation.protocols.detection import BoxDetections

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


def test_a_name_that_may_be_two_photos_is_refused(scene, tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "2.jpg", "c/2.jpg", "7.jpg", "d/5.jpg"]
    images = [{**image, "file_name": name} for image, name in zip(scene[0]["images"], names, strict=True)]
    path = written(tmp_path / "truth.json", {**scene[0], "images": images})
    protocol = BoxDetections(path, written(tmp_path / "found.json", [DETECTION]))

    def id_of(name: str) -> int:
        return protocol._id(Sample(name, np.zeros((HEIGHT, WIDTH, 3), np.uint8), ()))

    assert [id_of(name) for name in (*names, "5.jpg", "d/5.png", "6", "7")] == [1, 2, 3, 4, 5, 6, 6, 6, 6, 5]
    for name in ("1.jpg", "1", "e/1.jpg"):
        with pytest.raises(ValueError, match=r"may be any of a/1\.jpg, b/1\.jpg in the annotations"):
            id_of(name)
    with pytest.raises(ValueError, match=r"know no photo 9\.jpg"):
        id_of("9.jpg")


def test_what_annotations_say_of_photos_decides_records_and_what_they_say_of_objects_does_not(scene, tmp_path):
    truth = scene[0]
    found = written(tmp_path / "found.json", [DETECTION])
    swapped = [{**image, "id": {1: 2, 2: 1}.get(image["id"], image["id"])} for image in truth["images"]]
    contents = (truth, {**truth, "annotations": truth["annotations"][1:]}, {**truth, "images": swapped})
    protocols = [
        BoxDetections(written(tmp_path / f"{number}.json", content), found) for number, content in enumerate(contents)
    ]
    whole, fewer, others = (protocol.settings() for protocol in protocols)
    assert whole == fewer != others
    assert len({protocol.annotations_digest for protocol in protocols}) == 3

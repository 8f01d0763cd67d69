"""COCO files as pycocotools reads them."""

import dataclasses
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from samjax.ops.rle import decode_rle
from samjax.writers import FORMATS, Options, Photo


def loaded(path) -> COCO:
    dataset = COCO()
    dataset.dataset = json.loads(path.read_text())
    dataset.createIndex()
    return dataset


def test_pycocotools_reads_the_same_masks(found, masks, tmp_path):
    (path,) = FORMATS["coco"].write(found, tmp_path, Options())
    assert path == tmp_path / "coco" / "shapes.json"
    dataset = COCO(str(path))
    assert dataset.loadImgs([1]) == [{"id": 1, "file_name": "shapes.png", "width": 120, "height": 80}]
    annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[1]))
    assert len(annotations) == len(masks)
    for annotation, record, mask in zip(annotations, found.records, masks.values(), strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation), mask)
        rows, columns = np.nonzero(mask)
        corner, end = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
        assert annotation["bbox"] == [*corner, end[0] - corner[0], end[1] - corner[1]]
        assert annotation["area"] == mask.sum()
        assert annotation["iscrowd"] == 0
        assert dataset.loadCats([annotation["category_id"]])[0]["name"] == "object"
        for extra in ("predicted_iou", "stability_score", "point_coords"):
            assert annotation[extra] == record[extra]


@pytest.mark.parametrize(("tolerance", "least"), [(0.0, 1.0), (0.5, 0.98)])
def test_pycocotools_reads_polygons_with_their_holes(found, masks, tmp_path, tolerance, least):
    (path,) = FORMATS["coco"].write(found, tmp_path, Options(polygons=True, polygon_tolerance=tolerance))
    dataset = COCO(str(path))
    for annotation, (name, mask) in zip(dataset.loadAnns(dataset.getAnnIds()), masks.items(), strict=True):
        assert isinstance(annotation["segmentation"], list)
        back = dataset.annToMask(annotation).astype(bool)
        assert (back & mask).sum() / (back | mask).sum() >= least, name
        assert annotation["area"] == mask.sum()


def test_an_empty_mask_has_no_polygon_and_is_left_out(found, records_of, tmp_path):
    some = dataclasses.replace(found, records=records_of([np.zeros((80, 120), bool), np.ones((80, 120), bool)]))
    (path,) = FORMATS["coco"].write(some, tmp_path, Options(polygons=True))
    assert loaded(path).getAnnIds() == [1]
    (path,) = FORMATS["coco"].write(some, tmp_path, Options())
    assert loaded(path).getAnnIds() == [1, 2]


def test_the_file_of_the_run_holds_all_photos_and_numbers_them_in_order(found, records_of, masks, tmp_path):
    names = ["b", "sub/a", "empty"]
    for name, count in zip(names, (3, 5, 0), strict=True):
        photo = Photo(found.photo.path, f"{name}.png", name)
        some = dataclasses.replace(found, photo=photo, records=records_of(list(masks.values())[:count]))
        FORMATS["coco"].write(some, tmp_path, Options())
    (path,) = FORMATS["coco"].finish(tmp_path, names)
    assert path == tmp_path / "annotations.json"
    dataset = COCO(str(path))
    assert [(image["id"], image["file_name"]) for image in dataset.loadImgs(dataset.getImgIds())] == [
        (1, "b.png"),
        (2, "sub/a.png"),
        (3, "empty.png"),
    ]
    assert sorted(dataset.getAnnIds()) == list(range(1, 9))
    assert [len(dataset.getAnnIds(imgIds=[number])) for number in (1, 2, 3)] == [3, 5, 0]
    for number, annotation in zip(range(5), dataset.loadAnns(dataset.getAnnIds(imgIds=[2])), strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation), decode_rle(found.records[number]["segmentation"]))


def test_a_run_without_photos_is_a_dataset_too(tmp_path):
    (path,) = FORMATS["coco"].finish(tmp_path, [])
    assert loaded(path).getImgIds() == []


@pytest.mark.parametrize("tolerance", [-1.0, float("inf"), float("nan")])
def test_a_senseless_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="number of pixels from 0 on"):
        Options(polygon_tolerance=tolerance)

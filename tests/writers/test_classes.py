"""Names of classes in what is written; masks without them are written as before."""

import csv
import dataclasses
import json

import pytest
import yaml

from samjax.writers import FORMATS, Options

NAMES = ("cat", "yes", 'a "b", c')


@pytest.fixture
def some(found):
    """Four objects: of each class, and of none; the last has neither scores nor a point."""
    records = [dict(record) for record in found.records[:4]]
    for record, name in zip(records, NAMES, strict=False):
        record["class"] = name
    for key in ("predicted_iou", "stability_score", "point_coords"):
        del records[3][key]
    return dataclasses.replace(found, records=records)


OPTIONS = Options(classes=(*NAMES, "object"))


def test_coco_has_categories_and_the_scores_that_there_are(some, tmp_path):
    (path,) = FORMATS["coco"].write(some, tmp_path, OPTIONS)
    (whole,) = FORMATS["coco"].finish(tmp_path, ["shapes"], OPTIONS)
    for content in (json.loads(path.read_text()), json.loads(whole.read_text())):
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        assert names == dict(enumerate((*NAMES, "object"), 1))
        assert [names[entry["category_id"]] for entry in content["annotations"]] == [*NAMES, "object"]
        assert ["predicted_iou" in entry for entry in content["annotations"]] == [True, True, True, False]


def test_yolo_numbers_classes_in_order_and_its_yaml_names_them(some, tmp_path):
    labels, _ = FORMATS["yolo"].write(some, tmp_path, OPTIONS)
    assert {row.split()[0] for row in labels.read_text().splitlines()} == {"0", "1", "2", "3"}
    (path,) = FORMATS["yolo"].finish(tmp_path, ["shapes"], OPTIONS)
    assert yaml.safe_load(path.read_text())["names"] == dict(enumerate((*NAMES, "object")))


def test_labelme_has_labels_and_the_scores_that_there_are(some, tmp_path):
    (path,) = FORMATS["labelme"].write(some, tmp_path, OPTIONS)
    shapes = {shape["group_id"]: shape for shape in json.loads(path.read_text())["shapes"]}
    assert [shapes[number]["label"] for number in range(4)] == [*NAMES, "object"]
    assert shapes[0]["description"] == "predicted IoU 0.900, stability 0.960"
    assert shapes[3]["description"] == ""


def test_run_lengths_have_the_class_of_each_record(some, tmp_path):
    (path,) = FORMATS["rle"].write(some, tmp_path, OPTIONS)
    assert [record.get("class") for record in json.loads(path.read_text())] == [*NAMES, None]


def test_pictures_have_a_column_more(some, tmp_path):
    (folder,) = FORMATS["png"].write(some, tmp_path, OPTIONS)
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*NAMES, "object"]
    assert (rows[0]["predicted_iou"], rows[3]["predicted_iou"], rows[3]["point_input_x"]) == ("0.9", "", "")
    assert [row["crop_box_w"] for row in rows] == ["120"] * 4


def test_a_label_map_has_a_legend(some, tmp_path):
    path, legend = FORMATS["labelmap"].write(some, tmp_path, OPTIONS)
    assert legend.name == "shapes_labels.json"
    described = json.loads(legend.read_text())
    assert {number: entry["class"] for number, entry in described.items()} == {
        "1": "cat", "2": "yes", "3": 'a "b", c', "4": "object"
    }  # fmt: skip
    assert described["1"]["predicted_iou"] == 0.9
    assert FORMATS["labelmap"].write(some, tmp_path, Options()) == [path]


def test_geojson_has_the_class_as_a_property(some, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed (pip install samjax[geo])")
    path = tmp_path / "geo.tif"
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    profile = {"driver": "GTiff", "height": 80, "width": 120, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(some.rgb.transpose(2, 0, 1))
    placed = dataclasses.replace(some, photo=dataclasses.replace(some.photo, path=path))
    (written,) = FORMATS["geojson"].write(placed, tmp_path, OPTIONS)
    properties = [feature["properties"] for feature in json.loads(written.read_text())["features"]]
    assert [entry.get("class") for entry in properties] == [*NAMES, None]
    assert "predicted_iou" not in properties[3]


def test_an_overlay_needs_no_score(some, tmp_path):
    (path,) = FORMATS["overlay"].write(some, tmp_path, OPTIONS)
    assert path.stat().st_size


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "labelmap", "png"])
def test_a_class_that_is_not_listed_is_an_error(some, tmp_path, format):
    with pytest.raises(ValueError, match="of class cat, which is not one of yes, object"):
        FORMATS[format].write(some, tmp_path, Options(classes=("yes", "object")))


def test_classes_have_different_names():
    with pytest.raises(ValueError, match="different names, got a, a"):
        Options(classes=("a", "a"))


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme"])
def test_without_classes_every_mask_is_an_object(some, tmp_path, format):
    written = FORMATS[format].write(some, tmp_path, Options())[0]
    text = written.read_text()
    if format == "yolo":
        assert {row.split()[0] for row in text.splitlines()} == {"0"}
    else:
        assert '"cat"' not in text
        assert "object" in text

"""Files for annotation tools: YOLO (Ultralytics) and labelme."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from pycocotools import mask as coco

from samjax.writers import FORMATS, Options


def rasterised(rings, size) -> np.ndarray:
    return coco.decode(coco.merge(coco.frPyObjects(rings, *size))).astype(bool)


def test_yolo_rows_are_class_and_normalised_polygon_by_part(found, masks, records_of, tmp_path):
    labels, _ = FORMATS["yolo"].write(found, tmp_path, Options(polygon_tolerance=0.0))
    assert labels == tmp_path / "yolo" / "labels" / "shapes.txt"
    rows = [row.split() for row in labels.read_text().splitlines()]
    assert {row[0] for row in rows} == {"0"}
    polygons = [np.array(row[1:], float).reshape(-1, 2) for row in rows]
    assert all(len(polygon) >= 3 for polygon in polygons)
    assert all((polygon >= 0).all() and (polygon <= 1).all() for polygon in polygons)
    disc, ring = (rasterised([(polygon * (120, 80)).ravel().tolist()], (80, 120)) for polygon in polygons[:2])
    np.testing.assert_array_equal(disc, masks["disc"])
    np.testing.assert_array_equal(ring, masks["ring"])


def test_yolo_finds_each_photo_where_its_labels_are(found, tmp_path):
    labels, picture = FORMATS["yolo"].write(found, tmp_path, Options())
    FORMATS["yolo"].write(found, tmp_path, Options())
    # Ultralytics' own rule, ultralytics.data.utils.img2label_paths
    assert str(picture).replace("/images/", "/labels/").rsplit(".", 1)[0] + ".txt" == str(labels)
    assert picture.read_bytes() == found.photo.path.read_bytes()
    (data,) = FORMATS["yolo"].finish(tmp_path, ["shapes"])
    assert data == tmp_path / "yolo" / "data.yaml"
    assert "path:" not in data.read_text()  # left out it is the folder of the file itself
    assert "train: images\n" in data.read_text()
    assert "  0: object\n" in data.read_text()


def test_yolo_copies_photos_where_links_cannot_be_made(found, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    _, picture = FORMATS["yolo"].write(found, tmp_path, Options())
    assert not picture.is_symlink()
    assert picture.read_bytes() == found.photo.path.read_bytes()


def test_labelme_shapes_are_the_parts_of_each_mask(found, masks, tmp_path):
    (path,) = FORMATS["labelme"].write(found, tmp_path, Options(polygon_tolerance=0.0))
    content = json.loads(path.read_text())
    assert content.keys() == {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert (path.parent / content["imagePath"]).resolve() == found.photo.path.resolve()
    for number, mask in enumerate(masks.values()):
        parts = [shape["points"] for shape in content["shapes"] if shape["group_id"] == number]
        np.testing.assert_array_equal(rasterised([np.ravel(part).tolist() for part in parts], mask.shape), mask)


@pytest.fixture
def label_file(monkeypatch):
    """labelme's reader, without the graphical interface that its package imports beside it."""
    package = importlib.util.find_spec("labelme")
    if package is None or not package.submodule_search_locations:
        pytest.skip("labelme is not installed (pip install --no-deps labelme loguru tifffile)")
    pytest.importorskip("loguru")
    pytest.importorskip("tifffile")
    labelme = types.ModuleType("labelme")
    labelme.__path__ = list(package.submodule_search_locations)
    labelme.__version__ = importlib.metadata.version("labelme")
    labelme.utils = types.ModuleType("labelme.utils")  # needs Qt; two of its functions are wanted
    labelme.utils.apply_exif_orientation = lambda image: image
    labelme.utils.img_data_to_pil = picture_of_bytes
    monkeypatch.setitem(sys.modules, "labelme", labelme)
    monkeypatch.setitem(sys.modules, "labelme.utils", labelme.utils)
    name = "labelme._label_file"
    if importlib.util.find_spec(name) is None:
        pytest.skip("this labelme keeps its reader elsewhere")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def picture_of_bytes(img_data):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(img_data))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the picture's file open
def test_labelme_reads_its_file(label_file, found, tmp_path):
    (path,) = FORMATS["labelme"].write(found, tmp_path, Options())
    data = label_file.read_label_file(str(path))
    assert data.image_data == found.photo.path.read_bytes()
    assert len(data.shapes) == len(json.loads(path.read_text())["shapes"])
    assert {shape["shape_type"] for shape in data.shapes} == {"polygon"}
    assert [shape["group_id"] for shape in data.shapes][:2] == [0, 1]
